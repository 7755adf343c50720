"""Generalised advantages against the definition, episode by episode."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax.lanes.masking import LANES
from hyperlax.learning.returns import SUMS_AT_ONCE, discounted_sums, estimate, generalised_advantage
from hyperlax.learning.rollout import Trajectory


def advantages(reward, value, last, terminated, truncated, final, gamma, lam, length):
    return generalised_advantage(
        reward, value, last, terminated, truncated, lambda t, following: final[t], gamma, lam, length
    )


jitted = jax.jit(advantages)


def by_definition(reward, value, last, terminated, truncated, final, gamma, lam, length):
    """Σ_k (γλ)^k δ_{t+k} until the episode or the rollout ends (Schulman et al. 2016, eq. 16), in float64."""
    rollout, envs = reward.shape
    out = np.zeros((rollout, envs))
    for e in range(envs):
        for t in range(length):
            weight = 1.0
            for k in range(t, length):
                following = last[e] if k == length - 1 else value[k + 1, e]
                if terminated[k, e]:
                    following = 0.0
                elif truncated[k, e]:
                    following = final[k, e]
                out[t, e] += weight * (reward[k, e] + gamma * following - value[k, e])
                weight *= gamma * lam
                if terminated[k, e] or truncated[k, e]:
                    break
    return out


def random_rollout(rng, rollout, envs, length) -> dict[str, Any]:
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    ends = rng.random((rollout, envs))
    arrays: dict[str, Any] = {
        "reward": draw(rollout, envs),
        "value": draw(rollout, envs),
        "last": draw(envs),
        "terminated": ends < 0.2,
        "truncated": (ends > 0.8) & (rng.random() < 0.8),
        "final": draw(rollout, envs),
        "gamma": np.float32(rng.uniform(0.8, 1)),
        "lam": np.float32(rng.uniform(0, 1)),
    }
    for name in ("reward", "value", "final"):
        arrays[name][length:] = np.nan
    return {**arrays, "length": np.int32(length)}


def test_published_golden_table():
    reward = jnp.asarray([[1, 0.5], [0, 2], [1, -1]])
    value = jnp.asarray([[0.5, 1], [0.2, 0.3], [1, -0.5]])
    last = jnp.asarray([0.7, 0.4])
    terminated = jnp.zeros((3, 2), bool).at[1, 1].set(True)
    truncated = jnp.zeros((3, 2), bool).at[1, 0].set(True)
    result = generalised_advantage(
        reward,
        value,
        last,
        terminated,
        truncated,
        lambda t, following: following,
        jnp.float32(0.9),
        jnp.float32(0.8),
        jnp.int32(3),
    )
    expected = [[1.184, 0.994], [0.700, 1.700], [0.630, -0.140]]
    np.testing.assert_allclose(result, expected, atol=5e-4)
    np.testing.assert_allclose(result + value, [[1.684, 1.994], [0.900, 2.000], [1.630, -0.640]], atol=5e-4)


def test_advantages_follow_their_definition():
    rng = np.random.default_rng(0)
    for _ in range(12):
        rollout, envs = int(rng.integers(1, 5)) * 2, int(rng.integers(1, 3))
        case = random_rollout(rng, rollout, envs, length=int(rng.integers(1, rollout + 1)))
        np.testing.assert_allclose(jitted(**case), by_definition(**case), rtol=1e-4, atol=1e-5)


def test_lanes_of_different_lengths_get_the_same_advantages_as_alone():
    rng = np.random.default_rng(1)
    cases = [random_rollout(rng, 8, 3, length) for length in (1, 5, 8)]
    together = jax.jit(jax.vmap(lambda case: advantages(**case), axis_name=LANES))(
        jax.tree.map(lambda *x: np.stack(x), *cases)
    )
    for case, result in zip(cases, together, strict=True):
        np.testing.assert_allclose(result, by_definition(**case), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(result[int(case["length"]) :], 0)


@pytest.mark.parametrize("next_episode", [False, True])
def test_values_are_those_of_features_and_a_time_limit_bootstraps_from_its_own_observation(next_episode):
    """Or, where asked for, from the first one of the next episode. The rollout is padded both ways."""
    rng = np.random.default_rng(4)
    case: dict[str, Any] = random_rollout(rng, 6, 3, 6)
    assert case["truncated"][:4, :2].any()
    obs, next_obs = rng.normal(size=(2, 6, 3, 2)).astype(np.float32)
    last_obs = rng.normal(size=(3, 2)).astype(np.float32)
    scaled, critic = (lambda x: 3 * x + 1), (lambda x: x[..., 0] - 2 * x[..., 1])
    arrays = (obs, next_obs, case["reward"], case["terminated"], case["truncated"], last_obs)
    rollout = Trajectory(None, *map(jnp.asarray, arrays), rows=jnp.int32(4))

    @jax.jit
    def found(rollout, gamma, lam, length, envs):
        start = jnp.bool_(next_episode)
        return estimate(critic, scaled, scaled(rollout.obs), rollout, envs, length, gamma, lam, start)

    rates = case["gamma"], case["lam"]
    result = found(rollout, *rates, jnp.int32(4), jnp.int32(2))
    value, last = critic(scaled(obs)), critic(scaled(last_obs))
    following = np.concatenate([value[1:4], last[None]])
    final = following if next_episode else critic(scaled(next_obs))
    ends = case["terminated"], case["truncated"]
    expected = by_definition(case["reward"], value, last, *ends, final, *rates, 4)
    np.testing.assert_allclose(result.advantage[:4, :2], expected[:4, :2], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(result.value[:4, :2], value[:4, :2], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(result.used, (np.arange(6) < 4)[:, None] & (np.arange(3) < 2))


@pytest.mark.parametrize("rows", [1, 5, SUMS_AT_ONCE, SUMS_AT_ONCE + 1, 3 * SUMS_AT_ONCE - 2])
def test_sums_are_discounted_over_any_number_of_rows(rows):
    """In lanes of their own errors and factors, with blocks of rows that do and that do not divide them."""
    rng = np.random.default_rng(rows)
    error, decay = rng.normal(size=(2, 3, rows, 2)).astype(np.float32)
    found = jax.jit(jax.vmap(discounted_sums))(error, decay)
    following = np.zeros((3, 2))
    for t in reversed(range(rows)):
        following = error[:, t] + decay[:, t].astype(np.float64) * following
        np.testing.assert_allclose(found[:, t], following, rtol=1e-4, atol=1e-4)


def test_with_lambda_one_advantages_are_discounted_returns_minus_values():
    rng = np.random.default_rng(2)
    case: dict[str, Any] = random_rollout(rng, 6, 2, 6) | {"lam": np.float32(1)}
    case["terminated"][:], case["truncated"][:] = False, False
    returns, following = [], case["last"].astype(np.float64)
    for t in reversed(range(6)):
        following = case["reward"][t] + case["gamma"] * following
        returns.insert(0, following)
    np.testing.assert_allclose(jitted(**case), np.stack(returns) - case["value"], rtol=1e-4, atol=1e-5)


def test_nothing_leaks_across_the_end_of_an_episode():
    """Advantages up to step 2 do not depend on later steps."""
    rng = np.random.default_rng(3)
    for end in ("terminated", "truncated"):
        case = random_rollout(rng, 6, 2, 6)
        case["terminated"][:], case["truncated"][:] = False, False
        case[end][2] = True
        other = {k: np.array(v, copy=True) for k, v in case.items()}
        for name in ("reward", "value", "final"):
            other[name][3:] += 7
        other["last"] += 7
        np.testing.assert_array_equal(jitted(**case)[:3], jitted(**other)[:3])
