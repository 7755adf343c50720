"""MLPs with matrix product operators as hidden layers, whose bond dimension may differ between lanes."""

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
from hyperlax.lanes.constants import accelerated
from hyperlax.lanes.masking import row_keys
from hyperlax.lanes.sizes import Branches, Extent, Shape, Sizes
from hyperlax.networks.base import AbstractNetwork, AbstractNetworkHyperparams, column
from hyperlax.networks.contraction import joined
from hyperlax.networks.extended import affine, extended, one_after, with_whole_gradient
from hyperlax.networks.layout import batch_last
from hyperlax.networks.mlp import ACTIVATIONS, activate
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
            "hidden units = local dimension ^ cores; each shape is a program of its own",
            "Novikov et al. 2015",
        ),
    )
    initial_cores: Count = hp(
        "variance",
        labels=("variance", "unit"),
        doc=Meaning("initial cores: scaled to keep the variance, or N(0, 1)", PROTOCOL),
    )

    def sizes(self) -> dict[str, Any]:
        return {
            "bond_dim": Extent(self.bond_dim),
            "mpo_layers": Extent(self.mpo_layers),
            "shape": Shape(self.label("shape")),
            "activation": Branches({self.label("activation")}),
        }

    def network(self, in_size: int, caps: Sizes, *, key: PRNGKeyArray) -> TensorMLP:
        return TensorMLP(self, in_size, caps, key=key)

    @classmethod
    def flops(cls, in_size: int, sizes: Sizes) -> float:
        hidden, layers = factors(sizes["shape"])[0], sizes["mpo_layers"]
        return 2.0 * hidden * (in_size + layers * hidden + FEATURES) + 20.0 * hidden * (layers + 1)

    @classmethod
    def held(cls, in_size: int, sizes: Sizes) -> int:
        return FEATURES

    @classmethod
    def chain(cls, in_size: int, sizes: Sizes) -> float:
        return 2 + sizes["mpo_layers"] + cls.chain_apart(in_size, sizes)

    @classmethod
    def chain_apart(cls, in_size: int, sizes: Sizes) -> float:
        return 0.7 * factors(sizes["shape"])[2]  # to form the matrices of all layers

    @classmethod
    def weights(cls, in_size: int, sizes: Sizes) -> int:
        hidden, local, cores = factors(sizes["shape"])
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
class MPO(eqx.Module):
    """Linear layer y = W x + b whose matrix W is a matrix product operator.

    W has hidden = local ^ cores rows and columns. The cores have indices [input, left bond, right bond,
    output]; the first core has no left bond and the last one no right bond. Entries with a bond index beyond
    the lane's bond dimension are zero and stay zero under training, because their gradient is zero, too.

    Initial cores are normal with variance 1 / (local · left bond), the inverse of their fan-in when x is
    contracted with one core after the other. The entries of W then have variance 1 / hidden for every
    factorisation, and activations keep their scale. With `initial_cores="unit"` the cores have variance 1 and
    the entries of W have variance bond ^ (cores - 1).
    """

    cores: tuple[Float[Array, "..."], ...]
    bias: Float[Array, " hidden"]

    def __init__(self, shape: str, hp: TensorMLPHyperparams, drawn: Float[Array, "cores left right in out"]):
        hidden, local, count = factors(shape)
        cap = drawn.shape[1]
        inside = jnp.arange(cap) < hp.bond_dim
        fan_in = jnp.where(jnp.arange(count) > 0, hp.bond_dim, 1).astype(drawn.dtype) * local
        scale = jnp.where(hp.chosen("initial_cores", "unit"), 1.0, 1.0 / jnp.sqrt(fan_in))
        scaled = drawn * scale[:, None, None, None, None]
        used = jnp.where((inside[:, None] & inside[None])[None, :, :, None, None], scaled, 0)
        cores = jnp.transpose(used, (0, 3, 1, 2, 4))
        self.cores = (cores[0][:, 0], *cores[1:-1], cores[-1][:, :, 0])
        self.bias = jnp.zeros(hidden)

    def __call__(self, x: Float[Array, " hidden *batch"]) -> Float[Array, " hidden *batch"]:
        """The output for one vector, or for a batch of vectors along the last axis."""
        y = self._along_the_bond(x) if self._chain_is_cheaper(x) else self.dense() @ x
        return y + column(self.bias, x)

    def dense(self) -> Float[Array, "hidden hidden"]:
        """The matrix W [output, input]; both halves of the cores are contracted before they are joined.

        A program for accelerators adds in another order, in fewer kernels.
        """
        first, *middle, last = self.cores
        if accelerated():
            return joined([first[:, None], *middle, last[:, :, None]])[:, 0, 0].T
        half = (len(self.cores) - 1) // 2
        left = first.transpose(2, 0, 1)  # [output, input, bond]
        for core in middle[:half]:
            left = jnp.einsum("oix,jxyp->opijy", left, core)
            left = left.reshape(left.shape[0] * left.shape[1], -1, left.shape[-1])
        right = last.transpose(1, 2, 0)  # [bond, output, input]
        for core in reversed(middle[half:]):
            right = jnp.einsum("jxyp,yoi->xpoji", core, right)
            right = right.reshape(right.shape[0], right.shape[1] * right.shape[2], -1)
        matrix = jnp.einsum("oix,xpj->opij", left, right)
        return matrix.reshape(self.bias.size, self.bias.size)

    def _along_the_bond(self, x: Float[Array, " hidden *batch"]) -> Float[Array, " hidden *batch"]:
        """Compute W x without forming W, by contracting x with one core after the other."""
        first, *middle, last = self.cores
        local = first.shape[0]
        # the axes of `carried` are [bond, outputs so far, remaining inputs and batch]
        carried = jnp.einsum("iyo,ir->yor", first, x.reshape(local, -1))
        for core in middle:
            split = carried.reshape(*carried.shape[:2], local, -1)
            carried = jnp.einsum("ixyp,xoir->yopr", core, split)
            carried = carried.reshape(core.shape[2], -1, split.shape[-1])
        split = carried.reshape(*carried.shape[:2], local, -1)
        return jnp.einsum("ixp,xoir->opr", last, split).reshape(x.shape)

    def _chain_is_cheaper(self, x: Array) -> bool:
        """Whether contracting x core by core takes fewer operations than forming W and multiplying by it.

        Contracting costs bond² · local · hidden operations per core and sample. Forming W costs about
        bond · hidden² operations, most of them in the last contraction, once for all samples, and multiplying
        by it hidden² per sample. W is therefore formed for all but small batches.
        """
        hidden, local, count = self.bias.size, self.cores[0].shape[0], len(self.cores)
        bond, batch = self.cores[0].shape[1], x[0].size
        chain = batch * hidden * local * (2 * bond + (count - 2) * bond**2)
        return chain < 2 * bond * hidden**2 + batch * hidden**2


def _cores(
    key: PRNGKeyArray, layers: int, shape: str, bond: int
) -> Float[Array, "layers cores bond bond d d"]:
    """Standard normal cores, in which no number depends on the numbers of layers, cores and bonds."""
    _, local, count = factors(shape)
    rows = row_keys(key, layers)
    for n in (count, bond, bond):
        rows = jax.vmap(lambda k, n=n: row_keys(k, n))(rows).reshape(-1)
    drawn = jax.vmap(lambda k: jr.normal(k, (local, local)))(rows)
    return drawn.reshape(layers, count, bond, bond, local, local)


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
        return self.weight @ x + column(self.bias, x)


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

    def __init__(self, hp: TensorMLPHyperparams, in_size: int, caps: Sizes, *, key: PRNGKeyArray):
        keys = jr.split(key, 3)
        hidden = factors(caps["shape"])[0]
        self.hp = hp
        self.batch_last = caps.get("batch_last", True)
        self.activations = tuple(name for name in ACTIVATIONS if name in caps["activation"])
        self.first = Dense(in_size, hidden, key=keys[0])
        drawn = _cores(keys[1], caps["mpo_layers"], caps["shape"], caps["bond_dim"])
        self.layers = tuple(
            MPO(caps["shape"], hp, jnp.where(i < hp.mpo_layers, x, 0)) for i, x in enumerate(drawn)
        )
        self.last = Dense(hidden, FEATURES, key=keys[2])

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
            after = activate(self.activations, self.hp.activation, layer(hidden))
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

        def padded(dense: Any, outputs: bool, inputs: bool) -> Any:
            widths = [(0, more * outputs), (0, more * inputs)]
            arrays = jnp.pad(dense.weight, widths), jnp.pad(dense.bias, widths[0])
            return eqx.tree_at(lambda d: (d.weight, d.bias), dense, arrays)

        return eqx.tree_at(
            lambda n: (n.first, n.layers, n.last),
            self,
            (
                padded(self.first, True, False),
                tuple(padded(layer, True, True) for layer in self.layers),
                padded(self.last, False, True),
            ),
        )

    def _matrices(self) -> Float[Array, "layers hidden hidden"]:
        """The matrices of all MPO layers, formed together: more layers do not take more kernels."""
        formed = [layer.weight for layer in self.layers if isinstance(layer, Dense)]
        if len(formed) == len(self.layers):
            return jnp.stack(formed)
        stacked = jax.tree.map(lambda *xs: with_whole_gradient(jnp.stack(xs)), *self.layers)
        return jax.vmap(MPO.dense)(stacked)

    def plain(self) -> tuple[PlainLayer, ...]:
        """The matrix product operators are written out as matrices."""
        name = self.hp.label("activation")
        pairs = [(self.first.weight, self.first.bias, name)]
        for layer in self.layers[: int(self.hp.mpo_layers)]:
            pairs.append((layer.dense() if isinstance(layer, MPO) else layer.weight, layer.bias, name))
        pairs += [(self.last.weight, self.last.bias, "none")]
        return tuple(PlainLayer(np.asarray(w), np.asarray(b), activation=a) for w, b, a in pairs)


_tensor_mlp = batch_last(TensorMLP.apply, "hyperlax_tensor_mlp")
