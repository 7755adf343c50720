"""Schedules, which stop, copy or add lanes while an experiment runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hyperlax.registry import Registry, build, built_in
from hyperlax.schedules.asha import ASHA
from hyperlax.schedules.base import Schedule, Verdict
from hyperlax.schedules.pbt import PBT
from hyperlax.schedules.view import RunnerView

SCHEDULES: Registry[type[Schedule]] = built_in.SCHEDULES
"""The schedules that `--scheduler` accepts, by name."""

__all__ = ["ASHA", "PBT", "SCHEDULES", "RunnerView", "Schedule", "Verdict", "load"]


def load(name: str, options: Mapping[str, Any]) -> Schedule:
    """The schedule called `name`, registered or `file.py:Name`, with `options`, which may be text.

    Raises `ValueError` for an unknown name or option, naming the nearest, and for an invalid value.
    """
    return build(name, SCHEDULES.resolve(name), options, prefix="scheduler.")
