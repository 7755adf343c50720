"""Random keys: of seeds of 63 bits, with or without 64-bit arithmetic in jax, and of the steps of a loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray

from hyperlax.lanes.constants import accelerated
from hyperlax.lanes.masking import batched
from hyperlax.registry.limits import within


def seed_words(seed: int) -> tuple[int, ...]:
    """`seed` in words of 32 bits, the lowest first, and no second word if it is zero.

    Seeds of NumPy's generators are sequences of such words. Raises `ValueError` for an invalid seed.
    """
    high, low = divmod(within("seed", seed), 2**32)
    return (low, high) if high else (low,)


def refuse_typed_keys(what: str, tree: Any) -> None:
    """Raise `ValueError` with the remedy if a leaf of `tree`, called `what`, is a typed random key."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key):
            where = jax.tree_util.keystr(path).lstrip(".")
            raise ValueError(
                f"{what} holds a random key, of jax.random.key, at {where}: it "
                "cannot be saved; store jax.random.key_data(key), and use jax.random.wrap_key_data of it"
            )


def seeded(seed: int) -> PRNGKeyArray:
    """The key of `seed`, an integer from 0 to 2⁶³ - 1: its two words, as `jr.key` has it for 64 bits.

    Different seeds have different keys. Without 64-bit arithmetic `jr.key` ignores the upper word.
    """
    high, low = divmod(within("seed", seed), 2**32)
    if not high:
        return jr.key(np.uint32(low))
    key: jax.Array = jr.wrap_key_data(jnp.asarray([high, low], jnp.uint32))
    return key


def step_keys(key: PRNGKeyArray, most: int | None) -> Callable[[Any], PRNGKeyArray]:
    """A function from the number of a step of a loop, below `most`, to its key.

    In a program of many lanes for accelerators all keys are made before the loop, which saves it a kernel.
    """
    if most is None or most < 2 or not (accelerated() and batched()):
        return lambda i: jr.fold_in(key, i)
    keys = jax.vmap(lambda i: jr.fold_in(key, i))(jnp.arange(most))
    return lambda i: keys[i]
