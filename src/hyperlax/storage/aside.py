"""Arrays that wait on a device until they are written, while the run goes on."""

from __future__ import annotations

from functools import cached_property
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

T = TypeVar("T")


class Aside:
    """A copy of an array that stays on a device until NumPy reads it, which waits until it has arrived.

    Parts of it, by an index into the leading axis, stay there, too.
    """

    def __init__(self, whole: Array, at: tuple[int, ...] = ()):
        self._whole, self._at = whole, at

    def __getitem__(self, index: int) -> Aside:
        return Aside(self._whole, (*self._at, index))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The array on the host; NumPy calls this."""
        return np.asarray(np.asarray(self._whole)[self._at], dtype)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return self._whole.shape[len(self._at) :]

    @property
    def dtype(self) -> np.dtype:
        """The type of the numbers."""
        return self._whole.dtype


def set_aside(tree: T) -> T:
    """Copy the arrays of `tree` on their device and begin to fetch the copies; return `Aside` for each.

    A program may consume `tree` afterwards, and runs while the copies are fetched.
    """
    copies = _copied(tree)
    for leaf in jax.tree.leaves(copies):
        leaf.copy_to_host_async()
    return jax.tree.map(Aside, copies)


@jax.jit
def _copied(tree: T) -> T:
    return jax.tree.map(jnp.copy, tree)
