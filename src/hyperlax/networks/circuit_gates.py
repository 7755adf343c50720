"""One-qubit gates, and the diagonals of σz, for batches of circuits whose last axis is the batch.

A rotation gate is special unitary and stored by two complex numbers, each as real and imaginary part. Wire 0
is the most significant bit of the amplitude index.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

DENSE_Z_WIRES = 12
"""Largest number of wires for which the diagonals of all σz are stored as one matrix."""

Angles = Float[Array, "3 layers wires batch"]
Shared = Float[Array, "3 layers wires 1"]
States = Float[Array, "parts amplitudes batch"]
"""Real and imaginary parts of one state, or of several states in turn."""
Complex = tuple[Array, Array]
"""Real and imaginary part of a complex array."""


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
    cos, sin = jnp.cos(middle), jnp.sin(middle)
    plus, minus = first + last, last - first
    return Gates(cos * jnp.cos(plus), -cos * jnp.sin(plus), sin * jnp.cos(minus), sin * jnp.sin(minus))


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


def _sigma_z(wires: int, dtype: Any) -> Float[Array, "wires amplitudes"]:
    """The diagonal of the σz of every wire."""
    return jnp.asarray(1 - 2 * bits(wires), dtype)


def z_totals(x: Float[Array, "amplitudes batch"]) -> Float[Array, "wires batch"]:
    """The sum of x times the diagonal of σz over the amplitudes, for every wire."""
    wires = x.shape[0].bit_length() - 1
    if wires <= DENSE_Z_WIRES:
        return _sigma_z(wires, x.dtype) @ x
    half = wires // 2
    halves = x.reshape(2**half, -1, x.shape[1])
    left, right = _sigma_z(half, x.dtype), _sigma_z(wires - half, x.dtype)
    return jnp.concatenate([left @ halves.sum(1), right @ halves.sum(0)])


def z_observable(weights: Float[Array, "wires batch"]) -> Float[Array, "amplitudes batch"]:
    """The diagonal of the observable Σ `weights`[wire] σz[wire]."""
    wires, batch = weights.shape
    half = wires // 2
    left, right = _sigma_z(half, weights.dtype).T, _sigma_z(wires - half, weights.dtype).T
    return ((left @ weights[:half])[:, None] + (right @ weights[half:])[None]).reshape(-1, batch)


def angle_gradients(
    found: Float[Array, "layers 3 wires batch"], trail: Complex, first: Angles, second: Shared
) -> tuple[Angles, Angles]:
    """The gradient by `first` and by `second`, from the matrix elements `found` of `measure_and_unrotate`.

    The derivative by the angle φ of a gate exp(-i φ σ / 2) is Im⟨bra|σ|ket⟩, with both states taken after the
    gate. From after to before a gate, the elements of σx, σy and σz rotate like a Bloch vector.
    """
    d = times((found[:, 1], found[:, 2]), trail)
    x, y, z = d[1], -d[0], found[:, 0]
    gradients = []
    for angles in (second, first):
        by_last = z
        x, y = _rotate_pair(x, y, angles[2])
        by_middle = y
        z, x = _rotate_pair(z, x, angles[1])
        gradients.append(jnp.stack([z, by_middle, by_last]))
        x, y = _rotate_pair(x, y, angles[0])
    return gradients[1], gradients[0]


def _rotate_pair(a: Array, b: Array, angle: Array) -> tuple[Array, Array]:
    """The coordinates (a, b) of a vector in a frame rotated by `angle`."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return cos * a + sin * b, cos * b - sin * a
