"""Circuits measured as on hardware, with a finite number of shots and with noise, for evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Complex, Float, Int

from hyperlax.lanes.masking import lane_max
from hyperlax.networks.circuit import final_state
from hyperlax.networks.circuit_gates import rotation

SHOTS_PER_DRAW = 64
"""Number of shots drawn in one vectorised step."""
COMPLEX_BYTES = 8
_product = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
"""A product in single precision, also on accelerators, which by default round its factors to fewer bits."""


@dataclass(frozen=True)
class Measurement:
    """The way in which circuits are measured; the default is exact.

    - `shots`: how often each circuit is run; 0 gives exact expectations, as infinitely many shots would.
    - `depolarizing`: probability of a Pauli error (X, Y or Z, equally likely) on each wire after each layer.

    Raises `ValueError` for a negative number of shots and for a probability outside [0, 1].
    """

    shots: int = 0
    depolarizing: float = 0.0

    def __post_init__(self):
        if self.shots < 0:
            raise ValueError(f"shots must be at least 0 (exact), got {self.shots}")
        if not 0 <= self.depolarizing <= 1:
            raise ValueError(f"depolarizing must be a probability between 0 and 1, got {self.depolarizing}")

    @property
    def exact(self) -> bool:
        """Whether circuits are measured without noise and with infinitely many shots."""
        return self.shots == 0 and self.depolarizing == 0

    def bytes(self, wires: int) -> int:
        """Bytes for the state of one circuit (with noise, its density matrix) and as much for temporaries."""
        return 2 * COMPLEX_BYTES * (4**wires if self.depolarizing else 2**wires)


EXACT = Measurement()


def probabilities(
    first: Float[Array, "3 layers wires"],
    second: Float[Array, "3 layers wires"],
    signs: Float[Array, "2 amplitudes"],
    depth: Int[Array, ""],
    depolarizing: float,
) -> Float[Array, " amplitudes"]:
    """The probability of every outcome of one circuit, with noise on every wire after every layer.

    `first`, `second`, `signs` and `depth` describe the circuit as in `circuit.expectations`. `depolarizing`
    is the probability p of the noise ρ → (1 - p) ρ + p/3 (XρX + YρY + ZρZ), which equals
    (1 - 4p/3) ρ + 4p/3 (𝟙/2 ⊗ Tr_wire ρ) (Nielsen and Chuang 2010, section 8.3.4). With noise, the density
    matrix is simulated exactly, whose memory grows as 4 ^ wires.
    """
    if depolarizing == 0:
        states = final_state(first[..., None], second[..., None], signs, depth)
        return jnp.sum(states[..., 0] ** 2, 0)
    wires = first.shape[2]
    matrices = [_matrices(angles) for angles in (first, second)]
    gates = _product("lwij,lwjk->lwik", matrices[1], matrices[0])

    def layer(k: Array, rho: Complex[Array, "n n"]) -> Complex[Array, "n n"]:
        after = rho
        for w in range(wires):
            gate = jax.lax.dynamic_index_in_dim(gates, k, keepdims=False)[w]
            after = _gate_times(gate, after, w)
            after = _gate_times(gate.conj(), after.T, w).T
        sign = jnp.where(k < depth, signs[k % 2], 1).astype(rho.dtype)
        after = after * (sign[:, None] * sign[None])
        for w in range(wires):
            after = _depolarized(after, w, depolarizing)
        return jnp.where(k <= depth, after, rho)

    n = 2**wires
    start = jnp.zeros((n, n), jnp.complex64).at[0, 0].set(1)
    return jnp.diagonal(jax.lax.fori_loop(0, lane_max(depth) + 1, layer, start)).real


def _matrices(angles: Float[Array, "3 layers wires"]) -> Complex[Array, "layers wires 2 2"]:
    """The rotations Rot(φ, θ, ω) as complex matrices."""
    gates = rotation(angles)
    a, b = jax.lax.complex(gates.a_re, gates.a_im), jax.lax.complex(gates.b_re, gates.b_im)
    return jnp.stack([jnp.stack([a, -b.conj()], -1), jnp.stack([b, a.conj()], -1)], -2)


def _gate_times(
    gate: Complex[Array, "2 2"], matrix: Complex[Array, "n n"], wire: int
) -> Complex[Array, "n n"]:
    """The matrix product of `gate`, acting on `wire`, with `matrix`."""
    return _product("ij,ajb->aib", gate, matrix.reshape(2**wire, 2, -1)).reshape(matrix.shape)


def _depolarized(rho: Complex[Array, "n n"], wire: int, probability: float) -> Complex[Array, "n n"]:
    """The density matrix `rho` after depolarizing noise on `wire`."""
    rest = rho.shape[0] // 2 ** (wire + 1)
    split = rho.reshape(2**wire, 2, rest, 2**wire, 2, rest)
    traced = split[:, 0, :, :, 0] + split[:, 1, :, :, 1]
    mixed = jnp.zeros_like(split).at[:, 0, :, :, 0].set(traced / 2).at[:, 1, :, :, 1].set(traced / 2)
    share = 4 * probability / 3
    return ((1 - share) * split + share * mixed).reshape(rho.shape)


def z_means(weights: Float[Array, " amplitudes"], shots: int, *, key: Array) -> Float[Array, " wires"]:
    """⟨σz⟩ of every wire for outcomes with the probabilities `weights`.

    The values are exact for `shots` = 0 and otherwise the mean over that many random outcomes, in each of
    which all wires are read, as on hardware.
    """
    wires = weights.shape[0].bit_length() - 1
    places = jnp.arange(wires - 1, -1, -1)
    if shots == 0:
        bits = (jnp.arange(weights.shape[0])[:, None] >> places[None]) & 1
        return _product("a,aw->w", weights, (1 - 2 * bits).astype(weights.dtype))
    cumulative = jnp.cumsum(weights)

    def draw(i: Array, total: Float[Array, " wires"]) -> Float[Array, " wires"]:
        uniform = jr.uniform(jr.fold_in(key, i), (SHOTS_PER_DRAW,)) * cumulative[-1]
        outcome = jnp.minimum(jnp.searchsorted(cumulative, uniform, side="right"), weights.shape[0] - 1)
        bits = (outcome[:, None] >> places[None]) & 1
        wanted = (i * SHOTS_PER_DRAW + jnp.arange(SHOTS_PER_DRAW) < shots)[:, None]
        return total + jnp.sum(jnp.where(wanted, 1 - 2 * bits, 0), 0).astype(total.dtype)

    total = jax.lax.fori_loop(0, -(-shots // SHOTS_PER_DRAW), draw, jnp.zeros(wires, weights.dtype))
    return total / shots
