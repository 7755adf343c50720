"""Weights in pages: the same models and gradients as in a vector, and zeros beyond the weights."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from hyperlax import envs
from hyperlax.hyperparams import assign
from hyperlax.lanes.constants import tracing_a_loss, tracing_for_accelerator
from hyperlax.lanes.sizes import merge
from hyperlax.learning import apart
from hyperlax.learning.apart import with_weights, without_weights
from hyperlax.learning.optimise import adam_state, flatten
from hyperlax.learning.pages import Flat, Pages, layout
from hyperlax.networks import AbstractNetwork, Actor, Critic, MLPHyperparams, TensorMLPHyperparams
from hyperlax.networks.extended import FEW_INPUTS
from hyperlax.networks.linear import Linear
from hyperlax.networks.models import AbstractModel, jointly, stacked_once

SPACE = envs.load("gymnax.acrobot").action_space
"""Three actions, so that the outputs of actor and critic differ in length."""
CASES = {
    "few inputs": (4, {}, {}),
    "many inputs": (FEW_INPUTS + 1, {}, {}),
    "one layer": (4, {"depth": 1}, {}),
    "three layers": (4, {"depth": 3}, {}),
    "normalised": (4, {"layer_norm": True}, {}),
    "some normalised": (4, {"depth": 2}, {"layer_norm": True, "depth": 3, "activation": "silu"}),
    "narrower": (4, {"width": 3}, {"width": 9}),
    "wide": (6, {"width": 20}, {"width": 24}),
}
"""Inputs, hyperparameters of a lane, and those of another one that shares its program."""
SHORT = ("some normalised", "narrower")


def actors_and_critics(inputs: int, ours: dict[str, Any], theirs: dict[str, Any], *, lanes: int) -> Any:
    """Models of so many lanes whose weights, biases and scales are all random where they are used."""
    hps = [assign(MLPHyperparams(), {"width": 6, "depth": 2, **ours, **more}) for more in ({}, theirs)]
    hp = jax.tree.map(jnp.asarray, hps[0])
    caps = {**merge([hp.sizes() for hp in hps]), "batch_last": False}

    def made(key: jax.Array) -> Any:
        keys = jr.split(key, 5)
        bodies = [hp.network(inputs, caps, key=key) for key in keys[:2]]
        models = Actor(bodies[0], SPACE, key=keys[2]), Critic(bodies[1], key=keys[3])
        weights, _, restore = flatten(models)
        inside, _, _ = flatten(jax.tree.map(lambda x: used(x, hps[0], caps), models))
        return restore(jnp.where(inside > 0, jr.normal(keys[4], weights.shape), 0))

    quick: Any = eqx.filter_jit(eqx.filter_vmap(made))
    return quick(jr.split(jr.key(0), lanes))


def lane(models: Any, i: int) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[i]) if eqx.is_array(x) else x, models)


def actor_and_critic(*case: Any) -> Any:
    return lane(actors_and_critics(*case, lanes=1), 0)


def used(x: Any, hp: Any, caps: Any) -> Any:
    """Ones where an array of weights is not padding; axes as long as the width hold that many units."""
    if not eqx.is_inexact_array(x):
        return x
    sizes = [hp.width if n == caps["width"] else n for n in x.shape]
    return jnp.pad(jnp.ones(sizes), [(0, n - m) for n, m in zip(x.shape, sizes, strict=True)])


def loss(models: Any, x: jax.Array) -> jax.Array:
    policy, value = jointly(models, (x, x))
    return jnp.sum(policy.log_probs * jnp.asarray([1.0, -2.0, 0.5])) + jnp.sin(value)


def gradient(of: Any, models: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The loss and its gradient by the weights as the layout `of` has them."""
    laid = of(models)

    def summed(weights: jax.Array) -> jax.Array:
        models = laid.restore(weights)
        with tracing_a_loss():
            return jnp.sum(jax.vmap(lambda x: loss(models, x))(x))

    with stacked_once(models):
        return jax.value_and_grad(summed)(laid.spread(laid.weights))


@pytest.mark.parametrize(
    "case", [c if c in SHORT else pytest.param(c, marks=pytest.mark.slow) for c in CASES]
)
def test_models_and_gradients_are_those_of_a_vector(case):
    """Alone, and in three lanes; no gradient beyond the weights, where there are cotangents, too."""
    models = actors_and_critics(*CASES[case], lanes=3)
    x = jr.normal(jr.key(7), (3, 5, CASES[case][0]))

    def both(models, x):
        laid = layout(models)
        assert type(laid) is Pages
        value, expected = gradient(Flat, models, x)
        return value, laid.spread(expected), laid.spread(jnp.ones_like(expected)), gradient(layout, models, x)

    with tracing_for_accelerator():
        together: Any = eqx.filter_jit(eqx.filter_vmap(both))
        values, expected, inside, found = together(models, x)
        alone = eqx.filter_jit(lambda models, x: gradient(layout, models, x))(lane(models, 1), x[1])
    np.testing.assert_allclose(found[0], values, rtol=1e-5)
    np.testing.assert_allclose(found[1], expected, rtol=1e-4, atol=1e-5)
    beyond = np.asarray(inside) == 0
    assert beyond.any()
    assert not np.asarray(found[1])[beyond].any()
    np.testing.assert_allclose(alone[0], values[1], rtol=1e-5)
    np.testing.assert_allclose(alone[1], found[1][1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_vector_comes_back_from_pages(case):
    @eqx.filter_jit
    def there_and_back(models):
        laid = layout(models)
        numbers = jnp.arange(1.0, laid.weights.size + 1)
        spread = laid.spread(numbers)
        assert spread.shape == (sum(laid.parts),)
        return numbers, spread, laid.gathered(spread)

    with tracing_for_accelerator():
        numbers, spread, back = map(np.asarray, there_and_back(actor_and_critic(*CASES[case])))
    np.testing.assert_array_equal(np.sort(spread[spread != 0]), numbers)
    np.testing.assert_array_equal(back, numbers)


def test_models_and_the_state_of_their_optimiser_come_back_from_training():
    models = actor_and_critic(*CASES["narrower"])

    @eqx.filter_jit
    def trained(models):
        n = flatten(models)[0].size
        state = adam_state(models)._replace(
            count=jnp.int32(7), mu=jnp.arange(0.0, n), nu=jnp.arange(1.0, n + 1)
        )
        laid = layout(models)
        moments: Any
        weights, moments = laid.begun(state)
        assert weights.shape == moments.mu.shape == moments.nu.shape == (sum(laid.parts),)
        return state, laid.ended(weights, moments)

    with tracing_for_accelerator():
        state, ended = trained(models)
    for a, b in zip(jax.tree.leaves(ended), jax.tree.leaves((models, state)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("case", "reads_parts", "sums"),
    [
        *[(case, True, True) for case in ("few inputs", "many inputs", "one layer", "three layers")],
        *[(case, False, True) for case in ("few inputs", "three layers")],
        ("narrower", True, False),
    ],
)
def test_models_without_and_with_their_weights_are_the_same(case, reads_parts, sums, monkeypatch):
    """What they return differs in rounding, as the biases are terms of their matrix products."""
    monkeypatch.setattr(apart, "READS_PARTS", reads_parts)
    models = actors_and_critics(*CASES[case], lanes=2)
    x = jr.normal(jr.key(3), (2, 5, CASES[case][0]))

    def both(models: Any, x: jax.Array) -> Any:
        weights, left = without_weights(models)
        again: Any = with_weights(weights, left, sums)
        assert (len(weights) == 2) == reads_parts
        assert not any(x.ndim == 2 for x in jax.tree.leaves(eqx.filter(left, eqx.is_array)))
        outputs = [jax.vmap(lambda x, m=m: (m[0](x).logits, m[1](x)))(x) for m in (models, again)]
        return outputs, flatten(models)[0], flatten(without_rows(again))[0]

    with tracing_for_accelerator():
        quick: Any = eqx.filter_jit(eqx.filter_vmap(both))
        (expected, found), weights, back = quick(models, x)
    np.testing.assert_array_equal(back, weights)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def without_rows(models: Any) -> Any:
    is_linear = lambda x: isinstance(x, Linear)  # noqa: E731
    plain = lambda x: eqx.tree_at(lambda x: x.paged, x, None) if is_linear(x) else x  # noqa: E731
    return jax.tree.map(plain, models, is_leaf=is_linear)


class Dueling(AbstractModel):
    """A model from elsewhere with two output layers, of which the pages of stacks know nothing."""

    body: AbstractNetwork
    value: Linear
    advantages: Linear

    @property
    def layer(self) -> Linear:
        return self.advantages

    def read(self, outputs: jax.Array) -> jax.Array:
        return outputs


def test_models_with_other_layers_and_those_of_programs_for_cpus_keep_their_weights(monkeypatch):
    monkeypatch.setattr(apart, "READS_PARTS", True)
    actor, critic = actor_and_critic(*CASES["few inputs"])
    normalised = actor_and_critic(*CASES["some normalised"])
    model = Dueling(actor.body, critic.head, actor.layer)

    def numbers() -> list[int]:
        return [len(without_weights(tree)[0]) for tree in ((actor, critic), (model, critic), (model, model))]

    assert numbers() == [0, 0, 0]
    with tracing_for_accelerator():
        assert numbers() == [2, 1, 0]
        assert kind((model, model)) is Flat
        assert kind(normalised) is Pages
        assert without_weights(normalised)[0] == []
        assert without_weights(model)[1] is model


def kind(models: Any) -> type:
    """The layout of models, without their weights."""
    found = []
    eqx.filter_eval_shape(lambda models: found.append(type(layout(models))), models)
    return found[0]


def test_other_networks_and_programs_for_cpus_have_vectors():
    """Tensor networks, and bodies of different widths, whose pages would differ in shape."""
    models = actor_and_critic(*CASES["few inputs"])
    wider = actor_and_critic(4, {"width": 7}, {})
    hp = jax.tree.map(jnp.asarray, TensorMLPHyperparams())

    def tensors(key: jax.Array) -> Any:
        body = hp.network(4, {**hp.sizes(), "batch_last": False}, key=key)
        return Actor(body, SPACE, key=key), Critic(body, key=key)

    assert kind(models) is Flat
    with tracing_for_accelerator():
        assert kind(models) is Pages
        assert kind((models[0], wider[1])) is Flat
        assert kind(eqx.filter_eval_shape(tensors, jr.key(0))) is Flat
