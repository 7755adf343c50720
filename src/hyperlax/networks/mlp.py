"""Multi-layer perceptrons, whose width, depth, activation and LayerNorm may differ between lanes."""

from __future__ import annotations

import math
from collections.abc import Callable
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
from hyperlax.lanes.masking import lane_switch
from hyperlax.lanes.sizes import Branches, Extent, Sizes
from hyperlax.networks.base import AbstractNetwork, AbstractNetworkHyperparams
from hyperlax.networks.extended import extended, extended_length, one_after
from hyperlax.networks.layer_norm import LayerNorm, no_gradient, normalised_where
from hyperlax.networks.layout import batch_last
from hyperlax.networks.linear import Linear
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

NORM_PRODUCTS = 1.2
"""The kernels of a LayerNorm on an accelerator, relative to those of a dense layer."""
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
        norms = NORM_PRODUCTS * (True in sizes["layer_norm"])
        return sizes["depth"] * (1 + norms)

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

        def activated(linear: Float[Array, " extended"]) -> Float[Array, " extended"]:
            return activate(self.activations, self.hp.activation, linear) + one

        hidden = activated(self.layers[0].first(x, one.size))
        for i, layer in enumerate(self.layers[1:], start=1):
            after = activated(layer.of_extended(hidden, one.size))
            hidden = after if i < self.least_depth else jnp.where(i < self.hp.depth, after, hidden)
        return hidden

    def heights(self) -> tuple[int, ...]:
        rows = self.out_cap if self.norms else extended_length(self.out_cap)
        return (rows,) * len(self.layers)

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
        x = self.layers[i].of_inputs(x) if i == 0 else self.layers[i].apply(x)
        if self.norms:
            hp, among = self.hp, self.normalisations
            x = normalised_where(among, hp.layer_norm, x, self.norms[i], hp.width, hp.layer_norm_scale)
        return activate(self.activations, self.hp.activation, x)


_mlp = batch_last(MLP.apply, "hyperlax_mlp")


def activate(
    names: tuple[str, ...], index: Int[Array, ""], x: Float[Array, " n *batch"]
) -> Float[Array, " n *batch"]:
    """Apply the activation that has `index` in `ACTIVATIONS`; it must be one of `names`."""
    return ACTIVATIONS[names[0]](x) if len(names) == 1 else _activate(names, index, x)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _activate(
    names: tuple[str, ...], index: Int[Array, ""], x: Float[Array, " n *batch"]
) -> Float[Array, " n *batch"]:
    """Compute `activate` for several names; a single lane runs only its branch, except on accelerators.

    The custom gradient stores only `x`; automatic differentiation of the switch would store the intermediate
    values of every branch.
    """
    return lane_switch(index, _cases(names, ACTIVATIONS.__getitem__), x)


def _activate_forward(names: tuple[str, ...], index: Any, x: Any) -> tuple[Any, Any]:
    return _activate(names, index, x), (index, x)


def _activate_backward(names: tuple[str, ...], kept: tuple[Any, Any], cotangent: Any) -> tuple[Any, Any]:
    index, x = kept
    slope = lambda name: lambda x, g: jax.vjp(ACTIVATIONS[name], x)[1](g)[0]  # noqa: E731
    return no_gradient(index), lane_switch(index, _cases(names, slope), x, cotangent)


_activate.defvjp(_activate_forward, _activate_backward)


def _cases(names: tuple[str, ...], function: Callable[[str], Any]) -> dict[int, Any]:
    """The `function` of each activation, by its index in `ACTIVATIONS`."""
    return {list(ACTIVATIONS).index(name): function(name) for name in names}


def _dormant(layer: Layer, used: Any) -> Layer:
    """`layer` if this lane uses it, else all zeros, so that saved weights hold no unused numbers."""
    return jax.tree.map(lambda x: jnp.where(used, x, 0), layer)
