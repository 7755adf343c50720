"""Advantages."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hyperlax.lanes.masking import freeze, lane_max


def generalised_advantage(
    reward: Float[Array, "rollout envs"],
    value: Float[Array, "rollout envs"],
    last_value: Float[Array, " envs"],
    terminated: Bool[Array, "rollout envs"],
    truncated: Bool[Array, "rollout envs"],
    value_if_truncated: Callable[[Int[Array, ""], Float[Array, " envs"]], Float[Array, " envs"]],
    gamma: Float[Array, ""],
    gae_lambda: Float[Array, ""],
    rollout_length: Int[Array, ""],
) -> Float[Array, "rollout envs"]:
    """Generalised advantage estimation over the first `rollout_length` rows (Schulman et al. 2016, eq. 16).

    - `last_value`: value of the observation after the last row.
    - `value_if_truncated(t, following)`: the value to bootstrap from where row t was cut by a time limit;
      `following` is the value of the next row's observation, which belongs to a new episode there.

    A terminated step bootstraps from nothing, a truncated one from the observation it was cut at; neither
    carries advantage over from the next episode. Rows past `rollout_length` are zero.
    """

    longest = lane_max(rollout_length)

    def step(i: Int[Array, ""], carry: tuple) -> tuple:
        t = longest - 1 - i
        (advantage, following), out = carry
        bootstrap = jnp.where(truncated[t], value_if_truncated(t, following), following)
        bootstrap = jnp.where(terminated[t], 0, bootstrap)
        carried = jnp.where(terminated[t] | truncated[t], 0, advantage)
        advantage = reward[t] + gamma * bootstrap - value[t] + gamma * gae_lambda * carried
        new = (jnp.where(t < rollout_length, advantage, 0), value[t])
        return freeze(t < rollout_length, new, carry[0]), out.at[t].set(new[0])

    first = (jnp.zeros_like(last_value), last_value)
    return jax.lax.fori_loop(0, longest, step, (first, jnp.zeros_like(reward)))[1]
