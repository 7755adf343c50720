"""Random keys from seeds of 63 bits, with or without 64-bit arithmetic in jax."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray

from hyperlax.registry.limits import within


def seed_words(seed: int) -> tuple[int, ...]:
    """`seed` in words of 32 bits, the lowest first, and no second word if it is zero.

    Seeds of NumPy's generators are sequences of such words. Raises `ValueError` for what is no seed.
    """
    high, low = divmod(within("seed", seed), 2**32)
    return (low, high) if high else (low,)


def seeded(seed: int) -> PRNGKeyArray:
    """The key of `seed`, an integer from 0 to 2⁶³ - 1: its two words, as `jr.key` has it for 64 bits.

    Different seeds have different keys. Without 64-bit arithmetic `jr.key` ignores the upper word.
    """
    high, low = divmod(within("seed", seed), 2**32)
    if not high:
        return jr.key(np.uint32(low))
    key: jax.Array = jr.wrap_key_data(jnp.asarray([high, low], jnp.uint32))
    return key
