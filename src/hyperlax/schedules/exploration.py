"""The hyperparameters that may change while a lane trains, and their perturbation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.hyperparams import assign, fields, values
from hyperlax.hyperparams.spaces import Joint, Space

COLLECTED = ("num_envs", "rollout_length")
"""The sizes that a lane cannot change, because they shape its environments and its cycles."""


def changeable(
    tree: AbstractAgentHyperparams, space: Mapping[str, Space], fixed: Mapping[str, Any]
) -> dict[str, Space]:
    """The part of `space` that a lane can change while it trains.

    It leaves out hyperparameters that are `fixed`, belong to a network (and so to its weights), are marked
    `fixed_at_start`, change what a cycle collects, or have a single value. Epochs, minibatches, batch sizes
    and replay ratios are trip counts and masks inside the allocation, so they can change. A joint choice is
    included if all of its hyperparameters are.
    """
    adjustable = {f.path for f in fields(tree) if "." not in f.path and not f.fixed_at_start}

    def can_change(path: str, dimension: Space) -> bool:
        paths = dimension.paths if isinstance(dimension, Joint) else (path,)
        grid = dimension.grid(2)
        if not all(p in adjustable and p not in fixed for p in paths) or len(grid) < 2:
            return False
        collected = [_collected(assign(tree, _by_path(path, value))) for value in grid]
        return all(c == _collected(tree) for c in collected)

    return {path: dimension for path, dimension in space.items() if can_change(path, dimension)}


def perturbed(
    tree: AbstractAgentHyperparams,
    space: Mapping[str, Space],
    factor: float | int,
    resample: float | int,
    fits: Callable[[AbstractAgentHyperparams], bool],
    rng: np.random.Generator,
) -> AbstractAgentHyperparams:
    """Move every hyperparameter of `space` in `tree` a step up or down (`Space.beside` with `factor`).

    Whole numbers and choices are instead drawn anew with probability `resample`. A hyperparameter stays as it
    was if the result would no longer fit its program, as `fits` says. The number of random draws does not
    depend on the values, so that the step of one hyperparameter does not influence those of others.
    """
    for path, dimension in space.items():
        again, u, up = rng.random(), rng.random(), bool(rng.random() < 0.5)
        present = values(tree)
        here = {p: present[p] for p in dimension.paths} if isinstance(dimension, Joint) else present[path]
        drawn = again < resample and not dimension.continuous
        value = dimension.ppf(u) if drawn else dimension.beside(here, up, factor)
        moved = assign(tree, _by_path(path, value))
        tree = moved if fits(moved) else tree
    return tree


def _by_path(path: str, value: Any) -> Mapping[str, Any]:
    """A value of a dimension as a mapping from dotted paths; that of a joint one already is."""
    return value if isinstance(value, Mapping) else {path: value}


def _collected(tree: AbstractAgentHyperparams) -> list[int]:
    """The values of the sizes `COLLECTED`."""
    sizes = tree.sizes()
    return [sizes[name] for name in COLLECTED]
