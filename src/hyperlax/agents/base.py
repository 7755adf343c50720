"""What an agent is: a PyTree that acts and learns, hyperparameters included."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from hyperlax.agents import costs
from hyperlax.agents.costs import Arithmetic, Use
from hyperlax.envs.base import AbstractEnv, ActionSpace
from hyperlax.hyperparams import AbstractHyperparams
from hyperlax.learning.rollout import Trajectory
from hyperlax.networks.base import AbstractNetworkHyperparams, Sizes

Metrics = Mapping[str, Float[Array, ""]]


class AbstractAgent(eqx.Module):
    """One agent. Built by its hyperparameters' `agent(env, caps, key=key)`; every method is for one agent."""

    hp: eqx.AbstractVar[AbstractHyperparams]
    optimiser: eqx.AbstractVar[optax.OptState]
    metric_names: eqx.AbstractClassVar[tuple[str, ...]]
    """What `learn` reports, known without tracing it."""

    @abstractmethod
    def act(self, obs: Float[Array, " obs"], *, key: Any, explore: Bool[Array, ""]) -> tuple[Array, PyTree]:
        """An action for the environment, and what `learn` will want to know about it.

        Sampled where `explore`, otherwise the policy's best (mode, greedy).
        """

    @abstractmethod
    def observe(self, obs: Float[Array, "envs obs"], valid: Bool[Array, " envs"]) -> AbstractAgent:
        """The agent after seeing a row of observations, before acting on it."""

    @abstractmethod
    def learn(
        self, trajectory: Trajectory, progress: Float[Array, ""], *, key: Any
    ) -> tuple[AbstractAgent, Metrics]:
        """The agent after learning from a rollout; `progress` is the share of the training budget spent."""

    @abstractmethod
    def gradient_steps(self) -> Int[Array, ""]:
        """Gradient steps of the latest `learn`."""

    def spends_budget(self) -> Bool[Array, ""]:
        """Whether the env steps it is about to collect count."""
        return jnp.bool_(True)

    def for_acting(self) -> AbstractAgent:
        """Without what takes much memory and only learning needs; what is saved as a policy."""
        return self

    @abstractmethod
    def for_evaluation(self) -> AbstractAgent:
        """The agent as evaluation is to see it."""


class AbstractAgentHyperparams(AbstractHyperparams):
    """Hyperparameters of an algorithm, those of its networks nested inside.

    `num_envs` and `rollout_length` are common to all algorithms: what is collected before each `learn`.
    """

    num_envs: eqx.AbstractVar[Int[Array, ""]]
    rollout_length: eqx.AbstractVar[Int[Array, ""]]

    @abstractmethod
    def agent(self, env: AbstractEnv, caps: Sizes, *, key: Any) -> AbstractAgent:
        """A fresh agent inside the capacities `caps`."""

    @abstractmethod
    def sizes(self) -> dict[str, Any]:
        """The sizes this sample uses; called on the host, on a single sample.

        For every algorithm `num_envs`, `rollout_length`, `minibatch` (samples of a gradient step) and
        `gradient_steps` (per cycle), and the sizes of its networks under their names.
        """

    def warmup_steps(self) -> int:
        """Env steps of the budget that pass before the first gradient step."""
        return 0

    @abstractmethod
    def uses(self) -> dict[str, Use]:
        """How often each of `networks` is evaluated; called on the host, on a single sample."""

    def arithmetic(self, sizes: Sizes, env: AbstractEnv) -> Arithmetic:
        """What a step and learning cost in `env` with networks of `sizes`, for the planner.

        A derivative costs twice what a value costs.
        """
        step, gradient, weights = env.step_work, 0.0, 0.0
        for name, (net, seen) in self.networks(env).items():
            use, own = self.uses()[name], nested(sizes, name)
            forward = net.flops(seen, own)
            step += use.acting * forward
            gradient += (use.values + 3 * use.gradients) * forward
            weights += use.copies * net.weights(seen, own)
        return Arithmetic(step, gradient, weights)

    def executions(self, env: AbstractEnv) -> tuple[float, float]:
        """Circuits that a quantum computer would run to train this sample: per env step, per gradient step.

        One for the output of one input, and what the parameter-shift rule takes for its derivatives.
        Evaluation episodes are not counted.
        """
        acting = learning = 0.0
        for name, (net, seen) in self.networks(env).items():
            use, (value, gradient) = self.uses()[name], net.executions(seen)
            acting += use.acting * value
            learning += use.values * value + use.gradients * gradient
        return acting, learning * self.sizes()["minibatch"]

    def capacities(self, sizes: Sequence[Sizes], cycles: Sequence[int], env: AbstractEnv) -> dict[str, Any]:
        """What a program must allocate to hold lanes of these sizes, of which each runs so many cycles."""
        caps = merge(sizes)
        return costs.with_blocks(caps, sizes, cycles, self.arithmetic(caps, env))

    def work(self, sizes: Sizes, caps: Sizes, env: AbstractEnv) -> tuple[float, float]:
        """Predicted cost of one cycle of a lane of `sizes` in a program with `caps`: (all of it, gradients).

        In floating-point operations; what the padded program does, not what the lane needs.
        """
        return costs.cycle_work(sizes, caps, self.arithmetic(caps, env))

    @abstractmethod
    def networks(self, env: AbstractEnv) -> dict[str, tuple[AbstractNetworkHyperparams, int]]:
        """The networks by name, and the length of the vector each sees."""

    def refusal(self, env: AbstractEnv, memory: int) -> str | None:
        """Why this sample cannot run in so many bytes, whatever else is changed; None when it can."""
        for name, (net, in_size) in self.networks(env).items():
            if answer := net.refusal(in_size, memory):
                return f"{name}: {answer}"
        return None

    @abstractmethod
    def parameter_count(self, env: AbstractEnv) -> int:
        """Trainable parameters this sample uses; called on the host, on a single sample."""

    @classmethod
    @abstractmethod
    def supports(cls, space: ActionSpace) -> str | None:
        """None when the algorithm can act in `space`, otherwise why not and what fits instead."""

    @abstractmethod
    def problems(self) -> list[str]:
        """What does not fit together in this sample, and what is done about it; called on the host."""

    @staticmethod
    @abstractmethod
    def quick() -> dict[str, Any]:
        """Spaces and values for trying out: sizes so small that a run ends in seconds."""

    @staticmethod
    @abstractmethod
    def published(env_name: str) -> dict[str, Any]:
        """The settings that reproduce the published protocol on `env_name`."""


def merge(sizes: Sequence[Sizes]) -> dict[str, Any]:
    """The smallest capacities that hold all of `sizes`: maxima, and unions of branches.

    Raises `ValueError` where a shape that cannot be padded differs.
    """
    merged: dict[str, Any] = {}
    for name in sizes[0]:
        column = [s[name] for s in sizes]
        if isinstance(column[0], str) and len(set(column)) > 1:
            raise ValueError(f"{name} cannot differ within a program: {', '.join(sorted(set(column)))}")
        merged[name] = frozenset().union(*column) if isinstance(column[0], frozenset) else max(column)
    return merged


def shapes(sizes: Sizes) -> tuple[tuple[str, str], ...]:
    """What must be equal in all lanes of a program."""
    return tuple((k, v) for k, v in sorted(sizes.items()) if isinstance(v, str))


def nested(sizes: Sizes, prefix: str) -> dict[str, Any]:
    """The entries of `sizes` under `prefix.`, without it."""
    return {k.removeprefix(prefix + "."): v for k, v in sizes.items() if k.startswith(prefix + ".")}


def prefixed(sizes: Sizes, prefix: str) -> dict[str, Any]:
    """`sizes` with every name put under `prefix.`."""
    return {f"{prefix}.{k}": v for k, v in sizes.items()}
