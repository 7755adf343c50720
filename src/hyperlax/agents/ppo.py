"""Proximal policy optimisation (Schulman et al. 2017) for discrete and continuous actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from hyperlax.agents import meanings
from hyperlax.agents.on_policy import AbstractOnPolicyAgent, AbstractOnPolicyHyperparams, Sample
from hyperlax.envs.base import AbstractEnv
from hyperlax.hyperparams import Choice, Count, Flag, LogUniform, Real, Uniform, hp
from hyperlax.lanes.sizes import Sizes
from hyperlax.learning.losses import Measured
from hyperlax.networks import Actor, Critic, jointly
from hyperlax.networks.base import AbstractNetworkHyperparams
from hyperlax.networks.heads import AbstractPolicy
from hyperlax.networks.mlp import MLPHyperparams


@final
class PPOHyperparams(AbstractOnPolicyHyperparams):
    """The hyperparameters of PPO; every one may differ between the lanes of one program."""

    actor: AbstractNetworkHyperparams = eqx.field(default_factory=MLPHyperparams)
    critic: AbstractNetworkHyperparams = eqx.field(default_factory=MLPHyperparams)
    actor_lr: Real = hp(1e-3, LogUniform(1e-5, 1e-3), doc=meanings.ACTOR_STEP_SIZE)
    critic_lr: Real = hp(1e-3, LogUniform(1e-5, 1e-3), doc=meanings.CRITIC_STEP_SIZE)
    gamma: Real = hp(0.99, Uniform(0.9, 0.999), doc=meanings.DISCOUNT, most=1)
    gae_lambda: Real = hp(0.95, Uniform(0.9, 0.99), doc=meanings.GAE_DECAY, most=1)
    clip_eps: Real = hp(0.2, Uniform(0.01, 0.5), doc=meanings.CLIP_RANGE)
    ent_coef: Real = hp(0.01, LogUniform(1e-5, 1e-1), doc=meanings.ENTROPY)
    vf_coef: Real = hp(0.5, Uniform(0.5, 1.0), doc=meanings.VALUE_LOSS)
    max_grad_norm: Real = hp(0.5, Uniform(0.1, 1.0), doc=meanings.CLIP_GRADIENT)
    rollout_length: Count = hp(32, Choice(16, 32, 64, 128), doc=meanings.ROLLOUT)
    epochs: Count = hp(4, Choice(1, 2, 4), doc=meanings.EPOCHS)
    num_minibatches: Count = hp(8, Choice(2, 4, 8), doc=meanings.MINIBATCHES)
    num_envs: Count = hp(16, Choice(8, 16, 32, 64), doc=meanings.ENVS)
    standardize_advantages: Flag = hp(True, Choice(True, False), doc=meanings.STANDARDIZE)
    decay_learning_rates: Flag = hp(True, Choice(True, False), doc=meanings.DECAY)
    normalize_observations: Flag = hp(True, Choice(True, False), doc=meanings.NORMALIZE, fixed_at_start=True)
    clip_value: Flag = hp(False, doc=meanings.CLIP_VALUE)
    loss_reduction: Count = hp("mean", labels=("mean", "sum"), doc=meanings.LOSS_REDUCTION)
    advantage_statistics: Count = hp("batch", labels=("batch", "time_step"), doc=meanings.STANDARDIZED_OVER)
    minibatch_remainder: Count = hp("spread", labels=("spread", "drop"), doc=meanings.REMAINDER)
    time_limit: Count = hp("truncation", labels=("truncation", "termination"), doc=meanings.TIME_LIMIT)
    truncation_bootstrap: Count = hp(
        "final_observation", labels=("final_observation", "next_episode"), doc=meanings.BOOTSTRAP
    )
    normaliser_order: Count = hp(
        "after_learning", labels=("after_learning", "before_acting"), doc=meanings.NORMALISER_OF_CYCLES
    )
    evaluation_normalisation: Count = hp(
        "as_trained", labels=("as_trained", "always"), doc=meanings.EVALUATION_NORMALISES
    )
    density_at_bounds: Count = hp("exact", labels=("exact", "averaged"), doc=meanings.DENSITY_AT_BOUNDS)
    last_rollout: Count = hp("learned", labels=("learned", "unlearned"), doc=meanings.LAST_ROLLOUT)

    def agent(self, env: AbstractEnv, caps: Sizes, *, key: PRNGKeyArray) -> PPO:
        return PPO.create(self, env, caps, key=key)

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
            "clip_value": True,
            "loss_reduction": "sum",
            "advantage_statistics": "time_step",
            "minibatch_remainder": "drop",
            "truncation_bootstrap": "next_episode",
            "normaliser_order": "before_acting",
            "evaluation_normalisation": "always",
            "density_at_bounds": "averaged",
            "last_rollout": "unlearned",
        }
        if env_name.startswith("gymnax."):
            settings["time_limit"] = "termination"
        return settings


@final
class PPO(AbstractOnPolicyAgent[PPOHyperparams]):
    """A PPO agent, whose clipped loss keeps policy and values close to those that collected the rollout."""

    losses: ClassVar[tuple[str, ...]] = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")

    def step_sizes(self) -> Sequence[Float[Array, ""]]:
        return self.hp.actor_lr, self.hp.critic_lr

    def weighed(self, policy: AbstractPolicy) -> AbstractPolicy:
        return policy.averaging(self.hp.chosen("density_at_bounds", "averaged"))

    def loss(self, actor: Actor, critic: Critic, sample: Sample) -> tuple[Float[Array, ""], Measured]:
        """The clipped objective of one sample (Schulman et al. 2017, eq. 7, 9), `clip_value` for values."""
        hp, step = self.hp, sample.step
        own, value = jointly((actor, critic), (step.features, step.features))
        policy = self.weighed(own)
        log_ratio = policy.log_prob(step.raw) - step.log_prob
        ratio = jnp.exp(log_ratio)
        clipped = jnp.clip(ratio, 1 - hp.clip_eps, 1 + hp.clip_eps)
        policy_loss = -jnp.minimum(ratio * sample.advantage, clipped * sample.advantage)
        entropy = policy.entropy(step.noise)
        near = sample.value + jnp.clip(value - sample.value, -hp.clip_eps, hp.clip_eps)
        free, near = (value - sample.target) ** 2, (near - sample.target) ** 2
        value_loss = 0.5 * jnp.where(hp.clip_value, jnp.maximum(free, near), free)
        total = policy_loss - hp.ent_coef * entropy + hp.vf_coef * value_loss
        return total, {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "approx_kl": ratio - 1 - log_ratio,
            "clip_fraction": (jnp.abs(ratio - 1) > hp.clip_eps).astype(total.dtype),
        }
