"""Ranks of many candidates that hold simultaneously, and Pareto-optimal candidates.

A leaderboard of k candidates makes k (k - 1) / 2 comparisons at once. Here no more than 5 % of leaderboards
claim any order between candidates whose runs come from one distribution. The procedure is a stepwise one on
ranks (Campbell and Skillings 1985, "Nonparametric stepwise multiple comparison procedures") with the levels
of Ryan, Einot, Gabriel and Welsch: candidates are sorted by their score, and the best and the worst of p
neighbouring ones are told apart if

- their mean ranks, among the runs of all p of them, differ by more than the range of p normal means exceeds
  with probability α_p = 1 - 0.95^(p/k) (0.05 for p = k and p = k - 1),
- the same holds for the ends of every longer stretch that contains them, and
- an exact Mann-Whitney test of the two alone rejects: at α_2 if they are neighbours, else at 1 % or, with
  four runs each, at the 2.9 % that is the least it can reach. This keeps out a few noisy candidates among
  many steady ones, which the mean ranks overrate.

A candidate with three runs or fewer is never told apart from another: three runs against three are separated
completely in one case out of ten, and against more they are too few to show that they spread more than those.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import ndtr

from hyperlax.statistics.averages import iqm
from hyperlax.statistics.estimates import LEVEL

_NODES = np.linspace(-8.0, 8.0, 321)
_MASS = np.exp(-(_NODES**2) / 2) / np.sqrt(2 * np.pi) * (_NODES[1] - _NODES[0])
_VALUES_AT_ONCE = 2**23
_FEWEST = 4
"""Fewest runs of a candidate that is told apart from others."""
_ALONE = 0.01
"""Level of the test of two candidates that are not neighbours, apart from all others."""


def rank_intervals(
    values: Float[np.ndarray, "candidates runs"], score: Float[np.ndarray, " candidates"] | None = None
) -> tuple[Int[np.ndarray, " candidates"], Int[np.ndarray, " candidates"]]:
    """Return the first and the last place that each candidate may have, 1 for the best; all hold at once.

    Values are NaN where a candidate has no run; without any run both places are 0. Candidates are sorted by
    `score`, by default the interquartile mean of their runs; equal scores share their places.
    """
    score = iqm(values) if score is None else np.asarray(score, float)
    first, last = np.zeros(len(score), int), np.zeros(len(score), int)
    known = np.flatnonzero(~np.isnan(score) & ~np.isnan(values).all(axis=1))
    order = known[np.argsort(-score[known], kind="stable")]
    above = _told_apart(np.asarray(values, float)[order], score[order])
    first[order] = 1 + above.sum(axis=0)
    last[order] = len(order) - above.sum(axis=1)
    for tied in np.unique(score[known]):
        own = known[score[known] == tied]
        first[own], last[own] = first[own].min(), last[own].max()
    return first, last


def undominated(scores: Float[np.ndarray, "trials objectives"]) -> Bool[np.ndarray, " trials"]:
    """Mark the Pareto-optimal rows: no other row is as large in every objective and larger in one."""
    at_least = np.all(scores[None] >= scores[:, None], axis=2)
    larger = np.any(scores[None] > scores[:, None], axis=2)
    return ~np.any(np.logical_and(at_least, larger), axis=1)


def _told_apart(
    values: Float[np.ndarray, "candidates runs"], score: Float[np.ndarray, " candidates"]
) -> Bool[np.ndarray, "candidates candidates"]:
    """Mark in row i the candidates that lie below candidate i; candidates are sorted, best first."""
    k, count = len(values), np.sum(~np.isnan(values), axis=1)
    above = np.zeros((k, k), bool)
    if k < 2 or not _reaches(count[count >= _FEWEST]):
        return above
    wins = _wins(values)
    to_end = np.concatenate([np.zeros((k, 1)), np.cumsum(wins, axis=1)], axis=1)
    runs = np.concatenate([[0], np.cumsum(count)])
    for p in range(k, 1, -1):
        i = np.arange(k - p + 1)
        j = i + p - 1
        among = runs[j + 1] - runs[i]
        upper = (to_end[i, j + 1] - to_end[i, i]) / count[i] + count[i] / 2
        lower = (to_end[j, j + 1] - to_end[j, i]) / count[j] + count[j] / 2
        scale = np.sqrt(among * (among + 1) / 12 * (1 / count[i] + 1 / count[j]) / 2)
        rejected = (upper - lower > _critical_range(p, k) * scale) & (score[i] > score[j])
        if p < k:
            rejected &= np.concatenate([[True], above[i[1:] - 1, j[1:]]])
            rejected &= np.concatenate([above[i[:-1], j[:-1] + 1], [True]])
        above[i, j] = rejected
        if not rejected.any():
            break
    most = np.array([[_most_wins(int(m), int(n), k) for n in count] for m in np.unique(count)])
    most = most[np.searchsorted(np.unique(count), count)]
    neighbours = np.arange(k)[:, None] + 1 == np.arange(k)
    enough = count >= _FEWEST
    above &= enough[:, None] & enough
    return above & (np.where(neighbours, most[..., 0], most[..., 1]) >= wins.T)


def _reaches(count: Int[np.ndarray, " candidates"]) -> bool:
    """Say whether complete separation of the two candidates with the most runs is rarer than 5 %."""
    two = np.sort(count)[-2:]
    return bool(len(two) == 2 and _mann_whitney(int(two[0]), int(two[1]), 0.0) <= 1 - LEVEL)


def _wins(values: Float[np.ndarray, "candidates runs"]) -> Float[np.ndarray, "candidates candidates"]:
    """Return how many pairs of runs the row's candidate wins against the column's; ties count half.

    The diagonal holds zeros, so that half the runs of a candidate and its row sums make up its mean rank.
    """
    k, runs = values.shape
    wins = np.empty((k, k))
    size = max(1, _VALUES_AT_ONCE // max(1, k * runs * runs))
    for start in range(0, k, size):
        own = values[start : start + size, :, None, None]
        wins[start : start + size] = (own > values).sum(axis=(1, 3)) + 0.5 * (own == values).sum(axis=(1, 3))
    np.fill_diagonal(wins, 0.0)
    return wins


def _level(p: int, k: int) -> float:
    """Return the level of a test among p of k candidates (Ryan 1960, Einot and Gabriel 1975, Welsch 1977)."""
    return 1 - LEVEL if p >= k - 1 else 1 - LEVEL ** (p / k)


@lru_cache(maxsize=4096)
def _critical_range(p: int, k: int) -> float:
    """Return the range that p standard normal values exceed with probability α_p.

    P(range ≤ w) = p ∫ φ(x) [Φ(x) - Φ(x - w)]^(p - 1) dx, solved for w by bisection. Differences of mean ranks
    have lighter tails than normal ones, so these limits are on the safe side.
    """
    low, high = 0.0, 16.0
    for _ in range(32):
        middle = (low + high) / 2
        inner = np.maximum(ndtr(_NODES) - ndtr(_NODES - middle), 0.0)
        beyond = 1 - p * float(np.sum(_MASS * inner ** (p - 1)))
        low, high = (middle, high) if beyond > _level(p, k) else (low, middle)
    return high


@lru_cache(maxsize=1024)
def _most_wins(m: int, n: int, k: int) -> tuple[float, float]:
    """Return how many of m n pairs the lower of two candidates may win, as a neighbour and otherwise."""
    p = np.array([_mann_whitney(m, n, float(wins)) for wins in range(m * n // 2 + 1)])
    alone = min(1 - LEVEL, max(_ALONE, p[0]))
    return float(np.sum(p <= _level(2, k))) - 1.0, float(np.sum(p <= alone)) - 1.0


def _mann_whitney(m: int, n: int, wins: float) -> float:
    """Return the two-sided p value of `wins` out of m n pairs, which may hold halves for ties."""
    counts = _orderings(*sorted((m, n)))
    return min(1.0, 2 * float(counts[: int(np.floor(min(wins, m * n - wins) + 0.5)) + 1].sum()))


@lru_cache(maxsize=256)
def _orderings(m: int, n: int) -> Float[np.ndarray, " wins"]:
    """Return the probability of every number of wins 0 … m n if both sides come from one distribution.

    The coefficients of Π (1 - q^(n + i)) / (1 - q^i) for i = 1 … m (Mann and Whitney 1947), by the recursion
    that conditions on which side the largest of all values belongs to, which keeps every term positive.
    """
    rows = [np.ones(1) for _ in range(n + 1)]
    for i in range(1, m + 1):
        rows_next = [np.ones(1)]
        for j in range(1, n + 1):
            out = np.zeros(i * j + 1)
            out[j:] += i / (i + j) * rows[j]
            out[: i * (j - 1) + 1] += j / (i + j) * rows_next[j - 1]
            rows_next.append(out)
        rows = rows_next
    return rows[n]
