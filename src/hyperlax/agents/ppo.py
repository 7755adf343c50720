"""Proximal policy optimisation (Schulman et al. 2017), discrete and continuous actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Bool, Float, Int, UInt32

from hyperlax.agents import ppo_sizes
from hyperlax.agents.base import AbstractAgent, AbstractAgentHyperparams, Metrics, nested, prefixed
from hyperlax.envs.base import AbstractEnv, ActionSpace, Discrete
from hyperlax.hyperparams import Count, Flag, Real, choice, hp, trainable
from hyperlax.masking import lane_cond, lane_loop, lane_max, masked_moments, permuted
from hyperlax.networks import Actor, Critic
from hyperlax.networks.base import AbstractNetworkHyperparams, Sizes
from hyperlax.networks.mlp import MLPHyperparams
from hyperlax.normalise import Normaliser
from hyperlax.optimise import adam_state, adam_update, decayed
from hyperlax.returns import generalised_advantage
from hyperlax.rollout import Trajectory
from hyperlax.spaces import Choice, LogUniform, Uniform

VALUE_BLOCK = 1024
"""Observations valued at once after a rollout."""

METRICS = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")


@final
class PPOHyperparams(AbstractAgentHyperparams):
    """What PPO can be told; every field may differ between the lanes of one program."""

    actor: AbstractNetworkHyperparams = eqx.field(default_factory=MLPHyperparams)
    critic: AbstractNetworkHyperparams = eqx.field(default_factory=MLPHyperparams)
    actor_lr: Real = hp(3e-4, LogUniform(1e-5, 1e-3), doc="Adam step size of the actor")
    critic_lr: Real = hp(3e-4, LogUniform(1e-5, 1e-3), doc="Adam step size of the critic")
    gamma: Real = hp(0.99, Uniform(0.9, 0.999), doc="discount")
    gae_lambda: Real = hp(0.95, Uniform(0.9, 0.99), doc="decay of generalised advantage estimation")
    clip_eps: Real = hp(0.2, Uniform(0.01, 0.5), doc="clip range of the policy ratio and of the value")
    ent_coef: Real = hp(0.01, LogUniform(1e-5, 1e-1), doc="weight of the entropy bonus")
    vf_coef: Real = hp(0.5, Uniform(0.5, 1.0), doc="weight of the value loss")
    max_grad_norm: Real = hp(0.5, Uniform(0.1, 1.0), doc="global-norm clip of each network's gradient")
    rollout_length: Count = hp(64, Choice(16, 32, 64, 128), doc="steps per environment and cycle")
    epochs: Count = hp(4, Choice(1, 2, 4), doc="passes over the rollout")
    num_minibatches: Count = hp(4, Choice(2, 4, 8), doc="gradient steps per pass")
    num_envs: Count = hp(16, Choice(8, 16, 32, 64), doc="environments stepped side by side")
    standardize_advantages: Flag = hp(True, Choice(True, False), doc="standardise advantages")
    decay_learning_rates: Flag = hp(False, Choice(True, False), doc="decay step sizes linearly to zero")
    normalize_observations: Flag = hp(True, Choice(True, False), doc="normalise by running mean and std")
    loss_reduction: Count = hp("mean", labels=("mean", "sum"), doc="over the minibatch")
    advantage_statistics: Count = hp(
        "batch", labels=("batch", "time_step"), doc="what advantages are standardised over"
    )
    minibatch_remainder: Count = hp(
        "spread", labels=("spread", "drop"), doc="samples left when minibatches do not divide the rollout"
    )
    time_limit: Count = hp("truncation", labels=("truncation", "termination"), doc="what a time limit counts as")
    truncation_bootstrap: Count = hp(
        "final_observation",
        labels=("final_observation", "next_episode"),
        doc="where a truncated step bootstraps from",
    )
    normaliser_order: Count = hp(
        "after_learning",
        labels=("after_learning", "before_acting"),
        doc="when new observations enter the normaliser: after the cycle, or before each step",
    )
    evaluation_normalisation: Count = hp(
        "as_trained", labels=("as_trained", "always"), doc="whether evaluation normalises observations"
    )

    def agent(self, env: AbstractEnv, caps: Sizes, *, key: Any) -> PPO:
        return PPO(self, env, caps, key=key)

    def sizes(self) -> dict[str, Any]:
        batch = int(self.num_envs) * int(self.rollout_length)
        minibatches = min(int(self.num_minibatches), batch)
        return {
            "num_envs": int(self.num_envs),
            "rollout_length": int(self.rollout_length),
            "minibatch": -(-batch // minibatches),
            "epochs": int(self.epochs),
            "minibatches": minibatches,
            **prefixed(self.actor.sizes(), "actor"),
            **prefixed(self.critic.sizes(), "critic"),
        }

    def capacities(self, sizes: Sequence[Sizes], env: AbstractEnv) -> dict[str, Any]:
        return ppo_sizes.capacities(sizes, self._networks(), env.obs_size)

    def work(self, sizes: Sizes, caps: Sizes, env: AbstractEnv) -> tuple[float, float]:
        per_sample = ppo_sizes.forward(caps, self._networks(), env.obs_size)
        gradient = ppo_sizes.gradient_work(sizes, caps, per_sample)
        return gradient + ppo_sizes.rollout_work(sizes, caps, per_sample), gradient

    def _networks(self) -> list[tuple[str, type[AbstractNetworkHyperparams]]]:
        return [("actor", type(self.actor)), ("critic", type(self.critic))]

    def parameter_count(self, env: AbstractEnv) -> int:
        outputs = env.action_space.n if isinstance(env.action_space, Discrete) else 2 * env.action_space.shape[0]
        actor, critic = self.actor, self.critic
        heads = (actor.out() + 1) * outputs + critic.out() + 1
        return actor.parameter_count(env.obs_size) + critic.parameter_count(env.obs_size) + heads

    @classmethod
    def supports(cls, space: ActionSpace) -> str | None:
        return None

    def problems(self) -> list[str]:
        batch = int(self.num_envs) * int(self.rollout_length)
        minibatches = int(self.num_minibatches)
        if minibatches > batch:
            return [f"{minibatches} minibatches of {batch} samples: {batch} minibatches of one are used"]
        if batch % minibatches:
            return [f"{minibatches} minibatches do not divide {batch} samples: their sizes differ by one"]
        return []

    @staticmethod
    def published(env_name: str) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "loss_reduction": "sum",
            "advantage_statistics": "time_step",
            "minibatch_remainder": "drop",
            "truncation_bootstrap": "next_episode",
            "normaliser_order": "before_acting",
            "evaluation_normalisation": "always",
        }
        if env_name.startswith("gymnax."):
            settings["time_limit"] = "termination"
        return settings


@final
class Step(eqx.Module):
    """What PPO notes when it acts."""

    features: Float[Array, " obs"]
    raw: Array
    log_prob: Float[Array, ""]
    noise: Float[Array, " act"]


@final
class Samples(eqx.Module):
    """The rollout as PPO learns from it, one row per (step, environment)."""

    features: Float[Array, "n obs"]
    raw: Array
    log_prob: Float[Array, " n"]
    noise: Float[Array, "n act"]
    value: Float[Array, " n"]
    advantage: Float[Array, " n"]
    target: Float[Array, " n"]


@final
class PPO(AbstractAgent):
    """A PPO agent: actor, critic, their optimisers, and the observation normaliser.

    During a cycle observations are normalised by the statistics of the cycles before (`normaliser`), so
    that old and new log-probabilities see the same inputs; what is observed meanwhile collects in `seen`.
    """

    hp: PPOHyperparams
    actor: Actor
    critic: Critic
    actor_state: optax.OptState
    critic_state: optax.OptState
    normaliser: Normaliser
    seen: Normaliser
    chunks: tuple[int, ...] = eqx.field(static=True)
    minibatch_cap: int = eqx.field(static=True)

    def __init__(self, hp: PPOHyperparams, env: AbstractEnv, caps: Sizes, *, key: Any):
        keys = jr.split(key, 4)
        self.hp = hp
        actor = hp.actor.network(env.obs_size, nested(caps, "actor"), key=keys[0])
        critic = hp.critic.network(env.obs_size, nested(caps, "critic"), key=keys[1])
        self.actor = Actor(actor, env.action_space, key=keys[2])
        self.critic = Critic(critic, key=keys[3])
        self.actor_state = adam_state(self.actor)
        self.critic_state = adam_state(self.critic)
        self.normaliser = self.seen = Normaliser(env.obs_size)
        self.chunks = caps["minibatch_chunks"]
        self.minibatch_cap = caps["minibatch"]

    def act(self, obs: Float[Array, " obs"], *, key: Any, explore: Bool[Array, ""]) -> tuple[Array, Step]:
        features = self._features(obs)
        policy = self.actor(features)
        act_key, noise_key = jr.split(key)
        raw = jnp.where(explore, policy.sample(key=act_key), policy.mode())
        size = max(1, *self.actor.head.action_space.shape, 1)
        noise = jr.normal(noise_key, (size,)) if self.actor.head.action_space.shape else jnp.zeros(size)
        return policy.action(raw), Step(features, raw, policy.log_prob(raw), noise)

    def observe(self, obs: Float[Array, "envs obs"], valid: Bool[Array, " envs"]) -> Self:
        used = self.hp.normalize_observations | (self.hp.evaluation_normalisation == 1)
        seen = lane_cond(used, lambda s: s.update(obs, valid), lambda s: s, self.seen)
        at_once = self.hp.normaliser_order == 1
        now = jax.tree.map(lambda s, n: jnp.where(at_once, s, n), seen, self.normaliser)
        return eqx.tree_at(lambda a: (a.seen, a.normaliser), self, (seen, now))

    def for_evaluation(self) -> Self:
        always = self.hp.normalize_observations | (self.hp.evaluation_normalisation == 1)
        return eqx.tree_at(lambda a: a.hp.normalize_observations, self, always)

    def learn(self, trajectory: Trajectory, progress: Float[Array, ""], *, key: Any) -> tuple[Self, Metrics]:
        samples, explained = self._samples(trajectory)
        lrs = (
            decayed(self.hp.actor_lr, progress, self.hp.decay_learning_rates),
            decayed(self.hp.critic_lr, progress, self.hp.decay_learning_rates),
        )
        envs_cap = trajectory.reward.shape[1]
        batch = self.hp.num_envs * self.hp.rollout_length
        minibatches = jnp.minimum(self.hp.num_minibatches, batch)

        def epoch(k: Any, carry: tuple) -> tuple:
            words = jr.bits(jr.fold_in(key, k), (8,), jnp.uint32)

            def minibatch(j: Any, carry: tuple) -> tuple:
                start, size = _minibatch(j, batch, minibatches, self.hp.minibatch_remainder == 1)
                return _gradient_step(*carry, samples, words, start, size, batch, envs_cap, lrs)

            return lane_loop(minibatches, minibatch, carry)

        agent, sums = lane_loop(self.hp.epochs, epoch, (self, jnp.zeros(len(METRICS) + 2)))
        agent = eqx.tree_at(lambda a: a.normaliser, agent, agent.seen)
        means = sums / (self.hp.epochs * minibatches).astype(jnp.float32)
        names = (*METRICS, "actor_grad_norm", "critic_grad_norm")
        metrics = dict(zip(names, means, strict=True))
        return agent, {**metrics, "explained_variance": explained, "learning_rate": lrs[0]}

    def gradient_steps(self) -> Int[Array, ""]:
        """Gradient steps of one `learn`."""
        batch = self.hp.num_envs * self.hp.rollout_length
        return self.hp.epochs * jnp.minimum(self.hp.num_minibatches, batch)

    def _features(self, obs: Float[Array, " *batch obs"]) -> Float[Array, " *batch obs"]:
        return jnp.where(self.hp.normalize_observations, self.normaliser(obs), obs)

    def _samples(self, trajectory: Trajectory) -> tuple[Samples, Float[Array, ""]]:
        """The samples of a rollout with advantages and targets, and the explained variance of the values."""
        rollout, envs = trajectory.reward.shape
        value_of = jax.vmap(self.critic)
        step: Step = trajectory.aux
        flat = jax.tree.map(lambda x: x.reshape(rollout * envs, *x.shape[2:]), step)
        value = _in_blocks(value_of, flat.features, self.hp.rollout_length * envs).reshape(rollout, envs)
        env_used = jnp.arange(envs) < self.hp.num_envs
        next_episode = self.hp.truncation_bootstrap == 1

        def value_if_truncated(t: Any, following: Float[Array, " envs"]) -> Float[Array, " envs"]:
            cut = jnp.any(trajectory.truncated[t] & env_used) & ~next_episode & (t < self.hp.rollout_length)
            final = lambda: value_of(self._features(trajectory.next_obs[t]))  # noqa: E731
            return lane_cond(cut, final, lambda: following)

        advantage = generalised_advantage(
            trajectory.reward,
            value,
            value_of(self._features(trajectory.last_obs)),
            trajectory.terminated,
            trajectory.truncated,
            value_if_truncated,
            self.hp.gamma,
            self.hp.gae_lambda,
            self.hp.rollout_length,
        )
        target = advantage + value
        used = (jnp.arange(rollout) < self.hp.rollout_length)[:, None] & env_used
        _, residual = masked_moments((target - value).reshape(-1), used.reshape(-1))
        _, spread = masked_moments(target.reshape(-1), used.reshape(-1))
        scaled = jnp.where(self.hp.standardize_advantages, self._standardised(advantage, used), advantage)
        samples = Samples(
            flat.features, flat.raw, flat.log_prob, flat.noise, value.reshape(-1), scaled.reshape(-1), target.reshape(-1)
        )
        return samples, 1 - residual / jnp.maximum(spread, 1e-8)

    def _standardised(
        self, advantage: Float[Array, "rollout envs"], used: Bool[Array, "rollout envs"]
    ) -> Float[Array, "rollout envs"]:
        mean, variance = masked_moments(advantage.reshape(-1), used.reshape(-1))
        row_mean, row_variance = jax.vmap(masked_moments)(advantage, used)
        by_row = self.hp.advantage_statistics == 1
        mean = jnp.where(by_row, row_mean, mean)[:, None]
        variance = jnp.where(by_row, row_variance, variance)[:, None]
        return (advantage - mean) / jnp.sqrt(variance + 1e-5)


def _in_blocks(f: Any, x: Float[Array, "n features"], n: Int[Array, ""]) -> Float[Array, " n"]:
    """`f(x)` for the first `n` rows, computed block by block; later rows are garbage or zero."""
    block = min(VALUE_BLOCK, x.shape[0])

    def one(i: Any, out: Any) -> Any:
        first = jnp.minimum(i * block, x.shape[0] - block)
        y = f(jax.lax.dynamic_slice_in_dim(x, first, block))
        return jax.lax.dynamic_update_slice_in_dim(out, y, first, 0)

    return jax.lax.fori_loop(0, lane_max((n + block - 1) // block), one, jnp.zeros(x.shape[0]))


def _minibatch(j: Any, batch: Any, minibatches: Any, drop: Any) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """First position and size of minibatch `j` in the shuffled batch; without `drop`, sizes differ by at most one."""
    even = batch // minibatches
    more = batch % minibatches
    spread = j * even + jnp.minimum(j, more)
    return jnp.where(drop, j * even, spread), jnp.where(drop, even, even + (j < more))


def _gradient_step(
    agent: PPO,
    sums: Float[Array, " metrics"],
    samples: Samples,
    words: UInt32[Array, " 8"],
    start: Int[Array, ""],
    size: Int[Array, ""],
    batch: Int[Array, ""],
    envs_cap: int,
    lrs: tuple[Float[Array, ""], Float[Array, ""]],
) -> tuple[PPO, Float[Array, " metrics"]]:
    """One Adam step of actor and critic on the minibatch at `start` … `start + size` of the shuffled batch."""
    gradient, measured = _minibatch_gradient(agent, samples, words, start, size, batch, envs_cap)
    scale = jnp.where(agent.hp.loss_reduction == 1, 1.0, 1.0 / size)
    actor_gradient, critic_gradient = jax.tree.map(lambda g: g * scale, gradient)
    norms = jnp.stack([optax.global_norm(actor_gradient), optax.global_norm(critic_gradient)])
    limit = agent.hp.max_grad_norm
    actor, actor_state = adam_update(agent.actor, actor_gradient, agent.actor_state, lrs[0], limit)
    critic, critic_state = adam_update(agent.critic, critic_gradient, agent.critic_state, lrs[1], limit)
    agent = eqx.tree_at(
        lambda a: (a.actor, a.critic, a.actor_state, a.critic_state),
        agent,
        (actor, critic, actor_state, critic_state),
    )
    return agent, sums + jnp.concatenate([measured / size, norms])


def _minibatch_gradient(
    agent: PPO, samples: Samples, words: Any, start: Any, size: Any, batch: Any, envs_cap: int
) -> tuple[tuple[Actor, Critic], Float[Array, " metrics"]]:
    """Summed gradient and metrics over a minibatch, accumulated over chunks of the smallest size that fits."""

    def chunk(c: Any, length: int) -> tuple:
        offset = c * length + jnp.arange(length)
        index = permuted(start + offset, batch, words)
        row = (index // agent.hp.num_envs) * envs_cap + index % agent.hp.num_envs
        picked = jax.tree.map(lambda x: x[row], samples)
        return _gradient(agent, picked, offset < size)

    if agent.chunks == (agent.minibatch_cap,):
        return chunk(0, agent.minibatch_cap)

    def in_chunks(length: int) -> tuple:
        zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(lambda: chunk(0, length)))
        add = lambda c, total: jax.tree.map(jnp.add, total, chunk(c, length))  # noqa: E731
        return lane_loop((size + length - 1) // length, add, zero)

    fits = jnp.asarray(agent.chunks[:-1], jnp.int32) < size
    which = lane_max(jnp.sum(fits, dtype=jnp.int32))
    return jax.lax.switch(which, [lambda n=n: in_chunks(n) for n in agent.chunks])


def _gradient(agent: PPO, batch: Samples, valid: Bool[Array, " n"]) -> tuple:
    """Gradient of the summed losses with respect to actor and critic, and the summed `METRICS`."""
    hp = agent.hp
    models = (agent.actor, agent.critic)
    weights, rest = eqx.partition(models, trainable(models))

    def loss(weights: Any) -> tuple[Float[Array, ""], Float[Array, " metrics"]]:
        actor, critic = eqx.combine(weights, rest)

        def one(s: Samples) -> tuple[Float[Array, ""], Float[Array, " metrics"]]:
            policy = actor(s.features)
            log_ratio = policy.log_prob(s.raw) - s.log_prob
            ratio = jnp.exp(log_ratio)
            clipped = jnp.clip(ratio, 1 - hp.clip_eps, 1 + hp.clip_eps)
            policy_loss = -jnp.minimum(ratio * s.advantage, clipped * s.advantage)
            entropy = policy.entropy(s.noise)
            value = critic(s.features)
            near = s.value + jnp.clip(value - s.value, -hp.clip_eps, hp.clip_eps)
            value_loss = 0.5 * jnp.maximum((value - s.target) ** 2, (near - s.target) ** 2)
            total = policy_loss - hp.ent_coef * entropy + hp.vf_coef * value_loss
            outside = (jnp.abs(ratio - 1) > hp.clip_eps).astype(total.dtype)
            return total, jnp.stack([policy_loss, value_loss, entropy, ratio - 1 - log_ratio, outside])

        total, measured = jax.vmap(one)(batch)
        measured = jax.lax.stop_gradient(measured)
        return jnp.sum(jnp.where(valid, total, 0)), jnp.sum(jnp.where(valid[:, None], measured, 0), axis=0)

    gradient, measured = jax.grad(loss, has_aux=True)(weights)
    return gradient, measured
