"""Threefry-2x32 without loops, the same random numbers as those of jax.

The generator is that of Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3". On a CPU jax
compiles its twenty rounds as a loop, whose overhead per iteration exceeds the work for the few words that one
cycle of a lane draws. Unrolled rounds are compiled to one kernel.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from jax.extend.random import define_prng_impl
from jaxtyping import Array, UInt, UInt32

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def unrolled_key(data: UInt32[Array, " 2"]) -> Any:
    """A key equivalent to `jr.wrap_key_data(data)`, whose subkeys and numbers are computed without loops.

    Drawing numbers of more than 32 bits raises `ValueError`.
    """
    return jr.wrap_key_data(data, impl=_UNROLLED)


@jax.jit
def _hash(key: UInt32[Array, " 2"], high: Any, low: Any) -> tuple[Array, Array]:
    """The two random words for each 64-bit counter, given as its `high` and `low` halves.

    It is jitted so that a program traces it once for the same shapes.
    """
    keys = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(_PARITY))
    a, b = high + keys[0], low + keys[1]
    for i in range(5):
        for rotation in _ROTATIONS[i % 2]:
            a = a + b
            b = ((b << jnp.uint32(rotation)) | (b >> jnp.uint32(32 - rotation))) ^ a
        a, b = a + keys[(i + 1) % 3], b + keys[(i + 2) % 3] + jnp.uint32(i + 1)
    return a, b


def _hashed_counts(key: UInt32[Array, " 2"], shape: tuple[int, ...]) -> tuple[Array, Array]:
    count = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape)
    return _hash(key, jnp.zeros_like(count), count)


def _seed(seed: Array) -> UInt32[Array, " 2"]:
    return jnp.stack([jnp.uint32(0), seed.astype(jnp.uint32)])


def _split(key: UInt32[Array, " 2"], shape: tuple[int, ...]) -> UInt32[Array, "*shape 2"]:
    return jnp.stack(_hashed_counts(key, shape), axis=-1)


def _fold_in(key: UInt32[Array, " 2"], data: Any) -> UInt32[Array, " 2"]:
    return jnp.stack(_hash(key, jnp.uint32(0), data.astype(jnp.uint32)))


def _bits(key: UInt32[Array, " 2"], bit_width: int, shape: tuple[int, ...]) -> UInt[Array, "*shape"]:
    if bit_width > 32:
        raise ValueError(f"cannot draw random numbers of {bit_width} bits; at most 32 are supported")
    a, b = _hashed_counts(key, shape)
    return (a ^ b).astype(f"uint{bit_width}")


_UNROLLED = define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_bits,
    fold_in=_fold_in,
    name="hyperlax_threefry2x32",
    tag="hlx",
)
