"""Analytic environments of a few lines each, whose solutions are known (after Jones 2021)."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from hyperlax.envs.base import AbstractEnv, ActionSpace, Box, Discrete, Timestep


class Probe(AbstractEnv):
    """Base: the state is (time, observation)."""

    obs_size: int = eqx.field(static=True, default=1)
    action_space: ActionSpace = eqx.field(default_factory=lambda: Discrete(2))
    max_episode_steps: int = eqx.field(static=True, default=1)
    length: ClassVar[int] = 1
    truncates: ClassVar[bool] = False

    def observation(self, t: Array, drawn: Array) -> Float[Array, " obs"]:
        return jnp.zeros(1)

    def reward(self, t: Array, drawn: Array, action: Array) -> Float[Array, ""]:
        return jnp.ones(())

    def reset(self, *, key: Any) -> tuple[Any, Float[Array, " obs"]]:
        drawn = jr.rademacher(key, (), jnp.float32)
        t = jnp.zeros((), jnp.int32)
        return (t, drawn), self.observation(t, drawn)

    def step(self, state: Any, action: Array, *, key: Any) -> tuple[Any, Timestep]:
        t, drawn = state
        reward = self.reward(t, drawn, action)
        over = t + 1 >= self.length
        stop = jnp.full((), self.truncates)
        seen = Timestep(self.observation(t + 1, drawn), reward, over & ~stop, over & stop)
        return (t + 1, drawn), seen


class ConstantReward(Probe):
    """One step, reward 1: V = 1."""


class ObservedReward(Probe):
    """One step, reward is the observation ±1: V(o) = o."""

    def observation(self, t, drawn):
        return drawn[None]

    def reward(self, t, drawn, action):
        return drawn


class TwoSteps(Probe):
    """Reward only at the second step: V(second) = 1, V(first) = γ."""

    length: ClassVar[int] = 2
    max_episode_steps: int = eqx.field(static=True, default=2)

    def observation(self, t, drawn):
        return t.astype(jnp.float32)[None]

    def reward(self, t, drawn, action):
        return (t == 1).astype(jnp.float32)


class ActionReward(Probe):
    """One step, reward +1 for action 1 and −1 for action 0."""

    def reward(self, t, drawn, action):
        return 2.0 * action.astype(jnp.float32) - 1.0


class MatchReward(Probe):
    """One step, reward +1 when the action tells the observation's sign."""

    def observation(self, t, drawn):
        return drawn[None]

    def reward(self, t, drawn, action):
        return jnp.where((action == 1) == (drawn > 0), 1.0, -1.0)


class Quadratic(Probe):
    """One step, continuous: reward −(a − o/2)², best action o/2, reward 0."""

    action_space: ActionSpace = eqx.field(default_factory=lambda: Box((-1.0,), (1.0,)))

    def observation(self, t, drawn):
        return drawn[None]

    def reward(self, t, drawn, action):
        return -jnp.sum((action - drawn / 2) ** 2)


class Truncated(Probe):
    """Reward 1 for ever, cut after five steps by a time limit: V = 1 / (1 − γ)."""

    length: ClassVar[int] = 5
    truncates: ClassVar[bool] = True
    max_episode_steps: int = eqx.field(static=True, default=5)


class Terminated(Probe):
    """Reward 1 for five steps with the time seen, then the end: V(t) = (1 − γ^(5−t)) / (1 − γ)."""

    length: ClassVar[int] = 5
    max_episode_steps: int = eqx.field(static=True, default=5)

    def observation(self, t, drawn):
        return (t.astype(jnp.float32) / 5.0)[None]
