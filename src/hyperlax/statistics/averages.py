"""Averages of the runs of an experiment: mean, interquartile mean, quantiles, optimality gap.

Missing values are NaN and are left out. Infinity is a regular value that means "later than any observed
time", so that censored times can be averaged. The interquartile mean is the one of Agarwal et al. 2021, "Deep
reinforcement learning at the edge of the statistical precipice": `scipy.stats.trim_mean(values, 0.25)`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def mean(values: Float[np.ndarray, "..."], axis: int = -1) -> Float[np.ndarray, "..."]:
    """Return the mean along `axis` of the values that are not NaN; NaN without any value."""
    count = np.sum(~np.isnan(values), axis=axis)
    total = np.nansum(values, axis=axis)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


FEWEST_TRIMMED = 4
"""Values from which on an interquartile mean drops any; of fewer it is their plain mean."""


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


def iqm_variance(values: Float[np.ndarray, "..."], axis: int = -1) -> Float[np.ndarray, "..."]:
    """Return an estimate of the sampling variance of `iqm(values, axis)`; NaN with fewer than two values.

    This is the estimate of Yuen 1974, "The two-sample trimmed t for unequal population variances":
    Σ (w - w̄)² / (h (h - 1)), where w are the n values after the ⌊n/4⌋ smallest and largest have been replaced
    by the nearest value that is kept (Winsorised), and h = n - 2⌊n/4⌋. Up to three values give s²/n.
    """
    ordered = np.sort(np.moveaxis(np.asarray(values, float), axis, -1), axis=-1)
    count = np.sum(~np.isnan(ordered), axis=-1, keepdims=True)
    if ordered.shape[-1] == 0:
        return np.full(ordered.shape[:-1], np.nan)
    cut = count // 4
    place = np.clip(np.arange(ordered.shape[-1]), cut, np.maximum(count - cut - 1, 0))
    moved = np.take_along_axis(ordered, place, -1)
    moved = np.where(np.arange(ordered.shape[-1]) < count, moved, np.nan)
    squares = np.nansum((moved - mean(moved)[..., None]) ** 2, axis=-1)
    kept = (count - 2 * cut)[..., 0]
    return np.divide(squares, kept * (kept - 1), out=np.full(squares.shape, np.nan), where=kept > 1)


def optimality_gap(
    values: Float[np.ndarray, "..."], target: float = 1.0, axis: int = -1
) -> Float[np.ndarray, "..."]:
    """Return the mean amount by which the values fall short of `target` (Agarwal et al. 2021).

    A value above the target counts as no shortfall. NaN values are left out.
    """
    return mean(np.maximum(target - np.asarray(values, float), 0.0), axis)


def quantiles(
    values: Float[np.ndarray, "..."], levels: Sequence[float], axis: int = -1
) -> Float[np.ndarray, "levels ..."]:
    """Return quantiles along `axis`, interpolated linearly.

    NaN values are left out; without any value the quantiles are NaN.
    """
    ordered = np.sort(np.moveaxis(np.asarray(values, float), axis, -1), axis=-1)
    count = np.sum(~np.isnan(ordered), axis=-1)
    return np.stack([_value_at_rank(ordered, level * np.maximum(count - 1, 0)) for level in levels])


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
