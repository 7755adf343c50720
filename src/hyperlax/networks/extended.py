"""Vectors that end in a one, so that a layer is a single matrix product, and its gradient another one.

On an accelerator, the gradient of a bias, a sum over a batch, is a kernel of its own. If the input of a layer
is *extended* by a one, the bias is one more column of the weights, and its gradient one more column of
theirs. A hidden layer can return its output extended in turn, at no cost.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def extended_length(n: int) -> int:
    """The length of `n` entries after extension: a multiple of four, as GPUs read aligned rows faster."""
    return -(-(n + 1) // 4) * 4


def extended(x: Float[Array, " n"]) -> Float[Array, " extended"]:
    """`x`, a one, and zeros up to the `extended_length`."""
    return jnp.pad(x, (0, extended_length(x.shape[0]) - x.shape[0])) + one_after(x.shape[0])


def one_after(n: int) -> np.ndarray:
    """What is added to `n` entries that are followed by zeros, so that they are extended."""
    return (np.arange(extended_length(n)) == n).astype(np.float32)


def affine(
    weight: Float[Array, "out n"], bias: Float[Array, " out"], rows: int
) -> Float[Array, "{rows} extended"]:
    """Weights and biases as one matrix for extended vectors, of so many `rows` with zeros appended."""
    whole = jnp.concatenate([weight, bias[:, None]], axis=1)
    padding = [(0, rows - whole.shape[0]), (0, extended_length(weight.shape[1]) - whole.shape[1])]
    return jnp.pad(whole, padding)


@jax.custom_vjp
def with_whole_gradient(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x`, whose gradient is computed as a whole. XLA would compute small ones again for every part."""
    return x


def _forward(x: Array) -> tuple[Array, None]:
    return x, None


def _backward(_: None, cotangent: Array) -> tuple[Any]:
    return (jax.lax.optimization_barrier(cotangent),)


with_whole_gradient.defvjp(_forward, _backward)
