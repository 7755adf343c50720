"""The samples of an experiment and the lanes that train them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array, Shaped, UInt32

from hyperlax.agents.base import AbstractAgentHyperparams


@dataclass
class Lane:
    """One agent in training: a sample × a seed, and how far it has come."""

    lane: int
    sample: int
    seed: int
    program: int = -1
    status: str = "queued"
    env_steps: int = 0
    gradient_steps: int = 0
    circuit_executions: int = 0
    seconds: float = 0.0
    parameters: int = 0
    diverged_at: int | None = None

    @property
    def over(self) -> bool:
        """Whether its training has ended, for whatever reason."""
        return self.status in ("done", "diverged", "pruned", "failed")


@dataclass(frozen=True, eq=False)
class Sample:
    """One choice of hyperparameters, and everything about it that its lanes need.

    - `place`: its position among the experiment's samples, by which lanes and programs count.
    - `id`: the number it is known by in every table.
    - `row`: what it was made from, dotted path → value, with `sample` and `matrix` where they were given.
    - `tree`: all of its hyperparameters.
    - `keys`, `init_keys`: raw random keys for training and for initial weights, one row per seed.
    - `executions`: circuits that a quantum computer would run, per env step and per gradient step.
    - `work`: predicted cost of one cycle in the program that trains it; NaN as long as it has none.
    """

    place: int
    id: int
    row: dict[str, Any]
    tree: AbstractAgentHyperparams
    keys: UInt32[np.ndarray, "seeds 2"]
    init_keys: UInt32[np.ndarray, "seeds 2"]
    executions: tuple[float, float]
    work: float = math.nan


@jax.jit
def lane_keys(
    base: UInt32[Array, "2"], sample: Shaped[Array, ""], seeds: Shaped[Array, " seeds"]
) -> tuple[UInt32[Array, "seeds 2"], UInt32[Array, "seeds 2"]]:
    """Raw keys (training, initial weights) of a sample's lanes, which belong to (sample id, seed) alone.

    `base` is the experiment's raw key, `sample` the sample's id.
    """

    def one(seed: Any) -> tuple[Any, Any]:
        own = jr.fold_in(jr.fold_in(jr.wrap_key_data(base), sample), seed)
        return jr.key_data(jr.fold_in(own, 0)), jr.key_data(jr.fold_in(own, 1))

    return jax.vmap(one)(seeds)
