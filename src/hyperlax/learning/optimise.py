"""Gradient steps on flat weight vectors.

All weights that an agent trains form one vector with one part per network, so that a step takes one pass over
memory and a handful of kernels, whatever the number of layers. The optimiser is built where it is used, from
the hyperparameters of the lane.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import accumulate
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from hyperlax.hyperparams import trainable
from hyperlax.lanes.constants import accelerated
from hyperlax.networks.base import AbstractNetwork

Weights = Float[Array, " weights"]


def flatten(models: Sequence[eqx.Module]) -> tuple[Weights, tuple[int, ...], Callable[[Weights], Any]]:
    """Flatten the trainable weights of `models`: the vector, the length of each model's part, the inverse."""
    split = [eqx.partition(m, trainable(m)) for m in models]
    weights, unravel = ravel_pytree(tuple(w for w, _ in split))
    parts = tuple(sum(x.size for x in jax.tree.leaves(w)) for w, _ in split)
    rest = [r for _, r in split]

    unravel = _with_summed_gradient(unravel) if accelerated() else unravel

    def restore(vector: Weights) -> tuple[Any, ...]:
        return tuple(eqx.combine(w, r) for w, r in zip(unravel(vector), rest, strict=True))

    return weights, parts, restore


def _with_summed_gradient(unravel: Callable[[Weights], Any]) -> Callable[[Weights], Any]:
    """`unravel`, which cuts a vector into the leaves of a tree, with the sum of these as its gradient.

    Each of them has zeros around it. By itself, the gradient would be their concatenation, which XLA for GPUs
    computes in a kernel that others do not become part of.
    """

    def backward(_: None, cotangents: Any) -> tuple[Weights]:
        leaves = jax.tree.leaves(cotangents)
        ends = list(accumulate(x.size for x in leaves))
        around = [(end - x.size, ends[-1] - end) for x, end in zip(leaves, ends, strict=True)]
        padded = [jnp.pad(x.reshape(-1), zeros) for x, zeros in zip(leaves, around, strict=True)]
        return (reduce(jnp.add, padded),)

    @jax.custom_vjp
    def cut(vector: Weights) -> Any:
        return unravel(vector)

    cut.defvjp(lambda vector: (unravel(vector), None), backward)
    return cut


def adam_state(models: Sequence[eqx.Module]) -> optax.ScaleByAdamState:
    """The state of Adam for the weights of `models` before the first step."""
    return _adam_state(optax.scale_by_adam().init(flatten(models)[0]))


def of_moments(f: Callable[[Weights], Weights], state: optax.OptState) -> optax.ScaleByAdamState:
    """The state of Adam with `f` applied to both of its moments."""
    state = _adam_state(state)
    return state._replace(mu=f(jnp.asarray(state.mu)), nu=f(jnp.asarray(state.nu)))


def _adam_state(state: optax.OptState) -> optax.ScaleByAdamState:
    """`state` by the type that the optimiser's functions do not declare."""
    assert isinstance(state, optax.ScaleByAdamState)
    return state


def step_factors(models: Sequence[eqx.Module]) -> Weights | None:
    """A factor for the step size of every weight; None if no network asks for one."""
    differing = False

    def of(node: Any) -> Any:
        nonlocal differing
        if isinstance(node, AbstractNetwork) and (factors := node.step_factors()) is not None:
            differing = True
            return factors
        return jax.tree.map(lambda x: jnp.ones_like(x) if eqx.is_inexact_array(x) else x, node)

    factors = jax.tree.map(of, tuple(models), is_leaf=lambda node: isinstance(node, AbstractNetwork))
    return flatten(factors)[0] if differing else None


def adam_step(
    weights: Weights,
    gradient: Weights,
    state: optax.ScaleByAdamState,
    parts: tuple[int, ...],
    lrs: Sequence[Float[Array, ""]],
    max_norm: Float[Array, ""],
    factors: Weights | None = None,
    number: Int[Array, ""] | None = None,
) -> tuple[Weights, optax.ScaleByAdamState, Float[Array, " parts"]]:
    """Take one Adam step (Kingma & Ba 2015, algorithm 1, ε = 1e-8); return weights, state and gradient norms.

    `parts` are the lengths of the parts of `weights`, and `lrs` their step sizes, multiplied by `factors`
    weight by weight. The gradient of each part is clipped to the norm `max_norm` on its own; the returned
    norms, one per part, are those before clipping.

    `number` is the number of the step in a loop, from 0. In a program for accelerators the state then keeps
    the count of steps from before the loop, which saves a kernel, until `after_steps` adds those of the loop.
    """
    first = state.count
    norms = jnp.sqrt(_squares(gradient, parts))
    clipped = gradient * per_part(parts, list(jnp.minimum(1.0, max_norm / jnp.maximum(norms, 1e-20))))
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to its integer step count
        if keeps := accelerated() and number is not None:
            state = state._replace(count=jnp.asarray(first) + jnp.asarray(number))
        update, new = optax.scale_by_adam().update(clipped, state)
    sizes = per_part(parts, lrs) if factors is None else per_part(parts, lrs) * factors
    state = _adam_state(new)
    return weights - sizes * jnp.asarray(update), state._replace(count=first) if keeps else state, norms


def before_steps(state: optax.OptState) -> optax.ScaleByAdamState:
    """The state before a loop of calls of `adam_step` that are given their `number` (see `after_steps`).

    On an accelerator, a maximum that changes nothing is taken of the count: XLA then takes the count out of a
    packed state together with other numbers, and otherwise in a kernel of its own.
    """
    state = _adam_state(state)
    return state._replace(count=jnp.maximum(jnp.asarray(state.count), 0)) if accelerated() else state


def after_steps(state: optax.OptState, steps: Int[Array, ""]) -> optax.ScaleByAdamState:
    """The state after a loop of `steps` calls of `adam_step` that were given their `number`."""
    state = _adam_state(state)
    return state._replace(count=jnp.asarray(state.count) + steps) if accelerated() else state


def _squares(gradient: Weights, parts: tuple[int, ...]) -> Float[Array, " parts"]:
    """The sum of squares of each part, in one reduction on accelerators."""
    starts = [sum(parts[:i]) for i in range(len(parts))]
    if not accelerated():
        return jnp.stack([jnp.sum(gradient[a : a + n] ** 2) for a, n in zip(starts, parts, strict=True)])
    if len(set(parts)) == 1:
        return jnp.sum(gradient.reshape(len(parts), -1) ** 2, axis=1)
    inside = np.repeat(np.arange(len(parts)), parts) == np.arange(len(parts))[:, None]
    return jnp.sum(jnp.where(inside, gradient[None] ** 2, 0), axis=1)


def per_part(parts: tuple[int, ...], values: Sequence[Float[Array, ""]]) -> Weights:
    """A vector that repeats `values[i]` over the whole length of part i.

    In a program for accelerators the index is a constant, because computing it would take a kernel.
    """
    index = np.arange(sum(parts)) if accelerated() else jnp.arange(sum(parts))
    out = jnp.broadcast_to(values[0], index.shape)
    for i in range(1, len(parts)):
        out = jnp.where(index >= sum(parts[:i]), values[i], out)
    return out


def decayed(lr: Float[Array, ""], progress: Float[Array, ""], decay: Array) -> Float[Array, ""]:
    """`lr`; with `decay` it falls linearly to zero at progress 1, but not below 1e-7 (nor does it rise)."""
    return jnp.where(decay, jnp.maximum(lr * (1 - progress), jnp.minimum(lr, 1e-7)), lr)
