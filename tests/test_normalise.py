"""Running normalisation against moments computed all at once in double precision."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax.learning.normalise import STD_RANGE, Normaliser

update = jax.jit(lambda n, x, v: n.update(x, v))


def test_merged_batches_have_the_moments_of_all_observations():
    rng = np.random.default_rng(0)
    for _ in range(5):
        size = int(rng.integers(1, 6))
        normaliser, seen = Normaliser(size), []
        for _ in range(int(rng.integers(1, 12))):
            batch = rng.normal(rng.normal(0, 5), 3, (16, size)).astype(np.float32)
            valid = rng.random(16) < rng.random()
            batch[~valid] = np.nan
            seen.append(batch[valid])
            normaliser = update(normaliser, batch, valid)
        together = np.concatenate(seen).astype(np.float64)
        assert normaliser.count == len(together)
        if len(together):
            np.testing.assert_allclose(normaliser.mean, together.mean(0), rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(normaliser.variance, together.var(0), rtol=1e-4, atol=1e-6)


def test_padding_does_not_change_a_single_bit():
    rng = np.random.default_rng(1)
    batch = rng.normal(size=(8, 3)).astype(np.float32)
    alone = update(Normaliser(3), batch, np.ones(8, bool))
    padded = np.concatenate([batch, np.full((8, 3), np.inf, np.float32)])
    together = update(Normaliser(3), padded, np.arange(16) < 8)
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_empty_batch_changes_nothing():
    rng = np.random.default_rng(2)
    before = update(Normaliser(2), rng.normal(size=(5, 2)).astype(np.float32), np.ones(5, bool))
    for start in (before, Normaliser(2)):
        after = update(start, jnp.full((5, 2), jnp.nan), np.zeros(5, bool))
        assert eqx.tree_equal(after, start)


def test_normalised_observations_have_zero_mean_and_unit_variance():
    x = np.random.default_rng(3).normal([5, -100], [0.1, 30], (1000, 2)).astype(np.float32)
    normaliser = update(Normaliser(2), x, np.ones(1000, bool))
    z = np.asarray(jax.vmap(normaliser)(x), np.float64)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(z.std(0), 1, rtol=1e-4)


def test_without_statistics_observations_pass_unchanged():
    x = jnp.asarray([3.0, -1.0])
    np.testing.assert_array_equal(Normaliser(2)(x), x)


def test_a_constant_observation_divides_by_the_smallest_std():
    normaliser = update(Normaliser(1), jnp.full((9, 1), 2.0), np.ones(9, bool))
    np.testing.assert_allclose(normaliser(jnp.asarray([2.0 + 1e-3])), 1e-3 / STD_RANGE[0], rtol=1e-3)


@pytest.mark.parametrize("count", [10**7, 10**8])
def test_moments_still_change_after_many_observations(count):
    """float32 cannot add 1 to 2·10⁷; the statistics must still follow a drift as exactly as in float64."""
    rng = np.random.default_rng(4)
    start = eqx.tree_at(lambda n: n.count, Normaliser(2), jnp.int32(count))
    batch = jnp.asarray(rng.normal([3, -4], [2, 0.5], (2048, 2)).astype(np.float32))
    valid = jnp.ones(2048, bool)
    repeats = 2000

    @jax.jit
    def feed(normaliser):
        return jax.lax.fori_loop(0, repeats, lambda _, n: n.update(batch, valid), normaliser)

    after = feed(start)
    total, new = count + repeats * 2048, repeats * 2048
    exact = np.asarray(batch, np.float64)
    share = new / total
    mean = share * exact.mean(0)
    variance = (1 - share) + share * exact.var(0) + share * (1 - share) * exact.mean(0) ** 2
    assert after.count == total
    np.testing.assert_allclose(after.mean, mean, rtol=2e-3)
    np.testing.assert_allclose(after.variance, variance, rtol=2e-3)


def test_the_count_stops_before_it_overflows():
    full = eqx.tree_at(lambda n: n.count, Normaliser(1), jnp.int32(2**30))
    for _ in range(3):
        full = update(full, jnp.ones((4, 1)), np.ones(4, bool))
    assert full.count == 2**30
    assert jnp.isfinite(full.mean).all()
