"""Contractions of small tensors for accelerators, each as one kernel.

As matrix products, the contractions that join the cores of a matrix product operator take a kernel each, and
another one to bring the axes of every result into the order of the next. The tensors are so small that all
products of their entries can be formed and added up instead. XLA makes one kernel of that, whatever the order
of the axes, and the derivative by every factor is again such a sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Core = Float[Array, "_ _ _ _"]
"""A core of a matrix product operator, with the axes input, left bond, right bond and output."""
MOST_PRODUCTS = 2**20
"""The most products of a sum per matrix; more are expected to cost more than the kernels saved (untimed)."""
MOST_CORES = 3
"""The most cores that are joined at once."""


def joined(cores: Sequence[Core]) -> Core:
    """Neighbouring cores as a single one; its inputs and outputs are those of all, the first ones outermost.

    The bonds between them are summed over.
    """
    if len(cores) == 1:
        return cores[0]
    ends = cores[0].shape[1] * math.prod(core.shape[2] for core in cores)
    products = ends * math.prod(core.shape[0] * core.shape[3] for core in cores)
    if len(cores) > 2 and (len(cores) > MOST_CORES or products > MOST_PRODUCTS):
        half = (len(cores) + 1) // 2
        return joined([joined(cores[:half]), joined(cores[half:])])
    inputs, bonds, outputs = (letters[: len(cores)] for letters in ("abc", "xyz", "ijk"))
    right = bonds[1:] + "w"
    terms = ["".join(axes) for axes in zip(inputs, bonds, right, outputs, strict=True)]
    formula = f"{','.join(terms)}->{inputs}{bonds[0]}{right[-1]}{outputs}"
    contracted: Callable[..., Array] = sum_of_products if products <= MOST_PRODUCTS else jnp.einsum
    found = contracted(formula, *cores)
    ins, outs = (math.prod(core.shape[axis] for core in cores) for axis in (0, 3))
    return found.reshape(ins, cores[0].shape[1], cores[-1].shape[2], outs)


def sum_of_products(formula: str, *factors: Float[Array, "..."]) -> Float[Array, "..."]:
    """Compute `jnp.einsum(formula, *factors)` without matrix products.

    No letter occurs twice in a factor, and each is in the result or in two factors.
    """
    return _differentiable(formula, *factors)


def _sum_of_products(formula: str, *factors: Array) -> Array:
    terms, result = _parsed(formula)
    letters = [*result, *sorted({*"".join(terms)} - {*result})]
    whole: Array | float = 1.0
    for term, factor in zip(terms, factors, strict=True):
        order = sorted(range(len(term)), key=lambda axis: letters.index(term[axis]))
        lacking = [axis for axis, letter in enumerate(letters) if letter not in term]
        whole = whole * jnp.expand_dims(factor.transpose(order), lacking)
    return jnp.sum(jnp.asarray(whole), axis=tuple(range(len(result), len(letters))))


def _parsed(formula: str) -> tuple[list[str], str]:
    terms, _, result = formula.partition("->")
    return terms.split(","), result


def _forward(formula: str, *factors: Array) -> tuple[Array, tuple[Array, ...]]:
    return _sum_of_products(formula, *factors), factors


def _backward(formula: str, factors: tuple[Array, ...], cotangent: Array) -> tuple[Array, ...]:
    """The derivatives: for each factor the same sum with the cotangent in its place."""
    terms, result = _parsed(formula)
    return tuple(
        sum_of_products(
            f"{','.join([result, *terms[:i], *terms[i + 1 :]])}->{term}",
            cotangent,
            *factors[:i],
            *factors[i + 1 :],
        )
        for i, term in enumerate(terms)
    )


_differentiable: Any = jax.custom_vjp(_sum_of_products, nondiff_argnums=(0,))
_differentiable.defvjp(_forward, _backward)
