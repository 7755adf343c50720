"""Multi-layer perceptrons, whose width, depth, activation and LayerNorm may differ between lanes."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, TypeVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from hyperlax.hyperparams import Count, Flag, Meaning, hp
from hyperlax.hyperparams.spaces import Choice, Integers
from hyperlax.lanes.sizes import Branches, Extent, Sizes
from hyperlax.networks.base import AbstractNetwork, AbstractNetworkHyperparams, Linear, column
from hyperlax.networks.extended import affine, extended, one_after
from hyperlax.networks.layout import batch_last
from hyperlax.networks.plain import PlainLayer
from hyperlax.registry.limits import LIMITS

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
    "elu": jax.nn.elu,
}
"""Name → activation function. Each of them maps zero to zero, so that padded units stay zero."""

LAYER_NORM_EPS = 1e-6
Layer = TypeVar("Layer", bound=eqx.Module)


@final
class MLPHyperparams(AbstractNetworkHyperparams):
    """Hyperparameters of an `MLP`, all of which describe its architecture."""

    width: Count = hp(
        64, Choice(32, 64, 128), doc=Meaning("units per hidden layer", "Andrychowicz et al. 2021")
    )
    depth: Count = hp(
        2, Integers(1, 3), doc=Meaning("hidden layers", "Andrychowicz et al. 2021"), most=LIMITS["depth"].most
    )
    layer_norm: Flag = hp(
        False, Choice(True, False), doc=Meaning("LayerNorm before every activation", "Ba et al. 2016, eq. 4")
    )
    activation: Count = hp(
        "tanh",
        Choice("tanh", "relu", "silu"),
        labels=tuple(ACTIVATIONS),
        doc=Meaning("activation after every hidden layer", "Andrychowicz et al. 2021"),
    )
    layer_norm_scale: Flag = hp(
        True, doc=Meaning("train the scale of LayerNorm as well as its bias", "Ba et al. 2016, eq. 4")
    )

    def sizes(self) -> dict[str, Any]:
        return {
            "width": Extent(self.width),
            "depth": Extent(self.depth),
            "depths": Branches({int(self.depth)}),
            "layer_norm": Branches({bool(self.layer_norm)}),
            "activation": Branches({self.label("activation")}),
        }

    def network(self, in_size: int, caps: Sizes, *, key: PRNGKeyArray) -> MLP:
        return MLP(self, in_size, caps, key=key)

    def parameter_count(self, in_size: int) -> int:
        width, depth = int(self.width), int(self.depth)
        norm = depth * width * (1 + bool(self.layer_norm_scale)) if self.layer_norm else 0
        return in_size * width + width + (depth - 1) * (width * width + width) + norm

    @classmethod
    def flops(cls, in_size: int, sizes: Sizes) -> float:
        width = sizes["width"]
        return 2.0 * width * (in_size + (sizes["depth"] - 1) * width) + 20.0 * width * sizes["depth"]

    @classmethod
    def held(cls, in_size: int, sizes: Sizes) -> int:
        return sizes["width"]

    @classmethod
    def chain(cls, in_size: int, sizes: Sizes) -> float:
        return float(sizes["depth"])

    @staticmethod
    def published() -> dict[str, Any]:
        return {"layer_norm_scale": False}

    @staticmethod
    def quick() -> dict[str, Any]:
        return {"width": 16, "depth": 2}

    @classmethod
    def weights(cls, in_size: int, sizes: Sizes) -> int:
        return sizes["width"] * (in_size + (sizes["depth"] - 1) * sizes["width"])

    def out(self, in_size: int) -> int:
        return int(self.width)


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


@final
class MLP(AbstractNetwork):
    """Hidden layers, each a dense layer (orthogonal weights of gain √2), optional LayerNorm and activation.

    Layers beyond the depth of the lane return their input. A masked MLP of width w has the same values,
    gradients and distribution of initial weights as an MLP that is allocated with width w.
    """

    hp: MLPHyperparams
    layers: tuple[Linear, ...]
    norms: tuple[LayerNorm, ...]
    activations: tuple[str, ...] = eqx.field(static=True)
    normalisations: frozenset[bool] = eqx.field(static=True)
    least_depth: int = eqx.field(static=True)
    batch_last: bool = eqx.field(static=True)

    def __init__(self, hp: MLPHyperparams, in_size: int, caps: Sizes, *, key: PRNGKeyArray):
        self.hp = hp
        self.batch_last = caps.get("batch_last", True)
        cap, depth = caps["width"], caps["depth"]
        sizes = [(in_size, in_size)] + [(hp.width, cap)] * (depth - 1)
        self.layers = tuple(
            _dormant(Linear(n, hp.width, n_cap, cap, math.sqrt(2), self.batch_last, key=k), i < hp.depth)
            for i, ((n, n_cap), k) in enumerate(zip(sizes, jr.split(key, depth), strict=True))
        )
        self.activations = tuple(name for name in ACTIVATIONS if name in caps["activation"])
        self.normalisations = caps["layer_norm"]
        self.least_depth = min(caps.get("depths", {1}))
        self.norms = tuple(
            _dormant(LayerNorm(hp.width, cap), hp.layer_norm & (i < hp.depth))
            for i in range(depth * (True in self.normalisations))
        )

    @property
    def out_cap(self) -> int:
        return self.layers[-1].bias.shape[0]

    @property
    def out_size(self) -> Int[Array, ""]:
        return self.hp.width

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        return _mlp(self, x) if self.batch_last else self.apply(x)

    def apply(self, x: Float[Array, " in *batch"]) -> Float[Array, " out *batch"]:
        """The output for one observation, or for a batch of observations along the last axis."""
        hidden = self._layer(0, x)
        for i in range(1, len(self.layers)):
            after = self._layer(i, hidden)
            hidden = after if i < self.least_depth else jnp.where(i < self.hp.depth, after, hidden)
        return hidden

    def extended(self, x: Float[Array, " in"]) -> Float[Array, " extended"]:
        if self.norms:
            return extended(self(x))
        one = one_after(self.out_cap)  # activations leave the zeros that precede it
        hidden = extended(x)
        for i, layer in enumerate(self.layers):
            matrix = affine(layer.weight, layer.bias, one.size)
            after = activate(self.activations, self.hp.activation, hidden @ matrix.T) + one
            hidden = after if i < self.least_depth else jnp.where(i < self.hp.depth, after, hidden)
        return hidden

    def plain(self) -> tuple[PlainLayer, ...]:
        width, name = int(self.hp.width), self.hp.label("activation")
        found = []
        for i, layer in enumerate(self.layers[: int(self.hp.depth)]):
            weight, bias = np.asarray(layer.weight)[:width], np.asarray(layer.bias)[:width]
            weight = weight if i == 0 else weight[:, :width]
            scale = shift = None
            if self.hp.layer_norm:
                scale, shift = (np.asarray(x)[:width] for x in (self.norms[i].scale, self.norms[i].bias))
            found.append(PlainLayer(weight, bias, scale, shift, name))
        return tuple(found)

    def _layer(self, i: int, x: Float[Array, " in *batch"]) -> Float[Array, " out *batch"]:
        x = self.layers[i].apply(x)
        if self.norms:
            operands = (x, self.norms[i], self.hp.width, self.hp.layer_norm_scale)
            if self.normalisations == {True}:
                x = _normalise(*operands)
            else:
                x = _normalise_if(self.hp.layer_norm, *operands)
        return activate(self.activations, self.hp.activation, x)


_mlp = batch_last(MLP.apply, "hyperlax_mlp")


def _normalise(x: Any, norm: LayerNorm, size: Any, train_scale: Any) -> Any:
    return norm(x, size, train_scale)


def _untouched(x: Any, norm: LayerNorm, size: Any, train_scale: Any) -> Any:
    return x


@jax.custom_vjp
def _normalise_if(used: Flag, x: Any, norm: LayerNorm, size: Any, train_scale: Any) -> Any:
    """Apply LayerNorm in lanes that use it, and return `x` in others; a single lane runs only its branch.

    The custom gradient stores only the operands; automatic differentiation of the branch would store the
    intermediate values of both sides.
    """
    return jax.lax.cond(used, _normalise, _untouched, x, norm, size, train_scale)


def _normalise_if_forward(used: Any, *operands: Any) -> tuple[Any, Any]:
    return _normalise_if(used, *operands), (used, operands)


def _normalise_if_backward(kept: tuple[Any, Any], cotangent: Any) -> tuple[Any, ...]:
    used, (x, norm, size, train_scale) = kept

    def slope(f: Any) -> Any:
        return lambda x, norm, g: jax.vjp(lambda x, norm: f(x, norm, size, train_scale), x, norm)[1](g)

    gradient = jax.lax.cond(used, slope(_normalise), slope(_untouched), x, norm, cotangent)
    nothing = (_no_gradient(leaf) for leaf in (used, size, train_scale))
    flag, count, scale = nothing
    return flag, *gradient, count, scale


_normalise_if.defvjp(_normalise_if_forward, _normalise_if_backward)


def _no_gradient(x: Any) -> np.ndarray:
    """The cotangent of an integer or boolean array, which has no gradient."""
    return np.zeros(jnp.shape(x), jax.dtypes.float0)


def activate(
    names: tuple[str, ...], index: Int[Array, ""], x: Float[Array, " n *batch"]
) -> Float[Array, " n *batch"]:
    """Apply the activation that has `index` in `ACTIVATIONS`; it must be one of `names`."""
    return ACTIVATIONS[names[0]](x) if len(names) == 1 else _activate(names, index, x)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _activate(
    names: tuple[str, ...], index: Int[Array, ""], x: Float[Array, " n *batch"]
) -> Float[Array, " n *batch"]:
    """Compute `activate` for several names; a single lane runs only its branch.

    The custom gradient stores only `x`; automatic differentiation of the switch would store the intermediate
    values of every branch.
    """
    return jax.lax.switch(_position(names, index), [ACTIVATIONS[n] for n in names], x)


def _activate_forward(names: tuple[str, ...], index: Any, x: Any) -> tuple[Any, Any]:
    return _activate(names, index, x), (index, x)


def _activate_backward(names: tuple[str, ...], kept: tuple[Any, Any], cotangent: Any) -> tuple[Any, Any]:
    index, x = kept
    slopes = [lambda x, g, f=ACTIVATIONS[n]: jax.vjp(f, x)[1](g)[0] for n in names]
    return _no_gradient(index), jax.lax.switch(_position(names, index), slopes, x, cotangent)


_activate.defvjp(_activate_forward, _activate_backward)


def _position(names: tuple[str, ...], index: Int[Array, ""]) -> Int[Array, ""]:
    """The position in `names` of the activation that has `index` in `ACTIVATIONS`."""
    known = jnp.asarray([list(ACTIVATIONS).index(n) for n in names])
    return jnp.argmax(known == index).astype(jnp.int32)


def _dormant(layer: Layer, used: Any) -> Layer:
    """`layer` if this lane uses it, else all zeros, so that saved weights hold no unused numbers."""
    return jax.tree.map(lambda x: jnp.where(used, x, 0), layer)
