"""Layer normalisation, whose number of units may differ between lanes, and which lanes may go without."""

from __future__ import annotations

from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from hyperlax.hyperparams import Flag
from hyperlax.lanes.constants import accelerated
from hyperlax.networks.linear import column

LAYER_NORM_EPS = 1e-6
Used = frozenset[bool]
"""Whether the lanes of a program normalise: all of them, none, or some."""


@final
class LayerNorm(eqx.Module):
    """Layer normalisation over the units in use, with trainable scale and bias (Ba et al. 2016, eq. 4)."""

    scale: Float[Array, " width"]
    bias: Float[Array, " width"]

    def __init__(self, size: Int[Array, ""], cap: int):
        self.scale = (jnp.arange(cap) < size).astype(jnp.float32)
        self.bias = jnp.zeros(cap)

    def __call__(
        self, x: Float[Array, " width *batch"], size: Int[Array, ""], train_scale: Flag
    ) -> Float[Array, " width *batch"]:
        """Normalise the first `size` entries of `x`; `x` must be zero beyond them, and so is the result.

        Without `train_scale` the scale receives no gradient.
        """
        used = column(jnp.arange(x.shape[0]) < size, x)
        n = size.astype(x.dtype)
        # x is zero where it is masked; the mask keeps gradients out of the padding
        mean = jnp.sum(jnp.where(used, x, 0), 0, keepdims=True) / n
        centred = jnp.where(used, x - mean, 0)
        variance = jnp.sum(centred**2, 0, keepdims=True) / n
        scale = column(jnp.where(train_scale, self.scale, jax.lax.stop_gradient(self.scale)), x)
        bias = jnp.where(used, column(self.bias, x), 0)
        return centred * jax.lax.rsqrt(variance + LAYER_NORM_EPS) * scale + bias


def normalised_where(
    among: Used,
    flag: Flag,
    x: Float[Array, " width *batch"],
    norm: LayerNorm,
    size: Int[Array, ""],
    train_scale: Flag,
) -> Float[Array, " width *batch"]:
    """`norm(x, size, train_scale)` if `flag` holds, else `x`; `among` are the flags that lanes may have."""
    if accelerated() and x.ndim == 1:
        scale = jnp.where(train_scale, norm.scale, jax.lax.stop_gradient(norm.scale))
        return _at_once(flag | (among == {True}), x, scale, norm.bias, size)
    if among == {True}:
        return norm(x, size, train_scale)
    return _normalised_if(flag, x, norm, size, train_scale)


def _normalised(x: Any, norm: LayerNorm, size: Any, train_scale: Any) -> Any:
    return norm(x, size, train_scale)


def _untouched(x: Any, norm: LayerNorm, size: Any, train_scale: Any) -> Any:
    return x


@jax.custom_vjp
def _normalised_if(flag: Flag, x: Any, norm: LayerNorm, size: Any, train_scale: Any) -> Any:
    """Apply LayerNorm in lanes that use it, and return `x` in others; a single lane runs only its branch.

    The custom gradient stores only the operands; automatic differentiation of the branch would store the
    intermediate values of both sides.
    """
    return jax.lax.cond(flag, _normalised, _untouched, x, norm, size, train_scale)


def _if_forward(flag: Any, *operands: Any) -> tuple[Any, Any]:
    return _normalised_if(flag, *operands), (flag, operands)


def _if_backward(kept: tuple[Any, Any], cotangent: Any) -> tuple[Any, ...]:
    flag, (x, norm, size, train_scale) = kept

    def slope(f: Any) -> Any:
        return lambda x, norm, g: jax.vjp(lambda x, norm: f(x, norm, size, train_scale), x, norm)[1](g)

    gradient = jax.lax.cond(flag, slope(_normalised), slope(_untouched), x, norm, cotangent)
    nothing = tuple(no_gradient(leaf) for leaf in (flag, size, train_scale))
    return nothing[0], *gradient, *nothing[1:]


_normalised_if.defvjp(_if_forward, _if_backward)


@jax.custom_vjp
def _at_once(
    flag: Bool[Array, ""],
    x: Float[Array, " width"],
    scale: Float[Array, " width"],
    bias: Float[Array, " width"],
    size: Int[Array, ""],
) -> Float[Array, " width"]:
    """LayerNorm where `flag` holds, in few kernels: one reduction, and another one for the gradient.

    `x` is zero beyond `size`, and so are `scale` and `bias`. The variance is the mean of squares less the
    square of the mean, as in Flax; its relative error in float32 is about 10⁻⁷ · (1 + mean² / variance).
    """
    return _forward(flag, x, scale, bias, size)[0]


def _forward(flag: Any, x: Any, scale: Any, bias: Any, size: Any) -> tuple[Any, Any]:
    used, n = jnp.arange(x.shape[0]) < size, size.astype(x.dtype)
    total, squares = jnp.sum(jnp.stack([x, x**2]), axis=1)
    mean = total / n
    scaling = jax.lax.rsqrt(jnp.maximum(squares / n - mean**2, 0) + LAYER_NORM_EPS)
    out = jnp.where(used, (x - mean) * scaling * scale + bias, 0)
    return jnp.where(flag, out, x), (flag, x, scale, size, total, squares)


def _backward(kept: tuple[Any, ...], cotangent: Any) -> tuple[Any, ...]:
    """The gradient of the standardised units z by the inputs is (g − mean g − z · mean (g · z)) / σ."""
    flag, x, scale, size, total, squares = kept
    used, n = jnp.arange(x.shape[0]) < size, size.astype(x.dtype)
    mean = total / n
    scaling = jax.lax.rsqrt(jnp.maximum(squares / n - mean**2, 0) + LAYER_NORM_EPS)
    standard = (x - mean) * scaling
    slope = cotangent * scale
    total, along = jnp.sum(slope), jnp.sum(slope * standard)  # XLA joins them to one reduction
    of_x = jnp.where(used, slope - (total + standard * along) / n, 0) * scaling
    ours = jnp.where(used & flag, cotangent, 0)
    return no_gradient(flag), jnp.where(flag, of_x, cotangent), ours * standard, ours, no_gradient(size)


_at_once.defvjp(_forward, _backward)


def no_gradient(x: Any) -> np.ndarray:
    """The cotangent of an integer or boolean array, which has no gradient."""
    return np.zeros(jnp.shape(x), jax.dtypes.float0)
