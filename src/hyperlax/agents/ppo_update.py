"""What PPO makes of a rollout: advantages, shuffled minibatches, and the gradient of one of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from hyperlax.lanes.masking import lane_cond, lane_max, masked_moments, permuted
from hyperlax.learning.optimise import Weights
from hyperlax.learning.returns import generalised_advantage
from hyperlax.learning.rollout import Trajectory
from hyperlax.networks import Actor, Critic

if TYPE_CHECKING:
    from hyperlax.agents.ppo import PPO, PPOHyperparams

VALUE_BLOCK = 1024
"""Observations valued at once after a rollout."""

METRICS = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")


@final
class Step(eqx.Module):
    """What PPO notes when it acts."""

    features: Float[Array, " obs"]
    raw: Array
    log_prob: Float[Array, ""]
    noise: Float[Array, " act"]


@final
class Samples(eqx.Module):
    """All samples of a rollout packed in one matrix, so that a minibatch is gathered in one go.

    Row t · envs + e holds step t of environment e. Columns: value, advantage, target, old log-probability,
    raw action, entropy noise, features.
    """

    table: Float[Array, "n columns"]
    envs: int = eqx.field(static=True)
    raw_like: jax.ShapeDtypeStruct = eqx.field(static=True)
    noise_size: int = eqx.field(static=True)

    def rows(self, index: Int[Array, " k"]) -> Float[Array, "k columns"]:
        """Rows `index`, all of which must exist."""
        return self.table.at[index].get(mode="promise_in_bounds")

    def unpack(self, row: Float[Array, " columns"]) -> tuple[Float[Array, " 3"], Step]:
        """(value, advantage, target) and what was noted when acting, of one row."""
        raw_size = math.prod(self.raw_like.shape)
        raw = row[4 : 4 + raw_size].reshape(self.raw_like.shape).astype(self.raw_like.dtype)
        noise_end = 4 + raw_size + self.noise_size
        return row[:3], Step(row[noise_end:], raw, row[3], row[4 + raw_size : noise_end])


@final
class Rollout(eqx.Module):
    """A trajectory with its values, advantages and value targets."""

    hp: PPOHyperparams
    step: Step
    value: Float[Array, "rollout envs"]
    advantage: Float[Array, "rollout envs"]
    target: Float[Array, "rollout envs"]
    used: Bool[Array, "rollout envs"]

    @classmethod
    def of(cls, agent: PPO, trajectory: Trajectory) -> Rollout:
        """Values every observation once, then estimates advantages backwards."""
        hp = agent.hp
        rollout, envs = trajectory.reward.shape
        value_of = jax.vmap(agent.critic)
        step: Step = trajectory.aux
        features = jnp.concatenate([step.features, jax.vmap(agent.features)(trajectory.last_obs)[None]])
        last = jax.lax.dynamic_update_index_in_dim(features, features[-1], hp.rollout_length, 0)
        flat = last.reshape((rollout + 1) * envs, -1)
        value = _in_blocks(value_of, flat, (hp.rollout_length + 1) * envs).reshape(rollout + 1, envs)
        env_used = jnp.arange(envs) < hp.num_envs
        next_episode = hp.truncation_bootstrap == 1

        def value_if_truncated(t: Any, following: Float[Array, " envs"]) -> Float[Array, " envs"]:
            cut = jnp.any(trajectory.truncated[t] & env_used) & ~next_episode & (t < hp.rollout_length)
            final_obs = trajectory.next_obs[t]
            return lane_cond(cut, lambda: value_of(jax.vmap(agent.features)(final_obs)), lambda: following)

        advantage = generalised_advantage(
            trajectory.reward,
            value[:-1],
            jax.lax.dynamic_index_in_dim(value, hp.rollout_length, 0, keepdims=False),
            trajectory.terminated,
            trajectory.truncated,
            value_if_truncated,
            hp.gamma,
            hp.gae_lambda,
            hp.rollout_length,
        )
        used = (jnp.arange(rollout) < hp.rollout_length)[:, None] & env_used[None]
        return cls(hp, step, value[:-1], advantage, advantage + value[:-1], used)

    def samples(self) -> Samples:
        """The samples PPO learns from, advantages standardised where asked for."""
        n = self.value.size
        scaled = jnp.where(self.hp.standardize_advantages, self._standardised(), self.advantage)
        step = self.step
        columns = [x.reshape(n, -1) for x in (self.value, scaled, self.target, step.log_prob, step.raw)]
        noise, features = step.noise.reshape(n, step.noise.shape[-1]), step.features.reshape(n, -1)
        table = jnp.concatenate([*(c.astype(jnp.float32) for c in columns), noise, features], axis=1)
        raw_like = jax.ShapeDtypeStruct(step.raw.shape[2:], step.raw.dtype)
        return Samples(table, self.value.shape[1], raw_like, noise.shape[1])

    def explained_variance(self) -> Float[Array, ""]:
        """1 − Var[target − value] / Var[target]."""
        used = self.used.reshape(-1)
        _, residual = masked_moments(self.advantage.reshape(-1), used)
        _, spread = masked_moments(self.target.reshape(-1), used)
        return 1 - residual / jnp.maximum(spread, 1e-8)

    def _standardised(self) -> Float[Array, "rollout envs"]:
        mean, variance = masked_moments(self.advantage.reshape(-1), self.used.reshape(-1))
        row_mean, row_variance = jax.vmap(masked_moments)(self.advantage, self.used)
        by_row = self.hp.advantage_statistics == 1
        mean = jnp.where(by_row, row_mean, mean)[:, None]
        variance = jnp.where(by_row, row_variance, variance)[:, None]
        return (self.advantage - mean) / jnp.sqrt(variance + 1e-5)


def _in_blocks(f: Callable[..., Any], x: Float[Array, "n obs"], n: Int[Array, ""]) -> Float[Array, " n"]:
    """`f(x)` for the first `n` rows, computed block by block; later rows are garbage or zero."""
    block = min(VALUE_BLOCK, x.shape[0])

    def one(i: Any, out: Any) -> Any:
        first = jnp.minimum(i * block, x.shape[0] - block)
        y = f(jax.lax.dynamic_slice_in_dim(x, first, block))
        return jax.lax.dynamic_update_slice_in_dim(out, y, first, 0)

    return jax.lax.fori_loop(0, lane_max((n + block - 1) // block), one, jnp.zeros(x.shape[0]))


def minibatch_bounds(
    j: Any, batch: Any, minibatches: Any, drop: Any
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """First position and size of minibatch `j` in the shuffled batch.

    With `drop` all have the same size and a remainder is left out, otherwise sizes differ by at most one.
    """
    even = batch // minibatches
    more = batch % minibatches
    spread = j * even + jnp.minimum(j, more)
    return jnp.where(drop, j * even, spread), jnp.where(drop, even, even + (j < more).astype(jnp.int32))


def gradient_of_minibatch(
    agent: PPO,
    chunk: int,
    weights: Weights,
    restore: Callable[[Weights], tuple[Any, ...]],
    samples: Samples,
    words: UInt32[Array, " 8"],
    start: Int[Array, ""],
    size: Int[Array, ""],
    batch: Int[Array, ""],
) -> tuple[Weights, Float[Array, " metrics"]]:
    """Summed gradient and `METRICS` over positions `start` … `start + size` of the shuffled batch."""

    def part(position: Int[Array, " k"], valid: Bool[Array, " k"]) -> tuple:
        index = permuted(jnp.minimum(start + position, batch - 1), batch, words)
        row = (index // agent.hp.num_envs) * samples.envs + index % agent.hp.num_envs
        return _gradient(agent.hp, weights, restore, samples, samples.rows(row), valid)

    return agent.chunks.summed(chunk, size, part)


def _gradient(
    hp: PPOHyperparams,
    weights: Weights,
    restore: Callable[[Weights], tuple[Any, ...]],
    samples: Samples,
    rows: Float[Array, "n columns"],
    valid: Bool[Array, " n"],
) -> tuple[Weights, Float[Array, " metrics"]]:
    """Gradient of the summed losses with respect to all weights, and the summed `METRICS`."""

    def loss(weights: Weights) -> tuple[Float[Array, ""], Float[Array, " metrics"]]:
        actor, critic = restore(weights)

        def one(row: Float[Array, " columns"]) -> tuple[Float[Array, ""], Float[Array, " metrics"]]:
            return _losses(hp, actor, critic, *samples.unpack(row))

        total, measured = jax.vmap(one)(rows)
        measured = jax.lax.stop_gradient(measured)
        return jnp.sum(jnp.where(valid, total, 0)), jnp.sum(jnp.where(valid[:, None], measured, 0), axis=0)

    return jax.grad(loss, has_aux=True)(weights)


def _losses(
    hp: PPOHyperparams, actor: Actor, critic: Critic, estimate: Float[Array, " 3"], step: Step
) -> tuple[Float[Array, ""], Float[Array, " metrics"]]:
    """The clipped objective of one sample (Schulman et al. 2017, eq. 7 and 9, value clipped likewise)."""
    old_value, advantage, target = estimate
    policy = actor(step.features)
    log_ratio = policy.log_prob(step.raw) - step.log_prob
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1 - hp.clip_eps, 1 + hp.clip_eps)
    policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage)
    entropy = policy.entropy(step.noise)
    value = critic(step.features)
    near = old_value + jnp.clip(value - old_value, -hp.clip_eps, hp.clip_eps)
    free, near = (value - target) ** 2, (near - target) ** 2
    value_loss = 0.5 * jnp.where(hp.clip_value, jnp.maximum(free, near), free)
    total = policy_loss - hp.ent_coef * entropy + hp.vf_coef * value_loss
    outside = (jnp.abs(ratio - 1) > hp.clip_eps).astype(total.dtype)
    return total, jnp.stack([policy_loss, value_loss, entropy, ratio - 1 - log_ratio, outside])
