"""The brax adapter keeps sizes and trajectories, adds time limits and chooses the physics backend."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from lanes import quick

from hyperlax import envs
from hyperlax.envs import Box, brax
from hyperlax.envs.brax import DEFAULT_BACKENDS, BraxEnv, quietly

MADE = ("reacher",)
"""Environments that the short tests make; each takes a hundred small compilations."""
TRACED = ("hopper",)
"""Environments that the short tests trace: the state of hopper holds metrics, swimmer moves in a fluid."""
SIZES = {
    "ant": (27, 8),
    "halfcheetah": (17, 6),
    "hopper": (11, 3),
    "humanoid": (244, 17),
    "humanoidstandup": (244, 17),
    "inverted_double_pendulum": (8, 1),
    "inverted_pendulum": (4, 1),
    "pusher": (23, 7),
    "reacher": (11, 2),
    "swimmer": (8, 2),
    "walker2d": (17, 6),
}
"""Environment → published length of its observations and of its actions."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in MADE else pytest.mark.slow) for n in DEFAULT_BACKENDS],
)
def test_every_environment_has_its_published_sizes_and_leaves_no_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = envs.load(f"brax.{name}")
    assert isinstance(env, BraxEnv)
    assert isinstance(env.action_space, Box)
    assert not list(tmp_path.iterdir())
    obs, actions = SIZES[name]
    assert (env.obs_size, env.action_space.shape) == (obs, (actions,))
    assert (set(env.action_space.low), set(env.action_space.high)) == ({-1.0}, {1.0})
    assert env.max_episode_steps == 1000
    assert env.backend == ("generalized" if name == "swimmer" else "positional")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in TRACED else pytest.mark.slow) for n in DEFAULT_BACKENDS],
)
def test_every_environment_can_be_stepped_in_a_loop(name, capsys):
    """A step keeps the shapes and dtypes of the state and prints nothing."""
    env = envs.load(f"brax.{name}")
    state, obs = jax.eval_shape(lambda: env.reset(key=jr.key(0)))
    after, seen = jax.eval_shape(lambda s, a: env.step(s, a, key=jr.key(0)), state, jnp.zeros(SIZES[name][1]))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert seen.obs.shape == obs.shape == (env.obs_size,)
    assert seen.reward.shape == seen.terminated.shape == ()
    assert capsys.readouterr().out == ""


def test_python_code_of_brax_runs_once_for_any_number_of_lanes(monkeypatch):
    """Its physics takes seconds to trace, and `jax.jit` traces anew for every size of a named axis."""
    env, again = (envs.load("brax.inverted_pendulum") for _ in range(2))
    assert isinstance(env, BraxEnv)
    assert isinstance(again, BraxEnv)
    calls = []
    for name in ("reset", "step"):
        own = getattr(env._env, name)
        monkeypatch.setattr(env._env, name, lambda *a, own=own, name=name: (calls.append(name), own(*a))[1])
    for name in ("_reset", "_step"):  # without what other tests have recorded
        uncached = getattr(brax, name).__wrapped__
        monkeypatch.setattr(brax, name, cache(uncached))

    def lane(env):
        state, _ = env.reset(key=jr.key(0))
        return jax.lax.psum(env.step(state, jnp.zeros(1), key=jr.key(1))[1].obs, "lanes")

    for one, lanes in ((env, 2), (env, 3), (again, 4)):
        mapped = jax.vmap(lambda _, one=one: lane(one), axis_name="lanes")
        assert jax.eval_shape(mapped, jnp.zeros(lanes)).shape == (lanes, env.obs_size)
    assert calls == ["reset", "step"]


def test_physics_is_computed_in_single_precision_on_gpus():
    """By default they round the factors of a product to ten bits."""
    env = envs.load("brax.inverted_pendulum")

    def steps(key):
        return env.step(env.reset(key=key)[0], jnp.zeros(1), key=key)

    text = jax.jit(steps).lower(jr.key(0)).as_text()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert products
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)


def stepped(env, actions):
    """The timesteps of `actions` taken in turn, from a reset and from a state just before the time limit."""

    def run(key, actions):
        def step(state, action):
            return env.step(state, action, key=key)

        state, obs = env.reset(key=key)
        late = type(state)(state.state, jnp.int32(998))
        starts = jax.tree.map(lambda *x: jnp.stack(x), state, late)
        return obs, jax.vmap(lambda start: jax.lax.scan(step, start, actions)[1])(starts)

    obs, seen = quick(run)(jr.key(0), actions)
    return obs, *(jax.tree.map(lambda x, i=i: np.asarray(x)[i], seen) for i in range(2))


@pytest.mark.slow
def test_the_adapter_takes_braxs_own_steps_and_adds_the_time_limit():
    env = envs.load("brax.inverted_pendulum")
    assert isinstance(env, BraxEnv)
    actions = jr.uniform(jr.key(1), (4, 1), minval=-1, maxval=1)
    obs, seen, late = stepped(env, actions)
    inner = env._env

    def theirs(key, actions):
        def step(state, action):
            after = inner.step(state, action)
            return after, (after.obs, after.reward, after.done)

        state = inner.reset(key)
        return state.obs, jax.lax.scan(step, state, actions)[1]

    with quietly():
        first, (observed, rewards, done) = quick(theirs)(jr.key(0), actions)
    np.testing.assert_allclose(obs, first, atol=1e-6)
    np.testing.assert_allclose(seen.obs, observed, atol=1e-5)
    np.testing.assert_allclose(seen.reward, rewards, atol=1e-5)
    np.testing.assert_array_equal(seen.terminated, np.asarray(done) > 0)
    assert not seen.truncated.any()
    np.testing.assert_allclose(late.obs, seen.obs, atol=1e-6)
    assert late.truncated.tolist() == [False, True, True, True]
    assert not late.terminated.any(), "a time limit is no failure"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["generalized", "spring", "mjx"])
def test_another_physics_backend_can_be_chosen(backend):
    env = envs.load(f"brax.inverted_pendulum[backend={backend}]")
    assert isinstance(env, BraxEnv)
    assert env.backend == backend
    _, seen, _ = stepped(env, jnp.zeros((2, 1)))
    assert np.isfinite(seen.obs).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("brax.antt", r'unknown environment "brax.antt"; did you mean "brax.ant"'),
        ("brax.ant[backend=mjxx]", r"must be one of positional, .*mjx; got 'mjxx'; did you mean \"mjx\""),
        ("brax.ant[physics=mjx]", 'brax.ant has no option "physics"; it has backend'),
        (
            "brax.swimmer[backend=mjx]",
            "brax.swimmer cannot be simulated with mjx .* use its default, generalized",
        ),
        ("brax.ant[backend]", r"options of an environment are .*brax.ant\[backend=mjx\]"),
        ("brax.ant[backend=]", r"options of an environment are .*brax.ant\[backend=mjx\]"),
        ("brax.ant[backend=mjx", "ends with a bracket"),
        ("gymnax.cartpole[backend=mjx]", 'gymnax.cartpole has no option "backend"; it has none'),
    ],
)
def test_environments_that_cannot_be_loaded_are_refused_with_the_reason(name, message):
    with pytest.raises(ValueError, match=message):
        envs.load(name)
