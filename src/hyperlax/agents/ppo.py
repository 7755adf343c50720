"""Proximal policy optimisation (Schulman et al. 2017), discrete and continuous actions."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Bool, Float, Int

from hyperlax.agents.base import AbstractAgent, AbstractAgentHyperparams, Metrics, nested, prefixed
from hyperlax.agents.costs import Use
from hyperlax.agents.ppo_update import (
    METRICS,
    Rollout,
    Step,
    gradient_of_minibatch,
    minibatch_bounds,
)
from hyperlax.envs.base import AbstractEnv, ActionSpace, Discrete
from hyperlax.hyperparams import Count, Flag, Real, hp
from hyperlax.hyperparams.spaces import Choice, LogUniform, Uniform
from hyperlax.lanes.masking import lane_cond, lane_loop
from hyperlax.learning.minibatches import Chunks
from hyperlax.learning.normalise import Normaliser
from hyperlax.learning.optimise import adam_state, adam_step, decayed, flatten, step_factors
from hyperlax.learning.rollout import Trajectory
from hyperlax.networks import Actor, Critic
from hyperlax.networks.base import AbstractNetworkHyperparams, Sizes
from hyperlax.networks.mlp import MLPHyperparams


@final
class PPOHyperparams(AbstractAgentHyperparams):
    """What PPO can be told; every field may differ between the lanes of one program."""

    actor: AbstractNetworkHyperparams = eqx.field(default_factory=MLPHyperparams)
    critic: AbstractNetworkHyperparams = eqx.field(default_factory=MLPHyperparams)
    actor_lr: Real = hp(3e-4, LogUniform(1e-5, 1e-3), doc="Adam step size of the actor")
    critic_lr: Real = hp(3e-4, LogUniform(1e-5, 1e-3), doc="Adam step size of the critic")
    gamma: Real = hp(0.99, Uniform(0.9, 0.999), doc="discount", most=1)
    gae_lambda: Real = hp(0.95, Uniform(0.9, 0.99), doc="decay of generalised advantage estimation", most=1)
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
    normalize_observations: Flag = hp(
        True, Choice(True, False), doc="normalise by running mean and std", settled=True
    )
    clip_value: Flag = hp(True, doc="clip the value loss like the policy's, by clip_eps")
    loss_reduction: Count = hp("mean", labels=("mean", "sum"), doc="over the minibatch")
    advantage_statistics: Count = hp(
        "batch", labels=("batch", "time_step"), doc="what advantages are standardised over"
    )
    minibatch_remainder: Count = hp(
        "spread", labels=("spread", "drop"), doc="samples left when minibatches do not divide the rollout"
    )
    time_limit: Count = hp(
        "truncation", labels=("truncation", "termination"), doc="what a time limit counts as"
    )
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
            "gradient_steps": int(self.epochs) * minibatches,
            **prefixed(self.actor.sizes(), "actor"),
            **prefixed(self.critic.sizes(), "critic"),
        }

    def networks(self, env: AbstractEnv) -> dict[str, tuple[AbstractNetworkHyperparams, int]]:
        return {"actor": (self.actor, env.obs_size), "critic": (self.critic, env.obs_size)}

    def uses(self) -> dict[str, Use]:
        once = Use(acting=1, values=0, gradients=1)
        return {"actor": once, "critic": once._replace(acting=1 + 1 / int(self.rollout_length))}

    def parameter_count(self, env: AbstractEnv) -> int:
        outputs = (
            env.action_space.n if isinstance(env.action_space, Discrete) else 2 * env.action_space.shape[0]
        )
        actor, critic = self.actor, self.critic
        heads = (actor.out(env.obs_size) + 1) * outputs + critic.out(env.obs_size) + 1
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
    def quick() -> dict[str, Any]:
        return {
            "num_envs": Choice(4, 8),
            "rollout_length": Choice(8, 16),
            "epochs": Choice(1, 2),
            "num_minibatches": Choice(2, 4),
        }

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
class PPO(AbstractAgent):
    """A PPO agent: actor, critic, their optimiser, and the observation normaliser.

    During a cycle observations are normalised by the statistics of the cycles before (`normaliser`), so
    that old and new log-probabilities see the same inputs; what is observed meanwhile collects in `seen`.
    """

    metric_names: ClassVar[tuple[str, ...]] = (
        *METRICS,
        "actor_grad_norm",
        "critic_grad_norm",
        "explained_variance",
        "actor_lr",
    )

    hp: PPOHyperparams
    actor: Actor
    critic: Critic
    optimiser: optax.OptState
    normaliser: Normaliser
    seen: Normaliser
    chunks: Chunks = eqx.field(static=True)
    epochs_cap: int = eqx.field(static=True)

    def __init__(self, hp: PPOHyperparams, env: AbstractEnv, caps: Sizes, *, key: Any):
        keys = jr.split(key, 4)
        self.hp = hp
        actor = hp.actor.network(env.obs_size, nested(caps, "actor"), key=keys[0])
        critic = hp.critic.network(env.obs_size, nested(caps, "critic"), key=keys[1])
        self.actor = Actor(actor, env.action_space, key=keys[2])
        self.critic = Critic(critic, key=keys[3])
        self.optimiser = adam_state((self.actor, self.critic))
        self.normaliser = self.seen = Normaliser(env.obs_size)
        self.chunks = Chunks.of(caps)
        self.epochs_cap = caps["epochs"]

    def act(self, obs: Float[Array, " obs"], *, key: Any, explore: Bool[Array, ""]) -> tuple[Array, Step]:
        features = self.features(obs)
        policy = self.actor(features)
        sampled, noise = policy.sample(key=key)
        raw = jnp.where(explore, sampled, policy.mode())
        return policy.action(raw), Step(features, raw, policy.log_prob(raw), noise)

    def features(self, obs: Float[Array, " obs"]) -> Float[Array, " obs"]:
        """What the networks see of `obs`."""
        return jnp.where(self.hp.normalize_observations, self.normaliser(obs), obs)

    def observe(self, obs: Float[Array, "envs obs"], valid: Bool[Array, " envs"]) -> PPO:
        used = self.hp.normalize_observations | (self.hp.evaluation_normalisation == 1)
        seen = lane_cond(used, lambda s: s.update(obs, valid), lambda s: s, self.seen)
        at_once = self.hp.normaliser_order == 1
        now = jax.tree.map(lambda s, n: jnp.where(at_once, s, n), seen, self.normaliser)
        return eqx.tree_at(lambda a: (a.seen, a.normaliser), self, (seen, now))

    def for_evaluation(self) -> PPO:
        always = self.hp.normalize_observations | (self.hp.evaluation_normalisation == 1)
        return eqx.tree_at(lambda a: a.hp.normalize_observations, self, always)

    def gradient_steps(self) -> Int[Array, ""]:
        return self.hp.epochs * self._minibatches()

    def learn(self, trajectory: Trajectory, progress: Float[Array, ""], *, key: Any) -> tuple[PPO, Metrics]:
        hp = self.hp
        rollout = Rollout.of(self, trajectory)
        samples = rollout.samples()
        batch, minibatches = hp.num_envs * hp.rollout_length, self._minibatches()
        active = trajectory.rows > 0  # a lane that is done must not keep the others busy
        epochs, turns = jnp.where(active, hp.epochs, 0), jnp.where(active, minibatches, 0)
        lrs = [decayed(lr, progress, hp.decay_learning_rates) for lr in (hp.actor_lr, hp.critic_lr)]
        words = jr.bits(key, (self.epochs_cap, 8), jnp.uint32)
        models = (self.actor, self.critic)
        weights, parts, restore = flatten(models)
        factors = step_factors(models)

        def descend(chunk: int) -> tuple:
            def minibatch(k: Any, j: Any, carry: tuple) -> tuple:
                weights, state, sums = carry
                start, size = minibatch_bounds(j, batch, minibatches, hp.minibatch_remainder == 1)
                gradient, measured = gradient_of_minibatch(
                    self, chunk, weights, restore, samples, words[k], start, size, batch
                )
                n = size.astype(jnp.float32)
                gradient = gradient * jnp.where(hp.loss_reduction == 1, 1.0, 1.0 / n)
                weights, state, norms = adam_step(
                    weights, gradient, state, parts, lrs, hp.max_grad_norm, factors
                )
                return weights, state, sums + jnp.concatenate([measured / n, norms])

            def epoch(k: Any, carry: tuple) -> tuple:
                return lane_loop(turns, partial(minibatch, k), carry)

            return lane_loop(epochs, epoch, (weights, self.optimiser, jnp.zeros(len(METRICS) + 2)))

        largest = jnp.where(active, (batch + minibatches - 1) // minibatches, 1)
        weights, state, sums = self.chunks.choose(largest, descend)
        actor, critic = restore(weights)
        agent = eqx.tree_at(
            lambda a: (a.actor, a.critic, a.optimiser, a.normaliser), self, (actor, critic, state, self.seen)
        )
        means = sums / self.gradient_steps().astype(jnp.float32)
        measured = [*means, rollout.explained_variance(), lrs[0]]
        return agent, dict(zip(self.metric_names, measured, strict=True))

    def _minibatches(self) -> Int[Array, ""]:
        return jnp.minimum(self.hp.num_minibatches, self.hp.num_envs * self.hp.rollout_length)
