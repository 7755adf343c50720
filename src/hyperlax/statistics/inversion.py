"""Permutation tests of a studentised mean difference, and the shifts that they do not reject.

A shift δ is tested by taking it from one group and comparing a statistic with that of permuted values. The
statistic is t, the difference over its standard error, in Hall's transformation that removes the influence of
skewness: t + a t²/3 + a² t³/27 + a/6, where a is the third cumulant of the difference over the third power of
its standard error (Hall 1992, "On the removal of skewness by transformation"; for two groups Zhou and Dinh
2005, "Nonparametric confidence intervals for the one- and two-sample problems"). Permuted differences,
variances and third cumulants are polynomials of δ, since permuted groups have sums of powers of their values.
The coefficients are computed once, and every further shift costs one evaluation for each permutation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from hyperlax.statistics.estimates import LEVEL

_ROUNDING = 1e-11
"""Share of the whole variation below which a variance is rounding."""
_TIED = 1e-9
"""Relative difference up to which two statistics are equal."""
_FAR = 2.0**6
_NODES = 2.0 ** np.arange(-3, 31)
"""Distances from the value, in standard errors, between which an end of the interval is looked for."""
_HALVINGS = 32


@dataclass(frozen=True)
class Permuted:
    """Permuted differences with variance and third cumulant, as polynomials of a distance x.

    The hypothesis at x is a shift of the observed value minus x. Rows are the coefficients of 1, x, x² …,
    columns are the permutations, of which the first one changes nothing. Variances are not taken to be
    smaller than the polynomial `least`.
    """

    difference: Float[np.ndarray, "2 permutations"]
    variance: Float[np.ndarray, "3 permutations"]
    third: Float[np.ndarray, "4 permutations"]
    least: Float[np.ndarray, "3 1"]

    def p(self, x: float) -> float:
        """Return the p value at a distance x: the share of permutations whose statistic is as far from zero.

        It is at least twice the share of one permutation, as if both tails were counted.
        """
        least = float(_at(self.least, x)[0])
        if least <= 0:  # all values are equal
            return 1.0
        variance = _at(self.variance, x)
        known = variance > least
        error = np.sqrt(np.where(known, variance, least))
        t = _at(self.difference, x) / error
        a = np.where(known, _at(self.third, x) / error**3, 0.0)
        found = np.abs(t * (1 + a * t / 3 * (1 + a * t / 9)) + a / 6)
        return max(float(np.mean(found >= found[0] * (1 - _TIED))), min(1.0, 2 / len(found)))


def permuted_groups(
    ours: Float[np.ndarray, " ours"],
    theirs: Float[np.ndarray, " theirs"],
    value: float,
    chosen: Float[np.ndarray, "permutations values"],
) -> Permuted:
    """Return permuted differences of the means of two groups, with Welch's variance s²/m + r²/n.

    The rows of `chosen` say with ones which of the values of both groups are taken for ours. `value` is the
    shift from which x is counted. If a side has a single value, both have one variance, and no skewness.
    """
    m, n = len(ours), len(theirs)
    y = np.concatenate([ours - theirs.mean() - value, theirs - theirs.mean()])
    y = _without_rounding(y, np.abs(ours).max() + np.abs(theirs).max())
    own = (np.arange(m + n) < m).astype(float)
    columns = np.stack([y, own, y**2, y * own, y**3, y**2 * own], axis=1)
    total = columns.sum(axis=0)[:, None]
    first = (chosen @ columns).T
    sides = [_central(_powers(*sums), count) for sums, count in ((first, m), (total - first, n))]
    (mean, square, cube), (other_mean, other_square, other_cube) = sides
    if min(m, n) > 1:
        variance = square / (m * (m - 1)) + other_square / (n * (n - 1))
        third = cube / m**3 - other_cube / n**3
    else:
        variance = (square + other_square) * (1 / m + 1 / n) / max(m + n - 2, 1)
        third = np.zeros_like(cube)
    whole = _central(_powers(*total), m + n)[1] * (1 / m + 1 / n) / (m + n)
    return Permuted(mean - other_mean, variance, third, _ROUNDING * whole)


def permuted_signs(
    gaps: Float[np.ndarray, " pairs"], value: float, chosen: Float[np.ndarray, "permutations pairs"]
) -> Permuted:
    """Return mean differences of pairs, of which those that `chosen` marks with ones change their signs."""
    n = len(gaps)
    y = _without_rounding(gaps - value, np.abs(gaps).max())
    sign = 1 - 2 * chosen
    odd = (sign @ np.stack([y, np.ones(n), y**2, y**3], axis=1)).T
    even = np.stack([np.sum(y**2), 2 * np.sum(y), float(n)])[:, None] + np.zeros((1, len(chosen)))
    cubes = np.stack([odd[3], 3 * odd[2], 3 * odd[0], odd[1]])
    mean, square, cube = _central((odd[:2], even, cubes), n)
    return Permuted(mean, square / (n * (n - 1)), cube / n**3, _ROUNDING * even[:, :1] / n**2)


def summed(parts: Sequence[Permuted]) -> Permuted:
    """Return the average of independent differences that are permuted side by side."""
    k = len(parts)
    return Permuted(
        np.sum([part.difference for part in parts], axis=0) / k,
        np.sum([part.variance for part in parts], axis=0) / k**2,
        np.sum([part.third for part in parts], axis=0) / k**3,
        np.sum([part.least for part in parts], axis=0) / k**2,
    )


def inverted(permuted: Permuted, value: float) -> tuple[float, float, float]:
    """Return the ends of the interval and the p value that the difference is zero.

    Zero lies outside of the interval exactly if p is at most 5 %. The ends are NaN where no shift at all is
    rejected, and where the groups have no spread.
    """
    p, unit = permuted.p(value), float(np.sqrt(max(permuted.variance[0, 0], 0.0)))
    if unit == 0:
        return np.nan, np.nan, p
    reach = [_reach(permuted, sign, sign * value, p, unit) for sign in (1, -1)]
    if np.isnan(reach).any():
        return np.nan, np.nan, p
    return value - reach[0], value + reach[1], p


def _reach(permuted: Permuted, sign: int, zero: float, p: float, unit: float) -> float:
    """Return how far the interval reaches from the value to one side; NaN if there is no end.

    `zero` is how far zero lies to this side, where the p value is known already.
    """
    nodes, level = unit * _NODES, 1 - LEVEL + 1e-12
    kept, left = (zero, np.inf) if zero > 0 and p > level else (0.0, zero if zero > 0 else np.inf)
    nodes = nodes[(nodes > kept) & (nodes < left)]
    near = nodes[nodes <= unit * _FAR]
    if len(near) and permuted.p(sign * near[-1]) <= level:
        nodes = near
    for node in nodes[::-1].tolist():
        if permuted.p(sign * node) > level:
            kept = node
            break
        left = node
    if not np.isfinite(left):
        return np.nan
    for _ in range(_HALVINGS):
        middle = (kept + left) / 2
        kept, left = (middle, left) if permuted.p(sign * middle) > level else (kept, middle)
    return left


def _without_rounding(y: Float[np.ndarray, " values"], size: float) -> Float[np.ndarray, " values"]:
    """Return deviations with those set to zero that are rounding of values of this size."""
    return np.where(np.abs(y) <= 1e-14 * size, 0.0, y)


def _powers(
    y: Float[np.ndarray, " n"],
    own: Float[np.ndarray, " n"],
    yy: Float[np.ndarray, " n"],
    y_own: Float[np.ndarray, " n"],
    yyy: Float[np.ndarray, " n"],
    yy_own: Float[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, "2 n"], Float[np.ndarray, "3 n"], Float[np.ndarray, "4 n"]]:
    """Return the sums of the first three powers of y + x own as polynomials of x; own is 0 or 1."""
    return (
        np.stack([y, own]),
        np.stack([yy, 2 * y_own, own]),
        np.stack([yyy, 3 * yy_own, 3 * y_own, own]),
    )


def _central(
    sums: tuple[Float[np.ndarray, "2 n"], Float[np.ndarray, "3 n"], Float[np.ndarray, "4 n"]], count: int
) -> tuple[Float[np.ndarray, "2 n"], Float[np.ndarray, "3 n"], Float[np.ndarray, "4 n"]]:
    """Return the mean, and the sums of the squared and cubed deviations from it, from sums of powers."""
    one, two, three = sums
    square = _times(one, one)
    cube = three - 3 / count * _times(one, two) + 2 / count**2 * _times(one, square)
    return one / count, two - square / count, cube


def _times(p: Float[np.ndarray, "k n"], q: Float[np.ndarray, "l n"]) -> Float[np.ndarray, "m n"]:
    """Return the product of polynomials, whose coefficients are the rows."""
    product = np.zeros((len(p) + len(q) - 1, p.shape[1]))
    for place, row in enumerate(p):
        product[place : place + len(q)] += row * q
    return product


def _at(p: Float[np.ndarray, "k n"], x: float) -> Float[np.ndarray, " n"]:
    """Return the values of polynomials."""
    value = p[-1]
    for row in p[-2::-1]:
        value = value * x + row
    return value
