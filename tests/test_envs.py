"""Environments are found by name, step under jit, end for the right reason and move as in gymnasium."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from hyperlax import envs
from hyperlax.envs import Box, Discrete
from hyperlax.envs.gymnax import SHORT_NAMES, GymnaxEnv
from hyperlax.testing import check_env

NAMES = [f"gymnax.{name}" for name in SHORT_NAMES]


def rollout(env, state, actions, key):
    """The states and timesteps that follow when `actions` are taken from `state`, without resets."""

    def step(state, inputs):
        action, key = inputs
        after, seen = env.step(state, action, key=key)
        return after, (after, seen)

    return jax.lax.scan(step, state, (actions, jr.split(key, len(actions))))[1]


@pytest.mark.parametrize("name", NAMES)
def test_every_named_environment_is_what_rollouts_count_on(name):
    check_env(name)


def test_bounds_hold_per_dimension():
    assert envs.load("gymnax.pendulum").action_space == Box((-2.0,), (2.0,))
    assert envs.load("gymnax.reacher").action_space == Box((-1.0, -1.0), (1.0, 1.0))
    assert envs.load("gymnax.cartpole").action_space == Discrete(2)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n.startswith("brax.") else ()) for n in envs.REFERENCE_SCORES],
)
def test_reference_scores_name_environments_and_what_a_random_policy_gets(name):
    env = envs.load(name)
    lanes = 48

    @jax.jit
    def returns(key):
        def episode(key):
            state, _ = env.reset(key=key)

            def step(carry):
                t, state, total, _ = carry
                k = jr.fold_in(key, t)
                state, seen = env.step(state, env.action_space.uniform(key=k), key=k)
                return t + 1, state, total + seen.reward, seen.terminated | seen.truncated

            start = (jnp.int32(0), state, jnp.float32(0), jnp.bool_(False))
            return jax.lax.while_loop(lambda c: ~c[3], step, start)[2]

        return jax.vmap(episode)(jr.split(key, lanes))

    drawn = np.asarray(returns(jr.key(1)))
    random, solved = envs.REFERENCE_SCORES[name]
    assert random < solved
    tolerance = 4 * drawn.std() / np.sqrt(lanes) + 0.02 * (solved - random)
    assert abs(drawn.mean() - random) < tolerance, f"a random policy gets {drawn.mean():.1f}"


def advance(env, state, steps):
    """`state` with its time set to `steps`."""
    return jax.tree.unflatten(
        jax.tree.structure(state), jax.tree.leaves(state.replace(time=jnp.asarray(steps, state.time.dtype)))
    )


def test_pendulum_is_truncated_after_exactly_200_steps_and_never_terminates():
    env = envs.load("gymnax.pendulum")
    state, _ = env.reset(key=jr.key(0))
    _, seen = jax.jit(lambda s: rollout(env, s, jnp.zeros((200, 1)), jr.key(1)))(state)
    assert seen.truncated.tolist() == [False] * 199 + [True]
    assert not seen.terminated.any()


@pytest.mark.parametrize(("lean", "terminated"), [(0.0, False), (0.3, True)])
def test_an_episode_that_fails_at_its_time_limit_has_failed(lean, terminated):
    """A step never both terminates and truncates, since only a truncated episode has a value to bootstrap."""
    env = envs.load("gymnax.cartpole")
    state, _ = env.reset(key=jr.key(0))
    state = advance(env, state.replace(theta=jnp.float32(lean)), 499)
    after, seen = env.step(state, jnp.int32(0), key=jr.key(1))
    assert after.time == 500
    assert (bool(seen.terminated), bool(seen.truncated)) == (terminated, not terminated)


@pytest.mark.parametrize("name", ["gymnax.cartpole", "gymnax.mountain_car"])
def test_no_step_ends_an_episode_for_two_reasons(name):
    env = envs.load(name)

    @jax.jit
    def run(key):
        state, _ = env.reset(key=key)
        actions = jax.vmap(lambda k: env.action_space.uniform(key=k))(jr.split(key, 600))
        return rollout(env, state, actions, key)[1]

    seen = jax.jit(jax.vmap(run))(jr.split(jr.key(2), 8))
    assert not (seen.terminated & seen.truncated).any()
    assert (seen.terminated | seen.truncated).any()


def test_a_step_never_resets():
    """The observation after the last step is the one in which the episode ended."""
    env = envs.load("gymnax.pendulum")
    state, _ = env.reset(key=jr.key(0))
    state = advance(env, state.replace(theta=jnp.float32(2.0), theta_dot=jnp.float32(0.0)), 199)
    after, seen = env.step(state, jnp.zeros(1), key=jr.key(1))
    assert seen.truncated
    np.testing.assert_allclose(seen.obs[:2], [np.cos(after.theta), np.sin(after.theta)], rtol=1e-5)
    assert abs(after.theta - 2.0) < 0.2


def gymnasium_env(gymnax_id: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import gymnasium

        return gymnasium.make(gymnax_id)


def placed(gymnax_id, env, key):
    """The reset state of gymnax, and the environment of gymnasium set to the same state."""
    state, _ = env.reset(key=key)
    names = {
        "CartPole-v1": ("x", "x_dot", "theta", "theta_dot"),
        "Acrobot-v1": ("joint_angle1", "joint_angle2", "velocity_1", "velocity_2"),
        "Pendulum-v1": ("theta", "theta_dot"),
        "MountainCar-v0": ("position", "velocity"),
        "MountainCarContinuous-v0": ("position", "velocity"),
    }[gymnax_id]
    other = gymnasium_env(gymnax_id)
    other.reset(seed=0)
    other.unwrapped.state = np.array([float(getattr(state, n)) for n in names])
    return state, other


CLASSIC = ["CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCar-v0", "MountainCarContinuous-v0"]


@pytest.mark.parametrize("gymnax_id", CLASSIC)
def test_classic_control_moves_as_gymnasium_does(gymnax_id):
    """From the same start, the same actions give the same observations, rewards and end of the episode.

    MountainCarContinuous keeps away from its left wall here, where gymnax differs (below).
    """
    env = envs.load(f"gymnax.{gymnax_id}")
    run = jax.jit(lambda state, actions: rollout(env, state, actions, jr.key(0))[1])
    ended = 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        state, other = placed(gymnax_id, env, jr.key(seed))
        if isinstance(env.action_space, Discrete):
            actions = rng.integers(0, env.action_space.n, 60)
            if seed == 0:
                actions[:] = 0
        else:
            actions = rng.uniform(-2.5, 2.5, (60, 1)).astype(np.float32)
        seen = run(state, jnp.asarray(actions))
        for t, action in enumerate(actions):
            obs, reward, terminated, _, _ = other.step(
                int(action) if isinstance(env.action_space, Discrete) else action
            )
            np.testing.assert_allclose(seen.obs[t], obs, rtol=2e-3, atol=2e-3)
            assert seen.reward[t] == pytest.approx(float(reward), rel=2e-3, abs=2e-3)
            assert bool(seen.terminated[t]) == terminated
            if terminated:
                ended += 1
                break
    assert ended > 0 or gymnax_id != "CartPole-v1"


@pytest.mark.parametrize("gymnax_id", CLASSIC)
def test_time_limits_are_those_of_gymnasium(gymnax_id):
    assert (
        envs.load(f"gymnax.{gymnax_id}").max_episode_steps == gymnasium_env(gymnax_id).spec.max_episode_steps
    )


@pytest.mark.parametrize("gymnax_id", ["MountainCar-v0", "MountainCarContinuous-v0"])
def test_reaching_the_hill_terminates_as_in_gymnasium(gymnax_id):
    env = envs.load(f"gymnax.{gymnax_id}")
    state, other = placed(gymnax_id, env, jr.key(0))
    state = state.replace(position=jnp.float32(0.44), velocity=jnp.float32(0.065))
    other.unwrapped.state = np.array([0.44, 0.065])
    action = jnp.int32(2) if isinstance(env.action_space, Discrete) else jnp.ones(1)
    _, seen = env.step(state, action, key=jr.key(0))
    obs, reward, terminated, _, _ = other.step(2 if isinstance(env.action_space, Discrete) else np.ones(1))
    np.testing.assert_allclose(seen.obs, obs, atol=1e-5)
    assert (float(seen.reward), bool(seen.terminated)) == (pytest.approx(float(reward)), terminated)


def test_unlike_in_gymnasium_the_continuous_car_keeps_its_speed_at_the_left_wall():
    """gymnasium stops the car at the wall, gymnax does not; kept to compare with results of gymnax users."""
    env = envs.load("gymnax.mountain_car_continuous")
    state, other = placed("MountainCarContinuous-v0", env, jr.key(0))
    state = state.replace(position=jnp.float32(-1.19), velocity=jnp.float32(-0.05))
    other.unwrapped.state = np.array([-1.19, -0.05])
    _, seen = env.step(state, -jnp.ones(1), key=jr.key(0))
    obs, *_ = other.step(-np.ones(1))
    assert obs.tolist() == pytest.approx([-1.2, 0.0])
    assert seen.obs[0] == pytest.approx(-1.2)
    assert seen.obs[1] < -0.04


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gymnax.breakout", r'unknown environment "gymnax.breakout"\n'),  # it observes images
        ("gymnax.pendulm", r'unknown environment "gymnax.pendulm"; did you mean "gymnax.pendulum"'),
        ("gymnx.pendulum", r'(?s)did you mean "gymnax.pendulum"\?.*named <framework>.<name>'),
        ("no.module:Env", 'environment "no.module:Env": no.module cannot be imported: No module named'),
        ("pendulum", r'(?s)did you mean "gymnax.pendulum"\?.*environments are named <framework>.<name>'),
        ("gymnax.", "unknown environment"),
        ("gymnax.Pong-misc", r"observes an array of shape \(30, 40, 3\); only vectors"),
        ("gymnax.MNISTBandit-bsuite", "observes images; only vectors are supported"),
        ("gymnax.Breakout-MinAtar", "only vectors are supported"),
        ("gymnax.FrozenLake-misc", r"observes an array of shape \(\); only vectors"),
    ],
)
def test_unusable_environments_are_refused_with_the_reason(name, message):
    with pytest.raises(ValueError, match=message):
        envs.load(name)


def test_a_users_environment_is_named_by_its_import_path():
    env = envs.load("hyperlax.envs.gymnax:GymnaxEnv[name=cartpole]")
    assert isinstance(env, GymnaxEnv)
    assert env.gymnax_id == "CartPole-v1"


def test_short_names_are_unique():
    assert len(set(SHORT_NAMES.values())) == len(SHORT_NAMES)


def test_action_spaces_are_described_in_words():
    assert envs.describe(Discrete(3)) == "3 discrete actions"
    assert envs.describe(Box((0.0, 1.0), (1.0, 2.0))) == "a 2-dimensional box of actions"
    assert (Discrete(3).shape, Box((0.0, 1.0), (1.0, 2.0)).shape) == ((), (2,))
