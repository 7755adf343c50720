"""The gradient of a batch for a loss that is defined for one sample, and the metrics of that loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hyperlax.lanes.constants import tracing_a_loss
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
) -> tuple[Weights, Float[Array, " names"]]:
    """Sum the gradients of `loss(models, *sample)`, and the metrics `names`, over the valid samples.

    `restore(weights)` returns the models. `samples` are trees whose leaves have a leading axis of length n.
    Raises `ValueError` if `loss` returns metrics of other names.
    """

    def one(models: tuple[Any, ...], *sample: Any) -> tuple[Float[Array, ""], Float[Array, " names"]]:
        total, measured = loss(models, *sample)
        return total, jnp.stack([measured[name] for name in check_names(measured, names)])

    def summed(weights: Weights) -> tuple[Float[Array, ""], Float[Array, " names"]]:
        models = restore(weights)
        with tracing_a_loss():
            total, measured = jax.vmap(lambda *sample: one(models, *sample))(*samples)
        measured = jax.lax.stop_gradient(measured)
        return jnp.sum(jnp.where(valid, total, 0)), jnp.sum(jnp.where(valid[:, None], measured, 0), axis=0)

    return jax.grad(summed, has_aux=True)(weights)


def check_names(measured: Measured, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return `names`; raise `ValueError` if they are not the keys of `measured`."""
    if set(measured) != set(names):
        raise ValueError(
            f"the class attribute losses names {', '.join(names) or 'nothing'}, and its loss measures "
            f"{', '.join(measured)}: let them be the same"
        )
    return names
