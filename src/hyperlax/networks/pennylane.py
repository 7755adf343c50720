"""Running and drawing of the data re-uploading circuit with PennyLane."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

REMOVED = (0, 11)
"""The version of jax that removed a function which PennyLane 0.45 calls."""
ANGLES = 3
"""Number of angles of a one-qubit rotation, and so of features that one wire encodes."""


def expectations(
    first: Float[Array, "3 layers wires batch"],
    second: Float[Array, "3 layers wires 1"],
    signs: Float[Array, "2 amplitudes"],
) -> Float[Array, "wires batch"]:
    """Compute `circuit.expectations` on PennyLane's device `default.qubit`; differentiable.

    PennyLane unrolls the circuit gate by gate, so tracing and compiling take minutes where
    `circuit.expectations` takes seconds.
    """
    import pennylane as qml

    _restore_is_concrete()
    layers, wires = first.shape[1:3]
    table: Any = signs

    @qml.qnode(qml.device("default.qubit", wires=wires), interface="jax", diff_method="backprop")
    def node(first: Any, second: Any) -> Any:
        for layer in range(layers):
            for w in range(wires):
                qml.Rot(*first[:, layer, w], wires=w)
                qml.Rot(*second[:, layer, w], wires=w)
            if layer < layers - 1:
                qml.DiagonalQubitUnitary(table[layer % 2], wires=range(wires))
        return [qml.expval(qml.PauliZ(w)) for w in range(wires)]

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        out = jax.vmap(lambda x: jnp.stack(node(x, second[..., 0])), in_axes=-1, out_axes=-1)(first)
    return out.astype(first.dtype)


def _restore_is_concrete() -> None:
    """Give the function `jax.core.is_concrete` back to versions of jax that have removed it.

    PennyLane asks it whether the value behind a tracer is known, as in transformations that are not compiled.
    For tracers the answer here is always no, and PennyLane leaves out the checks and shortcuts that would
    need the value.
    """
    if jax.__version_info__ >= REMOVED:
        jax.core.is_concrete = lambda x: not isinstance(x, jax.core.Tracer)  # pyright: ignore


def diagram(
    in_size: int, stacks: int, layers: int, entangler: str, *, reupload: bool = True, measured: int = 0
) -> str:
    """PennyLane's text diagram of the circuit, with rotations by scaled features x and trained angles θ.

    Without `reupload` only the first layer encodes features. `measured` is the number of measured wires,
    counted from the first one; 0 means all.
    """
    import pennylane as qml

    blocks = -(-in_size // ANGLES)
    wires = blocks * stacks

    @qml.qnode(qml.device("default.qubit", wires=wires))
    def node() -> Any:
        for layer in range(layers + 1):
            for w in range(wires):
                start = ANGLES * (w % blocks)
                features, trained = f"x{start}:{min(start + ANGLES, in_size)}", f"θ{layer},{w}"
                encodes = reupload or layer == 0
                if layer == layers:
                    _labelled(qml, f"{features}+{trained}" if encodes else trained, w)
                    continue
                if encodes:
                    _labelled(qml, features, w)
                _labelled(qml, trained, w)
            if layer < layers:
                for a, b in couplings(wires, layer, entangler):
                    qml.CZ(wires=[a, b])
        return [qml.expval(qml.PauliZ(w)) for w in range(min(measured, wires) or wires)]

    return str(qml.draw(node, decimals=None, max_length=110, show_matrices=False)())


def _labelled(qml: Any, text: str, wire: int) -> None:
    qml.drawer.label(qml.Rot(0.0, 0.0, 0.0, wires=wire), text)


def couplings(wires: int, layer: int, entangler: str) -> list[tuple[int, int]]:
    """The pairs of wires to which `entangler` (`none`, `cz` or `cz_ring`) applies CZ gates after `layer`."""
    if entangler == "none":
        return []
    if entangler == "cz":
        return [(w, w + 1) for w in range(layer % 2, wires - 1, 2)]
    return [(w, (w + 1) % wires) for w in range(wires if wires > 2 else wires - 1)]
