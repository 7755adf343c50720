"""Soft actor-critic (Haarnoja et al. 2018); exact expectations for discrete actions (Christodoulou 2019)."""

from __future__ import annotations

import math
from abc import abstractmethod
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
from hyperlax.hyperparams import Choice, Count, Flag, LogUniform, Real, Uniform, hp
from hyperlax.lanes.masking import select
from hyperlax.lanes.sizes import Sizes, nested
from hyperlax.learning.losses import Measured
from hyperlax.learning.minibatches import Chunks
from hyperlax.learning.normalise import Normaliser
from hyperlax.learning.optimise import Weights, adam_state, decayed, flatten
from hyperlax.learning.replay import Transition
from hyperlax.networks import ActionValues, Actor, Categorical, Critic, jointly
from hyperlax.networks.base import AbstractNetworkHyperparams
from hyperlax.networks.heads import policy_outputs
from hyperlax.networks.mlp import MLPHyperparams
from hyperlax.registry.limits import LIMITS


@final
class SACHyperparams(AbstractOffPolicyHyperparams):
    """The hyperparameters of SAC; every one may differ between the lanes of one program."""

    actor: AbstractNetworkHyperparams = eqx.field(default_factory=MLPHyperparams)
    critic: AbstractNetworkHyperparams = eqx.field(default_factory=MLPHyperparams)
    actor_lr: Real = hp(1e-3, LogUniform(1e-4, 3e-3), doc=meanings.ACTOR_STEP_SIZE)
    q_lr: Real = hp(1e-3, LogUniform(1e-4, 3e-3), doc=meanings.CRITICS_STEP_SIZE)
    alpha_lr: Real = hp(1e-3, LogUniform(1e-4, 3e-3), doc=meanings.TEMPERATURE_STEP_SIZE)
    gamma: Real = hp(0.99, Uniform(0.9, 0.999), doc=meanings.DISCOUNT, most=1)
    tau: Real = hp(0.015, LogUniform(1e-3, 1e-1), doc=meanings.TARGET_UPDATE, most=1)
    max_grad_norm: Real = hp(10.0, LogUniform(0.5, 20.0), doc=meanings.CLIP_GRADIENT)
    autotune: Flag = hp(True, Choice(True), doc=meanings.AUTOTUNE)
    target_entropy_scale: Real = hp(0.3, Uniform(0.1, 1.0), doc=meanings.TARGET_ENTROPY)
    init_alpha: Real = hp(
        0.2, LogUniform(0.05, 1.0), doc=meanings.TEMPERATURE, least=1e-6, fixed_at_start=True
    )
    num_envs: Count = hp(4, Choice(4, 8, 16), doc=meanings.ENVS)
    rollout_length: Count = hp(1, Choice(1, 2, 4), doc=meanings.ROLLOUT)
    warmup_rollout_length: Count = hp(
        64, Choice(32, 64, 128), doc=meanings.WARMUP, least=0, fixed_at_start=True
    )
    epochs: Count = hp(8, doc=meanings.GRADIENT_STEPS)
    update_to_data: Real = hp(0.25, Choice(0.25, 0.5, 1.0), doc=meanings.UPDATE_TO_DATA)
    buffer_size: Count = hp(50_000, Choice(20_000, 50_000, 100_000), doc=meanings.BUFFER, fixed_at_start=True)
    batch_size: Count = hp(64, Choice(64, 128, 256), doc=meanings.BATCH, most=LIMITS["batch_size"].most)
    normalize_observations: Flag = hp(True, Choice(True, False), doc=meanings.NORMALIZE, fixed_at_start=True)
    decay_learning_rates: Flag = hp(True, doc=meanings.DECAY)
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
    action_units: Count = hp("range", labels=("range", "environment"), doc=meanings.ACTION_UNITS)
    density_at_bounds: Count = hp("exact", labels=("exact", "averaged"), doc=meanings.DENSITY_AT_BOUNDS)
    buffer_rounding: Count = hp("none", labels=("none", "whole_steps"), doc=meanings.BUFFER_ROUNDING)
    last_rollout: Count = hp("learned", labels=("learned", "unlearned"), doc=meanings.LAST_ROLLOUT)

    def agent(self, env: AbstractEnv, caps: Sizes, *, key: PRNGKeyArray) -> SAC:
        return SAC(self, env, caps, key=key)

    def networks(self, env: AbstractEnv) -> dict[str, NetworkUse]:
        outputs = policy_outputs(env.action_space)
        values = outputs if isinstance(env.action_space, Discrete) else 1
        return {
            "actor": NetworkUse(self.actor, env.obs_size, outputs, values=1),
            "critic": NetworkUse(
                self.critic, _critic_inputs(env), values, acting=0, values=2, gradients=4, copies=2
            ),
        }

    def parameter_count(self, env: AbstractEnv) -> int:
        return super().parameter_count(env) + 1  # the temperature

    @staticmethod
    def published(env_name: str) -> dict[str, Any]:
        return {
            **PUBLISHED,
            "update_to_data": 0.0,
            "decay_learning_rates": False,
            "action_units": "environment",
            "density_at_bounds": "averaged",
        }


def _critic_inputs(env: AbstractEnv) -> int:
    """The input length of a critic: the observation, and the action unless it is discrete."""
    return env.obs_size + math.prod(env.action_space.shape) * (not isinstance(env.action_space, Discrete))


class AbstractTwinCritic(eqx.Module):
    """Base class of pairs of critics, which estimate the value of an action independently."""

    @abstractmethod
    def __call__(self, obs: Float[Array, " obs"], action: Array) -> Float[Array, " 2"]:
        """The two estimates of the value of `action`."""

    @abstractmethod
    def judge(
        self, target: Any, transition: Transition, policies: tuple[Any, Any], noises: tuple[Array, Array]
    ) -> tuple[Float[Array, " 2"], Expected, Expected]:
        """The values of the transition's action, and what is `Expected` at both of its ends.

        At its start, that is by these critics without their gradient, and at its end by the `target`.
        `policies` and `noises` are those of both ends. All networks are evaluated jointly.
        """


Expected = tuple[Float[Array, ""], Float[Array, ""]]
"""The expectations of the smaller value and of the log-probability over the actions of a policy.

They are exact for discrete actions, and for others estimated from the one action that standard normal noise
leads to.
"""


def _smaller(a: Array, b: Array) -> Array:
    """The minimum; cheaper to differentiate than `jnp.minimum`, which divides the gradient among ties."""
    return jnp.where(a < b, a, b)


@final
class TwinStateActionCritic(AbstractTwinCritic):
    """Twin critics for continuous actions; the networks see observation and action concatenated."""

    first: Critic
    second: Critic

    def __call__(self, obs: Float[Array, " obs"], action: Float[Array, " act"]) -> Float[Array, " 2"]:
        both = jnp.concatenate([obs, action])
        return jnp.stack([self.first(both), self.second(both)])

    def judge(
        self,
        target: TwinStateActionCritic,
        transition: Transition,
        policies: tuple[Any, Any],
        noises: tuple[Array, Array],
    ) -> tuple[Float[Array, " 2"], Expected, Expected]:
        held = jax.lax.stop_gradient(self)
        now, after = (p.loc + p.std * n for p, n in zip(policies, noises, strict=True))
        taken = jnp.concatenate([transition.obs, transition.action])
        chosen = jnp.concatenate([transition.obs, policies[0].action(now)])
        following = jnp.concatenate([transition.next_obs, policies[1].action(after)])
        pairs = (self, taken), (held, chosen), (target, following)
        models = [critic for twin, _ in pairs for critic in (twin.first, twin.second)]
        q = jointly(models, [x for _, x in pairs for _ in range(2)])
        return (
            jnp.stack(q[:2]),
            (_smaller(*q[2:4]), policies[0].log_prob(now)),
            (_smaller(*q[4:]), policies[1].log_prob(after)),
        )


@final
class TwinActionValues(AbstractTwinCritic):
    """Twin critics for discrete actions; the networks return the values of all actions."""

    first: ActionValues
    second: ActionValues

    def __call__(self, obs: Float[Array, " obs"], action: Int[Array, ""]) -> Float[Array, " 2"]:
        values = jnp.stack([self.first(obs), self.second(obs)])
        return jnp.sum(jnp.where(jnp.arange(values.shape[1])[None] == action, values, 0), axis=1)

    def judge(
        self,
        target: TwinActionValues,
        transition: Transition,
        policies: tuple[Any, Any],
        noises: tuple[Array, Array],
    ) -> tuple[Float[Array, " 2"], Expected, Expected]:
        obs, following = transition.obs, transition.next_obs
        models = self.first, self.second, target.first, target.second
        q = jointly(models, (obs, obs, following, following))
        taken = jnp.arange(q[0].shape[0]) == transition.action
        values = jnp.sum(jnp.where(taken[None], jnp.stack(q[:2]), 0), axis=1)
        held = jax.lax.stop_gradient(q[:2])
        return (
            values,
            _over_actions(policies[0], _smaller(*held)),
            _over_actions(policies[1], _smaller(*q[2:])),
        )


def _over_actions(policy: Categorical, values: Float[Array, " actions"]) -> Expected:
    """The expectations of `values` and of the log-probability over the actions of `policy`."""
    probs = jnp.exp(policy.log_probs)
    return jnp.sum(probs * values), jnp.sum(probs * policy.log_probs)


@final
class Temperature(eqx.Module):
    """The temperature α, which weights the entropy, stored as its logarithm."""

    log_alpha: Float[Array, ""]


@final
class SAC(AbstractOffPolicyAgent):
    """A SAC agent: actor, twin critics and their target, temperature, optimiser and replay buffer."""

    losses: ClassVar[tuple[str, ...]] = ("q_loss", "policy_loss", "entropy", "alpha", "q_value")
    learned: ClassVar[tuple[str, ...]] = ("q_grad_norm", "actor_grad_norm", "alpha_grad_norm", "q_lr")

    hp: SACHyperparams
    actor: Actor
    critics: AbstractTwinCritic
    temperature: Temperature
    target: Weights
    optimiser: optax.OptState
    experience: Experience
    action_space: ActionSpace
    chunks: Chunks = eqx.field(static=True)

    def __init__(self, hp: SACHyperparams, env: AbstractEnv, caps: Sizes, *, key: PRNGKeyArray):
        keys = jr.split(key, 6)
        space = env.action_space
        body = hp.actor.network(env.obs_size, nested(caps, "actor"), key=keys[0])
        bodies = [
            hp.critic.network(_critic_inputs(env), nested(caps, "critic"), key=k) for k in (keys[2], keys[3])
        ]
        self.hp = hp
        self.actor = Actor(body, space, key=keys[1])
        if isinstance(space, Discrete):
            values = [ActionValues(b, space.n, key=k) for b, k in zip(bodies, keys[4:], strict=True)]
            self.critics = TwinActionValues(*values)
        else:
            scalars = [Critic(b, key=k) for b, k in zip(bodies, keys[4:], strict=True)]
            self.critics = TwinStateActionCritic(*scalars)
        self.temperature = Temperature(jnp.log(hp.init_alpha))
        self.target = flatten((self.critics,))[0]
        self.optimiser = adam_state(self.models())
        self.experience = Experience(hp, env, caps)
        self.action_space = space
        self.chunks = Chunks.of(caps)

    def act(
        self, obs: Float[Array, " obs"], *, key: PRNGKeyArray, explore: Bool[Array, ""]
    ) -> tuple[Array, Array]:
        keys = jr.split(key)
        policy = self.actor(self.experience.features(self.hp, obs))
        raw = jnp.where(explore, policy.sample(key=keys[0])[0], policy.mode())
        drawn = self.action_space.uniform(key=keys[1])
        action = jnp.where(explore & self.acts_randomly(), drawn, policy.action(raw))
        return action, action

    def chooser(self) -> tuple[Actor, Normaliser | None]:
        return self.actor, self.experience.normaliser if self.hp.normalize_observations else None

    def models(self) -> tuple[eqx.Module, ...]:
        return self.critics, self.actor, self.temperature

    def with_models(self, models: tuple[Any, ...], progress: Float[Array, ""]) -> SAC:
        return eqx.tree_at(lambda a: (a.critics, a.actor, a.temperature), self, models)

    def step_sizes(self, progress: Float[Array, ""]) -> Sequence[Float[Array, ""]]:
        hp = self.hp
        return [decayed(lr, progress, hp.decay_learning_rates) for lr in (hp.q_lr, hp.actor_lr, hp.alpha_lr)]

    def noise_size(self) -> int:
        return 0 if isinstance(self.action_space, Discrete) else 2 * self.action_space.shape[0]

    def target_entropy(self) -> Float[Array, ""]:
        """−scale · dimensions of a box (Haarnoja et al. 2018), or scale · log(number of actions).

        Entropies are those of actions in the units of `judged`.
        """
        space = self.action_space
        most = math.log(space.n) if isinstance(space, Discrete) else -float(space.shape[0])
        return self.hp.target_entropy_scale * most

    def judged(self, transition: Transition, policies: tuple[Any, Any]) -> tuple[Transition, tuple[Any, Any]]:
        """`transition` and `policies` with actions in the units that critics and entropies are to see.

        Unless the hyperparameter `action_units` says otherwise, every dimension of a box is mapped linearly
        to (−1, 1), so that learning does not depend on the units of the environment.
        """
        space = self.action_space
        if isinstance(space, Discrete):
            return transition, policies
        low, high = jnp.asarray(space.low), jnp.asarray(space.high)
        unit = -jnp.ones_like(low), jnp.ones_like(high), space.centred(transition.action)
        own = self.hp.chosen("action_units", "environment")
        low, high, action = select(own, (low, high, transition.action), unit)
        seen = eqx.tree_at(lambda t: t.action, transition, action)
        averaged = self.hp.chosen("density_at_bounds", "averaged")
        now, after = (policy.within(low, high).averaging(averaged) for policy in policies)
        return seen, (now, after)

    def loss(
        self, models: tuple[Any, ...], target: Any, transition: Transition, noise: Float[Array, " noise"]
    ) -> tuple[Float[Array, ""], Measured]:
        """The summed losses of critics, policy and temperature, all at the weights before the step.

        Haarnoja et al. 2018 ("Algorithms and Applications"), eq. 5, 7 and 18, the last one for log α.
        """
        hp, (critics, actor, temperature) = self.hp, models
        now, after = jnp.split(noise, 2)
        alpha = jnp.exp(temperature.log_alpha)
        fixed_alpha = jax.lax.stop_gradient(alpha)

        policies = jointly((actor, actor), (transition.obs, transition.next_obs))
        transition, policies = self.judged(transition, policies)
        values, (value, log_prob), (next_value, next_log_prob) = critics.judge(
            target, transition, policies, (now, after)
        )
        following = jnp.where(transition.terminated, 0, next_value - fixed_alpha * next_log_prob)
        goal = jax.lax.stop_gradient(discounted(transition.reward, hp.gamma, following))
        q_loss = 0.5 * jnp.sum((values - goal) ** 2)
        policy_loss = fixed_alpha * log_prob - value

        surplus = jax.lax.stop_gradient(-log_prob - self.target_entropy())
        alpha_loss = jnp.where(hp.autotune, alpha * surplus, 0)
        measured = {
            "q_loss": q_loss,
            "policy_loss": policy_loss,
            "entropy": -log_prob,
            "alpha": fixed_alpha,
            "q_value": jnp.mean(values),
        }
        return q_loss + policy_loss + alpha_loss, measured
