"""Interpretation of the arguments of an experiment: values to set, and samples to draw, read or take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from hyperlax.experiments.recipes import Recipe
from hyperlax.experiments.settings import Settings
from hyperlax.hyperparams import samplers
from hyperlax.registry import nearest


def split(set_: Mapping[str, Any], known: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """Split `--set` entries into hyperparameters, settings, and options of the environment.

    Raises `ValueError` for a name that is unknown or given twice.
    """
    settings = dict.fromkeys(Settings.__dataclass_fields__)
    fixed, changes, options = {}, {}, {}
    for given, value in set_.items():
        name = given.replace("eval.", "eval_", 1) if given.startswith("eval.") else given
        if name in fixed or name in changes:
            raise ValueError(f"--set {name} is given twice, as {given} too")
        if name in known:
            fixed[name] = value
        elif name in settings:
            changes[name] = value
        elif name.startswith("env."):
            options[name.removeprefix("env.")] = value
        else:
            raise ValueError(
                f'unknown hyperparameter or setting "{given}"{nearest(name, [*known, *settings])}'
            )
    return fixed, changes, options


def sample_rows(
    recipe: Recipe,
    known: Sequence[str],
    fixed: Mapping[str, Any],
    settings: Settings,
    num_samples: int | None,
    method: samplers.Method,
    experiment_type: str,
    omit_ab: bool,
    samples: Any,
) -> list[dict[str, Any]]:
    """The samples of a sweep, as dicts from dotted path to value; one empty dict for the defaults."""
    samplers.check_experiment_type(experiment_type)
    if isinstance(samples, (str, Path)):
        return samplers.rest(samplers.SamplesFile(Path(samples), known))
    if samples is not None:
        rows = samples.to_dicts() if isinstance(samples, pl.DataFrame) else samples
        if not len(rows):
            raise ValueError("no samples were given; leave samples out to train the recipe's defaults")
        return [{k: v for k, v in row.items() if v is not None} for row in rows]  # None: an empty cell
    if num_samples is None and isinstance(method, str):
        return [{}]
    return samplers.draw(
        recipe.search_space(),
        num_samples,
        method=method,
        experiment_type=experiment_type,
        omit_ab=omit_ab,
        seed=settings.seed,
    )
