"""Off-policy agents: when they collect, warm up and learn, and which steps count."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from lanes import LOW_EFFORT

from hyperlax import envs
from hyperlax.agents import DQNHyperparams, SACHyperparams
from hyperlax.agents.off_policy import counted, discounted
from hyperlax.hyperparams import assign, trainable
from hyperlax.learning.rollout import Trajectory
from hyperlax.programs import train

ENV = envs.load("gymnax.cartpole")
SIZES = {
    "num_envs": 3,
    "rollout_length": 2,
    "epochs": 2,
    "update_to_data": 0.0,
    "warmup_rollout_length": 4,
    "buffer_size": 60,
    "batch_size": 5,
    "critic.width": 4,
    "critic.depth": 1,
}


@cache
def _program(algorithm):
    base = algorithm()
    hp = assign(base, {**SIZES, **({"actor.width": 4, "actor.depth": 1} if hasattr(base, "actor") else {})})
    caps = hp.capacities([hp.sizes()], [1], ENV)

    @jax.jit
    def begun(hp, key):
        return train.start(hp, ENV, caps, jnp.int32(600), key=key, init_key=key)

    advance = jax.jit(
        lambda state, n: train.segment(state, ENV, caps, n),
        compiler_options=LOW_EFFORT,
    )
    return hp, begun, advance


def lane(algorithm=DQNHyperparams, cycles=0, **changes):
    hp, begun, advance = _program(algorithm)
    state = begun(jax.tree.map(jnp.asarray, assign(hp, changes)), jr.key_data(jr.key(0)))
    return advance(state, jnp.int32(cycles))


def weights(state):
    return np.asarray(state.agent.target)


@pytest.mark.parametrize("algorithm", [DQNHyperparams, SACHyperparams])
def test_nothing_is_learnt_while_warming_up(algorithm):
    """Four steps of warm-up are two cycles of two; the third cycle learns."""
    start, warm, ready = (lane(algorithm, cycles) for cycles in (0, 2, 3))
    np.testing.assert_array_equal(weights(start), weights(warm))
    assert (warm.gradient_steps, ready.gradient_steps) == (0, 2)
    assert bool((weights(warm) != weights(ready)).any())
    assert warm.env_steps == 12
    assert warm.agent.experience.replay.added == 12


@pytest.mark.parametrize(("size", "kept"), [(60, 60), (59, 57), (2, 3)])
def test_the_buffer_can_be_rounded_to_whole_steps_of_all_environments(size, kept):
    """The smallest buffer holds one step of them."""
    rounded = lane(buffer_size=size, buffer_rounding="whole_steps").agent.experience.replay
    assert rounded.capacity == kept
    assert lane(buffer_size=size).agent.experience.replay.capacity == size


def test_the_last_rollout_can_be_left_unlearned_but_for_the_momentum_of_adam():
    """The budget of 600 steps ends with cycle 100. Adam moves the weights by its moments alone."""
    before = lane(cycles=99, last_rollout="unlearned", decay_learning_rates=False, tau=1.0, epochs=1)
    learned, unlearned = (
        lane(cycles=100, last_rollout=how, decay_learning_rates=False, tau=1.0, epochs=1)
        for how in ("learned", "unlearned")
    )
    assert unlearned.gradient_steps == learned.gradient_steps == before.gradient_steps + 1
    adam = before.agent.optimiser
    mean, square = (np.asarray(x, np.float64) for x in (adam.mu, adam.nu))
    steps = int(adam.count) + 1
    step = (0.9 * mean / (1 - 0.9**steps)) / (np.sqrt(0.999 * square / (1 - 0.999**steps)) + 1e-8)
    expected = weights(before) - float(before.agent.hp.critic_lr) * step
    np.testing.assert_allclose(weights(unlearned), expected, rtol=1e-4, atol=1e-6)
    assert np.abs(weights(learned) - expected).max() > 1e-5


def test_warm_up_can_be_free():
    free = lane(cycles=5, warmup_budget="free")
    assert free.env_steps == 3 * 6
    assert free.agent.experience.replay.added == 5 * 6


@pytest.mark.parametrize("ratio", [0.1, 0.25, 1.0, 1.5])
def test_gradient_steps_follow_the_update_to_data_ratio(ratio):
    state = lane(cycles=22, update_to_data=ratio)
    learning = 20 * 6
    assert abs(int(state.gradient_steps) - ratio * learning) <= 1


@pytest.mark.parametrize("ratio", [0.125, 0.3, 0.5, 0.7, 1.0, 3.0])
def test_no_transition_is_forgotten_however_many_there_are(ratio):
    """float32 alone could not tell counts beyond 2^24 apart."""
    whole = jax.jit(jax.vmap(counted, in_axes=(0, None)))
    exact = Fraction(float(np.float32(ratio)))
    for start in (0, 10_000, 2**20 - 50, 2**24 - 50, 2**29, 2**31 // 3 - 200):
        counts = np.arange(start, start + 100)
        found = np.asarray(whole(jnp.asarray(counts, jnp.int32), jnp.float32(ratio))).astype(np.int64)
        right = np.asarray([math.floor(int(n) * exact) for n in counts])
        assert abs(found - right).max() <= (0 if ratio in (0.125, 0.5, 1.0, 3.0) else 1), start


def test_exploration_falls_with_the_steps_taken_and_not_a_cycle_later():
    """Cycles of 6 steps, and a schedule over 30 of them: each cycle acts with what is left at its start."""
    settings = {"epsilon_decay": 0.05, "training_epsilon": 0.0, "warmup_rollout_length": 0}
    shares = [float(lane(cycles=n, **settings).agent.epsilon) for n in range(6)]
    np.testing.assert_allclose(shares, [1.0, 0.8, 0.6, 0.4, 0.2, 0.0], atol=1e-6)


def test_warm_up_actions_are_uniform_or_the_policys():
    def rows(**changes):
        state = lane(
            cycles=2, epsilon_decay=0.0, training_epsilon=0.0, normalize_observations=False, **changes
        )
        return np.asarray(state.agent.experience.replay.table.value)[:12]

    values = jax.vmap(lane().agent.critic)
    for actions, greedy in (("uniform", False), ("policy", True)):
        seen = rows(warmup_actions=actions)
        best = np.argmax(np.asarray(values(jnp.asarray(seen[:, :4]))), axis=1)
        assert (seen[:, -3] == best).all() == greedy, actions


STILL = {"critic_lr": 0.0, "decay_learning_rates": False}
"""What lets no weight of DQN move, so that all gradients of a cycle are taken at the same weights."""


def measured(cycles, **changes):
    """The means of the metrics of DQN over so many cycles, of which the first two do not learn."""
    return train.read_metrics(lane(cycles=cycles, **changes))[1]


def test_losses_are_added_or_averaged_over_a_batch():
    """The gradient of a sum over five transitions is five times that of the mean."""
    mean, total = (measured(3, **STILL, loss_reduction=by)["critic_grad_norm"] for by in ("mean", "sum"))
    np.testing.assert_allclose(total, 5 * mean, rtol=1e-5)


def test_every_gradient_step_draws_a_batch_of_its_own():
    once, twice = (measured(3, **STILL, epochs=n)["td_error"] for n in (1, 2))
    assert abs(once - twice) > 1e-4


def test_step_sizes_fall_as_the_budget_is_spent():
    """The third cycle is the first that learns; it starts after 12 of 600 steps."""
    rate = lane().agent.hp.critic_lr
    np.testing.assert_allclose(measured(3)["critic_lr"], 0.98 * rate, rtol=1e-5)
    np.testing.assert_allclose(measured(3, decay_learning_rates=False)["critic_lr"], rate, rtol=1e-6)


def test_a_gradient_is_clipped_before_adam():
    """Where a gradient is far below the ε of Adam, steps shrink with it."""
    for most, moves in ((0.5, True), (1e-12, False)):
        before, after = (weights(lane(cycles=n, max_grad_norm=most, tau=1.0)) for n in (2, 3))
        assert (np.abs(after - before).max() > 1e-5) == moves


@pytest.mark.parametrize("still", ["q_lr", "actor_lr", "alpha_lr"])
def test_every_model_of_sac_has_a_step_size_of_its_own(still):
    """That of nought stands still, and the others move."""
    places = ("q_lr", "actor_lr", "alpha_lr")
    kind: Any = SACHyperparams
    models = [lane(kind, n, decay_learning_rates=False, **{still: 0.0}).agent.models() for n in (2, 3)]
    before, after = ([ravel_pytree(eqx.filter(m, trainable(m)))[0] for m in found] for found in models)
    moved = [bool((a != b).any()) for a, b in zip(after, before, strict=True)]
    assert moved == [name != still for name in places]


def test_both_ends_of_a_transition_are_normalised_as_the_hyperparameters_say():
    """In evaluation always, or as in training."""
    for normalises in (True, False):
        agent = lane(cycles=1, normalize_observations=normalises).agent
        step = jax.tree.map(lambda x: x[0], agent.experience.replay.sample(WORDS))

        @jax.jit
        def both(agent, step, normalises=normalises):
            ends = normalised(agent, step.obs), normalised(agent, step.next_obs)
            seen = eqx.tree_at(lambda t: (t.obs, t.next_obs), step, ends) if normalises else step
            wanted = agent.loss(agent.models(), agent.critic, seen, jnp.zeros(0))[0]
            return agent._loss(agent.critic, agent.models(), step, jnp.zeros(0))[0], wanted

        np.testing.assert_allclose(*both(agent, step), rtol=1e-5)
        for how in ("always", "as_trained"):
            agent = lane(cycles=1, normalize_observations=normalises, evaluation_normalisation=how).agent
            agent = agent.for_evaluation()
            seen = normalised(agent, step.obs) if normalises or how == "always" else step.obs
            np.testing.assert_allclose(agent.experience.features(agent.hp, step.obs), seen, rtol=1e-5)
            assert (seen != step.obs).any() == (normalises or how == "always")


WORDS = jnp.arange(1, dtype=jnp.uint32)


def normalised(agent, obs):
    statistics = agent.experience.normaliser
    return (obs - statistics.mean) / jnp.sqrt(statistics.variance)


@pytest.mark.parametrize("tau", [0.0, 0.25, 1.0])
def test_the_target_network_moves_by_the_share_tau(tau):
    """One gradient step: target = (1 − τ) old + τ new."""
    before = lane(cycles=2, tau=tau)
    after = lane(cycles=3, tau=tau, epochs=1)
    new = ravel_pytree(eqx.filter(after.agent.critic, eqx.is_inexact_array))[0]
    moved = np.asarray(new) - weights(before)
    assert np.abs(moved).max() > 1e-5
    np.testing.assert_allclose(weights(after), weights(before) + tau * moved, atol=1e-7)


def test_observations_enter_the_normaliser_before_or_after_they_are_acted_on():
    """Actions are chosen with the statistics of all rows but the newest, or of all rows."""
    env_rows = 3 * 2
    collected = lane(cycles=1)
    assert collected.agent.experience.seen.count == env_rows
    obs = jnp.ones((3, 4))
    valid = jnp.ones(3, bool)
    hp = _program(DQNHyperparams)[0]
    after = collected.agent.experience.observed(jax.tree.map(jnp.asarray, hp), obs, valid)
    assert (after.normaliser.count, after.seen.count) == (env_rows, env_rows + 3)
    hp = jax.tree.map(jnp.asarray, assign(hp, {"normaliser_order": "before_acting"}))
    before = collected.agent.experience.observed(hp, obs, valid)
    assert (before.normaliser.count, before.seen.count) == (env_rows + 3, env_rows + 3)


def test_evaluation_never_acts_as_in_warm_up():
    begun = lane(epsilon_decay=0.0, training_epsilon=0.0).agent
    obs = jnp.ones(4)
    explored = lambda agent, k: agent.act(obs, key=k, explore=jnp.bool_(True))[0]  # noqa: E731
    act = jax.jit(jax.vmap(explored, in_axes=(None, 0)))
    keys = jr.split(jr.key(0), 64)
    assert len(np.unique(act(begun, keys))) == 2
    assert len(np.unique(act(begun.for_evaluation(), keys))) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"batch_size": 100}, "a batch of 100 from a buffer of 60"),
        (
            {"batch_size": 60, "num_envs": 7, "buffer_rounding": "whole_steps"},
            "a batch of 60 from a buffer of 56",
        ),
        ({"rollout_length": 30}, "a rollout of 90 steps into a buffer of 60"),
        ({"batch_size": 50, "warmup_rollout_length": 1}, "a batch of 50 when 12 steps are collected"),
        ({"update_to_data": 0.5}, "epochs (2) has no effect while update_to_data is 0.5"),
        ({"update_to_data": 0.5, "epochs": 16}, None),
    ],
)
def test_conflicting_hyperparameters_are_explained(changes, message):
    problems = assign(_program(DQNHyperparams)[0], changes).problems()
    assert (problems == []) == (message is None)
    assert message is None or any(message in p for p in problems)


def test_the_discounted_sum_is_reward_plus_gamma_times_the_next_value():
    reward, gamma, following = jnp.asarray([2.5, 0.9, -7.0])
    np.testing.assert_allclose(discounted(reward, gamma, following), 2.5 - 0.9 * 7, rtol=1e-6)


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_a_finished_lane_takes_no_gradient_step(ratio):
    """Other lanes of its program would have to wait for it."""
    agent = lane(cycles=4, update_to_data=ratio).agent
    hp, envs_, size = agent.hp, 3, ENV.obs_size
    none, obs = jnp.zeros((2, envs_)), jnp.zeros((2, envs_, size))

    @jax.jit
    def due(agent, rows):
        rollout = Trajectory(none.astype(int), obs, obs, none, none > 0, none > 0, obs[0], rows)
        return agent.experience.collected(hp, rollout).steps

    assert due(agent, jnp.int32(2)) == (2 if ratio == 0 else 3)
    assert due(agent, jnp.int32(0)) == 0
