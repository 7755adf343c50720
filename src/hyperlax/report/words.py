"""Words for scores and their intervals, which every sentence of a report and a terminal takes from here."""

from __future__ import annotations

import math
from typing import Any

from hyperlax.report.charts.style import text
from hyperlax.statistics import MIN_RUNS


def spanned(*values: float) -> list[str]:
    """Format an estimate and the ends of its interval, with as many digits as tell them apart."""
    shown, different = [text(value) for value in values], set(values)
    if len(set(shown)) == len(different) or not all(map(math.isfinite, values)):
        return shown
    gap = min(b - a for a, b in zip(sorted(different), sorted(different)[1:], strict=False))
    decimals = min(12, max(0, 1 - math.floor(math.log10(gap))))
    return [f"{value:,.{decimals}f}" for value in values]


def left_out_words(samples: int) -> str:
    """Say why so many samples have no rank, as a clause."""
    which = "a sample" if samples == 1 else f"{samples:,} samples"
    return f"{which} with lanes that stopped early or still train, and so have fewer env steps than others"


def chosen_words(row: dict[str, Any], samples: int) -> str:
    """Say what the interval of a row of `score_words` does not allow for, the best of so many samples."""
    known = row["score_low"] is not None and samples > 1
    return "Its interval does not allow for its being chosen as the best." if known else ""


def score_words(row: dict[str, Any]) -> str:
    """Return a score with its interval or, where none holds, with the range of its seeds.

    `row` is one of `sample_scores`, or of a table that has its columns.
    """
    value, seeds = text(row["score"]), int(row["seeds"] or 0)
    if row["score_low"] is not None:
        value, low, high = spanned(row["score"], row["score_low"], row["score_high"])
        return f"{value}, 95 % interval [{low}, {high}]"
    if seeds < 2:
        return f"{value} (a single seed, which says nothing about luck)"
    low, high = row["lowest_seed"], row["highest_seed"]
    if low == high:
        return f"{value} (all {seeds} seeds alike)"
    why = f"; an interval needs {MIN_RUNS} seeds" if seeds < MIN_RUNS else ""
    value, low, high = spanned(row["score"], low, high)
    return f"{value} ({seeds} seeds between {low} and {high}{why})"
