"""Sample complexity: env steps until a given share of the runs has reached a target return."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.stats import beta

from hyperlax.statistics.estimates import LEVEL, REPETITIONS, Estimate, without_interval
from hyperlax.statistics.intervals import MIN_RUNS, percentile_ends

MIN_SEEDS = 5
"""Minimum number of independent runs for an interval."""


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

    The seeds of a single sample are independent, so the share of runs at every step has a binomial interval
    (Clopper and Pearson 1934), and the interval reaches from the first step at which the upper end is large
    enough to the first at which the lower end is. The seeds of several samples are not; their interval
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
        low, high = _binomial_ends(steps, above[0], int(runs[0]), probability)
    elif len(runs) < MIN_RUNS:
        low = high = np.nan
    else:
        even = np.full(len(runs), 1 / len(runs))
        drawn = np.random.default_rng(seed).multinomial(len(runs), even, repetitions)
        shares = drawn @ above / (drawn @ runs)[:, None]
        low, high = percentile_ends(_first_reaching(steps, shares, probability), len(runs))
    return Estimate(np.asarray(value), np.asarray(low), np.asarray(high))


def _binomial_ends(
    steps: Float[np.ndarray, " points"], above: np.ndarray, runs: int, probability: float
) -> tuple[float, float]:
    """Return the first steps at which the share of the runs may be, and must be, at least `probability`."""
    if runs < MIN_SEEDS:
        return np.nan, np.nan
    tail = (1 - LEVEL) / 2
    upper = np.where(above < runs, beta.ppf(1 - tail, above + 1, np.maximum(runs - above, 1)), 1.0)
    lower = np.where(above > 0, beta.ppf(tail, np.maximum(above, 1), runs + 1 - above), 0.0)
    low, high = (float(_first_reaching(steps, share, probability)) for share in (upper, lower))
    return (np.nan, np.nan) if low == high or (low == steps[0] and np.isinf(high)) else (low, high)


def _first_reaching(
    steps: Float[np.ndarray, " points"], share: Float[np.ndarray, "*repetitions points"], probability: float
) -> Float[np.ndarray, "*repetitions"]:
    """Return the first step at which the share reaches the probability; infinity if it never does."""
    reached = share >= probability - 1e-9
    return np.where(reached.any(axis=-1), steps[np.argmax(reached, axis=-1)], np.inf)
