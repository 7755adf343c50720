"""PPO's gradient against the textbook objective, however the batch is cut into minibatches and chunks."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from hyperlax import envs
from hyperlax.agents import PPO, PPOHyperparams
from hyperlax.hyperparams import assign
from hyperlax.lanes.constants import tracing_for_accelerator
from hyperlax.learning.minibatches import Minibatch, minibatch_bounds
from hyperlax.learning.optimise import flatten
from hyperlax.learning.returns import standardised
from hyperlax.learning.rollout import Envs, collect

SIZES = {"num_envs": 3, "rollout_length": 5, "num_minibatches": 4}
SMALL = {"actor.width": 6, "actor.depth": 1, "critic.width": 5, "critic.depth": 1, "clip_eps": 0.1}
BATCH, MINIBATCHES = 15, 4
bounds = jax.jit(jax.vmap(minibatch_bounds, in_axes=(0, None, None, None)))


def test_minibatches_contain_every_position_once():
    rng = np.random.default_rng(0)
    for _ in range(20):
        batch = int(rng.integers(1, 200))
        count = int(rng.integers(1, batch + 1))
        for drop in (False, True):
            cut = bounds(jnp.arange(200), jnp.int32(batch), jnp.int32(count), jnp.bool_(drop))
            starts, sizes = map(np.asarray, cut)
            pieces = [np.arange(a, a + n) for a, n in zip(starts[:count], sizes[:count], strict=True)]
            taken = np.concatenate(pieces)
            np.testing.assert_array_equal(taken, np.arange(len(taken)))
            lengths = {len(p) for p in pieces}
            if drop:
                assert lengths == {batch // count}
            else:
                assert len(taken) == batch
                assert max(lengths) - min(lengths) <= 1


def case(env_name, chunks, **changes):
    """An agent inside larger capacities, a rollout that it collected, and weights that have changed since."""
    env = envs.load(env_name)
    hp = jax.tree.map(jnp.asarray, assign(PPOHyperparams(), {**SIZES, **SMALL, **changes}))
    caps = hp.capacities([hp.sizes()], [1], env)
    caps |= {"minibatch_chunks": chunks, "rollout_length": 6, "env_block": 2, "env_blocks": 2}

    @jax.jit
    def collected(hp):
        agent = hp.agent(env, caps, key=jr.key(0))
        outside = Envs(env, 2, 2, key=jr.key(1))
        agent, _, trajectory, _ = collect(
            agent, env, outside, hp.num_envs, hp.rollout_length, 6, jnp.bool_(False), key=jr.key(2)
        )
        rollout = agent.estimates(trajectory)
        weights, _, _ = flatten((agent.actor, agent.critic))
        moved = weights + 0.3 * jr.normal(jr.key(3), weights.shape)
        return agent, trajectory, rollout, moved

    return collected(hp)


def textbook(agent, trajectory, rollout, weights):
    """The summed objective of all samples and its gradient (Schulman et al. 2017, eq. 9)."""
    hp = agent.hp
    own = (slice(0, int(hp.rollout_length)), slice(0, int(hp.num_envs)))
    pick = lambda x: jnp.asarray(np.asarray(x)[own].reshape(BATCH, *x.shape[2:]))  # noqa: E731
    step = jax.tree.map(pick, trajectory.aux)
    old_value, advantage, target = (pick(x) for x in (rollout.value, rollout.advantage, rollout.target))
    if hp.standardize_advantages:
        advantage = (advantage - advantage.mean()) / jnp.sqrt(advantage.var() + 1e-5)
    _, _, restore = flatten((agent.actor, agent.critic))

    def loss(weights):
        actor, critic = restore(weights)
        policies = jax.vmap(actor)(step.features)
        log_prob = jax.vmap(lambda p, raw: p.log_prob(raw))(policies, step.raw)
        entropy = jax.vmap(lambda p, noise: p.entropy(noise))(policies, step.noise)
        ratio = jnp.exp(log_prob - step.log_prob)
        low, high = 1 - hp.clip_eps, 1 + hp.clip_eps
        surrogate = jnp.where(
            advantage > 0, jnp.minimum(ratio, high) * advantage, jnp.maximum(ratio, low) * advantage
        )
        value = jax.vmap(critic)(step.features)
        error = (value - target) ** 2 / 2
        if hp.clip_value:
            near = jnp.clip(value, old_value - hp.clip_eps, old_value + hp.clip_eps)
            error = jnp.maximum(error, (near - target) ** 2 / 2)
        clipped = jnp.abs(ratio - 1) > hp.clip_eps
        measured = [-surrogate, error, entropy, ratio - 1 - jnp.log(ratio), clipped.astype(jnp.float32)]
        total = -surrogate - hp.ent_coef * entropy + hp.vf_coef * error
        return jnp.sum(total), jnp.stack([jnp.sum(m) for m in measured])

    return jax.jit(jax.grad(loss, has_aux=True))(weights)


@jax.jit
def all_minibatches(agent, trajectory, rollout, weights, seed):
    """Gradients and metrics of every minibatch of one epoch, at the same weights."""
    samples = agent.samples(trajectory, rollout)
    words = jr.bits(jr.key(seed), (8,), jnp.uint32)
    _, _, restore = flatten((agent.actor, agent.critic))

    def one(chunk, j):
        batch = jnp.int32(BATCH)
        start, size = minibatch_bounds(j, batch, jnp.int32(MINIBATCHES), jnp.bool_(False))
        minibatch = Minibatch(start, size, batch, jnp.int32(0), words, agent.chunks, chunk)
        return agent.gradient(weights, restore, samples, minibatch)

    largest = jnp.int32(-(-BATCH // MINIBATCHES))
    return agent.chunks.choose(largest, lambda n: jax.lax.map(partial(one, n), jnp.arange(MINIBATCHES)))


@pytest.mark.parametrize(
    ("env_name", "chunks", "changes"),
    [
        ("gymnax.cartpole", (4,), {"clip_value": True}),
        ("gymnax.cartpole", (3,), {"standardize_advantages": False}),
        ("gymnax.pendulum", (2, 5, 7), {"ent_coef": 0.1}),
    ],
    ids=["whole", "several-chunks", "chunk-sizes"],
)
def test_the_minibatches_of_an_epoch_add_up_to_the_textbook_gradient(env_name, chunks, changes):
    agent, trajectory, rollout, weights = case(env_name, chunks, **changes)
    expected, expected_metrics = textbook(agent, trajectory, rollout, weights)
    gradients, measured = all_minibatches(agent, trajectory, rollout, weights, jnp.int32(0))
    scale = float(jnp.abs(expected).max())
    np.testing.assert_allclose(gradients.sum(0), expected, rtol=1e-3, atol=1e-5 * scale)
    assert measured.shape == (MINIBATCHES, len(PPO.losses))
    np.testing.assert_allclose(measured.sum(0), expected_metrics, rtol=1e-3, atol=1e-4)


def test_every_epoch_has_a_new_order():
    agent, trajectory, rollout, weights = case("gymnax.cartpole", (4,))
    first, _ = all_minibatches(agent, trajectory, rollout, weights, jnp.int32(0))
    second, _ = all_minibatches(agent, trajectory, rollout, weights, jnp.int32(1))
    assert not np.allclose(first, second, rtol=1e-2)
    np.testing.assert_allclose(
        first.sum(0), second.sum(0), rtol=1e-2, atol=1e-4 * float(jnp.abs(first).max())
    )


def test_standardised_advantages_have_zero_mean_and_unit_variance_over_used_entries():
    for statistics, axis in (("batch", None), ("time_step", 1)):
        _, _, rollout, _ = case("gymnax.cartpole", (4,), advantage_statistics=statistics)
        scaled = np.asarray(standardised(rollout, jnp.bool_(statistics == "time_step")))
        scaled = scaled[:5, :3].astype(np.float64)
        raw = np.asarray(rollout.advantage)[:5, :3].astype(np.float64)
        expected = (raw - raw.mean(axis, keepdims=True)) / np.sqrt(raw.var(axis, keepdims=True) + 1e-5)
        np.testing.assert_allclose(scaled, expected, rtol=1e-3, atol=1e-4)


def test_an_accelerator_reduces_the_same_moments_at_once():
    _, _, rollout, _ = case("gymnax.cartpole", (4,))
    with tracing_for_accelerator():
        found = rollout.moments()
    np.testing.assert_allclose(found, rollout.moments(), rtol=1e-5)


def test_explained_variance_equals_its_definition_over_used_entries():
    _, _, rollout, _ = case("gymnax.cartpole", (4,))
    own = (slice(0, 5), slice(0, 3))
    target, value = (np.asarray(x)[own].astype(np.float64) for x in (rollout.target, rollout.value))
    expected = 1 - (target - value).var() / target.var()
    np.testing.assert_allclose(rollout.explained_variance(), expected, rtol=1e-3, atol=1e-4)
