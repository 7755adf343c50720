"""Comparisons of two groups of runs: difference, probability of improvement, and claims that hold.

A claim rests on a permutation test: if both groups come from one distribution, whatever it looks like, a
difference is claimed in at most 5 % of cases, and approximately so if only their means are equal.
Several claims at once are corrected by `holm`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Float
from scipy.special import expit, logit
from scipy.stats import t

from hyperlax.statistics.estimates import LEVEL, Estimate, without_interval
from hyperlax.statistics.inversion import Permuted, inverted, permuted_groups, permuted_signs, summed

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

    The test permutes Welch's t statistic (Janssen 1997, "Studentized permutation tests for non-i.i.d.
    hypotheses and the generalized Behrens-Fisher problem"; Chung and Romano 2013, "Exact and asymptotically
    robust permutation tests"), corrected for skewness (Zhou and Dinh 2005). p is exact for groups of equal
    distribution. For groups of equal means that differ in spread, size and skewness it holds approximately,
    from about five values on either side: without the standard error, a small noisy group is claimed to
    differ from a large steady one in up to 40 % of cases. Two or three values that spread five times as much
    as ten or twelve others are still claimed to differ in 12 to 17 % of cases. A single value, which shows no
    spread at all, is claimed to differ from no number of others: it has no interval, and p is 1. The interval
    holds what is not rejected. Three values against three have no interval: they are separated completely in
    one case out of ten. With five normal values on either side a difference of two standard deviations is
    found in 78 % of cases; no unbiased test at 5 % finds it in more than the 79 % of Student's t test, which
    does not hold for others.
    """
    sides = [np.asarray(side, float) for side in (ours, theirs)]
    if 1 in (counts := [int((~np.isnan(side)).sum()) for side in sides]) and 0 not in counts:
        value = _gap(*(side[~np.isnan(side)] for side in sides))
        return Difference(np.asarray(value), *(np.asarray(np.nan) for _ in range(2)), p=1.0)
    return average_difference([(ours, theirs)], seed)


def average_difference(
    pairs: Sequence[tuple[Float[np.ndarray, " ours"], Float[np.ndarray, " theirs"]]], seed: int = 0
) -> Difference:
    """Return the average over strata of the difference of the means of two groups in each stratum.

    Values are permuted within every stratum; one that is empty on either side is left out. The statistic is
    the average difference over its standard error, √(Σ (s²/m + r²/n)) over the number of strata, where s² and
    r² are the variances of m and n values (Welch 1947, "The generalization of Student's problem when several
    different population variances are involved"), transformed as `inversion` says; p counts permutations
    as far from zero. The interval holds the shifts that are not rejected. With up to 20,000
    permutations of a single stratum all are used, otherwise 9,999 random ones.
    """
    value, permuted = permutations(pairs, seed)
    if permuted is None:
        return Difference(*(np.asarray(np.nan) for _ in range(3)), p=np.nan)
    low, high, p = inverted(permuted, value)
    return Difference(np.asarray(value), np.asarray(low), np.asarray(high), p)


def permutations(
    pairs: Sequence[tuple[Float[np.ndarray, " ours"], Float[np.ndarray, " theirs"]]], seed: int
) -> tuple[float, Permuted | None]:
    """Return the average difference over strata and its permutations; NaN and None if there are no values."""
    known = [tuple(np.asarray(side, float)[~np.isnan(side)] for side in pair) for pair in pairs]
    known = [(a, b) for a, b in known if len(a) and len(b)]
    if not known:
        return np.nan, None
    value = float(np.mean([_gap(a, b) for a, b in known]))
    parts = []
    for place, (a, b) in enumerate(known):
        chosen = _all_choices(len(a), len(b)) if len(known) == 1 else None
        chosen = _random_choices(len(a), len(b), seed + place) if chosen is None else chosen
        parts.append(permuted_groups(a, b, value, chosen))
    return value, summed(parts)


def _gap(a: Float[np.ndarray, " ours"], b: Float[np.ndarray, " theirs"]) -> float:
    """Return the difference of two means, and zero if it is only their rounding."""
    gap, size = float(a.mean() - b.mean()), float(np.abs(a).max() + np.abs(b).max())
    return gap if abs(gap) > 1e-14 * size else 0.0


def paired_difference(
    ours: Float[np.ndarray, " pairs"], theirs: Float[np.ndarray, " pairs"], seed: int = 0
) -> Difference:
    """Return the mean difference of pairs; a pair with a NaN value is left out.

    The test changes signs: if the two values of a pair may as well be exchanged, p is right whatever their
    distribution, and correlated pairs make it more powerful than `difference`. The statistic is t, corrected
    for skewness (Hall 1992, "On the removal of skewness by transformation"); t alone would reject just when
    the mean does, since changes of signs keep the sum of squares. The interval holds what is
    not rejected. Skewed gaps whose mean is zero are not exchangeable: p holds for them approximately, and
    heavily skewed ones are claimed to differ in up to 16 % of cases. All sets of up to 14 pairs are used,
    otherwise 9,999 random ones. Fewer than `MIN_PAIRED` pairs have no interval.
    """
    gaps = np.asarray(ours, float) - np.asarray(theirs, float)
    gaps = gaps[~np.isnan(gaps)]
    if not len(gaps):
        return Difference(*(np.asarray(np.nan) for _ in range(3)), p=np.nan)
    chosen = _all_sets(len(gaps)) if len(gaps) <= _PAIRS else _random_sets(len(gaps), seed)
    value = float(gaps.mean())
    low, high, p = inverted(permuted_signs(gaps, value, chosen), value)
    return Difference(np.asarray(value), np.asarray(low), np.asarray(high), p)


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

    This is the Mann-Whitney statistic divided by the number of pairs (Agarwal et al. 2021). The variance is
    that of Brunner and Munzel 2000, "The nonparametric Behrens-Fisher problem: asymptotic theory and a
    small-sample approximation", for any two distributions: v/m + w/n, with the variances v and w, over the
    values of each side, of the share of the other side that a value exceeds. The interval is logit θ̂ ± t
    √(v/m + w/n) / (θ̂ (1 - θ̂)), with Satterthwaite's degrees of freedom (Pauly, Asendorf and Konietschke
    2016, "Permutation-based inference for the AUC"). Where the variance is zero, as after complete
    separation, it is the one of `_separated`. It is missing with fewer than `MIN_PER_SIDE` values on either
    side.
    """
    a, b = (np.asarray(x, float)[~np.isnan(x)] for x in (ours, theirs))
    if not (len(a) and len(b)):
        return without_interval(np.nan)
    wins = (a[:, None] > b[None]) + 0.5 * (a[:, None] == b[None])
    value, m, n = float(wins.mean()), len(a), len(b)
    if min(m, n) < MIN_PER_SIDE:
        return without_interval(value)
    v, w = wins.mean(axis=1).var(ddof=1) / m, wins.mean(axis=0).var(ddof=1) / n
    if v + w < 1e-12 or not 0 < value < 1:
        low, high = _separated(value, min(m, n))
    else:
        freedom = (v + w) ** 2 / (v**2 / (m - 1) + w**2 / (n - 1))
        reach = t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(v + w) / (value * (1 - value))
        low, high = expit(logit(value) - reach), expit(logit(value) + reach)
    return Estimate(np.asarray(value), np.asarray(low), np.asarray(high))


def _separated(value: float, n: int) -> tuple[float, float]:
    """Return the interval of a probability of improvement without variance, for n values on the smaller side.

    It is the fifth method of Newcombe 2006, "Confidence intervals for an effect size measure based on the
    Mann-Whitney statistic", for n values on either side, with the quantile of Student's t at 2n - 2 degrees
    of freedom, not the normal one. On a fine grid it holds all θ with (θ̂ - θ)² ≤ t² V(θ), where
    V(θ) = θ(1 - θ) [1 + (n - 1) ((1 - θ)/(2 - θ) + θ/(1 + θ))] / n².
    """
    at = np.linspace(0.0, 1.0, _GRID + 1)
    shape = 1 + (n - 1) * ((1 - at) / (2 - at) + at / (1 + at))
    reach = t.ppf((1 + LEVEL) / 2, 2 * n - 2) * np.sqrt(at * (1 - at) * shape) / n
    fits = at[np.abs(value - at) <= reach + 0.5 / _GRID]
    return float(fits[0]), float(fits[-1])


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
