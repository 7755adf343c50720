"""The values of the states of a rollout, and the advantages of its actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hyperlax.lanes.constants import accelerated, folded, surely
from hyperlax.lanes.masking import freeze, lane_cond, lane_max, leading, masked_moments
from hyperlax.lanes.rows import with_rows
from hyperlax.learning.rollout import Trajectory

VALUE_BLOCK = 1024
"""Number of observations whose values are computed at once."""

SUMS_AT_ONCE = 32
"""Number of rows of `discounted_sums` in one kernel of an accelerator."""


Moments = tuple[Float[Array, ""], Float[Array, ""]]
"""Mean and variance."""


@final
class Estimates(eqx.Module):
    """The values and advantages of a rollout; entries that are not `used` are padding."""

    value: Float[Array, "rollout envs"]
    advantage: Float[Array, "rollout envs"]
    used: Bool[Array, "rollout envs"]

    @property
    def target(self) -> Float[Array, "rollout envs"]:
        """The returns that the values are fitted to: advantage + value."""
        return self.advantage + self.value

    def explained_variance(self) -> Float[Array, ""]:
        """1 − Var[target − value] / Var[target], over the used entries."""
        (_, residual), (_, spread) = self.moments()
        return 1 - residual / jnp.maximum(spread, 1e-8)

    def moments(self) -> tuple[Moments, Moments]:
        """Mean and variance of the advantages, and of the targets, over the used entries.

        An accelerator reduces both at once.
        """
        rows, used = (self.advantage.reshape(-1), self.target.reshape(-1)), self.used.reshape(-1)
        return masked_moments(rows[0], used), masked_moments(rows[1], used)


def estimate(
    critic: Callable[[Float[Array, " obs"]], Float[Array, ""]],
    features_of: Callable[[Float[Array, " obs"]], Float[Array, " obs"]],
    features: Float[Array, "rollout envs obs"],
    trajectory: Trajectory,
    num_envs: Int[Array, ""],
    rollout_length: Int[Array, ""],
    gamma: Float[Array, ""],
    gae_lambda: Float[Array, ""],
    next_episode: Bool[Array, ""],
) -> Estimates:
    """Compute the value of every observation once, then generalised advantages backwards in time.

    - `critic`: features of an observation → its value.
    - `features_of`: observation → features; `features`: those of the observations of the rollout.
    - `next_episode`: whether a truncated step bootstraps from the first observation of the next episode,
      instead of the last observation of its own.
    """
    rollout, envs = trajectory.reward.shape
    value_of = jax.vmap(critic)
    features = jnp.concatenate([features, jax.vmap(features_of)(trajectory.last_obs)[None]])
    if not surely(rollout_length, rollout):
        features = jax.lax.dynamic_update_index_in_dim(features, features[-1], rollout_length, 0)

    def final_features() -> Float[Array, "rollout envs obs"]:
        return jax.vmap(jax.vmap(features_of))(trajectory.next_obs)

    env_used, step_used = leading(num_envs, envs), leading(rollout_length, rollout)
    used = folded(lambda _, a, b: a[:, None] & b[None], step_used, env_used)
    if accelerated():
        states = features if surely(next_episode) else jnp.concatenate([features, final_features()])
        values = value_of(states.reshape(-1, states.shape[2])).reshape(-1, envs)
        value, final = values[: rollout + 1], values[rollout + 1 :]
        following = value[1:]
        if not surely(next_episode):
            following = jnp.where(trajectory.truncated & ~next_episode, final, following)
        following = jnp.where(trajectory.terminated, 0, following)
        error = trajectory.reward + gamma * following - value[:-1]
        carried = ~(trajectory.terminated | trajectory.truncated) & used
        decay = jnp.where(carried, gamma * gae_lambda, 0)
        advantage = discounted_sums(jnp.where(used, error, 0), decay)
        return Estimates(value[:-1], advantage, used)

    flat = features.reshape((rollout + 1) * envs, -1)
    value = _in_blocks(value_of, flat, (rollout_length + 1) * envs).reshape(rollout + 1, envs)

    def value_if_truncated(t: Any, following: Float[Array, " envs"]) -> Float[Array, " envs"]:
        cut = jnp.any(trajectory.truncated[t] & env_used) & ~next_episode & (t < rollout_length)
        final_obs = trajectory.next_obs[t]
        return lane_cond(cut, lambda: value_of(jax.vmap(features_of)(final_obs)), lambda: following)

    advantage = generalised_advantage(
        trajectory.reward,
        value[:-1],
        jax.lax.dynamic_index_in_dim(value, rollout_length, 0, keepdims=False),
        trajectory.terminated,
        trajectory.truncated,
        value_if_truncated,
        gamma,
        gae_lambda,
        rollout_length,
    )
    return Estimates(value[:-1], advantage, used)


def standardised(estimates: Estimates, by_time_step: Bool[Array, ""]) -> Float[Array, "rollout envs"]:
    """The advantages, those used standardised to mean 0 and variance 1, all together or per time step."""
    advantage = estimates.advantage
    mean, variance = estimates.moments()[0]
    if not surely(by_time_step, False):
        row_mean, row_variance = jax.vmap(masked_moments)(advantage, estimates.used)
        mean = jnp.where(by_time_step, row_mean, mean)[:, None]
        variance = jnp.where(by_time_step, row_variance, variance)[:, None]
    return (advantage - mean) / jnp.sqrt(variance + 1e-5)


def _in_blocks(f: Callable[..., Any], x: Float[Array, "n obs"], n: Int[Array, ""]) -> Float[Array, " n"]:
    """Compute `f(x)` for the first `n` rows, block by block; the other results are undefined."""
    block = min(VALUE_BLOCK, x.shape[0])

    def one(i: Any, out: Any) -> Any:
        first = jnp.minimum(i * block, x.shape[0] - block)
        y = f(jax.lax.dynamic_slice_in_dim(x, first, block))
        return jax.lax.dynamic_update_slice_in_dim(out, y, first, 0)

    return jax.lax.fori_loop(0, lane_max((n + block - 1) // block), one, jnp.zeros(x.shape[0]))


def discounted_sums(
    error: Float[Array, "rollout envs"], decay: Float[Array, "rollout envs"]
) -> Float[Array, "rollout envs"]:
    """The sums A[t] = error[t] + decay[t] · A[t + 1], with A = 0 beyond the last row.

    They are written over the errors, up to `SUMS_AT_ONCE` rows at a time, so that no kernel fills anything
    beforehand.
    """
    length = error.shape[0]
    blocks = -(-length // SUMS_AT_ONCE)
    rows = -(-length // blocks)

    def block(j: Int[Array, ""], sums: Float[Array, "rollout envs"]) -> Float[Array, "rollout envs"]:
        end = length - j * rows
        first = jnp.maximum(end - rows, 0)
        old, factors = (jax.lax.dynamic_slice_in_dim(x, first, rows) for x in (sums, decay))
        beyond = jax.lax.dynamic_index_in_dim(sums, jnp.minimum(end, length - 1), keepdims=False)
        new = [jnp.where(j == 0, 0, beyond)]
        for i in reversed(range(rows)):
            now = old[i] + factors[i] * new[0]
            if length % rows:  # the last block then has rows that the one before has summed
                now = jnp.where(first + i < end, now, old[i])
            new.insert(0, now)
        return with_rows(sums, jnp.stack(new[:-1]), first)

    return jax.lax.fori_loop(0, blocks, block, error)


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

    - `last_value`: the value of the observation after the last row.
    - `value_if_truncated(t, following)`: the value to bootstrap from if a time limit ended the episode at
      row t; `following` is the value of the observation of the next row, which starts a new episode then.

    A terminated step does not bootstrap, and a truncated one does so from `value_if_truncated`; the
    advantages of the next episode enter neither. Rows from `rollout_length` on are zero.
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
