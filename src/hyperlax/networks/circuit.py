"""Exact simulation of layered circuits: one-qubit rotations on every wire, followed by controlled-Z gates.

Gradients are computed by the adjoint method (Jones & Gacon 2020, "Efficient calculation of gradients in
classical simulations of variational quantum algorithms"): layers are undone one by one, so that only two
states are in memory for any depth. As the gates of a layer act on different wires, all derivatives of a layer
follow from matrix elements of σx, σy and σz of every wire between the same two states.

How the states are computed depends on the machine; see `circuit_paths`. Wire 0 is the most significant bit of
the amplitude index.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hyperlax.lanes.masking import lane_max
from hyperlax.networks.circuit_gates import Angles, Shared, States, gates_of, times
from hyperlax.networks.circuit_loops import bit_products, decompose, final_without_phases
from hyperlax.networks.circuit_paths import backward, forward


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
    angles beyond it must be zero, and derivatives by them have no meaning.

    Derivatives that cannot be distinguished from rounding errors are set to zero, because an optimiser that
    divides by their size, such as Adam, would otherwise follow the errors.
    """
    return _simulate(first, second, signs, depth, lane_max(depth))


@jax.custom_vjp
def _simulate(first: Angles, second: Shared, signs: Array, depth: Any, steps: Any) -> Array:
    """`expectations`, where `steps` is the largest `depth` of all lanes."""
    return forward(first, second, signs, depth, steps, keep=False)[0]


def _simulate_forward(first: Any, second: Any, signs: Any, depth: Any, steps: Any) -> tuple[Any, Any]:
    z, *kept = forward(first, second, signs, depth, steps, keep=True)
    return z, (first, second, signs, depth, steps, *kept)


def _simulate_backward(kept: Any, cotangent: Float[Array, "wires batch"]) -> tuple[Any, ...]:
    _, _, signs, depth, steps, *_ = kept
    whole = [np.zeros(jnp.shape(x), jax.dtypes.float0) for x in (depth, steps)]
    return *backward(*kept, cotangent), jnp.zeros_like(signs), *whole


_simulate.defvjp(_simulate_forward, _simulate_backward)


def final_state(
    first: Angles, second: Shared, signs: Float[Array, "2 amplitudes"], depth: Int[Array, ""]
) -> States:
    """The final state of a circuit up to a global phase, with the arguments of `expectations`."""
    parts = decompose(gates_of(first, second))
    last = jnp.broadcast_to(depth, (1,))
    trail = bit_products((parts.trail[0][last], parts.trail[1][last]))[:, 0]
    states = final_without_phases(parts, signs, lane_max(depth))
    return jnp.stack(times((states[0], states[1]), (trail[0], trail[1])))
