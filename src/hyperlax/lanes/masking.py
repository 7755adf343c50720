"""Masks and lane-uniform control flow, by which lanes of different sizes share one program.

A *lane* is one agent in training. Code is written for one lane; a program runs either a single lane (without
a batch axis) or many under `jax.vmap(axis_name=LANES)`. The helpers in this module are called in the same way
in both cases. Under `vmap` they reduce a loop bound or a predicate over the lanes to one scalar, so that a
loop stays a loop and a branch stays a branch, and they leave a lane that has finished unchanged. A bound or a
predicate that is known while the program is traced (see `constants`) needs neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray, PyTree, Shaped, UInt32

from hyperlax.lanes.constants import accelerated, folded, known
from hyperlax.lanes.rows import with_rows

LANES = "lanes"
T = TypeVar("T")


def batched() -> bool:
    """Whether the code that is being traced runs under `vmap(axis_name=LANES)`."""
    try:
        jax.lax.axis_size(LANES)
    except NameError:
        return False
    return True


def lane_max(x: Int[Array, ""]) -> Int[Array, ""]:
    """The largest `x` over the lanes; the same un-batched scalar for all of them."""
    return x if known(x) or not batched() else jax.lax.pmax(x, LANES)


def lane_any(x: Bool[Array, ""]) -> Bool[Array, ""]:
    """Whether `x` holds in any lane; the same un-batched scalar for all of them."""
    return lane_max(x.astype(jnp.int32)) > 0


@final
class Unfrozen(eqx.Module):
    """A large buffer that `freeze` never restores.

    Restoring means selecting between two copies, which would read and write the whole buffer. Code that
    writes to such a buffer must therefore write nothing for a lane that has finished.
    """

    value: PyTree


def select(pred: Bool[Array, ""], true: PyTree, false: PyTree) -> PyTree:
    """Choose between two trees of equal structure leaf by leaf: `true` where `pred` holds, else `false`."""
    if known(pred):
        return true if pred else false
    return jax.tree.map(lambda t, f: t if t is f else jnp.where(pred, t, f), true, false)


def freeze(active: Bool[Array, ""], new: PyTree, old: PyTree) -> PyTree:
    """Return `new` for a lane that is active and `old` otherwise; `Unfrozen` buffers are always `new`."""
    return jax.tree.map(lambda n, o: n if _unfrozen(n) else select(active, n, o), new, old, is_leaf=_unfrozen)


def _unfrozen(node: Any) -> bool:
    return isinstance(node, Unfrozen)


def lane_loop(
    n: Int[Array, ""],
    body: Callable[[Int[Array, ""], T], T],
    carry: T,
    most: int | None = None,
) -> T:
    """Compute `for i in range(n): carry = body(i, carry)`, where `n` may differ between the lanes.

    The loop runs for the largest `n` of all lanes; a lane that has finished keeps its carry. If `n` is known,
    so is the trip count. With `most`, which no `n` exceeds, an accelerator takes that many steps in any case.
    """
    if known(n):
        return jax.lax.fori_loop(0, int(n), body, carry)
    if accelerated() and most is not None:
        return jax.lax.fori_loop(0, most, lambda i, c: freeze(i < n, body(i, c), c), carry)
    if not batched():
        return jax.lax.fori_loop(0, n, body, carry)
    return jax.lax.fori_loop(0, lane_max(n), lambda i, c: freeze(i < n, body(i, c), c), carry)


def lane_loop_with_scratch(
    n: Int[Array, ""],
    body: Callable[[Int[Array, ""], T, Any], tuple[T, Any]],
    carry: T,
    scratch: Any,
) -> tuple[T, Any]:
    """Compute `for i in range(n): carry, scratch = body(i, carry, scratch)`, with `n` different per lane.

    A lane that has finished keeps its carry, as in `lane_loop`, but not its scratch, which the remaining
    iterations go on writing to. This saves copying a large buffer in every iteration, and is correct when a
    lane only reads what it wrote within its own count.
    """
    whole = lambda i, cs: body(i, *cs)  # noqa: E731
    if known(n):
        return jax.lax.fori_loop(0, int(n), whole, (carry, scratch))
    if not batched():
        return jax.lax.fori_loop(0, n, whole, (carry, scratch))

    def step(i: Any, cs: tuple[T, Any]) -> tuple[T, Any]:
        new, written = whole(i, cs)
        return freeze(i < n, new, cs[0]), written

    return jax.lax.fori_loop(0, lane_max(n), step, (carry, scratch))


def lane_rows(
    n: Int[Array, ""],
    body: Callable[[Int[Array, ""], T, list[Array]], tuple[T, Shaped[Array, " *row"]]],
    carry: T,
    like: jax.ShapeDtypeStruct,
    at_once: int = 1,
    read: Sequence[Array] = (),
) -> tuple[T, Shaped[Array, "most *row"]]:
    """Compute `for i in range(n): carry, table[i] = body(i, carry, read)` in a program for accelerators.

    `like` gives the shape and dtype of the table, [rows, *row]. `n` may differ between the lanes and never
    exceeds the number of rows; where it is not known, a step is taken for every row. A lane that has finished
    keeps its carry, and its other rows are undefined. No kernel fills a table whose rows are all written. Up
    to `at_once` steps are one iteration of the program, as many as divide their number: between them nothing
    is copied and nothing counted, what they compute may be fused, and their rows are written together. The
    arrays of `read` are others to XLA in every step: a part that several steps read would be copied for them.
    """
    trips = int(n) if known(n) else like.shape[0]
    table = (jax.lax.empty if trips == like.shape[0] else jnp.zeros)(like.shape, like.dtype)
    together = max(k for k in range(1, at_once + 1) if trips % k == 0)
    step = jax.jit(body)  # traced once

    def iteration(j: Int[Array, ""], state: tuple) -> tuple:
        carry, table = state
        rows, arrays = [], list(read)
        for i in (j * together + k for k in range(together)):
            arrays = [jax.lax.optimization_barrier(x) for x in arrays]
            new, row = step(i, carry, arrays)
            carry = new if known(n) else freeze(i < n, new, carry)
            rows.append(row)
        return carry, with_rows(table, jnp.stack(rows), j * together)

    return jax.lax.fori_loop(0, trips // together, iteration, (carry, table))


def while_active(active: Bool[Array, ""], n: Int[Array, ""]) -> Int[Array, ""]:
    """`n` as the count of a loop: zero for a lane that is not `active`, so that it keeps no other lane busy.

    A known `n` stays: all lanes share it, so that none can keep the others busy.
    """
    return n if known(n) else jnp.where(active, n, 0)


def lane_while(more: Callable[[T], Bool[Array, ""]], body: Callable[[T], T], carry: T) -> T:
    """Compute `while more(carry): carry = body(carry)`; a lane that has finished keeps its carry."""
    if not batched():
        return jax.lax.while_loop(more, body, carry)
    return jax.lax.while_loop(lambda c: lane_any(more(c)), lambda c: freeze(more(c), body(c), c), carry)


def lane_cond(
    pred: Bool[Array, ""],
    true: Callable[..., T],
    false: Callable[..., T],
    *operands: Any,
    costly: bool = False,
) -> T:
    """Compute `true(*operands) if pred else false(*operands)`; `true` only if `pred` holds in some lane.

    A program for accelerators computes both, which is faster than a branch, unless `true` is `costly`.
    """
    if known(pred):
        return true(*operands) if pred else false(*operands)
    if accelerated() and not costly:
        return select(pred, true(*operands), false(*operands))
    if not batched():
        return jax.lax.cond(pred, true, false, *operands)
    return jax.lax.cond(
        lane_any(pred), lambda *xs: select(pred, true(*xs), false(*xs)), lambda *xs: false(*xs), *operands
    )


def lane_switch(index: Int[Array, ""], cases: Mapping[int, Callable[..., Array]], *operands: Any) -> Array:
    """What the case of `index` returns for `operands`; only that one is computed in a single lane.

    A program for accelerators computes all of them, which is faster than a branch.
    """
    if known(index):
        return cases[int(index)](*operands)
    (*others, last), functions = cases.items(), list(cases.values())
    if not accelerated():
        in_order = list(cases) == list(range(len(cases)))
        position = index if in_order else jnp.argmax(jnp.asarray(list(cases)) == index).astype(jnp.int32)
        return jax.lax.switch(position, functions, *operands)
    out = last[1](*operands)
    for number, function in others:
        out = jnp.where(index == number, function(*operands), out)
    return out


def leading(n: Int[Array, ""], cap: int) -> Bool[Array, " {cap}"]:
    """The mask of the first `n` of `cap` entries, which is known if `n` is."""
    return folded(lambda xp, n: xp.arange(cap) < n, n)


def masked_sum(x: Float[Array, " n *rest"], valid: Bool[Array, " n"]) -> Float[Array, "*rest"]:
    """The sum over the leading axis of `x`, of valid rows only."""
    return jnp.sum(jnp.where(valid.reshape(valid.shape + (1,) * (x.ndim - 1)), x, 0), axis=0)


def masked_mean(x: Float[Array, " n *rest"], valid: Bool[Array, " n"]) -> Float[Array, "*rest"]:
    """The mean over the leading axis of `x`, of valid rows only; zero when no row is valid."""
    return masked_sum(x, valid) / jnp.maximum(jnp.sum(valid), 1).astype(x.dtype)


def masked_moments(
    x: Float[Array, " n *rest"], valid: Bool[Array, " n"]
) -> tuple[Float[Array, "*rest"], Float[Array, "*rest"]]:
    """Mean and population variance over the leading axis of `x`, of valid rows only.

    Taken in two passes; on accelerators, where each is a kernel or two, in one.
    """
    if accelerated():
        return _moments_at_once(x, valid)
    mean = masked_mean(x, valid)
    return mean, masked_mean((x - mean[None]) ** 2, valid)


def _moments_at_once(
    x: Float[Array, " n *rest"], valid: Bool[Array, " n"]
) -> tuple[Float[Array, "*rest"], Float[Array, "*rest"]]:
    """`masked_moments` as one reduction, which combines counts, means and sums of squares of two parts.

    Chan, Golub & LeVeque (1983), "Algorithms for computing the sample variance: analysis and
    recommendations", the formula for parts of any size.
    """

    def combined(one: tuple, other: tuple) -> tuple:
        (n, mean, squares), (m, mean_of_other, squares_of_other) = one, other
        total = n + m
        share, apart = m / jnp.maximum(total, 1), mean_of_other - mean
        return total, mean + apart * share, squares + squares_of_other + apart**2 * n * share

    used = jnp.broadcast_to(valid.reshape(valid.shape + (1,) * (x.ndim - 1)), x.shape)
    parts = used.astype(x.dtype), jnp.where(used, x, 0), jnp.zeros_like(x)
    zero = np.zeros((), x.dtype)
    n, mean, squares = jax.lax.reduce(parts, (zero, zero, zero), combined, (0,))
    return mean, squares / jnp.maximum(n, 1)


def row_keys(key: PRNGKeyArray, n: int) -> Key[Array, " n"]:
    """`n` keys, one per row of a padded axis; the i-th key does not depend on `n`, hence not on padding."""
    return jax.vmap(lambda i: jr.fold_in(key, i))(jnp.arange(n))


def standard_normal(words: UInt32[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Standard normal numbers from random 32-bit words, by the same transformation as in `jr.normal`."""
    least = np.nextafter(np.float32(-1), np.float32(0))
    one_to_two = jax.lax.bitcast_convert_type((words >> jnp.uint32(9)) | jnp.uint32(0x3F800000), jnp.float32)
    uniform = jnp.maximum(least, (one_to_two - 1) * (1 - least) + least)
    return math.sqrt(2) * jax.lax.erf_inv(uniform)
