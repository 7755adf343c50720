"""Numbers that summarise one learning curve each.

The functions take one curve per row: `steps` increase along a row, and returns are NaN after the last
evaluation of a short curve.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from hyperlax.statistics.averages import quantiles

Curves = Float[np.ndarray, "lanes points"]
PerLane = Float[np.ndarray, " lanes"]


def final_return(returns: Curves) -> PerLane:
    """Return the mean of the last ⌊n/10⌋ of the n evaluations, but of at least one; NaN without any."""
    count = point_count(returns)
    chosen = tail(returns, np.maximum(1, count // 10))
    total, size = np.where(chosen, returns, 0.0).sum(axis=1), chosen.sum(axis=1)
    return np.divide(total, size, out=np.full(len(returns), np.nan), where=size > 0)


def peak_return(returns: Curves) -> PerLane:
    """Return the largest evaluation of each curve; NaN without any."""
    return quantiles(returns, (1.0,))[0]


def mean_return(steps: Curves, returns: Curves) -> PerLane:
    """Return the area under each curve per env step, between its first and its last evaluation.

    A single evaluation counts as it is. NaN without any.
    """
    return np.where(point_count(returns) == 1, peak_return(returns), area_per_step(steps, returns))


def area_per_step(steps: Curves, heights: Curves) -> PerLane:
    """Return the area by the trapezoid rule, divided by the range of env steps that it extends over.

    NaN with fewer than two points.
    """
    width = np.diff(steps, axis=1)
    present = ~np.isnan(width) & ~np.isnan(heights[:, 1:]) & ~np.isnan(heights[:, :-1])
    area = np.where(present, width * (heights[:, 1:] + heights[:, :-1]) / 2, 0.0).sum(axis=1)
    span = np.where(present, width, 0.0).sum(axis=1)
    return np.divide(area, span, out=np.full(len(area), np.nan), where=span > 0)


def point_count(returns: Curves) -> Int[np.ndarray, " lanes"]:
    """Return the number of evaluations of each curve."""
    return np.sum(~np.isnan(returns), axis=1)


def tail(returns: Curves, size: Int[np.ndarray, " lanes"]) -> Bool[np.ndarray, "lanes points"]:
    """Mark the last `size` evaluations of each curve."""
    place, count = np.arange(returns.shape[1]), point_count(returns)[:, None]
    return (place < count) & (place >= count - size[:, None])
