"""A padded MLP is the MLP of its own size: values, gradients, training and parameter count."""

from __future__ import annotations

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
from hyperlax.hyperparams import assign, stack, trainable
from hyperlax.learning.optimise import adam_state, adam_step, flatten
from hyperlax.networks import MLP, Critic, MLPHyperparams
from hyperlax.networks.mlp import ACTIVATIONS

IN = 5
CAPS = {
    "width": 9,
    "depth": 3,
    "layer_norm": frozenset({True, False}),
    "activation": frozenset(ACTIVATIONS),
    "batch_last": True,
}
PLAIN = {
    "relu": lambda x: jnp.maximum(x, 0),
    "tanh": lambda x: jnp.tanh(x),
    "silu": lambda x: x / (1 + jnp.exp(-x)),
    "gelu": lambda x: 0.5 * x * (1 + jnp.tanh(np.sqrt(2 / np.pi).astype(np.float32) * (x + 0.044715 * x**3))),
    "elu": lambda x: jnp.where(x > 0, x, jnp.exp(jnp.minimum(x, 0)) - 1),
}


def lanes_of(rng):
    """One lane per activation, each of random size, with and without LayerNorm."""
    return [
        assign(
            MLPHyperparams(),
            {
                "width": int(rng.integers(1, 10)),
                "depth": 1 + i % 3,
                "layer_norm": bool(i % 2),
                "activation": name,
                "layer_norm_scale": bool(rng.integers(2)),
            },
        )
        for i, name in enumerate(rng.permutation(list(ACTIVATIONS)).tolist())
    ]


def used(hp, critic):
    """True where a weight of `critic` belongs to the network of the lane's own size."""
    width, depth = int(hp.width), int(hp.depth)

    def mask(path, x):
        name = jax.tree_util.keystr(path)
        rows = np.arange(x.shape[0]) < (1 if "head" in name else width)
        layer = 0 if "head" in name else int(path[-2].idx)
        within = rows if x.ndim == 1 else rows[:, None]
        if x.ndim == 2:
            inputs = IN if layer == 0 and "head" not in name else width
            within = within & (np.arange(x.shape[1]) < inputs)[None]
        return within & (layer < depth) & ("norms" not in name or bool(hp.layer_norm))

    return jax.tree_util.tree_map_with_path(mask, eqx.filter(critic, trainable(critic)))


def plain(hp, weights, x):
    """The textbook network on the corner weights: dense, LayerNorm over its units, activation."""
    width, depth = int(hp.width), int(hp.depth)
    name = list(ACTIVATIONS)[int(hp.activation)]
    for i in range(depth):
        matrix = weights.body.layers[i].weight[:width, : IN if i == 0 else width]
        x = matrix @ x + weights.body.layers[i].bias[:width]
        if hp.layer_norm:
            scale = weights.body.norms[i].scale[:width]
            scale = scale if hp.layer_norm_scale else jax.lax.stop_gradient(scale)
            x = (x - x.mean()) / jnp.sqrt(((x - x.mean()) ** 2).mean() + 1e-6)
            x = x * scale + weights.body.norms[i].bias[:width]
        x = PLAIN[name](x)
    return weights.head.weight[0, :width] @ x + weights.head.bias[0]


@eqx.filter_jit
def built(hps, keys):
    def one(hp, key):
        return Critic(MLP(hp, IN, CAPS, key=key), key=jr.fold_in(key, 1))

    return eqx.filter_vmap(one)(hps, keys)


def lane(batch, i):
    """Lane `i` of several."""
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[i]), batch)


def stacked(lanes):
    return jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *lanes)


def critics(rng):
    """Lanes of random sizes in one allocation, every used weight moved away from its initial value."""
    hps = lanes_of(rng)
    keys = jr.split(jr.key(int(rng.integers(1000))), len(hps))
    batch = built(jax.tree.map(jnp.asarray, stack(hps)), keys)
    singles = [lane(batch, i) for i in range(len(hps))]
    moved = []
    for hp, critic in zip(hps, singles, strict=True):
        weights, rest = eqx.partition(critic, trainable(critic))
        noise = jax.tree.map(lambda w: rng.normal(0, 0.3, w.shape).astype(np.float32), weights)
        weights = jax.tree.map(
            lambda w, u, n: jnp.asarray(np.asarray(w) + u * n), weights, used(hp, critic), noise
        )
        moved.append(eqx.combine(weights, rest))
    return hps, moved


@eqx.filter_jit
def value_and_gradient(critics, xs):
    def one(critic, xs):
        weights, rest = eqx.partition(critic, trainable(critic))
        loss = lambda w: jnp.sum(jnp.sin(jax.vmap(eqx.combine(w, rest))(xs)))  # noqa: E731
        return jax.vmap(critic)(xs), jax.grad(loss)(weights)

    return eqx.filter_vmap(one)(critics, xs)


def test_padding_changes_neither_values_nor_gradients():
    rng = np.random.default_rng(0)
    hps, lanes = critics(rng)
    xs = jnp.asarray(rng.normal(size=(len(hps), 4, IN)), jnp.float32)
    values, gradients = value_and_gradient(stacked(lanes), xs)
    for i, (hp, critic) in enumerate(zip(hps, lanes, strict=True)):
        weights = eqx.filter(critic, trainable(critic))

        def loss(weights, xs, hp=hp):
            values = jax.vmap(lambda x: plain(hp, weights, x))(xs)
            return jnp.sum(jnp.sin(values)), values

        expected, plainly = quick(jax.grad(loss, has_aux=True))(weights, xs[i])
        np.testing.assert_allclose(values[i], plainly, rtol=1e-4, atol=1e-5)
        for got, wanted in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(got[i], wanted, rtol=2e-3, atol=2e-5)


def test_padding_stays_exactly_zero_under_training():
    rng = np.random.default_rng(1)
    hps, lanes = critics(rng)
    batch = stacked(lanes)
    inside = [used(hp, critic) for hp, critic in zip(hps, lanes, strict=True)]

    @eqx.filter_jit
    def trained(critics, xs):
        def one(critic, xs):
            weights, parts, restore = flatten([critic])

            def step(_, carry):
                weights, state = carry
                gradient = jax.grad(lambda w: jnp.sum((jax.vmap(restore(w)[0])(xs) - 3) ** 2))(weights)
                return adam_step(weights, gradient, state, parts, [jnp.float32(0.1)], jnp.float32(1))[:2]

            weights, _ = jax.lax.fori_loop(0, 5, step, (weights, adam_state([critic])))
            return restore(weights)[0]

        return eqx.filter_vmap(one)(critics, xs)

    after = trained(batch, jnp.asarray(rng.normal(size=(len(hps), 4, IN)), jnp.float32))
    for i, (before, mask) in enumerate(zip(lanes, inside, strict=True)):
        own = lane(after, i)
        weights, old = eqx.filter(own, trainable(own)), eqx.filter(before, trainable(before))
        moved = 0
        for new, was, u in zip(*map(jax.tree.leaves, (weights, old, mask)), strict=True):
            assert not np.asarray(new)[~u].any()
            moved += int((np.asarray(new) != was).sum())
        assert moved > 0


def test_features_beyond_the_width_are_zero():
    rng = np.random.default_rng(2)
    hps, lanes = critics(rng)
    features_of = quick(lambda body, x: body(x))
    for hp, critic in zip(hps, lanes, strict=True):
        features = features_of(critic.body, jnp.asarray(rng.normal(size=IN), jnp.float32))
        assert features.shape == (critic.body.out_cap,) == (9,)
        assert critic.body.out_size == hp.width
        assert not np.asarray(features)[int(hp.width) :].any()


def test_a_layer_norm_without_scale_training_trains_its_bias_alone():
    hp = assign(MLPHyperparams(), {"width": 4, "depth": 1, "layer_norm": True, "layer_norm_scale": False})

    @quick
    def slopes():
        network = MLP(jax.tree.map(jnp.asarray, hp), IN, {**hp.sizes(), "batch_last": True}, key=jr.key(0))
        weights, rest = eqx.partition(network, trainable(network))
        return jax.grad(lambda w: jnp.sum(eqx.combine(w, rest)(jnp.ones(IN)) ** 2))(weights)

    gradient = slopes()
    assert not np.asarray(gradient.norms[0].scale).any()
    assert np.asarray(gradient.norms[0].bias).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_silent_at_zero(name):
    assert ACTIVATIONS[name](jnp.float32(0)) == 0


@pytest.mark.parametrize("env_name", ["gymnax.cartpole", "gymnax.pendulum", "gymnax.reacher"])
def test_parameters_are_counted_as_a_network_of_exactly_that_size_has_them(env_name):
    env, rng = envs.load(env_name), np.random.default_rng(3)
    for _ in range(6):
        sample = {}
        for net in ("actor", "critic"):
            sample[f"{net}.width"], sample[f"{net}.depth"] = int(rng.integers(1, 40)), int(rng.integers(1, 5))
            sample[f"{net}.layer_norm"], sample[f"{net}.layer_norm_scale"] = bool(rng.integers(2)), True
        hp = assign(PPOHyperparams(), sample)
        caps = hp.capacities([hp.sizes()], [1], env)
        built = eqx.filter_eval_shape(lambda h, caps=caps: h.agent(env, caps, key=jr.key(0)), hp)
        shapes = [
            x for net in (built.actor, built.critic) for x in jax.tree.leaves(net) if x.dtype == jnp.float32
        ]
        assert hp.parameter_count(env) == sum(x.size for x in shapes)
        without = assign(hp, {"actor.layer_norm_scale": False, "critic.layer_norm_scale": False})
        networks: list[Any] = [hp.actor, hp.critic]
        scales = sum(int(net.width) * int(net.depth) for net in networks if bool(net.layer_norm))
        assert without.parameter_count(env) == hp.parameter_count(env) - scales


def test_sizes_name_everything_that_is_allocated():
    hp = assign(MLPHyperparams(), {"width": 7, "depth": 2, "layer_norm": True, "activation": "elu"})
    assert hp.sizes() == {
        "width": 7,
        "depth": 2,
        "depths": frozenset({2}),
        "layer_norm": frozenset({True}),
        "activation": frozenset({"elu"}),
    }


def test_a_depth_that_all_lanes_share_costs_no_mask():
    hp = jax.tree.map(jnp.asarray, assign(MLPHyperparams(), {"width": 5, "depth": 3, "activation": "tanh"}))
    caps = {**CAPS, "layer_norm": frozenset({False}), "activation": frozenset({"tanh"})}

    def at(depths):
        net = quick(lambda hp: MLP(hp, IN, {**caps, "depths": depths}, key=jr.key(0)))(hp)
        traced = quick(lambda x: net.apply(x)).trace(jnp.ones(IN))
        return traced.jaxpr, traced.lower().compile()(jnp.ones(IN))

    (alone, value), (mixed, same) = at(frozenset({3})), at(frozenset({1, 3}))
    np.testing.assert_array_equal(value, same)
    assert "select_n" not in str(alone)
    assert "select_n" in str(mixed)
