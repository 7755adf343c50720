"""Why a lane was lost, determined on the host from its final state."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from hyperlax.envs.base import AbstractEnv, Discrete
from hyperlax.hyperparams import values
from hyperlax.learning.normalise import Normaliser
from hyperlax.learning.replay import Replay
from hyperlax.programs.train import TrainState

ENVIRONMENT, LEARNING, MEMORY, EXCEPTION = CAUSES = ("environment", "learning", "memory", "exception")
"""The causes for which lanes are lost.

A lane diverges because its environment returned numbers that are not finite, or because learning made its
weights so. It fails because memory did not suffice, or because of another exception.
"""
ADAM_REACH = 3.2
"""The step of Adam in units of the step size, at most: (1 − β₁) / √(1 − β₂) with the usual β (Kingma & Ba,
2015, section 2.1)."""
SAFE_REACH = 88.0
"""Weights that have moved less than this give finite actions: float32 holds exp(88), and not exp(89)."""


def divergence(state: TrainState, env: AbstractEnv, scored: bool = True) -> str:
    """The cause for which a lane with this final `state` (host arrays) has diverged.

    `scored` is false if its weights are finite, and a return of its evaluation is not. A lane stops in the
    cycle in which its weights are spoilt, so that the rollout before was collected with finite weights.
    Finite weights can still be so large that actions overflow. An environment is blamed only if the actions
    that it was given are known to have been finite: from the replay buffer, because they are discrete, or
    because the weights cannot have moved far.
    """
    buffers = [node for node in _remembered(state.agent) if isinstance(node, Replay)]
    if any(_answers_badly(replay) for replay in buffers):
        return ENVIRONMENT
    spoilt = not (scored and _experience_is_finite(state))
    harmless = isinstance(env.action_space, Discrete) or _reach(state) < SAFE_REACH
    return ENVIRONMENT if spoilt and harmless else LEARNING


def failure(error: Exception) -> str:
    """The cause for which a program that raised `error` has failed."""
    said = str(error).lower()
    short = isinstance(error, MemoryError) or "resource_exhausted" in said or "out of memory" in said
    return MEMORY if short else EXCEPTION


def _remembered(agent: Any) -> Iterator[Any]:
    """The replay buffers and statistics of observations that an agent holds."""
    kinds = (Normaliser, Replay)
    nodes = jax.tree.leaves(agent, is_leaf=lambda node: isinstance(node, kinds))
    return (node for node in nodes if isinstance(node, kinds))


def _answers_badly(replay: Replay) -> bool:
    """Whether a finite observation and action were followed by a reward or an observation that is not."""
    used = min(int(replay.added), int(replay.capacity))
    finite = np.isfinite(np.asarray(replay.table.value)[:used])
    obs = (finite.shape[1] - 2 - math.prod(replay.action_like.shape)) // 2
    given = finite[:, :obs].all(axis=1) & finite[:, 2 * obs : -2].all(axis=1)
    answered = finite[:, obs : 2 * obs].all(axis=1) & finite[:, -2]
    return bool((given & ~answered).any())


def _experience_is_finite(state: TrainState) -> bool:
    """Whether the current observations, the returns and the statistics of observations are all finite."""
    hp: Any = state.agent.hp
    envs, used = state.envs, int(hp.num_envs)
    current = [np.asarray(x).reshape(-1, *x.shape[2:])[:used] for x in (envs.obs, envs.episode_return)]
    statistics = [
        x for n in _remembered(state.agent) if isinstance(n, Normaliser) for x in (n.mean, n.variance)
    ]
    return all(np.isfinite(x).all() for x in (*current, state.finished.returns, *statistics))


def _reach(state: TrainState) -> float:
    """How far learning can have moved a weight, at most, by the agent's own step sizes."""
    own = values(state.agent.hp).items()
    rates = [float(v) for k, v in own if "." not in k and (k.endswith("_lr") or k in ("lr", "learning_rate"))]
    return ADAM_REACH * max(rates, default=0.0) * int(state.gradient_steps)
