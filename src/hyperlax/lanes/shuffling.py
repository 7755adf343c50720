"""Random permutations that are evaluated index by index, and do not depend on padding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt32

from hyperlax.lanes.constants import accelerated

_ROUNDS = 8
_LEAST_BITS = 6
"""Width of the smallest domain; in a smaller one, `_ROUNDS` rounds make some pairs up to 20 % too likely."""
_SWAPS = 40
"""Rounds of `_swapped_or_not`. Two indices lose all memory of one another in a round in which one of them is
swapped and the other is not, which has a probability of a half; so 2⁻⁴⁰ of all pairs keep some."""


def permuted(index: Int[Array, " k"], n: Int[Array, ""], key: UInt32[Array, " 8"]) -> Int[Array, " k"]:
    """The images of `index` under a random permutation of 0 … n-1, without building the permutation.

    The permutation depends on `n` and `key` alone, so padding does not change it. For an index outside
    0 … n-1 the result is some number in 0 … n-1 without meaning. `key` holds eight random words.

    On a CPU this is a Feistel network (`_walked`). Its loop has no place in a program for accelerators, which
    shuffle by `_swapped_or_not`, so that the order of samples differs between the two.
    """
    inside = jnp.where((index >= 0) & (index < n), index, 0).astype(jnp.uint32)
    image = _swapped_or_not(inside, n, key) if accelerated() else _walked(inside, n, key)
    return image.astype(jnp.int32)


def _walked(x: UInt32[Array, " k"], n: Int[Array, ""], key: UInt32[Array, " 8"]) -> UInt32[Array, " k"]:
    """An alternating Feistel network with cycle walking.

    The network permutes 0 … 2^b - 1, the smallest such domain (b ≥ 6) that contains all indices, and is
    applied again until the result is below `n` (cycle walking; Black & Rogaway 2002, "Ciphers with arbitrary
    finite domains"; used for shuffling by Mitchell et al. 2022, "Bandwidth-optimal random shuffling for
    GPUs"). The cost is O(k) for any `n`, without a sort.
    """
    bits = jnp.maximum(32 - jax.lax.clz(jnp.maximum(n - 1, 0).astype(jnp.uint32)), _LEAST_BITS)
    limit = n.astype(jnp.uint32)
    return jax.lax.while_loop(
        lambda x: jnp.any(x >= limit),
        lambda x: jnp.where(x >= limit, _enciphered(x, bits, key), x),
        _enciphered(x, bits, key),
    )


def _enciphered(
    x: UInt32[Array, " k"], bits: UInt32[Array, ""], key: UInt32[Array, " 8"]
) -> UInt32[Array, " k"]:
    """The Feistel network on numbers of so many `bits`; each word of `key` is the key of a round."""
    low = (bits + 1) // 2
    high = bits - low
    low_mask = (jnp.uint32(1) << low) - jnp.uint32(1)
    high_mask = (jnp.uint32(1) << high) - jnp.uint32(1)
    left, right = x >> low, x & low_mask
    for i in range(0, _ROUNDS, 2):
        left = left ^ (_scramble(right ^ key[i]) & high_mask)
        right = right ^ (_scramble(left ^ key[i + 1]) & low_mask)
    return (left << low) | right


def _swapped_or_not(
    x: UInt32[Array, " k"], n: Int[Array, ""], key: UInt32[Array, " 8"]
) -> UInt32[Array, " k"]:
    """The swap-or-not shuffle.

    Each round pairs every index with its mirror image about a random centre, modulo `n`, and swaps a pair by
    a random bit of its larger member (Hoang, Morris & Rogaway 2012, "An enciphering scheme based on a card
    shuffle"). It permutes 0 … n-1 for any n, without a loop of unknown length.
    """
    size, words = n.astype(jnp.uint32), list(key)
    for i in range(_SWAPS):
        x = _round(x, size, words[i % 8] + jnp.uint32(0x9E3779B9 * (i + 1) % 2**32))
    return x


@jax.jit
def _round(x: UInt32[Array, " k"], size: UInt32[Array, ""], word: UInt32[Array, ""]) -> UInt32[Array, " k"]:
    """A round of `_swapped_or_not`, jitted so that a program traces it once."""
    word = _scramble(word)
    centre = word % size
    mirrored = jnp.where(x <= centre, centre - x, centre + size - x)
    swap = _scramble(jnp.maximum(x, mirrored) ^ _scramble(word)) & jnp.uint32(1)
    return jnp.where(swap == 1, mirrored, x)


def _scramble(x: UInt32[Array, "*k"]) -> UInt32[Array, "*k"]:
    """Mix the bits of 32-bit words, so that each input bit affects each output bit (Wellons' `lowbias32`)."""
    x = x ^ (x >> jnp.uint32(16))
    x = x * jnp.uint32(0x7FEB352D)
    x = x ^ (x >> jnp.uint32(15))
    x = x * jnp.uint32(0x846CA68B)
    return x ^ (x >> jnp.uint32(16))
