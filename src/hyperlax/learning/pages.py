"""Weights laid out for training: in one vector, or in pages.

XLA for GPUs makes a kernel of every weight matrix that is cut out of a vector, and of every bias that is put
beside one. A matrix product reads the rows of a larger matrix as they are. A *page* is such a matrix: it
holds the dense layers of a network one below the other, each with its biases, and below them whatever else is
trained (see `hyperlax.networks.extended.Rows`). Networks of equal shapes have pages of equal shapes in one
array, so that they need not be stacked to be evaluated together. What a page has beyond the weights is zero,
and stays zero in training.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial, reduce
from itertools import accumulate
from types import ModuleType
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float

from hyperlax.hyperparams import trainable
from hyperlax.lanes.constants import accelerated
from hyperlax.learning.optimise import Weights, flatten, of_moments, step_factors
from hyperlax.networks.extended import FEW_INPUTS, Rows, extended_length
from hyperlax.networks.linear import Linear
from hyperlax.networks.models import AbstractModel, remember

Laid = Float[Array, " laid"]
"""A vector of weights, or of numbers that belong to them, as a layout has it."""
Piece = Float[Array, "networks _rows _columns"]
"""Whole pages, or the part of them that one layer or one other array takes."""


class AbstractLayout:
    """How the trained weights of `models` lie in one vector, of which each model has a part.

    - `parts`: the lengths of these parts.
    - `weights` and `unflatten`: the weights as `flatten` has them, and the models for such a vector.
    """

    parts: tuple[int, ...]

    def __init__(self, models: Sequence[AbstractModel]):
        self.models = tuple(models)
        self.weights, self.parts, self.unflatten = flatten(models)

    @abstractmethod
    def spread(self, vector: Weights) -> Laid:
        """Lay out a vector as `flatten` has it, of weights or of other numbers that belong to them."""

    @abstractmethod
    def gathered(self, laid: Laid) -> Weights:
        """The inverse of `spread`."""

    @abstractmethod
    def restore(self, laid: Laid) -> tuple[Any, ...]:
        """The models with these weights, to be evaluated and differentiated."""

    def begun(self, state: optax.OptState) -> tuple[Laid, optax.OptState]:
        """The weights of the models and the `state` of their optimiser, laid out."""
        return self.spread(self.weights), of_moments(self.spread, state)

    def ended(self, laid: Laid, state: optax.OptState) -> tuple[tuple[Any, ...], optax.OptState]:
        """The models with these weights, to be kept, and the `state` of their optimiser; see `begun`."""
        return self.unflatten(self.gathered(laid)), of_moments(self.gathered, state)

    def step_factors(self) -> Laid | None:
        """A factor for the step size of every weight, laid out; None if no network asks for one."""
        return None if (factors := step_factors(self.models)) is None else self.spread(factors)


def layout(models: Sequence[AbstractModel]) -> AbstractLayout:
    """Pages for `models` in a program for accelerators if their networks allow it, else a vector."""
    heights = paged_heights(models[0])
    if heights is not None and len({_described(model) for model in models}) == 1:
        return Pages(models, heights)
    return Flat(models)


def paged_heights(model: AbstractModel) -> tuple[int, ...] | None:
    """How many rows of a page each dense layer of the body of `model` takes, if its weights are in pages.

    The output layer is to be the only other dense layer, and the last one.
    """
    heights = model.body.heights() if accelerated() else None
    if heights is None:
        return None
    layers = _trained(model)[0]
    return heights if len(layers) == len(heights) + 1 and layers[-1].weight is model.layer.weight else None


def only_dense(body: Any) -> bool:
    """Whether nothing but dense layers is trained in a network, as in an MLP without LayerNorm."""
    return not _trained(body)[1]


@final
class Flat(AbstractLayout):
    """Weights as `flatten` has them."""

    def spread(self, vector: Weights) -> Laid:
        return vector

    def gathered(self, laid: Laid) -> Weights:
        return laid

    def restore(self, laid: Laid) -> tuple[Any, ...]:
        return self.unflatten(laid)


class _Size(NamedTuple):
    """The size of a piece, which is a layer or an array as it lies in a page."""

    rows: int
    columns: int


class _Place(NamedTuple):
    """Where a piece begins in a page."""

    row: int
    column: int


class Arrangement:
    """Where the layers and other arrays of models with equal bodies lie in their pages.

    - `shape`: the rows and columns of a page.
    - `layers`: the number of dense layers, which come first among the pieces of a page.
    - `number`: the number of all pieces.
    """

    def __init__(self, models: Sequence[Any], heights: Sequence[int]):
        """Arrange `models` (arrays or shapes), whose dense layers take that many rows each.

        `heights` include that of the output layers.
        """
        layers, rest = _trained(models[0])
        ins = [layer.weight.shape[1] for layer in layers]
        sizes = [_Size(rows, extended_length(n)) for rows, n in zip(heights, ins, strict=True)]
        bands: list[tuple[int, ...]] = [(i,) for i in range(len(sizes))]
        if ins[0] <= FEW_INPUTS and sizes[0].rows == sizes[1].rows:
            bands[:2] = [(1, 0)]  # the first layer has few columns, and lies right of the second
        columns = max(sum(sizes[i].columns for i in band) for band in bands)
        for x in rest:
            bands.append((len(sizes),))
            sizes.append(_Size(-(-math.prod(x.shape) // columns), columns))
        places, row = {}, 0
        for band in bands:
            before = accumulate((sizes[i].columns for i in band), initial=0)
            places |= {i: _Place(row, column) for i, column in zip(band, before, strict=False)}
            row += sizes[band[0]].rows
        self.shape, self.layers, self.number = (row, columns), len(layers), len(sizes)
        self._sizes, self._places = sizes, [places[i] for i in range(len(sizes))]

    def pages(self, xp: ModuleType, models: Sequence[Any]) -> Any:
        """The pages with the weights of `models`, [models, rows, columns], computed with the module `xp`."""
        parts = zip(*(self.pieces_of(xp, model) for model in models), strict=True)
        return self.joined(xp, [xp.stack(list(members)) for members in parts])

    def pieces(self, pages: Float[Array, "*networks rows columns"]) -> list[Array]:
        """The layers of `pages`, and their other arrays."""
        return [
            pages[..., at.row : at.row + rows, at.column : at.column + columns]
            for at, (rows, columns) in zip(self._places, self._sizes, strict=True)
        ]

    def models(
        self,
        models: Sequence[Any],
        pieces: Sequence[Piece],
        again: Sequence[Piece] | None = None,
        sums: bool = False,
    ) -> tuple[Any, ...]:
        """`models` with weights from `pieces`; their layers have `Rows` if these are cut out `again`."""
        rest = _trained(models[0])[1]
        arrays = [
            piece.reshape(len(piece), -1)[:, : math.prod(x.shape)].reshape(-1, *x.shape)
            for piece, x in zip(pieces[self.layers :], rest, strict=True)
        ]
        wholes = [*pieces[: self.layers], *(again or ())[: self.layers], *arrays]
        members = [[whole[i] for i in range(len(models))] for whole in wholes]
        for xs, whole in zip(members, wholes, strict=True):
            remember(xs, whole)
        found = []
        for model, parts in zip(models, zip(*members, strict=True), strict=True):
            rows, behind = parts[: self.layers], parts[self.layers : len(parts) - len(rest)]
            paged = (
                [Rows(*pair, sums) for pair in zip(rows, behind, strict=True)]
                if again
                else [None] * len(rows)
            )
            layers = [_linear(*x) for x in zip(_trained(model)[0], rows, paged, strict=True)]
            found.append(_with(model, layers, parts[len(parts) - len(rest) :]))
        return tuple(found)

    def pieces_of(self, xp: ModuleType, model: Any) -> list[Any]:
        """What the pieces hold of one model."""
        layers, rest = _trained(model)
        found = [xp.concatenate([layer.weight, layer.bias[:, None]], axis=1) for layer in layers]
        for x, (rows, columns) in zip(rest, self._sizes[self.layers :], strict=True):
            found.append(xp.pad(x.reshape(-1), (0, rows * columns - x.size)).reshape(rows, columns))
        return [
            xp.pad(x, [(0, rows - x.shape[0]), (0, columns - x.shape[1])])
            for x, (rows, columns) in zip(found, self._sizes, strict=True)
        ]

    def joined(self, xp: ModuleType, pieces: Sequence[Any]) -> Any:
        """The inverse of `pieces`: their sum, each with zeros around it.

        XLA concatenates in a kernel that others do not become part of, and adds up in one that others do.
        """
        rows, columns = self.shape
        padded = [
            xp.pad(
                x,
                [(0, 0), (at.row, rows - at.row - x.shape[1]), (at.column, columns - at.column - x.shape[2])],
            )
            for x, at in zip(pieces, self._places, strict=True)
        ]
        return reduce(xp.add, padded)


@final
class Pages(AbstractLayout):
    """Weights in pages, [networks, rows, columns], which are one vector to the optimiser."""

    def __init__(self, models: Sequence[AbstractModel], heights: Sequence[int]):
        """Pages for models with equal bodies, whose dense layers take that many rows each."""
        super().__init__(models)
        outputs = max(model.layer.bias.shape[0] for model in models)
        self._arranged = Arrangement(models, (*heights, outputs))
        self._shape = len(models), *self._arranged.shape
        self.parts = (math.prod(self._arranged.shape),) * len(models)
        self._cut = _cutting(self._arranged.pieces, partial(self._arranged.joined, jnp))

    def spread(self, vector: Weights) -> Laid:
        return self._arranged.pages(jnp, self.unflatten(vector)).reshape(-1)

    def gathered(self, laid: Laid) -> Weights:
        pieces = self._arranged.pieces(laid.reshape(self._shape))
        return flatten(self._arranged.models(self.models, pieces))[0]

    def restore(self, laid: Laid) -> tuple[Any, ...]:
        ones = jax.tree.map(lambda x: np.ones(x.shape) if eqx.is_inexact_array(x) else x, self.models)
        used = np.asarray(self._arranged.pages(np, ones)) > 0
        pages = _with_gradient_where(used, laid.reshape(self._shape))
        again = jax.lax.optimization_barrier(jax.lax.stop_gradient(pages))
        return self._arranged.models(self.models, self._cut(pages), self._cut(again))


def _cutting(
    pieces: Callable[[Piece], list[Piece]], joined: Callable[[Sequence[Piece]], Piece]
) -> Callable[[Piece], list[Piece]]:
    """`pieces`, with `joined` as its gradient.

    The networks of all lanes are one axis of the array that is cut. Products of two networks in many lanes
    are products over one axis to XLA, and it cannot read a part of an array that has two.
    """
    cut = custom_vmap(pieces)

    @cut.def_vmap
    def _(lanes: int, mapped: list[bool], pages: Array) -> tuple[list[Array], list[bool]]:
        found = pieces(pages.reshape(-1, *pages.shape[2:]))
        return [x.reshape(*pages.shape[:2], *x.shape[1:]) for x in found], [True] * len(found)

    @jax.custom_vjp
    def differentiable(pages: Piece) -> list[Piece]:
        return cut(pages)

    differentiable.defvjp(lambda pages: (cut(pages), None), lambda _, g: (joined(g),))
    return differentiable


def _with_gradient_where(used: np.ndarray, pages: Piece) -> Piece:
    """`pages`, which receive a gradient only where they are `used`."""

    @jax.custom_vjp
    def identity(pages: Piece) -> Piece:
        return pages

    identity.defvjp(lambda pages: (pages, None), lambda _, g: (jnp.where(used, g, 0),))
    return identity(pages)


def _linear(layer: Linear, rows: Float[Array, "rows columns"], paged: Rows | None) -> Linear:
    """`layer` with its weights and biases from rows of a page."""
    out, n = layer.weight.shape
    fields = lambda x: (x.weight, x.bias, x.paged)  # noqa: E731
    return eqx.tree_at(fields, layer, (rows[:out, :n], rows[:out, n], paged), is_leaf=lambda x: x is None)


def _trained(model: Any) -> tuple[list[Linear], list[Any]]:
    """The dense layers of `model`, and the other arrays that are trained."""
    kept = eqx.filter(model, trainable(model))
    leaves = jax.tree.leaves(kept, is_leaf=_is_linear)
    return [x for x in leaves if _is_linear(x)], [x for x in leaves if not _is_linear(x)]


def _with(model: Any, layers: Sequence[Linear], rest: Sequence[Array]) -> Any:
    """`model` with other dense layers and other trained arrays, in the order of `_trained`."""
    left, others = iter(layers), iter(rest)
    kept, fixed = eqx.partition(model, trainable(model))
    replaced = lambda x: next(left) if _is_linear(x) else next(others)  # noqa: E731
    return eqx.combine(jax.tree.map(replaced, kept, is_leaf=_is_linear), fixed, is_leaf=_is_linear)


def _is_linear(x: Any) -> bool:
    return isinstance(x, Linear)


def _described(model: AbstractModel) -> tuple[Any, ...]:
    """What models have in common if their weights lie in pages of one shape."""
    leaves, structure = jax.tree.flatten(model.body)
    rest = _trained(model)[1]
    return structure, tuple((x.shape, x.dtype) for x in leaves), tuple(x.shape for x in rest)
