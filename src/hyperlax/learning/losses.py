"""The gradient of a batch for a loss that is defined for one sample, and the metrics of that loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hyperlax.lanes.constants import accelerated, tracing_a_loss
from hyperlax.learning.optimise import Weights

Measured = Mapping[str, Float[Array, ""]]
"""The metrics of one sample, by name."""


def summed_gradient(
    loss: Callable[..., tuple[Float[Array, ""], Measured]],
    names: tuple[str, ...],
    restore: Callable[[Weights], tuple[Any, ...]],
    weights: Weights,
    samples: tuple[Any, ...],
    valid: Bool[Array, " n"],
) -> tuple[Weights, Float[Array, "names *n"]]:
    """Sum the gradients of `loss(models, *sample)`, and the metrics `names`, over the valid samples.

    `restore(weights)` returns the models. `samples` are trees whose leaves have a leading axis of length n.
    In a program for accelerators the metrics of the samples are not added up (see `Tally`); those of invalid
    samples are zero. Raises `ValueError` if `loss` returns metrics of other names.
    """

    def one(models: tuple[Any, ...], *sample: Any) -> tuple[Float[Array, ""], Float[Array, " names"]]:
        total, measured = loss(models, *sample)
        return total, jnp.stack([measured[name] for name in check_names(measured, names)])

    def summed(weights: Weights) -> tuple[Float[Array, ""], Float[Array, "names *n"]]:
        models = restore(weights)
        with tracing_a_loss():
            total, measured = jax.vmap(lambda *sample: one(models, *sample))(*samples)
        measured = jax.lax.stop_gradient(measured)
        measured = jnp.where(valid[:, None], measured, 0)
        return jnp.sum(jnp.where(valid, total, 0)), measured.T if accelerated() else jnp.sum(measured, axis=0)

    return jax.grad(summed, has_aux=True)(weights)


@final
class Tally(eqx.Module):
    """The sums of metrics over gradient steps: those of a loss, and the norms of gradients.

    In a program for accelerators the samples of a minibatch are added up when the sums are read. A gradient
    step then adds its metrics in one kernel, in place of three.
    """

    sums: Float[Array, "metrics *samples"]

    def __init__(self, metrics: int, samples: int):
        """No sums yet of that many `metrics`, for minibatches of up to `samples` samples."""
        self.sums = jnp.zeros((metrics, samples) if accelerated() else metrics)

    def add(
        self, measured: Float[Array, "names *samples"], norms: Float[Array, " parts"], size: Float[Array, ""]
    ) -> Tally:
        """Add the means of the metrics that `summed_gradient` returned for `size` samples, and the norms."""
        if self.sums.ndim == 2:
            norms = jnp.where(jnp.arange(self.sums.shape[1]) == 0, norms[:, None], 0)
        return eqx.tree_at(lambda t: t.sums, self, self.sums + jnp.concatenate([measured / size, norms]))

    def read(self) -> Float[Array, " metrics"]:
        """The sums."""
        return self.sums if self.sums.ndim == 1 else jnp.sum(self.sums, axis=1)


def check_names(measured: Measured, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return `names`; raise `ValueError` if they are not the keys of `measured`."""
    if set(measured) != set(names):
        raise ValueError(
            f"the class attribute losses names {', '.join(names) or 'nothing'}, and its loss measures "
            f"{', '.join(measured)}: make them the same"
        )
    return names
