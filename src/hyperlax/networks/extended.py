"""Vectors that end in a one, so that a layer is a single matrix product, and its gradient another one.

On an accelerator, the gradient of a bias, a sum over a batch, is a kernel of its own. If the input of a layer
is *extended* by a one, the bias is one more column of the weights, and its gradient one more column of
theirs. A hidden layer can return its output extended in turn, at no cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

FEW_INPUTS = 16
"""The most inputs of a layer whose outputs are sums of products (see `sum_of_few` and `first`)."""
FEW_OUTPUTS = 4
"""The most outputs of a layer whose derivative by its input is a sum of products (see `product`)."""
_together = ContextVar("_together", default=False)


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


def sum_of_few(
    x: Float[Array, " n"], weight: Float[Array, "out n"], bias: Float[Array, " out"]
) -> Float[Array, " out"]:
    """`weight @ x + bias` for few inputs, written as a sum of products.

    A matrix product needs its input in memory, and a kernel of its own. An accelerator computes this sum in
    the kernel that computes the input, such as an observation, or in the one that continues with it.
    """
    return sum((x[i] * weight[:, i] for i in range(x.shape[0])), start=bias)


@contextmanager
def evaluated_together() -> Iterator[None]:
    """Let `first` know in the `with` block that several networks are evaluated as one."""
    token = _together.set(True)
    try:
        yield
    finally:
        _together.reset(token)


def product(x: Float[Array, " extended"], matrix: Float[Array, "out extended"]) -> Float[Array, " out"]:
    """`matrix @ x`, the outputs of a layer (see `affine`) for an extended vector.

    Of few outputs, the derivative by `x` is a sum of products, and not a matrix product: an accelerator
    computes it inside the kernel that continues with it, in place of writing and reading it.
    """
    return _to_few(x, _whole(matrix)) if matrix.shape[0] <= FEW_OUTPUTS else x @ matrix.T


def first(
    x: Float[Array, " n"],
    weight: Float[Array, "out n"],
    bias: Float[Array, " out"],
    matrix: Float[Array, "rows extended"],
) -> Float[Array, " rows"]:
    """The outputs of a layer for a vector that is not extended; `matrix` holds its `weight` and `bias`.

    If it is the first layer of networks that are evaluated together, few inputs are added up in place of a
    matrix product, whose result an accelerator would bring into another order, one network after the other.
    The gradient is a matrix product as ever. Where the derivative by `x` is asked for nothing is gained.
    """
    if not _together.get() or x.shape[0] > FEW_INPUTS:
        return product(extended(x), matrix)
    return _of_few(extended(x), matrix, *jax.lax.stop_gradient((x, weight, bias)))


@final
class Rows(eqx.Module):
    """The weights and biases of a layer as rows of a page (see `hyperlax.learning.pages`).

    Row i holds the weights of output i, followed by its bias; what lies behind and below is zero. `again` are
    the same rows without a gradient, cut out of the page once more: an array that two products read is not
    read as a part of a page, but cut out by a kernel. With `sums`, a few inputs of a network are added up as
    in `sum_of_few`; it is for evaluation only.
    """

    rows: Float[Array, "rows extended"]
    again: Float[Array, "rows extended"]
    sums: bool = eqx.field(static=True, default=False)

    def product(self, x: Float[Array, " extended"]) -> Float[Array, " rows"]:
        """The outputs, followed by zeros, for an extended vector (see the function `product`)."""
        return _of_rows(x, self.rows, self.again)

    def first(self, x: Float[Array, " n"]) -> Float[Array, " rows"]:
        """The outputs, followed by zeros, for a vector that is not extended (see the function `first`)."""
        n = x.shape[0]
        if self.sums and n <= FEW_INPUTS:
            return sum_of_few(x, self.rows[:, :n], self.rows[:, n])
        if not _together.get() or n > FEW_INPUTS:
            return self.product(extended(x))
        whole = _whole(extended(x))
        parts = whole[:n], self.rows[:, :n], self.rows[:, n]
        return _of_few(whole, self.rows, *jax.lax.stop_gradient(parts))


@jax.custom_jvp
def _of_rows(
    x: Float[Array, " extended"], rows: Float[Array, "rows extended"], again: Float[Array, "rows extended"]
) -> Float[Array, " rows"]:
    return x @ rows.T


@_of_rows.defjvp
def _of_rows_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    (x, rows, again), (dx, drows, _) = primals, tangents
    few = rows.shape[0] <= FEW_OUTPUTS
    by_input = jnp.sum(dx[None] * again, axis=1) if few else dx @ again.T
    return _of_rows(x, rows, again), by_input + x @ drows.T


@jax.custom_jvp
def _to_few(x: Float[Array, " extended"], matrix: Float[Array, "out extended"]) -> Float[Array, " out"]:
    return x @ matrix.T


@_to_few.defjvp
def _to_few_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Array, Array]:
    (x, matrix), (dx, dmatrix) = primals, tangents
    return _to_few(x, matrix), jnp.sum(dx[None] * matrix, axis=1) + x @ dmatrix.T


@jax.custom_jvp
def _of_few(
    extended: Float[Array, " extended"],
    matrix: Float[Array, "rows extended"],
    x: Float[Array, " n"],
    weight: Float[Array, "out n"],
    bias: Float[Array, " out"],
) -> Float[Array, " rows"]:
    """`extended @ matrix.T`, computed from what these two consist of."""
    outputs = sum_of_few(x, weight, bias)
    return jnp.pad(outputs, (0, matrix.shape[0] - outputs.shape[0]))


@partial(_of_few.defjvp, symbolic_zeros=True)
def _of_few_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    (x, matrix, *_), (dx, dmatrix, *_) = primals, tangents
    if isinstance(dx, SymbolicZero):
        return _of_few(*primals), x @ dmatrix.T
    return x @ matrix.T, dx @ matrix.T + x @ dmatrix.T


@jax.custom_vjp
def _whole(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x`, which is computed as a whole, and so is its gradient."""
    return jax.lax.optimization_barrier(x)


def _whole_forward(x: Array) -> tuple[Array, None]:
    return _whole(x), None


@jax.custom_vjp
def with_whole_gradient(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x`, whose gradient is computed as a whole. XLA would compute small ones again for every part."""
    return x


def _forward(x: Array) -> tuple[Array, None]:
    return x, None


def _backward(_: None, cotangent: Array) -> tuple[Any]:
    return (jax.lax.optimization_barrier(cotangent),)


with_whole_gradient.defvjp(_forward, _backward)
_whole.defvjp(_whole_forward, _backward)
