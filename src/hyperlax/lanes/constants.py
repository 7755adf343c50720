"""Values that are known while a program is traced, such as sizes that all of its lanes share.

In a program for accelerators, hyperparameters that no two lanes differ in are constants. A loop over a known
count has a known trip count, a branch on a known flag disappears, and neither is waited for by the host. The
functions here compute with such values at once, and with traced ones as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

_accelerated = ContextVar("_accelerated", default=False)
_differentiating = ContextVar("_differentiating", default=False)


def known(x: Any) -> bool:
    """Whether the value of the array `x` is known while the program is traced."""
    return not isinstance(x, Tracer)


def surely(x: Any, value: Any = True) -> bool:
    """Whether the array `x` is known, and known to be `value`."""
    return known(x) and bool(np.asarray(x) == value)


def constant(x: Any) -> Array:
    """`x` as an array whose value is known, also while a program is traced."""
    with jax.ensure_compile_time_eval():
        return jnp.asarray(x)


def folded(f: Callable[..., Any], *xs: Any) -> Array:
    """Compute `f(jnp, *xs)`; if every x is known, the result is known as well.

    The first argument of `f` is the module to compute with: NumPy for known values, else `jax.numpy`.
    """
    if all(known(x) for x in xs):
        return constant(f(np, *(np.asarray(x) for x in xs)))
    module: ModuleType = jnp
    return f(module, *xs)


def accelerated() -> bool:
    """Whether the program that is being traced is for an accelerator.

    There, time is the number of kernels in a chain, whatever they compute: padding is nearly free, and a
    branch or a loop of unknown length is waited for by the host. On a CPU, time is arithmetic.
    """
    return _accelerated.get()


def differentiating() -> bool:
    """Whether what is being traced for an accelerator will be differentiated by the weights."""
    return accelerated() and _differentiating.get()


@contextmanager
def tracing_for_accelerator(on: bool = True) -> Iterator[None]:
    """Let `accelerated` be `on` in the `with` block."""
    token = _accelerated.set(on)
    try:
        yield
    finally:
        _accelerated.reset(token)


@contextmanager
def tracing_a_loss() -> Iterator[None]:
    """Let `differentiating` be true in the `with` block, in a program for accelerators."""
    token = _differentiating.set(True)
    try:
        yield
    finally:
        _differentiating.reset(token)
