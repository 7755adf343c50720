"""Statistics of the report against scipy, plain bootstraps and cases worked out by hand."""

import itertools
import time

import numpy as np
import pytest
from scipy import stats

from hyperlax.report.statistics import (
    best_of_k,
    bootstrap_iqm,
    interval,
    iqm,
    iqm_over_runs,
    iqm_over_strata,
    performance_profile,
    probability_of_improvement,
    quantiles,
)


@pytest.mark.parametrize("count", range(1, 14))
def test_iqm_is_the_trimmed_mean_of_scipy(count):
    values = np.random.default_rng(count).normal(size=(5, count))
    np.testing.assert_allclose(iqm(values), stats.trim_mean(values, 0.25, axis=1))


def test_iqm_leaves_out_missing_values():
    nan = np.nan
    values = np.array([[nan, 4.0, 1.0, 100.0, 2.0], [7.0, nan, nan, nan, nan], [nan] * 5])
    np.testing.assert_array_equal(iqm(values), [3.0, 7.0, nan])


def test_iqm_along_another_axis():
    values = np.random.default_rng(0).normal(size=(6, 3, 4))
    np.testing.assert_allclose(iqm(values, axis=0), stats.trim_mean(values, 0.25, axis=0))


def test_iqm_of_censored_times_is_finite_if_the_middle_half_is():
    values = np.array([[3.0, np.inf, 1.0, 2.0], [np.inf, np.inf, 1.0, 2.0]])
    np.testing.assert_array_equal(iqm(values), [2.5, np.inf])


def test_quantiles_are_those_of_numpy_without_the_missing():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(20, 9))
    values[rng.uniform(size=values.shape) < 0.3] = np.nan
    values[:, 0] = 1.0
    levels = (0.0, 0.25, 0.5, 0.9, 1.0)
    np.testing.assert_allclose(quantiles(values, levels), np.nanquantile(values, levels, axis=1))


def test_quantiles_without_values_are_nan():
    assert np.isnan(quantiles(np.full((2, 3), np.nan), (0.5,))).all()
    assert np.isnan(quantiles(np.empty((2, 0)), (0.5,))).all()


def test_the_interval_agrees_with_the_percentile_bootstrap_of_scipy():
    runs = np.random.default_rng(2).gamma(2.0, size=15)
    ours = iqm_over_runs(runs[None, :, None], repetitions=20_000)
    theirs = stats.bootstrap(
        (runs,),
        lambda sample, axis: stats.trim_mean(sample, 0.25, axis=axis),
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    spread = theirs.high - theirs.low
    np.testing.assert_allclose(ours.low[0, 0], theirs.low, atol=0.03 * spread)
    np.testing.assert_allclose(ours.high[0, 0], theirs.high, atol=0.03 * spread)


def test_the_interval_of_two_runs_spans_them():
    estimate = iqm_over_runs(np.array([[[1.0], [5.0]]]))
    assert (estimate.value.item(), estimate.low.item(), estimate.high.item()) == (3.0, 1.0, 5.0)


def test_one_run_has_no_interval():
    estimate = iqm_over_runs(np.array([[[2.0, 1.0], [np.nan, 3.0]]]))
    np.testing.assert_array_equal(np.isnan(estimate.low), [[True, False]])
    np.testing.assert_array_equal(estimate.value, [[2.0, 2.0]])


def test_missing_runs_change_only_their_own_points():
    values = np.random.default_rng(4).normal(size=(3, 6, 4))
    holed = values.copy()
    holed[1, 2:, 3] = np.nan
    full, partial = iqm_over_runs(values), iqm_over_runs(holed)
    others = np.ones((3, 4), bool)
    others[1, 3] = False
    np.testing.assert_allclose(full.low[others], partial.low[others])
    np.testing.assert_allclose(partial.low[1, 3], values[1, :2, 3].min())


def test_an_interval_of_censored_times_may_end_at_infinity():
    estimate = iqm_over_runs(np.array([[[1.0], [2.0], [3.0], [np.inf]]]))
    assert estimate.value.item() == 2.5
    assert (estimate.low.item(), estimate.high.item()) == (1.0, np.inf)


def test_strata_are_resampled_separately():
    levels = np.arange(8.0)[:, None, None]
    estimate = iqm_over_strata(np.broadcast_to(levels, (8, 5, 1)))
    assert (estimate.low.item(), estimate.value.item(), estimate.high.item()) == (3.5, 3.5, 3.5)


def test_the_mean_over_strata_is_the_iqm_of_iqms():
    values = np.random.default_rng(5).normal(size=(9, 6, 2))
    expected = stats.trim_mean(stats.trim_mean(values, 0.25, axis=1), 0.25, axis=0)
    estimate = iqm_over_strata(values)
    np.testing.assert_allclose(estimate.value, expected)
    assert (estimate.low < expected).all()
    assert (expected < estimate.high).all()


def test_draws_are_repeatable_and_depend_on_the_seed():
    values = np.random.default_rng(6).normal(size=(2, 5, 3))
    np.testing.assert_array_equal(bootstrap_iqm(values, 50), bootstrap_iqm(values, 50))
    assert not np.array_equal(bootstrap_iqm(values, 50), bootstrap_iqm(values, 50, seed=1))


def test_intervals_cover_the_truth_at_about_their_nominal_rate():
    values = np.random.default_rng(7).normal(size=(400, 12, 1))
    low, high = interval(bootstrap_iqm(values, 1_000))
    assert 0.88 <= np.mean((low <= 0) & (high >= 0)) <= 0.98


def test_two_thousand_repetitions_of_a_whole_sweep_take_less_than_a_second():
    values = np.random.default_rng(8).normal(size=(64, 10, 40))
    seconds = []
    for _ in range(2):
        began = time.thread_time()
        iqm_over_runs(values, repetitions=2_000)
        seconds.append(time.thread_time() - began)
    assert min(seconds) < 1.0


def test_the_best_of_k_equals_the_mean_over_all_subsets():
    values = np.array([3.0, -1.0, 2.0, 2.0, 7.0, np.nan])
    known = values[:5]
    expected = [np.mean([max(s) for s in itertools.combinations(known, k)]) for k in range(1, 6)]
    found = best_of_k(values)
    assert found.value == pytest.approx(expected)
    assert found.value[0] == pytest.approx(known.mean())
    assert found.value[-1] == 7
    assert np.all(found.low <= found.value)
    assert np.all(found.value <= found.high + 1e-12)


def test_intervals_of_the_best_of_k_cover_the_expected_best_of_the_population():
    """The expected best of 4 samples of a uniform distribution on [0, 1] is 4 / 5."""
    rng = np.random.default_rng(0)
    hits = []
    for trial in range(200):
        found = best_of_k(rng.uniform(size=40), repetitions=300, seed=trial)
        hits.append(found.low[3] <= 0.8 <= found.high[3])
    assert 0.88 <= np.mean(hits) <= 0.99


def test_the_probability_of_improvement_counts_pairs_and_halves_ties():
    found = probability_of_improvement(np.array([1.0, 2.0, 3.0]), np.array([2.0, 0.0]))
    assert found.value == pytest.approx((0 + 1 + 0.5 + 1 + 1 + 1) / 6)
    back = probability_of_improvement(np.array([2.0, 0.0]), np.array([1.0, 2.0, 3.0]))
    assert back.value == pytest.approx(1 - found.value)
    assert found.low <= found.value <= found.high


def test_the_probability_of_improvement_agrees_with_mann_and_whitney():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.5, 1, 60), rng.normal(0, 1, 50)
    found = probability_of_improvement(a, b)
    assert found.value == pytest.approx(stats.mannwhitneyu(a, b).statistic / (60 * 50))
    assert found.low == pytest.approx(found.value - 1.96 * 0.055, abs=0.04)


def test_one_sample_gives_no_interval():
    alone = np.array([1.0, np.nan])
    for found in (
        best_of_k(alone),
        performance_profile(alone, np.array([0.0])),
        probability_of_improvement(alone, np.array([0.0, 2.0])),
    ):
        assert not np.isnan(found.value).any()
        assert np.isnan(found.low).all()
        assert np.isnan(found.high).all()


def test_the_performance_profile_is_the_share_above():
    found = performance_profile(np.array([1.0, 2.0, np.nan, 3.0, 3.0]), np.array([0.0, 1.0, 2.5, 3.0]))
    assert found.value == pytest.approx([1, 0.75, 0.5, 0])
    assert np.all(found.low <= found.value)
    assert np.all(found.value <= found.high)
    assert found.low[0] == found.high[0] == 1
