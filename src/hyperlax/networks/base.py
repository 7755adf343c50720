"""The interface of networks and of their hyperparameters."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.extend.core import jaxprs_in_params
from jaxtyping import Array, Float, Int, PRNGKeyArray

from hyperlax.hyperparams import AbstractHyperparams, trainable
from hyperlax.lanes.sizes import Sizes
from hyperlax.networks.extended import extended
from hyperlax.networks.linear import Linear as Linear  # networks from elsewhere import it from here
from hyperlax.networks.measurement import Measurement
from hyperlax.networks.plain import PlainLayer
from hyperlax.registry.foreign import explained
from hyperlax.typecheck import check_fields

T = TypeVar("T")


class AbstractNetwork(eqx.Module):
    """Base class of networks, which map one vector to another whose padded entries are zero.

    `hp.network(in_size, caps, key=key)` builds one: `hp` holds the sizes that the lane uses, and `caps`
    (static) those that are allocated, under the names of `hp.sizes()`. `batch_last` says on which side a
    batch axis lies (see `layout`), which changes the speed only: False is always right.
    """

    hp: eqx.AbstractVar[AbstractHyperparams]
    batch_last: eqx.AbstractVar[bool]

    def __check_init__(self):
        check_fields(self)
        if held := _held(self):
            raise ValueError(
                f"{type(self).__name__}{held} is a hyperparameter, and would be trained like a weight; leave "
                "the field out, and read it from self.hp when the network is called"
            )
        if place := _complex(self):
            raise ValueError(
                f"{type(self).__name__}{place} is complex, and weights are real: hold its real and imaginary "
                "parts as two arrays, and compute with real + 1j * imaginary when the network is called"
            )

    @property
    @abstractmethod
    def out_cap(self) -> int:
        """The allocated length of the output."""

    @property
    @abstractmethod
    def out_size(self) -> Int[Array, ""]:
        """The length of the output that this lane uses."""

    @abstractmethod
    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        """The output for the input `x`; zero from entry `out_size` on."""

    def extended(self, x: Float[Array, " in"]) -> Float[Array, " extended"]:
        """The output for `x`, extended by a one (see `hyperlax.networks.extended`)."""
        return extended(self(x))

    def heights(self) -> tuple[int, ...] | None:
        """How many rows of a page each of its dense layers takes (see `hyperlax.learning.pages`).

        None if its weights are not kept in pages, as for all but stacks of dense layers.
        """
        return None

    def prepared(self) -> AbstractNetwork:
        """This network with whatever does not depend on its input computed already, where that is worth it.

        It serves many evaluations with the same weights, such as the steps of a rollout on an accelerator.
        """
        return self

    @classmethod
    def alike(cls, networks: Sequence[Any]) -> Sequence[AbstractNetwork] | None:
        """Networks of equal shapes with the same outputs as `networks`; None if there are none.

        A program for accelerators evaluates these together, if their hyperparameters say what that saves
        (`AbstractNetworkHyperparams.chain_apart`).
        """
        return None

    def measured(self, how: Measurement, key: PRNGKeyArray) -> AbstractNetwork:
        """This network with its circuit, if it has one, measured as `how` says; for one evaluation."""
        return self

    def plain(self) -> tuple[PlainLayer, ...]:
        """This network as dense layers, without padding, for export; called on the host, on a single agent.

        Raises `ValueError` if it is not made of such layers.
        """
        raise ValueError(
            f"{type(self).__name__} is not a stack of dense layers, which is all that can be exported; "
            "use Policy.act, or define plain() on its class"
        )

    def step_factors(self) -> AbstractNetwork | None:
        """This network with factors for the agent's step size in place of weights; None if all are one."""
        return None


class AbstractNetworkHyperparams(AbstractHyperparams):
    """Base class of the hyperparameters of a network.

    A subclass defines `sizes` and `network`; every other method has a default that follows from them.
    """

    @abstractmethod
    def sizes(self) -> dict[str, Any]:
        """The sizes of this sample by name (`hyperlax.lanes.sizes`); called on a single sample."""

    @abstractmethod
    def network(self, in_size: int, caps: Sizes, *, key: PRNGKeyArray) -> AbstractNetwork:
        """Build the network that these hyperparameters describe, inside the capacities `caps`."""

    def parameter_count(self, in_size: int) -> int:
        """Count the trainable parameters of this sample; called on the host, on a single sample."""
        return self.weights(in_size, self.sizes())

    def out(self, in_size: int) -> int:
        """The length of this sample's output; called on the host, on a single sample."""
        return int(abstract_network(type(self), in_size, self.sizes()).out_cap)

    @classmethod
    def flops(cls, in_size: int, sizes: Sizes) -> float:
        """Count the floating-point operations of one forward pass at `sizes`, for the planner."""
        return _forward_work(cls, in_size, _frozen(sizes))

    @classmethod
    def weights(cls, in_size: int, sizes: Sizes) -> int:
        """Count the weights allocated at `sizes`, for the planner."""
        network = abstract_network(cls, in_size, sizes)
        return sum(math.prod(x.shape) for x in jax.tree.leaves(eqx.filter(network, trainable(network))))

    @classmethod
    def held(cls, in_size: int, sizes: Sizes) -> int:
        """Count the numbers that one forward pass at `sizes` holds at once, at least; for predictions."""
        return in_size

    @classmethod
    def chain(cls, in_size: int, sizes: Sizes) -> float:
        """Count the matrix products of one forward pass that wait for one another, for the planner.

        A network of other operations counts how many products would take as long on an accelerator.
        """
        return _products(cls, in_size, _frozen(sizes))

    @classmethod
    def chain_apart(cls, in_size: int, sizes: Sizes) -> float | None:
        """The part of `chain` that is left to each of several networks whose shapes differ.

        The rest is evaluated together, as `AbstractNetwork.alike` makes it possible; None if it does not.
        """
        return None

    @staticmethod
    def quick() -> dict[str, Any]:
        """Search spaces and values for a quick trial, so small that a run ends in seconds; by field."""
        return {}

    def executions(self, in_size: int) -> tuple[int, int]:
        """Count the quantum circuits of one forward pass, and of one forward pass with its derivatives."""
        return 0, 0

    def measurement_refusal(self, in_size: int, how: Measurement, memory: int) -> str | None:
        """Say why the circuit of this sample cannot be measured so in `memory` bytes; None if it can."""
        return None

    @staticmethod
    def published() -> dict[str, Any]:
        """The hyperparameter values that reproduce the published protocol, by field."""
        return {}

    def refusal(self, in_size: int, memory: int) -> str | None:
        """Say why this sample cannot run in `memory` bytes whatever the program; None if it can."""
        return None


def _held(network: AbstractNetwork) -> str | None:
    """The path of a trainable leaf of `network` that is one of its hyperparameters; None if there is none."""
    own = {id(leaf) for leaf in jax.tree.leaves(network.hp)}
    weights = jax.tree_util.tree_leaves_with_path(eqx.filter(network, trainable(network)))
    return next((jax.tree_util.keystr(path) for path, leaf in weights if id(leaf) in own), None)


def _complex(network: AbstractNetwork) -> str | None:
    """The path of a trainable leaf of `network` that holds complex numbers; None if there is none."""
    weights = jax.tree_util.tree_leaves_with_path(eqx.filter(network, trainable(network)))
    return next((jax.tree_util.keystr(path) for path, leaf in weights if jnp.iscomplexobj(leaf)), None)


def prepared(tree: T) -> T:
    """`tree` with every network in it prepared for many evaluations with the same weights."""
    return jax.tree.map(lambda x: x.prepared() if _network(x) else x, tree, is_leaf=_network)


def with_networks_of(tree: T, other: T) -> T:
    """`tree` with the networks that are in the same places of `other`."""
    return jax.tree.map(lambda x, y: y if _network(x) else x, tree, other, is_leaf=_network)


def _network(node: Any) -> bool:
    return isinstance(node, AbstractNetwork)


def abstract_network(kind: type[AbstractNetworkHyperparams], in_size: int, sizes: Sizes) -> AbstractNetwork:
    """The structure of a network that allocates `sizes`: shapes and types instead of arrays."""
    return _abstract_network(kind, in_size, _frozen(sizes))


def output(call: Any, in_size: int, who: str) -> jax.ShapeDtypeStruct:
    """The shape and type of what `call` returns for a vector of `in_size` numbers.

    Raises `ValueError`, calling it `who`, if it cannot take one, or returns anything but a vector of real
    numbers.
    """
    try:
        out = eqx.filter_eval_shape(call, jax.ShapeDtypeStruct((in_size,), jnp.float32))
    except Exception as error:
        raise ValueError(
            f"{who} fails for its input, a float32 vector of shape ({in_size},): {explained(error)}"
        ) from error
    maps = f"{who} maps a vector of {in_size} numbers to"
    if not isinstance(out, jax.ShapeDtypeStruct) or out.ndim != 1:
        raise ValueError(
            f"{maps} {getattr(out, 'shape', type(out).__name__)}; a network returns a vector, of shape (n,)"
        )
    if not out.size:
        raise ValueError(f"{maps} an empty vector; a network returns one number or more")
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise ValueError(f"{maps} a vector of {out.dtype}; a network returns real numbers, such as float32")
    return out


def check_output(kind: type[AbstractNetworkHyperparams], in_size: int, sizes: Sizes) -> None:
    """Raise `ValueError` with both shapes unless a network of `sizes` returns a vector as it declares."""
    _check_output(kind, in_size, _frozen(sizes))


@cache
def _check_output(kind: type[AbstractNetworkHyperparams], in_size: int, sizes: Any) -> None:
    network = _abstract_network(kind, in_size, sizes)
    who, declared = type(network).__name__, network.out_cap
    out = output(network, in_size, who)
    if out.shape != (declared,):
        raise ValueError(
            f"{who} maps a vector of {in_size} numbers to shape {out.shape}, but its out_cap is {declared}: "
            f"it has to return a vector of shape ({declared},)"
        )


def _frozen(sizes: Sizes) -> tuple[tuple[str, Any], ...]:
    """`sizes` in a form that can be hashed."""
    return tuple(sorted(sizes.items()))


@cache
def _abstract_network(kind: type[AbstractNetworkHyperparams], in_size: int, sizes: Any) -> AbstractNetwork:
    build: Any = kind
    return eqx.filter_eval_shape(lambda key: build().network(in_size, dict(sizes), key=key), jr.key(0))


@cache
def _forward_work(kind: type[AbstractNetworkHyperparams], in_size: int, sizes: Any) -> float:
    return operations(_forward_pass(kind, in_size, sizes))


@cache
def _products(kind: type[AbstractNetworkHyperparams], in_size: int, sizes: Any) -> float:
    return products(_forward_pass(kind, in_size, sizes))


def _forward_pass(kind: type[AbstractNetworkHyperparams], in_size: int, sizes: Any) -> Any:
    """The jaxpr of a forward pass for one input."""
    network = _abstract_network(kind, in_size, sizes)
    arrays, rest = eqx.partition(network, lambda x: isinstance(x, jax.ShapeDtypeStruct))
    forward = lambda arrays, x: eqx.combine(arrays, rest)(x)  # noqa: E731
    return jax.make_jaxpr(forward)(arrays, jax.ShapeDtypeStruct((in_size,), jnp.float32)).jaxpr


def equations(jaxpr: Any) -> int:
    """Count the equations of a jaxpr, those inside loops and branches once each."""
    return sum(1 + sum(equations(j) for j in jaxprs_in_params(e.params)) for e in jaxpr.eqns)


def products(jaxpr: Any) -> float:
    """Count the matrix products and convolutions of a jaxpr; loops and branches as in `operations`."""
    total = 0.0
    for equation in jaxpr.eqns:
        inner = [products(j) for j in jaxprs_in_params(equation.params)]
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            total += 1
        elif equation.primitive.name == "cond":
            total += max(inner)
        else:
            total += equation.params.get("length", 1) * sum(inner)
    return total


def operations(jaxpr: Any) -> float:
    """Estimate the floating-point operations of a jaxpr.

    Matrix products and convolutions are counted in full, and any other operation once per output. The body of
    a loop counts as often as it runs if that is known (`scan`), otherwise once; of a conditional, the most
    expensive branch counts.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        inner = [operations(j) for j in jaxprs_in_params(equation.params)]
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            length = math.prod(equation.invars[0].aval.shape[d] for d in contracted)
            total += 2.0 * length * math.prod(equation.outvars[0].aval.shape)
        elif equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            outputs = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            total += 2.0 * math.prod(kernel) / outputs * math.prod(equation.outvars[0].aval.shape)
        elif equation.primitive.name == "cond":
            total += max(inner)
        elif inner:
            total += equation.params.get("length", 1) * sum(inner)
        else:
            total += sum(math.prod(v.aval.shape) for v in equation.outvars)
    return total
