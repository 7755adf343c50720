"""Exact simulation of layered circuits: one-qubit rotations on every wire, followed by controlled-Z gates.

The following makes it fast, especially on a CPU:

- A one-qubit gate is decomposed into phase · real rotation · phase. Phases and CZ gates are diagonal, so all
  of them in a layer are one multiplication of the state. The remaining rotations are real, which halves the
  arithmetic of complex ones.
- A batch of circuits lies along the last axis, so that operations run over contiguous memory.
- The rotation of a wire moves its bit from the front of the amplitude index to the back, so that each wire is
  at the front when it is its turn. Wires and layers are therefore loops with one body, which is traced and
  compiled once, at the same cost for any depth and nearly the same for any width.
- Gradients are computed by the adjoint method (Jones & Gacon 2020, "Efficient calculation of gradients in
  classical simulations of variational quantum algorithms"): layers are undone one by one, so that only two
  states are in memory for any depth. As the gates of a layer act on different wires, all derivatives of a
  layer follow from matrix elements of σx, σy and σz of every wire between the same two states.
- Large batches are simulated in blocks that fit into the cache of a core.

Wire 0 is the most significant bit of the amplitude index.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hyperlax.lanes.masking import lane_max

T = TypeVar("T")
X = TypeVar("X")

BLOCK_AMPLITUDES = 2**17
"""Amplitudes per block; real and imaginary parts of two states then take two megabytes in float32."""
MIN_BLOCK = 32
"""Least number of circuits in a block; shorter loops are not vectorised."""
ROUNDING_TOLERANCE = 16.0
"""Derivatives below this many rounding errors (machine epsilon times the norm of the bra) count as zero."""
DENSE_Z_WIRES = 12
"""Largest number of wires for which the diagonals of all σz are stored as one matrix."""


class Gates(NamedTuple):
    """Special unitary 2 × 2 matrices [[a, -b*], [b, a*]], with real and imaginary parts stored separately."""

    a_re: Array
    a_im: Array
    b_re: Array
    b_im: Array


Complex = tuple[Array, Array]
"""Real and imaginary part of a complex array."""


def _times(x: Complex, y: Complex) -> Complex:
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


def _bits(wires: int) -> np.ndarray:
    """The bit of every wire in the index of every amplitude, an array [wires, 2 ** wires]."""
    return (np.arange(2**wires)[None] >> np.arange(wires - 1, -1, -1)[:, None]) & 1


def _sigma_z(wires: int, dtype: Any) -> Float[Array, "wires amplitudes"]:
    """The diagonal of the σz of every wire."""
    return jnp.asarray(1 - 2 * _bits(wires), dtype)


def _z_totals(x: Float[Array, "amplitudes batch"]) -> Float[Array, "wires batch"]:
    """The sum of x times the diagonal of σz over the amplitudes, for every wire."""
    wires = x.shape[0].bit_length() - 1
    if wires <= DENSE_Z_WIRES:
        return _sigma_z(wires, x.dtype) @ x
    half = wires // 2
    halves = x.reshape(2**half, -1, x.shape[1])
    left, right = _sigma_z(half, x.dtype), _sigma_z(wires - half, x.dtype)
    return jnp.concatenate([left @ halves.sum(1), right @ halves.sum(0)])


def _z_observable(weights: Float[Array, "wires batch"]) -> Float[Array, "amplitudes batch"]:
    """The diagonal of the observable Σ `weights`[wire] σz[wire]."""
    wires, batch = weights.shape
    half = wires // 2
    left, right = _sigma_z(half, weights.dtype).T, _sigma_z(wires - half, weights.dtype).T
    return ((left @ weights[:half])[:, None] + (right @ weights[half:])[None]).reshape(-1, batch)


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
    lead = _times(u, v)
    return Decomposition(cos, sin, (lead[0], -lead[1]), _times((u[0], -u[1]), v))


def _bit_products(phase: Complex) -> Float[Array, "2 layers amplitudes batch"]:
    """For each amplitude, the product of `phase` [layers, wires, batch] over the wires whose bit is set."""
    layers, wires, batch = phase[0].shape
    bits = _bits(wires).astype(phase[0].dtype)[:, None, :, None]
    out = (jnp.ones((), bits.dtype), jnp.zeros((), bits.dtype))
    for i in range(wires):
        re, im = phase[0][:, i][:, None], phase[1][:, i][:, None]
        out = _times(out, (1 + bits[i] * (re - 1), bits[i] * im))
    shape = (layers, 2**wires, batch)
    return jnp.stack([jnp.broadcast_to(part, shape) for part in out])


def _layers(gates: Decomposition, back: bool) -> Layer:
    """All layers of a circuit; with `back`, their rotations inverted and their phases conjugated in place."""
    none = (jnp.ones_like(gates.cos[:1]), jnp.zeros_like(gates.cos[:1]))
    before = tuple(jnp.concatenate([n, t[:-1]]) for n, t in zip(none, gates.trail, strict=True))
    re, im = _times(gates.lead, (before[0], before[1]))
    sin = gates.sin
    if back:
        im, sin = -im, -sin
    half = (re.shape[1] + 1) // 2
    left, right = _bit_products((re[:, :half], im[:, :half])), _bit_products((re[:, half:], im[:, half:]))
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


Angles = Float[Array, "3 layers wires batch"]
Shared = Float[Array, "3 layers wires 1"]
States = Float[Array, "parts amplitudes batch"]
"""Real and imaginary parts of one state, or of several states in turn."""


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


def final_state(
    first: Angles, second: Shared, signs: Float[Array, "2 amplitudes"], depth: Int[Array, ""]
) -> States:
    """The final state of a circuit up to a global phase, with the arguments of `expectations`."""
    parts = decompose(_gates(first, second))
    last = jnp.broadcast_to(depth, (1,))
    trail = _bit_products((parts.trail[0][last], parts.trail[1][last]))[:, 0]
    states = _final_without_phases(parts, signs, depth)
    return jnp.stack(_times((states[0], states[1]), (trail[0], trail[1])))


def _gates(first: Angles, second: Shared) -> Gates:
    """The product of both rotations of every layer, wire and circuit."""
    gates = compose(rotation(first), rotation(second))
    return Gates(*(jnp.broadcast_to(x, first.shape[1:]) for x in gates))


def _final_without_phases(
    gates: Decomposition, signs: Float[Array, "2 amplitudes"], depth: Int[Array, ""]
) -> States:
    """The final state without the phases of the last layer, which do not change the expectation of any σz."""
    layers, (_, wires, batch) = _layers(gates, back=False), gates.cos.shape
    zeros = jnp.zeros((2, 2**wires, batch), gates.cos.dtype)
    start = _rotate_wires(zeros.at[0, 0].set(1), layers.rotations[0])

    def layer(k: Any, now: tuple[Layer, Array], states: States) -> States:
        return _rotate_wires(_apply_phases(states, *now), now[0].rotations)

    return _each_layer(lane_max(depth), lambda k: k + 1, layers, signs, layer, start)


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


def _expectations(states: States) -> Float[Array, "wires batch"]:
    """⟨σz⟩ of every wire in one state."""
    return _z_totals(states[0] ** 2 + states[1] ** 2)


@jax.custom_vjp
def _simulate(first: Angles, second: Shared, signs: Float[Array, "2 amplitudes"], depth: Any) -> Array:
    return _expectations(_final_without_phases(decompose(_gates(first, second)), signs, depth))


def _simulate_forward(first: Any, second: Any, signs: Any, depth: Any) -> tuple[Any, Any]:
    parts = decompose(_gates(first, second))
    states = _final_without_phases(parts, signs, depth)
    return _expectations(states), (first, second, parts, signs, depth, states)


def _simulate_backward(kept: Any, cotangent: Float[Array, "wires batch"]) -> tuple[Any, ...]:
    first, second, parts, signs, depth, ket = kept
    layers = _layers(parts, back=True)
    bra = ket * _z_observable(cotangent)[None]
    last = lane_max(depth)
    found = jnp.zeros((parts.cos.shape[0], 3, *cotangent.shape), ket.dtype)

    def layer(k: Any, now: tuple[Layer, Array], carry: tuple) -> tuple:
        states, found = carry
        states, measured = _measure_and_unrotate(states, now[0].rotations)
        found = jax.lax.dynamic_update_index_in_dim(found, measured, last - k, 0)
        return _apply_phases(states, *now), found

    carry = (jnp.concatenate([ket, bra]), found)
    _, found = _each_layer(last + 1, lambda k: jnp.maximum(last - k, 0), layers, signs, layer, carry)
    noise = ROUNDING_TOLERANCE * jnp.finfo(ket.dtype).eps * jnp.sqrt(jnp.sum(bra**2, (0, 1)))
    by_first, by_second = (
        jnp.where(jnp.abs(x) > noise[None, None, None], x, 0)
        for x in _angle_gradients(found, parts.trail, first, second)
    )
    return (
        by_first,
        jnp.sum(by_second, -1, keepdims=True),
        jnp.zeros_like(signs),
        np.zeros(jnp.shape(depth), jax.dtypes.float0),
    )


_simulate.defvjp(_simulate_forward, _simulate_backward)


def _measure_and_unrotate(
    states: Float[Array, "4 amplitudes batch"], rotations: Float[Array, "wires 2 2 batch"]
) -> tuple[States, Float[Array, "3 wires batch"]]:
    """Undo the rotations of a layer in ket and bra, and return the matrix elements for their derivatives.

    For each wire these are Im⟨bra|σz|ket⟩ and the real and imaginary part of d = Σ bra₀* ket₁ - bra₁ ket₀*,
    where the index is the bit of the wire: Im⟨bra|σx|ket⟩ = Im d and Im⟨bra|σy|ket⟩ = -Re d.
    """
    (amplitudes, batch), wires = states.shape[1:], rotations.shape[0]
    ket_re, ket_im, bra_re, bra_im = states
    z = _z_totals(bra_re * ket_im - bra_im * ket_re)
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


def _angle_gradients(
    found: Float[Array, "layers 3 wires batch"], trail: Complex, first: Angles, second: Shared
) -> tuple[Angles, Angles]:
    """The gradient by `first` and by `second`, from the matrix elements `found` of `_measure_and_unrotate`.

    The derivative by the angle φ of a gate exp(-i φ σ / 2) is Im⟨bra|σ|ket⟩, with both states taken after the
    gate. From after to before a gate, the elements of σx, σy and σz rotate like a Bloch vector.
    """
    d = _times((found[:, 1], found[:, 2]), trail)
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


def expectations(
    first: Angles,
    second: Shared,
    signs: Float[Array, "2 amplitudes"],
    depth: Int[Array, ""],
) -> Float[Array, "wires batch"]:
    """⟨σz⟩ of every wire, for a batch of circuits that start with every wire in |0⟩.

    Layer l applies Rot(first[:, l, w]) and then Rot(second[:, l, w]) to every wire w and, unless it is the
    last one, multiplies the amplitudes by `signs[l % 2]`. The angles `second` are the same for the whole
    batch. `depth` is the index of the last layer in use and may differ between the lanes of a program; all
    angles beyond it must be zero.

    Derivatives that cannot be distinguished from rounding errors are set to zero, because an optimiser that
    divides by their size, such as Adam, would otherwise follow the errors.
    """
    wires, batch = first.shape[2:]
    block = max(MIN_BLOCK, BLOCK_AMPLITUDES >> wires)
    if batch <= block or jax.default_backend() != "cpu":
        return _simulate(first, second, signs, depth)
    blocks = -(-batch // block)
    padded = jnp.pad(first, ((0, 0), (0, 0), (0, 0), (0, blocks * block - batch)))
    split = jnp.moveaxis(padded.reshape(*first.shape[:3], blocks, block), 3, 0)
    parts = jax.lax.map(lambda x: _simulate(x, second, signs, depth), split)
    return jnp.moveaxis(parts, 0, 1).reshape(wires, -1)[:, :batch]
