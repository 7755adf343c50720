"""Weights that a loop reads and does not change, such as those that act in a rollout, apart from models.

XLA for GPUs cuts every weight and every bias out of a packed state in a kernel of its own, to give it to a
loop. The weights of a stack of dense layers are put into one *page* instead (see `hyperlax.learning.pages`),
out of which every step cuts them again: as parts of larger kernels, for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from hyperlax.hyperparams import trainable
from hyperlax.learning.pages import Arrangement, only_dense, paged_heights
from hyperlax.networks.extended import FEW_OUTPUTS
from hyperlax.networks.models import AbstractModel

T = TypeVar("T")
READS_PARTS = jax.__version_info__ < (0, 11)
"""Whether XLA reads a part of an array where it is, inside a loop that does not change the array.

If not, it copies the part in every step. Layers are then not put into a page: each is an array of its own,
with its biases.
"""


@final
class _Without(eqx.Module):
    """A model without its weights, with shapes in their place; `first` is the place of its first array."""

    like: Any
    first: int = eqx.field(static=True)

    @property
    def arrangement(self) -> Arrangement:
        """How the weights lie in their page; few outputs take `FEW_OUTPUTS` rows, so that pages are alike.

        XLA writes pages of one shape, those of an actor and a critic, in the same kernel.
        """
        outputs = -(-self.like.layer.bias.shape[0] // FEW_OUTPUTS) * FEW_OUTPUTS
        return Arrangement([self.like], (*self.like.body.heights(), outputs))


def without_weights(tree: T) -> tuple[list[Array], T]:
    """Take the weights of the models in `tree` out of it: the arrays that hold them, and what is left.

    Only those are taken that are kept in pages, and of networks whose layers are products alone: biases in
    front of a LayerNorm would be cut out in every step. In a program for CPUs, none are.
    """
    arrays: list[Array] = []

    def without(model: Any) -> Any:
        if not _is_model(model) or paged_heights(model) is None or not only_dense(model.body):
            return model
        weights, rest = eqx.partition(model, trainable(model))
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), weights)
        left = _Without(eqx.combine(shapes, rest), len(arrays))
        arranged = left.arrangement
        if READS_PARTS:
            arrays.append(arranged.pages(jnp, [model])[0])
        else:
            arrays.extend(arranged.pieces_of(jnp, model))
        return left

    return arrays, jax.tree.map(without, tree, is_leaf=_is_model)


def with_weights(arrays: Sequence[Array], left: T, sums: bool = True) -> T:
    """The inverse of `without_weights`: the tree with weights from `arrays`, to be evaluated.

    With `sums`, a few inputs are added up (see `hyperlax.networks.extended.Rows`).
    """

    def model(x: Any) -> Any:
        if not isinstance(x, _Without):
            return x
        arranged = x.arrangement
        pieces = arranged.pieces(arrays[x.first]) if READS_PARTS else arrays[x.first :]
        whole = [piece[None] for piece in pieces[: arranged.number]]
        return arranged.models([x.like], whole, whole, sums)[0]

    return jax.tree.map(model, left, is_leaf=lambda x: isinstance(x, _Without))


def _is_model(node: Any) -> bool:
    return isinstance(node, AbstractModel)
