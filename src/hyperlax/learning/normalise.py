"""Running normalisation of observations."""

from __future__ import annotations

from typing import final

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from hyperlax.lanes.masking import masked_moments

STD_RANGE = (1e-6, 1e5)
"""Bounds of the standard deviation that observations are divided by."""


@final
class Normaliser(eqx.Module):
    """The mean and variance of all observations so far, updated batch by batch (Chan, Golub & LeVeque 1979).

    Safe in float32: the count is an integer, and the variance is stored instead of the growing sum of
    squares, so that both still change after millions of observations.
    """

    count: Int32[Array, ""]
    mean: Float[Array, " obs"]
    variance: Float[Array, " obs"]

    def __init__(self, obs_size: int):
        self.count = jnp.zeros((), jnp.int32)
        self.mean = jnp.zeros(obs_size)
        self.variance = jnp.ones(obs_size)

    def update(self, obs: Float[Array, "batch obs"], valid: Bool[Array, " batch"]) -> Normaliser:
        """Add the valid rows of `obs` to the statistics, which stay as they are if there are none."""
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
        """Normalise `obs` to zero mean and unit variance under the statistics so far."""
        std = jnp.clip(jnp.sqrt(jnp.maximum(self.variance, 0)), *STD_RANGE)
        return (obs - self.mean) / std
