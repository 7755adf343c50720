"""Comparisons of two groups of runs: difference, probability of improvement, and claims that hold.

A claim rests on a permutation test: if both groups come from one distribution, whatever it looks like, a
difference is claimed in at most 5 % of cases. Several claims at once are corrected by `holm`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Float
from scipy.stats import t

from hyperlax.statistics.estimates import LEVEL, Estimate, without_interval

MIN_PER_SIDE = 5
"""Minimum number of values on either side for an interval of the probability of improvement."""
MIN_PAIRED = 6
"""Minimum number of pairs for a claim: five agree in sign in one case out of sixteen."""
_EXACT = 20_000
_RANDOM = 9_999
_GRID = 4_000
_PAIRS = 14


@dataclass(frozen=True)
class Difference(Estimate):
    """A difference with its interval, and the p value of the permutation test that it is zero (scalars)."""

    p: float


def difference(
    ours: Float[np.ndarray, " ours"], theirs: Float[np.ndarray, " theirs"], seed: int = 0
) -> Difference:
    """Return the difference of the means of two independent groups; NaN values are left out.

    The interval holds exactly if the groups differ by a shift, and p for any groups of equal distribution.
    Three values against three have no interval: they are separated completely in one case out of ten. With
    five normal values on either side a difference of two standard deviations is found in 78 % of cases; no
    unbiased test at 5 % finds it in more than the 79 % of Student's t test, which does not hold for others.
    """
    return average_difference([(ours, theirs)], seed)


def average_difference(
    pairs: Sequence[tuple[Float[np.ndarray, " ours"], Float[np.ndarray, " theirs"]]], seed: int = 0
) -> Difference:
    """Return the average over strata of the difference of the means of two groups in each stratum.

    Values are permuted within every stratum; one that is empty on either side is left out. For a set of
    values A that a permutation moves from ours to theirs, and B of the same size k the other way, the
    permuted difference is at least as large as the observed one, after a shift by δ, if
    δ ≥ Σ c (ΣA - ΣB) / Σ c k, with c = 1/m + 1/n in each stratum of m and n values. Ordered, these bounds are
    the ends of the intervals of all levels (Tritchler 1984, "On inverting permutation tests"). With up to
    20,000 permutations of a single stratum all are used, otherwise 9,999 random ones.
    """
    known = [tuple(np.asarray(side, float)[~np.isnan(side)] for side in pair) for pair in pairs]
    known = [(a, b) for a, b in known if len(a) and len(b)]
    if not known:
        return Difference(*(np.asarray(np.nan) for _ in range(3)), p=np.nan)
    value = np.mean([a.mean() - b.mean() for a, b in known])
    moved, size = np.zeros(1), np.zeros(1)
    for place, (a, b) in enumerate(known):
        chosen = _all_choices(len(a), len(b)) if len(known) == 1 else None
        chosen = _random_choices(len(a), len(b), seed + place) if chosen is None else chosen
        scale, away = 1 / len(a) + 1 / len(b), 1 - chosen[:, : len(a)]
        moved = moved + scale * (away @ a - chosen[:, len(a) :] @ b)
        size = size + scale * away.sum(axis=1)
    same = int(np.sum(size == 0))
    return Difference(np.asarray(value), *_inverted(moved[size > 0] / size[size > 0], same))


def paired_difference(
    ours: Float[np.ndarray, " pairs"], theirs: Float[np.ndarray, " pairs"], seed: int = 0
) -> Difference:
    """Return the mean difference of pairs; a pair with a NaN value is left out.

    The test changes signs: if the two values of a pair may as well be exchanged, p is right whatever their
    distribution, and correlated pairs make it more powerful than `difference`. A set of pairs that change
    their signs has a permuted difference at least as large as the observed one, after a shift by δ, if δ is
    at least its mean. Ordered, the means of all sets are the ends of the intervals of all levels (Hartigan
    1969, "Using subsample values as typical values"), which hold for symmetric differences. All sets of up to
    14 pairs are used, otherwise 9,999 random ones. Fewer than `MIN_PAIRED` pairs have no interval.
    """
    gaps = np.asarray(ours, float) - np.asarray(theirs, float)
    gaps = gaps[~np.isnan(gaps)]
    if not len(gaps):
        return Difference(*(np.asarray(np.nan) for _ in range(3)), p=np.nan)
    chosen = _all_sets(len(gaps)) if len(gaps) <= _PAIRS else _random_sets(len(gaps), seed)
    size = chosen.sum(axis=1)
    found = _inverted((chosen @ gaps)[size > 0] / size[size > 0], int(np.sum(size == 0)))
    return Difference(np.asarray(gaps.mean()), *found)


def _inverted(
    bounds: Float[np.ndarray, " permutations"], same: int
) -> tuple[Float[np.ndarray, ""], Float[np.ndarray, ""], float]:
    """Return the ends of the interval and the p value of a permutation test.

    `bounds` are the shifts from which on a permuted difference is at least as large as the observed one, and
    `same` is the number of permutations that change nothing.
    """
    bounds = np.sort(bounds)
    total = len(bounds) + same
    slack = 1e-12 * (1 + np.abs(bounds).max(initial=0.0))
    sides = (np.sum(bounds <= slack), np.sum(bounds >= -slack))
    p = min(1.0, 2 * (same + int(min(sides))) / total)
    place = int(np.floor((1 - LEVEL) / 2 * total + 1e-9)) - same
    ends = (np.nan, np.nan) if place < 0 else (bounds[place], bounds[len(bounds) - 1 - place])
    if not ends[0] < ends[1]:
        ends = (np.nan, np.nan)
    return np.asarray(ends[0]), np.asarray(ends[1]), p


def holm(p: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Return p values corrected for the number of tests (Holm 1979); NaN marks a test that was not made.

    Claiming what is at most 0.05 makes any false claim at all in at most 5 % of cases, however the tests
    depend on one another.
    """
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    corrected = np.full(len(p), np.nan)
    steps = p[order] * (len(order) - np.arange(len(order)))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return corrected


def probability_of_improvement(
    ours: Float[np.ndarray, " ours"], theirs: Float[np.ndarray, " theirs"]
) -> Estimate:
    """Return P(X > Y) + P(X = Y) / 2 for random values X from `ours` and Y from `theirs` (scalars).

    This is the Mann-Whitney statistic divided by the number of pairs (Agarwal et al. 2021). The interval is
    the fifth method of Newcombe 2006, "Confidence intervals for an effect size measure based on the
    Mann-Whitney statistic", with the quantile of Student's t at m + n - 2 degrees of freedom instead of the
    normal one: it holds all θ with (θ̂ - θ)² ≤ t² V(θ), where
    V(θ) = θ(1 - θ) [1 + ((m + n)/2 - 1) ((1 - θ)/(2 - θ) + θ/(1 + θ))] / (m n).
    It is missing with fewer than `MIN_PER_SIDE` values on either side.
    """
    a, b = (np.asarray(x, float)[~np.isnan(x)] for x in (ours, theirs))
    if not (len(a) and len(b)):
        return without_interval(np.nan)
    value = np.mean((a[:, None] > b[None]) + 0.5 * (a[:, None] == b[None]))
    if min(len(a), len(b)) < MIN_PER_SIDE:
        return without_interval(value)
    low, high = _improvement_ends(np.asarray([value]), len(a), len(b))
    return Estimate(np.asarray(value), np.asarray(low[0]), np.asarray(high[0]))


def _improvement_ends(
    value: Float[np.ndarray, " many"], m: int, n: int
) -> tuple[Float[np.ndarray, " many"], Float[np.ndarray, " many"]]:
    """Return the smallest and the largest θ on a fine grid that are compatible with each value."""
    at = np.linspace(0.0, 1.0, _GRID + 1)
    shape = 1 + ((m + n) / 2 - 1) * ((1 - at) / (2 - at) + at / (1 + at))
    reach = t.ppf((1 + LEVEL) / 2, m + n - 2) * np.sqrt(at * (1 - at) * shape / (m * n))
    fits = np.abs(value[:, None] - at) <= reach + 0.5 / _GRID
    return at[np.argmax(fits, axis=1)], at[_GRID - np.argmax(fits[:, ::-1], axis=1)]


@lru_cache(maxsize=32)
def _all_choices(m: int, n: int) -> Float[np.ndarray, "permutations values"] | None:
    """Return every choice of m values out of m + n, as rows of ones and zeros; None if there are too many."""
    count = comb(m + n, m)
    if count > _EXACT:
        return None
    chosen = np.zeros((count, m + n))
    places = (place for own in combinations(range(m + n), m) for place in own)
    chosen[np.repeat(np.arange(count), m), np.fromiter(places, int, count * m)] = 1.0
    return chosen


@lru_cache(maxsize=32)
def _random_choices(m: int, n: int, seed: int) -> Float[np.ndarray, "permutations values"]:
    """Return the choice of m values out of m + n that was observed, and `_RANDOM` random ones."""
    order = np.random.default_rng((seed, m, n)).random((_RANDOM, m + n)).argsort(axis=1)
    return (np.concatenate([np.arange(m + n)[None], order]) < m).astype(float)


@lru_cache(maxsize=16)
def _all_sets(n: int) -> Float[np.ndarray, "sets pairs"]:
    """Return every set of n pairs, the empty one included, as rows of ones and zeros."""
    return (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(float)


@lru_cache(maxsize=16)
def _random_sets(n: int, seed: int) -> Float[np.ndarray, "sets pairs"]:
    """Return the empty set of n pairs, and `_RANDOM` random sets."""
    drawn = np.random.default_rng((seed, n)).integers(0, 2, size=(_RANDOM, n))
    return np.concatenate([np.zeros((1, n)), drawn]).astype(float)
