"""An environment of one step whose best action lies three quarters up the range, whatever its units."""

from __future__ import annotations

from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp

from hyperlax.envs.base import AbstractEnv, ActionSpace, Box, Timestep

BEST = 0.75

BOUNDS = {
    "ones": Box((-1.0,), (1.0,)),
    "small": Box((-0.01,), (0.01,)),
    "positive": Box((0.0,), (100.0,)),
    "large": Box((-1000.0,), (1000.0,)),
    "of each its own": Box((-0.01, 0.0, -5.0), (0.03, 100.0, 1000.0)),
}


@final
class Aim(AbstractEnv):
    """Pays minus the squared distance from `BEST` of the action as a share of the range, in the mean."""

    action_space: ActionSpace = BOUNDS["ones"]
    obs_size: int = eqx.field(static=True, default=1)
    max_episode_steps: int = eqx.field(static=True, default=1)

    def reset(self, *, key: Any) -> tuple[Any, jax.Array]:
        return jnp.zeros(()), jnp.ones(1)

    def step(self, state: Any, action: jax.Array, *, key: Any) -> tuple[Any, Timestep]:
        reward = -jnp.mean((self.share(action) - BEST) ** 2)
        return state, Timestep(jnp.ones(1), reward, jnp.bool_(True), jnp.bool_(False))

    def share(self, action: jax.Array) -> jax.Array:
        """The place of `action` in its range, from 0 to 1."""
        assert isinstance(self.action_space, Box)
        low, high = jnp.asarray(self.action_space.low), jnp.asarray(self.action_space.high)
        return (action - low) / (high - low)
