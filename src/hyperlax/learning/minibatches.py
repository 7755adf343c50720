"""Minibatches of different sizes in one program: the chunk a lane's samples are processed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from hyperlax.lanes.masking import lane_loop, lane_max
from hyperlax.networks.base import Sizes


@dataclass(frozen=True)
class Chunks:
    """The chunk `lengths` compiled into a program, ascending, and the largest minibatch of its lanes."""

    lengths: tuple[int, ...]
    minibatch_cap: int

    @classmethod
    def of(cls, caps: Sizes) -> Chunks:
        return cls(caps["minibatch_chunks"], caps["minibatch"])

    def choose(self, largest: Int[Array, ""], learn: Callable[[int], Any]) -> Any:
        """`learn(length)` with the smallest chunk that holds the `largest` minibatch, else the largest one.

        Work follows the lane's minibatches, not the largest in the program; chosen once per cycle, because
        a branch around every gradient step costs as much as a small gradient step.
        """
        if len(self.lengths) == 1:
            return learn(self.lengths[0])
        which = jnp.sum(jnp.asarray(self.lengths[:-1], jnp.int32) < largest, dtype=jnp.int32)
        return jax.lax.switch(lane_max(which), [lambda n=n: learn(n) for n in self.lengths])

    def summed(
        self,
        length: int,
        size: Int[Array, ""],
        part: Callable[[Int[Array, " length"], Bool[Array, " length"]], Any],
    ) -> Any:
        """The sum of `part(position, valid)` over the chunks of a minibatch of `size`.

        A single one where `choose` found a chunk that holds the minibatch.
        """

        def chunk(c: Any) -> Any:
            position = c * length + jnp.arange(length)
            return part(position, position < size)

        if length != self.lengths[-1] or length >= self.minibatch_cap:
            return chunk(0)
        zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(lambda: chunk(0)))
        add = lambda c, total: jax.tree.map(jnp.add, total, chunk(c))  # noqa: E731
        return lane_loop((size + length - 1) // length, add, zero)
