"""The shared part of off-policy algorithms: replay buffer, warm-up, gradient steps on sampled batches."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from hyperlax.agents.base import AbstractAgent, AbstractAgentHyperparams, Holding, Metrics, learned_share
from hyperlax.envs.base import AbstractEnv, Discrete
from hyperlax.hyperparams import Count, Flag, Real, default_of
from hyperlax.hyperparams.spaces import Choice
from hyperlax.lanes.constants import accelerated, folded
from hyperlax.lanes.keys import step_keys
from hyperlax.lanes.masking import lane_cond, lane_loop, select, standard_normal
from hyperlax.lanes.sizes import Extent, Sizes
from hyperlax.learning.losses import Measured, Tally, summed_gradient
from hyperlax.learning.minibatches import Chunks
from hyperlax.learning.normalise import Normaliser
from hyperlax.learning.optimise import Weights, adam_step, after_steps, flatten, step_factors
from hyperlax.learning.replay import Replay, Transition
from hyperlax.learning.rollout import Trajectory
from hyperlax.networks.by_platform import by_platform

COUNTED_AT_ONCE = 2**20
"""Transitions in a block; a power of two, so that a ratio times it is exact in float32."""


class AbstractOffPolicyHyperparams(AbstractAgentHyperparams):
    """Base class of the hyperparameters of an algorithm that learns from a replay buffer.

    A cycle collects `rollout_length` steps in every environment and then takes `epochs` gradient steps. If
    `update_to_data` is above zero, it takes that many per env step instead, on average over the cycles.
    """

    warmup_rollout_length: eqx.AbstractVar[Count]
    epochs: eqx.AbstractVar[Count]
    update_to_data: eqx.AbstractVar[Real]
    buffer_size: eqx.AbstractVar[Count]
    batch_size: eqx.AbstractVar[Count]
    gamma: eqx.AbstractVar[Real]
    tau: eqx.AbstractVar[Real]
    max_grad_norm: eqx.AbstractVar[Real]
    normalize_observations: eqx.AbstractVar[Flag]
    loss_reduction: eqx.AbstractVar[Count]
    normaliser_order: eqx.AbstractVar[Count]
    evaluation_normalisation: eqx.AbstractVar[Count]
    warmup_actions: eqx.AbstractVar[Count]
    warmup_budget: eqx.AbstractVar[Count]
    if TYPE_CHECKING:
        buffer_rounding: eqx.AbstractVar[Count]
        last_rollout: eqx.AbstractVar[Count]

    required: ClassVar[tuple[str, ...]] = (
        *AbstractAgentHyperparams.required,
        "buffer_rounding",
        "last_rollout",
    )

    @staticmethod
    def quick() -> dict[str, Any]:
        return {
            "num_envs": Choice(2, 4),
            "rollout_length": Choice(1, 2),
            "warmup_rollout_length": 8,
            "update_to_data": 0.25,
            "buffer_size": 1000,
            "batch_size": 16,
        }

    def own_sizes(self) -> dict[str, Any]:
        collected = int(self.num_envs) * int(self.rollout_length)
        by_ratio = -(-collected * float(self.update_to_data) // 1)
        return {
            "num_envs": Extent(self.num_envs),
            "rollout_length": Extent(self.rollout_length),
            "minibatch": Extent(self.batch_size),
            "gradient_steps": Extent(by_ratio if float(self.update_to_data) > 0 else self.epochs),
            "buffer_size": Extent(self.buffer_rows()),
        }

    def normalises(self) -> Bool[Array, ""]:
        """Whether training or evaluation normalises observations, so that statistics are needed."""
        always = self.chosen("evaluation_normalisation", "always")
        return folded(lambda _, a, b: a | b, self.normalize_observations, always)

    def capacity(self) -> Int[Array, ""]:
        """The number of transitions that the replay buffer holds."""
        rounded = self.chosen("buffer_rounding", "whole_steps")
        return folded(
            lambda xp, whole, size, envs: xp.where(whole, xp.maximum(size // envs, 1) * envs, size),
            rounded,
            self.buffer_size,
            self.num_envs,
        )

    def buffer_rows(self) -> int:
        """The transitions to allocate: `buffer_size`, or one per environment if whole steps need more."""
        return max(int(self.buffer_size), int(self.capacity()))

    def warmup_steps(self) -> int:
        if self.label("warmup_budget") == "free":
            return 0
        return int(self.warmup_rollout_length) * int(self.num_envs)

    def collected_first(self) -> int:
        free = self.label("warmup_budget") == "free"
        return int(self.warmup_rollout_length) * int(self.num_envs) if free else 0

    def holds(self, env: AbstractEnv) -> dict[str, Holding]:
        transition = 2 * env.obs_size + math.prod(env.action_space.shape) + 2
        words = 2 * int(self.batch_size)  # random words and the positions made from them
        return {
            **super().holds(env),
            "the replay buffer": Holding(4 * transition * self.buffer_rows(), "buffer_size", True),
            "a batch": Holding(4 * words, "batch_size", False),
        }

    def problems(self) -> list[str]:
        collected = int(self.num_envs) * int(self.rollout_length)
        held, batch = int(self.capacity()), int(self.batch_size)
        warm_up = int(self.warmup_rollout_length) * int(self.num_envs)
        before = (-(-warm_up // collected) + 1) * collected  # whole cycles, and the one that is learned from
        found = []
        if batch > held:
            found.append(f"a batch of {batch} from a buffer of {held}: transitions repeat within every batch")
        if collected > held:
            found.append(f"a rollout of {collected} steps into a buffer of {held}: its first steps are lost")
        ratio, epochs = float(self.update_to_data), int(self.epochs)
        if ratio > 0 and epochs != default_of(self, "epochs"):
            found.append(
                f"epochs ({epochs}) has no effect while update_to_data is {ratio:.4g}; "
                "add --set update_to_data=0"
            )
        if batch > before:
            found.append(
                f"a batch of {batch} when {before} steps are collected: the first repeat transitions"
            )
        return found


@final
class Experience(eqx.Module):
    """The transitions and the statistics of the observations that an agent has collected.

    - `replay`: the replay buffer.
    - `normaliser`: the statistics that observations are normalised by.
    - `seen`: the statistics of all observations so far.
    - `warming`: whether the agent is still in its warm-up, in which it collects without learning.
    - `steps`: the number of gradient steps of the latest `learn`.
    """

    replay: Replay
    normaliser: Normaliser
    seen: Normaliser
    warming: Bool[Array, ""]
    steps: Int[Array, ""]

    def __init__(self, hp: AbstractOffPolicyHyperparams, env: AbstractEnv, caps: Sizes):
        dtype = jnp.int32 if isinstance(env.action_space, Discrete) else jnp.float32
        action_like = jax.ShapeDtypeStruct(env.action_space.shape, dtype)
        self.replay = Replay(hp.capacity(), caps["buffer_size"], env.obs_size, action_like)
        self.normaliser = self.seen = Normaliser(env.obs_size)
        self.warming = hp.warmup_rollout_length > 0
        self.steps = jnp.zeros((), jnp.int32)

    def observed(
        self, hp: AbstractOffPolicyHyperparams, obs: Float[Array, "envs obs"], valid: Bool[Array, " envs"]
    ) -> Experience:
        """Add the current observations of all environments to the statistics, before acting on them."""
        before = self.seen
        seen = lane_cond(hp.normalises(), lambda s: s.update(obs, valid), lambda s: s, before)
        acting = select(hp.chosen("normaliser_order", "before_acting"), seen, before)
        return eqx.tree_at(lambda e: (e.seen, e.normaliser), self, (seen, acting))

    def collected(self, hp: AbstractOffPolicyHyperparams, trajectory: Trajectory) -> Experience:
        """Add a rollout, whose `aux` are the actions, and set `steps` to the gradient steps now due."""
        replay = self.replay.add(trajectory, trajectory.aux, hp.num_envs)
        ratio = hp.update_to_data
        by_ratio = counted(replay.added, ratio) - counted(self.replay.added, ratio)
        most = jnp.ceil((hp.num_envs * hp.rollout_length).astype(jnp.float32) * ratio).astype(jnp.int32)
        by_ratio = jnp.minimum(by_ratio, most)  # float32 can round to one more than a program plans for
        due = jnp.where(ratio > 0, by_ratio, hp.epochs)
        due = jnp.where(trajectory.rows > 0, due, 0)  # a finished lane must not keep the others busy
        return eqx.tree_at(
            lambda e: (e.replay, e.normaliser, e.warming, e.steps),
            self,
            (
                replay,
                self.seen,
                replay.added < hp.warmup_rollout_length * hp.num_envs,
                jnp.where(self.warming, 0, due),
            ),
        )

    def features(self, hp: AbstractOffPolicyHyperparams, obs: Float[Array, " obs"]) -> Float[Array, " obs"]:
        """The input of the networks for `obs`: normalised if the hyperparameters say so."""
        return jnp.where(hp.normalize_observations, self.normaliser(obs), obs)


_apart_on_cpus = by_platform(
    "hyperlax_drawn",
    lambda platform, x: (jax.lax.optimization_barrier(x) if platform == "cpu" else x,),
    lambda x: (x,),
)
"""Random words that programs for accelerators compute before they use them if they run on a CPU.

XLA for CPUs would compute all rounds of a hash anew for every use, and compile for minutes (jax 0.12).
"""


def counted(count: Int[Array, ""], ratio: Real) -> Int[Array, ""]:
    """`count` times `ratio`, rounded down.

    Whole blocks are counted as integers, because float32 cannot tell large counts apart.
    """
    blocks, rest = count // COUNTED_AT_ONCE, count % COUNTED_AT_ONCE
    per_block = COUNTED_AT_ONCE * ratio
    whole = jnp.floor(per_block)
    left = blocks.astype(jnp.float32) * (per_block - whole) + rest.astype(jnp.float32) * ratio
    return blocks * whole.astype(jnp.int32) + jnp.floor(left).astype(jnp.int32)


class AbstractOffPolicyAgent(AbstractAgent):
    """Base class of agents with a replay buffer and a target network for the first of their `models()`."""

    hp: eqx.AbstractVar[AbstractOffPolicyHyperparams]
    optimiser: eqx.AbstractVar[optax.OptState]
    target: eqx.AbstractVar[Weights]
    experience: eqx.AbstractVar[Experience]
    chunks: eqx.AbstractVar[Chunks]
    losses: ClassVar[tuple[str, ...]] = ()
    """The names of the metrics that `loss` returns."""
    learned: ClassVar[tuple[str, ...]] = ()
    """The names of further metrics: the gradient norm of each model, then the step size of the first."""

    @property
    def metric_names(self) -> tuple[str, ...]:
        return *self.losses, *self.learned

    @abstractmethod
    def models(self) -> tuple[eqx.Module, ...]:
        """The models that are trained; each has a step size of its own."""

    @abstractmethod
    def with_models(self, models: tuple[Any, ...], progress: Float[Array, ""]) -> AbstractOffPolicyAgent:
        """Return the agent with new models; `progress` is the spent share of the training budget, 0 to 1."""

    @abstractmethod
    def step_sizes(self, progress: Float[Array, ""]) -> Sequence[Float[Array, ""]]:
        """The step sizes of `models()`, in the same order, at `progress`."""

    @abstractmethod
    def noise_size(self) -> int:
        """The number of standard normal numbers that `loss` needs per transition."""

    @abstractmethod
    def loss(
        self, models: tuple[Any, ...], target: Any, transition: Transition, noise: Float[Array, " noise"]
    ) -> tuple[Float[Array, ""], Measured]:
        """The loss of one transition with normalised observations, and the metrics named by `losses`."""

    def observe(self, obs: Float[Array, "envs obs"], valid: Bool[Array, " envs"]) -> AbstractOffPolicyAgent:
        return eqx.tree_at(lambda a: a.experience, self, self.experience.observed(self.hp, obs, valid))

    def gradient_steps(self) -> Int[Array, ""]:
        return self.experience.steps

    def spends_budget(self) -> Bool[Array, ""]:
        return ~self.experience.warming | self.hp.chosen("warmup_budget", "counted")

    def for_evaluation(self) -> AbstractOffPolicyAgent:
        return eqx.tree_at(
            lambda a: (a.hp.normalize_observations, a.experience.warming),
            self,
            (self.hp.normalises(), jnp.bool_(False)),
        )

    def for_acting(self) -> AbstractOffPolicyAgent:
        return eqx.tree_at(lambda a: a.experience.replay.table.value, self, replace_fn=lambda t: t[:0])

    def acts_randomly(self) -> Bool[Array, ""]:
        """Whether actions are drawn uniformly, as they can be during the warm-up."""
        return self.experience.warming & self.hp.chosen("warmup_actions", "uniform")

    def learn(
        self, trajectory: Trajectory, progress: Float[Array, ""], *, key: PRNGKeyArray
    ) -> tuple[AbstractOffPolicyAgent, Metrics]:
        hp, experience = self.hp, self.experience.collected(self.hp, trajectory)
        agent = eqx.tree_at(lambda a: a.experience, self, experience)
        weights, parts, restore = flatten(self.models())
        factors = step_factors(self.models())
        lrs = self.step_sizes(progress)
        mean = jnp.where(hp.chosen("loss_reduction", "sum"), 1.0, 1.0 / hp.batch_size.astype(jnp.float32))
        scale = mean * learned_share(hp, trajectory)

        key_of = step_keys(key, self.chunks.most_steps)

        def descend(chunk: int) -> tuple:
            def step(i: Any, carry: tuple) -> tuple:
                weights, target, state, tally = carry
                gradient, measured = agent.gradient(weights, target, restore, chunk, key_of(i))
                weights, state, norms = adam_step(
                    weights, gradient * scale, state, parts, lrs, hp.max_grad_norm, factors, i
                )
                target = target + hp.tau * (weights[: parts[0]] - target)
                tally = tally.add(measured, norms, hp.batch_size.astype(jnp.float32))
                return weights, target, state, tally

            tally = Tally(len(self.losses) + len(parts), chunk)
            carry = (weights, self.target, self.optimiser, tally)
            *learned, tally = lane_loop(experience.steps, step, carry, self.chunks.most_steps)
            return *learned, tally.read()

        largest = jnp.where(trajectory.rows > 0, hp.batch_size, 1)
        weights, target, state, sums = self.chunks.choose(largest, descend)
        state = after_steps(state, experience.steps)
        agent = eqx.tree_at(lambda a: (a.target, a.optimiser), agent, (target, state))
        means = sums / jnp.maximum(experience.steps, 1).astype(jnp.float32)
        return agent.with_models(restore(weights), progress), dict(
            zip(self.metric_names, [*means, lrs[0]], strict=True)
        )

    def gradient(
        self, weights: Weights, target: Float[Array, " target"], restore: Any, chunk: int, key: PRNGKeyArray
    ) -> tuple[Weights, Float[Array, "losses *samples"]]:
        """The gradient, summed over one batch drawn from the replay buffer, and the metrics of the loss."""
        cap, columns = self.chunks.minibatch_cap, 1 + self.noise_size()
        words = jr.bits(key, (cap * columns,), jnp.uint32).reshape(cap, columns)
        target_model = flatten(self.models()[:1])[2](target)[0]

        def part(position: Int[Array, " k"], valid: Bool[Array, " k"]) -> tuple:
            drawn = words[position]
            if accelerated():
                (drawn,) = _apart_on_cpus(words if len(position) == cap else drawn)  # those from 0 on
            batch, noise = self.experience.replay.sample(drawn[:, 0]), standard_normal(drawn[:, 1:])

            loss = partial(self._loss, target_model)
            return summed_gradient(loss, self.losses, restore, weights, (batch, noise), valid)

        return self.chunks.summed(chunk, self.hp.batch_size, part)

    def _loss(
        self, target: Any, models: Any, transition: Transition, noise: Any
    ) -> tuple[Float[Array, ""], Measured]:
        """The `loss` of a transition whose observations are not normalised yet."""
        features = partial(self.experience.features, self.hp)
        seen = eqx.tree_at(
            lambda t: (t.obs, t.next_obs),
            transition,
            (features(transition.obs), features(transition.next_obs)),
        )
        return self.loss(models, target, seen, noise)


def discounted(reward: Float[Array, ""], gamma: Real, following: Float[Array, ""]) -> Float[Array, ""]:
    """`reward` + `gamma` · `following`, written as a product of two vectors.

    XLA would compute a plain sum, and everything that it depends on, again for every unit of the layer that
    the error is propagated to.
    """
    return jnp.stack([jnp.ones_like(gamma), gamma]) @ jnp.stack([reward, following])


PUBLISHED = {
    "time_limit": "termination",
    "warmup_actions": "policy",
    "warmup_budget": "free",
    "evaluation_normalisation": "always",
    "buffer_rounding": "whole_steps",
}
"""The values of the published protocol that DQN and SAC have in common."""
