"""The dense layer, and initial weights: orthogonal, and the same whatever is allocated around them."""

from __future__ import annotations

import math
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from lanes import quick
from scipy import stats

from hyperlax import envs
from hyperlax.experiments.recipes import Recipe
from hyperlax.lanes.constants import tracing_for_accelerator
from hyperlax.lanes.masking import row_keys
from hyperlax.networks import NETWORKS
from hyperlax.networks.extended import FEW_INPUTS
from hyperlax.networks.linear import Linear, orthogonal
from hyperlax.programs import train

CAPS = (9, 7)


@partial(jax.jit, static_argnums=(3, 4))
def drawn(key, rows, cols, row_cap, col_cap):
    return orthogonal(key, rows, cols, row_cap, col_cap, 1.5)


@pytest.mark.parametrize("rows", [1, 4, 7, 9])
@pytest.mark.parametrize("cols", [1, 4, 7])
def test_the_smaller_side_is_orthonormal_and_the_rest_is_zero(rows, cols):
    padded = np.asarray(drawn(jr.key(rows * cols), jnp.int32(rows), jnp.int32(cols), *CAPS))
    used = padded[:rows, :cols]
    gram = used @ used.T if rows <= cols else used.T @ used
    np.testing.assert_allclose(gram, 1.5**2 * np.eye(min(rows, cols)), atol=1e-5)
    padded = padded.copy()
    padded[:rows, :cols] = 0
    assert not padded.any()


@pytest.mark.parametrize("sizes", [(1, 7), (4, 4), (7, 2), (5, 6)])
def test_the_draw_depends_on_the_sizes_not_on_what_is_allocated(sizes: tuple[int, int]):
    key = jr.key(sum(sizes))
    traced = tuple(jnp.int32(s) for s in sizes)
    inside = drawn(key, *traced, *CAPS)[: sizes[0], : sizes[1]]
    np.testing.assert_allclose(inside, drawn(key, *traced, *sizes), atol=1e-6)
    np.testing.assert_allclose(inside, orthogonal(key, *sizes, *sizes, 1.5), atol=1e-6)


def test_the_draw_is_q_of_the_qr_decomposition_with_a_positive_diagonal():
    rows, cols, key = 9, 7, jr.key(3)
    normal = np.asarray(jax.vmap(lambda k: jr.normal(k, (rows,)))(row_keys(key, rows)))
    q, r = np.linalg.qr(normal[:, :cols])
    expected = 1.5 * q * np.sign(np.diagonal(r))
    np.testing.assert_allclose(drawn(key, jnp.int32(rows), jnp.int32(cols), *CAPS), expected, atol=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
def test_no_lane_starts_with_lapack(network):
    """Which stops for good when several devices call it at once (jaxlib 0.10.2)."""
    env = envs.load("gymnax.cartpole")
    hp = Recipe("ppo", network).hyperparams()
    caps = hp.capacities([hp.sizes()], [1], env)
    key = jnp.zeros(2, jnp.uint32)
    start = jax.jit(lambda hp, key: train.start(hp, env, caps, jnp.int32(1), key=key, init_key=key).agent)
    program = start.lower(jax.tree.map(jnp.asarray, hp), key).as_text()
    assert "stablehlo.while" in program
    assert "lapack" not in program


def many(rows, cols, count):
    keys = jr.split(jr.key(7), count)
    draws = quick(jax.vmap(lambda k: drawn(k, jnp.int32(rows), jnp.int32(cols), *CAPS)))(keys)
    return np.asarray(draws)[:, :rows, :cols]


@pytest.mark.parametrize(("rows", "cols"), [(3, 5), (5, 3)])
def test_entries_are_centred_with_the_variance_of_an_orthogonal_matrix(rows, cols):
    draws = many(rows, cols, 4000) / 1.5
    sem = 1 / math.sqrt(4000 * max(rows, cols))
    assert np.abs(draws.mean(0)).max() < 5 * sem
    np.testing.assert_allclose((draws**2).mean(0), 1 / max(rows, cols), rtol=0.1)


def test_directions_are_uniform_on_the_circle():
    """Haar measure: no direction preferred, and (signs fixed) no orientation either."""
    draws = many(2, 2, 4000)
    angle = np.arctan2(draws[:, 0, 1], draws[:, 0, 0])
    assert stats.kstest(angle, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-3
    left_handed = int((np.linalg.det(draws) < 0).sum())
    assert stats.binomtest(left_handed, 4000).pvalue > 1e-3


@pytest.mark.parametrize("batch_last", [True, False])
def test_a_layer_is_its_matrix_product(batch_last):
    layer = quick(lambda key: Linear(3, 5, 4, 6, 2.0, batch_last, key=key))(jr.key(0))
    x = jnp.asarray([1.0, -2.0, 0.5, 0.0])
    bias = jnp.arange(6.0)
    layer = jax.tree.map(lambda old: bias if old.shape == (6,) else old, layer)
    np.testing.assert_allclose(
        layer(x), np.asarray(layer.weight) @ np.asarray(x) + np.asarray(bias), rtol=1e-5
    )
    batch = jr.normal(jr.key(1), (8, 4))
    np.testing.assert_allclose(
        jax.vmap(layer)(batch),
        np.asarray(batch) @ np.asarray(layer.weight).T + np.asarray(bias),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize(("inputs", "products"), [(FEW_INPUTS, 0), (FEW_INPUTS + 1, 1)], ids=["few", "many"])
def test_few_inputs_are_added_up_on_accelerators(inputs, products):
    layer = quick(lambda key: Linear(inputs, 5, inputs, 6, 2.0, key=key))(jr.key(0))
    layer = eqx.tree_at(lambda x: x.bias, layer, jnp.arange(6.0))
    batch = jr.normal(jr.key(1), (8, inputs))
    with tracing_for_accelerator():
        jaxpr = jax.make_jaxpr(jax.vmap(layer.of_inputs))(batch)
        found = jax.vmap(layer.of_inputs)(batch)
    assert str(jaxpr).count("dot_general") == products
    expected = np.asarray(batch) @ np.asarray(layer.weight).T + np.asarray(layer.bias)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
