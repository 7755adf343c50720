"""Robust averages and their uncertainty: interquartile means, quantiles and bootstrap intervals.

Missing values are NaN and are left out. Infinity is a regular value that means "later than any observed
time", so that censored times can be averaged. Interquartile mean and stratified bootstrap follow Agarwal et
al. 2021, "Deep reinforcement learning at the edge of the statistical precipice"; the trimming of a quarter at
either end is that of `scipy.stats.trim_mean(values, 0.25)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

REPETITIONS = 2_000
LEVEL = 0.95
_DRAWS_AT_ONCE = 2**23


class Unavailable(ValueError):
    """A statistic cannot be computed (yet); the message is a sentence for the reader that says why."""


@dataclass(frozen=True)
class Estimate:
    """A statistic with the ends of its bootstrap interval, which are NaN if there is no interval."""

    value: Float[np.ndarray, "..."]
    low: Float[np.ndarray, "..."]
    high: Float[np.ndarray, "..."]


def iqm(values: Float[np.ndarray, "..."], axis: int = -1) -> Float[np.ndarray, "..."]:
    """Return the interquartile mean along `axis`: the mean of the middle half of the values.

    NaN values are left out; without any value the mean is NaN. Of `n` values ⌊n/4⌋ are dropped at either end,
    so that up to three values give their plain mean.
    """
    ordered = np.sort(np.moveaxis(np.asarray(values, float), axis, -1), axis=-1)
    count = np.sum(~np.isnan(ordered), axis=-1, keepdims=True)
    place = np.arange(ordered.shape[-1])
    middle = (place >= count // 4) & (place < count - count // 4)
    total = np.where(middle, ordered, 0.0).sum(-1)
    return np.divide(total, middle.sum(-1), out=np.full(total.shape, np.nan), where=middle.any(-1))


def quantiles(
    values: Float[np.ndarray, "..."], levels: Sequence[float], axis: int = -1
) -> Float[np.ndarray, "levels ..."]:
    """Return quantiles along `axis`, interpolated linearly.

    NaN values are left out; without any value the quantiles are NaN.
    """
    ordered = np.sort(np.moveaxis(np.asarray(values, float), axis, -1), axis=-1)
    count = np.sum(~np.isnan(ordered), axis=-1)
    return np.stack([_value_at_rank(ordered, level * np.maximum(count - 1, 0)) for level in levels])


def bootstrap_iqm(
    values: Float[np.ndarray, "strata runs points"], repetitions: int = REPETITIONS, seed: int = 0
) -> Float[np.ndarray, "strata points repetitions"]:
    """Return interquartile means of runs resampled with replacement, separately in each stratum.

    Resampling `n` runs and sorting them is the same as resampling ranks of the sorted runs. One draw of ranks
    therefore serves all points, and the means become a matrix product. A point with fewer than two runs gets
    NaN, because one run says nothing about the spread between runs.
    """
    values = np.asarray(values, float)
    ordered = np.sort(values.swapaxes(1, 2), axis=2)
    count = np.sum(~np.isnan(ordered), axis=2)
    finite = np.where(np.isfinite(ordered), ordered, 0.0)
    censored = np.isposinf(ordered).astype(float)
    draws = np.full((*count.shape, repetitions), np.nan)
    for runs in np.unique(count[count > 1]):
        weights = _iqm_weights(values.shape[0], repetitions, int(runs), np.random.default_rng((seed, runs)))
        means = finite[:, :, :runs] @ weights
        if censored.any():
            means[censored[:, :, :runs] @ weights > 0] = np.inf
        np.copyto(draws, means, where=(count == runs)[:, :, None])
    return draws


def affordable(runs: int) -> int:
    """Return how many bootstrap repetitions over `runs` runs take at most about two seconds: 200 to 2,000."""
    return min(REPETITIONS, max(200, 2 * _DRAWS_AT_ONCE // max(1, runs)))


def interval(
    draws: Float[np.ndarray, "... repetitions"], level: float = LEVEL
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Return the ends of the percentile interval over the last axis; each end is one of the draws."""
    last = draws.shape[-1] - 1
    low, high = int(np.floor(last * (1 - level) / 2)), int(np.ceil(last * (1 + level) / 2))
    ordered = np.partition(draws, (low, high), axis=-1)
    return ordered[..., low], ordered[..., high]


def iqm_over_runs(
    values: Float[np.ndarray, "strata runs points"], repetitions: int = REPETITIONS, seed: int = 0
) -> Estimate:
    """Return the interquartile mean over the runs of every stratum, with its 95 % bootstrap interval.

    The fields of the estimate have shape (strata, points).
    """
    value = iqm(values, axis=1)
    low, high = np.full(value.shape, np.nan), np.full(value.shape, np.nan)
    for points in _point_slices(values.shape, repetitions):
        low[:, points], high[:, points] = interval(bootstrap_iqm(values[:, :, points], repetitions, seed))
    return Estimate(value, low, high)


def undominated(scores: Float[np.ndarray, "trials objectives"]) -> Bool[np.ndarray, " trials"]:
    """Mark the Pareto-optimal rows: no other row is as large in every objective and larger in one."""
    at_least = np.all(scores[None] >= scores[:, None], axis=2)
    larger = np.any(scores[None] > scores[:, None], axis=2)
    return ~np.any(np.logical_and(at_least, larger), axis=1)


def iqm_over_strata(
    values: Float[np.ndarray, "strata runs points"], repetitions: int = REPETITIONS, seed: int = 0
) -> Estimate:
    """Return the interquartile mean over strata of the interquartile means over the runs of each stratum.

    The fields of the estimate have shape (points,). The bootstrap interval resamples the runs and keeps the
    strata fixed. A stratum with a single run enters every repetition with that run; the interval is NaN if no
    stratum has two runs.
    """
    over_runs = iqm(values, axis=1)
    value = iqm(over_runs, axis=0)
    low, high = np.full(value.shape, np.nan), np.full(value.shape, np.nan)
    for points in _point_slices(values.shape, repetitions):
        if np.sum(~np.isnan(values[:, :, points]), axis=1).max(initial=0) < 2:
            continue
        draws = bootstrap_iqm(values[:, :, points], repetitions, seed)
        redrawn = ~np.isnan(draws).all(axis=(0, 2))
        draws = np.where(np.isnan(draws), over_runs[:, points, None], draws)
        ends = interval(iqm(draws, axis=0))
        low[points], high[points] = (np.where(redrawn, end, np.nan) for end in ends)
    return Estimate(value, low, high)


def _iqm_weights(
    strata: int, repetitions: int, runs: int, rng: np.random.Generator
) -> Float[np.ndarray, "strata runs repetitions"]:
    """Return the weight of every rank in the interquartile mean of each bootstrap resample."""
    ranks = np.sort(rng.integers(runs, size=(strata * repetitions, runs)), axis=1)
    middle: Int[np.ndarray, "draws middle"] = ranks[:, runs // 4 : runs - runs // 4]
    rows = np.arange(strata * repetitions)[:, None] * runs
    counts = np.bincount((middle + rows).ravel(), minlength=strata * repetitions * runs)
    return counts.reshape(strata, repetitions, runs).swapaxes(1, 2) / middle.shape[1]


def _value_at_rank(
    ordered: Float[np.ndarray, "... n"], rank: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    """Return the value at a fractional rank of sorted values, interpolated linearly."""
    below, above = np.floor(rank).astype(int), np.ceil(rank).astype(int)
    if ordered.shape[-1] == 0:
        return np.full(rank.shape, np.nan)
    low = np.take_along_axis(ordered, below[..., None], -1)[..., 0]
    high = np.take_along_axis(ordered, above[..., None], -1)[..., 0]
    share = rank - below
    step = np.subtract(high, low, out=np.zeros_like(high), where=share > 0)
    return np.where(share > 0, low + share * step, low)


def _point_slices(shape: tuple[int, ...], repetitions: int) -> list[slice]:
    """Split the points into slices, each with few enough draws to fit into memory."""
    strata, _, points = shape
    size = max(1, _DRAWS_AT_ONCE // max(1, strata * repetitions))
    return [slice(start, start + size) for start in range(0, points, size)]


def best_of_k(
    values: Float[np.ndarray, " samples"], repetitions: int = REPETITIONS, seed: int = 0
) -> Estimate:
    """Return the expected best of k random samples for k = 1 … n: the result of a search of that size.

    The best of k distinct samples is the i-th smallest with probability (C(i, k) - C(i - 1, k)) / C(n, k).
    This is the curve of Dodge et al. 2019, "Show your work", without the bias of drawing with replacement
    (Tang et al. 2020, "Showing your work doesn't always work"). The fields of the estimate have shape (n,);
    the bootstrap interval resamples the samples.
    """
    present = np.sort(values[~np.isnan(values)])
    n = len(present)
    i, j = np.arange(n + 1), np.arange(n)[:, None]
    at_most = np.cumprod(np.maximum(i - j, 0) / (n - j), axis=0)
    weights = np.diff(at_most, axis=1)
    if n < 2:
        none = np.full(n, np.nan)
        return Estimate(weights @ present, none, none)
    drawn = np.sort(np.random.default_rng(seed).choice(present, (repetitions, n)), axis=1)
    return Estimate(weights @ present, *interval((drawn @ weights.T).T))


def probability_of_improvement(
    ours: Float[np.ndarray, " ours"],
    theirs: Float[np.ndarray, " theirs"],
    repetitions: int = REPETITIONS,
    seed: int = 0,
) -> Estimate:
    """Return P(X > Y) + P(X = Y) / 2 for random samples X from `ours` and Y from `theirs` (scalars).

    This is the Mann-Whitney statistic divided by the number of pairs (Agarwal et al. 2021); the bootstrap
    interval resamples both sides.
    """
    a, b = (x[~np.isnan(x)] for x in (ours, theirs))
    wins = (a[:, None] > b[None]) + 0.5 * (a[:, None] == b[None])
    if min(wins.shape) < 2:
        value = np.mean(wins) if wins.size else np.nan
        return Estimate(np.asarray(value), np.asarray(np.nan), np.asarray(np.nan))
    rng = np.random.default_rng(seed)
    rows, columns = (rng.multinomial(n, np.full(n, 1 / n), repetitions) / n for n in wins.shape)
    low, high = interval(np.sum(rows @ wins * columns, axis=1))
    return Estimate(np.asarray(np.mean(wins)), np.asarray(low), np.asarray(high))


def performance_profile(
    values: Float[np.ndarray, " samples"],
    thresholds: Float[np.ndarray, " thresholds"],
    repetitions: int = REPETITIONS,
    seed: int = 0,
) -> Estimate:
    """Return the share of the samples above each threshold: a performance profile (Agarwal et al. 2021).

    The fields of the estimate have shape (thresholds,); the bootstrap interval resamples the samples.
    """
    present = values[~np.isnan(values)]
    above = (present[:, None] > thresholds[None]).astype(float)
    n = len(present)
    if n < 2:
        none = np.full(thresholds.shape, np.nan)
        return Estimate(above.mean(0) if n else none, none, none)
    shares = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), repetitions) / n
    return Estimate(above.mean(0), *interval((shares @ above).T))
