"""A handful of small lanes to hold the laws against, and the programs that train them, compiled once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hyperlax.agents import costs
from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.envs.base import AbstractEnv
from hyperlax.hyperparams import stack
from hyperlax.lanes.compilation import compiler_options
from hyperlax.lanes.constants import tracing_for_accelerator
from hyperlax.lanes.masking import LANES
from hyperlax.lanes.sizes import Extent, Sizes
from hyperlax.programs import train
from hyperlax.programs.compiled import non_arrays
from hyperlax.programs.shared import Shared, shared_values
from hyperlax.programs.train import TrainState

TOTAL = 10_000
"""Env steps of a lane's budget, of which these lanes use few."""


class Program:
    """A program that starts and trains lanes inside the capacities `caps`; it notes what it is traced for.

    With `together` it takes several lanes, stacked, otherwise a single one without an axis of lanes. `traces`
    are the types of its arguments by path, once for each time it was traced. With `accelerator` it is the
    program for accelerators of lanes with the hyperparameters `hps`; it runs on any device, and takes cycles
    in two parts if agents can learn in parts.
    """

    def __init__(
        self,
        env: AbstractEnv,
        caps: Sizes,
        hps: Sequence[AbstractAgentHyperparams],
        *,
        together: bool,
        accelerator: bool,
    ):
        self.traces: dict[str, list[dict[str, Any]]] = {"start": [], "segment": []}
        if accelerator:
            caps = costs.whole({**caps})
            if hps[0].learns_in_parts and caps["gradient_steps"] > 1:
                caps["steps_per_part"] = Extent(-(-caps["gradient_steps"] // 2))
        shared = Shared(shared_values(hps) if accelerator else {})

        def start(hp: Any, key: Any) -> TrainState:
            self.traces["start"].append(kinds((hp, key)))
            with tracing_for_accelerator(accelerator):
                state = train.start(hp, env, caps, jnp.int32(TOTAL), key=key, init_key=key)
            shared.find(hp, state)
            return state

        def segment(state: TrainState, cycles: Any) -> TrainState:
            self.traces["segment"].append(kinds((state, cycles)))
            with tracing_for_accelerator(accelerator):
                iterations = cycles * train.parts(state.agent, caps)
                return train.segment(state, env, caps, iterations, shared)

        low = compiler_options("low", jax.default_backend())
        mapped = (lambda f: jax.vmap(f, axis_name=LANES)) if together else (lambda f: f)
        self.start = jax.jit(mapped(start), compiler_options=low)
        self.segment = jax.jit(mapped(segment), compiler_options=low)


class Lanes:
    """Lanes of random samples in one environment, and a second lot that fits into the same program."""

    def __init__(
        self,
        env: AbstractEnv,
        hps: Sequence[AbstractAgentHyperparams],
        others: Sequence[AbstractAgentHyperparams],
        seed: int,
        accelerator: bool = False,
    ):
        self.env, self.hps, self.others = env, list(hps), list(others)
        self.keys = np.asarray([[seed, i] for i in range(len(hps))], np.uint32)
        self.cycles = np.asarray([2 + (0, 1, 0, 2)[i % 4] for i in range(len(hps))], np.int32)
        both = [*hps, *others]
        self.caps = hps[0].capacities([hp.sizes() for hp in both], [1] * len(both), env)
        self.accelerator = accelerator
        self.program = Program(env, self.caps, both, together=True, accelerator=accelerator)

    @cached_property
    def began(self) -> TrainState:
        """All lanes before their first step."""
        state = self.program.start(as_arrays(stack(self.hps)), jnp.asarray(self.keys))
        if others := non_arrays(state):
            raise AssertionError(
                f"{type(self.hps[0]).__name__} builds an agent that holds {others[0]}, which is not an array"
            )
        check_strong(f"{type(self.hps[0]).__name__} starts lanes whose", state)
        return state

    @cached_property
    def ended(self) -> TrainState:
        """All lanes after their cycles, of which some have more than others."""
        return self.program.segment(self.began, jnp.asarray(self.cycles))

    def alone(self, i: int) -> tuple[TrainState, TrainState]:
        """Lane `i` before its first step and after its cycles, in a program of its own sizes."""
        hp = self.hps[i]
        caps = hp.capacities([hp.sizes()], [1], self.env)
        program = Program(self.env, caps, [hp], together=False, accelerator=self.accelerator)
        began = program.start(as_arrays(hp), jnp.asarray(self.keys[i]))
        return began, program.segment(began, jnp.asarray(self.cycles[i]))


def as_arrays(tree: Any) -> Any:
    """Every leaf as an array on the device."""
    return jax.tree.map(jnp.asarray, tree)


def lane(states: TrainState, i: int) -> TrainState:
    """Lane `i` of several."""
    return jax.tree.map(lambda x: x[i], states)


def check_strong(where: str, tree: Any) -> None:
    """Check that no leaf is weakly typed: what is saved and loaded is not, and would be compiled anew."""
    for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]:
        assert not jax.typeof(x).weak_type, (
            f"one program: {where} {jax.tree_util.keystr(path)} is weakly typed, and would be compiled anew "
            f"when resumed; give it a dtype, as in jnp.asarray(1.0, jnp.{x.dtype})"
        )


def kinds(tree: Any) -> dict[str, Any]:
    """The shape and type of every leaf, weak types included, by path."""
    return {jax.tree_util.keystr(p): jax.typeof(x) for p, x in jax.tree_util.tree_flatten_with_path(tree)[0]}
