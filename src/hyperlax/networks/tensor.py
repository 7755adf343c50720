"""MLPs with matrix product operators as hidden layers, whose bonds and cores may differ between lanes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from hyperlax.hyperparams import Count, Meaning, hp
from hyperlax.hyperparams.literature import PROTOCOL
from hyperlax.hyperparams.spaces import Choice, Integers
from hyperlax.lanes.constants import accelerated, folded
from hyperlax.lanes.masking import select
from hyperlax.lanes.sizes import Branches, Extent, Shape, Sizes
from hyperlax.networks.base import AbstractNetwork, AbstractNetworkHyperparams
from hyperlax.networks.extended import affine, extended, one_after
from hyperlax.networks.layout import affine_map, batch_last
from hyperlax.networks.mlp import ACTIVATIONS, activate
from hyperlax.networks.mpo import MPO, normal_cores
from hyperlax.networks.plain import PlainLayer
from hyperlax.registry.limits import LIMITS

_POWERS = ((2, 3), (2, 5), (2, 6), (2, 7), (2, 8), (2, 9), (4, 3), (4, 4), (8, 2), (8, 3))
SHAPES = tuple(f"{local**cores}={local}^{cores}" for local, cores in _POWERS)
"""Factorisations of the hidden units, written `hidden=local^cores` with `local` the local dimension."""
FEATURES = 256
"""Number of output features."""


def factors(shape: str) -> tuple[int, int, int]:
    """Parse one of `SHAPES`; returns the numbers of hidden units, local dimension and cores."""
    hidden, _, power = shape.partition("=")
    local, _, cores = power.partition("^")
    return int(hidden), int(local), int(cores)


def _hidden(sizes: Sizes) -> int:
    """The hidden units of networks of `sizes`; raises `ValueError` if no network has such cores."""
    cores, counts = sizes["cores"], sizes["core_counts"]
    if not (counts and counts <= {count for _, count in _POWERS} and max(counts) == cores):
        raise ValueError(f"the capacities do not fit together: {cores} cores at most, of {sorted(counts)}")
    return int(sizes["local"]) ** cores


@final
class TensorMLPHyperparams(AbstractNetworkHyperparams):
    """Hyperparameters of a `TensorMLP`: its architecture and its initial cores."""

    bond_dim: Count = hp(
        8,
        Choice(4, 8, 16),
        doc=Meaning(
            "bond dimension of the matrix product operators", "Novikov et al. 2015, section 3 (TT-rank)"
        ),
        most=LIMITS["bond_dim"].most,
    )
    activation: Count = hp(
        "silu",
        Choice("silu", "relu", "tanh"),
        labels=tuple(ACTIVATIONS),
        doc=Meaning("activation after every hidden layer", "Andrychowicz et al. 2021"),
    )
    mpo_layers: Count = hp(
        2,
        Integers(1, 3),
        doc=Meaning("hidden layers that are matrix product operators", "Novikov et al. 2015"),
        most=LIMITS["mpo_layers"].most,
    )
    shape: Count = hp(
        "64=2^6",
        Choice("32=2^5", "64=2^6", "128=2^7"),
        labels=SHAPES,
        doc=Meaning(
            "hidden units = local dimension ^ cores; each local dimension is a program of its own",
            "Novikov et al. 2015",
        ),
    )
    initial_cores: Count = hp(
        "variance",
        labels=("variance", "unit"),
        doc=Meaning("initial cores: scaled to keep the variance, or N(0, 1)", PROTOCOL),
    )

    def core_count(self) -> Int[Array, ""]:
        """The number of cores."""
        counts = np.asarray([factors(shape)[2] for shape in SHAPES], np.int32)
        return folded(lambda xp, shape: xp.asarray(counts)[shape], self.shape)

    def sizes(self) -> dict[str, Any]:
        _, local, cores = factors(self.label("shape"))
        return {
            "bond_dim": Extent(self.bond_dim),
            "mpo_layers": Extent(self.mpo_layers),
            "local": Shape(local),
            "cores": Extent(cores),
            "core_counts": Branches({cores}),
            "activation": Branches({self.label("activation")}),
        }

    def network(self, in_size: int, caps: Sizes, *, key: PRNGKeyArray) -> TensorMLP:
        return TensorMLP(self, in_size, caps, key=key)

    @classmethod
    def flops(cls, in_size: int, sizes: Sizes) -> float:
        hidden, layers = _hidden(sizes), sizes["mpo_layers"]
        return 2.0 * hidden * (in_size + layers * hidden + FEATURES) + 20.0 * hidden * (layers + 1)

    @classmethod
    def held(cls, in_size: int, sizes: Sizes) -> int:
        return FEATURES

    @classmethod
    def chain(cls, in_size: int, sizes: Sizes) -> float:
        return 2 + sizes["mpo_layers"] + cls.chain_apart(in_size, sizes)

    @classmethod
    def chain_apart(cls, in_size: int, sizes: Sizes) -> float:
        return 1 + 0.44 * sizes["cores"]  # to form the matrices of all layers

    @classmethod
    def weights(cls, in_size: int, sizes: Sizes) -> int:
        hidden, local, cores = _hidden(sizes), int(sizes["local"]), sizes["cores"]
        bond = sizes["bond_dim"]
        ends, middle = 2 * local**2 * bond, (cores - 2) * (local * bond) ** 2
        dense = (in_size + 1) * hidden + (hidden + 1) * FEATURES
        return dense + sizes["mpo_layers"] * (ends + middle + hidden)

    @staticmethod
    def published() -> dict[str, Any]:
        return {"initial_cores": "unit"}

    @staticmethod
    def quick() -> dict[str, Any]:
        return {"bond_dim": Choice(2, 4), "mpo_layers": 1, "shape": "8=2^3"}

    def out(self, in_size: int) -> int:
        return FEATURES


@final
class Dense(eqx.Module):
    """Dense layer with LeCun normal weight and zero bias.

    The normal distribution is truncated at two standard deviations, which reduces its standard deviation to
    0.88; the weight is divided by that.
    """

    weight: Float[Array, "out in"]
    bias: Float[Array, " out"]

    def __init__(self, in_size: int, out_size: int, *, key: PRNGKeyArray):
        self.weight = jr.truncated_normal(key, -2, 2, (out_size, in_size)) / (0.8796256 * math.sqrt(in_size))
        self.bias = jnp.zeros(out_size)

    def __call__(self, x: Float[Array, " in *batch"]) -> Float[Array, " out *batch"]:
        return affine_map(self.weight, self.bias, x)


def _padded(dense: Any, outputs: int, inputs: int) -> Any:
    """`dense` with so many more outputs and inputs, all of them zero."""
    widths = [(0, outputs), (0, inputs)]
    arrays = jnp.pad(dense.weight, widths), jnp.pad(dense.bias, widths[0])
    return eqx.tree_at(lambda d: (d.weight, d.bias), dense, arrays)


@final
class TensorMLP(AbstractNetwork):
    """Dense layer, MPO layers and a linear layer to 256 features, with activations after all but the last.

    The network follows "Tensorizing Neural Networks" (Novikov et al. 2015), with matrix product operators as
    the hidden matrices. Layers beyond those of the lane return their input.
    """

    hp: TensorMLPHyperparams
    first: Dense
    layers: tuple[MPO | Dense, ...]
    last: Dense
    activations: tuple[str, ...] = eqx.field(static=True)
    batch_last: bool = eqx.field(static=True)
    several: bool = eqx.field(static=True)

    def __init__(self, hp: TensorMLPHyperparams, in_size: int, caps: Sizes, *, key: PRNGKeyArray):
        keys = jr.split(key, 3)
        local, counts = int(caps["local"]), sorted(caps["core_counts"])
        self.hp, self.several = hp, len(counts) > 1
        self.batch_last = caps.get("batch_last", True)
        self.activations = tuple(name for name in ACTIVATIONS if name in caps["activation"])
        unit = hp.chosen("initial_cores", "unit")
        drawn = normal_cores(keys[1], caps["mpo_layers"], counts[-1], caps["bond_dim"], local)
        self.layers = tuple(
            MPO(hp.bond_dim, unit, jnp.where(i < hp.mpo_layers, x, 0), self._count())
            for i, x in enumerate(drawn)
        )
        each = [
            (Dense(in_size, local**n, key=keys[0]), Dense(local**n, FEATURES, key=keys[2])) for n in counts
        ]
        self.first, self.last = each[-1]
        for n, (first, last) in zip(counts[:-1], each[:-1], strict=True):  # as large as the lane's own
            more, own = local ** counts[-1] - local**n, hp.core_count() == n
            self.first = select(own, _padded(first, more, 0), self.first)
            self.last = select(own, _padded(last, 0, more), self.last)

    def _count(self) -> Int[Array, ""] | None:
        """The number of the lane's cores, if others in its program may have another."""
        return self.hp.core_count() if self.several else None

    @property
    def out_cap(self) -> int:
        return FEATURES

    @property
    def out_size(self) -> Int[Array, ""]:
        return jnp.int32(FEATURES)

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        return _tensor_mlp(self, x) if self.batch_last else self.apply(x)

    def apply(self, x: Float[Array, " in *batch"]) -> Float[Array, " out *batch"]:
        """The output for one observation, or for a batch of observations along the last axis."""
        hidden = activate(self.activations, self.hp.activation, self.first(x))
        layers = self.prepared().layers if accelerated() else self.layers
        for i, layer in enumerate(layers):
            linear = layer(hidden, self._count()) if isinstance(layer, MPO) else layer(hidden)
            after = activate(self.activations, self.hp.activation, linear)
            hidden = jnp.where(i < self.hp.mpo_layers, after, hidden)
        return self.last(hidden)

    def prepared(self) -> TensorMLP:
        """This network with the matrices of its layers instead of their cores."""
        if not any(isinstance(layer, MPO) for layer in self.layers):
            return self
        arrays = lambda dense: (dense.weight, dense.bias)  # noqa: E731
        pairs = zip(self._matrices(), self.layers, strict=True)
        layers = tuple(eqx.tree_at(arrays, self.last, (matrix, mpo.bias)) for matrix, mpo in pairs)
        return eqx.tree_at(lambda network: network.layers, self, layers)

    def extended(self, x: Float[Array, " in"]) -> Float[Array, " extended"]:
        hidden, one = extended(x), one_after(self.first.bias.size)
        biases = [self.first.bias, *(layer.bias for layer in self.layers)]
        for i, (weight, bias) in enumerate(zip([self.first.weight, *self._matrices()], biases, strict=True)):
            linear = hidden @ affine(weight, bias, one.size).T
            after = activate(self.activations, self.hp.activation, linear) + one
            hidden = jnp.where(i <= self.hp.mpo_layers, after, hidden) if i else after
        features = one_after(FEATURES)
        return hidden @ affine(self.last.weight, self.last.bias, features.size).T + features

    @classmethod
    def alike(cls, networks: Sequence[TensorMLP]) -> list[TensorMLP]:
        """The networks with matrices in place of their cores, padded to the largest with zeros."""
        ready = [network.prepared() for network in networks]
        hidden = max(network.first.bias.size for network in ready)
        return [network._padded(hidden) for network in ready]

    def _padded(self, hidden: int) -> TensorMLP:
        """This `prepared` network with so many hidden units, of which those appended do nothing."""
        more = hidden - self.first.bias.size
        return eqx.tree_at(
            lambda n: (n.first, n.layers, n.last),
            self,
            (
                _padded(self.first, more, 0),
                tuple(_padded(layer, more, more) for layer in self.layers),
                _padded(self.last, 0, more),
            ),
        )

    def _matrices(self) -> Float[Array, "layers hidden hidden"]:
        """The matrices of all MPO layers, formed together: more layers do not take more kernels."""
        formed = [layer.weight for layer in self.layers if isinstance(layer, Dense)]
        if len(formed) == len(self.layers):
            return jnp.stack(formed)
        stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *self.layers)
        return jax.vmap(lambda layer: layer.dense(self._count()))(stacked)

    def plain(self) -> tuple[PlainLayer, ...]:
        """The matrix product operators are written out as matrices."""
        name, hidden = self.hp.label("activation"), factors(self.hp.label("shape"))[0]
        pairs = [(self.first.weight[:hidden], self.first.bias[:hidden], name)]
        for layer in self.layers[: int(self.hp.mpo_layers)]:
            matrix = layer.dense(self._count()) if isinstance(layer, MPO) else layer.weight
            pairs.append((matrix[:hidden, :hidden], layer.bias[:hidden], name))
        pairs += [(self.last.weight[:, :hidden], self.last.bias, "none")]
        return tuple(PlainLayer(np.asarray(w), np.asarray(b), activation=a) for w, b, a in pairs)


_tensor_mlp = batch_last(TensorMLP.apply, "hyperlax_tensor_mlp")
