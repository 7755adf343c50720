"""Samples that differ in one thing only, and what that makes of their returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from scipy.stats import binom

from hyperlax.report.figures.panels import ABOUT, Panel
from hyperlax.report.words import spanned
from hyperlax.statistics import LEVEL, holm, median_interval_words, median_over_runs
from hyperlax.storage.wording import counted

_NOT_COMPARED = ("sample", "matrix", "score", "seed", *ABOUT)
FEWEST_OF_MEDIAN = 5
"""Fewest pairs of which a median has an interval."""
SUMMARY = {
    "env": pl.String,
    "group": pl.String,
    "against": pl.String,
    "pairs": pl.Int64,
    "difference": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "better": pl.Int64,
    "worse": pl.Int64,
}
"""Columns of `summary`."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of samples of two groups that agree in everything else: rows of a panel, `ours` and `theirs`."""

    ours: list[int]
    theirs: list[int]


def matched(panel: Panel, labels: pl.Series, by: Sequence[str], ours: str, theirs: str) -> Pairs:
    """Pair the samples of the groups `ours` and `theirs` that agree in all other hyperparameters.

    Where groups are recipes, algorithms or networks, the hyperparameters that both have must agree. Seeds are
    paired by their number. A sample with several partners is left out, as it is not clear which is meant.
    """
    table = panel.table
    here = (labels == ours) | (labels == theirs)
    kept = [
        c for c in table.columns if c not in (*_NOT_COMPARED, *by) and table.filter(here)[c].null_count() == 0
    ]
    found: dict[tuple[str, ...], tuple[list[int], list[int]]] = {}
    for row, values in enumerate(table.select(kept).iter_rows()):
        if here[row]:
            sides = found.setdefault(tuple(map(repr, values)), ([], []))
            sides[labels[row] == theirs].append(row)
    single = [(a[0], b[0]) for a, b in found.values() if len(a) == len(b) == 1]
    return Pairs([a for a, _ in single], [b for _, b in single])


def difference_panels(
    several: Sequence[Panel],
    labels: Sequence[pl.Series],
    by: Sequence[str],
    groups: Sequence[str],
    against: str,
) -> tuple[list[Panel], list[pl.Series]]:
    """The differences of all pairs as panels of their own, whose samples are pairs, with the label of each.

    Every group is compared with the group `against`, seed by seed. `score` is the difference of the scores.
    """
    panels, named = [], []
    for panel, own in zip(several, labels, strict=True):
        found = {group: matched(panel, own, by, group, against) for group in groups}
        ours = [row for pairs in found.values() for row in pairs.ours]
        theirs = [row for pairs in found.values() for row in pairs.theirs]
        scores = panel.table["score"][ours] - panel.table["score"][theirs]
        table = panel.table[ours].with_columns(score=scores)
        values = panel.values[ours] - panel.values[theirs]
        why = tuple(panel.chosen[row] for row in ours) if panel.chosen else ()
        panels.append(replace(panel, table=table, values=values, chosen=why))
        texts = [group for group, pairs in found.items() for _ in pairs.ours]
        named.append(pl.Series("group", texts, dtype=pl.String))
    return panels, named


def summary(
    differences: Sequence[Panel], labels: Sequence[pl.Series], groups: Sequence[str], against: str
) -> pl.DataFrame:
    """The difference of scores of every group from `against`, with the columns `SUMMARY`.

    `difference` is the median over pairs with the ends of its 95 % interval, which needs five pairs; `better`
    and `worse` count the pairs with a difference above and below zero.
    """
    rows = []
    for panel, own in zip(differences, labels, strict=True):
        for group in groups:
            gaps = panel.table["score"].filter(own == group).drop_nulls().to_numpy().astype(float)
            found = median_over_runs(gaps[None, :, None])
            rows.append(
                {
                    "env": panel.env,
                    "group": group,
                    "against": against,
                    "pairs": len(gaps),
                    "difference": float(found.value[0, 0]),
                    "low": float(found.low[0, 0]),
                    "high": float(found.high[0, 0]),
                    "better": int((gaps > 0).sum()),
                    "worse": int((gaps < 0).sum()),
                }
            )
    return pl.DataFrame(rows, schema=SUMMARY).fill_nan(None)


def summary_words(rows: Sequence[tuple[dict[str, object], str]], score: str) -> list[str]:
    """Say in a sentence each what rows of `summary` hold, and claim nothing that they do not show.

    Each row comes with what its groups are values of, or the environment. Where there are several, a
    difference is claimed only if the sign test rejects after correction for their number.
    """
    corrected, tests = _corrected([row for row, _ in rows])
    return [_words(row, score, of, p, tests) for (row, of), p in zip(rows, corrected, strict=True)]


def claimed(rows: Sequence[Mapping[str, object]]) -> list[bool]:
    """Whether `summary_words` claims the difference of each of these rows of `summary`."""
    corrected, tests = _corrected(rows)
    return [
        _leaves_out_zero(row) and (tests == 1 or p <= 1 - LEVEL)
        for row, p in zip(rows, corrected, strict=True)
    ]


def _corrected(rows: Sequence[Mapping[str, object]]) -> tuple[list[float], int]:
    """The p values of the sign tests of `rows`, corrected for the number of tests, and that number."""
    corrected = holm(np.array([_sign_test(row) for row in rows], float))
    return corrected.tolist(), int((~np.isnan(corrected)).sum())


def _leaves_out_zero(row: Mapping[str, object]) -> bool:
    """Whether a row has an interval, and zero is outside of it."""
    low, high = row["low"], row["high"]
    return isinstance(low, float) and isinstance(high, float) and not low <= 0 <= high


def _sign_test(row: Mapping[str, object]) -> float:
    """Return the p value of as many better and worse pairs, if both are equally likely; NaN without pairs."""
    better, worse = (int(str(row[name])) for name in ("better", "worse"))
    if not row["pairs"]:
        return np.nan
    return min(1.0, 2 * float(binom.cdf(min(better, worse), better + worse, 0.5)))


def _words(row: dict[str, object], score: str, of: str, p: float, tests: int) -> str:
    """Say what a row holds; `p` is that of its sign test, corrected for `tests` rows."""
    pairs = int(str(row["pairs"]))
    where = f"{of}: {row['group']} against {row['against']}, {counted(pairs, 'pair')}"
    if not pairs:
        return f"{where}: no samples differ in this alone."
    equal = pairs - int(str(row["better"])) - int(str(row["worse"]))
    counts = f"better in {row['better']}, worse in {row['worse']}" + (f", equal in {equal}" if equal else "")
    low, high = row["low"], row["high"]
    gap, *ends = spanned(
        float(str(row["difference"])), *(end for end in (low, high) if isinstance(end, float))
    )
    gap = f"median difference in {score} {gap}"
    if not isinstance(low, float) or not isinstance(high, float):
        why = "it needs five pairs" if pairs < FEWEST_OF_MEDIAN else "too many pairs differ by the same"
        return f"{where}: {counts}; {gap}, without an interval: {why}."
    among = f" among {tests} comparisons" if tests > 1 else ""
    if not _leaves_out_zero(row):
        claim = "no difference is claimed"
    elif tests > 1 and p > 1 - LEVEL:
        claim = f"the interval leaves out zero, but no difference is claimed{among} (p = {p:.2g})"
    else:
        claim = "the interval leaves out zero" + (f" (p = {p:.2g}{among})" if among else "")
    return f"{where}: {counts}; {gap} [{', '.join(ends)}] ({median_interval_words(pairs)}): {claim}."
