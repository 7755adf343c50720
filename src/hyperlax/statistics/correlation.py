"""Rank correlation of paired values."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.stats import norm, rankdata

from hyperlax.statistics.estimates import LEVEL, Estimate, without_interval

MIN_PAIRS = 10
"""Minimum number of pairs for an interval of the rank correlation."""


def spearman(ours: Float[np.ndarray, " pairs"], theirs: Float[np.ndarray, " pairs"]) -> Estimate:
    """Return Spearman's rank correlation of paired values (scalars); ties get their mean rank.

    The interval is that of Bonett and Wright 2000, "Sample size requirements for estimating Pearson, Kendall
    and Spearman correlations": tanh(artanh ρ ± z √((1 + ρ²/2) / (n - 3))). It is missing with fewer than
    `MIN_PAIRS` pairs, and for a perfect correlation. The value is NaN with fewer than three pairs, or if one
    side is constant.
    """
    n = len(ours)
    if n < 3:
        return without_interval(np.nan)
    x, y = (rankdata(v) - (n + 1) / 2 for v in (ours, theirs))
    spread = float(np.sqrt(np.sum(x * x) * np.sum(y * y)))
    value = float(np.sum(x * y)) / spread if spread > 0 else np.nan
    if n < MIN_PAIRS or not abs(value) < 1 - 1e-9:
        return without_interval(value)
    reach = norm.ppf((1 + LEVEL) / 2) * np.sqrt((1 + value**2 / 2) / (n - 3))
    low, high = np.tanh(np.arctanh(value) - reach), np.tanh(np.arctanh(value) + reach)
    return Estimate(np.asarray(value), np.asarray(low), np.asarray(high))
