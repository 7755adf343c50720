"""Gradient steps on flat weight vectors; the optimiser is built where it is used, from the lane's leaves.

All weights an agent trains are one vector, in parts (one per network): one pass over memory per step and a
handful of kernels, whatever the number of layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from hyperlax.hyperparams import trainable
from hyperlax.networks.base import AbstractNetwork

Weights = Float[Array, " weights"]


def flatten(models: Sequence[eqx.Module]) -> tuple[Weights, tuple[int, ...], Callable[[Weights], Any]]:
    """The trainable weights of `models` as one vector, the length of each model's part, and the way back."""
    split = [eqx.partition(m, trainable(m)) for m in models]
    weights, unravel = ravel_pytree(tuple(w for w, _ in split))
    parts = tuple(sum(x.size for x in jax.tree.leaves(w)) for w, _ in split)
    rest = [r for _, r in split]

    def restore(vector: Weights) -> tuple[Any, ...]:
        return tuple(eqx.combine(w, r) for w, r in zip(unravel(vector), rest, strict=True))

    return weights, parts, restore


def adam_state(models: Sequence[eqx.Module]) -> optax.OptState:
    """The state of `adam_step` before the first step."""
    return optax.scale_by_adam().init(flatten(models)[0])


def step_factors(models: Sequence[eqx.Module]) -> Weights | None:
    """By what the step size of every weight differs from its part's; None where all networks say one."""
    differing = False

    def of(node: Any) -> Any:
        nonlocal differing
        if isinstance(node, AbstractNetwork) and (own := node.step_factors()) is not None:
            differing = True
            return own
        return jax.tree.map(lambda x: jnp.ones_like(x) if eqx.is_inexact_array(x) else x, node)

    factors = jax.tree.map(of, tuple(models), is_leaf=lambda node: isinstance(node, AbstractNetwork))
    return flatten(factors)[0] if differing else None


def adam_step(
    weights: Weights,
    gradient: Weights,
    state: optax.OptState,
    parts: tuple[int, ...],
    lrs: Sequence[Float[Array, ""]],
    max_norm: Float[Array, ""],
    factors: Weights | None = None,
) -> tuple[Weights, optax.OptState, Float[Array, " parts"]]:
    """One Adam step (Kingma & Ba 2015, ε = 1e-8) with a step size per part; also the parts' gradient norms.

    The gradient of each part is clipped to the norm `max_norm` on its own. `factors` multiply the step sizes.
    """
    starts = [sum(parts[:i]) for i in range(len(parts))]
    squares = [jnp.sum(gradient[a : a + n] ** 2) for a, n in zip(starts, parts, strict=True)]
    norms = jnp.sqrt(jnp.stack(squares))
    clipped = gradient * per_part(parts, list(jnp.minimum(1.0, max_norm / jnp.maximum(norms, 1e-20))))
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to its integer step count
        update, state = optax.scale_by_adam().update(clipped, state)
    sizes = per_part(parts, lrs) if factors is None else per_part(parts, lrs) * factors
    return weights - sizes * jnp.asarray(update), state, norms


def per_part(parts: tuple[int, ...], values: Sequence[Float[Array, ""]]) -> Weights:
    """A vector that holds `values[i]` throughout part i."""
    index = jnp.arange(sum(parts))
    out = jnp.broadcast_to(values[0], index.shape)
    for i in range(1, len(parts)):
        out = jnp.where(index >= sum(parts[:i]), values[i], out)
    return out


def decayed(lr: Float[Array, ""], progress: Float[Array, ""], decay: Array) -> Float[Array, ""]:
    """`lr`, or with `decay` a linear schedule to zero at progress 1 (never below 1e-7)."""
    return jnp.where(decay, jnp.maximum(lr * (1 - progress), 1e-7), lr)
