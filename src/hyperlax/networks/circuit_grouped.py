"""Circuits simulated in few kernels by XLA, for accelerators, where a kernel costs more than its arithmetic.

The rotations of a wire are combined into one complex 2 × 2 matrix for all layers at once, outside the loop
over the layers. A rotation is written without slices, as products with the state and with the state whose
wire is flipped, so that XLA puts the signs of CZ gates and the rotations of neighbouring wires into one
kernel: two or three kernels for a layer of six wires, and five to undo and measure it. All layers that are
allocated are simulated, so that the trip count of the loop is known; those beyond the depth of a lane are the
identity up to signs that no ⟨σz⟩ depends on.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from hyperlax.networks.circuit_gates import (
    Angles,
    Gates,
    Shared,
    States,
    angle_gradients,
    gates_of,
    sigma_z,
    turns,
    turns_at_once,
    within,
)

Operands = tuple[Complex[Array, "layers wires 2 batch"], Complex[Array, "layers wires 2 batch"]]
"""The diagonals of all gates, and their other elements: those that lead to |0⟩ and to |1⟩."""


def forward(
    first: Angles, second: Shared, signs: Float[Array, "2 amplitudes"]
) -> tuple[Float[Array, "wires batch"], States]:
    """⟨σz⟩ of every wire, and the states for `backward`."""
    stay, cross = _operands(gates_of(first, second))
    wires, batch = stay.shape[1], stay.shape[-1]
    before = _signs_before(signs, len(stay))

    def layer(l: Any, state: Complex[Array, "amplitudes batch"]) -> Complex[Array, "amplitudes batch"]:
        now, sign = _at((stay, cross), l), _at(before, l)
        return _rotated(state * sign[:, None], now)

    start = jnp.zeros((2**wires, batch), stay.dtype).at[0].set(1)
    state = jax.lax.fori_loop(0, len(stay), layer, start)
    re, im = jnp.real(state), jnp.imag(state)
    return _z_sums(re**2 + im**2), jnp.stack([re, im])


def backward(
    first: Angles,
    second: Shared,
    signs: Float[Array, "2 amplitudes"],
    depth: Int[Array, ""],
    states: States,
    cotangent: Float[Array, "wires batch"],
) -> tuple[Angles, Shared]:
    """The gradient by `first` and `second`, from the states of `forward` and the cotangent of its ⟨σz⟩."""
    stay, cross = _operands(gates_of(first, second))
    stay, cross = jnp.conj(stay), -cross
    layers, wires, _, batch = stay.shape
    before = _signs_before(signs, layers)
    sigma = sigma_z(wires, cotangent.dtype)
    observable = jnp.sum(sigma[:, :, None] * cotangent[:, None], 0)
    ket = jax.lax.complex(states[0], states[1])
    bra = jax.lax.complex(states[0] * observable, states[1] * observable)

    def layer(k: Any, carry: tuple) -> tuple:
        both, found = carry
        l = layers - 1 - k
        now, sign = _at((stay, cross), l), _at(before, l)
        found = jax.lax.dynamic_update_index_in_dim(found, _elements(both), l, 0)
        return _rotated(both, now) * sign[None, :, None], found

    carry = (jnp.stack([ket, bra]), jnp.zeros((layers, 3, wires, batch), cotangent.dtype))
    _, found = jax.lax.fori_loop(0, layers, layer, carry)
    squared = jnp.sum((states[0] ** 2 + states[1] ** 2) * observable**2, 0)
    elements = within(depth, (found[:, 0], found[:, 1], found[:, 2]))
    return angle_gradients(elements, squared, turns(first), turns_at_once(second))


def _operands(gates: Gates) -> Operands:
    a, b = jax.lax.complex(gates.a_re, gates.a_im), jax.lax.complex(gates.b_re, gates.b_im)
    return jnp.stack([a, jnp.conj(a)], 2), jnp.stack([-jnp.conj(b), b], 2)


def _signs_before(signs: Float[Array, "2 amplitudes"], layers: int) -> Complex[Array, "layers amplitudes"]:
    """The signs of the CZ gates before every layer; before the first one they change nothing."""
    before = signs[(np.arange(layers) - 1) % 2]
    return jax.lax.complex(before, jnp.zeros_like(before))


def _at(xs: Any, index: Any) -> Any:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, index, keepdims=False), xs)


def _rotated(
    state: Complex[Array, "*states amplitudes batch"], now: Any
) -> Complex[Array, "*states amplitudes batch"]:
    """`state` after the rotations `now` of all wires in one layer."""
    stay, cross = now
    wires, _, batch = stay.shape
    *states, _, _ = state.shape
    x = state.reshape(*states, *(2,) * wires, batch)
    for w in range(wires):
        axis = len(states) + w
        shape = [2 if i == axis else 1 for i in range(x.ndim - 1)] + [batch]
        x = stay[w].reshape(shape) * x + cross[w].reshape(shape) * jnp.flip(x, axis)
    return x.reshape(state.shape)


def _elements(both: Complex[Array, "2 amplitudes batch"]) -> Float[Array, "3 wires batch"]:
    """Im⟨bra|σ|ket⟩ for σx, σy and σz of every wire, from ket and bra."""
    ket, bra = both
    amplitudes = ket.shape[0]
    wires = amplitudes.bit_length() - 1
    flipped = np.arange(amplitudes)[None] ^ (1 << np.arange(wires - 1, -1, -1))[:, None]
    crossed = jnp.conj(bra)[None] * ket.at[flipped].get(mode="promise_in_bounds")
    sigma = sigma_z(wires, crossed.real.dtype)[:, :, None]
    straight = jnp.imag(jnp.conj(bra) * ket)[None]
    parts = (jnp.imag(crossed), -jnp.real(crossed) * sigma, straight * sigma)
    return jnp.stack([jnp.sum(x, 1) for x in parts])


def _z_sums(x: Float[Array, "amplitudes batch"]) -> Float[Array, "wires batch"]:
    """`z_totals` without a matrix product, which accelerators may compute in less than single precision."""
    return jnp.sum(sigma_z(x.shape[0].bit_length() - 1, x.dtype)[:, :, None] * x[None], 1)
