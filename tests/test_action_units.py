"""Learning does not depend on the units of actions, and bounds that leave nothing to learn are refused."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from aiming import BEST, BOUNDS, Aim
from lanes import quick

from hyperlax import envs
from hyperlax.agents import PPOHyperparams, SACHyperparams
from hyperlax.envs.base import Box, Discrete, problem
from hyperlax.hyperparams import assign
from hyperlax.learning.replay import Transition
from hyperlax.programs import train

SMALL = {f"{n}.{k}": v for n in ("actor", "critic") for k, v in {"width": 32, "depth": 1}.items()}
OTHERS = [name for name in BOUNDS if name != "ones"]
FAULTS = [
    (Box((-math.inf,), (math.inf,)), "dimension 0 .* -inf and inf: .* finite"),
    (Box((-1.0, 0.0), (1.0, math.inf)), "dimension 1 .* 0 and inf: .* finite"),
    (Box((0.0, math.nan), (1.0, 1.0)), "dimension 1 .* nan and 1: .* finite"),
    (Box((-1.0, 1.0), (1.0, 1.0)), "dimension 1 .* 1 and 1: there is nothing to choose"),
    (Box((1.0,), (-1.0,)), "dimension 0 .* 1 and -1: they are reversed"),
    (Box((-3e38,), (3e38,)), "dimension 0 .* float32 cannot tell"),
    (Box((1e9,), (1e9 + 1,)), "dimension 0 .* float32 cannot tell"),
    (Box((), ()), "one number per dimension"),
    (Box((0.0,), (1.0, 2.0)), "one number per dimension"),
    (Discrete(0), r"Discrete\(0\); the number of actions"),
    (Discrete(-3), r"Discrete\(-3\); the number of actions"),
]


def sac(env, key, **changes):
    hp = assign(SACHyperparams(), {**SMALL, "buffer_size": 16, **changes})
    caps = hp.capacities([hp.sizes()], [1], env)
    return quick(lambda h: h.agent(env, caps, key=key))(jax.tree.map(jnp.asarray, hp))


def losses(space, **changes):
    """The losses of an agent for an action 30 % up its range."""
    one = sac(Aim(action_space=space), jr.key(0), **changes)
    low, high = jnp.asarray(space.low), jnp.asarray(space.high)
    action = low + 0.3 * (high - low)
    step = Transition(jnp.ones(1), jnp.ones(1), action, jnp.float32(0.5), jnp.bool_(False))
    noise = jnp.full(one.noise_size(), 0.4)
    return quick(lambda a: a.loss(a.models(), a.critics, step, noise)[1])(one)


def test_sac_learns_the_same_from_the_same_share_of_the_range():
    box = Box((-0.01, 0.0), (0.03, 1000.0))
    ours, plain = losses(box), losses(Box((-1.0, -1.0), (1.0, 1.0)))
    for name in plain:
        np.testing.assert_allclose(ours[name], plain[name], rtol=1e-5, err_msg=name)
    published = losses(box, action_units="environment")
    halves = np.log(0.02) + np.log(500.0)
    np.testing.assert_allclose(published["entropy"], plain["entropy"] + halves, rtol=1e-5)
    assert published["q_value"] != plain["q_value"], "its critics see the action as it is"


def test_the_published_protocol_keeps_the_units_of_the_environment():
    assert SACHyperparams.published("gymnax.pendulum")["action_units"] == "environment"


@pytest.mark.parametrize(("space", "words"), FAULTS)
def test_an_action_space_with_nothing_to_learn_is_refused_by_name_and_dimension(space, words):
    with pytest.raises(ValueError, match=f"no agent can act in faulty: .*{words}"):
        envs.checked(Aim(action_space=space), "faulty")


def test_bounds_that_cannot_be_hashed_are_refused():
    """Where types are not checked, lists get as far as this."""
    space = Box((-1.0,), (1.0,))
    object.__setattr__(space, "low", [-1.0])
    with pytest.raises(ValueError, match=r"bounds \[-1\.0\] and \(1\.0,\); both must be tuples"):
        envs.checked(Aim(action_space=space), "faulty")


def test_an_environment_of_ones_own_is_refused_when_it_is_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "faulty.py").write_text(
        "from hyperlax.envs import Box\nfrom aiming import Aim\n\n\n"
        "def reversed(high=-1.0):\n    return Aim(action_space=Box((1.0,), (high,)))\n"
    )
    with pytest.raises(ValueError, match=r"act in faulty\.py:reversed: dimension 0 .* they are reversed"):
        envs.load("faulty.py:reversed")
    assert envs.load("faulty.py:reversed[high=2]").action_space == Box((1.0,), (2.0,))


@pytest.mark.parametrize(("field", "value"), [("obs_size", 0), ("max_episode_steps", 0), ("obs_size", -2)])
def test_a_size_that_cannot_be_is_refused(field, value):
    found = problem(Aim(**{field: value}))
    assert found is not None
    assert f"{field} is {value}; it must be a whole number from 1" in found


def modes(base, env, steps, **changes):
    """Where three seeds end, as shares of the range: [seeds, dimensions]."""
    hp = assign(base(), {**SMALL, **changes})
    caps = hp.capacities([hp.sizes()], [1], env)
    cycles = steps // (int(hp.num_envs) * int(hp.rollout_length))
    own = jax.tree.map(jnp.asarray, hp)

    def end(key):
        state = train.start(own, env, caps, jnp.int32(steps), key=key, init_key=key)
        agent = train.segment(state, env, caps, jnp.int32(cycles)).agent.for_evaluation()
        return env.share(agent.act(jnp.ones(1), key=jr.key(0), explore=jnp.bool_(False))[0])

    keys = jnp.asarray([[0, 1], [0, 2], [0, 3]], jnp.uint32)
    return np.asarray(eqx.filter_jit(jax.vmap(end, axis_name="lanes"))(keys))


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize(
    ("base", "steps", "changes"),
    [(SACHyperparams, 12_000, {"update_to_data": 1.0}), (PPOHyperparams, 40_000, {})],
    ids=["sac", "ppo"],
)
def test_the_best_action_is_found_whatever_the_units(base, steps, changes, name):
    found = modes(base, Aim(action_space=BOUNDS[name]), steps, **changes)
    np.testing.assert_allclose(np.median(found, axis=0), BEST, atol=0.03)
