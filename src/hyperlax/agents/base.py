"""The interface of agents: PyTrees that act and learn and contain their hyperparameters."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from hyperlax.agents import costs
from hyperlax.agents.costs import Arithmetic, Chain
from hyperlax.envs.base import AbstractEnv, ActionSpace
from hyperlax.hyperparams import AbstractHyperparams, Count, design
from hyperlax.lanes.constants import constant
from hyperlax.lanes.masking import select
from hyperlax.lanes.sizes import Sizes, merge, nested, prefixed, shapes, without_shapes
from hyperlax.learning.normalise import Normaliser
from hyperlax.learning.rollout import Trajectory
from hyperlax.networks.base import AbstractNetworkHyperparams
from hyperlax.networks.models import AbstractModel
from hyperlax.typecheck import check_fields

Metrics = Mapping[str, Float[Array, ""]]


class AbstractAgent(eqx.Module):
    """Base class of agents; the hyperparameters build one with `hp.agent(env, caps, key=key)`.

    Every method is written for one agent; a program maps it over its lanes.
    """

    hp: eqx.AbstractVar[AbstractHyperparams]
    optimiser: eqx.AbstractVar[optax.OptState]

    def __check_init__(self):
        check_fields(self)

    @property
    @abstractmethod
    def metric_names(self) -> tuple[str, ...]:
        """The keys of the metrics that `learn` returns, known without tracing it."""

    @abstractmethod
    def act(
        self, obs: Float[Array, " obs"], *, key: PRNGKeyArray, explore: Bool[Array, ""]
    ) -> tuple[Array, PyTree]:
        """Choose an action and return it together with everything that `learn` will need to know about it.

        The action is sampled if `explore` is true; otherwise it is the policy's best (its mode, or greedy).
        """

    @abstractmethod
    def learn(
        self, trajectory: Trajectory, progress: Float[Array, ""], *, key: PRNGKeyArray
    ) -> tuple[AbstractAgent, Metrics]:
        """Learn from a rollout; return the new agent and its metrics, averaged over the gradient steps.

        `progress` is the share of the training budget that has been spent, from 0 to 1.
        """

    def advanced(self, progress: Float[Array, ""]) -> AbstractAgent:
        """Return the agent as it is to act after `learn`, when the share `progress` of the budget is spent.

        `learn` itself is told the share before the rollout that it learns from.
        """
        return self

    @abstractmethod
    def gradient_steps(self) -> Int[Array, ""]:
        """The number of gradient steps that the latest `learn` took."""

    def observe(self, obs: Float[Array, "envs obs"], valid: Bool[Array, " envs"]) -> AbstractAgent:
        """Record the current observation of every environment before acting; invalid rows are padding."""
        return self

    def observes_late(self) -> bool:
        """Whether `observe` may see all observations of a rollout at once, as acting does not use them."""
        return False

    def spends_budget(self) -> Bool[Array, ""]:
        """Whether the env steps that the agent is about to collect count towards its training budget."""
        return constant(True)

    def for_acting(self) -> AbstractAgent:
        """Return the agent without large buffers that only learning needs, as a policy file holds it."""
        return self

    def chooser(self) -> tuple[AbstractModel, Normaliser | None]:
        """The model from whose output the best action is read, and what its input is normalised by.

        This is what is exported of an agent in the form in which it is evaluated. Raises `ValueError` for an
        algorithm that does not say.
        """
        raise ValueError(
            f"{type(self).__name__} does not say which of its models chooses the best action; "
            "define chooser() on its class to export policies"
        )

    def for_evaluation(self) -> AbstractAgent:
        """Return the agent in the form in which it is evaluated."""
        return self


class AbstractPartwiseAgent(AbstractAgent):
    """Base class of agents that can also take the gradient steps of `learn` in several parts.

    Lanes of a program for accelerators whose cycles hold different numbers of gradient steps then need not
    wait for one another (see `programs.train`). What is learned is the same, however long the parts are.
    """

    @abstractmethod
    def begin_learning(self, trajectory: Trajectory, progress: Float[Array, ""], *, key: PRNGKeyArray) -> Any:
        """What `learn` begins with, of which no part has been taken yet: a module with a field `part`.

        The arguments are those of `learn`. `part` counts the parts that have been taken.
        """

    @abstractmethod
    def no_learning(self, env: AbstractEnv, caps: Sizes) -> Any:
        """Zeros of the structure and the shapes that `begin_learning` returns in a program with `caps`."""

    @abstractmethod
    def learn_part(self, learning: Any, steps: int) -> tuple[AbstractPartwiseAgent, Any]:
        """Take the next part, of up to so many gradient steps; return the agent and what is under way."""

    @abstractmethod
    def end_learning(self, learning: Any) -> tuple[AbstractPartwiseAgent, Metrics]:
        """Return what `learn` returns, once all parts have been taken."""


class NetworkUse(NamedTuple):
    """The sizes of one network of an agent, and how often it is evaluated.

    - `hp`: the hyperparameters of the network.
    - `inputs`, `outputs`: the lengths of the input vector and of the output of its linear head.
    - `acting`: evaluations per env step.
    - `values`: evaluations per sample of a gradient step without derivatives.
    - `gradients`: evaluations per sample of a gradient step with derivatives by weights or inputs.
    - `copies`: the number of networks of this kind, each with weights of its own.
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


class Holding(NamedTuple):
    """One thing that a lane holds in memory: its bytes, and the hyperparameter to `lower` to make it smaller.

    What is not `kept` exists only during a part of each cycle.
    """

    bytes: int
    lower: str
    kept: bool


class AbstractAgentHyperparams(AbstractHyperparams):
    """Base class of the hyperparameters of an algorithm, which contain those of its networks.

    Three hyperparameters, which the training loop reads, are common to all algorithms: `num_envs`
    environments are stepped `rollout_length` times before each call of `learn`, and `time_limit` (labels
    "truncation" and "termination") says what the end of an episode by its time limit counts as.
    """

    required: ClassVar[tuple[str, ...]] = ("num_envs", "rollout_length", "time_limit")
    reserved: ClassVar[tuple[str, ...]] = (*design.COLUMNS, *design.SCORED)
    learns_in_parts: ClassVar[bool] = False
    """Whether `agent` is an `AbstractPartwiseAgent` whose cycles programs may take in parts."""

    num_envs: eqx.AbstractVar[Count]
    rollout_length: eqx.AbstractVar[Count]
    if TYPE_CHECKING:
        time_limit: eqx.AbstractVar[Count]

    @abstractmethod
    def agent(self, env: AbstractEnv, caps: Sizes, *, key: PRNGKeyArray) -> AbstractAgent:
        """Build an untrained agent whose arrays have the capacities `caps`."""

    @abstractmethod
    def own_sizes(self) -> dict[str, Any]:
        """The sizes of this sample apart from those of its networks; called on the host, on a single sample.

        Every algorithm returns `num_envs`, `rollout_length`, `minibatch` (samples per gradient step) and
        `gradient_steps` (per cycle), and may add sizes of its own.
        """

    @abstractmethod
    def networks(self, env: AbstractEnv) -> dict[str, NetworkUse]:
        """The networks and how each is used, by the name of the field; called on a single sample."""

    def sizes(self) -> dict[str, Any]:
        """All sizes of this sample (`hyperlax.lanes.sizes`), those of a network prefixed with its name."""
        sizes = self.own_sizes()
        for name, net in self.nested_networks().items():
            sizes |= prefixed(net.sizes(), name)
        return sizes

    def nested_networks(self) -> dict[str, AbstractNetworkHyperparams]:
        """The hyperparameters of the networks by the name of their field, in order of declaration."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: net for name, net in values.items() if isinstance(net, AbstractNetworkHyperparams)}

    def warmup_steps(self) -> int:
        """Count the env steps of the training budget that are spent before the first gradient step."""
        return 0

    def arithmetic(self, sizes: Sizes, env: AbstractEnv) -> Arithmetic:
        """Estimate the cost of env steps and gradient steps with networks of `sizes`, for the planner.

        A derivative is assumed to cost twice as much as a value.
        """
        step, gradient, weights = env.step_work, 0.0, 0.0
        for name, use in self.networks(env).items():
            net_sizes = nested(sizes, name)
            forward = use.hp.flops(use.inputs, net_sizes)
            step += use.acting * forward
            gradient += (use.values + 3 * use.gradients) * forward
            weights += use.copies * use.hp.weights(use.inputs, net_sizes)
        return Arithmetic(step, gradient, weights)

    def chain(self, sizes: Sizes, env: AbstractEnv) -> Chain:
        """Estimate the kernels of an env step and of a gradient step with networks of `sizes`.

        Networks of one kind and equal sizes are evaluated together, others one after the other; of networks
        whose shapes differ, a part (`AbstractNetworkHyperparams.chain_apart`).
        """
        step, together = 0.0, {}
        for name, use in self.networks(env).items():
            own = nested(sizes, name)
            products = 1 + use.hp.chain(use.inputs, own)
            step = max(step, min(use.acting, 1) * products)
            apart = use.hp.chain_apart(use.inputs, own)
            counted = tuple(sorted(own.items())) if apart is None else without_shapes(own)
            of_kind = together.setdefault((type(use.hp), use.inputs, counted), {})
            of_kind[shapes(own)] = (products, apart or 0.0)
        gradient = 0.0
        for networks in together.values():
            longest, apart = max(networks.values())
            gradient += longest - apart + sum(apart for _, apart in networks.values())
        return Chain(
            costs.STEP_KERNELS + costs.STEP_KERNELS_PER_PRODUCT * step + env.step_kernels,
            costs.GRADIENT_KERNELS + costs.GRADIENT_KERNELS_PER_PRODUCT * gradient,
        )

    def evened(self, sizes: Sizes, env: AbstractEnv) -> dict[str, Any]:
        """`sizes` where networks of one kind have the largest of theirs, so that they are evaluated together.

        Networks whose shapes differ keep those; if they then cannot be evaluated together, all their sizes.
        """
        alike: dict[Any, list[str]] = {}
        for name, use in self.networks(env).items():
            own = nested(sizes, name)
            fixed = shapes(own) if use.hp.chain_apart(use.inputs, own) is None else None
            alike.setdefault((type(use.hp), use.inputs, fixed), []).append(name)
        out = dict(sizes)
        for names in alike.values():
            common = merge([dict(without_shapes(nested(sizes, name))) for name in names])
            for name in names:
                out |= prefixed(common, name)
        return out

    def executions(self, env: AbstractEnv) -> tuple[float, float]:
        """Count the circuits that training would run on a quantum computer: per env step, per gradient step.

        An output takes one circuit; its derivatives take those of the parameter-shift rule. Evaluation
        episodes are not counted.
        """
        acting = learning = 0.0
        for use in self.networks(env).values():
            value, gradient = use.hp.executions(use.inputs)
            acting += use.acting * value
            learning += use.values * value + use.gradients * gradient
        return acting, learning * self.sizes()["minibatch"]

    def capacities(self, sizes: Sequence[Sizes], cycles: Sequence[int], env: AbstractEnv) -> dict[str, Any]:
        """The capacities of a program for lanes of these `sizes`, where lane i runs `cycles[i]` cycles."""
        caps = merge(sizes)
        return costs.with_blocks(caps, sizes, cycles, self.arithmetic(caps, env))

    def work(self, sizes: Sizes, caps: Sizes, env: AbstractEnv) -> tuple[float, float]:
        """Predict the operations (FLOP) of one cycle, in total and of its gradient steps alone.

        The cost is that of a lane of `sizes` in a program with `caps`, padding included.
        """
        return costs.cycle_work(sizes, caps, self.arithmetic(caps, env))

    def collected_first(self) -> int:
        """Count the env steps, beside those of the training budget, that are collected before learning."""
        return 0

    def holds(self, env: AbstractEnv) -> dict[str, Holding]:
        """What a lane of this sample holds in memory, at least, by name; arithmetic on the host."""
        sizes = self.sizes()
        action = math.prod(env.action_space.shape)
        acting = max(use.hp.held(use.inputs, nested(sizes, name)) for name, use in self.networks(env).items())
        steps = sizes["num_envs"] * sizes["rollout_length"]
        gradient = min(sizes["minibatch"], costs.LARGEST_CHUNK) * acting
        weights = int(self.arithmetic(sizes, env).weights)  # each has a gradient and two moments
        step = env.obs_size + action + 4
        return {
            "weights": Holding(16 * weights, "the sizes of the networks", True),
            "a rollout": Holding(4 * steps * step, "num_envs or rollout_length", False),
            "acting": Holding(4 * sizes["num_envs"] * acting, "num_envs or the sizes of the networks", False),
            "a gradient": Holding(4 * gradient, "the sizes of the networks", False),
        }

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
        """Say why the algorithm cannot act in `space`, and what can; None when it can."""
        return None

    def problems(self) -> list[str]:
        """Describe values of this sample that conflict, and how that is resolved; called on the host."""
        return []

    @staticmethod
    def quick() -> dict[str, Any]:
        """Search spaces and values for a quick trial, so small that a run ends in seconds; by field."""
        return {}

    @staticmethod
    def published(env_name: str) -> dict[str, Any]:
        """The hyperparameter values that reproduce the published protocol on `env_name`, by field."""
        return {}


def learned_share(hp: AbstractAgentHyperparams, trajectory: Trajectory) -> Float[Array, ""]:
    """The factor of the gradients from `trajectory`: one, or zero if it is not to be learned from.

    With the hyperparameter `last_rollout` "unlearned" it is zero for the rollout that spends the budget.
    Gradient steps are still taken, so that the moments of Adam move the weights once more, as in hyperlax
    v0.1.
    """
    none = jnp.where(trajectory.last, 0.0, 1.0)
    return select(hp.chosen("last_rollout", "unlearned"), none, jnp.ones(()))
