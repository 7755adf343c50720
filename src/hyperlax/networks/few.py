"""Reductions over a few entries, such as actions, which programs for accelerators compute entry by entry.

XLA makes a kernel of its own of every reduction; what is written out becomes part of the kernels around it.
"""

from __future__ import annotations

import operator
from functools import reduce

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from hyperlax.lanes.constants import accelerated

FEW = 16
"""The largest number of entries that are taken one by one."""


def few(x: Shaped[Array, " n"]) -> bool:
    """Whether the entries of `x` are taken one by one."""
    return accelerated() and 1 < x.shape[0] <= FEW


def total(x: Shaped[Array, " n"]) -> Shaped[Array, ""]:
    """The sum of `x`, in its own type."""
    return reduce(operator.add, (x[i] for i in range(x.shape[0]))) if few(x) else jnp.sum(x, dtype=x.dtype)


def largest(x: Float[Array, " n"]) -> Int[Array, ""]:
    """The place of the first of the largest entries of `x`."""
    if not few(x):
        return jnp.argmax(x).astype(jnp.int32)
    best, place = x[0], jnp.int32(0)
    for i in range(1, x.shape[0]):
        place = jnp.where(x[i] > best, i, place)
        best = jnp.maximum(best, x[i])
    return place
