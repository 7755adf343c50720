"""Lane-uniform control flow and masks: how lanes of different sizes share one program.

A *lane* is one agent in training. Code is written for one lane; a program runs either a single lane (no
batch axis at all) or many under `jax.vmap(axis_name=LANES)`. The helpers here read the same in both cases:
a bound or a predicate is reduced over the lanes, so that it is a scalar, a loop stays a loop and a branch a
branch, and a lane past its own count is left unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt32

LANES = "lanes"
T = TypeVar("T")


def batched() -> bool:
    """Whether the code being traced runs under `vmap(axis_name=LANES)`."""
    try:
        jax.lax.axis_size(LANES)
    except NameError:
        return False
    return True


def lane_max(x: Int[Array, ""]) -> Int[Array, ""]:
    """The largest `x` over the lanes; the same un-batched scalar for all of them."""
    return jax.lax.pmax(x, LANES) if batched() else x


def lane_any(x: Bool[Array, ""]) -> Bool[Array, ""]:
    """Whether `x` holds in any lane; the same un-batched scalar for all of them."""
    return lane_max(x.astype(jnp.int32)) > 0


@final
class Unfrozen(eqx.Module):
    """A large buffer that `freeze` passes on as it is.

    Undoing a write by selecting between two copies would read and write the whole buffer. Whoever writes to
    it must therefore write nothing for a lane that is done.
    """

    value: PyTree


def select(pred: Bool[Array, ""], true: PyTree, false: PyTree) -> PyTree:
    """`true` where `pred`, else `false`, leaf by leaf."""
    return jax.tree.map(lambda t, f: t if t is f else jnp.where(pred, t, f), true, false)


def freeze(active: Bool[Array, ""], new: PyTree, old: PyTree) -> PyTree:
    """`new` where the lane is active, else `old`, leaf by leaf; `Unfrozen` buffers are always new."""
    return jax.tree.map(lambda n, o: n if _unfrozen(n) else select(active, n, o), new, old, is_leaf=_unfrozen)


def _unfrozen(node: Any) -> bool:
    return isinstance(node, Unfrozen)


def lane_loop(n: Int[Array, ""], body: Callable[[Int[Array, ""], T], T], carry: T) -> T:
    """`for i in range(n): carry = body(i, carry)`, with `n` different in every lane.

    Runs as often as the longest lane asks; a lane that is done keeps its carry.
    """
    if not batched():
        return jax.lax.fori_loop(0, n, body, carry)
    return jax.lax.fori_loop(0, lane_max(n), lambda i, c: freeze(i < n, body(i, c), c), carry)


def lane_loop_with_scratch(
    n: Int[Array, ""], body: Callable[[Int[Array, ""], T, Any], tuple[T, Any]], carry: T, scratch: Any
) -> tuple[T, Any]:
    """`lane_loop` whose `scratch` is not kept for lanes that are done.

    For large buffers of which a lane reads only what it wrote itself: writing past its own count is
    harmless, and copying the whole buffer to undo it would not be.
    """
    if not batched():
        return jax.lax.fori_loop(0, n, lambda i, cs: body(i, *cs), (carry, scratch))

    def step(i: Any, cs: tuple[T, Any]) -> tuple[T, Any]:
        new, written = body(i, *cs)
        return freeze(i < n, new, cs[0]), written

    return jax.lax.fori_loop(0, lane_max(n), step, (carry, scratch))


def lane_while(more: Callable[[T], Bool[Array, ""]], body: Callable[[T], T], carry: T) -> T:
    """`while more(carry): carry = body(carry)`; a lane that is done keeps its carry while others go on."""
    if not batched():
        return jax.lax.while_loop(more, body, carry)
    return jax.lax.while_loop(lambda c: lane_any(more(c)), lambda c: freeze(more(c), body(c), c), carry)


def lane_cond(pred: Bool[Array, ""], true: Callable[..., T], false: Callable[..., T], *operands: Any) -> T:
    """`true(*operands) if pred else false(*operands)`; `true` is computed only when some lane asks for it."""
    if not batched():
        return jax.lax.cond(pred, true, false, *operands)
    return jax.lax.cond(
        lane_any(pred), lambda *xs: select(pred, true(*xs), false(*xs)), lambda *xs: false(*xs), *operands
    )


def masked_sum(x: Float[Array, " n *rest"], valid: Bool[Array, " n"]) -> Float[Array, "*rest"]:
    """The sum over the leading axis of the rows that are valid."""
    return jnp.sum(jnp.where(valid.reshape(valid.shape + (1,) * (x.ndim - 1)), x, 0), axis=0)


def masked_mean(x: Float[Array, " n *rest"], valid: Bool[Array, " n"]) -> Float[Array, "*rest"]:
    """The mean over the leading axis of the rows that are valid; zero when none is."""
    return masked_sum(x, valid) / jnp.maximum(jnp.sum(valid), 1).astype(x.dtype)


def masked_moments(
    x: Float[Array, " n *rest"], valid: Bool[Array, " n"]
) -> tuple[Float[Array, "*rest"], Float[Array, "*rest"]]:
    """Mean and (population) variance over the valid rows, computed in two passes."""
    mean = masked_mean(x, valid)
    return mean, masked_mean((x - mean[None]) ** 2, valid)


def row_keys(key: Any, n: int) -> Any:
    """`n` keys, of which the i-th does not depend on `n`: one per row of a padded axis."""
    return jax.vmap(lambda i: jr.fold_in(key, i))(jnp.arange(n))


def standard_normal(words: UInt32[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Standard normal numbers from random words, those that `jr.normal` makes of its bits."""
    least = np.nextafter(np.float32(-1), np.float32(0))
    one_to_two = jax.lax.bitcast_convert_type((words >> jnp.uint32(9)) | jnp.uint32(0x3F800000), jnp.float32)
    uniform = jnp.maximum(least, (one_to_two - 1) * (1 - least) + least)
    return math.sqrt(2) * jax.lax.erf_inv(uniform)


_ROUNDS = 8
_LEAST_BITS = 6
"""So many rounds leave pairs of a smaller domain up to 20 % more or less likely than they should be."""


def permuted(index: Int[Array, " k"], n: Int[Array, ""], key: UInt32[Array, " 8"]) -> Int[Array, " k"]:
    """Where a random permutation of 0 … n-1 sends each `index`, without building the permutation.

    An alternating Feistel network on the smallest power of two (from 64) that holds `n`, walked along its
    cycle until it lands below `n` (Black & Rogaway 2002, "Ciphers with arbitrary finite domains"; used for
    shuffling by Mitchell et al. 2022, "Bandwidth-optimal random shuffling for GPUs"). It costs O(k) whatever
    `n` is, needs no sort, and depends on `n` and `key` alone, so padding cannot change it. Entries of `index`
    outside 0 … n-1 come back unchanged in number and meaningless in value, but inside the range.

    `key` holds one random word per round.
    """
    bits = jnp.maximum(32 - jax.lax.clz(jnp.maximum(n - 1, 0).astype(jnp.uint32)), _LEAST_BITS)
    low = (bits + 1) // 2
    high = bits - low
    low_mask = (jnp.uint32(1) << low) - jnp.uint32(1)
    high_mask = (jnp.uint32(1) << high) - jnp.uint32(1)

    def encipher(x: UInt32[Array, " k"]) -> UInt32[Array, " k"]:
        left, right = x >> low, x & low_mask
        for i in range(0, _ROUNDS, 2):
            left = left ^ (_scramble(right ^ key[i]) & high_mask)
            right = right ^ (_scramble(left ^ key[i + 1]) & low_mask)
        return (left << low) | right

    limit = n.astype(jnp.uint32)
    inside = jnp.where((index >= 0) & (index < n), index, 0).astype(jnp.uint32)
    walked = jax.lax.while_loop(
        lambda x: jnp.any(x >= limit), lambda x: jnp.where(x >= limit, encipher(x), x), encipher(inside)
    )
    return walked.astype(jnp.int32)


def _scramble(x: UInt32[Array, " k"]) -> UInt32[Array, " k"]:
    """A 32-bit finaliser (constants of Wellons' `lowbias32`): every input bit changes every output bit."""
    x = x ^ (x >> jnp.uint32(16))
    x = x * jnp.uint32(0x7FEB352D)
    x = x ^ (x >> jnp.uint32(15))
    x = x * jnp.uint32(0x846CA68B)
    return x ^ (x >> jnp.uint32(16))
