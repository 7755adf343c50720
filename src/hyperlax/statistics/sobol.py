"""Sobol' indices: the share of the variance of scores that each input explains.

The first-order index of an input is the share of variance that it explains alone, the total index the share
that it explains alone or in interaction with others (Sobol' 2001, "Global sensitivity indices for nonlinear
mathematical models"). Both are estimated from Saltelli's matrices A, B and AB with the estimators of Jansen
1999, "Analysis of variance designs for model output" (also in table 2 of Saltelli et al. 2010, "Variance
based sensitivity analysis of model output").

If a score is an average over a few seeds, its variance includes the noise of the seeds. That noise acts like
an interaction of all inputs with chance: it lowers first-order indices, and the total index of an input
without any effect is the share of noise in the variance (`noise_share`) instead of 0.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from hyperlax.statistics.averages import iqm, iqm_variance, quantiles
from hyperlax.statistics.estimates import LEVEL, REPETITIONS, Estimate

MIN_ROWS = 64
"""Minimum number of rows for an interval of an index."""


def sobol_indices(
    a: Float[np.ndarray, " rows"],
    b: Float[np.ndarray, " rows"],
    ab: Float[np.ndarray, "dimensions rows"],
    repetitions: int = REPETITIONS,
    seed: int = 0,
) -> tuple[Estimate, Estimate, Int[np.ndarray, " dimensions"]]:
    """Return the first-order and total index of every dimension, and the number of rows used for each.

    The fields of the estimates and the counts have shape (dimensions,). `a` and `b` hold the scores of the
    rows of the matrices A and B, `ab[i]` those of A with column i taken from B. NaN stands for a lost
    evaluation: an index leaves out every row in which one of its three scores is lost, and is NaN with fewer
    than two rows left, or if the scores do not vary.

    The bootstrap interval resamples rows, the same ones for all dimensions. A row carries the noise of its
    seeds with it, so resampling the seeds as well would count that noise twice. The rows of a Sobol sequence
    are spread more evenly than independent ones, so the interval tends to be too wide. It is missing with
    fewer than `MIN_ROWS` rows, and at the level of 95 % only approximate: where one sample in twenty holds
    most of the variance, 72 to 95 % of the intervals hold, and those of weak hyperparameters lie too low.
    """
    centre = np.nanmean(np.concatenate([a, b])) if np.isfinite([*a, *b]).any() else 0.0
    a, b, ab = a - centre, b - centre, ab - centre
    used = ~np.isnan(a) & ~np.isnan(b) & ~np.isnan(ab)
    terms = [((b - ab) ** 2) / 2, ((a - ab) ** 2) / 2, (a + b + 0 * ab) / 2, (a**2 + b**2 + 0 * ab) / 2]
    terms = [np.where(used, term, 0.0).T for term in terms]
    rows = len(a)
    draws = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), repetitions)
    values = _jansen_indices(np.ones((1, rows)), used.T, terms)
    redrawn = _jansen_indices(draws.astype(float), used.T, terms)
    estimates = []
    for value, drawn in zip(values, redrawn, strict=True):
        low, high = quantiles(drawn, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0)
        known = ~np.isnan(value[0]) & (used.sum(axis=1) >= MIN_ROWS)
        estimates.append(Estimate(value[0], *(np.where(known, end, np.nan) for end in (low, high))))
    return estimates[0], estimates[1], used.sum(axis=1)


def _jansen_indices(
    weights: Float[np.ndarray, "repetitions rows"],
    used: Bool[np.ndarray, "rows dimensions"],
    terms: list[Float[np.ndarray, "rows dimensions"]],
) -> tuple[Float[np.ndarray, "repetitions dimensions"], Float[np.ndarray, "repetitions dimensions"]]:
    """Return first-order and total indices by Jansen's estimators, for every set of row weights.

    `terms` are (b - ab)²/2, (a - ab)²/2, (a + b)/2 and (a² + b²)/2, with 0 in rows that are not used.
    """
    count = weights @ used.astype(float)
    enough = count >= 2
    from_b, from_a, mean, square = (weights @ term / np.where(enough, count, np.nan) for term in terms)
    variance = (square - mean**2) * 2 * count / np.maximum(2 * count - 1, 1)
    # A variance that consists of rounding errors counts as zero.
    variance = np.where(variance > 1e-12 * square, variance, np.nan)
    return 1 - from_b / variance, from_a / variance


def noise_share(scores: Float[np.ndarray, "samples seeds"]) -> float:
    """Return the share of the variance of the samples' scores that is due to their seeds, at most 1.

    The score of a sample is the interquartile mean over its seeds, and the variance that the seeds give it is
    estimated by `iqm_variance`, averaged over the samples with two seeds or more. NaN if there is no such
    sample, or if the scores do not vary.
    """
    over_seeds = iqm(scores, axis=1)
    known = over_seeds[~np.isnan(over_seeds)]
    by_seeds = iqm_variance(scores, axis=1)
    by_seeds = by_seeds[~np.isnan(by_seeds)]
    between = float(np.var(known, ddof=1)) if len(known) > 1 else 0.0
    if not len(by_seeds) or between <= 0:
        return float("nan")
    return min(1.0, float(np.mean(by_seeds)) / between)
