"""A batch along the last axis is only a matter of speed: values and gradients are those of plain `vmap`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from lanes import quick

from hyperlax.lanes.compilation import compiler_options
from hyperlax.networks.layout import MATVECS, affine_map, batch_last

OUT, IN, BATCH, LANES = 3, 4, 5, 2


def plain(tree, x):
    """A layer with an integer leaf, for one vector or a batch along the last axis."""
    bias = tree["bias"].reshape((-1,) + (1,) * (x.ndim - 1))
    return jnp.tanh(tree["weight"] @ x + bias) * tree["sign"].astype(x.dtype)


def affine(tree, x):
    """The same layer, with the gradients of `affine_map`."""
    return jnp.tanh(affine_map(tree["weight"], tree["bias"], x)) * tree["sign"].astype(x.dtype)


wrapped = batch_last(plain, "test_layer")
wrapped_affine = batch_last(affine, "test_affine_layer")


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
    "NumPy": lambda f: mapped(f)(TREE, np.asarray(X)),
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
EAGER = ("alone", "jit", "NumPy", "gradient in every lane")
"""Cases that run operation by operation, or choose what does not; the last one as a single program would make
XLA abort (jaxlib 0.10.2)."""


@pytest.mark.parametrize(
    "function", [wrapped, wrapped_affine, affine], ids=["plain", "affine", "affine, batch first"]
)
@pytest.mark.parametrize("case", CASES)
def test_it_is_the_plain_function(case, function):
    both = lambda: [CASES[case](f) for f in (function, plain)]  # noqa: E731
    found, expected = both() if case in EAGER else quick(both)()
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("outputs", [1, 2, MATVECS, MATVECS + 1])
def test_gradients_do_not_depend_on_how_they_are_computed(outputs):
    weight, bias = jr.normal(jr.key(1), (outputs, IN)), jr.normal(jr.key(2), (outputs,))

    def loss(f, weight, bias, x):
        return jnp.sum(jnp.sin(f(weight, bias, x)) @ jnp.arange(float(BATCH)))

    plain_map = lambda w, b, x: w @ x + b[:, None]  # noqa: E731
    gradient = quick(jax.grad(loss, (1, 2, 3)), static_argnums=0)
    found, expected = (gradient(f, weight, bias, X.T) for f in (affine_map, plain_map))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("outputs", [2, MATVECS + 1])
def test_no_gradient_of_a_loss_with_the_batch_in_front_is_a_plain_loop(outputs):
    """In such a loop XLA computes products over the first axis of one matrix and the last of the other."""

    def has_loop(linear):
        layer = batch_last(lambda tree, x: linear(*tree, x), "test_head")

        def loss(weight, bias, x, action):
            def log_prob(x, action):
                return jax.nn.log_softmax(layer((weight, bias), jnp.tanh(x)))[action]

            return jnp.sum(jax.vmap(log_prob)(x, action))

        arguments = jnp.zeros((outputs, 16)), jnp.zeros(outputs), jnp.zeros((128, 16)), jnp.zeros(128, int)
        compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*arguments).compile().as_text() or ""
        axes = "lhs_contracting_dims={0}, rhs_contracting_dims={1}"
        return any(axes in line and f"f32[{outputs},16]" in line for line in compiled.splitlines())

    assert has_loop(lambda weight, bias, x: weight @ x + bias[:, None])
    assert not has_loop(affine_map)


@pytest.mark.parametrize("effort", ["full", "low"])
@pytest.mark.parametrize("last", [True, False])
def test_no_product_of_matrices_sums_over_the_first_axis_of_both(last, effort):
    """Eigen computes such products, and splits long sums among its threads: bits would depend on them."""

    def such_products(linear):
        def network(tree, x):
            hidden = jnp.tanh(linear(*tree[0], x))
            return linear(*tree[2], jnp.tanh(linear(*tree[1], hidden)))

        layers = batch_last(network, "test_network") if last else network

        def loss(tree, x, action):
            return jnp.sum(jax.vmap(lambda x, a: jax.nn.log_softmax(layers(tree, x))[a])(x, action))

        sizes = [(64, 4), (256, 64), (2, 256)]
        tree = [(jnp.zeros(size), jnp.zeros(size[0])) for size in sizes]
        lowered = jax.jit(jax.grad(loss)).lower(tree, jnp.zeros((512, 4)), jnp.zeros(512, int))
        text = lowered.compile(compiler_options=compiler_options(effort, "cpu")).as_text() or ""
        axes = "lhs_contracting_dims={0}, rhs_contracting_dims={0}"
        return [line for line in text.splitlines() if axes in line and "[1," not in line]

    assert such_products(lambda w, b, x: w @ x + (b[:, None] if x.ndim == 2 else b))
    assert not such_products(affine_map)


def products(f, *arguments):
    """Shapes of all matrix products in the traced function."""
    equations = jax.make_jaxpr(f)(*arguments).jaxpr.eqns
    return [e.outvars[0].aval.shape for e in equations if e.primitive.name == "dot_general"]


def test_products_of_a_batch_have_it_last():
    assert products(mapped(wrapped), TREE, X) == [(OUT, BATCH)]
    forward, *backward = products(jax.grad(squares(mapped(wrapped)), (0, 2)), TREE["weight"], TREE["bias"], X)
    assert forward == (OUT, BATCH)
    assert (OUT, IN) in backward
