"""Minibatches of different sizes in one program: shuffling a batch, cutting it, processing it in chunks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple, TypeVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray, UInt32

from hyperlax.lanes.constants import accelerated, constant, folded, known
from hyperlax.lanes.masking import lane_loop, lane_max, while_active
from hyperlax.lanes.shuffling import permuted
from hyperlax.lanes.sizes import Sizes

T = TypeVar("T")


@dataclass(frozen=True)
class Chunks:
    """The chunk `lengths` compiled into a program, ascending, and its largest minibatch, all in samples.

    `most_steps` is the largest number of gradient steps per cycle, if it is limited.
    """

    lengths: tuple[int, ...]
    minibatch_cap: int
    most_steps: int | None = None

    @classmethod
    def of(cls, caps: Sizes) -> Chunks:
        """The chunks of a program with the capacities `caps`."""
        return cls(caps["minibatch_chunks"], caps["minibatch"], caps.get("gradient_steps"))

    def choose(self, largest: Int[Array, ""], learn: Callable[[int], T]) -> T:
        """Call `learn(length)` with the smallest chunk that holds the `largest` minibatch, else the largest.

        The cost thus depends on the minibatches of the lane, not on the largest in the program. Call it once
        per cycle: a branch around every gradient step costs as much as a small gradient step.
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
        """Sum `part(position, valid)` over the chunks, `length` positions each, of a minibatch of `size`.

        There is a single chunk if `choose` found one that holds the minibatch.
        """

        def chunk(c: Any) -> Any:
            position = c * length + jnp.arange(length)
            return part(position, position < size)

        if length != self.lengths[-1] or length >= self.minibatch_cap:
            return chunk(0)
        zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(lambda: chunk(0)))
        add = lambda c, total: jax.tree.map(jnp.add, total, chunk(c))  # noqa: E731
        return lane_loop((size + length - 1) // length, add, zero)


@final
class Minibatch(eqx.Module):
    """One minibatch of a shuffled batch: `size` samples from position `start` of the shuffled order on.

    `number` counts the minibatches of all passes. In a program for accelerators, `order` holds the numbers of
    its samples.
    """

    start: Int[Array, ""]
    size: Int[Array, ""]
    batch: Int[Array, ""]
    number: Int[Array, ""]
    words: UInt32[Array, " 8"]
    chunks: Chunks = eqx.field(static=True)
    length: int = eqx.field(static=True)
    order: Int[Array, " positions"] | None = None

    def total(self, part: Callable[[Int[Array, " k"], Bool[Array, " k"]], Any]) -> Any:
        """Sum `part(index, valid)` over the minibatch, chunk by chunk.

        `index` holds the numbers, 0 … batch − 1, of the samples of a chunk; invalid ones are padding.
        """

        def shuffled(position: Int[Array, " k"], valid: Bool[Array, " k"]) -> Any:
            if self.order is not None:
                return part(self.order, valid)
            index = permuted(jnp.minimum(self.start + position, self.batch - 1), self.batch, self.words)
            return part(index, valid)

        return self.chunks.summed(self.length, self.size, shuffled)


class Part(NamedTuple):
    """Up to `length` minibatches of all passes together, from number `first` on."""

    first: Int[Array, ""]
    length: int


@final
class Passes(eqx.Module):
    """Passes over a batch of `batch` samples, each in a new random order and cut into `minibatches`.

    If `minibatches` does not divide `batch`, their sizes differ by one; with `drop` they have equal sizes and
    the remainder is left out. A lane that is not `active` takes no step.
    """

    batch: Int[Array, ""]
    minibatches: Int[Array, ""]
    epochs: Int[Array, ""]
    drop: Bool[Array, ""]
    active: Bool[Array, ""]
    words: UInt32[Array, "epochs 8"]
    chunks: Chunks = eqx.field(static=True)
    batch_cap: int = eqx.field(static=True)

    @staticmethod
    def drawn(epochs_cap: int, *, key: PRNGKeyArray) -> UInt32[Array, "epochs 8"]:
        """The random `words` that the orders of all passes are made from."""
        return jr.bits(key, (epochs_cap, 8), jnp.uint32)

    @property
    def steps(self) -> Int[Array, ""]:
        """The number of minibatches of all passes; zero for a lane that is not active."""
        return while_active(self.active, folded(lambda _, a, b: a * b, self.epochs, self.minibatches))

    def fold(self, step: Callable[[Minibatch, T], T], carry: T, part: Part | None = None) -> T:
        """Apply `carry = step(minibatch, carry)` to every minibatch of every pass; return the last.

        With `part`, which only programs for accelerators have, to those of one part of the passes.
        """
        if accelerated():
            return self._fold_at_once(step, carry, part)
        epochs = while_active(self.active, self.epochs)
        minibatches = while_active(self.active, self.minibatches)

        def descend(length: int) -> T:
            def minibatch(k: Any, j: Any, carry: T) -> T:
                start, size = minibatch_bounds(j, self.batch, self.minibatches, self.drop)
                number, words = k * self.minibatches + j, self.words[k]
                return step(Minibatch(start, size, self.batch, number, words, self.chunks, length), carry)

            def epoch(k: Any, carry: T) -> T:
                return lane_loop(minibatches, partial(minibatch, k), carry)

            return lane_loop(epochs, epoch, carry)

        largest = jnp.where(self.active, (self.batch + self.minibatches - 1) // self.minibatches, 1)
        return self.chunks.choose(largest, descend)

    def _fold_at_once(self, step: Callable[[Minibatch, T], T], carry: T, part: Part | None) -> T:
        """Fold as `fold` does, in one loop over the minibatches of all passes, whose orders are drawn first.

        Lanes with different numbers of passes and minibatches do not wait for one another after each pass.
        """
        first, steps, most = 0, self.steps, self.chunks.most_steps
        if part is not None:
            first, most = part.first, part.length
            steps = jnp.clip(self.steps - first, 0, most)
        length = self.chunks.lengths[-1]
        row = self.batch_cap + length  # the last minibatch may end in repetitions of the last sample
        position = folded(lambda xp, batch: xp.minimum(xp.arange(row, dtype=np.int32), batch - 1), self.batch)
        orders = jax.vmap(lambda words: permuted(position, self.batch, words))(self.words).reshape(-1)

        assert most is not None  # agents that learn in passes say in their sizes how many steps they take
        cut = folded(partial(_cut, most=most), first, self.batch, self.minibatches, self.drop)
        numbers, passes, starts, sizes = cut
        same = constant(np.asarray(cut)[3, 0]) if known(cut) and np.ptp(np.asarray(cut)[3]) == 0 else None
        places = passes * row + starts

        def minibatch(i: Any, carry: T) -> T:
            order = jax.lax.dynamic_slice_in_dim(orders, places[i], length)
            words = self.words[passes[i]]
            size = sizes[i] if same is None else same
            whole = Minibatch(starts[i], size, self.batch, numbers[i], words, self.chunks, length, order)
            return step(whole, carry)

        return lane_loop(steps, minibatch, carry, most)


def _cut(xp: ModuleType, first: Any, batch: Any, minibatches: Any, drop: Any, *, most: int) -> Any:
    """Number, pass, first position and size, [4, most], of the minibatches of all passes from `first` on.

    `xp` is the module to compute with, as in `folded`.
    """
    numbers = first + xp.arange(most, dtype=np.int32)
    bounds = minibatch_bounds(numbers % minibatches, batch, minibatches, drop, xp)
    return xp.stack([numbers, numbers // minibatches, *bounds])


def minibatch_bounds(
    j: Any, batch: Any, minibatches: Any, drop: Any, xp: ModuleType = jnp
) -> tuple[Any, Any]:
    """The first position and the size, each of the shape of `j`, of minibatch `j` in the shuffled batch.

    With `drop`, all minibatches have the same size and the remainder is left out; otherwise their sizes
    differ by at most one. `xp` is the module to compute with.
    """
    even = batch // minibatches
    more = batch % minibatches
    spread = j * even + xp.minimum(j, more)
    return xp.where(drop, j * even, spread), xp.where(drop, even, even + (j < more).astype(xp.int32))
