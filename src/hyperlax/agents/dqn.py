"""Deep Q-learning (Mnih et al. 2015) with double Q (van Hasselt et al. 2016), for discrete actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from hyperlax.agents import meanings
from hyperlax.agents.base import NetworkUse
from hyperlax.agents.off_policy import (
    PUBLISHED,
    AbstractOffPolicyAgent,
    AbstractOffPolicyHyperparams,
    Experience,
    discounted,
)
from hyperlax.envs.base import AbstractEnv, ActionSpace, Discrete
from hyperlax.hyperparams import Choice, Count, Flag, LogUniform, Real, Uniform, assign, hp, trainable
from hyperlax.lanes.sizes import Sizes, nested
from hyperlax.learning.losses import Measured
from hyperlax.learning.minibatches import Chunks
from hyperlax.learning.normalise import Normaliser
from hyperlax.learning.optimise import Weights, adam_state, decayed, flatten
from hyperlax.learning.replay import Transition
from hyperlax.networks import ActionValues, jointly
from hyperlax.networks.base import AbstractNetworkHyperparams
from hyperlax.networks.few import largest, total
from hyperlax.networks.heads import policy_outputs
from hyperlax.networks.mlp import MLPHyperparams
from hyperlax.registry.limits import LIMITS

SMALLEST_HUBER = 1e-6
"""Huber thresholds up to this value stand for the squared error."""


@final
class DQNHyperparams(AbstractOffPolicyHyperparams):
    """The hyperparameters of DQN; every one may differ between the lanes of one program."""

    critic: AbstractNetworkHyperparams = eqx.field(
        default_factory=lambda: assign(MLPHyperparams(), {"layer_norm": True, "activation": "relu"})
    )
    critic_lr: Real = hp(5e-4, LogUniform(1e-4, 3e-3), doc=meanings.STEP_SIZE)
    tau: Real = hp(0.01, LogUniform(1e-3, 1e-1), doc=meanings.TARGET_UPDATE, most=1)
    gamma: Real = hp(0.99, Uniform(0.9, 0.999), doc=meanings.DISCOUNT, most=1)
    max_grad_norm: Real = hp(10.0, LogUniform(0.5, 20.0), doc=meanings.CLIP_GRADIENT)
    training_epsilon: Real = hp(0.05, Uniform(0.01, 0.2), doc=meanings.EXPLORATION, most=1)
    evaluation_epsilon: Real = hp(0.0, doc=meanings.EVALUATION_EXPLORATION, most=1)
    max_abs_reward: Real = hp(1e9, doc=meanings.REWARD_CLIP)
    huber_loss_parameter: Real = hp(0.0, Choice(0.0, 0.5, 1.0), doc=meanings.HUBER)
    warmup_rollout_length: Count = hp(
        32, Choice(16, 32, 64), doc=meanings.WARMUP, least=0, fixed_at_start=True
    )
    num_envs: Count = hp(16, Choice(8, 16, 32), doc=meanings.ENVS)
    rollout_length: Count = hp(4, Choice(1, 2, 4, 8), doc=meanings.ROLLOUT)
    epochs: Count = hp(16, doc=meanings.GRADIENT_STEPS)
    update_to_data: Real = hp(0.25, Choice(0.125, 0.25, 0.5), doc=meanings.UPDATE_TO_DATA)
    buffer_size: Count = hp(50_000, Choice(10_000, 50_000, 100_000), doc=meanings.BUFFER, fixed_at_start=True)
    batch_size: Count = hp(64, Choice(64, 128, 256), doc=meanings.BATCH, most=LIMITS["batch_size"].most)
    decay_learning_rates: Flag = hp(True, Choice(True, False), doc=meanings.DECAY)
    normalize_observations: Flag = hp(True, Choice(True, False), doc=meanings.NORMALIZE, fixed_at_start=True)
    use_double_q: Flag = hp(True, Choice(True, False), doc=meanings.DOUBLE_Q)
    epsilon_start: Real = hp(1.0, doc=meanings.FIRST_EXPLORATION, most=1)
    epsilon_decay: Real = hp(0.2, Choice(0.1, 0.2, 0.4), doc=meanings.EXPLORATION_DECAY, most=1)
    loss_reduction: Count = hp("mean", labels=("mean", "sum"), doc=meanings.LOSS_REDUCTION)
    time_limit: Count = hp("truncation", labels=("truncation", "termination"), doc=meanings.TIME_LIMIT)
    normaliser_order: Count = hp(
        "after_acting", labels=("after_acting", "before_acting"), doc=meanings.NORMALISER_OF_STEPS
    )
    evaluation_normalisation: Count = hp(
        "as_trained", labels=("as_trained", "always"), doc=meanings.EVALUATION_NORMALISES
    )
    warmup_actions: Count = hp("uniform", labels=("uniform", "policy"), doc=meanings.WARMUP_ACTIONS)
    warmup_budget: Count = hp("counted", labels=("counted", "free"), doc=meanings.WARMUP_BUDGET)
    buffer_rounding: Count = hp("none", labels=("none", "whole_steps"), doc=meanings.BUFFER_ROUNDING)
    last_rollout: Count = hp("learned", labels=("learned", "unlearned"), doc=meanings.LAST_ROLLOUT)

    def agent(self, env: AbstractEnv, caps: Sizes, *, key: PRNGKeyArray) -> DQN:
        return DQN(self, env, caps, key=key)

    def networks(self, env: AbstractEnv) -> dict[str, NetworkUse]:
        return {"critic": NetworkUse(self.critic, env.obs_size, policy_outputs(env.action_space), values=2)}

    @classmethod
    def supports(cls, space: ActionSpace) -> str | None:
        if isinstance(space, Discrete):
            return None
        return "DQN needs discrete actions; use sac or ppo with the same network"

    @staticmethod
    def published(env_name: str) -> dict[str, Any]:
        return {
            **PUBLISHED,
            "loss_reduction": "sum",
            "normaliser_order": "before_acting",
            "epsilon_decay": 0.0,
            "update_to_data": 0.0,
            "last_rollout": "unlearned",
        }


@final
class DQN(AbstractOffPolicyAgent):
    """A DQN agent: the action-value network, its target network and optimiser, and the replay buffer."""

    losses: ClassVar[tuple[str, ...]] = ("td_loss", "td_error", "q_value")
    learned: ClassVar[tuple[str, ...]] = ("critic_grad_norm", "critic_lr")

    hp: DQNHyperparams
    critic: ActionValues
    target: Weights
    optimiser: optax.OptState
    experience: Experience
    epsilon: Float[Array, ""]
    chunks: Chunks = eqx.field(static=True)

    def __init__(self, hp: DQNHyperparams, env: AbstractEnv, caps: Sizes, *, key: PRNGKeyArray):
        assert isinstance(env.action_space, Discrete)
        keys = jr.split(key)
        body = hp.critic.network(env.obs_size, nested(caps, "critic"), key=keys[0])
        self.hp = hp
        self.critic = ActionValues(body, env.action_space.n, key=keys[1])
        self.target = flatten((self.critic,))[0]
        self.optimiser = adam_state((self.critic,))
        self.experience = Experience(hp, env, caps)
        self.epsilon = scheduled_epsilon(hp, jnp.zeros(()))
        self.chunks = Chunks.of(caps)

    def act(
        self, obs: Float[Array, " obs"], *, key: PRNGKeyArray, explore: Bool[Array, ""]
    ) -> tuple[Int[Array, ""], Int[Array, ""]]:
        keys = jr.split(key)
        values = self.critic(self.experience.features(self.hp, obs))
        epsilon = jnp.where(explore, self.epsilon, self.hp.evaluation_epsilon)
        random = (jr.uniform(keys[0]) < epsilon) | (explore & self.acts_randomly())
        drawn = jr.randint(keys[1], (), 0, values.shape[0])
        action = jnp.where(random, drawn, largest(values))
        return action, action

    def chooser(self) -> tuple[ActionValues, Normaliser | None]:
        return self.critic, self.experience.normaliser if self.hp.normalize_observations else None

    def models(self) -> tuple[eqx.Module, ...]:
        return (self.critic,)

    def with_models(self, models: tuple[Any, ...], progress: Float[Array, ""]) -> DQN:
        return eqx.tree_at(lambda a: a.critic, self, models[0])

    def advanced(self, progress: Float[Array, ""]) -> DQN:
        return eqx.tree_at(lambda a: a.epsilon, self, scheduled_epsilon(self.hp, progress))

    def step_sizes(self, progress: Float[Array, ""]) -> Sequence[Float[Array, ""]]:
        return [decayed(self.hp.critic_lr, progress, self.hp.decay_learning_rates)]

    def noise_size(self) -> int:
        return 0

    def loss(
        self, models: tuple[Any, ...], target: Any, transition: Transition, noise: Float[Array, " noise"]
    ) -> tuple[Float[Array, ""], Measured]:
        """The Huber loss of the temporal-difference error (van Hasselt et al. 2016, eq. 4, for double Q).

        The target network provides the value of the next state, which is zero after termination.
        """
        hp, critic = self.hp, models[0]
        obs, next_obs = transition.obs, transition.next_obs
        trained, others = eqx.partition(critic, trainable(critic))
        choosing = eqx.combine(jax.lax.stop_gradient(trained), others)  # only the index of its best action
        values, following, chooser = jointly((critic, target, choosing), (obs, next_obs, next_obs))
        chooser = jnp.where(hp.use_double_q, chooser, following)
        bootstrap = _at(following, largest(chooser))
        reward = jnp.clip(transition.reward, -hp.max_abs_reward, hp.max_abs_reward)
        goal = discounted(reward, hp.gamma, jnp.where(transition.terminated, 0, bootstrap))
        value = _at(values, transition.action)
        error = jax.lax.stop_gradient(goal) - value
        loss = huber(error, hp.huber_loss_parameter)
        return loss, {"td_loss": loss, "td_error": jnp.abs(error), "q_value": value}


def huber(error: Float[Array, ""], threshold: Float[Array, ""]) -> Float[Array, ""]:
    """½ error² up to `threshold`, linear beyond (Huber 1964); zero stands for an infinite threshold."""
    size = jnp.abs(error)
    near = jnp.where(threshold > SMALLEST_HUBER, jnp.minimum(size, threshold), size)
    return 0.5 * near**2 + threshold * (size - near)


def scheduled_epsilon(hp: DQNHyperparams, progress: Float[Array, ""]) -> Float[Array, ""]:
    """Share of random actions: linear from `epsilon_start` to `training_epsilon`, or constant.

    A cycle acts with the share that is due at its first step.
    """
    left = jnp.clip(1 - progress / jnp.maximum(hp.epsilon_decay, 1e-6), 0, 1)
    linear = hp.training_epsilon + left * (hp.epsilon_start - hp.training_epsilon)
    return jnp.where(hp.epsilon_decay > 0, linear, hp.training_epsilon)


def _at(values: Float[Array, " actions"], action: Int[Array, ""]) -> Float[Array, ""]:
    """`values[action]`, computed as a masked sum so that its gradient needs no scatter."""
    return total(jnp.where(jnp.arange(values.shape[0]) == action, values, 0))
