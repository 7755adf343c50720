"""Rows that all lanes write to the same place of a table are one update of a slice."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax.lanes.rows import with_rows


def numbers(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("shared", ["neither", "table", "rows", "both"])
def test_lanes_write_what_each_of_them_would_alone(shared):
    table = numbers(7, 3) if shared in ("table", "both") else numbers(5, 7, 3)
    rows = numbers(2, 3) if shared in ("rows", "both") else numbers(5, 2, 3)
    axes = (0 if table.ndim == 3 else None, 0 if rows.ndim == 3 else None, None)
    if shared == "both":
        found = jax.vmap(lambda _: with_rows(table, rows, jnp.int32(4)))(jnp.arange(5))
    else:
        found = jax.jit(jax.vmap(with_rows, axes))(table, rows, jnp.int32(4))
    for lane in range(5):
        alone = np.array(table if table.ndim == 2 else table[lane])
        alone[4:6] = rows if rows.ndim == 2 else rows[lane]
        np.testing.assert_array_equal(found[lane], alone)


def test_lanes_may_write_to_places_of_their_own():
    table, rows, first = numbers(5, 7, 3), numbers(5, 2, 3), jnp.arange(5)
    found = jax.vmap(with_rows)(table, rows, first)
    for lane in range(5):
        np.testing.assert_array_equal(found[lane], with_rows(table[lane], rows[lane], first[lane]))


def test_a_place_that_lanes_share_needs_no_scatter():
    """In a loop, too, whose counter it is."""

    def run(table, rows):
        return jax.lax.fori_loop(0, 6, lambda i, t: with_rows(t, rows, i), table)

    text = jax.jit(jax.vmap(run)).lower(numbers(5, 7, 3), numbers(5, 2, 3)).as_text()
    assert "dynamic_update_slice" in text
    assert "scatter" not in text
