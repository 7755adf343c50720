"""Networks with output layers: policies, state values and action values, evaluated one by one or together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from types import MappingProxyType
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from hyperlax.envs.base import ActionSpace
from hyperlax.hyperparams import trainable
from hyperlax.lanes.constants import accelerated, differentiating, known
from hyperlax.networks.base import AbstractNetwork
from hyperlax.networks.extended import evaluated_together
from hyperlax.networks.heads import Categorical, PolicyHead, TanhNormal
from hyperlax.networks.linear import Linear

FEW = 16
"""The most features of which an output layer is a sum of products; of more, a matrix product takes less."""
Stacks = Mapping[tuple[int, ...], tuple[Any, Array]]
_stacks: ContextVar[Stacks] = ContextVar("_stacks", default=MappingProxyType({}))
"""The arrays and their stack by the identities of the arrays, inside `stacked_once`."""


class AbstractModel(eqx.Module):
    """Base class of a network with an output layer, whose outputs `read` interprets."""

    body: eqx.AbstractVar[AbstractNetwork]

    @property
    @abstractmethod
    def layer(self) -> Linear:
        """The output layer."""

    @abstractmethod
    def read(self, outputs: Float[Array, " out"]) -> Any:
        """What the model returns for the outputs of `layer`."""


@final
class Actor(AbstractModel):
    """A policy, consisting of a network and a policy head."""

    body: AbstractNetwork
    head: PolicyHead

    def __init__(self, body: AbstractNetwork, space: ActionSpace, *, key: PRNGKeyArray):
        self.body = body
        self.head = PolicyHead(space, body, key=key)

    @property
    def layer(self) -> Linear:
        return self.head.layer

    def read(self, outputs: Float[Array, " out"]) -> Categorical | TanhNormal:
        return self.head.policy(outputs)

    def __call__(self, obs: Float[Array, " obs"]) -> Categorical | TanhNormal:
        return self.read(_outputs(self.layer, self.body, obs))


@final
class Critic(AbstractModel):
    """A state-value function, consisting of a network and a scalar head (orthogonal weights of gain 1)."""

    body: AbstractNetwork
    head: Linear

    def __init__(self, body: AbstractNetwork, *, key: PRNGKeyArray):
        self.body = body
        self.head = Linear(body.out_size, 1, body.out_cap, 1, 1.0, body.batch_last, key=key)

    @property
    def layer(self) -> Linear:
        return self.head

    def read(self, outputs: Float[Array, " 1"]) -> Float[Array, ""]:
        return outputs[0]

    def __call__(self, obs: Float[Array, " obs"]) -> Float[Array, ""]:
        return self.read(_outputs(self.layer, self.body, obs))


@final
class ActionValues(AbstractModel):
    """The values of all discrete actions: a network and one output per action (orthogonal, gain 1)."""

    body: AbstractNetwork
    head: Linear

    def __init__(self, body: AbstractNetwork, actions: int, *, key: PRNGKeyArray):
        self.body = body
        self.head = Linear(body.out_size, actions, body.out_cap, actions, 1.0, body.batch_last, key=key)

    @property
    def layer(self) -> Linear:
        return self.head

    def read(self, outputs: Float[Array, " actions"]) -> Float[Array, " actions"]:
        return outputs

    def __call__(self, obs: Float[Array, " obs"]) -> Float[Array, " actions"]:
        return self.read(_outputs(self.layer, self.body, obs))


def jointly(models: Sequence[AbstractModel], inputs: Sequence[Float[Array, " in"]]) -> tuple[Any, ...]:
    """What each of `models` returns for its input; models and inputs may occur more than once.

    In a program for accelerators, networks of one structure are evaluated as one network with an additional
    axis, and their output layers, padded to the same length, as one layer.
    """
    bodies = _of_one_structure([model.body for model in models]) if accelerated() else None
    if bodies is None:
        return tuple(m.read(_outputs(m.layer, m.body, x)) for m, x in zip(models, inputs, strict=True))
    longest = max(model.layer.bias.shape[0] for model in models)
    layers = [_with_outputs(model.layer, longest) for model in models]
    rows = list(zip(bodies, layers, inputs, strict=True))
    with evaluated_together():
        outputs = _mapped(lambda row: _outputs(row[1], row[0], row[2]), rows)
    return tuple(
        model.read(out[: model.layer.bias.shape[0]]) for model, out in zip(models, outputs, strict=True)
    )


def _of_one_structure(bodies: Sequence[AbstractNetwork]) -> Sequence[AbstractNetwork] | None:
    """`bodies` if they have one structure and equal shapes, else such networks in their place, or None."""
    described = lambda nets: {(jax.tree.structure(net), _shapes(net)) for net in nets}  # noqa: E731
    if len(described(bodies)) == 1:
        return bodies
    first = type(bodies[0])
    alike = first.alike(bodies) if all(type(body) is first for body in bodies) else None
    return alike if alike is not None and len(described(alike)) == 1 else None


@contextmanager
def stacked_once(models: Sequence[AbstractModel]) -> Iterator[None]:
    """Stack here, once, what the networks of `models` do not learn, for `jointly` in the `with` block.

    In a loop that trains the models, every iteration would stack their hyperparameters again. They are
    recognised by identity, in any copy of the models with other weights.
    """
    leaves = zip(*(_not_learned(model.body) for model in models), strict=False)
    made = [(xs, jnp.stack(xs)) for xs in leaves if _alike(xs)] if accelerated() else []
    token = _stacks.set({tuple(map(id, xs)): (xs, stack) for xs, stack in made})
    try:
        yield
    finally:
        _stacks.reset(token)


def remember(xs: Sequence[Array], stack: Array) -> None:
    """Let `jointly` use `stack` where it would stack `xs`, inside `stacked_once`."""
    if isinstance(made := _stacks.get(), dict):
        made[tuple(map(id, xs))] = (xs, stack)


def _not_learned(body: AbstractNetwork) -> list[Any]:
    """The leaves of a network that are not trained."""
    return jax.tree.leaves(eqx.filter(body, trainable(body), inverse=True))


def _alike(xs: Sequence[Any]) -> bool:
    """Whether arrays can be stacked, and are not known to be equal."""
    return len({(x.shape, x.dtype) for x in xs}) == 1 and not all(_equal(x, xs[0]) for x in xs)


def _stack(xs: Sequence[Any]) -> Array:
    """The stack of `xs`, which `stacked_once` may have made."""
    return _stacks.get()[key][1] if (key := tuple(map(id, xs))) in _stacks.get() else jnp.stack(xs)


def _outputs(layer: Linear, body: AbstractNetwork, x: Float[Array, " in"]) -> Float[Array, " out"]:
    """The outputs of `layer` on top of `body`."""
    if not (differentiating() or layer.paged is not None):
        return layer(body(x))
    return layer.of_few(body(x)) if body.out_cap <= FEW else layer.of_extended(body.extended(x))


def _shapes(tree: Any) -> tuple[Any, ...]:
    return tuple((x.shape, x.dtype) for x in jax.tree.leaves(tree))


def _with_outputs(layer: Linear, length: int) -> Linear:
    """`layer` with as many outputs, the last of which are zero; the rows of a page have them already."""
    padded = jax.tree.map(partial(_padded, length=length), layer)
    return padded if layer.paged is None else eqx.tree_at(lambda x: x.paged, padded, layer.paged)


def _padded(x: Float[Array, "n ..."], length: int) -> Float[Array, "length ..."]:
    """`x` with zeros appended to its first axis."""
    return jnp.pad(x, [(0, length - x.shape[0])] + [(0, 0)] * (x.ndim - 1))


def _mapped(f: Callable[[Any], Array], trees: Sequence[Any]) -> Array:
    """`f` mapped over `trees` of one structure, stacked; leaves known to be equal are not stacked."""
    leaves = list(zip(*(jax.tree.leaves(tree) for tree in trees), strict=True))
    same = [all(_equal(x, xs[0]) for x in xs) for xs in leaves]
    joined = [xs[0] if one else _stack(xs) for xs, one in zip(leaves, same, strict=True)]
    axes = [None if one else 0 for one in same]
    structure = jax.tree.structure(trees[0])
    of = lambda xs: f(jax.tree.unflatten(structure, xs))  # noqa: E731
    return jax.vmap(of, in_axes=(axes,), axis_size=len(trees))(joined)


def _equal(x: Any, y: Any) -> bool:
    """Whether two leaves are known to be equal while a program is traced."""
    return x is y or (known(x) and known(y) and np.array_equal(x, y))
