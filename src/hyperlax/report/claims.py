"""Which family is ahead of which, in sentences that are corrected for all comparisons they are made among."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from hyperlax.report.charts.families import Families, improvements, incomparable
from hyperlax.report.draws import uncompared_words
from hyperlax.report.scores import headline_of
from hyperlax.report.words import spanned
from hyperlax.statistics import LEVEL, holm


def verdicts(families: Families) -> list[str]:
    """Say for each pair of families on one environment, in a sentence, which one is ahead."""
    return verdicts_by_environment({"": families})[""]


def verdicts_by_environment(groups: Mapping[str, Families]) -> dict[str, list[str]]:
    """Say for each pair of families, by environment and in a sentence, which one is ahead.

    An order is claimed only if a permutation test rejects at 5 % after correction for all pairs on all
    environments, so that a page makes any false claim at all in at most 5 % of cases.
    """
    tables = {env: improvements(families, corrected=False) for env, families in groups.items()}
    p = np.concatenate([table["p"].fill_null(np.nan).to_numpy() for table in tables.values()])
    tests, corrected = int((~np.isnan(p)).sum()), holm(p)
    found, start = {}, 0
    for env, table in tables.items():
        own = table.with_columns(p=pl.Series(corrected[start : start + len(table)], dtype=pl.Float64))
        start += len(table)
        found[env] = _lines(own.fill_nan(None), groups[env], tests)
    return found


def _lines(compared: pl.DataFrame, families: Families, tests: int) -> list[str]:
    """Return the sentences of one environment; `tests` is the number that p is corrected for."""
    named = {results.name: results for results in families}
    missing = {results.name: uncompared_words([results]) for results in families}
    lines, title = [], headline_of(families[0].manifest).title
    for row in compared.iter_rows(named=True):
        a, b = row["family"], row["other"]
        if row["probability"] is None:
            if why := incomparable(named[a], named[b]):
                lines.append(f"{a} and {b} are not compared, because {why}.")
        elif row["p"] is None or row["p"] > 1 - LEVEL:
            few = row["difference_low"] is None and row["difference"] != 0
            counts = f"{row['values']} and {row['other_values']} values are too few to tell them apart"
            lines.append(f"{a} and {b}: {counts if few else 'no difference is claimed'}.")
        else:
            lines.append(_claim(row, title, tests))
        if row["probability"] is not None:
            lines[-1] = " ".join(filter(None, [lines[-1], missing[a], missing[b]]))
    return lines


def _claim(row: dict[str, Any], title: str, tests: int) -> str:
    """Say that one family is ahead, by what, and how often; not as support where the latter contradicts."""
    names, sign = (row["family"], row["other"]), 1 if row["difference"] > 0 else -1
    first, second = names[::sign]
    ends = [row[f"difference_{end}"] for end in ("low", "high")]
    known = [] if None in ends else sorted(sign * end for end in ends)  # none where all values of one agree
    gap, *shown = spanned(sign * row["difference"], *known)
    interval = f" [{', '.join(shown)}]" if shown else ""
    often = row["probability"] if sign > 0 else 1 - row["probability"]
    corrected = f", corrected for {tests} comparisons" if tests > 1 else ""
    of, one = "of equal samples " if row["paired"] else "", "seed" if row["seeds"] else "sample"
    gap = f"{gap}{interval} (permutation test of equal means: p = {row['p']:.2g}{corrected})"
    if often < 0.5:
        return (
            f"{first} is ahead of {second} in the mean only: the mean difference {of}in {title} is {gap}, "
            f"but a random {one} of {second} has the higher one with probability {1 - often:.2f}."
        )
    return (
        f"{first} is ahead of {second}: a random {one} of the former has the higher {title} with probability "
        f"{often:.2f}. The mean difference {of}is {gap}."
    )
