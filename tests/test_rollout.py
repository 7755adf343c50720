"""Collecting and evaluating against a plain Python loop, one environment after the other."""

from __future__ import annotations

import dataclasses
import importlib
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from toys import Endless, Scripted, Walk

from hyperlax.envs import Box, Timestep
from hyperlax.lanes.constants import tracing_for_accelerator
from hyperlax.lanes.masking import LANES
from hyperlax.learning.evaluation import evaluate
from hyperlax.learning.rollout import Envs, collect

ENV, AGENT = Walk(), Scripted()
KEY = jr.key(11)
FIELDS = ("obs", "next_obs", "reward", "terminated", "truncated")


@partial(jax.jit, static_argnums=(0, 1, 2))
def collected(blocks, size, cap, num_envs, rollout_length, terminates, key):
    envs = Envs(ENV, blocks, size, key=jr.fold_in(key, 99))
    return collect(AGENT, ENV, envs, num_envs, rollout_length, cap, terminates, key=key)


def run(blocks, size, cap, num_envs, rollout_length, terminates=False, key=KEY):
    return collected(
        blocks, size, cap, jnp.int32(num_envs), jnp.int32(rollout_length), jnp.bool_(terminates), key
    )


reset = jax.jit(lambda key: ENV.reset(key=key))
step = jax.jit(lambda state, action, key: ENV.step(state, action, key=key))
act = jax.jit(lambda agent, obs, key, explore: agent.act(obs, key=key, explore=explore))


def plainly(num_envs, rollout_length, terminates=False, key=KEY):
    """The same rollout as a double loop, with a random key per environment and step."""
    starts = [reset(jr.fold_in(jr.fold_in(key, 99), e)) for e in range(num_envs)]
    states, obs = [list(x) for x in zip(*starts, strict=True)]
    rows = {name: [] for name in (*FIELDS, "sum", "action")}
    agent, total, length, finished = AGENT, [0.0] * num_envs, [0] * num_envs, []
    for t in range(rollout_length):
        agent = agent.observe(jnp.stack(obs), jnp.ones(num_envs, bool))
        row = {name: [] for name in rows}
        for e in range(num_envs):
            keys = jr.split(jr.fold_in(jr.fold_in(key, e), t), 3)
            action, noted = act(agent, obs[e], keys[0], jnp.bool_(True))
            states[e], seen = step(states[e], action, keys[1])
            total[e] += float(seen.reward)
            length[e] += 1
            row["obs"].append(obs[e])
            row["next_obs"].append(seen.obs)
            row["reward"].append(seen.reward)
            row["terminated"].append(seen.terminated | (seen.truncated & terminates))
            row["truncated"].append(seen.truncated & (not terminates))
            row["sum"].append(noted["sum"])
            row["action"].append(noted["action"])
            obs[e] = seen.obs
            if seen.terminated or seen.truncated:
                finished.append((total[e], length[e]))
                states[e], obs[e] = reset(keys[2])
                total[e], length[e] = 0.0, 0
        for name, values in row.items():
            rows[name].append(np.stack(values))
    return {k: np.stack(v) for k, v in rows.items()}, np.stack(obs), finished


@pytest.mark.parametrize("terminates", [False, True])
def test_a_rollout_equals_a_plain_python_loop(terminates):
    rng = np.random.default_rng(int(terminates))
    num_envs, length = int(rng.integers(2, 6)), int(rng.integers(5, 9))
    agent, envs, trajectory, finished = run(3, 2, 9, num_envs, length, terminates)
    rows, last, episodes = plainly(num_envs, length, terminates)
    own = (slice(0, length), slice(0, num_envs))
    for name in FIELDS:
        np.testing.assert_allclose(getattr(trajectory, name)[own], rows[name], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(trajectory.aux["sum"][own], rows["sum"], rtol=1e-5)
    np.testing.assert_array_equal(trajectory.aux["action"][own], rows["action"])
    np.testing.assert_allclose(trajectory.last_obs[:num_envs], last, rtol=1e-5)
    np.testing.assert_array_equal(envs.obs.reshape(6, 3)[:num_envs], trajectory.last_obs[:num_envs])
    assert len(episodes) > 0, "an episode must end for the test to say anything"
    assert finished.episodes == len(episodes)
    np.testing.assert_allclose(finished.returns, sum(r for r, _ in episodes), rtol=1e-5)
    assert finished.lengths == sum(n for _, n in episodes)
    np.testing.assert_allclose(agent.shown, rows["obs"][..., 2].sum(), rtol=1e-5)


def test_next_obs_is_where_the_step_led_and_obs_is_where_the_next_one_starts():
    """At the end of an episode they differ: its last observation, and the first one of the next episode."""
    _, _, trajectory, _ = run(3, 2, 9, 6, 9)
    ended = np.asarray(trajectory.terminated | trajectory.truncated)[:-1]
    following, led = np.asarray(trajectory.obs)[1:], np.asarray(trajectory.next_obs)[:-1]
    assert ended.any()
    np.testing.assert_array_equal(following[~ended], led[~ended])
    assert (following[ended][:, 0] == 0).all(), "a new episode starts counting at zero"
    assert (led[ended][:, 0] >= 2).all()


def test_truncated_and_terminated_exclude_each_other_and_both_happen():
    _, _, trajectory, _ = run(3, 2, 9, 6, 9)
    terminated, truncated = np.asarray(trajectory.terminated), np.asarray(trajectory.truncated)
    assert terminated.any()
    assert truncated.any()
    assert not (terminated & truncated).any()
    counted = np.asarray(trajectory.next_obs)
    assert (counted[truncated][:, 0] == ENV.max_episode_steps).all()
    assert (counted[terminated][:, 0] == counted[terminated][:, 1]).all()


@pytest.mark.parametrize(("blocks", "size"), [(1, 6), (4, 4)])
def test_the_split_of_environments_into_blocks_changes_nothing(blocks, size):
    num_envs, length = 5, 8
    own = (slice(0, length), slice(0, num_envs))
    _, _, expected, finished = run(3, 2, 9, num_envs, length)
    _, _, got, also_finished = run(blocks, size, 9, num_envs, length)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(got, name)[own], getattr(expected, name)[own])
    np.testing.assert_array_equal(got.last_obs[:num_envs], expected.last_obs[:num_envs])
    assert also_finished.episodes == finished.episodes
    np.testing.assert_allclose(also_finished.returns, finished.returns, rtol=1e-6)


def test_larger_capacities_than_a_lane_needs_change_nothing():
    own = (slice(0, 3), slice(0, 2))
    _, _, exact, finished = run(1, 2, 3, 2, 3)
    agent, _, padded, also_finished = run(3, 2, 9, 2, 3)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(padded, name)[own], getattr(exact, name)[own])
    assert dataclasses.astuple(also_finished) == dataclasses.astuple(finished)
    np.testing.assert_allclose(agent.shown, np.asarray(exact.obs)[..., 2].sum(), rtol=1e-5)


def test_lanes_of_different_sizes_collect_the_same_as_alone():
    sizes = [(2, 9), (5, 3), (1, 1)]
    keys = jr.split(KEY, 3)

    @jax.jit
    @partial(jax.vmap, axis_name=LANES)
    def together(num_envs, rollout_length, key):
        envs = Envs(ENV, 3, 2, key=jr.fold_in(key, 99))
        return collect(AGENT, ENV, envs, num_envs, rollout_length, 9, jnp.bool_(False), key=key)

    num_envs, lengths = (jnp.asarray(x, jnp.int32) for x in zip(*sizes, strict=True))
    agents, envs, trajectories, finished = together(num_envs, lengths, keys)
    for i, (n, length) in enumerate(sizes):
        agent, alone_envs, alone, alone_finished = run(3, 2, 9, n, length, key=keys[i])
        own = (slice(0, length), slice(0, n))
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(trajectories, name)[i][own], getattr(alone, name)[own])
        np.testing.assert_array_equal(
            envs.episode_return[i].reshape(-1)[:n], alone_envs.episode_return.reshape(-1)[:n]
        )
        np.testing.assert_array_equal(agents.shown[i], agent.shown)
        np.testing.assert_array_equal(finished.returns[i], alone_finished.returns)


def test_episodes_continue_across_rollouts():
    _, envs, first, _ = run(3, 2, 9, 4, 3)
    _, _, second, _ = jax.jit(
        lambda e: collect(AGENT, ENV, e, jnp.int32(4), jnp.int32(3), 9, jnp.bool_(False), key=jr.key(5))
    )(envs)
    np.testing.assert_array_equal(second.obs[0, :4], first.last_obs[:4])


EPISODES = 3


@jax.jit
def evaluated(wanted, key):
    return evaluate(AGENT, ENV, EPISODES, wanted, key=key)


def evaluated_plainly(key):
    returns, lengths = [], []
    agent = AGENT.for_evaluation()
    for i in range(2 * EPISODES):
        own = jr.fold_in(key, i)
        state, obs = reset(jr.fold_in(own, 0))
        total, t, over = 0.0, 0, False
        while not over:
            keys = jr.split(jr.fold_in(own, t + 1))
            action, _ = act(agent, obs, keys[0], jnp.bool_(i >= EPISODES))
            state, seen = step(state, action, keys[1])
            obs, over, total, t = (
                seen.obs,
                bool(seen.terminated | seen.truncated),
                total + float(seen.reward),
                t + 1,
            )
        returns.append(total)
        lengths.append(t)
    return np.reshape(returns, (2, EPISODES)), np.reshape(lengths, (2, EPISODES))


@jax.jit
def evaluated_as_on_accelerators(wanted, key):
    with tracing_for_accelerator():
        return evaluate(AGENT, ENV, EPISODES, wanted, key=key)


@pytest.mark.parametrize("run", [evaluated, evaluated_as_on_accelerators], ids=["cpu", "accelerator"])
def test_an_evaluation_equals_a_plain_python_loop(run):
    """Row 0 takes the best action, row 1 samples."""
    for seed in range(3):
        returns, lengths = run(jnp.bool_(True), jr.key(seed))
        expected, expected_lengths = evaluated_plainly(jr.key(seed))
        np.testing.assert_allclose(returns, expected, rtol=1e-5)
        np.testing.assert_array_equal(lengths, expected_lengths)


def test_lanes_that_are_not_due_are_not_evaluated_and_do_not_affect_others():
    keys = jr.split(jr.key(3), 3)
    wanted = jnp.asarray([True, False, True])
    returns, lengths = jax.jit(
        jax.vmap(lambda w, k: evaluate(AGENT, ENV, EPISODES, w, key=k), axis_name=LANES)
    )(wanted, keys)
    for i in (0, 2):
        alone, alone_lengths = evaluated(jnp.bool_(True), keys[i])
        np.testing.assert_allclose(returns[i], alone, rtol=1e-6)
        np.testing.assert_array_equal(lengths[i], alone_lengths)
    assert not returns[1].any()
    assert not lengths[1].any()


def test_nothing_is_computed_when_no_lane_is_due():
    """In an environment whose episodes never end, only an evaluation without steps returns."""
    run = jax.jit(jax.vmap(lambda w: evaluate(AGENT, Endless(), EPISODES, w, key=KEY), axis_name=LANES))
    _, lengths = run(jnp.zeros(2, bool))
    assert not lengths.any()


@pytest.mark.parametrize("accelerator", [False, True])
def test_an_evaluation_ends_at_the_time_limit_though_the_environment_does_not(accelerator):
    @jax.jit
    def run(key):
        with tracing_for_accelerator(accelerator):
            return evaluate(AGENT, Endless(max_episode_steps=5), EPISODES, jnp.bool_(True), key=key)

    assert (run(KEY)[1] == 5).all()


class CostlyWalk(Walk):
    """The same, as if its resets were worth computing one by one."""

    costly_reset: ClassVar[bool] = True


@pytest.mark.parametrize("size", [3, 9])
def test_resetting_only_ended_episodes_equals_resetting_all(size):
    """Fewer environments than are reset at once, and more."""

    @partial(jax.jit, static_argnums=0)
    def rolled(env, key):
        outside = Envs(env, 1, size, key=key)
        return collect(AGENT, env, outside, jnp.int32(size), jnp.int32(12), 12, jnp.bool_(False), key=key)

    plain, costly = (rolled(env, KEY) for env in (ENV, CostlyWalk()))
    assert float(plain[3].episodes) > 2 * size
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(costly), strict=True):
        np.testing.assert_array_equal(a, b)


class Counted(Walk):
    """The same walk in whole places, seen and rewarded as floating-point numbers."""

    def seen(self, state):
        return jnp.round(super().seen(state))

    def step(self, state, action, *, key):
        state, seen = super().step(state, action, key=key)
        return state, Timestep(seen.obs, jnp.round(seen.reward), seen.terminated, seen.truncated)


class Integers(Counted):
    """The same in integers: small ones for what is seen and earned, zero and one for the ends."""

    def reset(self, *, key):
        state, obs = super().reset(key=key)
        return state, obs.astype(jnp.uint8)

    def step(self, state, action, *, key):
        state, seen = super().step(state, action, key=key)
        types = {"obs": jnp.uint8, "reward": jnp.int8, "terminated": jnp.int32, "truncated": jnp.int32}
        integers: Any = SimpleNamespace(**{name: getattr(seen, name).astype(t) for name, t in types.items()})
        return state, integers


def test_whole_numbers_and_flags_of_any_type_are_those_of_a_timestep():
    """Advantages, means and counts would otherwise be computed in the types of the environment."""

    @partial(jax.jit, static_argnums=0)
    def run(env):
        outside = Envs(env, 1, 5, key=KEY)
        rolled = collect(AGENT, env, outside, jnp.int32(5), jnp.int32(9), 9, jnp.bool_(False), key=KEY)
        return rolled, evaluate(AGENT, env, EPISODES, jnp.bool_(True), key=KEY)

    expected, found = run(Counted()), run(Integers())
    assert float(expected[0][3].episodes) > 5
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_the_agent_that_benchmarks_measure_environments_with_can_be_made_and_acts(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    agent = importlib.import_module("random_agent").RandomAgent(Box((-1.0,), (1.0,)))
    action, _ = agent.act(jnp.zeros(3), key=KEY, explore=True)
    assert action.shape == (1,)
    assert jax.tree.leaves(agent.for_evaluation().optimiser) == []
