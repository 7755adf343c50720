"""SAC's losses against the papers' formulas, for real and for discrete actions."""

from __future__ import annotations

import math
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from lanes import quick

from hyperlax import envs
from hyperlax.agents import SACHyperparams
from hyperlax.hyperparams import assign, trainable
from hyperlax.learning.optimise import flatten
from hyperlax.learning.replay import Transition

SMALL = {f"{n}.{k}": v for n in ("actor", "critic") for k, v in {"width": 6, "depth": 1}.items()}
SIZES = {"num_envs": 2, "rollout_length": 2, "buffer_size": 16, "init_alpha": 0.3, "gamma": 0.9}
REAL, DISCRETE = envs.load("gymnax.reacher"), envs.load("gymnax.acrobot")


def hyperparams(**changes):
    return assign(SACHyperparams(), {**SMALL, **SIZES, **changes})


@cache
def builder(env):
    """The program that builds agents of these sizes."""
    caps = hyperparams().capacities([hyperparams().sizes()], [1], env)
    return quick(lambda hp, key: hp.agent(env, caps, key=key))


def agent(env, seed=0, **changes):
    return builder(env)(jax.tree.map(jnp.asarray, hyperparams(**changes)), jr.key(seed))


@quick
def measured(one, other, step, noise):
    return one.loss(one.models(), other.critics, step, noise)[1]


def transition(env, key, terminated=False):
    keys = jr.split(key)
    obs, following = jr.normal(keys[0], (2, env.obs_size))
    action = env.action_space.uniform(key=keys[1])
    return Transition(obs, following, action, jnp.float32(0.7), jnp.bool_(terminated))


def real_parts(one, other, step, noise):
    """(q_loss, policy_loss, log_prob) written out for one sampled action."""
    n = REAL.action_space.shape[0]
    policy, following = one.actor(step.obs), one.actor(step.next_obs)
    after = following.loc + following.std * noise[n:]
    both = jnp.concatenate([step.next_obs, following.action(after)])
    soft = jnp.minimum(other.critics.first(both), other.critics.second(both))
    goal = 0.7 + 0.9 * (soft - 0.3 * following.log_prob(after)) * jnp.where(step.terminated, 0.0, 1.0)
    taken = jnp.concatenate([step.obs, step.action])
    q_loss = sum((c(taken) - goal) ** 2 / 2 for c in (one.critics.first, one.critics.second))
    raw = policy.loc + policy.std * noise[:n]
    now = jnp.concatenate([step.obs, policy.action(raw)])
    value = jnp.minimum(one.critics.first(now), one.critics.second(now))
    return q_loss, 0.3 * policy.log_prob(raw) - value, policy.log_prob(raw)


def discrete_parts(one, other, step, noise):
    """The same with expectations over all actions (Christodoulou 2019, eq. 10 and 12)."""
    following = jnp.exp(one.actor(step.next_obs).log_probs)
    smaller = jnp.minimum(other.critics.first(step.next_obs), other.critics.second(step.next_obs))
    soft = sum(following[a] * (smaller[a] - 0.3 * jnp.log(following[a])) for a in range(3))
    goal = 0.7 + 0.9 * soft * jnp.where(step.terminated, 0.0, 1.0)
    values = [c(step.obs) for c in (one.critics.first, one.critics.second)]
    q_loss = sum((v[step.action] - goal) ** 2 / 2 for v in values)
    now = jnp.exp(one.actor(step.obs).log_probs)
    policy_loss = sum(now[a] * (0.3 * jnp.log(now[a]) - jnp.minimum(*values)[a]) for a in range(3))
    return q_loss, policy_loss, sum(now[a] * jnp.log(now[a]) for a in range(3))


CASES = [pytest.param(REAL, real_parts, id="real"), pytest.param(DISCRETE, discrete_parts, id="discrete")]


@pytest.mark.parametrize(("env", "parts"), CASES)
@pytest.mark.parametrize("terminated", [True, False])
def test_losses_equal_the_textbook_formulas(env, parts, terminated):
    one, other = agent(env, 0), agent(env, 1)
    textbook = quick(parts)
    for k in range(5):
        step = transition(env, jr.key(k), terminated)
        noise = jr.normal(jr.key(k + 100), (one.noise_size(),))
        found = measured(one, other, step, noise)
        q_loss, policy_loss, log_prob = textbook(one, other, step, noise)
        np.testing.assert_allclose(found["q_loss"], q_loss, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found["policy_loss"], policy_loss, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found["entropy"], -log_prob, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found["alpha"], 0.3, rtol=1e-6)


@pytest.mark.parametrize(("env", "parts"), CASES)
def test_every_network_learns_from_its_own_loss_alone(env, parts):
    """One gradient of the summed losses equals three gradients of separate ones."""
    one, other = agent(env, 0), agent(env, 1)
    step, noise = transition(env, jr.key(0)), jr.normal(jr.key(1), (one.noise_size(),))
    weights, lengths, restore = flatten(one.models())
    total = quick(jax.grad(lambda w: one.loss(restore(w), other.critics, step, noise)[0]))(weights)

    def separate(index, loss):
        def of(w):
            critics, actor, _ = restore(w)
            changed = eqx.tree_at(lambda a: (a.critics, a.actor), one, (critics, actor))
            fixed = eqx.tree_at(lambda a: a.actor, one, actor) if loss == 1 else changed
            return parts(fixed, other, step, noise)[loss]

        start = sum(lengths[:index])
        return quick(jax.grad(of))(weights)[start : start + lengths[index]]

    ends = np.cumsum(lengths)
    np.testing.assert_allclose(total[ends[0] : ends[1]], separate(1, 1), rtol=1e-3, atol=1e-5)

    def q_loss(w):
        critics = restore(w)[0]
        changed = eqx.tree_at(lambda a: a.critics, one, critics)
        return parts(changed, other, step, noise)[0]

    np.testing.assert_allclose(
        total[: ends[0]], quick(jax.grad(q_loss))(weights)[: ends[0]], rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize(("env", "parts"), CASES)
def test_the_temperature_falls_while_the_entropy_exceeds_its_target(env, parts):
    """d/d log α of α (H − H̄) is α (H − H̄); nothing without autotune."""
    one = agent(env, 0, target_entropy_scale=0.6)
    wanted = 0.6 * (math.log(3) if env is DISCRETE else -2.0)
    np.testing.assert_allclose(one.target_entropy(), wanted, rtol=1e-6)
    step, noise = transition(env, jr.key(3)), jr.normal(jr.key(4), (one.noise_size(),))

    def slope(agent):
        def total(log_alpha):
            critics, actor, temperature = agent.models()
            moved = eqx.tree_at(lambda t: t.log_alpha, temperature, log_alpha)
            return agent.loss((critics, actor, moved), agent.critics, step, noise)[0]

        return jax.grad(total)(agent.temperature.log_alpha)

    slope = quick(slope)
    entropy = -quick(parts)(one, one, step, noise)[2]
    np.testing.assert_allclose(slope(one), 0.3 * (entropy - wanted), rtol=1e-4, atol=1e-6)
    assert slope(agent(env, 0, autotune=False)) == 0


@pytest.mark.parametrize("env", [REAL, DISCRETE], ids=["real", "discrete"])
def test_the_critics_start_apart_and_evaluation_takes_the_mode(env):
    one = agent(env, 0, warmup_rollout_length=0)
    first, second = (
        jax.tree.leaves(c) for c in (one.critics.first.body.layers, one.critics.second.body.layers)
    )
    assert (first[0] != second[0]).any()
    assert (one.critics.first.head.weight != one.critics.second.head.weight).any()
    act = quick(jax.vmap(lambda key, explore: one.act(jnp.ones(env.obs_size), key=key, explore=explore)[0]))
    actions = np.asarray(act(jr.split(jr.key(0), 40), jnp.arange(40) < 20))
    assert len(np.unique(actions[:20], axis=0)) > 1
    assert len(np.unique(actions[20:], axis=0)) == 1


def test_log_probabilities_stay_finite_at_the_bounds():
    @quick
    def at(one, extreme):
        obs = jnp.ones(REAL.obs_size)
        policy = one.actor(obs)
        noise, step = (
            jnp.full(2, extreme) / policy.std,
            Transition(obs, obs, jnp.zeros(2), extreme, extreme > 0),
        )
        return one.critics.judge(one.critics, step, (policy, policy), (noise, noise))[1]

    for extreme in (-40.0, 40.0):
        value, log_prob = at(agent(REAL, 0), jnp.float32(extreme))
        assert bool(jnp.isfinite(value) & jnp.isfinite(log_prob))


@pytest.mark.parametrize("env", [REAL, DISCRETE], ids=["real", "discrete"])
def test_parameters_are_counted(env):
    one = agent(env, 0)
    weights = [eqx.filter(m, trainable(m)) for m in one.models()]
    hp = assign(SACHyperparams(), {**SMALL, **SIZES})
    assert hp.parameter_count(env) == sum(x.size for x in jax.tree.leaves(weights))
