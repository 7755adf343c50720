"""Circuits simulated wire by wire in loops with small bodies, which is fastest on a CPU.

- A one-qubit gate is decomposed into phase · real rotation · phase. Phases and CZ gates are diagonal, so all
  of them in a layer are one multiplication of the state. The remaining rotations are real, which halves the
  arithmetic of complex ones.
- A batch of circuits lies along the last axis, so that operations run over contiguous memory.
- The rotation of a wire moves its bit from the front of the amplitude index to the back, so that each wire is
  at the front when it is its turn. Wires and layers are therefore loops with one body, which is traced and
  compiled once, at the same cost for any depth and nearly the same for any width.
- Large batches are simulated in blocks that fit into the cache of a core.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hyperlax.networks.circuit_gates import (
    Angles,
    Complex,
    Gates,
    Shared,
    States,
    angle_gradients,
    bits,
    gates_of,
    times,
    turns,
    z_observable,
    z_totals,
)

T = TypeVar("T")
X = TypeVar("X")

BLOCK_AMPLITUDES = 2**17
"""Amplitudes per block; real and imaginary parts of two states then take two megabytes in float32."""
MIN_BLOCK = 32
"""Least number of circuits in a block; shorter loops are not vectorised."""


def forward(
    first: Angles, second: Shared, signs: Float[Array, "2 amplitudes"], steps: Int[Array, ""]
) -> tuple[Float[Array, "wires batch"], States, Decomposition]:
    """⟨σz⟩ of every wire, and states and gates for `backward`, of circuits whose last layer is `steps`."""
    batch = first.shape[-1]
    block = _block(first)
    if batch <= block:
        return _forward(first, second, signs, steps)
    blocks = jax.lax.map(lambda x: _forward(x, second, signs, steps), _split(first, block))
    return jax.tree.map(lambda x: _merged(x, batch), blocks)


def backward(
    first: Angles,
    second: Shared,
    signs: Float[Array, "2 amplitudes"],
    steps: Int[Array, ""],
    states: States,
    gates: Decomposition,
    cotangent: Float[Array, "wires batch"],
) -> tuple[Angles, Shared]:
    """The gradient by `first` and `second`, from the results of `forward` and the cotangent of its ⟨σz⟩."""
    batch = first.shape[-1]
    block = _block(first)
    if batch <= block:
        return _backward(first, second, signs, steps, states, gates, cotangent)

    def add(by_second: Shared, xs: Any) -> tuple[Shared, Angles]:
        angles, *kept = xs
        by_first, more = _backward(angles, second, signs, steps, *kept)
        return by_second + more, by_first

    blocks = jax.tree.map(lambda x: _split(x, block), (first, states, gates, cotangent))
    by_second, by_first = jax.lax.scan(add, jnp.zeros_like(second), blocks, reverse=True)
    return _merged(by_first, batch), by_second


def _block(first: Angles) -> int:
    """The number of circuits that are simulated at once."""
    return max(MIN_BLOCK, BLOCK_AMPLITUDES >> first.shape[2])


def _split(x: Float[Array, "*rest batch"], block: int) -> Float[Array, "blocks *rest {block}"]:
    """Blocks of `block` circuits, the last one padded with zeros."""
    *rest, batch = x.shape
    blocks = -(-batch // block)
    padded = jnp.pad(x, [(0, 0)] * len(rest) + [(0, blocks * block - batch)])
    return jnp.moveaxis(padded.reshape(*rest, blocks, block), -2, 0)


def _merged(blocks: Float[Array, "blocks *rest block"], batch: int) -> Float[Array, "*rest {batch}"]:
    """Undo `_split`."""
    x = jnp.moveaxis(blocks, 0, -2)
    return x.reshape(*x.shape[:-2], -1)[..., :batch]


def _forward(first: Angles, second: Shared, signs: Array, steps: Any) -> tuple[Array, States, Decomposition]:
    gates = decompose(gates_of(first, second))
    states = final_without_phases(gates, signs, steps)
    return z_totals(states[0] ** 2 + states[1] ** 2), states, gates


def _backward(
    first: Angles,
    second: Shared,
    signs: Array,
    steps: Any,
    ket: States,
    gates: Decomposition,
    cotangent: Array,
) -> tuple[Angles, Shared]:
    layers = _layers(gates, back=True)
    bra = ket * z_observable(cotangent)[None]
    found = jnp.zeros((gates.cos.shape[0], 3, *cotangent.shape), ket.dtype)

    def layer(k: Any, now: tuple[Layer, Array], carry: tuple) -> tuple:
        states, found = carry
        states, measured = _measure_and_unrotate(states, now[0].rotations)
        found = jax.lax.dynamic_update_index_in_dim(found, measured, steps - k, 0)
        return _apply_phases(states, *now), found

    carry = (jnp.concatenate([ket, bra]), found)
    _, found = _each_layer(steps + 1, lambda k: jnp.maximum(steps - k, 0), layers, signs, layer, carry)
    d = times((found[:, 1], found[:, 2]), gates.trail)
    return angle_gradients((d[1], -d[0], found[:, 0]), jnp.sum(bra**2, (0, 1)), turns(first), turns(second))


class Layer(NamedTuple):
    """The operations of one layer on the amplitudes, or of all layers with an additional leading axis.

    - `rotations`: the real rotation of every wire, indexed by [wire, bit before, bit after].
    - `left`, `right`: the phases to apply before the rotations, as real and imaginary parts. They are
      products of two factors, one over the bits of the first half of the wires and one over those of the
      second half, and include the phases left over from the layer before.
    - `right_times_i`: `right` times i.
    """

    rotations: Float[Array, "*layers wires 2 2 batch"]
    left: Float[Array, "*layers 2 left batch"]
    right: Float[Array, "*layers 2 right batch"]
    right_times_i: Float[Array, "*layers 2 right batch"]


def _polar(re: Array, im: Array) -> tuple[Array, Complex]:
    """Modulus and phase factor of complex numbers; the phase factor of zero is one."""
    modulus = jnp.sqrt(re * re + im * im)
    safe = jnp.where(modulus > 0, modulus, 1)
    return modulus, (jnp.where(modulus > 0, re / safe, 1), jnp.where(modulus > 0, im / safe, 0))


class Decomposition(NamedTuple):
    """Gates up to a global phase, as diag(1, trail) · [[cos, -sin], [sin, cos]] · diag(1, lead)."""

    cos: Float[Array, "layers wires batch"]
    sin: Float[Array, "layers wires batch"]
    lead: Complex
    trail: Complex


def decompose(gates: Gates) -> Decomposition:
    """Decompose gates of shape [layers, wires, batch] into phases and real rotations."""
    cos, u = _polar(gates.a_re, gates.a_im)
    sin, v = _polar(gates.b_re, gates.b_im)
    lead = times(u, v)
    return Decomposition(cos, sin, (lead[0], -lead[1]), times((u[0], -u[1]), v))


def bit_products(phase: Complex) -> Float[Array, "2 layers amplitudes batch"]:
    """For each amplitude, the product of `phase` [layers, wires, batch] over the wires whose bit is set."""
    layers, wires, batch = phase[0].shape
    bit = bits(wires).astype(phase[0].dtype)[:, None, :, None]
    out = (jnp.ones((), bit.dtype), jnp.zeros((), bit.dtype))
    for i in range(wires):
        re, im = phase[0][:, i][:, None], phase[1][:, i][:, None]
        out = times(out, (1 + bit[i] * (re - 1), bit[i] * im))
    shape = (layers, 2**wires, batch)
    return jnp.stack([jnp.broadcast_to(part, shape) for part in out])


def _layers(gates: Decomposition, back: bool) -> Layer:
    """All layers of a circuit; with `back`, their rotations inverted and their phases conjugated."""
    none = (jnp.ones_like(gates.cos[:1]), jnp.zeros_like(gates.cos[:1]))
    before = tuple(jnp.concatenate([n, t[:-1]]) for n, t in zip(none, gates.trail, strict=True))
    re, im = times(gates.lead, (before[0], before[1]))
    sin = gates.sin
    if back:
        im, sin = -im, -sin
    half = (re.shape[1] + 1) // 2
    left, right = bit_products((re[:, :half], im[:, :half])), bit_products((re[:, half:], im[:, half:]))
    rotations = jnp.stack([jnp.stack([gates.cos, sin], 2), jnp.stack([-sin, gates.cos], 2)], 2)
    right_times_i = jnp.stack([-right[1], right[0]])
    return Layer(rotations, *(jnp.moveaxis(x, 0, 1) for x in (left, right, right_times_i)))


def _loop_with_prefetch(
    steps: Any, index: Callable[[Any], Any], xs: X, body: Callable[[Any, X, T], T], carry: T
) -> T:
    """Compute `for k in range(steps): carry = body(k, xs[index(k)], carry)`.

    The operand of each step is fetched in the step before, because dynamic indexing inside the loops over
    amplitudes would keep the compiler from vectorising them.
    """

    def fetch(k: Any) -> X:
        return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, index(k), keepdims=False), xs)

    def step(k: Any, held: tuple[T, X]) -> tuple[T, X]:
        return body(k, held[1], held[0]), fetch(k + 1)

    return jax.lax.fori_loop(0, steps, step, (carry, fetch(0)))[0]


def _rotate_front_wire(states: States, rotation: Float[Array, "2 2 batch"]) -> States:
    """Rotate the wire at the front of the amplitude index, and move it to the back."""
    parts, amplitudes, batch = states.shape
    split = states.reshape(parts, 2, amplitudes // 2, 1, batch)
    rotated = rotation[0][None, None] * split[:, 0] + rotation[1][None, None] * split[:, 1]
    return rotated.reshape(states.shape)


def _apply_phases(states: States, layer: Layer, sign: Float[Array, " amplitudes"]) -> States:
    """Multiply `states` by the phases of `layer` and by `sign`, the CZ gates before it."""
    (a_re, a_im), b, ib = layer.left[:, None, :, None], layer.right[:, None], layer.right_times_i[:, None]
    x = states.reshape(-1, 2, a_re.shape[1], b.shape[2], states.shape[-1])
    signs = sign.reshape(1, a_re.shape[1], b.shape[2], 1)
    re = (a_re * b + a_im * ib) * signs
    im = (a_re * ib - a_im * b) * signs
    return (x[:, :1] * re[None] + x[:, 1:] * im[None]).reshape(states.shape)


def final_without_phases(
    gates: Decomposition, signs: Float[Array, "2 amplitudes"], steps: Int[Array, ""]
) -> States:
    """The final state without the phases of the last layer, which do not change the expectation of any σz."""
    layers, (_, wires, batch) = _layers(gates, back=False), gates.cos.shape
    zeros = jnp.zeros((2, 2**wires, batch), gates.cos.dtype)
    start = _rotate_wires(zeros.at[0, 0].set(1), layers.rotations[0])

    def layer(k: Any, now: tuple[Layer, Array], states: States) -> States:
        return _rotate_wires(_apply_phases(states, *now), now[0].rotations)

    return _each_layer(steps, lambda k: k + 1, layers, signs, layer, start)


def _each_layer(
    steps: Any, index: Callable[[Any], Any], layers: Layer, signs: Array, body: Callable, carry: T
) -> T:
    """Loop `body` over the layers, each paired with the signs of the CZ gates before it."""
    number = layers.rotations.shape[0]
    before = signs[(np.arange(number) - 1) % 2]
    return _loop_with_prefetch(steps, index, (layers, before), body, carry)


def _rotate_wires(states: States, rotations: Float[Array, "wires 2 2 batch"]) -> States:
    """Rotate every wire of `states`."""
    wires = rotations.shape[0]
    rotate = lambda w, now, x: _rotate_front_wire(x, now)  # noqa: E731
    return _loop_with_prefetch(wires, lambda w: w % wires, rotations, rotate, states)


def _measure_and_unrotate(
    states: Float[Array, "4 amplitudes batch"], rotations: Float[Array, "wires 2 2 batch"]
) -> tuple[States, Float[Array, "3 wires batch"]]:
    """Undo the rotations of a layer in ket and bra, and return the matrix elements for their derivatives.

    For each wire these are Im⟨bra|σz|ket⟩ and the real and imaginary part of d = Σ bra₀* ket₁ - bra₁ ket₀*,
    where the index is the bit of the wire: Im⟨bra|σx|ket⟩ = Im d and Im⟨bra|σy|ket⟩ = -Re d.
    """
    (amplitudes, batch), wires = states.shape[1:], rotations.shape[0]
    ket_re, ket_im, bra_re, bra_im = states
    z = z_totals(bra_re * ket_im - bra_im * ket_re)
    ones = jnp.ones((1, amplitudes // 2), states.dtype)

    def wire(w: Any, now: Array, carry: tuple) -> tuple:
        states, found = carry
        k_re, k_im, l_re, l_im = states.reshape(4, 2, amplitudes // 2, batch)
        re = l_re[0] * k_re[1] + l_im[0] * k_im[1] - l_re[1] * k_re[0] - l_im[1] * k_im[0]
        im = l_re[0] * k_im[1] - l_im[0] * k_re[1] - l_im[1] * k_re[0] + l_re[1] * k_im[0]
        d = jnp.concatenate([ones @ re, ones @ im])
        return _rotate_front_wire(states, now), jax.lax.dynamic_update_index_in_dim(found, d, w, 1)

    carry = (states, jnp.zeros((2, wires, batch), states.dtype))
    states, d = _loop_with_prefetch(wires, lambda w: w % wires, rotations, wire, carry)
    return states, jnp.concatenate([z[None], d])
