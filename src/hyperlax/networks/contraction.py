"""The matrix of a matrix product operator in few kernels, for accelerators.

Contracting one core after the other takes a kernel for every product, and another one to bring the axes of
its result into the order of the next. There are two ways around that:

- Of a few small cores, all products of their entries can be formed and added up. XLA makes one kernel of
  that, whatever the order of the axes, and the derivative by every factor is again such a sum.
- Of more cores, one gather arranges the entries so that every product is a plain matrix product, whose result
  is the next factor as it lies in memory. Both halves of the chain of cores grow at the same time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hyperlax.networks.arrangement import ONE, ZERO, arranged, places
from hyperlax.networks.extended import with_whole_gradient

Core = Float[Array, "_ _ _ _"]
"""A core of a matrix product operator, with the axes input, left bond, right bond and output."""
MOST_CORES = 3
"""The most cores that are joined at once."""
SUMMED_CORES, SUMMED_BOND, SUMMED_PRODUCTS = 6, 8, 2**20
"""The most cores, the largest bond, and the most products per matrix for which sums of products are chosen.

Compiled for an H100, six cores of bond 8 take 14 kernels forwards and backwards, and 18 as matrix products;
seven of bond 16 take 36, and 20 as matrix products.
"""


def formed(
    first: Float[Array, "..."],
    middle: Sequence[Core],
    last: Float[Array, "..."],
    count: Int[Array, ""] | None,
) -> Float[Array, "outputs inputs"]:
    """The matrix of the operator with the cores of an `hyperlax.networks.mpo.MPO`.

    If lanes of its program differ in the number of cores, `count` is that of the lane.
    """
    local, bond = first.shape[:2]
    cores = len(middle) + 2
    products = local ** (2 * cores) * bond
    if count is None and cores <= SUMMED_CORES and bond <= SUMMED_BOND and products <= SUMMED_PRODUCTS:
        first, last, *middle = (with_whole_gradient(core) for core in (first, last, *middle))
        return joined([first[:, None], *reversed(middle), last[:, :, None]])[:, 0, 0].T
    entries = jnp.concatenate([core.ravel() for core in (first, *middle, last)])
    return Chain(cores, bond, local).matrix(with_whole_gradient(entries), count)


def joined(cores: Sequence[Core]) -> Core:
    """Neighbouring cores as a single one; its inputs and outputs are those of all, the first ones outermost.

    The bonds between them are summed over.
    """
    if len(cores) == 1:
        return cores[0]
    if len(cores) > MOST_CORES:
        half = (len(cores) + 1) // 2
        return joined([joined(cores[:half]), joined(cores[half:])])
    inputs, bonds, outputs = (letters[: len(cores)] for letters in ("abc", "xyz", "ijk"))
    right = bonds[1:] + "w"
    terms = ["".join(axes) for axes in zip(inputs, bonds, right, outputs, strict=True)]
    found = sum_of_products(f"{','.join(terms)}->{inputs}{bonds[0]}{right[-1]}{outputs}", *cores)
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


@dataclass(frozen=True)
class Chain:
    """A chain of cores: how many, their bond dimension, and the local dimension of inputs and outputs.

    Entries of cores lie in one vector: the first core, those in the middle from the last towards the first,
    and the last, as in `hyperlax.networks.mpo.MPO`. The left half holds the first cores, the right half the
    last ones; if their number is odd, the left half has one more.
    """

    cores: int
    bond: int
    local: int

    @property
    def left(self) -> int:
        """The number of cores in the left half."""
        return (self.cores + 1) // 2

    @property
    def right(self) -> int:
        """The number of cores in the right half."""
        return self.cores - self.left

    def matrix(
        self, entries: Float[Array, " entries"], count: Int[Array, ""] | None = None
    ) -> Float[Array, "outputs inputs"]:
        """The matrix of the operator; its outermost input and output are those of the first core.

        A lane with only `count` cores of its own has identities in front of them.
        """
        index, inverse = self._table(count)
        pairs, bond = self.local**2, self.bond
        ends, steps = jnp.split(arranged(entries, index, inverse), [2 * pairs * bond])
        steps = steps.reshape(self.left - 1, 2, bond, pairs * bond)
        product = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
        halves = ends.reshape(2, pairs, bond)  # [half, pairs of input and output so far, bond]
        for step in steps[: self.right - 1]:
            halves = product("hpb,hbq->hpq", halves, step).reshape(2, -1, bond)
        left, right = halves
        if self.left > self.right:
            left = product("pb,bq->pq", left, steps[-1, 0]).reshape(-1, bond)
        whole = product("pb,qb->pq", left, right).reshape((self.local,) * (2 * self.cores))
        at = [*range(self.left), *reversed(range(self.left, self.cores))]  # where the pair of each core is
        order = [2 * place + 1 for place in at] + [2 * place for place in at]
        return whole.transpose(order).reshape(self.local**self.cores, -1)

    def _table(self, count: Int[Array, ""] | None) -> tuple[Int[Array, " places"], Int[Array, " entries"]]:
        if count is None:
            index, inverse = _tables(self, self.cores)
            return jnp.asarray(index), jnp.asarray(inverse)
        tables = zip(*(_tables(self, own) for own in range(2, self.cores + 1)), strict=True)
        index, inverse = (jnp.asarray(np.stack(rows))[count - 2] for rows in tables)
        return index, inverse

    def numbered(self, count: int) -> list[np.ndarray]:
        """The numbers of the entries of every core, [input, left bond, right bond, output].

        The first core has no left bond, and the last no right bond: axes of length one.
        """
        bond, local = self.bond, self.local
        end, middle = (local, bond, local), (local, bond, bond, local)
        sizes = [np.prod(end)] + [np.prod(middle)] * (self.cores - 2)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        numbers = lambda i, shape: starts[i] + np.arange(np.prod(shape)).reshape(shape)  # noqa: E731
        passing, entering = np.full(middle, ZERO), np.full(middle, ZERO)
        passing[np.arange(local), 0, 0, np.arange(local)] = ONE
        entering[:, 0] = numbers(0, end)
        before = self.cores - count
        found = [passing] * before + [entering]
        found += [numbers(i, middle) for i in reversed(range(1, count - 1))]
        found += [numbers(self.cores - 1, end)[:, :, None]]
        return [found[0][:, :1], *found[1:]]


@cache
def _tables(chain: Chain, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `index` of the arranged cores and its `inverse`, as `arranged` takes them.

    The cores at both ends are matrices [pair, bond]; the others are matrices [inner bond, pair and outer
    bond], where a bond is inner if it leads to the end of its half. A pair is an input and an output.
    """
    cores = chain.numbered(count)
    fore = [core.transpose(1, 0, 3, 2).ravel() for core in cores[: chain.left]]
    back = [core.transpose(2, 0, 3, 1).ravel() for core in reversed(cores[chain.left :])]
    nothing = [np.full_like(fore[-1], ZERO)] * (chain.left - chain.right)
    index = np.concatenate([x for pair in zip(fore, back + nothing, strict=True) for x in pair])
    return index.astype(np.int32), places(index, int(max(index)) + 1)
