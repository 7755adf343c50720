"""A matrix product operator is the dense matrix it represents, and starts with activations of order one."""

from __future__ import annotations

import itertools
import json
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from lanes import quick

from hyperlax import envs
from hyperlax.agents import PPOHyperparams
from hyperlax.hyperparams import assign
from hyperlax.lanes.constants import tracing_a_loss, tracing_for_accelerator
from hyperlax.lanes.sizes import Branches, Extent, Shape, merge, to_json
from hyperlax.networks import Critic
from hyperlax.networks.base import prepared, with_networks_of
from hyperlax.networks.mlp import ACTIVATIONS
from hyperlax.networks.mpo import MPO
from hyperlax.networks.tensor import TensorMLPHyperparams, factors
from hyperlax.programs.plan import Machine, plan
from hyperlax.programs.stored import stored_capacities
from hyperlax.testing.laws import corner


def hyperparams(**changes):
    return jax.tree.map(jnp.asarray, assign(TensorMLPHyperparams(), changes))


def mpo(shape: str, bond: int, cap: int, seed: int = 0) -> MPO:
    _, local, cores = factors(shape)

    @quick
    def build(hp):
        unit = hp.chosen("initial_cores", "unit")
        return MPO(hp.bond_dim, unit, jr.normal(jr.key(seed), (cores, cap, cap, local, local)))

    return build(hyperparams(bond_dim=bond, shape=shape))


def matrix(layer: MPO) -> np.ndarray:
    """W [output, input], entry by entry: the product of the cores' bond matrices."""
    first, *middle, last = (np.asarray(c, np.float64) for c in layer.cores())
    local, count, hidden = first.shape[0], len(layer.cores()), layer.bias.size
    out = np.zeros((hidden, hidden))
    for row in range(hidden):
        for col in range(hidden):
            o = np.array(np.unravel_index(row, (local,) * count))
            i = np.array(np.unravel_index(col, (local,) * count))
            product = first[i[0], :, o[0]]
            for k, core in enumerate(middle, 1):
                product = product @ core[i[k], :, :, o[k]]
            out[row, col] = product @ last[i[-1], :, o[-1]]
    return out


@pytest.mark.parametrize(
    ("shape", "bond"), [("8=2^3", 1), ("8=2^3", 3), ("32=2^5", 4), ("64=4^3", 2), ("64=8^2", 5)]
)
def test_both_ways_of_applying_it_are_the_dense_matrix(shape, bond):
    layer = mpo(shape, bond, bond + 2)
    x = jr.normal(jr.key(9), (layer.bias.size, 3))
    dense = matrix(layer)
    formed, chain, batch, single = quick(
        lambda m, x: (m.dense(), m._along_the_bond(x), m(x), m(x[:, 0])),
    )(layer, x)
    np.testing.assert_allclose(formed, dense, rtol=1e-4, atol=1e-4 * np.abs(dense).max())
    expected = dense @ np.asarray(x, np.float64)
    for found in (chain, batch):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(single, batch[:, 0], rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_the_golden_layer():
    """Cores of 0.1 · (0, 1, 2 …) - 0.3 in the order input, left, right, output."""
    layer = mpo("8=2^3", 2, 2)
    cores = [jnp.arange(c.size, dtype=jnp.float32).reshape(c.shape) * 0.1 - 0.3 for c in layer.cores()]
    bias = jnp.arange(8, dtype=jnp.float32) * 0.01
    layer = eqx.tree_at(lambda m: (m.first, m.middle[0], m.last, m.bias), layer, (*cores, bias))
    golden = [0.0240, 0.1004, 0.0440, 0.1364, 0.0812, 0.1784, 0.1052, 0.2196]
    x = jnp.arange(8, dtype=jnp.float32) / 8 - 0.4
    np.testing.assert_allclose(layer(x), golden, atol=1e-4)
    np.testing.assert_allclose(layer.dense() @ x + bias, golden, atol=1e-4)


def test_the_cheaper_order_is_taken():
    """Along the bond for one sample, through the dense matrix for many."""
    layer = mpo("128=2^7", 4, 4)
    assert layer._chain_is_cheaper(jnp.zeros(128))
    assert not layer._chain_is_cheaper(jnp.zeros((128, 64)))


@pytest.mark.parametrize(
    "shape", ["32=2^5", *(pytest.param(s, marks=pytest.mark.slow) for s in ("64=2^6", "128=2^7"))]
)
def test_activations_start_at_order_one(shape):
    """For every benchmarked choice, no seed explodes or vanishes."""
    caps = {
        **hyperparams(shape=shape).sizes(),
        "bond_dim": 16,
        "mpo_layers": 3,
        "activation": frozenset({"relu", "tanh", "silu"}),
    }

    @quick
    def spread(hp, key):
        net = hp.network(6, caps, key=key)
        return jnp.std(net.apply(jr.normal(jr.fold_in(key, 1), (6, 64))))

    for name, bond, layers in itertools.product(("relu", "tanh", "silu"), (4, 8, 16), (1, 2, 3)):
        hp = hyperparams(shape=shape, bond_dim=bond, mpo_layers=layers, activation=name)
        found = [float(spread(hp, jr.key(s))) for s in range(4)]
        assert 0.01 < min(found) <= max(found) < 5, (name, bond, layers, found)


def test_the_published_initialisation_explodes_as_published():
    """N(0, 1) cores: the measured torso deviation at hidden 32, bond 4, three relu layers is 93 000."""
    changes = {
        "shape": "32=2^5",
        "bond_dim": 4,
        "mpo_layers": 3,
        "activation": "relu",
        "initial_cores": "unit",
    }
    hp = hyperparams(**changes)
    caps = hp.sizes()
    spread = quick(
        lambda key: jnp.std(hp.network(6, caps, key=key).apply(jr.normal(jr.fold_in(key, 1), (6, 64))))
    )
    assert np.median([spread(jr.key(s)) for s in range(9)]) > 1e3


def test_padding_changes_neither_values_nor_gradients():
    """Bond dimension, layers and activations of other lanes do not matter."""
    hp = hyperparams(shape="8=2^3", bond_dim=2, mpo_layers=1, activation="tanh")
    own = hp.sizes()
    more = {**own, "bond_dim": 5, "mpo_layers": 3, "activation": frozenset(ACTIVATIONS)}
    x = jr.normal(jr.key(1), (4, 6))

    def results(caps):
        net = hp.network(4, caps, key=jr.key(3))
        cores = [c[tuple(slice(0, 2) for _ in c.shape)] for c in net.layers[0].cores()]
        gradient = jax.grad(lambda x: jnp.sum(net.apply(x) ** 2))(x)
        return net.apply(x), gradient, *cores

    for a, b in zip(*(quick(lambda caps=caps: results(caps))() for caps in (own, more)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_a_gradient_on_accelerators_is_that_on_cpus():
    """There, the matrices of all layers are formed at once; biases are columns of them; a layer is unused."""
    hp = jax.tree.map(jnp.asarray, assign(TensorMLPHyperparams(), {"shape": "8=2^3", "bond_dim": 2}))
    caps = {**merge([hp.sizes()]), "bond_dim": 3, "mpo_layers": 3, "batch_last": False}
    critic = eqx.filter_jit(lambda: Critic(hp.network(2, caps, key=jr.key(0)), key=jr.key(1)))()
    biases = lambda c: [c.body.first.bias, c.body.layers[1].bias, c.body.last.bias]  # noqa: E731
    critic = eqx.tree_at(
        biases, critic, [jnp.asarray(np.linspace(0.1, 1, b.size), jnp.float32) for b in biases(critic)]
    )
    x = jr.normal(jr.key(2), (4, 2))

    def loss(critic, on):
        with tracing_for_accelerator(on), tracing_a_loss():
            return jnp.sum(jnp.sin(jax.vmap(critic)(x)))

    slope = lambda on: eqx.filter_jit(eqx.filter_value_and_grad(partial(loss, on=on)))(critic)  # noqa: E731
    for a, b in zip(jax.tree.leaves(slope(True)), jax.tree.leaves(slope(False)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "bond", "sums"),
    [
        ("64=8^2", 3, True),
        ("8=2^3", 2, True),
        ("32=2^5", 4, True),
        ("64=8^2", 8, False),
        ("64=4^3", 8, False),
        ("64=2^6", 8, False),
        ("128=2^7", 2, False),
    ],
)
def test_accelerators_form_the_same_matrix_and_gradient(shape, bond, sums):
    """In fewer kernels: by sums of products, or by matrix products from both ends of the chain of cores."""
    layer = mpo(shape, bond, bond + 1)
    with tracing_for_accelerator():
        assert ("dot_general" in str(jax.make_jaxpr(lambda layer: layer.dense())(layer))) is not sums
    slope = jr.normal(jr.key(5), (layer.bias.size,) * 2)

    def formed(layer, on):
        with tracing_for_accelerator(on):
            matrix = layer.dense()
        return jnp.sum(matrix * slope), matrix

    slopes = [jax.value_and_grad(partial(formed, on=on), has_aux=True) for on in (True, False)]
    found = [quick(lambda layer, f=f: f(layer))(layer) for f in slopes]
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


def test_a_prepared_network_holds_matrices_and_gives_the_same_outputs():
    hp = hyperparams(shape="8=2^3", bond_dim=2, mpo_layers=1)
    caps = {**merge([hp.sizes()]), "mpo_layers": 2, "batch_last": False}
    network = eqx.filter_jit(lambda: hp.network(3, caps, key=jr.key(0)))()
    tree = {"network": network, "other": jnp.ones(2)}
    ready = prepared(tree)
    assert not any(isinstance(layer, MPO) for layer in ready["network"].layers)
    assert ready["other"] is tree["other"]
    assert ready["network"].prepared() is ready["network"]
    assert with_networks_of(ready, tree)["network"] is network
    x = jr.normal(jr.key(1), (5, 3))
    with tracing_for_accelerator():
        fast = [quick(lambda x, n=n: jax.vmap(n)(x))(x) for n in (network, ready["network"])]
    np.testing.assert_allclose(fast[0], fast[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fast[0], quick(lambda x: jax.vmap(network)(x))(x), rtol=1e-4, atol=1e-5)


def test_parameters_are_counted():
    for shape, bond, layers in (("32=2^5", 16, 1), ("64=2^6", 4, 2), ("64=8^2", 3, 3)):
        hp = assign(TensorMLPHyperparams(), {"shape": shape, "bond_dim": bond, "mpo_layers": layers})
        build = partial(jax.tree.map(jnp.asarray, hp).network, 5, hp.sizes(), key=jr.key(0))
        net = eqx.filter_eval_shape(build)
        arrays = jax.tree.leaves((net.first, net.layers, net.last))
        assert hp.parameter_count(5) == sum(x.size for x in arrays if jnp.issubdtype(x.dtype, jnp.inexact))


@pytest.mark.parametrize(
    "shape", ["32=2^5", *(pytest.param(s, marks=pytest.mark.slow) for s in ("8=2^3", "64=2^6"))]
)
@pytest.mark.parametrize("on", [False, True], ids=["cpu", "accelerator"])
def test_lanes_with_fewer_cores_are_what_they_are_alone(shape, on):
    """Outputs and gradients, next to lanes with up to six cores; what they do not use stays zero."""
    hp = hyperparams(shape=shape, bond_dim=2, mpo_layers=2)
    own = {**hp.sizes(), "batch_last": False}
    most = merge([hp.sizes(), *(hyperparams(shape=s, bond_dim=3).sizes() for s in ("32=2^5", "64=2^6"))])
    x = jr.normal(jr.key(1), (5, 4))

    def loss(critic, x):
        with tracing_for_accelerator(on), tracing_a_loss():
            out = jax.vmap(critic)(x)
            return jnp.sum(jnp.sin(out)), out

    def results(caps):
        critic = Critic(hp.network(4, caps, key=jr.key(3)), key=jr.key(4))
        (_, out), slope = eqx.filter_value_and_grad(loss, has_aux=True)(critic, x)
        return critic.body, out, slope.body

    (alone, outputs, slope), (shared, others, padded) = (
        eqx.filter_jit(lambda caps=caps: results(caps))() for caps in (own, {**most, "batch_last": False})
    )
    np.testing.assert_allclose(others, outputs, rtol=1e-5, atol=1e-6)
    for exact, found, close in ((alone, shared, 1e-6), (slope, padded, 2e-5)):
        kept = dict(jax.tree_util.tree_leaves_with_path(eqx.filter(exact, eqx.is_inexact_array)))
        for path, leaf in jax.tree_util.tree_leaves_with_path(eqx.filter(found, eqx.is_inexact_array)):
            if path in kept:
                inside, rest = corner(np.asarray(leaf), np.asarray(kept[path]))
                scale = np.abs(kept[path]).max()
                np.testing.assert_allclose(inside, kept[path], rtol=close, atol=close * scale)
            else:
                rest = np.asarray(leaf)
            assert not rest.any(), jax.tree_util.keystr(path)
    for ours, theirs in zip(shared.plain(), alone.plain(), strict=True):
        assert ours.weight.shape == theirs.weight.shape
        np.testing.assert_allclose(ours.weight, theirs.weight, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(ours.bias, theirs.bias)


def test_a_layer_with_fewer_cores_is_a_block_of_its_matrix():
    layer, count = mpo("32=2^5", 3, 4), jnp.int32(3)
    unit, drawn = jnp.bool_(False), jr.normal(jr.key(0), (5, 4, 4, 2, 2))
    padded = quick(lambda: MPO(jnp.int32(3), unit, drawn, count))()
    formed, along = quick(
        lambda m: (m.dense(count), jax.vmap(lambda e: m._along_the_bond(e, count), 1, 1)(jnp.eye(32)))
    )(padded)
    small = quick(lambda: MPO(jnp.int32(3), unit, drawn[:3]))()
    expected = np.kron(np.eye(4), matrix(small))
    np.testing.assert_allclose(formed, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(along, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        quick(lambda m: m.dense(jnp.int32(5)))(layer), matrix(layer), rtol=1e-4, atol=1e-4
    )


def test_hidden_layers_of_different_sizes_share_a_program():
    """Local dimensions do not."""
    tmlp: Any = TensorMLPHyperparams()
    samples = [
        assign(PPOHyperparams(actor=tmlp, critic=tmlp), {"actor.shape": shape, "critic.shape": other})
        for shape, other in itertools.product(("32=2^5", "64=2^6"), repeat=2)
    ]
    env = envs.load("gymnax.cartpole")
    for platform in ("cpu", "gpu"):
        (program,) = plan(samples, env, 10_000, 1, Machine.planned(platform))
        assert program.caps["actor.core_counts"] == {5, 6}
        assert all(program.holds(hp.sizes()) for hp in samples)
    other = assign(samples[0], {"actor.shape": "64=4^3"})
    assert len(plan([*samples, other], env, 10_000, 1, Machine.planned("gpu"))) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"cores": Extent(2**31 - 1), "core_counts": Branches({2**31 - 1})},
        {"cores": Extent(6), "core_counts": Branches({6, 10**9})},
        {"cores": Extent(7), "core_counts": Branches({6})},
        {"core_counts": Branches({"6"})},
        {"core_counts": Branches()},
        {"local": Shape("x")},
    ],
    ids=["many", "beyond", "fewer", "text", "none", "local"],
)
def test_stored_capacities_that_no_network_has_are_refused_at_once(wrong):
    """Before any number is raised to their power, or an array of that size is made."""
    hp = assign(PPOHyperparams(actor=TensorMLPHyperparams()), {"actor.shape": "64=2^6"})
    env = envs.load("gymnax.cartpole")
    caps = hp.capacities([hp.sizes()], [1], env)
    read = lambda caps: stored_capacities(json.loads(json.dumps(to_json(caps))), hp, env, 2**30, 2**30)  # noqa: E731
    assert read(caps) == caps
    wrong = {f"actor.{name}": cap for name, cap in wrong.items()}
    with pytest.raises(ValueError, match=r"cores|capacity"):
        read({**caps, **wrong})
