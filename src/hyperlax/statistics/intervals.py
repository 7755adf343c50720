"""Intervals of averages over runs, which hold for few runs and for runs of which some fail.

Seeds of reinforcement learning often form two groups, those that learn and those that do not. If 30 % of all
seeds fail, five seeds all succeed in 0.7⁵ = 17 % of cases and then show no trace of failure, so that no
method whatsoever can give an interval of 95 % for the interquartile mean. With `MIN_RUNS` runs such an
accident is rarer than 6 % for any distribution: the interquartile mean lies between the first and the third
quartile, and all of n runs lie on one side of it with probability at most 0.75ⁿ + 0.25ⁿ.

From there on the percentile bootstrap holds if its tails are widened for the number of runs (Hesterberg 2015,
"What teachers should know about the bootstrap", section 3.4): tails of Φ(-√(n/(n-1)) t) instead of 2.5 %,
where t is the 97.5 % quantile of Student's t with n - 1 degrees of freedom. Coverage by simulation is in the
documentation of the statistics, and comes from `benchmarks/coverage.py`.

For the mean no interval is given: neither Student's t nor any bootstrap covers it for skewed runs.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtr
from scipy.stats import binom, t

from hyperlax.statistics.averages import iqm, quantiles
from hyperlax.statistics.estimates import LEVEL, REPETITIONS, Estimate, without_interval

MIN_RUNS = 10
"""Minimum number of runs for an interval of the interquartile mean."""
_FEWEST_OF_MEDIAN = 5
"""The same for the median."""
_DRAWS_AT_ONCE = 2**23
_ROUNDING = 1e-12
"""Relative difference up to which averages are equal, which are sums in another order."""


def widened_tail(runs: int, level: float = LEVEL) -> float:
    """Return the share of the bootstrap draws to cut off at either end, for an average over `runs` runs."""
    return float(ndtr(-np.sqrt(runs / (runs - 1)) * t.ppf((1 + level) / 2, runs - 1)))


def percentile_ends(
    draws: Float[np.ndarray, "... repetitions"], runs: int, level: float = LEVEL
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Return the ends of the widened percentile interval over the last axis; each end is one of the draws.

    Both are NaN where the draws are all equal but for rounding, because runs that agree exactly say nothing
    about the spread.
    """
    last, tail = draws.shape[-1] - 1, widened_tail(runs, level)
    first, final = int(np.floor(last * tail)), int(np.ceil(last * (1 - tail)))
    ordered = np.partition(draws, (first, final), axis=-1)
    low, high = ordered[..., first], ordered[..., final]
    spread = (low < high) & ~np.isclose(low, high, rtol=_ROUNDING, atol=0.0)
    return np.where(spread, low, np.nan), np.where(spread, high, np.nan)


def iqm_over_runs(
    values: Float[np.ndarray, "strata runs points"], repetitions: int = REPETITIONS, seed: int = 0
) -> Estimate:
    """Return the interquartile mean over the runs of every stratum, with its 95 % interval.

    The fields of the estimate have shape (strata, points). A point with fewer than `MIN_RUNS` runs has no
    interval, and neither has one where all bootstrap means are equal.
    """
    values = np.asarray(values, float)
    value, count = iqm(values, axis=1), np.sum(~np.isnan(values), axis=1)
    low, high = np.full(value.shape, np.nan), np.full(value.shape, np.nan)
    for runs in np.unique(count[count >= MIN_RUNS]):
        rows, columns = np.nonzero(count == runs)
        size = max(1, _DRAWS_AT_ONCE // repetitions)
        for start in range(0, len(rows), size):
            at = rows[start : start + size], columns[start : start + size]
            ordered = np.sort(values[at[0], :, at[1]], axis=1)[:, :runs]
            draws = _resampled(ordered, _iqm_weights(repetitions, int(runs), seed))
            low[at], high[at] = percentile_ends(draws, int(runs))
    return Estimate(value, low, high)


def iqm_over_strata(
    values: Float[np.ndarray, "strata runs points"], repetitions: int = REPETITIONS, seed: int = 0
) -> Estimate:
    """Return the interquartile mean over strata of the interquartile means over the runs of each stratum.

    The fields of the estimate have shape (points,). The interval resamples the runs and keeps the strata
    fixed. It is missing where a stratum has fewer than `MIN_RUNS` runs.

    The interquartile mean of few runs, some of which fail, is biased, and draws of its bootstrap are biased
    once more. Over many strata both biases together can be as large as the spread, so that twice the bias of
    the draws is subtracted from them.
    """
    values = np.asarray(values, float)
    over_runs, count = iqm(values, axis=1), np.sum(~np.isnan(values), axis=1)
    value = iqm(over_runs, axis=0)
    low, high = np.full(value.shape, np.nan), np.full(value.shape, np.nan)
    fewest = np.where(count > 0, count, np.iinfo(int).max).min(axis=0, initial=np.iinfo(int).max)
    enough = (fewest >= MIN_RUNS) & (count > 0).any(axis=0)
    for point in np.flatnonzero(enough):
        own = values[count[:, point] > 0, :, point]
        draws = np.empty((len(own), repetitions))
        for row, runs in enumerate(own):
            ordered = np.sort(runs)[: np.sum(~np.isnan(runs))]
            draws[row] = _resampled(ordered[None], _iqm_weights(repetitions, len(ordered), seed + row))[0]
        draws -= 2 * (draws.mean(axis=1, keepdims=True) - iqm(own, axis=1)[:, None])
        low[point], high[point] = percentile_ends(iqm(draws, axis=0), int(fewest[point]))
    return Estimate(value, low, high)


def median_over_runs(values: Float[np.ndarray, "strata runs points"]) -> Estimate:
    """Return the median over the runs of every stratum, with its 95 % interval.

    The fields of the estimate have shape (strata, points). The r-th smallest and largest run enclose the
    median with a probability that depends only on the number of runs; between two values of r the ends are
    interpolated (Hettmansperger and Sheather 1986, "Confidence intervals based on interpolated order
    statistics"), which may lose up to 3 % where no run can lie near the median. Five runs enclose the median
    in 93.75 % of cases, fewer give no interval. `quantile_intervals` does not interpolate.
    """
    values = np.asarray(values, float)
    count = np.sum(~np.isnan(values), axis=1)
    ordered = np.sort(values, axis=1)
    low, high = np.full(count.shape, np.nan), np.full(count.shape, np.nan)
    for runs in np.unique(count[count >= _FEWEST_OF_MEDIAN]):
        at, r, share = count == runs, *_median_rank(int(runs))
        below, above = ordered[:, r - 1], ordered[:, min(r, ordered.shape[1] - 1)]
        np.copyto(low, _between(below, above, share), where=at)
        below, above = ordered[:, runs - r], ordered[:, runs - r - 1]
        np.copyto(high, _between(below, above, share), where=at)
    spread = low < high
    return Estimate(
        quantiles(values, (0.5,), axis=1)[0], np.where(spread, low, np.nan), np.where(spread, high, np.nan)
    )


def median_interval_words(runs: int) -> str:
    """Say how `median_over_runs` makes the interval of so many runs, for a caption."""
    if runs == _FEWEST_OF_MEDIAN:
        return f"the range of {runs}, which holds the median in {1 - 2 * 0.5**runs:.2%} of cases"
    return "95 %, by interpolated order statistics"


def quantile_intervals(values: Float[np.ndarray, " runs"], levels: Float[np.ndarray, " levels"]) -> Estimate:
    """Return quantiles of the runs, with 95 % intervals that hold for any distribution.

    The fields of the estimate have shape (levels,). Each end of an interval is one of the ordered values; the
    binomial distribution of the number of values below the quantile says which (Wilks 1948, "Order
    statistics"). The interval is missing where no value is small or large enough, and where all are equal.
    """
    present = np.sort(values[~np.isnan(values)])
    n = len(present)
    if n == 0:
        return without_interval(np.full(len(levels), np.nan))
    below = binom.ppf((1 - LEVEL) / 2, n, levels).astype(int)
    above = binom.isf((1 - LEVEL) / 2, n, levels).astype(int) + 1
    held = (below >= 1) & (above <= n)
    low, high = (np.where(held, present[np.clip(r - 1, 0, n - 1)], np.nan) for r in (below, above))
    low, high = np.where(low < high, low, np.nan), np.where(low < high, high, np.nan)
    return Estimate(np.quantile(present, levels), low, high)


def _between(
    outer: Float[np.ndarray, "..."], inner: Float[np.ndarray, "..."], share: float
) -> Float[np.ndarray, "..."]:
    """Return the point at a share of the way from one end to the other; infinite ends stay as they are."""
    step = np.subtract(inner, outer, out=np.zeros_like(outer), where=np.isfinite(outer))
    return outer + share * step if share > 0 else outer


def _median_rank(runs: int, level: float = LEVEL) -> tuple[int, float]:
    """Return r and the share of the way to r + 1 for the interval of the median, as interpolated ranks."""
    covered = 1 - 2 * binom.cdf(np.arange(runs // 2), runs, 0.5)
    r = max(1, int(np.sum(covered >= level)))
    if covered[r - 1] <= level or r >= len(covered):
        return r, 0.0
    step = (covered[r - 1] - level) / (covered[r - 1] - covered[r])
    return r, float((runs - r) * step / (r + (runs - 2 * r) * step))


def _resampled(
    ordered: Float[np.ndarray, "rows runs"], weights: Float[np.ndarray, "runs repetitions"]
) -> Float[np.ndarray, "rows repetitions"]:
    """Return interquartile means of resampled runs, for rows that share one draw of ranks.

    Resampling `n` runs and sorting them is the same as resampling ranks of the sorted runs. One draw of ranks
    therefore serves all rows, and the means become a matrix product. A mean over an infinite run is infinite.
    """
    means = np.where(np.isfinite(ordered), ordered, 0.0) @ weights
    censored = np.isposinf(ordered).astype(float)
    return np.where(censored @ weights > 0, np.inf, means) if censored.any() else means


@lru_cache(maxsize=32)
def _iqm_weights(repetitions: int, runs: int, seed: int) -> Float[np.ndarray, "runs repetitions"]:
    """Return the weight of every rank in the interquartile mean of each bootstrap resample."""
    rng = np.random.default_rng((seed, runs))
    ranks = np.sort(rng.integers(runs, size=(repetitions, runs)), axis=1)
    middle: Int[np.ndarray, "repetitions middle"] = ranks[:, runs // 4 : runs - runs // 4]
    rows = np.arange(repetitions)[:, None] * runs
    counts = np.bincount((middle + rows).ravel(), minlength=repetitions * runs)
    return counts.reshape(repetitions, runs).T / middle.shape[1]
