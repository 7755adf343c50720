"""Schedules: what becomes of lanes while an experiment runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from hyperlax.experiments.settings import convert
from hyperlax.hyperparams import nearest
from hyperlax.schedules.asha import ASHA
from hyperlax.schedules.base import Schedule, Verdict
from hyperlax.schedules.pbt import PBT
from hyperlax.schedules.view import RunnerView

SCHEDULES: dict[str, type[Schedule]] = {"asha": ASHA, "pbt": PBT}
"""Those that `--scheduler` knows."""

__all__ = ["ASHA", "PBT", "SCHEDULES", "RunnerView", "Schedule", "Verdict", "load"]


def load(name: str, options: Mapping[str, Any]) -> Schedule:
    """The schedule called `name` with `options`, which may be text.

    Raises `ValueError` for an unknown name or option, naming the nearest, and for a value that cannot be.
    """
    if name not in SCHEDULES:
        raise ValueError(
            f'unknown scheduler "{name}"{nearest(name, SCHEDULES)}; known: {", ".join(SCHEDULES)}'
        )
    kind: Any = SCHEDULES[name]
    known = {f.name: type(f.default) for f in dataclasses.fields(kind) if f.init}
    for option in options:
        if option not in known:
            full = f"scheduler.{option}"
            raise ValueError(
                f'{name} has no option "{full}"{nearest(full, [f"scheduler.{k}" for k in known])}'
            )
    return kind(**{k: convert(f"scheduler.{k}", v, known[k]) for k, v in options.items()})
