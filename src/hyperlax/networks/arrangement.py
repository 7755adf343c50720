"""Entries of an array in another order, for accelerators.

XLA computes a transposition of small arrays in a kernel of its own, forwards and backwards. A gather at known
places becomes a part of the kernels that it feeds.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hyperlax.lanes.constants import accelerated

ZERO, ONE = -1, -2
"""Numbers in the index of `arranged` that stand for constants."""


@jax.custom_vjp
def arranged(x: Float[Array, " n"], index: Int[Array, " m"], inverse: Int[Array, " n"]) -> Float[Array, " m"]:
    """The entries of `x` at `index`, where `ZERO` and `ONE` stand for constants.

    No entry may occur twice. `inverse` holds the place of every entry, or `ZERO` if it occurs nowhere, so
    that the gradient is a gather as well.
    """
    return _gathered(x, index) + (index == ONE).astype(x.dtype)


def _gathered(x: Float[Array, " n"], index: Int[Array, " m"]) -> Float[Array, " m"]:
    """`x` at `index`, and zero where it is negative."""
    found = x.at[jnp.maximum(index, 0)].get(mode="promise_in_bounds")
    return jnp.where(index >= 0, found, 0)


def _forward(x: Array, index: Array, inverse: Array) -> tuple[Array, Array]:
    return arranged(x, index, inverse), inverse


def _backward(inverse: Array, cotangent: Array) -> tuple[Any, None, None]:
    return _gathered(cotangent, inverse), None, None


arranged.defvjp(_forward, _backward)


def places(index: np.ndarray, n: int) -> np.ndarray:
    """The place in `index` of each of `n` entries, or `ZERO` if it occurs nowhere."""
    inverse = np.full(n, ZERO, np.int32)
    inverse[index[index >= 0]] = np.flatnonzero(index >= 0)
    return inverse


def transposed(x: Float[Array, "..."], axes: tuple[int, ...]) -> Float[Array, "..."]:
    """`x` with permuted axes, as `jnp.transpose`."""
    if not accelerated():
        return x.transpose(axes)
    index = np.arange(x.size, dtype=np.int32).reshape(x.shape).transpose(axes)
    inverse = places(index.ravel(), x.size)
    return arranged(x.ravel(), jnp.asarray(index.ravel()), jnp.asarray(inverse)).reshape(index.shape)
