"""Which hyperparameters may change while a lane trains, and how they are perturbed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.hyperparams import assign, fields, values
from hyperlax.hyperparams.spaces import Joint, Space

COLLECTED = ("num_envs", "rollout_length")
"""Sizes that belong to the environments a lane has, and decide where its cycles end."""


def changeable(
    tree: AbstractAgentHyperparams, space: Mapping[str, Space], fixed: Mapping[str, Any]
) -> dict[str, Space]:
    """The part of `space` that a lane in training can follow exactly.

    Left out are: what is `fixed`; hyperparameters of the networks, which belong to the weights; those marked
    `fixed_at_start`; those that change what a cycle collects; and those with a single value. Epochs,
    minibatches, batches and replay ratio are trip counts and masks inside the allocation, so they stay. A
    joint choice is kept when all of its hyperparameters are.
    """
    own = {f.path for f in fields(tree) if "." not in f.path and not f.fixed_at_start}

    def follows(path: str, dimension: Space) -> bool:
        paths = dimension.paths if isinstance(dimension, Joint) else (path,)
        grid = dimension.grid(2)
        if not all(p in own and p not in fixed for p in paths) or len(grid) < 2:
            return False
        collected = [_collected(assign(tree, _named(path, value))) for value in grid]
        return all(c == _collected(tree) for c in collected)

    return {path: dimension for path, dimension in space.items() if follows(path, dimension)}


def perturbed(
    tree: AbstractAgentHyperparams,
    space: Mapping[str, Space],
    factor: float | int,
    resample: float | int,
    fits: Callable[[AbstractAgentHyperparams], bool],
    rng: np.random.Generator,
) -> AbstractAgentHyperparams:
    """`tree` with every hyperparameter of `space` a step up or down.

    Whole numbers and choices are drawn anew instead with chance `resample`. Where the result no longer `fits`
    its program, a hyperparameter stays as it was. The numbers drawn do not depend on the values, so that the
    step of one does not change another's.
    """
    for path, dimension in space.items():
        again, u, up = rng.random(), rng.random(), bool(rng.random() < 0.5)
        present = values(tree)
        here = {p: present[p] for p in dimension.paths} if isinstance(dimension, Joint) else present[path]
        drawn = again < resample and not dimension.continuous
        value = dimension.ppf(u) if drawn else dimension.beside(here, up, factor)
        moved = assign(tree, _named(path, value))
        tree = moved if fits(moved) else tree
    return tree


def _named(path: str, value: Any) -> Mapping[str, Any]:
    """A value of a dimension by dotted path; that of a joint one already is."""
    return value if isinstance(value, Mapping) else {path: value}


def _collected(tree: AbstractAgentHyperparams) -> list[int]:
    sizes = tree.sizes()
    return [sizes[name] for name in COLLECTED]
