"""One-qubit gates, and the diagonals of σz, for batches of circuits whose last axis is the batch.

A rotation gate is special unitary and stored by two complex numbers, each as real and imaginary part. Wire 0
is the most significant bit of the amplitude index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hyperlax.networks.trigonometry import cos_and_sin

ROUNDING_TOLERANCE = 16.0
"""Derivatives below this many rounding errors (machine epsilon times the norm of the bra) count as zero."""
DENSE_Z_WIRES = 12
"""Largest number of wires for which the diagonals of all σz are stored as one matrix."""

Angles = Float[Array, "3 layers wires batch"]
Shared = Float[Array, "3 layers wires 1"]
States = Float[Array, "parts amplitudes batch"]
"""Real and imaginary parts of one state, or of several states in turn."""
Complex = tuple[Array, Array]
"""Real and imaginary part of a complex array."""
Bloch = tuple[Array, Array, Array]
"""Im⟨bra|σ|ket⟩ for σx, σy and σz of every wire after every layer, arrays [layers, wires, batch]."""


Turn = tuple[Array, Array]
"""Cosine and sine of an angle."""


class Gates(NamedTuple):
    """Special unitary 2 × 2 matrices [[a, -b*], [b, a*]], with real and imaginary parts stored separately."""

    a_re: Array
    a_im: Array
    b_re: Array
    b_im: Array


def times(x: Complex, y: Complex) -> Complex:
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]


def rotation(angles: Float[Array, "3 *any"]) -> Gates:
    """The gates Rot(φ, θ, ω) = RZ(ω) RY(θ) RZ(φ), where the first axis of `angles` holds (φ, θ, ω)."""
    first, middle, last = (angles[i] / 2 for i in range(3))
    cos, sin = cos_and_sin(middle)
    cos_plus, sin_plus = cos_and_sin(first + last)
    cos_minus, sin_minus = cos_and_sin(last - first)
    return Gates(cos * cos_plus, -cos * sin_plus, sin * cos_minus, sin * sin_minus)


def compose(first: Gates, second: Gates) -> Gates:
    """The gate that applies `first`, then `second`."""
    p, q, r, s = first
    t, u, v, w = second
    return Gates(
        t * p - u * q - v * r - w * s,
        t * q + u * p - v * s + w * r,
        v * p - w * q + t * r + u * s,
        v * q + w * p + t * s - u * r,
    )


def gates_of(first: Angles, second: Shared) -> Gates:
    """The product of both rotations of every layer, wire and circuit."""
    gates = compose(rotation(first), rotation(second))
    return Gates(*(jnp.broadcast_to(x, first.shape[1:]) for x in gates))


def bits(wires: int) -> np.ndarray:
    """The bit of every wire in the index of every amplitude, an array [wires, 2 ** wires]."""
    return (np.arange(2**wires)[None] >> np.arange(wires - 1, -1, -1)[:, None]) & 1


def sigma_z(wires: int, dtype: Any) -> Float[Array, "wires amplitudes"]:
    """The diagonal of the σz of every wire."""
    return jnp.asarray(1 - 2 * bits(wires), dtype)


def z_totals(x: Float[Array, "amplitudes batch"]) -> Float[Array, "wires batch"]:
    """The sum of x times the diagonal of σz over the amplitudes, for every wire."""
    wires = x.shape[0].bit_length() - 1
    if wires <= DENSE_Z_WIRES:
        return sigma_z(wires, x.dtype) @ x
    half = wires // 2
    halves = x.reshape(2**half, -1, x.shape[1])
    left, right = sigma_z(half, x.dtype), sigma_z(wires - half, x.dtype)
    return jnp.concatenate([left @ halves.sum(1), right @ halves.sum(0)])


def z_observable(weights: Float[Array, "wires batch"]) -> Float[Array, "amplitudes batch"]:
    """The diagonal of the observable Σ `weights`[wire] σz[wire]."""
    wires, batch = weights.shape
    half = wires // 2
    left, right = sigma_z(half, weights.dtype).T, sigma_z(wires - half, weights.dtype).T
    return ((left @ weights[:half])[:, None] + (right @ weights[half:])[None]).reshape(-1, batch)


def within(depth: Int[Array, ""], elements: Bloch) -> Bloch:
    """`elements`, with zero for the layers beyond `depth`."""
    used = (jnp.arange(elements[0].shape[0], dtype=depth.dtype) <= depth)[:, None, None]
    x, y, z = (jnp.where(used, e, 0) for e in elements)
    return x, y, z


def angle_gradients(
    elements: Bloch,
    bra_squared: Float[Array, " batch"],
    first: Sequence[Turn],
    second: Sequence[Turn],
) -> tuple[Angles, Shared]:
    """The gradient by the angles of both rotations, from the matrix elements after every gate.

    `first` and `second` are the `turns` of the angles. The derivative by the angle φ of a gate
    exp(-i φ σ / 2) is Im⟨bra|σ|ket⟩, with both states taken after the gate. From after to before a gate, the
    elements of σx, σy and σz rotate like a Bloch vector.

    `bra_squared` is the squared norm of the bra. Derivatives of a circuit that cannot be distinguished from
    the rounding errors that it causes are zero.
    """
    x, y, z = elements
    gradients = []
    for turns in (second, first):
        by_last = z
        x, y = _rotate_pair(x, y, turns[2])
        by_middle = y
        z, x = _rotate_pair(z, x, turns[1])
        gradients.append(jnp.stack([z, by_middle, by_last]))
        x, y = _rotate_pair(x, y, turns[0])
    noise = ROUNDING_TOLERANCE * jnp.finfo(x.dtype).eps * jnp.sqrt(bra_squared)
    by_second, by_first = (jnp.where(jnp.abs(g) > noise[None, None, None], g, 0) for g in gradients)
    return by_first, jnp.sum(by_second, -1, keepdims=True)


def turns(angles: Float[Array, "3 *any"]) -> list[Turn]:
    """Cosine and sine of the three angles of rotations."""
    return [cos_and_sin(angle) for angle in angles]


def turns_at_once(angles: Float[Array, "3 *any"]) -> list[Turn]:
    """`turns` in a form that XLA computes in one kernel on an accelerator, for few angles."""
    both = jnp.stack([angles, angles])
    sines = jax.lax.broadcasted_iota(jnp.int32, both.shape, 0) == 1
    found = jnp.where(sines, jnp.sin(both), jnp.cos(both))
    return [(found[0, i], found[1, i]) for i in range(3)]


def _rotate_pair(a: Array, b: Array, turn: Turn) -> tuple[Array, Array]:
    """The coordinates (a, b) of a vector in a frame rotated by an angle."""
    cos, sin = turn
    return cos * a + sin * b, cos * b - sin * a
