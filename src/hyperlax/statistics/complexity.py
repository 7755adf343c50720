"""Sample complexity: env steps until a given share of the runs has reached a target return."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import binom

from hyperlax.statistics.estimates import LEVEL, REPETITIONS, Estimate, without_interval
from hyperlax.statistics.intervals import MIN_RUNS, percentile_ends

MIN_SEEDS = 5
"""Minimum number of independent runs for an interval."""
_MOST_MISSED = 0.035
"""How often an end may lie on the wrong side of the truth if no run makes that rarer than 2.5 %: five runs
are all above the median in 3.1 % of cases."""


def sample_complexity(
    steps: Float[np.ndarray, " points"],
    returns: Float[np.ndarray, "samples seeds points"],
    threshold: float,
    probability: float,
    repetitions: int = REPETITIONS,
    seed: int = 0,
) -> Estimate:
    """Return the first of `steps` at which a share 1 - δ (`probability`) of the runs has reached `threshold`.

    After Meyer et al. 2025, "Benchmarking quantum reinforcement learning", who instead count the evaluations
    before that point; both agree as long as the share does not fall again. A run is one seed of one sample.
    A run that is NaN at a step counts as below the threshold there; one that is NaN throughout is ignored.
    The fields of the estimate are scalars, and infinite if the share is never reached.

    The share is that of one evaluation, and the first of many looks counts. If evaluations are noisy, runs
    whose expected return lies just below the threshold are nearly always found to reach it at some step, and
    the interval says so, too: it holds for curves that rise.

    The seeds of a single sample are independent, and the steps at which 1, 2, … of them have reached the
    threshold are their order statistics. Two of these enclose the quantile of all seeds with a binomial
    probability, and the ends of the interval are interpolated between neighbouring ones (Nyblom 1992, "Note
    on interpolated order statistics"). The seeds of several samples are not independent; their interval
    resamples samples together with their seeds, by the widened bootstrap of `hyperlax.statistics.intervals`.
    It is missing with fewer than `MIN_SEEDS` seeds or `MIN_RUNS` samples, and if it would exclude no step.
    """
    ran = np.sum(~np.isnan(returns).all(axis=2), axis=1)
    runs, returns = ran[ran > 0], returns[ran > 0]
    if len(runs) == 0:
        return without_interval(np.nan)
    above = np.sum(returns >= threshold, axis=1)
    value = _first_reaching(steps, above.sum(axis=0) / runs.sum(), probability)
    if len(runs) == 1:
        low, high = _ordered_ends(steps, above[0], int(runs[0]), probability)
    elif len(runs) < MIN_RUNS:
        low = high = np.nan
    else:
        even = np.full(len(runs), 1 / len(runs))
        drawn = np.random.default_rng(seed).multinomial(len(runs), even, repetitions)
        shares = drawn @ above / (drawn @ runs)[:, None]
        low, high = percentile_ends(_first_reaching(steps, shares, probability), len(runs))
    return Estimate(np.asarray(value), np.asarray(low), np.asarray(high))


def _ordered_ends(
    steps: Float[np.ndarray, " points"], above: np.ndarray, runs: int, probability: float
) -> tuple[float, float]:
    """Return the ends of the interval for independent runs, from the number of them `above` the threshold."""
    if runs < MIN_SEEDS:
        return np.nan, np.nan
    ordered = _first_where(steps, above >= np.arange(1, runs + 1)[:, None])
    (first, inwards), (last, back) = (_rank(runs, share) for share in (probability, 1 - probability))
    low = _between(ordered[first - 1], ordered[min(first, runs - 1)], inwards) if first else float(steps[0])
    high = _between(ordered[runs - last], ordered[max(runs - last - 1, 0)], back) if last else np.inf
    return (np.nan, np.nan) if low == high or (low == steps[0] and np.isinf(high)) else (low, high)


def _rank(runs: int, share: float) -> tuple[int, float]:
    """Return the rank of the lower end of the interval of a quantile, and the share of the way to the next.

    The rank is 0 if even the lowest run lies above the quantile too often. That of the upper end follows by
    symmetry.
    """
    tail = (1 - LEVEL) / 2
    missed = binom.cdf(np.arange(runs), runs, share)
    rank = int(np.sum(missed <= tail))
    if rank in (0, runs):
        return rank or int(missed[0] <= _MOST_MISSED), 0.0
    rarer, oftener = tail - missed[rank - 1], missed[rank] - tail
    weight = (runs - rank) * share * rarer
    return rank, float(weight / (weight + rank * (1 - share) * oftener))


def _between(outer: float, inner: float, share: float) -> float:
    """Return the point at a share of the way from one step to another, the former if either is infinite."""
    return float(outer + share * (inner - outer) if np.isfinite(inner) and np.isfinite(outer) else outer)


def _first_reaching(
    steps: Float[np.ndarray, " points"], share: Float[np.ndarray, "*repetitions points"], probability: float
) -> Float[np.ndarray, "*repetitions"]:
    """Return the first step at which the share reaches the probability; infinity if it never does."""
    return _first_where(steps, share >= probability - 1e-9)


def _first_where(
    steps: Float[np.ndarray, " points"], reached: Bool[np.ndarray, "*repetitions points"]
) -> Float[np.ndarray, "*repetitions"]:
    """Return the first step at which `reached` holds; infinity if it never does."""
    return np.where(reached.any(axis=-1), steps[np.argmax(reached, axis=-1)], np.inf)
