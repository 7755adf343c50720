"""What every statistic returns: a value with the ends of its interval, or without an interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

LEVEL = 0.95
"""Nominal coverage of every interval."""
REPETITIONS = 2_000
"""Number of bootstrap resamples or random permutations."""


class Unavailable(ValueError):
    """A statistic cannot be computed (yet); the message is a sentence for the reader that says why."""


@dataclass(frozen=True)
class Estimate:
    """A statistic with the ends of its 95 % interval.

    The ends are NaN where no interval holds: with too few runs, for a maximum, or for values that are all
    equal. An infinite end stands for an interval without a limit on that side.
    """

    value: Float[np.ndarray, "..."]
    low: Float[np.ndarray, "..."]
    high: Float[np.ndarray, "..."]


def without_interval(value: Float[np.ndarray, "..."] | float) -> Estimate:
    """Return a value as an estimate whose interval is missing."""
    array = np.asarray(value, float)
    nothing = np.full(array.shape, np.nan)
    return Estimate(array, nothing, nothing)
