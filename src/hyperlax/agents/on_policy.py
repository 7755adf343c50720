"""The shared part of on-policy algorithms: acting, advantages, and passes over a rollout in minibatches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from hyperlax.agents.base import (
    AbstractAgentHyperparams,
    AbstractPartwiseAgent,
    Metrics,
    NetworkUse,
    learned_share,
)
from hyperlax.envs.base import AbstractEnv
from hyperlax.hyperparams import Count, Flag, Real
from hyperlax.lanes.constants import constant, folded, surely
from hyperlax.lanes.masking import batched, lane_cond, select
from hyperlax.lanes.sizes import Extent, Sizes, nested
from hyperlax.learning.apart import with_weights, without_weights
from hyperlax.learning.losses import Measured, Tally, summed_gradient
from hyperlax.learning.minibatches import Chunks, Minibatch, Part, Passes
from hyperlax.learning.normalise import Normaliser
from hyperlax.learning.optimise import Weights, adam_state, adam_step, after_steps, before_steps, decayed
from hyperlax.learning.pages import layout
from hyperlax.learning.returns import Estimates, estimate, standardised
from hyperlax.learning.rollout import Trajectory
from hyperlax.learning.samples import Samples
from hyperlax.networks import Actor, Critic
from hyperlax.networks.base import AbstractNetworkHyperparams
from hyperlax.networks.heads import AbstractPolicy, policy_outputs
from hyperlax.networks.models import stacked_once


class AbstractOnPolicyHyperparams(AbstractAgentHyperparams):
    """Base class of the hyperparameters of on-policy algorithms; for defaults see `OnPolicyDefaults`."""

    learns_in_parts: ClassVar[bool] = True
    if TYPE_CHECKING:
        actor: eqx.AbstractVar[AbstractNetworkHyperparams]
        critic: eqx.AbstractVar[AbstractNetworkHyperparams]
        gamma: eqx.AbstractVar[Real]
        gae_lambda: eqx.AbstractVar[Real]
        max_grad_norm: eqx.AbstractVar[Real]
        epochs: eqx.AbstractVar[Count]
        num_minibatches: eqx.AbstractVar[Count]
        standardize_advantages: eqx.AbstractVar[Flag]
        decay_learning_rates: eqx.AbstractVar[Flag]
        normalize_observations: eqx.AbstractVar[Flag]
        loss_reduction: eqx.AbstractVar[Count]
        advantage_statistics: eqx.AbstractVar[Count]
        minibatch_remainder: eqx.AbstractVar[Count]
        truncation_bootstrap: eqx.AbstractVar[Count]
        normaliser_order: eqx.AbstractVar[Count]
        evaluation_normalisation: eqx.AbstractVar[Count]
        last_rollout: eqx.AbstractVar[Count]

    required: ClassVar[tuple[str, ...]] = (
        *AbstractAgentHyperparams.required,
        "actor",
        "critic",
        "gamma",
        "gae_lambda",
        "max_grad_norm",
        "epochs",
        "num_minibatches",
        "standardize_advantages",
        "decay_learning_rates",
        "normalize_observations",
        "loss_reduction",
        "advantage_statistics",
        "minibatch_remainder",
        "truncation_bootstrap",
        "normaliser_order",
        "evaluation_normalisation",
        "last_rollout",
    )

    def own_sizes(self) -> dict[str, Any]:
        batch = int(self.num_envs) * int(self.rollout_length)
        minibatches = min(int(self.num_minibatches), batch)
        return {
            "num_envs": Extent(self.num_envs),
            "rollout_length": Extent(self.rollout_length),
            "minibatch": Extent(-(-batch // minibatches)),
            "epochs": Extent(self.epochs),
            "gradient_steps": Extent(int(self.epochs) * minibatches),
        }

    def networks(self, env: AbstractEnv) -> dict[str, NetworkUse]:
        valuations = 1 + 1 / int(self.rollout_length)  # of the states of a rollout and the one after it
        return {
            "actor": NetworkUse(self.actor, env.obs_size, policy_outputs(env.action_space)),
            "critic": NetworkUse(self.critic, env.obs_size, 1, acting=valuations),
        }

    def problems(self) -> list[str]:
        batch = int(self.num_envs) * int(self.rollout_length)
        minibatches = int(self.num_minibatches)
        if minibatches > batch:
            return [f"{minibatches} minibatches of {batch} samples: {batch} minibatches of one are used"]
        left, drops = batch % minibatches, self.label("minibatch_remainder") == "drop"
        what = f"an epoch leaves {left} out" if drops else "their sizes differ by one"
        return [f"{minibatches} minibatches do not divide {batch} samples: {what}"] if left else []

    def normalises(self) -> Bool[Array, ""]:
        """Whether training or evaluation normalises observations, so that statistics are needed."""
        always = self.chosen("evaluation_normalisation", "always")
        return folded(lambda _, a, b: a | b, self.normalize_observations, always)

    def batch(self) -> Int[Array, ""]:
        """The number of samples of a rollout."""
        return folded(lambda _, a, b: a * b, self.num_envs, self.rollout_length)

    def minibatches(self) -> Int[Array, ""]:
        """The number of minibatches of a pass: `num_minibatches`, but no more than there are samples."""
        return folded(lambda xp, a, b: xp.minimum(a, b), self.num_minibatches, self.batch())


@final
class Step(eqx.Module):
    """The record of one action that learning needs.

    - `log_prob`: the logarithm of its probability or density under the policy that chose it.
    - `raw`: the action before squashing (see `AbstractPolicy`).
    - `noise`: standard normal numbers from which `AbstractPolicy.entropy` is estimated.
    - `features`: the observation as the networks saw it.
    """

    log_prob: Float[Array, "*rollout"]
    raw: Array
    noise: Float[Array, "*rollout act"]
    features: Float[Array, "*rollout obs"]


@final
class Sample(eqx.Module):
    """One sample of a rollout, as `loss` receives it.

    - `value`: the value of the state, estimated before learning.
    - `advantage`: the advantage of the action, standardised if the hyperparameters say so.
    - `target`: the return that the value should be fitted to.
    - `step`: the record of the action.
    """

    value: Float[Array, "*rollout"]
    advantage: Float[Array, "*rollout"]
    target: Float[Array, "*rollout"]
    step: Step


@final
class Learning(eqx.Module):
    """A call of `learn` that is under way.

    - `samples`: what it learns from, and `share`: the factor of the gradients (see `learned_share`).
    - `words`: the random words from which the samples are shuffled.
    - `progress`: the share of the training budget that was spent before the rollout.
    - `explained_variance`: of the values; `tally`: the sums of metrics so far.
    - `part`: how many parts of the gradient steps have been taken, if they are taken in parts.
    """

    samples: Samples
    words: UInt32[Array, "epochs 8"]
    share: Float[Array, ""]
    progress: Float[Array, ""]
    explained_variance: Float[Array, ""]
    tally: Tally
    part: Int[Array, ""]


T = TypeVar("T")
H = TypeVar("H", bound=AbstractOnPolicyHyperparams)


class AbstractOnPolicyAgent(AbstractPartwiseAgent, Generic[H]):
    """Base class of on-policy agents with an actor and a critic; a subclass defines the loss of a sample.

    By default, observations are normalised by statistics of earlier cycles (`normaliser`), so that
    old and new log-probabilities have the same inputs; `seen` also counts the current cycle.
    """

    losses: ClassVar[tuple[str, ...]] = ()
    """The names of the metrics that `loss` returns."""

    hp: H
    actor: Actor
    critic: Critic
    optimiser: optax.OptState
    normaliser: Normaliser
    seen: Normaliser
    chunks: Chunks = eqx.field(static=True)
    epochs_cap: int = eqx.field(static=True)

    def __init__(self, hp: H, env: AbstractEnv, caps: Sizes, *, key: PRNGKeyArray):
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

    @classmethod
    def create(cls: type[T], hp: Any, env: AbstractEnv, caps: Sizes, *, key: PRNGKeyArray) -> T:
        """Build an untrained agent whose arrays have the capacities `caps`."""
        build: Any = cls
        return build(hp, env, caps, key=key)

    @abstractmethod
    def loss(self, actor: Actor, critic: Critic, sample: Sample) -> tuple[Float[Array, ""], Measured]:
        """The loss of one sample, and the metrics named by `losses`."""

    @abstractmethod
    def step_sizes(self) -> Sequence[Float[Array, ""]]:
        """The step sizes of actor and critic, before any decay."""

    def weighed(self, policy: AbstractPolicy) -> AbstractPolicy:
        """`policy` with the log-probabilities that learning is to use; by default its own."""
        return policy

    @property
    def metric_names(self) -> tuple[str, ...]:
        return (*self.losses, "actor_grad_norm", "critic_grad_norm", "explained_variance", "actor_lr")

    def act(
        self, obs: Float[Array, " obs"], *, key: PRNGKeyArray, explore: Bool[Array, ""]
    ) -> tuple[Array, Step]:
        features = self.features(obs)
        policy = self.weighed(self.actor(features))
        sampled, noise = policy.sample(key=key)
        raw = jnp.where(explore, sampled, policy.mode())
        return policy.action(raw), Step(policy.log_prob(raw), raw, noise, features)

    def features(self, obs: Float[Array, " obs"]) -> Float[Array, " obs"]:
        """The input of the networks for `obs`: normalised if the hyperparameters say so."""
        return jnp.where(self.hp.normalize_observations, self.normaliser(obs), obs)

    def observe(self, obs: Float[Array, "envs obs"], valid: Bool[Array, " envs"]) -> AbstractOnPolicyAgent:
        seen = lane_cond(self.hp.normalises(), lambda s: s.update(obs, valid), lambda s: s, self.seen)
        now = select(self.hp.chosen("normaliser_order", "before_acting"), seen, self.normaliser)
        return eqx.tree_at(lambda a: (a.seen, a.normaliser), self, (seen, now))

    def observes_late(self) -> bool:
        return surely(self.hp.chosen("normaliser_order", "before_acting"), False)

    def for_evaluation(self) -> AbstractOnPolicyAgent:
        return eqx.tree_at(lambda a: a.hp.normalize_observations, self, self.hp.normalises())

    def chooser(self) -> tuple[Actor, Normaliser | None]:
        return self.actor, self.normaliser if self.hp.normalize_observations else None

    def gradient_steps(self) -> Int[Array, ""]:
        return folded(lambda _, a, b: a * b, self.hp.epochs, self.hp.minibatches())

    def estimates(self, trajectory: Trajectory) -> Estimates:
        """The values of the states, and the advantages of the actions by generalised advantage estimation."""
        hp, features = self.hp, trajectory.aux.features
        next_episode = hp.chosen("truncation_bootstrap", "next_episode")
        weights, left = without_weights(self.critic)
        weights = [jax.lax.optimization_barrier(x) for x in weights]
        # for several lanes, XLA would cut each column out of a first layer that adds up its inputs
        critic = with_weights(weights, left, sums=not batched())
        return estimate(
            critic,
            self.features,
            features,
            trajectory,
            hp.num_envs,
            hp.rollout_length,
            hp.gamma,
            hp.gae_lambda,
            next_episode,
        )

    def samples(self, trajectory: Trajectory, estimates: Estimates) -> Samples:
        """The samples to learn from, with advantages standardised if the hyperparameters say so."""
        by_time_step = self.hp.chosen("advantage_statistics", "time_step")
        standard = standardised(estimates, by_time_step)
        advantage = jnp.where(self.hp.standardize_advantages, standard, estimates.advantage)
        return Samples(Sample(estimates.value, advantage, estimates.target, trajectory.aux))

    def gradient(
        self, weights: Weights, restore: Callable[[Weights], Any], samples: Samples, minibatch: Minibatch
    ) -> tuple[Weights, Float[Array, "losses *samples"]]:
        """The gradient of the loss, summed over a minibatch, and the metrics (see `summed_gradient`)."""

        def loss(models: tuple[Any, ...], row: Float[Array, " columns"]) -> tuple[Float[Array, ""], Measured]:
            return self.loss(models[0], models[1], samples.unpack(row))

        def part(
            index: Int[Array, " k"], valid: Bool[Array, " k"]
        ) -> tuple[Weights, Float[Array, "losses *samples"]]:
            rows = samples.rows(index, self.hp.num_envs)
            return summed_gradient(loss, self.losses, restore, weights, (rows,), valid)

        return minibatch.total(part)

    def learn(
        self, trajectory: Trajectory, progress: Float[Array, ""], *, key: PRNGKeyArray
    ) -> tuple[AbstractOnPolicyAgent, Metrics]:
        learning = self.begin_learning(trajectory, progress, key=key)
        active = trajectory.rows > 0  # a finished lane must not keep the others busy
        agent, learning = self._learned(learning, active, None)
        return agent.end_learning(learning)

    def begin_learning(
        self, trajectory: Trajectory, progress: Float[Array, ""], *, key: PRNGKeyArray
    ) -> Learning:
        estimates = self.estimates(trajectory)
        return Learning(
            self.samples(trajectory, estimates),
            Passes.drawn(self.epochs_cap, key=key),
            learned_share(self.hp, trajectory),
            progress,
            estimates.explained_variance(),
            self._tally(),
            jnp.zeros((), jnp.int32),
        )

    def no_learning(self, env: AbstractEnv, caps: Sizes) -> Learning:
        rows = caps["rollout_length"], caps["env_blocks"] * caps["env_block"]
        act = lambda: self.act(jnp.zeros(env.obs_size), key=jr.key(0), explore=constant(True))  # noqa: E731
        record = jax.tree.map(lambda x: jnp.zeros((*rows, *x.shape), x.dtype), jax.eval_shape(act)[1])
        row, zero = jnp.zeros(rows), jnp.zeros(())
        words, none = jnp.zeros((self.epochs_cap, 8), jnp.uint32), jnp.zeros((), jnp.int32)
        return Learning(Samples(Sample(row, row, row, record)), words, zero, zero, zero, self._tally(), none)

    def learn_part(self, learning: Learning, steps: int) -> tuple[AbstractOnPolicyAgent, Learning]:
        return self._learned(learning, constant(True), Part(learning.part * steps, steps))

    def end_learning(self, learning: Learning) -> tuple[AbstractOnPolicyAgent, Metrics]:
        means = learning.tally.read() / self.gradient_steps().astype(jnp.float32)
        measured = [*means, learning.explained_variance, self._decayed(learning.progress)[0]]
        state = after_steps(self.optimiser, self.gradient_steps())
        agent = eqx.tree_at(lambda a: (a.optimiser, a.normaliser), self, (state, self.seen))
        return agent, dict(zip(self.metric_names, measured, strict=True))

    def _tally(self) -> Tally:
        return Tally(len(self.losses) + 2, self.chunks.lengths[-1])  # with the norms of both gradients

    def _decayed(self, progress: Float[Array, ""]) -> list[Float[Array, ""]]:
        """The step sizes of actor and critic at `progress`."""
        return [decayed(lr, progress, self.hp.decay_learning_rates) for lr in self.step_sizes()]

    def _learned(
        self, learning: Learning, active: Bool[Array, ""], part: Part | None
    ) -> tuple[AbstractOnPolicyAgent, Learning]:
        """Take the gradient steps of a part of `learning`, or all; none if the lane is not `active`."""
        hp, models = self.hp, (self.actor, self.critic)
        lrs = self._decayed(learning.progress)
        laid = layout(models)
        factors = laid.step_factors()

        def step(minibatch: Minibatch, carry: tuple[Any, ...]) -> tuple[Any, ...]:
            weights, state, tally = carry
            gradient, measured = self.gradient(weights, laid.restore, learning.samples, minibatch)
            n = minibatch.size.astype(jnp.float32)
            mean = jnp.where(hp.chosen("loss_reduction", "sum"), 1.0, 1.0 / n)
            weights, state, norms = adam_step(
                weights,
                gradient * (learning.share * mean),
                state,
                laid.parts,
                lrs,
                hp.max_grad_norm,
                factors,
                minibatch.number,
            )
            return weights, state, tally.add(measured, norms, n)

        passes = Passes(
            hp.batch(),
            hp.minibatches(),
            hp.epochs,
            hp.chosen("minibatch_remainder", "drop"),
            active,
            learning.words,
            self.chunks,
            learning.samples.table.shape[0],
        )
        with stacked_once(models):
            carry = (*laid.begun(before_steps(self.optimiser)), learning.tally)
            weights, state, tally = passes.fold(step, carry, part)
        models, state = laid.ended(weights, state)
        learned = lambda a: (a.actor, a.critic, a.optimiser)  # noqa: E731
        agent = eqx.tree_at(learned, self, (*models, state))
        return agent, eqx.tree_at(lambda x: (x.tally, x.part), learning, (tally, learning.part + 1))
