"""The comparison that the fused kernels must pass on a GPU before they are used there."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hyperlax.networks import circuit_fused, circuit_grouped

LAYERS = 4
"""Layers of the circuits that are compared; one of the two lanes does not use the last one."""
TOLERANCE = 1e-4
"""Largest difference that counts as rounding, relative to the largest value or derivative, at least 1."""
COMPARED = ("values", "derivatives by the angles of every circuit", "derivatives by the shared angles")


@cache
def problem(device: Any, wires: int, tile: int) -> str | None:
    """Say what is wrong with the fused kernels on `device` for circuits of `wires` wires; None if nothing is.

    `tile` is the number of circuits that one program of the kernel simulates. Values and gradients of two
    lanes of different depth are compared with those of the grouped path on the same device. The comparison
    runs in a thread of its own, because callers may be in the middle of tracing another program.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_compare, device, wires, tile).result()


def _compare(device: Any, wires: int, tile: int) -> str | None:
    arguments = jax.device_put(_drawn(wires, tile), device)
    expected = _run(_grouped, arguments)
    kernel = f"the fused circuit kernel for {wires} wires on {device.device_kind}"
    try:
        found = _run(partial(_fused, device.platform == "cpu"), arguments)
    except Exception as error:
        first_line = (str(error).strip().splitlines() or [""])[0][:200]
        return f"{kernel} does not run ({type(error).__name__}: {first_line})"
    for name, a, b in zip(COMPARED, found, expected, strict=True):
        difference, scale = float(np.max(np.abs(a - b))), max(1.0, float(np.max(np.abs(b))))
        if not difference <= TOLERANCE * scale:
            return (
                f"{kernel} was compared with the grouped path and found wrong: {name} differ by "
                f"{difference:.2g}, where rounding explains {TOLERANCE * scale:.2g}"
            )
    return None


def _drawn(wires: int, tile: int) -> tuple[np.ndarray, ...]:
    """Angles, signs, depths and cotangents of two lanes."""
    rng = np.random.default_rng(wires)
    batch = tile * circuit_fused.LEAST_PROGRAMS if tile > 1 else 3
    depth = np.array([LAYERS - 1, LAYERS - 2], np.int32)
    used = (np.arange(LAYERS) <= depth[:, None])[:, None, :, None, None]
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    first, second = (normal(2, 3, LAYERS, wires, n) * used for n in (batch, 1))
    signs = rng.choice(np.array([-1, 1], np.float32), (2, 2, 2**wires))
    return first, second, signs, depth, normal(2, wires, batch)


def _run(simulate: Callable[..., tuple[Array, ...]], arguments: Any) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(x) for x in jax.jit(jax.vmap(simulate))(*arguments))


def _grouped(first: Any, second: Any, signs: Any, depth: Any, cotangent: Any) -> tuple[Array, ...]:
    z, states = circuit_grouped.forward(first, second, signs)
    return z, *circuit_grouped.backward(first, second, signs, depth, states, cotangent)


def _fused(
    interpret: bool, first: Any, second: Any, signs: Any, depth: Any, cotangent: Any
) -> tuple[Array, ...]:
    z, states = circuit_fused.forward(first, second, signs, depth, keep=True, interpret=interpret)
    assert states is not None
    by_angles = circuit_fused.backward(first, second, signs, depth, states, cotangent, interpret=interpret)
    return jnp.asarray(z), *by_angles
