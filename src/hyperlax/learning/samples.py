"""The samples of a rollout, packed into one matrix so that a single gather fetches a minibatch."""

from __future__ import annotations

from typing import final

import equinox as eqx
from jaxtyping import Array, Float, Int, PyTree

from hyperlax.learning.packing import Packing


@final
class Samples(eqx.Module):
    """A PyTree of arrays of shape [rollout, envs, ...], packed into a matrix.

    There is a row per step and environment: row t · envs + e holds the leaves of the tree at step t of
    environment e (see `Packing`).
    """

    table: Float[Array, "n columns"]
    envs: int = eqx.field(static=True)
    packing: Packing = eqx.field(static=True)

    def __init__(self, tree: PyTree):
        self.packing = Packing(tree, axes=2)
        packed = self.packing.pack(tree)
        self.envs = packed.shape[1]
        self.table = packed.reshape(-1, self.packing.columns)

    def rows(self, index: Int[Array, " k"], num_envs: Int[Array, ""]) -> Float[Array, "k columns"]:
        """The packed samples number `index`, counted over the first `num_envs` environments of every step."""
        row = (index // num_envs) * self.envs + index % num_envs
        return self.table.at[row].get(mode="promise_in_bounds")

    def unpack(self, row: Float[Array, " columns"]) -> PyTree:
        """The tree of one packed sample, without the axes of steps and environments."""
        return self.packing.unpack(row)
