"""Minibatches in chunks: the chunk that fits is taken, and nothing is summed twice or left out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax.lanes.masking import LANES
from hyperlax.learning.minibatches import Chunks

VALUES = jnp.arange(1.0, 40.0)


def total(chunks, size):
    """The sum of the first `size` values, by whatever chunks, and the length that was chosen."""

    def part(position, valid):
        return jnp.sum(jnp.where(valid, VALUES[jnp.minimum(position, 38)], 0))

    def learn(length):
        return chunks.summed(length, size, part), jnp.int32(length)

    return chunks.choose(size, learn)


@pytest.mark.parametrize(
    ("lengths", "cap", "chosen"),
    [
        ((4, 9, 30), 30, {1: 4, 4: 4, 5: 9, 9: 9, 10: 30, 30: 30}),
        ((4, 9), 30, {3: 4, 9: 9, 10: 9, 30: 9}),
        ((7,), 30, {1: 7, 7: 7, 8: 7, 30: 7}),
        ((30,), 30, {1: 30, 30: 30}),
    ],
)
def test_every_minibatch_is_summed_once_in_the_smallest_chunk_that_holds_it(lengths, cap, chosen):
    chunks = Chunks(lengths, cap)
    run = jax.jit(lambda size: total(chunks, size))
    for size, length in chosen.items():
        found, used = run(jnp.int32(size))
        assert int(used) == length
        np.testing.assert_allclose(found, size * (size + 1) / 2)


def test_mapped_lanes_use_the_chunk_of_the_largest_minibatch():
    chunks = Chunks((4, 9, 30), 30)
    sizes = jnp.asarray([2, 6, 9], jnp.int32)
    found, used = jax.vmap(lambda size: total(chunks, size), axis_name=LANES)(sizes)
    np.testing.assert_allclose(found, sizes * (sizes + 1) // 2)
    assert used.tolist() == [9, 9, 9]
