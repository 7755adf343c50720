"""Policies as distributions: densities, entropies and samples against numerical integration and counting."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from lanes import quick
from scipy import stats

from hyperlax.envs import Box, Discrete
from hyperlax.hyperparams import assign
from hyperlax.networks import MLP, Actor, Categorical, Critic, MLPHyperparams, PolicyHead, TanhNormal


def tanh_normal(loc, std, low, high):
    return TanhNormal(*(jnp.atleast_1d(jnp.asarray(x, jnp.float32)) for x in (loc, std, low, high)))


raw_of = quick(lambda policy, action: policy.raw(action))
action_of = quick(lambda policy, raw: policy.action(raw))
log_prob_of = quick(lambda policy, raw: policy.log_prob(raw))
slopes_of = quick(jax.vmap(jax.grad(lambda policy, raw: policy.log_prob(raw), argnums=1), in_axes=(None, 0)))
log_probs_of = quick(jax.vmap(lambda policy, raw: policy.log_prob(raw), in_axes=(None, 0)))


def density(action, loc, std, low, high):
    """The density of low + half (1 + tanh u), u ~ N(loc, std), in float64."""
    half = (high - low) / 2
    squashed = (action - low) / half - 1
    return stats.norm.pdf(np.arctanh(squashed), loc, std) / (half * (1 - squashed**2))


CASES = [(0.2, 0.5, -2.0, 2.0), (-1.0, 1.5, 0.0, 0.5), (2.0, 0.1, -1.0, 3.0)]


@pytest.mark.parametrize(("action", "expected"), [(0.5, -0.860541), (-1.2, -2.068075), (1.995, -15.359688)])
def test_published_log_probabilities(action, expected):
    policy = tanh_normal(0.2, 0.5, -2, 2)
    found = log_prob_of(policy, raw_of(policy, jnp.asarray([action])))
    assert found == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_density_follows_the_change_of_variables_and_integrates_to_one(case):
    policy, (loc, std, low, high) = tanh_normal(*case), case
    grid = low + (high - low) * (np.arange(20_000) + 0.5) / 20_000

    @quick
    def log_probs(policy, actions):
        return jax.vmap(lambda action: policy.log_prob(policy.raw(action)))(actions)

    p = np.exp(np.asarray(log_probs(policy, jnp.asarray(grid[:, None], jnp.float32)), np.float64))
    assert p.mean() * (high - low) == pytest.approx(1, abs=2e-3)
    exact = density(grid, loc, std, low, high)
    inner = slice(200, -200)
    np.testing.assert_allclose(p[inner], exact[inner], rtol=2e-2, atol=1e-5)


def test_log_probabilities_stay_exact_where_the_action_rounds_to_its_bound():
    """log(1 − tanh² u) in float64 with enough digits, by its series for large |u|."""
    policy = tanh_normal(0.0, 5.0, -1.0, 1.0)
    slope_of = quick(jax.grad(lambda raw: policy.log_prob(raw)))
    for u in (-30.0, -9.0, 9.0, 30.0):
        exact = stats.norm.logpdf(u, 0, 5) - (2 * np.log(2) - 2 * abs(u) - 2 * np.log1p(np.exp(-2 * abs(u))))
        assert log_prob_of(policy, jnp.asarray([u])) == pytest.approx(exact, rel=1e-5)
        slope = slope_of(jnp.asarray([u]))
        np.testing.assert_allclose(slope, -u / 25 + 2 * np.sign(u), rtol=1e-4)
    assert action_of(policy, jnp.asarray([30.0])) == 1.0
    assert action_of(policy, jnp.asarray([-30.0])) == -1.0


@pytest.mark.parametrize("case", [*CASES, (0.0, 4.0, -1.0, 1.0)])
def test_densities_averaged_at_the_bounds_are_the_probability_of_the_edge_and_integrate_to_one(case):
    """Within 0.001 of a bound; scipy's distribution of the normal variable says how probable that is."""
    loc, std, low, high = case
    policy = tanh_normal(*case).averaging(jnp.bool_(True))
    edge = np.arctanh(1 - 1e-3 / ((high - low) / 2))
    below, above = stats.norm.logcdf(-edge, loc, std), stats.norm.logsf(edge, loc, std)
    raw = np.concatenate(
        [[-50, -edge - 1e-3], np.linspace(-edge + 1e-3, edge - 1e-3, 20_000), [edge + 1e-3, 50]]
    )
    found = np.asarray(log_probs_of(policy, jnp.asarray(raw[:, None], jnp.float32)), np.float64)
    np.testing.assert_allclose(found[:2], below - np.log(1e-3), rtol=1e-4)
    np.testing.assert_allclose(found[-2:], above - np.log(1e-3), rtol=1e-4)
    own = np.asarray(log_probs_of(tanh_normal(*case), jnp.asarray(raw[2:-2, None], jnp.float32)))
    np.testing.assert_array_equal(own, found[2:-2].astype(np.float32))
    action = low + (high - low) / 2 * (1 + np.tanh(raw))
    inside = np.trapezoid(np.exp(found[2:-2]), action[2:-2])
    assert inside + np.exp(below) + np.exp(above) == pytest.approx(1, abs=2e-3)
    slopes = slopes_of(policy, jnp.asarray([[-50.0], [50.0]]))
    assert not np.asarray(slopes).any(), "all actions at an edge are alike"


def test_dimensions_are_independent_and_have_their_own_bounds():
    cases = np.array(CASES)
    together = tanh_normal(*cases.T)
    raw = jnp.asarray([0.3, -0.7, 1.9])
    singles = [tanh_normal(*case) for case in CASES]
    parts = [log_prob_of(s, raw[i : i + 1]) for i, s in enumerate(singles)]
    np.testing.assert_allclose(log_prob_of(together, raw), np.sum(parts), rtol=1e-5)
    np.testing.assert_allclose(
        action_of(together, raw), [action_of(s, raw[i : i + 1])[0] for i, s in enumerate(singles)]
    )
    assert (action_of(together, jnp.full(3, -1e3)) == cases[:, 2].astype(np.float32)).all()
    assert (action_of(together, jnp.full(3, 1e3)) == cases[:, 3].astype(np.float32)).all()


@pytest.mark.parametrize("case", CASES[:2])
def test_raw_undoes_action(case):
    policy = tanh_normal(*case)
    raw = jnp.linspace(-2, 2, 9)[:, None]
    back = quick(jax.vmap(lambda r: policy.raw(policy.action(r))))
    np.testing.assert_allclose(back(raw), raw, atol=1e-3)


def integrated_entropy(loc, std, low, high):
    """−∫ p log p over the raw variable, where the integrand is smooth."""
    u = loc + std * np.linspace(-9, 9, 40_001)
    weight = stats.norm.pdf(u, loc, std)
    slope = np.log((high - low) / 2) + 2 * (np.log(2) - u - np.logaddexp(0, -2 * u))
    return np.trapezoid(weight * (slope - np.log(weight)), u)


@pytest.mark.parametrize("case", CASES)
def test_entropy_and_its_gradient_match_numerical_integration(case):
    loc, std, low, high = case
    draw = quick(jax.vmap(lambda k: tanh_normal(*case).sample(key=k)))
    _, noise = draw(jr.split(jr.key(0), 40_000))

    def entropy(loc, std):
        return jnp.mean(jax.vmap(tanh_normal(loc, std, low, high).entropy)(noise))

    value, gradient = quick(jax.value_and_grad(entropy, argnums=(0, 1)))(jnp.float32(loc), jnp.float32(std))
    assert value == pytest.approx(integrated_entropy(*case), abs=0.05)
    step = 1e-4
    for i, slope in enumerate(gradient):
        moved = [list(case), list(case)]
        moved[0][i] += step
        moved[1][i] -= step
        exact = (integrated_entropy(*moved[0]) - integrated_entropy(*moved[1])) / (2 * step)
        assert slope == pytest.approx(exact, abs=0.05 * max(1, abs(exact)))


def test_squashed_samples_follow_their_normal_and_their_noise_is_fresh():
    policy = tanh_normal(*np.array(CASES).T)
    draw = quick(jax.vmap(lambda k: policy.sample(key=k)))
    raw, noise = map(np.asarray, draw(jr.split(jr.key(1), 5000)))
    for i, (loc, std, *_) in enumerate(CASES):
        assert stats.kstest(raw[:, i], stats.norm(loc, std).cdf).pvalue > 1e-3
        assert stats.kstest(noise[:, i], stats.norm().cdf).pvalue > 1e-3
        assert abs(np.corrcoef(raw[:, i], noise[:, i])[0, 1]) < 5 / np.sqrt(5000)
    np.testing.assert_array_equal(policy.mode(), policy.loc)


def random_logits(rng, n):
    return jnp.asarray(rng.normal(0, 2, n), jnp.float32)


def softmax(logits):
    logits = np.asarray(logits, np.float64)
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


@pytest.mark.parametrize("n", [1, 2, 5])
def test_categories_come_as_often_as_their_probability(n):
    logits = random_logits(np.random.default_rng(n), n)
    drawn, noise = quick(jax.vmap(lambda k: Categorical(logits).sample(key=k)))(jr.split(jr.key(n), 20_000))
    counts = np.bincount(np.asarray(drawn), minlength=n)
    assert noise.shape == (20_000, 0)
    assert counts.shape == (n,)
    assert n == 1 or stats.chisquare(counts, 20_000 * softmax(logits)).pvalue > 1e-3


def test_impossible_categories_are_never_drawn():
    logits = jnp.asarray([-1e9, 0.0, -1e9, 0.0, -1e9])
    drawn, _ = quick(jax.vmap(lambda k: Categorical(logits).sample(key=k)))(jr.split(jr.key(0), 20_000))
    assert set(np.unique(drawn)) == {1, 3}


@pytest.mark.parametrize("n", [1, 2, 6])
def test_categorical_log_probability_entropy_and_mode(n):
    logits = random_logits(np.random.default_rng(10 + n), n)
    policy, p = Categorical(logits), softmax(logits)
    np.testing.assert_allclose(
        [policy.log_prob(jnp.int32(i)) for i in range(n)], np.log(p), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(policy.entropy(jnp.zeros(0)), -(p * np.log(p)).sum(), rtol=1e-4, atol=1e-6)
    assert policy.mode() == p.argmax()
    assert policy.action(policy.mode()) == p.argmax()


def network(width=6):
    hp = assign(MLPHyperparams(), {"width": width, "depth": 1, "activation": "tanh"})
    leaves, caps = jax.tree.map(jnp.asarray, hp), {**hp.sizes(), "batch_last": True}
    return quick(lambda leaves, key: MLP(leaves, 3, caps, key=key))(leaves, jr.key(0))


def test_new_policies_are_almost_the_same_everywhere():
    """The output layer starts a hundredth as large: near-uniform categories, std softplus(0) + 10⁻³."""
    obs = jnp.asarray([1.0, -2.0, 0.5])
    policy = lambda space: quick(lambda net, obs: Actor(net, space, key=jr.key(1))(obs))(network(), obs)  # noqa: E731
    discrete = policy(Discrete(4))
    assert isinstance(discrete, Categorical)
    np.testing.assert_allclose(np.exp(discrete.log_probs), 0.25, atol=0.02)
    box = Box((-1.0, 0.0), (1.0, 5.0))
    continuous = policy(box)
    assert isinstance(continuous, TanhNormal)
    np.testing.assert_allclose(continuous.std, np.log(2) + 1e-3, atol=0.02)
    np.testing.assert_allclose(continuous.loc, 0, atol=0.03)
    np.testing.assert_array_equal(continuous.low, box.low)
    np.testing.assert_array_equal(continuous.high, box.high)


def test_the_heads_have_a_row_per_output_with_the_published_scale():
    body = network()
    for space, outputs in ((Discrete(4), [4]), (Box((-1.0, 0.0), (1.0, 5.0)), [2, 2])):
        head = PolicyHead(space, body, key=jr.key(2))
        assert head.layer.weight.shape == (sum(outputs), 6)
        for rows in np.split(np.asarray(head.layer.weight), np.cumsum(outputs)[:-1]):
            np.testing.assert_allclose(rows @ rows.T, 1e-4 * np.eye(len(rows)), atol=1e-7)
    assert np.linalg.norm(Critic(body, key=jr.key(3)).head.weight) == pytest.approx(1, rel=1e-5)
