"""Linear layers whose matrix is a matrix product operator; bond dimensions and cores may be padded."""

from __future__ import annotations

from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from hyperlax.lanes.constants import accelerated
from hyperlax.lanes.masking import row_keys
from hyperlax.networks.contraction import formed
from hyperlax.networks.layout import affine_map
from hyperlax.networks.linear import column


@final
class MPO(eqx.Module):
    """Linear layer y = W x + b whose matrix W is a matrix product operator.

    W has hidden = local ^ cores rows and columns. The cores have indices [input, left bond, right bond,
    output]; the `first` has no left bond and the `last` no right bond. Those in the `middle` are numbered
    from the last towards the first. Entries with a bond index beyond the lane's bond dimension are zero and
    stay zero under training, because their gradient is zero, too.

    A lane with fewer cores than others in its program has identities of bond dimension one in front of its
    first core. W is then block diagonal, and its own matrix the first block: the others only ever see zeros.
    Methods take the `count` of the lane's own cores, or None if all lanes have as many.

    Initial cores are normal with variance 1 / (local · left bond), the inverse of their fan-in when x is
    contracted with one core after the other. The entries of W then have variance 1 / hidden for every
    factorisation, and activations keep their scale. If they are `unit` cores, they have variance 1 and the
    entries of W have variance bond ^ (cores - 1).
    """

    first: Float[Array, "..."]
    middle: tuple[Float[Array, "..."], ...]
    last: Float[Array, "..."]
    bias: Float[Array, " hidden"]

    def __init__(
        self,
        bond_dim: Int[Array, ""],
        unit: Bool[Array, ""],
        drawn: Float[Array, "cores left right in out"],
        count: Int[Array, ""] | None = None,
    ):
        """The layer from standard normal cores (`normal_cores`), of which a lane uses the first `count`."""
        most, cap, local = *drawn.shape[:2], drawn.shape[-1]
        inside = jnp.arange(cap) < bond_dim
        fan_in = jnp.where(jnp.arange(most) > 0, bond_dim, 1).astype(drawn.dtype) * local
        scale = jnp.where(unit, 1.0, 1.0 / jnp.sqrt(fan_in))
        scaled = drawn * scale[:, None, None, None, None]
        used = jnp.where((inside[:, None] & inside[None])[None, :, :, None, None], scaled, 0)
        cores = jnp.transpose(used, (0, 3, 1, 2, 4))
        own = most if count is None else count
        self.first, self.last = cores[0][:, 0], cores[own - 1][:, :, 0]
        self.middle = tuple(
            cores[own - 1 - i] if count is None else jnp.where(i < own - 1, cores[own - 1 - i], 0)
            for i in range(1, most - 1)
        )
        self.bias = jnp.zeros(local**most)

    def cores(self, count: Int[Array, ""] | None = None) -> tuple[Float[Array, "..."], ...]:
        """The cores from the first to the last, with the identities in front of them."""
        if count is None:
            return self.first, *reversed(self.middle), self.last
        local, bond = self.first.shape[:2]
        passing = jnp.zeros((local, bond, bond, local)).at[:, 0, 0].set(jnp.eye(local))
        entering = jnp.zeros_like(passing).at[:, 0].set(self.first)
        whole = [
            jnp.where(i < count - 1, core, jnp.where(i == count - 1, entering, passing))
            for i, core in enumerate(self.middle, 1)
        ]
        front = jnp.where(count == len(whole) + 2, self.first, passing[:, 0])
        return front, *reversed(whole), self.last

    def __call__(
        self, x: Float[Array, " hidden *batch"], count: Int[Array, ""] | None = None
    ) -> Float[Array, " hidden *batch"]:
        """The output for one vector, or for a batch of vectors along the last axis."""
        if self._chain_is_cheaper(x):
            return self._along_the_bond(x, count) + column(self.bias, x)
        return affine_map(self.dense(count), self.bias, x)

    def dense(self, count: Int[Array, ""] | None = None) -> Float[Array, "hidden hidden"]:
        """The matrix W [output, input]; both halves of the cores are contracted before they are joined.

        A program for accelerators adds in another order, in fewer kernels.
        """
        if accelerated():
            return formed(self.first, self.middle, self.last, count)
        first, *middle, last = self.cores(count)
        half = len(middle) // 2
        left = first.transpose(2, 0, 1)  # [output, input, bond]
        for core in middle[:half]:
            left = jnp.einsum("oix,jxyp->opijy", left, core)
            left = left.reshape(left.shape[0] * left.shape[1], -1, left.shape[-1])
        right = last.transpose(1, 2, 0)  # [bond, output, input]
        for core in reversed(middle[half:]):
            right = jnp.einsum("jxyp,yoi->xpoji", core, right)
            right = right.reshape(right.shape[0], right.shape[1] * right.shape[2], -1)
        matrix = jnp.einsum("oix,xpj->opij", left, right)
        return matrix.reshape(self.bias.size, self.bias.size)

    def _along_the_bond(
        self, x: Float[Array, " hidden *batch"], count: Int[Array, ""] | None = None
    ) -> Float[Array, " hidden *batch"]:
        """Compute W x without forming W, by contracting x with one core after the other."""
        first, *middle, last = self.cores(count)
        local = first.shape[0]
        # the axes of `carried` are [bond, outputs so far, remaining inputs and batch]
        carried = jnp.einsum("iyo,ir->yor", first, x.reshape(local, -1))
        for core in middle:
            split = carried.reshape(*carried.shape[:2], local, -1)
            carried = jnp.einsum("ixyp,xoir->yopr", core, split)
            carried = carried.reshape(core.shape[2], -1, split.shape[-1])
        split = carried.reshape(*carried.shape[:2], local, -1)
        return jnp.einsum("ixp,xoir->opr", last, split).reshape(x.shape)

    def _chain_is_cheaper(self, x: Array) -> bool:
        """Whether contracting x core by core takes fewer operations than forming W and multiplying by it.

        Contracting costs bond² · local · hidden operations per core and sample. Forming W costs about
        bond · hidden² operations, most of them in the last contraction, once for all samples, and multiplying
        by it hidden² per sample. W is therefore formed for all but small batches.
        """
        hidden, (local, bond), count = self.bias.size, self.first.shape[:2], len(self.middle) + 2
        batch = x[0].size
        chain = batch * hidden * local * (2 * bond + (count - 2) * bond**2)
        return chain < 2 * bond * hidden**2 + batch * hidden**2


def normal_cores(
    key: PRNGKeyArray, layers: int, count: int, bond: int, local: int
) -> Float[Array, "layers cores bond bond d d"]:
    """Standard normal cores, in which no number depends on the numbers of layers, cores and bonds."""
    rows = row_keys(key, layers)
    for n in (count, bond, bond):
        rows = jax.vmap(lambda k, n=n: row_keys(k, n))(rows).reshape(-1)
    drawn = jax.vmap(lambda k: jr.normal(k, (local, local)))(rows)
    return drawn.reshape(layers, count, bond, bond, local, local)
