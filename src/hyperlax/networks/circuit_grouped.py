"""Circuits simulated in few kernels by XLA, for accelerators, where a kernel costs more than its arithmetic.

The rotations of a wire are combined into one complex 2 × 2 matrix for all layers at once, outside the loop
over the layers. A rotation is written without slices, as products with the state and with the state whose
wire is flipped, so that XLA puts the signs of CZ gates and the rotations of neighbouring wires into one
kernel: two or three kernels for a layer of six wires, and five to undo and measure it. All layers that are
allocated are simulated, so that the trip count of the loop is known; those beyond the depth of a lane are the
identity up to signs that no ⟨σz⟩ depends on.
"""

from __future__ import annotations

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


def forward(
    first: Angles, second: Shared, signs: Float[Array, "2 amplitudes"]
) -> tuple[Float[Array, "wires batch"], States]:
    """⟨σz⟩ of every wire, and the states for `backward`."""
    matrices = _matrices(gates_of(first, second))

    def layer(state: Complex[Array, "amplitudes batch"], now: tuple[Array, Array]) -> tuple[Array, None]:
        gates, sign = now
        return _rotated(state * sign[:, None], gates), None

    start = jnp.zeros((signs.shape[1], first.shape[-1]), matrices.dtype).at[0].set(1)
    state, _ = jax.lax.scan(layer, start, (matrices, _signs_before(signs, len(matrices))))
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
    a_re, a_im, b_re, b_im = gates_of(first, second)
    inverse = _matrices(Gates(a_re, -a_im, -b_re, -b_im))
    sigma = sigma_z(cotangent.shape[0], cotangent.dtype)
    observable = jnp.sum(sigma[:, :, None] * cotangent[:, None], 0)
    ket = jax.lax.complex(states[0], states[1])
    bra = jax.lax.complex(states[0] * observable, states[1] * observable)

    def layer(both: Complex[Array, "2 amplitudes batch"], now: tuple[Array, Array]) -> tuple[Array, Array]:
        gates, sign = now
        return _rotated(both, gates) * sign[None, :, None], _elements(both)

    layers = (inverse, _signs_before(signs, len(inverse)))
    _, found = jax.lax.scan(layer, jnp.stack([ket, bra]), layers, reverse=True)
    squared = jnp.sum((states[0] ** 2 + states[1] ** 2) * observable**2, 0)
    elements = within(depth, (found[:, 0], found[:, 1], found[:, 2]))
    return angle_gradients(elements, squared, turns(first), turns_at_once(second))


def _matrices(gates: Gates) -> Complex[Array, "layers wires 2 2 batch"]:
    """The gates by [layer, wire, whether the bit flips, bit afterwards]: diagonals and other elements."""
    a, b = jax.lax.complex(gates.a_re, gates.a_im), jax.lax.complex(gates.b_re, gates.b_im)
    return jnp.stack([jnp.stack([a, jnp.conj(a)], 2), jnp.stack([-jnp.conj(b), b], 2)], 2)


def _signs_before(signs: Float[Array, "2 amplitudes"], layers: int) -> Complex[Array, "layers amplitudes"]:
    """The signs of the CZ gates before every layer; before the first one they change nothing."""
    before = signs[(np.arange(layers) - 1) % 2]
    return jax.lax.complex(before, jnp.zeros_like(before))


def _rotated(
    state: Complex[Array, "*states amplitudes batch"], gates: Complex[Array, "wires 2 2 batch"]
) -> Complex[Array, "*states amplitudes batch"]:
    """`state` after the rotations of all wires in one layer."""
    wires, _, _, batch = gates.shape
    *states, _, _ = state.shape
    x = state.reshape(*states, *(2,) * wires, batch)
    for w in range(wires):
        axis = len(states) + w
        shape = [2 if i == axis else 1 for i in range(x.ndim - 1)] + [batch]
        stay, cross = (g.reshape(shape) for g in gates[w])
        x = stay * x + cross * jnp.flip(x, axis)
    return x.reshape(state.shape)


def _elements(both: Complex[Array, "2 amplitudes batch"]) -> Float[Array, "3 wires batch"]:
    """Im⟨bra|σ|ket⟩ for σx, σy and σz of every wire, from ket and bra, as a single sum over the amplitudes.

    σx and σy lead from each amplitude to the one whose index differs in the bit of the wire, σz to itself.
    """
    ket, bra = both
    amplitudes, batch = ket.shape
    wires = amplitudes.bit_length() - 1
    own = np.broadcast_to(np.arange(amplitudes), (wires, amplitudes))
    flipped = own ^ (1 << np.arange(wires - 1, -1, -1))[:, None]
    partner = ket.at[np.concatenate([flipped, flipped, own])].get(mode="promise_in_bounds")
    products = jnp.conj(bra)[None] * partner
    sigma = sigma_z(wires, both.real.dtype)
    one, zero = jnp.ones_like(sigma), jnp.zeros_like(sigma)
    by_im, by_re = (jnp.concatenate(x)[..., None] for x in ((one, zero, sigma), (zero, -sigma, zero)))
    found = jnp.sum(by_im * jnp.imag(products) + by_re * jnp.real(products), 1)
    return found.reshape(3, wires, batch)


def _z_sums(x: Float[Array, "amplitudes batch"]) -> Float[Array, "wires batch"]:
    """`z_totals` without a matrix product, which accelerators may compute in less than single precision."""
    return jnp.sum(sigma_z(x.shape[0].bit_length() - 1, x.dtype)[:, :, None] * x[None], 1)
