"""A batch along the last axis is only a matter of speed: values and gradients are those of plain `vmap`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from hyperlax.networks.layout import batch_last

OUT, IN, BATCH, LANES = 3, 4, 5, 2


def plain(tree, x):
    """A layer with an integer leaf, for one vector or a batch along the last axis."""
    bias = tree["bias"].reshape((-1,) + (1,) * (x.ndim - 1))
    return jnp.tanh(tree["weight"] @ x + bias) * tree["sign"].astype(x.dtype)


wrapped = batch_last(plain, "test_layer")


def tree(key):
    a, b = jr.split(key)
    return {"weight": jr.normal(a, (OUT, IN)), "bias": jr.normal(b, (OUT,)), "sign": jnp.int32(-1)}


TREE = tree(jr.key(0))
TREES = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(tree(jr.key(i)) for i in range(LANES)))
X = jr.normal(jr.key(9), (BATCH, IN))
XS = jr.normal(jr.key(8), (LANES, BATCH, IN))


def mapped(f):
    return jax.vmap(f, in_axes=(None, 0))


def squares(f):
    """The summed squares of a mapped layer as a function of its inexact leaves and its inputs."""
    return lambda weight, bias, x: jnp.sum(f({**TREE, "weight": weight, "bias": bias}, x) ** 2)


CASES = {
    "alone": lambda f: f(TREE, X[0]),
    "jit": lambda f: jax.jit(f)(TREE, X[0]),
    "mapped": lambda f: mapped(f)(TREE, X),
    "mapped over the last axis": lambda f: jax.vmap(f, (None, 1))(TREE, X.T),
    "mapped twice": lambda f: jax.vmap(mapped(f), (None, 0))(TREE, XS),
    "other weights in every lane": lambda f: jax.vmap(mapped(f))(TREES, XS),
    "other weights in every row": lambda f: jax.vmap(f)(TREES, XS[:, 0]),
    "one input, many weights": lambda f: jax.vmap(f, (0, None))(TREES, X[0]),
    "gradient": lambda f: jax.grad(squares(f), (0, 1, 2))(TREE["weight"], TREE["bias"], X[0]),
    "gradient of a batch": lambda f: jax.grad(squares(mapped(f)), (0, 1, 2))(TREE["weight"], TREE["bias"], X),
    "gradient in every row": lambda f: jax.vmap(jax.grad(squares(f), (0, 2)), (None, None, 0))(
        TREE["weight"], TREE["bias"], X
    ),
    "gradient in every lane": lambda f: jax.vmap(jax.grad(squares(mapped(f)), (0, 1, 2)))(
        TREES["weight"], TREES["bias"], XS
    ),
    "forward mode": lambda f: jax.jvp(lambda x: mapped(f)(TREE, x), (X,), (X[::-1],)),
    "inside a loop": lambda f: jax.lax.fori_loop(0, 3, lambda i, x: x + mapped(f)(TREE, x)[:, :1], X),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_plain_function(case):
    for a, b in zip(*(jax.tree.leaves(CASES[case](f)) for f in (wrapped, plain)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def products(f, *arguments):
    """Shapes of all matrix products in the traced function."""
    equations = jax.make_jaxpr(f)(*arguments).jaxpr.eqns
    return [e.outvars[0].aval.shape for e in equations if e.primitive.name == "dot_general"]


def test_products_of_a_batch_have_it_last():
    assert products(mapped(wrapped), TREE, X) == [(OUT, BATCH)]
    forward, *backward = products(jax.grad(squares(mapped(wrapped)), (0, 2)), TREE["weight"], TREE["bias"], X)
    assert forward == (OUT, BATCH)
    assert (OUT, IN) in backward
