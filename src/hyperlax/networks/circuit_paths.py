"""Ways to simulate circuits, and the choice between them for the machine that a program is compiled for.

| path      | what it is                                        | chosen for                           |
|-----------|---------------------------------------------------|--------------------------------------|
| `loops`   | `circuit_loops`: loops over blocks and wires      | CPUs                                 |
| `grouped` | `circuit_grouped`: few kernels, compiled by XLA   | all other accelerators and circuits  |
| `fused`   | `circuit_fused`: one kernel for the whole circuit | NVIDIA GPUs, up to 12 wires, float32 |

The environment variable `HYPERLAX_CIRCUIT` names the path of all circuits; by default it is `auto`. It is
read when a program is compiled. The log says once which path is taken.

The fused kernels are used once they have been compared with the grouped path in this process, on its GPU and
for circuits of the same number of wires. If they differ or cannot be compiled, the log warns once and the
grouped path is taken. When a program is compiled for a GPU on a machine without one, nothing can be compared,
and `auto` means the grouped path.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from hyperlax.lanes.constants import tracing_for_accelerator
from hyperlax.networks import circuit_fused, circuit_grouped, circuit_loops
from hyperlax.networks.by_platform import KNOWN, by_platform
from hyperlax.networks.circuit_check import problem
from hyperlax.networks.circuit_gates import Angles, Shared, States
from hyperlax.networks.circuit_loops import Decomposition

log = logging.getLogger("hyperlax")

VARIABLE = "HYPERLAX_CIRCUIT"
PATHS = ("loops", "grouped", "fused")
GATE_PARTS = 6
"""The number of arrays in a `circuit_loops.Decomposition`."""


def chosen() -> str:
    """The path that the environment names, or `auto`.

    Raises `ValueError` for any other name.
    """
    name = os.environ.get(VARIABLE) or "auto"
    if name not in ("auto", *PATHS):
        raise ValueError(f"{VARIABLE} is {name!r}; it must be one of auto, {', '.join(PATHS)}")
    return name


def path(platform: str, first: Angles) -> str:
    """The path for circuits with the angles `first` in a program that is compiled for `platform`.

    Raises `ValueError` where the fused kernels are asked for but cannot simulate the circuit, and
    `RuntimeError` where they are asked for but fail their check.
    """
    name = chosen()
    wires, batch = first.shape[2:]
    fits = wires <= circuit_fused.MOST_WIRES and first.dtype == jnp.float32
    if name == "fused" and not (fits and platform in KNOWN):
        raise ValueError(
            f"{VARIABLE}=fused simulates up to {circuit_fused.MOST_WIRES} wires in float32 on NVIDIA GPUs, "
            f"but this circuit has {wires} wires in {first.dtype}"
            f"{'' if platform in KNOWN else ', on another accelerator'}; use {VARIABLE}=auto or grouped"
        )
    if name == "auto":
        name = {"cpu": "loops", "cuda": "fused"}.get(platform, "grouped")
        if name == "fused" and not (fits and _trusted(wires, batch)):
            name = "grouped"
    elif name == "fused" and platform == "cuda" and (found := _found(wires, batch)):
        raise RuntimeError(f"{VARIABLE}=fused, but {found}; use {VARIABLE}=auto or grouped")
    _say(platform, name, chosen())
    return name


def _trusted(wires: int, batch: int) -> bool:
    """Whether the fused kernels have passed their check here, which a machine without a GPU cannot run."""
    found = _found(wires, batch)
    if found:
        _warn(found)
    return not found and _gpu() is not None


def _found(wires: int, batch: int) -> str | None:
    """What the check of the fused kernels has found on the GPU of this process, if there is one."""
    device = _gpu()
    return None if device is None else problem(device, wires, circuit_fused.tile(wires, batch))


def _gpu() -> Any:
    """A GPU of this process; None where a program is compiled for another machine."""
    try:
        return jax.local_devices(backend="cuda")[0]
    except RuntimeError:
        return None


@cache
def _say(platform: str, name: str, wanted: str) -> None:
    where = {"cpu": "a CPU", "cuda": "an NVIDIA GPU"}.get(platform, "an accelerator")
    note = ", interpreted and therefore slow" if (platform, name) == ("cpu", "fused") else ""
    log.info("Circuits on %s: %s path%s (%s=%s)", where, name, note, VARIABLE, wanted)


@cache
def _warn(found: str) -> None:
    log.warning("%s; the grouped path simulates these circuits instead", found)


def _forward(
    platform: str, first: Angles, second: Shared, signs: Array, depth: Array, steps: Array, *, keep: bool
) -> tuple[Array, ...]:
    name = path(platform, first)
    if name == "loops":
        with _single_precision(platform):
            z, states, gates = circuit_loops.forward(first, second, signs, steps)
        return (z, states, *jax.tree.leaves(gates)) if keep else (z,)
    if name == "fused":
        interpret = platform == "cpu"
        z, states = circuit_fused.forward(first, second, signs, depth, keep=keep, interpret=interpret)
    else:
        z, states = circuit_grouped.forward(first, second, signs)
    unused = [jnp.zeros_like(first[0])] * GATE_PARTS  # the compiler removes them
    return (z, states, *unused) if states is not None and keep else (z,)


def _backward(
    platform: str,
    first: Angles,
    second: Shared,
    signs: Array,
    depth: Array,
    steps: Array,
    states: States,
    *rest: Array,
) -> tuple[Angles, Shared]:
    *parts, cotangent = rest
    name = path(platform, first)
    if name == "loops":
        cos, sin, *phases = parts
        gates = Decomposition(cos, sin, (phases[0], phases[1]), (phases[2], phases[3]))
        with _single_precision(platform):
            return circuit_loops.backward(first, second, signs, steps, states, gates, cotangent)
    if name == "fused":
        interpret = platform == "cpu"
        return circuit_fused.backward(first, second, signs, depth, states, cotangent, interpret=interpret)
    return circuit_grouped.backward(first, second, signs, depth, states, cotangent)


def _single_precision(platform: str) -> AbstractContextManager[Any]:
    """Keep accelerators from rounding the factors of matrix products to fewer bits, as they do by default."""
    return nullcontext() if platform == "cpu" else jax.default_matmul_precision("highest")


def _forward_like(
    first: Angles, second: Shared, signs: Array, depth: Array, steps: Array, *, keep: bool
) -> tuple[Array, ...]:
    z = first[0, 0]
    states = jnp.zeros((2, signs.shape[1], z.shape[1]), z.dtype)
    return (z, states, *[first[0]] * GATE_PARTS) if keep else (z,)


def _as_on(run: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
    """`run`, traced for an accelerator where it is compiled for one, also in programs of one's own."""

    def traced(platform: str, *arrays: Array, **static: Any) -> tuple[Any, ...]:
        with nullcontext() if platform == "cpu" else tracing_for_accelerator():
            return run(platform, *arrays, **static)

    return traced


forward = by_platform("hyperlax_circuit", _as_on(_forward), _forward_like)
"""⟨σz⟩ of every wire and, with `keep`, what `backward` needs, from first, second, signs, depth and steps.

`steps` is the largest depth of all lanes; the other arguments are those of `circuit.expectations`. The shapes
of the result are the same for all paths: states, and the parts of gates that only `loops` keeps.
"""
backward = by_platform(
    "hyperlax_circuit_gradient", _as_on(_backward), lambda first, second, *_: (first, second)
)
"""The gradient by first and second, from the arguments of `forward`, what it kept, and the cotangent."""
