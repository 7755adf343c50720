"""Environments that return numbers that are not finite, in every lane or in the lanes that a test picks."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from hyperlax.envs.base import AbstractEnv, ActionSpace, Box, Discrete, Timestep

SOUND, REWARD, OBSERVATION = range(3)
"""The values of `fault`: nothing is wrong, or what is NaN from step `after` of an episode on."""


class Dial(AbstractEnv):
    """Turns a dial back to zero. The state of an episode holds its own `fault`, so that it can be changed."""

    fault: int = eqx.field(static=True, default=SOUND)
    after: int = eqx.field(static=True, default=12)
    obs_size: int = 2
    action_space: ActionSpace = eqx.field(default_factory=lambda: Box((-1.0,), (1.0,)))
    max_episode_steps: int = 20

    def reset(self, *, key: Any) -> tuple[Any, jax.Array]:
        state = {"time": jnp.int32(0), "place": jr.uniform(key, minval=-1.0), "fault": jnp.int32(self.fault)}
        return state, self.seen(state)

    def step(self, state: Any, action: jax.Array, *, key: Any) -> tuple[Any, Timestep]:
        place = jnp.clip(state["place"] + 0.3 * self.turn(action), -2.0, 2.0)
        after = {**state, "time": state["time"] + 1, "place": place}
        over = after["time"] >= self.max_episode_steps
        spoilt = (after["time"] >= self.after) & (state["fault"] == REWARD)
        reward = jnp.where(spoilt, jnp.nan, -(place**2))
        return after, Timestep(self.seen(after), reward, jnp.bool_(False), over)

    def turn(self, action: jax.Array) -> jax.Array:
        return action[0]

    def seen(self, state: Any) -> jax.Array:
        spoilt = (state["time"] >= self.after) & (state["fault"] == OBSERVATION)
        return jnp.stack([jnp.where(spoilt, jnp.nan, state["place"]), state["time"].astype(jnp.float32) / 20])


class Switch(Dial):
    """The same with three positions instead of a continuous action."""

    action_space: ActionSpace = eqx.field(default_factory=lambda: Discrete(3))

    def turn(self, action: jax.Array) -> jax.Array:
        return action.astype(jnp.float32) - 1.0
