"""The replay buffer: which transitions it holds and samples, for any allocated size."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from hyperlax.learning.replay import Replay
from hyperlax.learning.rollout import Trajectory

ROLLOUT, ENVS, OBS = 4, 5, 2
DISCRETE = jax.ShapeDtypeStruct((), jnp.int32)


def rollout(number: int, rows: int, action_shape=()):
    """Transitions that are identified by their reward, 1000 · rollout + 10 · row + environment."""
    t, e = np.meshgrid(np.arange(ROLLOUT), np.arange(ENVS), indexing="ij")
    name = (1000 * number + 10 * t + e).astype(np.float32)
    actions = np.broadcast_to(
        name.reshape(name.shape + (1,) * len(action_shape)), (*name.shape, *action_shape)
    )
    return Trajectory(
        aux=jnp.asarray(actions, jnp.float32 if action_shape else jnp.int32),
        obs=jnp.asarray(np.stack([name, -name], axis=-1)),
        next_obs=jnp.asarray(np.stack([name + 0.5, -name - 0.5], axis=-1)),
        reward=jnp.asarray(name),
        terminated=jnp.asarray(e % 2 == 1),
        truncated=jnp.asarray(e % 2 == 0),
        last_obs=jnp.zeros((ENVS, OBS)),
        rows=jnp.int32(rows),
    )


@jax.jit
def add(replay, trajectory, envs):
    return replay.add(trajectory, trajectory.aux, envs)


def filled(capacity, rows, allocated, rounds, envs=3, own_rows=3):
    """A replay buffer after `rounds` rollouts, and the rewards of its transitions in a plain Python list."""
    replay = Replay(jnp.int32(capacity), allocated, OBS, DISCRETE)
    names: list[int] = []
    for k in range(rounds):
        replay = add(replay, rollout(k + 1, rows), jnp.int32(envs))
        names += [1000 * (k + 1) + 10 * t + e for t in range(rows) for e in range(envs)]
    return replay, names[-capacity:]


@pytest.mark.parametrize(
    ("capacity", "allocated", "rounds"),
    [(100, 100, 3), (20, 20, 5), (7, 30, 4), (5, 5, 2)],
    ids=["not-full", "wrapped", "allocated-more", "rollout-larger-than-ring"],
)
def test_the_buffer_holds_the_latest_transitions(capacity, allocated, rounds):
    replay, expected = filled(capacity, 3, allocated, rounds)
    assert int(replay.size) == len(expected)
    assert int(replay.added) == rounds * 9
    table = np.asarray(replay.table.value)
    rewards = table[:, -2][: len(expected)]
    assert sorted(rewards) == sorted(expected)
    np.testing.assert_array_equal(table[len(expected) :], 0, "nothing is written beyond the capacity")


def test_a_finished_lane_writes_nothing():
    replay, _ = filled(7, 3, 9, 2)
    after = add(replay, rollout(9, 0), jnp.int32(3))
    np.testing.assert_array_equal(after.table.value, replay.table.value)
    assert after.added == replay.added


def test_samples_are_whole_transitions_drawn_evenly():
    replay, names = filled(20, 3, 25, 5)
    words = jr.bits(jr.key(0), (20_000,), jnp.uint32)
    batch = jax.jit(lambda r, w: r.sample(w))(replay, words)
    name = np.asarray(batch.reward)
    np.testing.assert_array_equal(batch.action, name.astype(np.int32))
    np.testing.assert_array_equal(batch.obs, np.stack([name, -name], axis=-1))
    np.testing.assert_array_equal(batch.next_obs, np.stack([name + 0.5, -name - 0.5], axis=-1))
    np.testing.assert_array_equal(batch.terminated, name % 10 % 2 == 1)
    assert batch.action.dtype == jnp.int32
    found, counts = np.unique(name, return_counts=True)
    assert sorted(found) == sorted(names)
    assert np.abs(counts / 1000 - 1).max() < 0.2, "6 standard deviations"


def test_continuous_actions_keep_their_shape():
    replay = Replay(jnp.int32(8), 8, OBS, jax.ShapeDtypeStruct((3,), jnp.float32))
    replay = add(replay, rollout(1, 2, (3,)), jnp.int32(2))
    batch = replay.sample(jnp.arange(4, dtype=jnp.uint32))
    assert batch.action.shape == (4, 3)
    np.testing.assert_array_equal(batch.action[:, 1], batch.reward)


def test_adding_and_sampling_touch_only_their_rows():
    """With a donated buffer, the compiled step needs no second copy of it."""
    rows = 200_000
    replay = Replay(jnp.int32(rows), rows, OBS, DISCRETE)

    @partial(jax.jit, donate_argnums=0)
    def many(replay, trajectory, key):
        def step(i, carry):
            replay, total = carry
            replay = replay.add(trajectory, trajectory.aux, jnp.int32(3))
            words = jr.bits(jr.fold_in(key, i), (8,), jnp.uint32)
            return replay, total + jnp.sum(replay.sample(words).reward)

        return jax.lax.fori_loop(0, 10, step, (replay, jnp.zeros(())))

    compiled = many.lower(replay, rollout(1, 3), jr.key(0)).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None
    buffer = replay.table.value.nbytes
    assert analysis.temp_size_in_bytes < 0.01 * buffer
    assert analysis.alias_size_in_bytes >= buffer
