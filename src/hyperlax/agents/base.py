"""What an agent is: a PyTree that acts and learns, hyperparameters included."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from hyperlax.agents import costs
from hyperlax.agents.costs import Arithmetic
from hyperlax.envs.base import AbstractEnv, ActionSpace
from hyperlax.hyperparams import AbstractHyperparams, Count
from hyperlax.lanes.sizes import Sizes, merge, nested, prefixed
from hyperlax.learning.rollout import Trajectory
from hyperlax.networks.base import AbstractNetworkHyperparams
from hyperlax.typecheck import check_fields

Metrics = Mapping[str, Float[Array, ""]]


class AbstractAgent(eqx.Module):
    """One agent. Built by its hyperparameters' `agent(env, caps, key=key)`; every method is for one agent."""

    hp: eqx.AbstractVar[AbstractHyperparams]
    optimiser: eqx.AbstractVar[optax.OptState]

    def __check_init__(self):
        check_fields(self)

    @property
    @abstractmethod
    def metric_names(self) -> tuple[str, ...]:
        """The keys of what `learn` reports, known without tracing it."""

    @abstractmethod
    def act(
        self, obs: Float[Array, " obs"], *, key: PRNGKeyArray, explore: Bool[Array, ""]
    ) -> tuple[Array, PyTree]:
        """Choose an action for the environment, and note what `learn` will want to know about it.

        Sampled where `explore`, otherwise the policy's best (mode, greedy).
        """

    @abstractmethod
    def learn(
        self, trajectory: Trajectory, progress: Float[Array, ""], *, key: PRNGKeyArray
    ) -> tuple[AbstractAgent, Metrics]:
        """Learn from a rollout: the agent afterwards, and means over its gradient steps by `metric_names`.

        `progress` is the share of the training budget that is spent, from 0 to 1.
        """

    @abstractmethod
    def gradient_steps(self) -> Int[Array, ""]:
        """The number of gradient steps that the latest `learn` took."""

    def observe(self, obs: Float[Array, "envs obs"], valid: Bool[Array, " envs"]) -> AbstractAgent:
        """Take note of a row of observations before acting on it; rows that are not `valid` are padding."""
        return self

    def spends_budget(self) -> Bool[Array, ""]:
        """Whether the env steps that the agent is about to collect count towards its training budget."""
        return jnp.bool_(True)

    def for_acting(self) -> AbstractAgent:
        """The agent without what takes much memory and only learning needs: what is saved as a policy."""
        return self

    def for_evaluation(self) -> AbstractAgent:
        """The agent as evaluation is to see it."""
        return self


class NetworkUse(NamedTuple):
    """One network of an agent: what it sees, what its head returns, and how often it is evaluated.

    - `hp`: its hyperparameters. `inputs`: the length of the vector it sees. `outputs`: of its linear head.
    - `acting`: evaluations per env step.
    - `values`, `gradients`: evaluations per sample of a gradient step, without derivatives and with those of
      weights or inputs.
    - `copies`: networks of this kind that learn weights of their own.
    """

    hp: AbstractNetworkHyperparams
    inputs: int
    outputs: int
    acting: float = 1
    values: float = 0
    gradients: float = 1
    copies: int = 1

    def parameter_count(self) -> int:
        """Count the trainable parameters, those of the head included."""
        head = (self.hp.out(self.inputs) + 1) * self.outputs
        return self.copies * (self.hp.parameter_count(self.inputs) + head)


class AbstractAgentHyperparams(AbstractHyperparams):
    """Hyperparameters of an algorithm, those of its networks nested inside.

    What the program around an agent reads is common to all algorithms: `num_envs` environments are stepped
    `rollout_length` times before each `learn`, and `time_limit` (labels "truncation" and "termination") says
    what the end of an episode by its time limit counts as.
    """

    required: ClassVar[tuple[str, ...]] = ("num_envs", "rollout_length", "time_limit")

    num_envs: eqx.AbstractVar[Count]
    rollout_length: eqx.AbstractVar[Count]
    if TYPE_CHECKING:
        time_limit: eqx.AbstractVar[Count]

    @abstractmethod
    def agent(self, env: AbstractEnv, caps: Sizes, *, key: PRNGKeyArray) -> AbstractAgent:
        """Build a fresh agent inside the capacities `caps`."""

    @abstractmethod
    def own_sizes(self) -> dict[str, Any]:
        """The sizes of this sample that are not those of a network; called on the host, on a single sample.

        For every algorithm `num_envs`, `rollout_length`, `minibatch` (samples of a gradient step) and
        `gradient_steps` (per cycle).
        """

    @abstractmethod
    def networks(self, env: AbstractEnv) -> dict[str, NetworkUse]:
        """The networks by the name of their field, and how each is used; called on a single sample."""

    def sizes(self) -> dict[str, Any]:
        """The sizes of this sample, those of its networks under their names (`hyperlax.lanes.sizes`)."""
        sizes = self.own_sizes()
        for name, net in self.nested_networks().items():
            sizes |= prefixed(net.sizes(), name)
        return sizes

    def nested_networks(self) -> dict[str, AbstractNetworkHyperparams]:
        """The hyperparameters of the networks by the name of their field, in order of declaration."""
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: net for name, net in own.items() if isinstance(net, AbstractNetworkHyperparams)}

    def warmup_steps(self) -> int:
        """Env steps of the budget that pass before the first gradient step."""
        return 0

    def arithmetic(self, sizes: Sizes, env: AbstractEnv) -> Arithmetic:
        """What a step and learning cost in `env` with networks of `sizes`, for the planner.

        A derivative costs twice what a value costs.
        """
        step, gradient, weights = env.step_work, 0.0, 0.0
        for name, use in self.networks(env).items():
            own = nested(sizes, name)
            forward = use.hp.flops(use.inputs, own)
            step += use.acting * forward
            gradient += (use.values + 3 * use.gradients) * forward
            weights += use.copies * use.hp.weights(use.inputs, own)
        return Arithmetic(step, gradient, weights)

    def executions(self, env: AbstractEnv) -> tuple[float, float]:
        """Circuits that a quantum computer would run to train this sample: per env step, per gradient step.

        One for the output of one input, and what the parameter-shift rule takes for its derivatives.
        Evaluation episodes are not counted.
        """
        acting = learning = 0.0
        for use in self.networks(env).values():
            value, gradient = use.hp.executions(use.inputs)
            acting += use.acting * value
            learning += use.values * value + use.gradients * gradient
        return acting, learning * self.sizes()["minibatch"]

    def capacities(self, sizes: Sequence[Sizes], cycles: Sequence[int], env: AbstractEnv) -> dict[str, Any]:
        """What a program must allocate to hold lanes of these sizes, of which each runs so many cycles."""
        caps = merge(sizes)
        return costs.with_blocks(caps, sizes, cycles, self.arithmetic(caps, env))

    def work(self, sizes: Sizes, caps: Sizes, env: AbstractEnv) -> tuple[float, float]:
        """Predict the cost of a cycle of a lane of `sizes` in a program with `caps`: (all of it, gradients).

        In floating-point operations; what the padded program does, not what the lane needs.
        """
        return costs.cycle_work(sizes, caps, self.arithmetic(caps, env))

    def refusal(self, env: AbstractEnv, memory: int) -> str | None:
        """Say why this sample cannot run in `memory` bytes, whatever else is changed; None when it can."""
        for name, use in self.networks(env).items():
            if answer := use.hp.refusal(use.inputs, memory):
                return f"{name}: {answer}"
        return None

    def parameter_count(self, env: AbstractEnv) -> int:
        """Count the trainable parameters of this sample; called on the host, on a single sample."""
        return sum(use.parameter_count() for use in self.networks(env).values())

    @classmethod
    def supports(cls, space: ActionSpace) -> str | None:
        """None when the algorithm can act in `space`, otherwise why not and what fits instead."""
        return None

    def problems(self) -> list[str]:
        """What does not fit together in this sample, and what is done about it; called on the host."""
        return []

    @staticmethod
    def quick() -> dict[str, Any]:
        """Spaces and values for trying out: sizes so small that a run ends in seconds."""
        return {}

    @staticmethod
    def published(env_name: str) -> dict[str, Any]:
        """The settings that reproduce the published protocol on `env_name`."""
        return {}
