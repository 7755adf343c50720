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
    """One agent in training, given by sample and seed, and its progress.

    `lane` is its number, `seconds` the time since it started, and `diverged_at` the env step after which it
    diverged. `cause` says why it has diverged or failed (`run.causes.CAUSES`); empty unless it has.
    """

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
    cause: str = ""

    @property
    def over(self) -> bool:
        """Whether its training has ended, for any reason."""
        return self.status in ("done", "diverged", "pruned", "failed")


@dataclass(frozen=True, eq=False)
class Sample:
    """One choice of hyperparameters, with everything that its lanes need.

    - `place`: its position among the samples of the experiment, from which lanes and programs are numbered.
    - `id`: its number in every table.
    - `row`: the values it was made from, by dotted path, with `sample` and `matrix` if they were given.
    - `tree`: all of its hyperparameters.
    - `keys`, `init_keys`: raw random keys for training and for initial weights, one row per seed.
    - `executions`: circuits that a quantum computer would run, per env step and per gradient step.
    - `steps`: the env steps that its lanes train in all (`programs.budget.steps_of`).
    - `work`: predicted cost of one cycle, in the unit of `Program.work`; NaN before it has a program.
    """

    place: int
    id: int
    row: dict[str, Any]
    tree: AbstractAgentHyperparams
    keys: UInt32[np.ndarray, "seeds 2"]
    init_keys: UInt32[np.ndarray, "seeds 2"]
    executions: tuple[float, float]
    steps: int
    work: float = math.nan


@jax.jit
def lane_keys(
    base: UInt32[Array, "2"], sample: Shaped[Array, ""], seeds: Shaped[Array, " seeds"]
) -> tuple[UInt32[Array, "seeds 2"], UInt32[Array, "seeds 2"]]:
    """Raw keys (training, initial weights) of the lanes of a sample; they depend on its id and seeds alone.

    `base` is the raw key of the experiment, and `sample` the id of the sample.
    """

    def one(seed: Any) -> tuple[Any, Any]:
        lane_key = jr.fold_in(jr.fold_in(jr.wrap_key_data(base), sample), seed)
        return jr.key_data(jr.fold_in(lane_key, 0)), jr.key_data(jr.fold_in(lane_key, 1))

    return jax.vmap(one)(seeds)
