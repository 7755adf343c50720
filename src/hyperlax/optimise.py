"""Gradient steps: the optimiser is built where it is used, from the lane's own leaves."""

from __future__ import annotations

from typing import Any, TypeVar

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from hyperlax.hyperparams import trainable

M = TypeVar("M", bound=eqx.Module)


def _adam(lr: Any, max_grad_norm: Any) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.adam(lr))


def adam_state(model: eqx.Module) -> optax.OptState:
    """The state of `adam_update` before the first step."""
    return _adam(0.0, 1.0).init(eqx.filter(model, trainable(model)))


def adam_update(
    model: M, gradient: M, state: optax.OptState, lr: Float[Array, ""], max_grad_norm: Float[Array, ""]
) -> tuple[M, optax.OptState]:
    """One Adam step (Kingma & Ba 2015; ε = 1e-8) on a gradient clipped to the global norm `max_grad_norm`."""
    updates, state = _adam(lr, max_grad_norm).update(gradient, state)
    return eqx.apply_updates(model, updates), state


def decayed(lr: Float[Array, ""], progress: Float[Array, ""], decay: Array) -> Float[Array, ""]:
    """`lr`, or with `decay` a linear schedule to zero at progress 1 (never below 1e-7)."""
    return jnp.where(decay, jnp.maximum(lr * (1 - progress), 1e-7), lr)
