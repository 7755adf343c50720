"""Distributions over samples: performance profiles, and the best of k samples."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy.special import betaincinv
from scipy.stats import beta

from hyperlax.statistics.estimates import LEVEL, Estimate, without_interval
from hyperlax.statistics.intervals import quantile_intervals

MIN_SAMPLES = 3
"""Minimum number of samples for the band of a performance profile."""
_CALIBRATION = 2**18


def performance_profile(
    values: Float[np.ndarray, " samples"], thresholds: Float[np.ndarray, " thresholds"]
) -> Estimate:
    """Return the share of the samples above each threshold: a performance profile (Agarwal et al. 2021).

    The fields of the estimate have shape (thresholds,). The band holds for all thresholds at once, for any
    distribution: if i of n samples lie at or below a threshold, the share below it lies between the α/2
    quantile of the beta distribution B(i, n + 1 - i) and the 1 - α/2 quantile of B(i + 1, n - i), with α such
    that all n hold together in 95 % of cases (Aldor-Noiman et al. 2013, "The power to see: a new graphical
    test of normality"). Unlike a band of constant height, it is narrow where the share is close to 0 or 1.
    """
    present = np.sort(values[~np.isnan(values)])
    n = len(present)
    below = np.searchsorted(present, thresholds, side="right")
    if n == 0:
        return without_interval(np.full(np.shape(thresholds), np.nan))
    value = 1 - below / n
    if n < MIN_SAMPLES:
        return without_interval(value)
    tail = local_level(n) / 2
    low = np.where(below < n, 1 - betaincinv(below + 1, np.maximum(n - below, 1), 1 - tail), 0.0)
    high = np.where(below > 0, 1 - betaincinv(np.maximum(below, 1), n + 1 - below, tail), 1.0)
    return Estimate(value, low, high)


@lru_cache(maxsize=64)
def local_level(n: int, level: float = LEVEL) -> float:
    """Return the two-sided level at which each of n ordered values has to hold for all to hold at once.

    The i-th of n ordered uniform values has the distribution B(i, n + 1 - i); the level is the quantile of
    the smallest of their n p values over random sets of n values.
    """
    ordered = np.sort(
        np.random.default_rng(n).random((max(1_000, min(20_000, _CALIBRATION // n)), n)), axis=1
    )
    i = np.arange(1, n + 1)
    at = beta.cdf(ordered, i, n + 1 - i)
    return float(np.quantile(2 * np.minimum(at, 1 - at).min(axis=1), 1 - level))


def best_of_k(values: Float[np.ndarray, " samples"]) -> Estimate:
    """Return the expected best of k random samples for k = 1 … n: the result of a search of that size.

    The best of k distinct samples is the i-th smallest with probability (C(i, k) - C(i - 1, k)) / C(n, k).
    This is the curve of Dodge et al. 2019, "Show your work", without the bias of drawing with replacement
    (Tang et al. 2020, "Showing your work doesn't always work"). The fields of the estimate have shape (n,).
    There is no interval: the expected maximum depends on the largest values of the distribution, which the
    samples need not contain, and no bootstrap covers it for skewed returns. `median_best_of_k` has one. Where
    values are noisy, the noise of the best is a part of its value: trained again, it would be less.
    """
    present = np.sort(values[~np.isnan(values)])
    n = len(present)
    i, j = np.arange(n + 1), np.arange(n)[:, None]
    at_most = np.cumprod(np.maximum(i - j, 0) / (n - j), axis=0)
    return without_interval(np.diff(at_most, axis=1) @ present)


def median_best_of_k(values: Float[np.ndarray, " samples"]) -> Estimate:
    """Return the median best of k random samples for k = 1 … n, with intervals for any distribution.

    Half of all searches of size k end above the 0.5^(1/k) quantile of the samples. The interval of that
    quantile lies between two of the ordered samples, and is missing where n samples do not suffice to bound
    it on both sides, for k of more than about n / 5. The fields of the estimate have shape (n,).
    """
    n = int(np.sum(~np.isnan(values)))
    return quantile_intervals(values, 0.5 ** (1 / np.arange(1.0, n + 1)))
