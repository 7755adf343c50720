"""Writing rows of a table, at a place that all lanes share."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Int, Shaped


def with_rows(
    table: Shaped[Array, "rows *row"], rows: Shaped[Array, "some *row"], first: Int[Array, ""]
) -> Shaped[Array, "rows *row"]:
    """`table` with `rows` in place of its own from row `first` on, all of which must be within it.

    If all lanes write to the same place, this is one update of a slice in a program of any number of lanes.
    `table.at[first].set(row)` would be a scatter there, for which a GPU checks the place in a kernel of its
    own.
    """
    return _for_all_lanes(table, rows, first)


def _updated(table: Array, rows: Array, first: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(table, rows, first, 0)


_for_all_lanes = custom_vmap(_updated)


@_for_all_lanes.def_vmap
def _batched(lanes: int, mapped: list[bool], table: Array, rows: Array, first: Array) -> tuple[Array, bool]:
    """The rule for `vmap`, whose own would be a scatter: the rows of all lanes lie along the second axis."""
    if mapped[2]:
        return jax.vmap(_updated, [0 if axis else None for axis in mapped])(table, rows, first), True
    tables, new = (
        x if axis else jnp.broadcast_to(x, (lanes, *x.shape))
        for x, axis in zip((table, rows), mapped[:2], strict=True)
    )
    return jax.lax.dynamic_update_slice_in_dim(tables, new, first, 1), True
