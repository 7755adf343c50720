"""DQN's loss, exploration and targets against values worked out by hand."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from lanes import quick

from hyperlax import envs
from hyperlax.agents import DQNHyperparams
from hyperlax.agents.dqn import huber, scheduled_epsilon
from hyperlax.hyperparams import assign
from hyperlax.learning.replay import Transition

ENV = envs.load("gymnax.acrobot")
SMALL = {
    "gamma": 0.99,
    "critic.width": 6,
    "critic.depth": 1,
    "num_envs": 2,
    "rollout_length": 2,
    "buffer_size": 16,
}


def build(hp, key):
    """An agent of these hyperparameters at its own sizes."""
    caps = hp.capacities([hp.sizes()], [1], ENV)
    return quick(lambda hp, key: hp.agent(ENV, caps, key=key))(jax.tree.map(jnp.asarray, hp), key)


def agent(seed=0, **changes):
    return build(assign(DQNHyperparams(), {**SMALL, **changes}), jr.key(seed))


@quick
def loss(online, other, step):
    return online.loss((online.critic,), other.critic, step, jnp.zeros(0))


@quick
def values(critic, obs):
    return critic(obs)


@pytest.mark.parametrize(
    ("error", "threshold", "expected"),
    [(0.2, 0.5, 0.02), (1.5, 0.5, 0.625), (-3.0, 0.5, 1.375), (-3.0, 0.0, 4.5), (3.0, 1e9, 4.5)],
)
def test_huber_is_quadratic_near_and_linear_far(error, threshold, expected):
    assert float(huber(jnp.float32(error), jnp.float32(threshold))) == pytest.approx(expected, rel=1e-6)


def test_the_derivative_of_huber_is_the_clipped_error():
    slope = jax.vmap(jax.grad(huber), in_axes=(0, None))
    errors = jnp.linspace(-3, 3, 13)
    np.testing.assert_allclose(slope(errors, jnp.float32(0.7)), jnp.clip(errors, -0.7, 0.7), atol=1e-6)
    np.testing.assert_allclose(slope(errors, jnp.float32(0.0)), errors, atol=1e-6)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("terminated", [True, False])
def test_the_loss_uses_the_textbook_target(double, terminated):
    """r + γ (1 − d) Q_target(s', a*), a* by the online network or by the target itself."""
    online, other = agent(0, use_double_q=double, huber_loss_parameter=0.0), agent(1)
    keys = jr.split(jr.key(2), 40)
    differ = 0
    for key in keys:
        obs, following = jr.normal(key, (2, ENV.obs_size))
        step = Transition(obs, following, jnp.int32(1), jnp.float32(-0.5), jnp.bool_(terminated))
        total, measured = loss(online, other, step)
        target = np.asarray(values(other.critic, following))
        best = np.argmax(values(online.critic, following)) if double else np.argmax(target)
        differ += int(best != np.argmax(target))
        value = float(values(online.critic, obs)[1])
        error = -0.5 + 0.99 * (not terminated) * target[best] - value
        np.testing.assert_allclose(measured["td_error"], abs(error), atol=1e-5)
        np.testing.assert_allclose(total, error**2 / 2, atol=1e-5)
        np.testing.assert_allclose(measured["q_value"], value, atol=1e-6)
    assert (differ > 0) == double, "the networks disagree somewhere, or the flag is not tested"


def test_rewards_are_clipped_to_max_abs_reward():
    online = agent(0, max_abs_reward=0.25, huber_loss_parameter=0.0)
    obs = jnp.ones(ENV.obs_size)
    step = Transition(obs, obs, jnp.int32(0), jnp.float32(-7.0), jnp.bool_(True))
    _, measured = loss(online, online, step)
    size, value = measured["td_error"], measured["q_value"]
    np.testing.assert_allclose(size, abs(-0.25 - value), atol=1e-6)


def test_epsilon_falls_linearly_or_is_constant():
    falls = assign(DQNHyperparams(), {"epsilon_decay": 0.5, "training_epsilon": 0.1, "epsilon_start": 0.9})
    shares = [float(scheduled_epsilon(falls, jnp.float32(p))) for p in (0.0, 0.25, 0.5, 1.0)]
    assert shares == pytest.approx([0.9, 0.5, 0.1, 0.1])
    stays = assign(DQNHyperparams(), {"epsilon_decay": 0.0, "training_epsilon": 0.1})
    assert [float(scheduled_epsilon(stays, jnp.float32(p))) for p in (0.0, 1.0)] == pytest.approx([0.1, 0.1])


@pytest.mark.parametrize("explore", [True, False])
def test_actions_are_greedy_except_for_a_share_epsilon(explore):
    ready = agent(0, warmup_rollout_length=0, epsilon_decay=0.0, training_epsilon=0.3, evaluation_epsilon=0.6)
    obs = jnp.ones(ENV.obs_size)
    act = quick(jax.vmap(lambda k: ready.act(obs, key=k, explore=jnp.bool_(explore))[0]))
    actions = np.asarray(act(jr.split(jr.key(0), 4000)))
    best = int(np.argmax(values(ready.critic, obs)))
    others = (actions != best).mean()
    assert others == pytest.approx((0.3 if explore else 0.6) * 2 / 3, abs=0.03)


def test_dqn_refuses_continuous_actions_and_names_alternatives():
    answer = DQNHyperparams.supports(envs.load("gymnax.pendulum").action_space)
    assert answer is not None
    assert "discrete" in answer
    assert "sac" in answer
    assert DQNHyperparams.supports(ENV.action_space) is None


def test_parameters_are_counted():
    hp = assign(DQNHyperparams(), {"critic.width": 5, "critic.depth": 2, "critic.layer_norm": False})
    built = agent(0, **{"critic.width": 5, "critic.depth": 2, "critic.layer_norm": False})
    weights = eqx.filter(built.critic, eqx.is_inexact_array)
    assert hp.parameter_count(ENV) == sum(x.size for x in jax.tree.leaves(weights))
    assert built.target.size == hp.parameter_count(ENV)
