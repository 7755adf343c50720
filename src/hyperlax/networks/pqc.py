"""Data re-uploading quantum circuit whose depth, width, entangler and encoding may differ between lanes."""

from __future__ import annotations

from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int

from hyperlax.hyperparams import Count, Flag, Real, hp
from hyperlax.hyperparams.spaces import Choice
from hyperlax.lanes.masking import row_keys
from hyperlax.lanes.sizes import Extent, Shape, Sizes
from hyperlax.networks.base import AbstractNetwork, AbstractNetworkHyperparams
from hyperlax.networks.circuit import expectations
from hyperlax.networks.drawing import svg
from hyperlax.networks.layout import batch_last
from hyperlax.networks.measurement import Measurement, probabilities, z_means
from hyperlax.networks.pennylane import ANGLES, diagram
from hyperlax.networks.pennylane import expectations as pennylane_expectations

BACKENDS = ("native", "pennylane")
ENTANGLERS = ("none", "cz", "cz_ring")
LARGEST_CIRCUIT = 26
"""Qubits whose states can be indexed and held at all; memory usually ends before."""


def qubits(in_size: int, stacks: int) -> int:
    """Wires that encode `in_size` features, three to a wire, `stacks` times over."""
    return -(-in_size // ANGLES) * stacks


@final
class PQCHyperparams(AbstractNetworkHyperparams):
    """Architecture of a `PQC`."""

    layers: Count = hp(5, Choice(5, 10, 15), doc="encoding and trainable layers before the last one")
    stacks: Count = hp(1, Choice(1, 2, 3), doc="copies of the encoding wires")
    entangler: Count = hp(
        "cz",
        labels=ENTANGLERS,
        doc="no entanglement; CZ in a brick wall; CZ all around a ring",
    )
    squash: Count = hp("none", labels=("none", "tanh", "arctan"), doc="what features pass before encoding")
    reupload: Flag = hp(True, doc="encode the features in every layer, or in the first alone")
    measured: Count = hp(0, doc="wires whose σz is the output, from the first; 0: all", least=0)
    output_scale: Flag = hp(False, doc="train a factor on every output")
    initial_angles: Count = hp("unit", labels=("unit", "circle"), doc="angles start in [0, 1) or [0, 2π)")
    backend: Count = hp("native", labels=BACKENDS, doc="who simulates: this package, or PennyLane")
    angle_lr_factor: Real = hp(1.0, doc="step size of the angles, relative to the network's")
    scale_lr_factor: Real = hp(1.0, doc="step size of the input scales, relative to the network's")

    def sizes(self) -> dict[str, Any]:
        return {
            "layers": Extent(self.layers),
            "stacks": Extent(self.stacks),
            "backend": Shape(self.label("backend")),
        }

    def network(self, in_size: int, caps: Sizes, *, key: Any) -> PQC:
        return PQC(self, in_size, caps, key=key)

    def parameter_count(self, in_size: int) -> int:
        wires = qubits(in_size, int(self.stacks))
        encoding = (int(self.layers) + 1) if self.reupload else 1
        trained = ANGLES * wires * (int(self.layers) + 1)
        scales = encoding * in_size * int(self.stacks)
        return trained + scales + self._outputs(wires) * bool(self.output_scale)

    def rotations(self, in_size: int) -> int:
        """One-qubit rotations of the circuit; encoding and trained angles of the last layer are one."""
        layers, wires = int(self.layers), qubits(in_size, int(self.stacks))
        encoding = layers if self.reupload else min(layers, 1)
        return wires * (encoding + layers + 1)

    def executions(self, in_size: int) -> tuple[int, int]:
        """By the parameter-shift rule: two circuits per rotation angle and one for the value.

        Schuld et al. 2019, "Evaluating analytic gradients on quantum hardware".
        """
        return 1, 2 * ANGLES * self.rotations(in_size) + 1

    def _outputs(self, wires: int) -> int:
        return min(int(self.measured), wires) or wires

    @classmethod
    def flops(cls, in_size: int, sizes: Sizes) -> float:
        wires, layers = qubits(in_size, sizes["stacks"]), sizes["layers"] + 1
        return layers * wires * (60.0 * 2.0 ** min(wires, 60) + 4000.0)

    @classmethod
    def weights(cls, in_size: int, sizes: Sizes) -> int:
        return 2 * ANGLES * qubits(in_size, sizes["stacks"]) * (sizes["layers"] + 1)

    @staticmethod
    def quick() -> dict[str, Any]:
        return {"layers": 2, "stacks": 1}

    def out(self, in_size: int) -> int:
        return self._outputs(qubits(in_size, int(self.stacks)))

    def picture(self, in_size: int, title: str = "") -> str:
        """This sample's circuit as an SVG document."""
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
        needed = state_bytes(wires)
        if wires <= LARGEST_CIRCUIT and needed <= memory:
            return None
        fits = max((w for w in range(1, LARGEST_CIRCUIT + 1) if state_bytes(w) <= memory), default=0)
        return (
            f"{in_size} features on {int(self.stacks)} stacks are {wires} qubits: {_size(needed)} for one "
            f"gradient of one observation, {_size(memory)} are there; {fits} qubits fit"
        )

    def measurement_refusal(self, in_size: int, how: Measurement, memory: int) -> str | None:
        wires = qubits(in_size, int(self.stacks))
        needed = how.bytes(wires)
        if needed <= memory:
            return None
        state = "a density matrix" if how.depolarizing else "a state"
        return f"measuring {wires} qubits takes {state} of {_size(needed)}, {_size(memory)} are there"


def state_bytes(wires: int) -> int:
    """Memory of one observation's gradient: two complex states, and as much again in passing."""
    return 4 * 8 * 2**wires


def _size(count: int) -> str:
    return f"{count / 2**30:.3g} GiB" if count < 2**60 else f"2^{count.bit_length() - 31} GiB"


@final
class PQC(AbstractNetwork):
    """Data re-uploading circuit (Pérez-Salinas et al. 2020) of one-qubit rotations and CZ gates.

    With q = ⌈features / 3⌉ wires per stack, x padded with zeros and f = w mod q:

        for l = 0 … L - 1, on every wire w:  Rot(x[3f:3f+3] ∘ scales[l, w]), then Rot(angles[l, w])
                            then CZ gates:   cz: (0,1), (2,3) … for even l, (1,2), (3,4) … for odd l
        on every wire w:                     Rot(x[3f:3f+3] ∘ scales[L, w] + angles[L, w])

    Rot(a, b, c) = RZ(c) RY(b) RZ(a). The output is ⟨σz⟩ of every measured wire.

    Layers past this lane's own are the identity, and wires past its own stay in |0⟩: what it computes does
    not depend on what is allocated. `entangler`: `cz_ring` applies CZ to all neighbours after every layer,
    first and last wire included (Skolik et al. 2022).
    """

    hp: PQCHyperparams
    angles: Float[Array, "layers wires 3"]
    scales: Float[Array, "layers wires 3"]
    output_scales: Float[Array, " wires"]
    in_size: int = eqx.field(static=True)
    backend: str = eqx.field(static=True)
    batch_last: bool = eqx.field(static=True)

    def __init__(self, hp: PQCHyperparams, in_size: int, caps: Sizes, *, key: Any):
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
        self.output_scales = jnp.where(hp.output_scale & (jnp.arange(wires) < self.out_size), 1.0, 0.0)

    @property
    def wires(self) -> Int[Array, ""]:
        """Wires this lane uses."""
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
        """The same for one vector, or for a batch along the last axis."""
        batch = x if x.ndim == 2 else x[:, None]
        encoding, own = self.rotation_angles(batch)
        if self.backend == "pennylane":
            seen = pennylane_expectations(encoding, own, self.signs())
        else:
            seen = expectations(encoding, own, self.signs(), self.hp.layers)
        out = self.output_factors()[:, None] * seen
        return out if x.ndim == 2 else out[:, 0]

    def output_factors(self) -> Float[Array, " wires"]:
        """What the ⟨σz⟩ are multiplied by; zero for wires that are not measured."""
        scale = jnp.where(self.hp.output_scale, self.output_scales, 1)
        return jnp.where(jnp.arange(self.out_cap) < self.out_size, scale, 0)

    def measured(self, how: Measurement, key: Any) -> MeasuredPQC:
        return MeasuredPQC(self, how, key)

    def rotation_angles(
        self, x: Float[Array, "in batch"]
    ) -> tuple[Float[Array, "3 layers wires batch"], Float[Array, "3 layers wires 1"]]:
        """Angles of the first and the second rotation of every layer and wire, zero where there is none."""
        layers, wires = self.angles.shape[:2]
        blocks = -(-self.in_size // ANGLES)
        squashed = _squash(self.hp.squash, x)
        padded = jnp.pad(squashed, ((0, blocks * ANGLES - self.in_size), (0, 0)))
        stacked = jnp.tile(padded.reshape(blocks, ANGLES, -1), (wires // blocks, 1, 1))
        features = jnp.moveaxis(stacked, 1, 0)[:, None]
        used, encoded = self._used(layers, wires), self._encoded(layers, wires)
        scales, angles = (
            jnp.moveaxis(jnp.where(m, w, 0), 2, 0)[..., None]
            for m, w in ((used & encoded, self.scales), (used, self.angles))
        )
        last = (jnp.arange(layers) == self.hp.layers)[None, :, None, None]
        return features * scales + jnp.where(last, angles, 0), jnp.where(last, 0, angles)

    def draw(self) -> str:
        """The circuit as text, drawn by PennyLane; for a single lane, outside of traced code."""
        hp = self.hp
        return diagram(self.in_size, int(hp.stacks), int(hp.layers), ENTANGLERS[int(hp.entangler)])

    def signs(self) -> Float[Array, "2 amplitudes"]:
        """What the CZ gates after even and after odd layers multiply the amplitudes by."""
        wires = self.out_cap
        index = jnp.arange(2**wires, dtype=jnp.int32)
        both = index & (index >> 1)
        even = sum(1 << (wires - 2 - w) for w in range(0, wires - 1, 2))
        wall = jax.lax.population_count(both[None] & np.array([[even], [~even]], np.int32))
        first, last = index >> (wires - 1), (index >> (wires - self.wires)) & 1
        ring = wall.sum(0)[None] + jnp.where(self.wires > 2, first & last, 0)[None]
        count = jnp.where(
            self.hp.chosen("entangler", "cz_ring"),
            ring,
            jnp.where(self.hp.chosen("entangler", "cz"), wall, 0),
        )
        return (1 - 2 * (count % 2)).astype(self.angles.dtype)

    def _used(self, layers: int, wires: int) -> Array:
        """[layers, wires, 1]: what belongs to this lane's circuit."""
        layer, wire = jnp.arange(layers)[:, None, None], jnp.arange(wires)[None, :, None]
        return (layer <= self.hp.layers) & (wire < self.wires)

    def _encoded(self, layers: int, wires: int) -> Array:
        """[layers, wires, 3]: where a feature enters; the features' padding is not trained."""
        blocks = -(-self.in_size // ANGLES)
        feature = np.arange(ANGLES)[None] + ANGLES * (np.arange(wires) % blocks)[:, None]
        layer = self.hp.reupload | (jnp.arange(layers) == 0)
        return layer[:, None, None] & jnp.asarray(feature < self.in_size)[None]


@final
class MeasuredPQC(AbstractNetwork):
    """A `PQC` measured with finite shots or noise; the same at every call with the same key."""

    hp: PQCHyperparams
    circuit: PQC
    key: Any
    how: Measurement = eqx.field(static=True)
    batch_last: bool = eqx.field(static=True)

    def __init__(self, circuit: PQC, how: Measurement, key: Any):
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


def _uniform(key: Any, layers: int, wires: int) -> Float[Array, "{layers} {wires} 3"]:
    """U[0, 1), of which no number depends on how many there are."""
    row = lambda k: jax.vmap(lambda k: jr.uniform(k, (ANGLES,)))(row_keys(k, wires))  # noqa: E731
    return jax.vmap(row)(row_keys(key, layers))


def _squash(kind: Int[Array, ""], x: Float[Array, "in batch"]) -> Float[Array, "in batch"]:
    return jax.lax.switch(kind, (lambda x: x, jnp.tanh, jnp.arctan), x)
