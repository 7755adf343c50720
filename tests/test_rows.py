"""A function of one row is a single operation under every transformation, and computes what it did before."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from lanes import quick

from hyperlax.envs.rows import RowFunction


def turned(state, key):
    """A state as a simulator has it (a float matrix, a counter, a key), moved on."""
    noise = jr.normal(key, state["x"].shape)
    x = jnp.sin(state["x"] @ state["x"].T) @ noise
    return {"x": x, "t": state["t"] + 1}, jnp.sum(x)


ROWS = RowFunction(turned)
"""Recorded once for all tests."""


def like(*sizes):
    x = jr.normal(jr.key(1), (*sizes, 2, 3))
    return {"x": x, "t": jnp.arange(x.size // 6).reshape(sizes)}


def same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
def test_rows_of_two_mapped_axes_are_those_of_the_function(axes):
    """An argument that is the same for all rows of the inner axis or of the outer one is repeated."""
    state, keys = like(2, 4), jr.split(jr.key(2), (2, 4))
    of_all = (lambda tree: jax.tree.map(lambda x: x[0], tree)) if axes[0] is None else (lambda tree: tree)
    args = of_all(state), keys[0] if axes[1] is None else keys
    mapped = lambda f: quick(jax.vmap(jax.vmap(f), in_axes=axes))(*args)  # noqa: E731
    same(mapped(ROWS), mapped(turned))


def test_a_mapped_axis_may_lie_anywhere():
    state, key = like(4), jr.key(2)
    last = {"x": jnp.moveaxis(state["x"], 0, -1), "t": state["t"]}
    mapped = lambda f: quick(jax.vmap(f, in_axes=({"x": -1, "t": 0}, None)))(last, key)  # noqa: E731
    same(mapped(ROWS), mapped(turned))


def test_arrays_may_be_empty():
    """The states of mujoco's physics hold some."""
    function = RowFunction(lambda x, y: (x * 2, y + 1))
    empty, full = quick(jax.vmap(jax.vmap(function)))(jnp.ones((2, 3, 0)), jnp.zeros((2, 3)))
    assert empty.shape == (2, 3, 0)
    np.testing.assert_array_equal(full, np.ones((2, 3)))


def test_a_single_row_needs_no_map():
    same(ROWS(like(), jr.key(3)), turned(like(), jr.key(3)))


def test_derivatives_pass_through():
    def total(f, x):
        return jnp.sum(jax.vmap(lambda x: f({"x": x, "t": jnp.int32(0)}, jr.key(4))[1])(x))

    x = like(3)["x"]
    same(*(quick(jax.grad(lambda x, f=f: total(f, x)))(x) for f in (ROWS, turned)))


def test_loops_hold_one_equation_and_python_code_runs_once():
    """It is traced again neither for another number of rows, nor by the transformations of a loop."""
    calls = []

    def counted(x):
        calls.append(x.shape)
        for _ in range(50):
            x = jnp.sin(x)
        return x

    function = RowFunction(counted)

    def looped(x):
        return jax.lax.fori_loop(0, 3, lambda _, x: function(x), x)

    for rows in (2, 5):
        traced = jax.make_jaxpr(jax.vmap(jax.vmap(looped)))(jnp.zeros((rows, 3)))
        (loop,) = (e for e in traced.eqns if e.primitive.name in ("scan", "while"))
        body = loop.params.get("jaxpr") or loop.params["body_jaxpr"]
        names = [e.primitive.name for e in body.eqns]
        assert names.count("rows") == 1
        assert "sin" not in names
    assert calls == [()]


def test_other_shapes_are_recorded_apart():
    function = RowFunction(lambda x: x * 2)
    assert function(jnp.ones(2)).shape == (2,)
    assert function(jnp.ones((2, 3), jnp.int32)).dtype == jnp.int32
