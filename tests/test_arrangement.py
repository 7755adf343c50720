"""Arrays are brought into another order by gathers, forwards and backwards."""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from hyperlax.hyperparams import assign
from hyperlax.lanes.constants import tracing_for_accelerator
from hyperlax.networks.arrangement import ONE, ZERO, arranged, places, transposed
from hyperlax.networks.contraction import Chain
from hyperlax.networks.linear import Linear
from hyperlax.networks.pqc import PQCHyperparams


def test_entries_and_constants_are_arranged_and_unused_entries_have_no_gradient():
    index = np.array([3, ZERO, 0, ONE, 2])
    inverse = places(index, 5)
    assert inverse.tolist() == [2, ZERO, 4, 0, ZERO]
    x, slope = jnp.arange(5.0) + 10, jnp.arange(5.0) + 1
    found, pull = jax.vjp(lambda x: arranged(x, jnp.asarray(index), jnp.asarray(inverse)), x)
    np.testing.assert_array_equal(found, [13, 0, 10, 1, 12])
    np.testing.assert_array_equal(pull(slope)[0], [3, 0, 5, 1, 0])


@pytest.mark.parametrize("axes", [(2, 0, 1), (1, 0, 2), (0, 1, 2)])
def test_a_transposition_and_its_gradient(axes):
    """For mapped arrays, too."""
    x = jr.normal(jr.key(0), (4, 2, 3, 5))
    slope = jr.normal(jr.key(1), (4, *(x.shape[1:][axis] for axis in axes)))

    def moved(x, on):
        with tracing_for_accelerator(on):
            out = jax.vmap(lambda x: transposed(x, axes))(x)
        return jnp.sum(jnp.sin(out) * slope), out

    (a, b), (c, d) = (jax.jit(jax.grad(partial(moved, on=on), has_aux=True))(x) for on in (True, False))
    np.testing.assert_array_equal(b, d)
    np.testing.assert_array_equal(a, c)
    assert "transpose" not in str(jax.make_jaxpr(partial(moved, on=True))(x))


@pytest.mark.parametrize(("count", "used"), [(5, 2 * 12 + 3 * 36), (3, 2 * 12 + 36)])
def test_a_chain_uses_every_entry_of_its_cores_once(count, used):
    """If a lane has fewer cores, the others are identities, and entries of unused ones occur nowhere."""
    whole = lambda x: jnp.sum(Chain(5, 3, 2).matrix(x, jnp.int32(count)))  # noqa: E731
    slope = jax.jit(jax.grad(whole))(jnp.ones(2 * 12 + 3 * 36))
    assert int(jnp.sum(slope != 0)) == used


@pytest.mark.parametrize("entangler", ["cz", "cz_ring", "none"])
def test_signs_are_the_same_whether_the_entangler_is_known_while_tracing_or_not(entangler):
    hp = jax.tree.map(jnp.asarray, assign(PQCHyperparams(), {"entangler": entangler, "stacks": 2}))
    network = eqx.filter_jit(lambda: hp.network(5, {**hp.sizes(), "stacks": 3}, key=jr.key(0)))()
    known = network.signs()
    traced = jax.jit(lambda hp: eqx.tree_at(lambda n: n.hp, network, hp).signs())(hp)
    np.testing.assert_array_equal(known, traced)
    assert known.dtype == traced.dtype == jnp.float32


def test_few_features_are_summed_as_a_matrix_product_would():
    layer = Linear(6, 2, 6, 2, 1.0, key=jr.key(0))
    layer = jax.tree.map(lambda x: x + 0.1, layer)
    x = jr.normal(jr.key(1), (4, 6))
    few, product = (
        jax.jit(jax.value_and_grad(lambda layer, f=f: jnp.sum(jnp.sin(jax.vmap(lambda x: f(layer, x))(x)))))(
            layer
        )
        for f in (Linear.of_few, lambda layer, x: layer.weight @ x + layer.bias)
    )
    for a, b in zip(jax.tree.leaves(few), jax.tree.leaves(product), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
