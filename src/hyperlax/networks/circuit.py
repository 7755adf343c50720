"""Exact simulation of layered circuits: one-qubit rotations on every wire, followed by controlled-Z gates.

Gradients are computed by the adjoint method (Jones & Gacon 2020, "Efficient calculation of gradients in
classical simulations of variational quantum algorithms"): layers are undone one by one, so that only two
states are in memory for any depth. As the gates of a layer act on different wires, all derivatives of a layer
follow from matrix elements of σx, σy and σz of every wire between the same two states.

Large batches are simulated in blocks that fit into the cache of a core. Wire 0 is the most significant bit of
the amplitude index.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hyperlax.lanes.masking import lane_max
from hyperlax.networks.circuit_gates import (
    Angles,
    Shared,
    States,
    angle_gradients,
    gates_of,
    times,
    z_observable,
    z_totals,
)
from hyperlax.networks.circuit_loops import (
    Layer,
    apply_phases,
    bit_products,
    decompose,
    each_layer,
    final_without_phases,
    layers_of,
    measure_and_unrotate,
)

BLOCK_AMPLITUDES = 2**17
"""Amplitudes per block; real and imaginary parts of two states then take two megabytes in float32."""
MIN_BLOCK = 32
"""Least number of circuits in a block; shorter loops are not vectorised."""
ROUNDING_TOLERANCE = 16.0
"""Derivatives below this many rounding errors (machine epsilon times the norm of the bra) count as zero."""


def final_state(
    first: Angles, second: Shared, signs: Float[Array, "2 amplitudes"], depth: Int[Array, ""]
) -> States:
    """The final state of a circuit up to a global phase, with the arguments of `expectations`."""
    parts = decompose(gates_of(first, second))
    last = jnp.broadcast_to(depth, (1,))
    trail = bit_products((parts.trail[0][last], parts.trail[1][last]))[:, 0]
    states = final_without_phases(parts, signs, depth)
    return jnp.stack(times((states[0], states[1]), (trail[0], trail[1])))


def _expectations(states: States) -> Float[Array, "wires batch"]:
    """⟨σz⟩ of every wire in one state."""
    return z_totals(states[0] ** 2 + states[1] ** 2)


@jax.custom_vjp
def _simulate(first: Angles, second: Shared, signs: Float[Array, "2 amplitudes"], depth: Any) -> Array:
    return _expectations(final_without_phases(decompose(gates_of(first, second)), signs, depth))


def _simulate_forward(first: Any, second: Any, signs: Any, depth: Any) -> tuple[Any, Any]:
    parts = decompose(gates_of(first, second))
    states = final_without_phases(parts, signs, depth)
    return _expectations(states), (first, second, parts, signs, depth, states)


def _simulate_backward(kept: Any, cotangent: Float[Array, "wires batch"]) -> tuple[Any, ...]:
    first, second, parts, signs, depth, ket = kept
    layers = layers_of(parts, back=True)
    bra = ket * z_observable(cotangent)[None]
    last = lane_max(depth)
    found = jnp.zeros((parts.cos.shape[0], 3, *cotangent.shape), ket.dtype)

    def layer(k: Any, now: tuple[Layer, Array], carry: tuple) -> tuple:
        states, found = carry
        states, measured = measure_and_unrotate(states, now[0].rotations)
        found = jax.lax.dynamic_update_index_in_dim(found, measured, last - k, 0)
        return apply_phases(states, *now), found

    carry = (jnp.concatenate([ket, bra]), found)
    _, found = each_layer(last + 1, lambda k: jnp.maximum(last - k, 0), layers, signs, layer, carry)
    noise = ROUNDING_TOLERANCE * jnp.finfo(ket.dtype).eps * jnp.sqrt(jnp.sum(bra**2, (0, 1)))
    by_first, by_second = (
        jnp.where(jnp.abs(x) > noise[None, None, None], x, 0)
        for x in angle_gradients(found, parts.trail, first, second)
    )
    return (
        by_first,
        jnp.sum(by_second, -1, keepdims=True),
        jnp.zeros_like(signs),
        np.zeros(jnp.shape(depth), jax.dtypes.float0),
    )


_simulate.defvjp(_simulate_forward, _simulate_backward)


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
