"""Running normalisation of observations."""

from __future__ import annotations

from typing import final

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from hyperlax.lanes.masking import masked_moments

STD_RANGE = (1e-6, 1e5)


@final
class Normaliser(eqx.Module):
    """Mean and variance of all observations seen, updated batch by batch.

    Float32-safe: the count is an integer, and the variance (not the growing sum of squares) is stored, so
    neither stops moving after millions of observations. Batches merge by Chan, Golub & LeVeque 1979.
    """

    count: Int32[Array, ""]
    mean: Float[Array, " obs"]
    variance: Float[Array, " obs"]

    def __init__(self, obs_size: int):
        self.count = jnp.zeros((), jnp.int32)
        self.mean = jnp.zeros(obs_size)
        self.variance = jnp.ones(obs_size)

    def update(self, obs: Float[Array, "batch obs"], valid: Bool[Array, " batch"]) -> Normaliser:
        """The statistics after the valid rows of `obs`; unchanged when there are none."""
        new = jnp.sum(valid, dtype=jnp.int32)
        mean, variance = masked_moments(obs, valid)
        total = self.count + new
        share = new.astype(obs.dtype) / jnp.maximum(total, 1).astype(obs.dtype)
        shift = mean - self.mean
        merged = self.variance + share * (variance - self.variance) + share * (1 - share) * shift**2
        return eqx.tree_at(
            lambda s: (s.count, s.mean, s.variance),
            self,
            (
                jnp.minimum(total, jnp.int32(2**30)),
                jnp.where(new > 0, self.mean + share * shift, self.mean),
                jnp.where(new > 0, merged, self.variance),
            ),
        )

    def __call__(self, obs: Float[Array, " obs"]) -> Float[Array, " obs"]:
        """`obs` with zero mean and unit variance under the statistics so far."""
        std = jnp.clip(jnp.sqrt(jnp.maximum(self.variance, 0)), *STD_RANGE)
        return (obs - self.mean) / std
