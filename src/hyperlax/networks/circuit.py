"""Exact simulation of layered circuits: one-qubit rotations on every wire, then controlled-Z gates.

What makes it fast, on a CPU above all:

- A rotation is phase · real rotation · phase. Phases and CZ gates are diagonal, so all of a layer's are one
  multiplication of the state; what remains are real rotations, half the arithmetic of complex ones.
- A batch of circuits lies along the last axis, so every operation is a loop over neighbouring numbers.
- A wire's rotation moves its bit from the front of an amplitude's index to the back: every wire is at the
  front when its turn comes, and a loop over wires, like the one over layers, is one loop body. Tracing and
  compiling therefore cost the same for any depth and nearly the same for any width.
- The gradient is adjoint (Jones & Gacon 2020, "Efficient calculation of gradients in classical simulations of
  variational quantum algorithms"): the state is taken back layer by layer, so that two states are in memory
  whatever the depth. A layer's gates act on different wires, so all its derivatives follow from σx, σy and σz
  of every wire between the same two states.
- Large batches are simulated in blocks that fit a core's cache.

Wire 0 is the most significant bit of an amplitude's index.
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
"""Amplitudes of a block's states: with real and imaginary parts of two of them, two megabytes in float32."""
LEAST_BLOCK = 32
"""Circuits of a block at the least: shorter loops are not vectorised."""
NOISE = 16.0
"""Rounding of a derivative, in units of the precision times the norm of the state it is taken with."""
SMALL = 12
"""Up to this many wires, all σz fit a matrix."""


class Gates(NamedTuple):
    """Special unitary 2 × 2 matrices [[a, -b*], [b, a*]], real and imaginary parts apart."""

    a_re: Array
    a_im: Array
    b_re: Array
    b_im: Array


Complex = tuple[Array, Array]


def _times(x: Complex, y: Complex) -> Complex:
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]


def rotation(angles: Float[Array, "3 *any"]) -> Gates:
    """Rot(φ, θ, ω) = RZ(ω) RY(θ) RZ(φ) for `angles` (φ, θ, ω) along the first axis."""
    first, middle, last = (angles[i] / 2 for i in range(3))
    cos, sin = jnp.cos(middle), jnp.sin(middle)
    plus, minus = first + last, last - first
    return Gates(cos * jnp.cos(plus), -cos * jnp.sin(plus), sin * jnp.cos(minus), sin * jnp.sin(minus))


def after(first: Gates, second: Gates) -> Gates:
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
    """What a layer does to the amplitudes; the layers of a circuit have one more axis in front.

    - `turn`: the real rotation of every wire, by [wire, bit before, bit after].
    - `left`, `right`: the phases before the rotations, over the amplitudes of the first half of the wires and
      of the others, real and imaginary parts; phases that the layer before leaves over are part of them.
    - `right_turned`: `right` times i.
    """

    turn: Float[Array, "*layers wires 2 2 batch"]
    left: Float[Array, "*layers 2 left batch"]
    right: Float[Array, "*layers 2 right batch"]
    right_turned: Float[Array, "*layers 2 right batch"]


def _bits(wires: int) -> np.ndarray:
    """[wires, 2 ** wires]: the bit of every wire in every amplitude's index."""
    return (np.arange(2**wires)[None] >> np.arange(wires - 1, -1, -1)[:, None]) & 1


def _sigma_z(wires: int, dtype: Any) -> Float[Array, "wires amplitudes"]:
    return jnp.asarray(1 - 2 * _bits(wires), dtype)


def _z_totals(x: Float[Array, "amplitudes batch"]) -> Float[Array, "wires batch"]:
    """Σ over amplitudes of x times σz of every wire; by halves of the wires where they are many."""
    wires = x.shape[0].bit_length() - 1
    if wires <= SMALL:
        return _sigma_z(wires, x.dtype) @ x
    half = wires // 2
    halves = x.reshape(2**half, -1, x.shape[1])
    left, right = _sigma_z(half, x.dtype), _sigma_z(wires - half, x.dtype)
    return jnp.concatenate([left @ halves.sum(1), right @ halves.sum(0)])


def _z_observable(weights: Float[Array, "wires batch"]) -> Float[Array, "amplitudes batch"]:
    """The diagonal of Σ over wires of `weights` times σz."""
    wires, batch = weights.shape
    half = wires // 2
    left, right = _sigma_z(half, weights.dtype).T, _sigma_z(wires - half, weights.dtype).T
    return ((left @ weights[:half])[:, None] + (right @ weights[half:])[None]).reshape(-1, batch)


def _polar(re: Array, im: Array) -> tuple[Array, Complex]:
    """Modulus and phase factor of a complex number; the factor of zero is one."""
    modulus = jnp.sqrt(re * re + im * im)
    safe = jnp.where(modulus > 0, modulus, 1)
    return modulus, (jnp.where(modulus > 0, re / safe, 1), jnp.where(modulus > 0, im / safe, 0))


class Decomposed(NamedTuple):
    """[[a, -b*], [b, a*]] up to a phase: diag(1, trail) · [[cos, -sin], [sin, cos]] · diag(1, lead)."""

    cos: Float[Array, "layers wires batch"]
    sin: Float[Array, "layers wires batch"]
    lead: Complex
    trail: Complex


def decomposed(gates: Gates) -> Decomposed:
    """Phases and real rotations of gates [layers, wires, batch]."""
    cos, u = _polar(gates.a_re, gates.a_im)
    sin, v = _polar(gates.b_re, gates.b_im)
    lead = _times(u, v)
    return Decomposed(cos, sin, (lead[0], -lead[1]), _times((u[0], -u[1]), v))


def _spread(phase: Complex) -> Float[Array, "2 layers amplitudes batch"]:
    """Π over wires of `phase` [layers, wires, batch] where the wire's bit is set: real and imaginary part."""
    layers, wires, batch = phase[0].shape
    bits = _bits(wires).astype(phase[0].dtype)[:, None, :, None]
    out = (jnp.ones((), bits.dtype), jnp.zeros((), bits.dtype))
    for i in range(wires):
        re, im = phase[0][:, i][:, None], phase[1][:, i][:, None]
        out = _times(out, (1 + bits[i] * (re - 1), bits[i] * im))
    shape = (layers, 2**wires, batch)
    return jnp.stack([jnp.broadcast_to(part, shape) for part in out])


def _layers(gates: Decomposed, back: bool) -> Layer:
    """What every layer does, or undoes; `_shift` expects the phases of an undone layer conjugated."""
    none = (jnp.ones_like(gates.cos[:1]), jnp.zeros_like(gates.cos[:1]))
    before = tuple(jnp.concatenate([n, t[:-1]]) for n, t in zip(none, gates.trail, strict=True))
    re, im = _times(gates.lead, (before[0], before[1]))
    sin = gates.sin
    if back:
        im, sin = -im, -sin
    half = (re.shape[1] + 1) // 2
    left, right = _spread((re[:, :half], im[:, :half])), _spread((re[:, half:], im[:, half:]))
    turn = jnp.stack([jnp.stack([gates.cos, sin], 2), jnp.stack([-sin, gates.cos], 2)], 2)
    turned = jnp.stack([-right[1], right[0]])
    return Layer(turn, *(jnp.moveaxis(x, 0, 1) for x in (left, right, turned)))


def _prefetching(
    steps: Any, place: Callable[[Any], Any], xs: X, body: Callable[[Any, X, T], T], carry: T
) -> T:
    """`for k in range(steps): carry = body(k, xs[place(k)], carry)`.

    What the next step needs is fetched in the step before: an index inside the loops over amplitudes would
    keep a compiler from vectorising them.
    """

    def fetch(k: Any) -> X:
        return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, place(k), keepdims=False), xs)

    def step(k: Any, held: tuple[T, X]) -> tuple[T, X]:
        return body(k, held[1], held[0]), fetch(k + 1)

    return jax.lax.fori_loop(0, steps, step, (carry, fetch(0)))[0]


Angles = Float[Array, "3 layers wires batch"]
Shared = Float[Array, "3 layers wires 1"]
States = Float[Array, "parts amplitudes batch"]
"""Real and imaginary part of one or more states."""


def _turn(states: States, turn: Float[Array, "2 2 batch"]) -> States:
    """The front wire rotated, and moved to the back."""
    parts, amplitudes, batch = states.shape
    split = states.reshape(parts, 2, amplitudes // 2, 1, batch)
    turned = turn[0][None, None] * split[:, 0] + turn[1][None, None] * split[:, 1]
    return turned.reshape(states.shape)


def _shift(states: States, layer: Layer, sign: Float[Array, " amplitudes"]) -> States:
    """Multiplied by the phases of `layer` and the CZ signs before it."""
    (a_re, a_im), b, ib = layer.left[:, None, :, None], layer.right[:, None], layer.right_turned[:, None]
    x = states.reshape(-1, 2, a_re.shape[1], b.shape[2], states.shape[-1])
    signs = sign.reshape(1, a_re.shape[1], b.shape[2], 1)
    re = (a_re * b + a_im * ib) * signs
    im = (a_re * ib - a_im * b) * signs
    return (x[:, :1] * re[None] + x[:, 1:] * im[None]).reshape(states.shape)


def final_state(
    first: Angles, second: Shared, signs: Float[Array, "2 amplitudes"], depth: Int[Array, ""]
) -> States:
    """The state a circuit ends in, up to a global phase; arguments as for `expectations`."""
    parts = decomposed(_gates(first, second))
    last = jnp.broadcast_to(depth, (1,))
    trail = _spread((parts.trail[0][last], parts.trail[1][last]))[:, 0]
    states = _final(parts, signs, depth)
    return jnp.stack(_times((states[0], states[1]), (trail[0], trail[1])))


def _gates(first: Angles, second: Shared) -> Gates:
    gates = after(rotation(first), rotation(second))
    return Gates(*(jnp.broadcast_to(x, first.shape[1:]) for x in gates))


def _final(gates: Decomposed, signs: Float[Array, "2 amplitudes"], depth: Int[Array, ""]) -> States:
    """The state at the end but for the last phases, which no σz sees."""
    layers, (_, wires, batch) = _layers(gates, back=False), gates.cos.shape
    zeros = jnp.zeros((2, 2**wires, batch), gates.cos.dtype)
    start = _turn_all(zeros.at[0, 0].set(1), layers.turn[0])

    def layer(k: Any, now: tuple[Layer, Array], states: States) -> States:
        return _turn_all(_shift(states, *now), now[0].turn)

    return _each_layer(lane_max(depth), lambda k: k + 1, layers, signs, layer, start)


def _each_layer(
    steps: Any, place: Callable[[Any], Any], layers: Layer, signs: Array, body: Callable, carry: T
) -> T:
    """Runs `body` over layers and the CZ signs before them."""
    number = layers.turn.shape[0]
    before = signs[(np.arange(number) - 1) % 2]
    return _prefetching(steps, place, (layers, before), body, carry)


def _turn_all(states: States, turn: Float[Array, "wires 2 2 batch"]) -> States:
    wires = turn.shape[0]
    return _prefetching(wires, lambda w: w % wires, turn, lambda w, now, x: _turn(x, now), states)


def _expectations(states: States) -> Float[Array, "wires batch"]:
    return _z_totals(states[0] ** 2 + states[1] ** 2)


@jax.custom_vjp
def _simulate(first: Angles, second: Shared, signs: Float[Array, "2 amplitudes"], depth: Any) -> Array:
    return _expectations(_final(decomposed(_gates(first, second)), signs, depth))


def _simulate_forward(first: Any, second: Any, signs: Any, depth: Any) -> tuple[Any, Any]:
    parts = decomposed(_gates(first, second))
    states = _final(parts, signs, depth)
    return _expectations(states), (first, second, parts, signs, depth, states)


def _simulate_backward(kept: Any, cotangent: Float[Array, "wires batch"]) -> tuple[Any, ...]:
    first, second, parts, signs, depth, ket = kept
    layers = _layers(parts, back=True)
    bra = ket * _z_observable(cotangent)[None]
    last = lane_max(depth)
    found = jnp.zeros((parts.cos.shape[0], 3, *cotangent.shape), ket.dtype)

    def layer(k: Any, now: tuple[Layer, Array], carry: tuple) -> tuple:
        states, found = carry
        states, measured = _measure_and_turn(states, now[0].turn)
        found = jax.lax.dynamic_update_index_in_dim(found, measured, last - k, 0)
        return _shift(states, *now), found

    carry = (jnp.concatenate([ket, bra]), found)
    _, found = _each_layer(last + 1, lambda k: jnp.maximum(last - k, 0), layers, signs, layer, carry)
    noise = NOISE * jnp.finfo(ket.dtype).eps * jnp.sqrt(jnp.sum(bra**2, (0, 1)))
    by_first, by_second = (
        jnp.where(jnp.abs(x) > noise[None, None, None], x, 0)
        for x in _slopes(found, parts.trail, first, second)
    )
    return (
        by_first,
        jnp.sum(by_second, -1, keepdims=True),
        jnp.zeros_like(signs),
        np.zeros(jnp.shape(depth), jax.dtypes.float0),
    )


_simulate.defvjp(_simulate_forward, _simulate_backward)


def _measure_and_turn(
    states: Float[Array, "4 amplitudes batch"], turn: Float[Array, "wires 2 2 batch"]
) -> tuple[States, Float[Array, "3 wires batch"]]:
    """Undoes a layer's rotations of ket and bra; and what their derivatives are made of.

    That is, per wire, Im⟨bra|σz|ket⟩, and real and imaginary part of d = Σ bra₀* ket₁ - bra₁ ket₀*, the index
    being the wire's bit: Im⟨bra|σx|ket⟩ = Im d and Im⟨bra|σy|ket⟩ = -Re d.
    """
    (amplitudes, batch), wires = states.shape[1:], turn.shape[0]
    ket_re, ket_im, bra_re, bra_im = states
    z = _z_totals(bra_re * ket_im - bra_im * ket_re)
    ones = jnp.ones((1, amplitudes // 2), states.dtype)

    def wire(w: Any, now: Array, carry: tuple) -> tuple:
        states, found = carry
        k_re, k_im, l_re, l_im = states.reshape(4, 2, amplitudes // 2, batch)
        re = l_re[0] * k_re[1] + l_im[0] * k_im[1] - l_re[1] * k_re[0] - l_im[1] * k_im[0]
        im = l_re[0] * k_im[1] - l_im[0] * k_re[1] - l_im[1] * k_re[0] + l_re[1] * k_im[0]
        d = jnp.concatenate([ones @ re, ones @ im])
        return _turn(states, now), jax.lax.dynamic_update_index_in_dim(found, d, w, 1)

    carry = (states, jnp.zeros((2, wires, batch), states.dtype))
    states, d = _prefetching(wires, lambda w: w % wires, turn, wire, carry)
    return states, jnp.concatenate([z[None], d])


def _slopes(
    found: Float[Array, "layers 3 wires batch"], trail: Complex, first: Angles, second: Shared
) -> tuple[Angles, Angles]:
    """The gradient by the angles, of what was measured after the layers' real rotations.

    The derivative by the angle of exp(-i φ σ / 2), taken last, is Im⟨bra|σ|ket⟩. The three σ rotate into each
    other from before to after a rotation, as the Bloch vector does.
    """
    d = _times((found[:, 1], found[:, 2]), trail)
    x, y, z = d[1], -d[0], found[:, 0]
    slopes = []
    for angles in (second, first):
        by_last = z
        x, y = _bloch(x, y, angles[2])
        by_middle = y
        z, x = _bloch(z, x, angles[1])
        slope = jnp.stack([z, by_middle, by_last])
        slopes.append(slope)
        x, y = _bloch(x, y, angles[0])
    return slopes[1], slopes[0]


def _bloch(a: Array, b: Array, angle: Array) -> tuple[Array, Array]:
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return cos * a + sin * b, cos * b - sin * a


def expectations(
    first: Angles,
    second: Shared,
    signs: Float[Array, "2 amplitudes"],
    depth: Int[Array, ""],
) -> Float[Array, "wires batch"]:
    """⟨σz⟩ of every wire, for a batch of circuits that start with every wire in |0⟩.

    Layer l applies Rot(first[:, l, w]) and then Rot(second[:, l, w]) to every wire w and, if another follows,
    multiplies the amplitudes by `signs[l % 2]`. The batch shares its second rotations. `depth` is the last
    layer in use, which may differ between the lanes of a program; all angles beyond it must be zero.

    A derivative too small to be told from rounding is zero, so that an optimiser which divides by it does not
    follow rounding.
    """
    wires, batch = first.shape[2:]
    block = max(LEAST_BLOCK, BLOCK_AMPLITUDES >> wires)
    if batch <= block or jax.default_backend() != "cpu":
        return _simulate(first, second, signs, depth)
    blocks = -(-batch // block)
    padded = jnp.pad(first, ((0, 0), (0, 0), (0, 0), (0, blocks * block - batch)))
    split = jnp.moveaxis(padded.reshape(*first.shape[:3], blocks, block), 3, 0)
    parts = jax.lax.map(lambda x: _simulate(x, second, signs, depth), split)
    return jnp.moveaxis(parts, 0, 1).reshape(wires, -1)[:, :batch]
