"""The samples of a rollout, packed into one matrix so that a single gather fetches a minibatch."""

from __future__ import annotations

import math
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree


@final
class Samples(eqx.Module):
    """A PyTree of arrays of shape [rollout, envs, ...], packed into a matrix.

    There is a row per step and environment: row t · envs + e holds the leaves of the tree at step t of
    environment e, flattened and concatenated. Integers are stored as float32, which is exact up to 2²⁴.
    """

    table: Float[Array, "n columns"]
    envs: int = eqx.field(static=True)
    structure: Any = eqx.field(static=True)
    likes: tuple[jax.ShapeDtypeStruct, ...] = eqx.field(static=True)

    def __init__(self, tree: PyTree):
        leaves, self.structure = jax.tree.flatten(tree)
        rollout, self.envs = leaves[0].shape[:2]
        n = rollout * self.envs
        flat = [x.reshape(n, math.prod(x.shape[2:])).astype(jnp.float32) for x in leaves]
        self.table = jnp.concatenate(flat, axis=1)
        self.likes = tuple(jax.ShapeDtypeStruct(x.shape[2:], x.dtype) for x in leaves)

    def rows(self, index: Int[Array, " k"], num_envs: Int[Array, ""]) -> Float[Array, "k columns"]:
        """The packed samples number `index`, counted over the first `num_envs` environments of every step."""
        row = (index // num_envs) * self.envs + index % num_envs
        return self.table.at[row].get(mode="promise_in_bounds")

    def unpack(self, row: Float[Array, " columns"]) -> PyTree:
        """The tree of one packed sample, without the axes of steps and environments."""
        leaves, first = [], 0
        for like in self.likes:
            size = math.prod(like.shape)
            leaves.append(row[first : first + size].reshape(like.shape).astype(like.dtype))
            first += size
        return jax.tree.unflatten(self.structure, leaves)
