"""Statistics against scipy, cases worked out by hand, and simulations with known truths."""

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from hyperlax.statistics import (
    MIN_RUNS,
    Dimension,
    average_difference,
    best_of_k,
    difference,
    divergence,
    holm,
    importances,
    iqm,
    iqm_over_runs,
    iqm_over_strata,
    iqm_variance,
    mean,
    median_best_of_k,
    median_over_runs,
    noise_share,
    optimality_gap,
    paired_difference,
    performance_profile,
    probability_of_improvement,
    quantile_intervals,
    quantiles,
    rank_intervals,
    spearman,
)
from hyperlax.statistics.comparisons import permutations
from hyperlax.statistics.intervals import _iqm_weights, _resampled
from hyperlax.statistics.ranks import _mann_whitney


@pytest.fixture(scope="module")
def simulation():
    """The module `benchmarks/coverage.py`."""
    path = Path(__file__).parents[1] / "benchmarks" / "coverage.py"
    spec = importlib.util.spec_from_file_location("hyperlax_coverage", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("count", range(1, 14))
def test_iqm_is_the_trimmed_mean_of_scipy(count):
    values = np.random.default_rng(count).normal(size=(5, count))
    np.testing.assert_allclose(iqm(values), stats.trim_mean(values, 0.25, axis=1))


def test_averages_leave_out_missing_values():
    nan = np.nan
    values = np.array([[nan, 4.0, 1.0, 100.0, 2.0], [7.0, nan, nan, nan, nan], [nan] * 5])
    np.testing.assert_array_equal(iqm(values), [3.0, 7.0, nan])
    np.testing.assert_array_equal(mean(values), [26.75, 7.0, nan])
    np.testing.assert_array_equal(optimality_gap(values, 5.0), [2.0, 0.0, nan])


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
    assert np.isnan(quantiles(np.full((2, 3), np.nan), (0.5,))).all()
    assert np.isnan(quantiles(np.empty((2, 0)), (0.5,))).all()


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 11])
def test_the_variance_of_the_iqm_is_about_that_of_many_repetitions(count):
    values = np.random.default_rng(count).normal(size=(40_000, count))
    assert np.mean(iqm_variance(values)) == pytest.approx(np.var(iqm(values)), rel=0.25)
    if count < 4:
        np.testing.assert_allclose(iqm_variance(values), values.var(axis=1, ddof=1) / count)


@pytest.mark.parametrize("runs", [10, 11, 13])
def test_a_resample_is_averaged_as_the_runs_are(runs):
    ordered = np.sort(np.random.default_rng(runs).normal(size=runs))
    ranks = np.random.default_rng((0, runs)).integers(runs, size=(50, runs))
    drawn = _resampled(ordered[None], _iqm_weights(50, runs, 0))[0]
    np.testing.assert_allclose(drawn, stats.trim_mean(ordered[ranks], 0.25, axis=1))


def test_too_few_or_equal_runs_have_no_interval():
    few, equal = np.arange(MIN_RUNS - 1.0)[None, :, None], np.full((1, 20, 1), 500.0)
    for runs in (few, equal):
        found = iqm_over_runs(runs)
        assert not np.isnan(found.value).any()
        assert np.isnan([found.low, found.high]).all()
        assert np.isnan(iqm_over_strata(runs).low).all()
    assert np.isnan(median_over_runs(np.arange(4.0)[None, :, None]).low).all()
    assert np.isnan(median_over_runs(equal).low).all()


def test_missing_runs_change_only_their_own_points():
    values = np.random.default_rng(4).normal(size=(3, 12, 4))
    holed = values.copy()
    holed[1, 10:, 3] = np.nan
    holed[2, 5:, 0] = np.nan
    full, partial = iqm_over_runs(values), iqm_over_runs(holed)
    others = np.ones((3, 4), bool)
    others[1, 3] = others[2, 0] = False
    np.testing.assert_array_equal(full.low[others], partial.low[others])
    alone = iqm_over_runs(values[1:2, :10, 3:])
    assert partial.low[1, 3] == alone.low[0, 0]
    assert np.isnan(partial.low[2, 0])


def test_an_interval_of_censored_times_may_end_at_infinity():
    estimate = iqm_over_runs(np.array([*range(8), np.inf, np.inf])[None, :, None])
    assert np.isfinite(estimate.low.item())
    assert estimate.high.item() == np.inf


def test_the_mean_over_strata_is_the_iqm_of_iqms():
    values = np.random.default_rng(5).normal(size=(9, 12, 2))
    expected = stats.trim_mean(stats.trim_mean(values, 0.25, axis=1), 0.25, axis=0)
    estimate = iqm_over_strata(values)
    np.testing.assert_allclose(estimate.value, expected)
    assert (estimate.low < expected).all()
    assert (expected < estimate.high).all()
    assert (estimate.high - estimate.low < iqm_over_runs(values).high[0] - iqm_over_runs(values).low[0]).all()


def test_the_bias_of_few_runs_does_not_add_up_over_strata():
    """A quarter of the runs fails; without a correction 0.76 of these intervals hold."""
    rng = np.random.default_rng(6)
    one = np.sort((rng.random(1_000_000) >= 0.27) + 0.05 * rng.normal(size=1_000_000))
    truth = one[250_000:750_000].mean() + 8
    values = (rng.random((9, 10, 300)) >= 0.27) + 0.05 * rng.normal(size=(9, 10, 300))
    found = iqm_over_strata(values + 2 * np.arange(9)[:, None, None], repetitions=500)
    assert np.mean((found.low <= truth) & (truth <= found.high)) > 0.88


def test_intervals_of_the_median_follow_the_binomial_distribution():
    values = np.arange(1.0, 21.0)
    found = quantile_intervals(values, np.array([0.5, 0.95]))
    assert (found.low[0], found.high[0]) == (6, 15)
    assert np.isnan([found.low[1], found.high[1]]).all()
    five = median_over_runs(np.arange(5.0)[None, :, None])
    assert (five.low.item(), five.high.item()) == (0, 4)
    many = median_over_runs(values[None, :, None])
    assert 6 <= many.low.item() < 7


@pytest.mark.parametrize("runs", range(6, 31))
def test_interpolation_narrows_an_interval_of_the_median_by_less_than_a_run_at_either_end(runs):
    values = np.arange(1.0, runs + 1)
    exact = quantile_intervals(values, np.array([0.5]))
    found = median_over_runs(values[None, :, None])
    assert exact.low[0] <= found.low.item() < exact.low[0] + 1
    assert found.low.item() + found.high.item() == pytest.approx(runs + 1)


def transformed(gap, terms):
    """Return the statistic of the tests, without regard to its sign, from (values, weight) of each mean.

    This is Hall's transformation of t for the mean difference `gap`; weights are 1 and -1.
    """
    variance = sum(v.var(axis=-1, ddof=1) / v.shape[-1] for v, _ in terms)
    third = sum(
        w * np.mean((v - v.mean(axis=-1, keepdims=True)) ** 3, axis=-1) / v.shape[-1] ** 2 for v, w in terms
    )
    t, a = gap / np.sqrt(variance), third / variance**1.5
    return np.abs(t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6)


def test_the_difference_agrees_with_the_permutation_test_of_scipy():
    rng = np.random.default_rng(0)
    for shift in (0.0, 1.0, 2.0):
        a, b = rng.normal(size=5) + shift, rng.normal(size=4)
        theirs = stats.permutation_test(
            (a, b),
            lambda x, y, axis: transformed(x.mean(axis=axis) - y.mean(axis=axis), [(x, 1), (y, -1)]),
            n_resamples=10_000,
            vectorized=True,
            alternative="greater",
        )
        found = difference(a, b)
        assert found.p == pytest.approx(max(theirs.pvalue, 2 / 126))
        assert found.value == pytest.approx(a.mean() - b.mean())
        assert (found.p <= 0.05) == (not found.low <= 0 <= found.high)


def test_the_ends_of_a_difference_are_where_the_test_begins_to_reject():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=6) + 1, rng.normal(size=5)
    found = difference(a, b)
    for end, inwards in ((found.low, 1e-6), (found.high, -1e-6)):
        assert difference(a - end + inwards, b).p <= 0.05 < difference(a - end - inwards, b).p


def test_three_against_three_have_no_interval_and_equal_values_no_difference():
    apart = difference(np.array([1.0, 2, 3]), np.array([101.0, 102, 103]))
    assert np.isnan([apart.low, apart.high]).all()
    assert apart.p == pytest.approx(0.1)
    same = difference(np.full(6, 500.0), np.full(6, 500.0))
    assert (same.value, same.p) == (0, 1)
    assert np.isnan(same.low)
    assert np.isnan(difference(np.array([]), np.array([1.0])).value)


def test_zero_lies_in_the_interval_of_a_difference_exactly_if_it_is_not_claimed():
    """For groups that differ in size and spread, are skewed, tied, far apart or without any spread."""
    rng = np.random.default_rng(11)
    for m, n in ((2, 9), (3, 12), (5, 5), (4, 6), (9, 30)):
        for shift in (0.0, 2.0, 1e9):
            for a, b in (
                (5 * rng.normal(size=m), rng.normal(size=n)),
                (np.exp(rng.normal(size=m)), rng.exponential(size=n)),
                (1.0 * (rng.random(m) < 0.5), 1.0 * (rng.random(n) < 0.8)),
                (rng.normal(size=m), np.full(n, 0.1)),
            ):
                found = difference(a + shift, b)
                if found.low < found.high:
                    assert found.low <= found.value <= found.high
                    assert (found.p <= 0.05) == (not found.low <= 0 <= found.high)
                else:
                    assert np.isnan([found.low, found.high]).all()
                    assert a.std() + b.std() == 0


def test_groups_without_spread_differ_and_single_values_do_not():
    steady = difference(np.full(6, 0.3), np.full(6, 0.1))
    assert (steady.p, np.isnan(steady.low)) == (pytest.approx(2 / 924), True)
    assert difference(np.full(6, 0.1), np.full(9, 0.1)).p == 1
    assert difference(np.array([3.0]), np.array([1.0, 2.0])).p > 0.05
    assert difference(np.array([3.0]), np.array([1.0])).p == 1
    steady = np.random.default_rng(0).normal(size=64)
    for gap in (difference(np.array([9.0, np.nan]), steady), difference(-steady, np.array([-9.0]))):
        assert (gap.value > 8, gap.p, np.isnan(gap.low), np.isnan(gap.high)) == (True, 1, True, True)
    for m, n in ((3, 3), (3, 4), (2, 6)):
        assert np.isnan(difference(np.arange(m) + 1e6, np.arange(1.0 * n)).low)


def test_a_shift_and_a_scale_change_a_difference_as_they_change_the_values():
    rng = np.random.default_rng(12)
    a, b = rng.exponential(size=7) * 9, rng.normal(size=20)
    found, same = difference(a, b), difference(1e3 * a + 1e5, 1e3 * b + 1e5)
    assert same.p == found.p
    np.testing.assert_allclose([same.low, same.high], [1e3 * found.low, 1e3 * found.high], rtol=1e-6)


def test_the_difference_of_pairs_agrees_with_the_permutation_test_of_scipy():
    rng = np.random.default_rng(5)
    for n in (6, 9, 12):
        ours, theirs = rng.normal(0.6, 1, n), rng.normal(0, 1, n)
        found = paired_difference(ours, theirs)
        wanted = stats.permutation_test(
            (ours, theirs),
            lambda a, b, axis: transformed(np.mean(a - b, axis=axis), [(a - b, 1)]),
            permutation_type="samples",
            n_resamples=10_000,
            vectorized=True,
            alternative="greater",
        )
        assert found.p == pytest.approx(wanted.pvalue)
        assert found.value == pytest.approx(np.mean(ours - theirs))


def test_the_ends_of_a_paired_difference_are_where_its_test_begins_to_reject():
    rng = np.random.default_rng(6)
    for n in (6, 8, 30):
        ours, theirs = rng.normal(1, 1, n), rng.normal(0, 1, n)
        found = paired_difference(ours, theirs)
        for end, inwards in ((found.low, 1e-6), (found.high, -1e-6)):
            assert paired_difference(ours - end - inwards, theirs).p > 0.05
            assert paired_difference(ours - end + inwards, theirs).p <= 0.05
    assert np.isnan(paired_difference(np.arange(5.0), np.zeros(5)).low)
    assert np.isnan(paired_difference(np.array([np.nan]), np.array([1.0])).p)
    same = paired_difference(np.full(8, 500.0), np.full(8, 500.0))
    assert (same.value, same.p, np.isnan(same.low)) == (0.0, 1.0, True)


def test_levels_of_strata_do_not_matter_to_their_average_difference():
    rng = np.random.default_rng(2)
    pairs = [(rng.normal(size=4) + 2, rng.normal(size=4)) for _ in range(4)]
    found = average_difference(pairs)
    moved = average_difference([(a + 1000 * i, b + 1000 * i) for i, (a, b) in enumerate(pairs)])
    assert moved.value == pytest.approx(found.value)
    assert moved.low == pytest.approx(found.low)
    assert found.low < found.value < found.high
    assert found.p < 0.01


def test_holm_is_worked_out_by_hand():
    np.testing.assert_allclose(holm(np.array([0.01, np.nan, 0.04, 0.03])), [0.03, np.nan, 0.06, 0.06])


def test_the_probability_of_improvement_counts_pairs_and_halves_ties():
    found = probability_of_improvement(np.array([1.0, 2.0, 3.0]), np.array([2.0, 0.0]))
    assert found.value == pytest.approx((0 + 1 + 0.5 + 1 + 1 + 1) / 6)
    assert np.isnan([found.low, found.high]).all()
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.5, 1, 60), rng.normal(0, 1, 50)
    found, back = probability_of_improvement(a, b), probability_of_improvement(b, a)
    assert found.value == pytest.approx(stats.mannwhitneyu(a, b).statistic / (60 * 50))
    assert back.low == pytest.approx(1 - found.high, abs=1e-3)
    assert found.low == pytest.approx(found.value - 1.96 * 0.055, abs=0.04)
    sure = probability_of_improvement(np.arange(5.0) + 10, np.arange(5.0))
    assert sure.high == 1
    assert 0.5 < sure.low < 0.8
    equal = probability_of_improvement(np.full(6, 500.0), np.full(9, 500.0))
    assert equal.low < equal.value == 0.5 < equal.high


def test_the_probability_of_improvement_holds_for_a_small_noisy_group_and_a_large_steady_one():
    rng = np.random.default_rng(13)
    found = [probability_of_improvement(5 * rng.normal(size=5), rng.normal(size=40)) for _ in range(300)]
    assert np.mean([e.low <= 0.5 <= e.high for e in found]) >= 0.91


@pytest.mark.parametrize(("m", "n"), [(3, 3), (4, 7), (10, 10)])
def test_the_exact_mann_whitney_test_is_that_of_scipy(m, n):
    rng = np.random.default_rng(m)
    a, b = rng.normal(size=m), rng.normal(size=n)
    wins = float(np.sum(a[:, None] > b))
    assert _mann_whitney(m, n, wins) == pytest.approx(stats.mannwhitneyu(a, b, method="exact").pvalue)


def test_ranks_of_samples_far_apart_are_found_and_equal_ones_share_them():
    rng = np.random.default_rng(3)
    values = np.repeat([0.0, 100.0, 200.0, 300.0], 2)[:, None] + rng.normal(size=(8, 10))
    first, last = rank_intervals(values)
    assert first.tolist() == [7, 7, 5, 5, 3, 3, 1, 1]
    assert last.tolist() == [8, 8, 6, 6, 4, 4, 2, 2]
    shuffled = rng.permutation(8)
    np.testing.assert_array_equal(rank_intervals(values[shuffled])[0], first[shuffled])


def test_three_runs_one_run_and_ties_have_no_order():
    apart = np.arange(6.0)[:, None] * 100 + np.random.default_rng(4).normal(size=(6, 3))
    for values in (apart, apart[:, :1], np.full((6, 10), 500.0)):
        first, last = rank_intervals(values)
        assert first.tolist() == [1] * 6
        assert last.tolist() == [6] * 6
    holed = np.where(np.arange(6)[:, None] == 2, np.nan, apart)
    few = np.random.default_rng(5).normal(size=(3, 12)) + np.array([[200.0], [100.0], [0.0]])
    few[0, 3:] = np.nan
    assert [places.tolist() for places in rank_intervals(few)] == [[1, 1, 2], [3, 2, 3]]
    assert rank_intervals(holed)[0].tolist() == [1, 1, 0, 1, 1, 1]
    tied = np.array([[1.0] * 10, [500.0] * 10, [500.0] * 10])
    assert [places.tolist() for places in rank_intervals(tied)] == [[3, 1, 1], [3, 2, 2]]


def test_the_best_of_k_equals_the_mean_over_all_subsets():
    values = np.array([3.0, -1.0, 2.0, 2.0, 7.0, np.nan])
    expected = [np.mean([max(s) for s in itertools.combinations(values[:5], k)]) for k in range(1, 6)]
    found = best_of_k(values)
    assert found.value == pytest.approx(expected)
    assert np.isnan([found.low, found.high]).all()


def test_the_median_best_of_k_has_intervals_only_for_few():
    values = np.random.default_rng(5).permutation(64) * 1.0
    found = median_best_of_k(values)
    assert found.value[0] == pytest.approx(np.median(values))
    assert not np.isnan(found.low[:10]).any()
    assert np.isnan(found.low[16:]).all()
    assert (found.low[:10] < found.value[:10]).all()


def test_the_performance_profile_is_the_share_above_and_its_band_narrows_at_the_ends():
    found = performance_profile(np.array([1.0, 2.0, np.nan, 3.0, 3.0]), np.array([0.0, 1.0, 2.5, 3.0]))
    assert found.value == pytest.approx([1, 0.75, 0.5, 0])
    assert np.all(found.low <= found.value)
    assert np.all(found.value <= found.high)
    assert (found.high[0], found.low[-1]) == (1, 0)
    many = performance_profile(np.arange(100.0), np.array([1.5, 49.5, 97.5]))
    assert many.high[0] - many.low[0] < 0.5 * (many.high[1] - many.low[1])
    assert np.isnan(performance_profile(np.array([1.0, 2.0]), np.array([0.0])).low).all()


def test_the_rank_correlation_is_that_of_scipy():
    rng = np.random.default_rng(6)
    a, b = rng.integers(6, size=(2, 12)) * 1.0
    found = spearman(a, b)
    assert found.value == pytest.approx(stats.spearmanr(a, b)[0])
    assert found.low < found.value < found.high
    assert np.isnan(spearman(a[:9], b[:9]).low)
    assert np.isnan(spearman(a, np.ones(12)).value)


def test_the_chance_level_and_the_p_values_say_the_same():
    rng = np.random.default_rng(7)
    for effect in (0.0, 3.0):
        cell = rng.integers(50, size=(4, 40))
        dims = [Dimension(f"x{i}", own, 50, True) for i, own in enumerate(cell)]
        found = importances(
            effect * cell[0][:, None] / 50 + 0.3 * rng.normal(size=(40, 3)), dims, repetitions=300
        )
        np.testing.assert_array_equal(found.p <= 0.05, found.share > found.chance)
        assert found.share.sum() == pytest.approx(1)
        assert (found.p[0] <= 0.05) == (effect > 0)


def test_every_choice_of_the_top_has_its_own_kernel_width():
    """One row of choices does not change what another row gets."""
    rng = np.random.default_rng(8)
    dim = Dimension("x", rng.integers(50, size=60), 50, True)
    tops = rng.permuted(np.repeat(np.arange(60)[None] < 6, 20, axis=0), axis=1)
    alone = np.concatenate([divergence(dim, top[None]) for top in tops])
    np.testing.assert_allclose(divergence(dim, tops), alone)


def test_the_share_of_noise_is_that_of_the_interquartile_means():
    """The variance of the interquartile mean of four normal runs is 0.298."""
    rng = np.random.default_rng(3)
    scores = np.sqrt(0.298) * rng.normal(size=(6000, 1)) + rng.normal(size=(6000, 4))
    assert noise_share(scores) == pytest.approx(0.5, abs=0.05)
    assert np.isnan(noise_share(scores[:, :1]))
    assert noise_share(np.broadcast_to(scores[:, :1], (6000, 3))) == pytest.approx(0)


def test_intervals_and_orders_hold_in_a_short_simulation(simulation):
    """The same simulation as `benchmarks/coverage.py`, with fewer repetitions and wider limits."""

    def p_value(ours, theirs):
        """The p value of `difference`, without the interval, which takes eighty times as long."""
        value, permuted = permutations([(ours, theirs)], seed=0)
        assert permuted is not None
        return permuted.p(value)

    rng = np.random.default_rng(0)
    for case in ("normal", "skewed", "30 % failing"):
        truth = float(iqm(simulation.population(case)))
        found = iqm_over_runs(simulation.DRAWS[case]((1_500, 10, 1), rng))
        assert 0.93 <= simulation.covered(found.low, found.high, truth) <= 0.985, case
        values = simulation.DRAWS[case]((300, 16, 5), rng)
        assert np.mean([(rank_intervals(v)[0] > 1).any() for v in values]) <= 0.05, case
        pairs = simulation.DRAWS[case]((400, 2, 5), rng)
        assert np.mean([p_value(a, b) <= 0.05 for a, b in pairs]) <= 0.09, case
        assert p_value(*pairs[0]) == difference(*pairs[0]).p
        large = simulation.DRAWS[case]((100, 2, 20), rng) - simulation.population(case).mean()
        wrong = [p_value(5 * a[:6], b) <= 0.05 for a, b in large]
        assert np.mean(wrong) <= 0.14, case
