"""Layers for vectors that end in a one: written in another way, the same values and derivatives."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax.networks.extended import FEW_INPUTS, affine, evaluated_together, extended, first, product

SIZES = [(3, 8), (FEW_INPUTS, 5), (FEW_INPUTS + 1, 3), (20, 1), (20, 4), (20, 5)]
"""Inputs and outputs of a layer, on both sides of what counts as few."""


def numbers(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), jnp.float32)


def derivatives(layer: Any, rows: int, n: int, out: int) -> Any:
    """The gradients of `layer(x, weight, bias)` and its outputs, for two networks; without and with x."""

    def loss(x: jax.Array, weight: jax.Array, bias: jax.Array) -> Any:
        mapped = jax.vmap(jax.vmap(layer, (0, None, None)), (None, 0, 0))
        outputs = mapped(x, weight, bias)
        assert outputs.shape == (2, 7, rows)
        return jnp.sum(jnp.sin(outputs[:, :, :out])), outputs[:, :, :out]

    @jax.jit
    def both(*arguments: jax.Array) -> Any:
        by_weights = jax.grad(loss, argnums=(1, 2), has_aux=True)(*arguments)  # the one by x is not asked for
        return by_weights, jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(*arguments)

    return both(numbers(7, n), numbers(2, out, n), numbers(2, out))


@pytest.mark.parametrize(("n", "out"), SIZES)
@pytest.mark.parametrize("more", [0, 3], ids=["", "padded"])
def test_a_layer_and_its_gradient_are_the_textbooks(n, out, more):
    """Alone and in networks that are evaluated together; the first layer, and one whose input is extended."""
    rows = out + more

    def textbook(x, weight, bias):
        return jnp.pad(weight @ x + bias, (0, more))

    def later(x, weight, bias):
        return product(extended(x), affine(weight, bias, rows))

    def earliest(x, weight, bias):
        return first(x, weight, bias, affine(weight, bias, rows))

    def together(x, weight, bias):
        with evaluated_together():
            return earliest(x, weight, bias)

    expected = derivatives(textbook, rows, n, out)
    for layer in (later, earliest, together):
        found = derivatives(layer, rows, n, out)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def products_of(f: Any, *arguments: Any) -> int:
    """How many matrix products the program of `f` has."""
    return str(jax.make_jaxpr(f)(*arguments)).count("dot_general")


def test_few_inputs_and_few_outputs_need_fewer_matrix_products():
    """A gradient by weights needs one; forwards, and by the input, few are added up."""

    def earliest(weight, x):
        return jnp.sum(jnp.sin(first(x, weight, jnp.zeros(8), affine(weight, jnp.zeros(8), 8))))

    def last(x, weight):
        out = weight.shape[0]
        return jnp.sum(jnp.sin(product(x, affine(weight, jnp.zeros(out), out))))

    weight, x = numbers(8, 3), numbers(3)
    assert products_of(jax.grad(earliest), weight, x) == 2
    with evaluated_together():
        assert products_of(jax.grad(earliest), weight, x) == 1
        assert products_of(jax.grad(earliest, argnums=(0, 1)), weight, x) == 3
    for out, products in ((2, 2), (4, 2), (5, 3)):
        assert (
            products_of(jax.grad(last, argnums=(0, 1)), extended(numbers(20)), numbers(out, 20)) == products
        )
