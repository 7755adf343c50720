"""Data re-uploading quantum circuits, whose depth, width, entangler and encoding may differ between lanes."""

from __future__ import annotations

from functools import cache
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from hyperlax.hyperparams import Count, Flag, Meaning, Real, hp
from hyperlax.hyperparams.spaces import Choice
from hyperlax.lanes.constants import constant, known, surely
from hyperlax.lanes.masking import lane_switch, row_keys
from hyperlax.lanes.sizes import Extent, Shape, Sizes
from hyperlax.networks import circuit_fused
from hyperlax.networks.arrangement import transposed
from hyperlax.networks.base import AbstractNetwork, AbstractNetworkHyperparams
from hyperlax.networks.circuit import expectations
from hyperlax.networks.drawing import svg
from hyperlax.networks.layout import batch_last
from hyperlax.networks.measurement import Measurement, probabilities, z_means
from hyperlax.networks.pennylane import ANGLES, diagram
from hyperlax.networks.pennylane import expectations as pennylane_expectations
from hyperlax.networks.trigonometry import arctan
from hyperlax.registry.limits import LIMITS

BACKENDS = ("native", "pennylane")
ENTANGLERS = ("none", "cz", "cz_ring")
LARGEST_CIRCUIT = 26
"""Largest number of qubits that is supported; usually memory allows fewer."""


def qubits(in_size: int, stacks: int) -> int:
    """The number of wires that encode `in_size` features, three per wire, in `stacks` copies."""
    return -(-in_size // ANGLES) * stacks


@final
class PQCHyperparams(AbstractNetworkHyperparams):
    """Hyperparameters of a `PQC`: its architecture, initial weights and relative learning rates."""

    layers: Count = hp(
        5,
        Choice(5, 10, 15),
        doc=Meaning("encoding and trainable layers before the last one", "Pérez-Salinas et al. 2020"),
        most=LIMITS["layers"].most,
    )
    stacks: Count = hp(1, Choice(1, 2, 3), doc="copies of the encoding wires", most=LIMITS["stacks"].most)
    entangler: Count = hp(
        "cz",
        labels=ENTANGLERS,
        doc=Meaning(
            "entangling gates: none, CZ in a brick wall, or CZ around a ring", "Pérez-Salinas et al. 2020"
        ),
    )
    squash: Count = hp(
        "none",
        labels=("none", "tanh", "arctan"),
        doc=Meaning("function applied to features before they are encoded", "Skolik et al. 2022"),
    )
    reupload: Flag = hp(
        True,
        doc=Meaning(
            "encode the features in every layer instead of only in the first", "Pérez-Salinas et al. 2020"
        ),
    )
    measured: Count = hp(0, doc="number of wires, from the first, whose ⟨σz⟩ are the output; 0: all", least=0)
    output_scale: Flag = hp(False, doc=Meaning("train a factor for every output", "Skolik et al. 2022"))
    initial_angles: Count = hp("unit", labels=("unit", "circle"), doc="angles start in [0, 1) or [0, 2π)")
    backend: Count = hp("native", labels=BACKENDS, doc="simulator: this package's own, or PennyLane's")
    angle_lr_factor: Real = hp(
        1.0, doc=Meaning("learning rate of the angles, relative to the network's", "Jerbi et al. 2021")
    )
    scale_lr_factor: Real = hp(
        1.0, doc=Meaning("learning rate of the input scales, relative to the network's", "Jerbi et al. 2021")
    )

    def sizes(self) -> dict[str, Any]:
        return {
            "layers": Extent(self.layers),
            "stacks": Extent(self.stacks),
            "backend": Shape(self.label("backend")),
        }

    def network(self, in_size: int, caps: Sizes, *, key: PRNGKeyArray) -> PQC:
        return PQC(self, in_size, caps, key=key)

    def parameter_count(self, in_size: int) -> int:
        wires = qubits(in_size, int(self.stacks))
        encoding = (int(self.layers) + 1) if self.reupload else 1
        trained = ANGLES * wires * (int(self.layers) + 1)
        scales = encoding * in_size * int(self.stacks)
        return trained + scales + self._outputs(wires) * bool(self.output_scale)

    def rotations(self, in_size: int) -> int:
        """The number of one-qubit rotations; in the last layer, encoding and trained angles share one."""
        layers, wires = int(self.layers), qubits(in_size, int(self.stacks))
        encoding = layers if self.reupload else min(layers, 1)
        return wires * (encoding + layers + 1)

    def executions(self, in_size: int) -> tuple[int, int]:
        """Circuit executions on hardware of one forward pass and of one gradient for one observation.

        The parameter-shift rule takes two circuits per rotation angle, and one more for the value (Schuld et
        al. 2019, "Evaluating analytic gradients on quantum hardware").
        """
        return 1, 2 * ANGLES * self.rotations(in_size) + 1

    def _outputs(self, wires: int) -> int:
        """The number of measured wires among `wires`."""
        return min(int(self.measured), wires) or wires

    @classmethod
    def flops(cls, in_size: int, sizes: Sizes) -> float:
        wires, layers = qubits(in_size, sizes["stacks"]), sizes["layers"] + 1
        return layers * wires * (60.0 * 2.0 ** min(wires, 60) + 4000.0)

    @classmethod
    def held(cls, in_size: int, sizes: Sizes) -> int:
        return 2 * 2 ** qubits(in_size, sizes["stacks"])

    @classmethod
    def chain(cls, in_size: int, sizes: Sizes) -> float:
        fused = qubits(in_size, sizes["stacks"]) <= circuit_fused.MOST_WIRES
        return 1.0 if fused else 1.0 + 3.0 * sizes["layers"]

    @classmethod
    def weights(cls, in_size: int, sizes: Sizes) -> int:
        return 2 * ANGLES * qubits(in_size, sizes["stacks"]) * (sizes["layers"] + 1)

    @staticmethod
    def quick() -> dict[str, Any]:
        return {"layers": 2, "stacks": 1}

    def out(self, in_size: int) -> int:
        return self._outputs(qubits(in_size, int(self.stacks)))

    def picture(self, in_size: int, title: str = "") -> str:
        """The circuit of this sample for observations of `in_size` features, as an SVG document."""
        return svg(
            in_size,
            int(self.stacks),
            int(self.layers),
            ENTANGLERS[int(self.entangler)],
            reupload=bool(self.reupload),
            measured=int(self.measured),
            title=title,
        )

    def refusal(self, in_size: int, memory: int) -> str | None:
        wires = qubits(in_size, int(self.stacks))
        if wires <= LARGEST_CIRCUIT and state_bytes(wires) <= memory:
            return None
        if wires > LARGEST_CIRCUIT and state_bytes(wires) <= memory:
            return (
                f"{in_size} features on {int(self.stacks)} stacks take {wires} qubits; "
                f"at most {LARGEST_CIRCUIT} are supported"
            )
        fits = max((w for w in range(1, LARGEST_CIRCUIT + 1) if state_bytes(w) <= memory), default=0)
        return (
            f"{in_size} features on {int(self.stacks)} stacks take {wires} qubits, which need "
            f"{_state_size(wires)} for the gradient of one observation, but only {_size(memory)} are "
            "available; "
            f"at most {fits} qubits fit"
        )

    def measurement_refusal(self, in_size: int, how: Measurement, memory: int) -> str | None:
        wires = qubits(in_size, int(self.stacks))
        needed = how.bytes(wires)
        if needed <= memory:
            return None
        state = "a density matrix" if how.depolarizing else "a state"
        return f"measuring {wires} qubits takes {state} of {_size(needed)} ({_size(memory)} are available)"


def state_bytes(wires: int) -> int:
    """Bytes that the gradient of one observation takes: two complex64 states, and as much for temporaries."""
    return 4 * 8 * 2**wires


def _state_size(wires: int) -> str:
    """`state_bytes` as text, for any number of wires."""
    return _size(state_bytes(wires)) if wires < 60 else f"2^{wires - 25} GiB"


def _size(count: int) -> str:
    """`count` bytes in GiB, as text."""
    return f"{count / 2**30:.3g} GiB" if count < 2**60 else f"2^{count.bit_length() - 31} GiB"


@final
class PQC(AbstractNetwork):
    """Data re-uploading circuit of one-qubit rotations and CZ gates (Pérez-Salinas et al. 2020).

    There are q = ⌈features / 3⌉ wires per stack. With x padded with zeros and f = w mod q, the circuit is

        for l = 0 … L - 1, on every wire w:  Rot(x[3f:3f+3] ∘ scales[l, w]), then Rot(angles[l, w]),
                            followed by CZ:  on (0,1), (2,3) … for even l, on (1,2), (3,4) … for odd l
        at the end, on every wire w:         Rot(x[3f:3f+3] ∘ scales[L, w] + angles[L, w])

    where Rot(a, b, c) = RZ(c) RY(b) RZ(a). The output is ⟨σz⟩ of every measured wire. This is the entangler
    `cz`; `cz_ring` instead applies CZ to all pairs of neighbours after every layer, including the last and
    the first wire (Skolik et al. 2022), and `none` applies no CZ.

    Layers beyond those of the lane are the identity, and wires beyond those of the lane stay in |0⟩, so the
    output does not depend on how much is allocated.
    """

    hp: PQCHyperparams
    angles: Float[Array, "layers wires 3"]
    scales: Float[Array, "layers wires 3"]
    output_scales: Float[Array, " wires"]
    in_size: int = eqx.field(static=True)
    backend: str = eqx.field(static=True)
    batch_last: bool = eqx.field(static=True)

    def __init__(self, hp: PQCHyperparams, in_size: int, caps: Sizes, *, key: PRNGKeyArray):
        self.hp = hp
        self.in_size = in_size
        self.backend = caps.get("backend", BACKENDS[0])
        self.batch_last = caps.get("batch_last", True)
        layers, wires = caps["layers"] + 1, qubits(in_size, caps["stacks"])
        angles, scales = (_uniform(k, layers, wires) for k in jr.split(key))
        used = self._used(layers, wires)
        circle = jnp.where(hp.chosen("initial_angles", "circle"), 2 * np.pi, 1.0).astype(angles.dtype)
        self.angles = jnp.where(used, angles * circle, 0)
        self.scales = jnp.where(used & self._encoded(layers, wires), scales, 0)
        self.output_scales = (hp.output_scale & (jnp.arange(wires) < self.out_size)).astype(angles.dtype)

    @property
    def wires(self) -> Int[Array, ""]:
        """The number of wires that this lane uses."""
        return -(-self.in_size // ANGLES) * self.hp.stacks

    @property
    def out_cap(self) -> int:
        return self.angles.shape[1]

    @property
    def out_size(self) -> Int[Array, ""]:
        measured = jnp.minimum(self.hp.measured, self.wires)
        return jnp.where(measured > 0, measured, self.wires)

    def step_factors(self) -> PQC:
        factors = (self.hp.angle_lr_factor, self.hp.scale_lr_factor, jnp.ones(()))
        where = lambda net: (net.angles, net.scales, net.output_scales)  # noqa: E731
        full = [jnp.full_like(x, f) for x, f in zip(where(self), factors, strict=True)]
        return eqx.tree_at(where, self, full)

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        return _pqc(self, x)

    def apply(self, x: Float[Array, " in *batch"]) -> Float[Array, " out *batch"]:
        """The output for one observation, or for a batch of observations along the last axis."""
        batch = x if x.ndim == 2 else x[:, None]
        encoding, own = self.rotation_angles(batch)
        if self.backend == "pennylane":
            seen = pennylane_expectations(encoding, own, self.signs())
        else:
            seen = expectations(encoding, own, self.signs(), self.hp.layers)
        out = self.output_factors()[:, None] * seen
        return out if x.ndim == 2 else out[:, 0]

    def output_factors(self) -> Float[Array, " wires"]:
        """The factors by which the ⟨σz⟩ are multiplied; zero for wires that are not measured."""
        scale = jnp.where(self.hp.output_scale, self.output_scales, 1)
        return jnp.where(jnp.arange(self.out_cap) < self.out_size, scale, 0)

    def measured(self, how: Measurement, key: PRNGKeyArray) -> MeasuredPQC:
        return MeasuredPQC(self, how, key)

    def rotation_angles(
        self, x: Float[Array, "in batch"]
    ) -> tuple[Float[Array, "3 layers wires batch"], Float[Array, "3 layers wires 1"]]:
        """The angles of the first and of the second rotation in every layer, zero where there is none.

        The first rotation encodes the observations `x`, the second one is trained and the same for all of
        them. In the last layer both are merged into the first.
        """
        layers, wires = self.angles.shape[:2]
        blocks = -(-self.in_size // ANGLES)
        squashed = _squash(self.hp.squash, x)
        padded = jnp.pad(squashed, ((0, blocks * ANGLES - self.in_size), (0, 0)))
        stacked = jnp.tile(padded.reshape(blocks, ANGLES, -1), (wires // blocks, 1, 1))
        features = jnp.moveaxis(stacked, 1, 0)[:, None]
        used, encoded = self._used(layers, wires), self._encoded(layers, wires)
        scales, angles = (
            jnp.where(jnp.moveaxis(m, 2, 0), transposed(w, (2, 0, 1)), 0)[..., None]
            for m, w in ((used & encoded, self.scales), (used, self.angles))
        )
        last = (jnp.arange(layers) == self.hp.layers)[None, :, None, None]
        return features * scales + jnp.where(last, angles, 0), jnp.where(last, 0, angles)

    def draw(self) -> str:
        """The circuit as text, drawn by PennyLane; works for a single lane outside of traced code."""
        hp = self.hp
        return diagram(
            self.in_size,
            int(hp.stacks),
            int(hp.layers),
            ENTANGLERS[int(hp.entangler)],
            reupload=bool(hp.reupload),
            measured=int(hp.measured),
        )

    def signs(self) -> Float[Array, "2 amplitudes"]:
        """The signs by which the CZ gates after even and after odd layers multiply the amplitudes."""
        wires, chosen = self.out_cap, self.hp.chosen
        closed, cz = chosen("entangler", "cz_ring"), chosen("entangler", "cz")
        if surely(closed, False) and known(cz):
            return constant((_wall(wires) if cz else np.ones((2, 2**wires))).astype(self.angles.dtype))
        index = jnp.arange(2**wires, dtype=jnp.int32)
        both = index & (index >> 1)
        wall = jax.lax.population_count(both[None] & _pairs(wires))
        first, last = index >> (wires - 1), (index >> (wires - self.wires)) & 1
        ring = wall.sum(0)[None] + jnp.where(self.wires > 2, first & last, 0)[None]
        count = jnp.where(closed, ring, jnp.where(cz, wall, 0))
        return (1 - 2 * (count % 2)).astype(self.angles.dtype)

    def _used(self, layers: int, wires: int) -> Array:
        """Mask [layers, wires, 1] of the layers and wires that belong to this lane's circuit."""
        layer, wire = jnp.arange(layers)[:, None, None], jnp.arange(wires)[None, :, None]
        return (layer <= self.hp.layers) & (wire < self.wires)

    def _encoded(self, layers: int, wires: int) -> Array:
        """Mask [layers, wires, 3] of the rotation angles that encode a feature, rather than padding."""
        blocks = -(-self.in_size // ANGLES)
        feature = np.arange(ANGLES)[None] + ANGLES * (np.arange(wires) % blocks)[:, None]
        layer = self.hp.reupload | (jnp.arange(layers) == 0)
        return layer[:, None, None] & jnp.asarray(feature < self.in_size)[None]


def _pairs(wires: int) -> np.ndarray:
    """Masks [2, 1] of the pairs (0,1), (2,3) … and of the others: of each the bit of the second wire."""
    even = sum(1 << (wires - 2 - w) for w in range(0, wires - 1, 2))
    return np.array([[even], [~even]], np.int32)


@cache
def _wall(wires: int) -> np.ndarray:
    """The `signs` of CZ gates on pairs of neighbours, for programs that know their entangler."""
    index = np.arange(2**wires, dtype=np.int32)
    parity = (index & (index >> 1)) & _pairs(wires)
    for shift in (16, 8, 4, 2, 1):
        parity ^= parity >> shift
    return 1 - 2 * (parity & 1)


@final
class MeasuredPQC(AbstractNetwork):
    """A `PQC` that is measured with a finite number of shots or with noise.

    The outcomes are drawn with `key`, so equal observations give equal outputs.
    """

    hp: PQCHyperparams
    circuit: PQC
    key: PRNGKeyArray
    how: Measurement = eqx.field(static=True)
    batch_last: bool = eqx.field(static=True)

    def __init__(self, circuit: PQC, how: Measurement, key: PRNGKeyArray):
        self.hp = circuit.hp
        self.circuit = circuit
        self.key = key
        self.how = how
        self.batch_last = circuit.batch_last

    @property
    def out_cap(self) -> int:
        return self.circuit.out_cap

    @property
    def out_size(self) -> Int[Array, ""]:
        return self.circuit.out_size

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        encoding, own = (angles[..., 0] for angles in self.circuit.rotation_angles(x[:, None]))
        outcomes = probabilities(encoding, own, self.circuit.signs(), self.hp.layers, self.how.depolarizing)
        return self.circuit.output_factors() * z_means(outcomes, self.how.shots, key=self.key)


_pqc = batch_last(PQC.apply, "hyperlax_pqc")


def _uniform(key: PRNGKeyArray, layers: int, wires: int) -> Float[Array, "{layers} {wires} 3"]:
    """Uniform numbers in [0, 1), none of which depends on the numbers of layers and wires."""
    row = lambda k: jax.vmap(lambda k: jr.uniform(k, (ANGLES,)))(row_keys(k, wires))  # noqa: E731
    return jax.vmap(row)(row_keys(key, layers))


def _squash(kind: Int[Array, ""], x: Float[Array, "in batch"]) -> Float[Array, "in batch"]:
    return lane_switch(kind, {0: lambda x: x, 1: jnp.tanh, 2: arctan}, x)
