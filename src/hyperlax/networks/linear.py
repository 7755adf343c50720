"""The dense layer, and initial weights that do not depend on padding."""

from __future__ import annotations

from functools import partial
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from hyperlax.lanes.constants import accelerated, differentiating
from hyperlax.lanes.masking import lane_loop, row_keys
from hyperlax.networks.extended import (
    FEW_INPUTS,
    Rows,
    affine,
    extended,
    first,
    product,
    sum_of_few,
    with_whole_gradient,
)
from hyperlax.networks.layout import affine_map, batch_last


@partial(jax.jit, static_argnums=(3, 4, 5))
def orthogonal(
    key: PRNGKeyArray,
    rows: Int[Array, ""] | int,
    cols: Int[Array, ""] | int,
    row_cap: int,
    col_cap: int,
    scale: float,
) -> Float[Array, "{row_cap} {col_cap}"]:
    """Draw a semi-orthogonal `rows` × `cols` matrix, times `scale`, in the corner of a zero-padded matrix.

    As in Saxe et al. 2014, it is the Q of the QR decomposition of a normal matrix with a positive diagonal of
    R. It depends on the sizes and the key, but not on the capacities, because zero padding does not change
    the first columns of Q.

    It is computed by the Gram-Schmidt process, applied twice to every column, which is exact to rounding
    (Giraud et al. 2005, "Rounding error analysis of the classical Gram-Schmidt orthogonalization process").
    LAPACK would be faster for large square matrices and slower for heads, but it deadlocks when several
    devices call it at once (jaxlib 0.10.2).
    """
    long_cap, short_cap = max(row_cap, col_cap), min(row_cap, col_cap)
    long, short = jnp.maximum(rows, cols), jnp.minimum(rows, cols)
    normal = jax.vmap(lambda k: jr.normal(k, (long_cap,)))(row_keys(key, long_cap))
    vectors = jnp.where(jnp.arange(long_cap)[None] < long, normal[:, :short_cap].T, 0)

    def orthonormalise(i: Any, basis: Float[Array, "short long"]) -> Float[Array, "short long"]:
        vector = jax.lax.dynamic_index_in_dim(vectors, i, keepdims=False)
        for _ in range(2):
            vector = vector - (basis @ vector) @ basis
        unit = vector / jnp.sqrt(jnp.sum(vector**2))
        return jax.lax.dynamic_update_index_in_dim(basis, unit, i, 0)

    basis = lane_loop(short, orthonormalise, jnp.zeros_like(vectors))
    wide = jnp.zeros((long_cap, long_cap)).at[:short_cap].set(basis)
    return scale * jnp.where(jnp.asarray(rows) >= cols, wide.T, wide)[:row_cap, :col_cap]


@final
class Linear(eqx.Module):
    """A dense layer, `weight @ x + bias`, with initially orthogonal weights and zero bias.

    A padded unit has zero weights on both sides. Its output, its gradients and all updates are therefore
    exactly zero, so that padding stays zero in training and the forward pass needs no mask.

    `batch_last` decides where a mapped batch axis is placed (see `layout`): on a CPU, [out, batch] is faster
    for large batches, and [batch, out] for a few samples. `paged` are the same weights and biases as rows of
    a page, while a program for accelerators trains them.
    """

    weight: Float[Array, "out in"]
    bias: Float[Array, " out"]
    batch_last: bool = eqx.field(static=True)
    paged: Rows | None

    def __init__(
        self,
        in_size: Int[Array, ""] | int,
        out_size: Int[Array, ""] | int,
        in_cap: int,
        out_cap: int,
        scale: float,
        batch_last: bool = True,
        *,
        key: PRNGKeyArray,
    ):
        self.weight = orthogonal(key, out_size, in_size, out_cap, in_cap, scale)
        self.bias = jnp.zeros(out_cap)
        self.batch_last = batch_last
        self.paged = None

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        return _linear(self, x) if self.batch_last else self.apply(x)

    def apply(self, x: Float[Array, " in *batch"]) -> Float[Array, " out *batch"]:
        """Apply the layer to one vector, or to a batch along the last axis."""
        if differentiating() and x.ndim == 1:
            return self.of_extended(extended(x))
        if x.ndim == 1 and accelerated() and not self.batch_last:
            return x @ self.weight.T + self.bias
        return affine_map(self.weight, self.bias, x)

    def of_inputs(self, x: Float[Array, " in *batch"]) -> Float[Array, " out *batch"]:
        """`apply` for the inputs of a network, of which an accelerator adds up a few.

        A layer that follows is always a matrix product: XLA might compute one sum anew for every term of the
        next one.
        """
        if not accelerated() or x.ndim > 1:
            return self.apply(x)
        if differentiating():
            return self.first(x, self.bias.shape[0])
        return sum_of_few(x, self.weight, self.bias) if x.shape[0] <= FEW_INPUTS else self.apply(x)

    def first(self, x: Float[Array, " in"], rows: int) -> Float[Array, " {rows}"]:
        """The outputs for the inputs of a network, followed by zeros up to `rows` (see `extended.first`)."""
        if self.paged is not None:
            return self.paged.first(x)[:rows]
        return first(x, self.weight, self.bias, self._affine(rows))

    def of_extended(self, x: Float[Array, " extended"], rows: int | None = None) -> Float[Array, " rows"]:
        """The outputs for a vector that is extended by a one, followed by zeros up to `rows`."""
        rows = self.bias.shape[0] if rows is None else rows
        return self.paged.product(x)[:rows] if self.paged is not None else product(x, self._affine(rows))

    def _affine(self, rows: int) -> Float[Array, "{rows} extended"]:
        """Weights and biases as one matrix, whose gradient is computed as a whole if nothing is appended."""
        matrix = affine(self.weight, self.bias, rows)
        return with_whole_gradient(matrix) if rows == self.bias.shape[0] else matrix

    def of_few(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        """The output for a vector of few entries, without a matrix product.

        On an accelerator this sum and its gradients become parts of other kernels.
        """
        return jnp.sum(self.weight * x[None], axis=1) + self.bias


_linear = batch_last(Linear.apply, "hyperlax_linear")


def column(vector: Shaped[Array, " n"], like: Array) -> Array:
    """`vector` with trailing axes of length one, so that it broadcasts along the first axis of `like`."""
    return vector.reshape(vector.shape + (1,) * (like.ndim - 1))
