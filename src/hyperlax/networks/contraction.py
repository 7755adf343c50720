"""The matrix of a matrix product operator in few kernels, for accelerators.

Contracting one core after the other takes a kernel for every product, and more to bring the axes of its
result into the order of the next. Here, one gather arranges all cores so that every product is a plain matrix
product, whose result is the next factor as it lies in memory. Both halves of the chain grow at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hyperlax.networks.arrangement import ONE, ZERO, arranged, places


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
