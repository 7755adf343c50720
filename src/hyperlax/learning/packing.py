"""PyTrees of arrays packed into one matrix, so that they are written, gathered and copied by one kernel."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PyTree


class Packing:
    """How the leaves of a PyTree lie in the columns of one float32 array, after the leading `axes`.

    32-bit integers are stored bit by bit, so that every value survives; booleans are stored as 0 and 1, and
    complex numbers as their real and imaginary parts.
    """

    def __init__(self, tree: PyTree, axes: int):
        """The packing of trees like `tree` (arrays or shapes), whose leaves share `axes` leading axes."""
        leaves, self.structure = jax.tree.flatten(_in_parts(tree))
        self.wholes = [_whole(x) for x in jax.tree.leaves(tree)]
        self.likes = tuple((x.shape[axes:], x.dtype) for x in leaves)
        self.dtypes = tuple(x.dtype for x in jax.tree.leaves(tree))

    def __eq__(self, other: object) -> bool:
        """Whether `other` packs trees of the same structure, shapes and dtypes in the same way."""
        return isinstance(other, Packing) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[Any, ...]:
        return self.structure, self.likes, self.dtypes

    @property
    def columns(self) -> int:
        """The number of columns of a packed array."""
        return sum(math.prod(shape) for shape, _ in self.likes)

    def pack(self, tree: PyTree) -> Float[Array, "*lead columns"]:
        """The packed leaves of `tree`, which has any leading axes."""
        flat = [
            _as_float(x).reshape(*x.shape[: x.ndim - len(shape)], math.prod(shape))
            for x, (shape, _) in zip(jax.tree.leaves(_in_parts(tree)), self.likes, strict=True)
        ]
        return jnp.concatenate(flat, axis=-1)

    def unpack(self, packed: Float[Array, "*lead columns"]) -> Any:
        """The tree that `packed` holds, with its leading axes."""
        leaves, lead = [], packed.shape[:-1]
        parts = jax.lax.split(packed, [math.prod(shape) for shape, _ in self.likes], packed.ndim - 1)
        for part, (shape, dtype), whole in zip(parts, self.likes, self.wholes, strict=True):
            leaves.append(whole(_from_float(part.reshape(*lead, *shape), dtype)))
        return jax.tree.unflatten(self.structure, leaves)


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _in_parts(tree: PyTree) -> PyTree:
    """`tree` (arrays or shapes) with real arrays in place of random keys and complex numbers."""

    def parts(x: Any) -> Any:
        if _is_key(x):
            return jr.key_data(x)
        return jnp.stack([x.real, x.imag], axis=-1) if jnp.iscomplexobj(x) else x

    abstract = lambda x: jax.eval_shape(parts, x) if isinstance(x, jax.ShapeDtypeStruct) else parts(x)  # noqa: E731
    return jax.tree.map(abstract, tree)


def _whole(like: Any) -> Callable[[Array], Array]:
    """The inverse of `_in_parts` for a leaf like `like`."""
    if _is_key(like):
        return partial(jr.wrap_key_data, impl=jr.key_impl(like))
    if jnp.issubdtype(like.dtype, jnp.complexfloating):
        return lambda x: jax.lax.complex(x[..., 0], x[..., 1])
    return lambda x: x


def _bitwise(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.integer) and jnp.dtype(dtype).itemsize == 4


def _as_float(x: Array) -> Float[Array, "..."]:
    return jax.lax.bitcast_convert_type(x, jnp.float32) if _bitwise(x.dtype) else x.astype(jnp.float32)


def _from_float(x: Float[Array, "..."], dtype: Any) -> Array:
    return jax.lax.bitcast_convert_type(x, dtype) if _bitwise(dtype) else x.astype(dtype)
