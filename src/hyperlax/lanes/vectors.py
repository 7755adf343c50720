"""Vectors of 512 bits in programs for CPUs: which functions XLA computes right in them.

LLVM prefers vectors of 256 bits, even where a CPU has AVX-512. XLA takes some functions from a library in C++
that is compiled for CPUs without such registers: it expects a vector of 512 bits in memory, but the caller
passes it in a register, and what comes back is arbitrary (jaxlib 0.10.2: the arctangent, and nothing else).
So every function is tried once per process, and a program that has a wrong one keeps LLVM's vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import jaxprs_in_params
from scipy import special

from hyperlax.lanes.compilation import compiler_options

TOLERANCE = 1e-4
"""The largest error of a function that is right in float32, relative to one plus its value."""


class Function(NamedTuple):
    """What JAX computes from numbers between 0.1 and 0.9, and what is right for them."""

    computed: Callable[[Any], Any]
    right: Callable[[Any], Any]


FUNCTIONS = {
    "acos": Function(lax.acos, np.arccos),
    "acosh": Function(lambda x: lax.acosh(x + 1), lambda x: np.arccosh(x + 1)),
    "asin": Function(lax.asin, np.arcsin),
    "asinh": Function(lax.asinh, np.arcsinh),
    "atan": Function(lax.atan, np.arctan),
    # XLA turns this special case into "atan".
    "atan2": Function(lambda x: lax.atan2(x, jnp.ones_like(x)), np.arctan),
    "atanh": Function(lax.atanh, np.arctanh),
    "bessel_i0e": Function(lax.bessel_i0e, special.i0e),
    "bessel_i1e": Function(lax.bessel_i1e, special.i1e),
    "cbrt": Function(lax.cbrt, np.cbrt),
    "ceil": Function(lax.ceil, np.ceil),
    "cos": Function(lax.cos, np.cos),
    "cosh": Function(lax.cosh, np.cosh),
    "digamma": Function(lax.digamma, special.psi),
    "div": Function(lambda x: (1 + x) / x, lambda x: (1 + x) / x),
    "erf": Function(lax.erf, special.erf),
    "erf_inv": Function(lax.erf_inv, special.erfinv),
    "erfc": Function(lax.erfc, special.erfc),
    "exp": Function(lax.exp, np.exp),
    "exp2": Function(lax.exp2, np.exp2),
    "expm1": Function(lax.expm1, np.expm1),
    "floor": Function(lambda x: lax.floor(3 * x), lambda x: np.floor(3 * x)),
    "lgamma": Function(lax.lgamma, special.gammaln),
    "log": Function(lax.log, np.log),
    "log1p": Function(lax.log1p, np.log1p),
    "logistic": Function(lax.logistic, special.expit),
    "pow": Function(lambda x: lax.pow(x, x + 1), lambda x: x ** (x + 1)),
    "rem": Function(lambda x: lax.rem(x + 1, x), lambda x: np.fmod(x + 1, x)),
    "round": Function(lambda x: lax.round(3 * x), lambda x: np.round(3 * x)),
    "rsqrt": Function(lax.rsqrt, lambda x: 1 / np.sqrt(x)),
    "sin": Function(lax.sin, np.sin),
    "sinh": Function(lax.sinh, np.sinh),
    "sqrt": Function(lax.sqrt, np.sqrt),
    "tan": Function(lax.tan, np.tan),
    "tanh": Function(lax.tanh, np.tanh),
}
"""Name of a primitive operation of JAX → a function that consists of it."""
if log2 := getattr(lax, "log2", None):  # from jax 0.12 on
    FUNCTIONS["log2"] = Function(log2, np.log2)
OF_COMPLEX_NUMBERS = {"atan2", "cos", "cosh", "exp", "expm1", "log", "log1p", "sin", "sinh", "sqrt", "tanh"}
"""The functions of real numbers of which XLA makes those of complex ones."""


def right_in_wide_vectors(jaxpr: Any) -> bool:
    """Whether XLA computes all `FUNCTIONS` in a jaxpr right in vectors of 512 bits on this CPU."""
    return not primitives(jaxpr) & wrong_in_wide_vectors()


@cache
def wrong_in_wide_vectors() -> frozenset[str]:
    """The names of those `FUNCTIONS` that XLA computes wrong in vectors of 512 bits on this CPU."""
    x = np.arange(26, 218, dtype=np.float32) / 256  # exact in float32, and so are three times as much
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        all_of = jax.jit(lambda x: {name: function.computed(x) for name, function in FUNCTIONS.items()})
        options = compiler_options("full", "cpu", wide_vectors=True)
        computed = all_of.lower(x).compile(compiler_options=options)(x)

    def is_right(name: str) -> bool:
        right = FUNCTIONS[name].right(x.astype(np.float64))
        error = np.abs(np.asarray(computed[name], np.float64) - right)
        return bool(np.all(error <= TOLERANCE * (1 + np.abs(right))))  # not so if any is NaN

    return frozenset(name for name in FUNCTIONS if not is_right(name))


def primitives(jaxpr: Any) -> set[str]:
    """The names of all primitive operations in a jaxpr, those inside loops, branches and calls included.

    For XLA, a function of a complex number consists of others, such as the arctangent of its parts.
    """
    names: set[str] = set()
    seen: set[int] = set()
    pending = [jaxpr]
    while pending:
        jaxpr = pending.pop()
        if id(jaxpr) in seen:
            continue
        seen.add(id(jaxpr))
        for equation in jaxpr.eqns:
            names.add(equation.primitive.name)
            if equation.primitive.name in FUNCTIONS and any(map(_is_complex, equation.invars)):
                names |= OF_COMPLEX_NUMBERS
            pending.extend(jaxprs_in_params(equation.params))
    return names


def _is_complex(variable: Any) -> bool:
    return jnp.issubdtype(getattr(variable.aval, "dtype", bool), jnp.complexfloating)
