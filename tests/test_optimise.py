"""Adam on one flat vector against optax on each network."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hyperlax.hyperparams import AbstractHyperparams, Real, hp
from hyperlax.hyperparams.spaces import Uniform
from hyperlax.learning.optimise import adam_state, adam_step, decayed, flatten, per_part


class Settings(AbstractHyperparams):
    rate: Real = hp(0.5, Uniform(0.0, 1.0), doc="not a weight")


class Net(eqx.Module):
    hp: Settings
    a: jax.Array
    b: list[jax.Array]
    steps: jax.Array

    def __init__(self, rng):
        draw = lambda *shape: jnp.asarray(rng.normal(size=shape).astype(np.float32))  # noqa: E731
        self.hp = Settings()
        self.a = draw(*rng.integers(1, 5, 2))
        self.b = [draw(int(rng.integers(1, 6))), draw()]
        self.steps = jnp.int32(7)


def arrays(net):
    return [net.a, *net.b]


def test_every_part_takes_the_steps_of_clipped_adam():
    """The reference is `optax.chain(clip_by_global_norm, adam)` of each network on its own."""
    rng = np.random.default_rng(0)
    for count in (1, 3):
        nets = [Net(rng) for _ in range(count)]
        lrs = [float(10 ** rng.uniform(-4, -1)) for _ in nets]
        limit = float(rng.uniform(0.5, 5))
        optimisers = [optax.chain(optax.clip_by_global_norm(limit), optax.adam(lr)) for lr in lrs]
        expected = [arrays(n) for n in nets]
        states = [o.init(e) for o, e in zip(optimisers, expected, strict=True)]
        weights, parts, restore = flatten(nets)
        state = adam_state(nets)
        clipped = 0

        @jax.jit
        def ours(weights, gradient, state, parts=parts, lrs=lrs, limit=limit):
            return adam_step(
                weights, gradient, state, parts, [jnp.float32(lr) for lr in lrs], jnp.float32(limit)
            )

        @jax.jit
        def theirs(networks, gradients, states, optimisers=optimisers):
            with jax.numpy_dtype_promotion("standard"):
                pairs = [o.update(g, s) for o, g, s in zip(optimisers, gradients, states, strict=True)]
                moved = [optax.apply_updates(n, u) for n, (u, _) in zip(networks, pairs, strict=True)]
            return moved, [s for _, s in pairs]

        for _ in range(6):
            scale = 10 ** rng.uniform(-2, 1)
            gradients = [[rng.normal(0, scale, x.shape).astype(np.float32) for x in e] for e in expected]
            norms = [float(np.sqrt(sum(np.sum(x**2) for x in g))) for g in gradients]
            clipped += sum(n > limit for n in norms)
            flat = np.concatenate([x.reshape(-1) for g in gradients for x in g])
            weights, state, measured = ours(weights, flat, state)
            np.testing.assert_allclose(measured, norms, rtol=1e-5)
            expected, states = theirs(expected, gradients, states)
        assert clipped > 0
        for net, wanted in zip(restore(weights), expected, strict=True):
            for a, b in zip(arrays(net), wanted, strict=True):
                np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_flattening_and_restoring_changes_nothing_but_the_weights():
    nets = [Net(np.random.default_rng(i)) for i in range(3)]
    weights, parts, restore = flatten(nets)
    assert parts == tuple(sum(x.size for x in arrays(n)) for n in nets)
    assert eqx.tree_equal(restore(weights), tuple(nets))
    moved = restore(weights + 1)
    for before, after in zip(nets, moved, strict=True):
        assert eqx.tree_equal(after.hp, before.hp)
        assert after.steps == before.steps
        assert all((x == y + 1).all() for x, y in zip(arrays(after), arrays(before), strict=True))


def test_a_weight_without_gradient_never_moves():
    nets = [Net(np.random.default_rng(0))]
    weights, parts, _ = flatten(nets)
    state, start = adam_state(nets), weights
    padded = jnp.arange(weights.size) % 2 == 0
    for i in range(4):
        gradient = jnp.where(padded, 0.0, float(i + 1))
        weights, state, _ = adam_step(weights, gradient, state, parts, [jnp.float32(0.1)], jnp.float32(1))
    assert (weights[padded] == start[padded]).all()
    assert (weights[~padded] != start[~padded]).all()


def test_a_vanishing_gradient_divides_nothing_by_zero():
    nets = [Net(np.random.default_rng(0))]
    weights, parts, _ = flatten(nets)
    after, _, norms = adam_step(
        weights, jnp.zeros_like(weights), adam_state(nets), parts, [jnp.float32(0.1)], jnp.float32(0.5)
    )
    np.testing.assert_array_equal(after, weights)
    assert norms.tolist() == [0.0]


def test_values_spread_over_their_parts():
    spread = per_part((2, 3, 1), [jnp.float32(x) for x in (5, 6, 7)])
    assert spread.tolist() == [5, 5, 6, 6, 6, 7]


@pytest.mark.parametrize(
    ("progress", "decay", "expected"),
    [(0.0, True, 1e-3), (0.25, True, 7.5e-4), (1.0, True, 1e-7), (1.2, True, 1e-7), (0.9, False, 1e-3)],
)
def test_step_sizes_decay_linearly_to_almost_zero(progress, decay, expected):
    assert decayed(jnp.float32(1e-3), jnp.float32(progress), jnp.bool_(decay)) == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize("lr", [0.0, 3e-8])
def test_a_step_size_below_the_floor_of_decay_is_never_raised(lr):
    for progress in (0.0, 0.5, 1.0):
        assert float(decayed(jnp.float32(lr), jnp.float32(progress), jnp.bool_(True))) <= np.float32(lr)
