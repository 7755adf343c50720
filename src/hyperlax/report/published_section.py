"""The section of a comparison page that sets experiments against published results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import polars as pl

from hyperlax.report import markup
from hyperlax.report.charts.published import correlation, sample_by_sample, side_by_side
from hyperlax.report.charts.style import Chart
from hyperlax.report.document import Pictures
from hyperlax.report.export import about
from hyperlax.report.published import Published
from hyperlax.report.published_comparison import Matched, matched
from hyperlax.report.tables import definition
from hyperlax.report.templates import Markup, joined, piece
from hyperlax.storage.results import Results
from hyperlax.storage.wording import counted

TABLE = "comparison_published.csv"
"""Name of the file that holds the section's table; it is written next to the page."""


class PublishedComparison:
    """Comparison of experiments with published results, grouped by environment.

    Raises ValueError if none of the experiments has published results.
    """

    def __init__(self, environments: Mapping[str, Sequence[Results]], published: Published):
        self.matches = {
            env: cells for env, group in environments.items() if (cells := matched(group, published))
        }
        self.unpublished = [
            f"{results.name} on {env}"
            for env, group in environments.items()
            for results in group
            if results.name not in {match.results.name for match in self.matches.get(env, [])}
        ]
        if not self.matches:
            known = ", ".join(str(cell) for cell in published.names()[:12]) or "nothing"
            raise ValueError(
                f"no results were published for {', '.join(self.unpublished) or 'these experiments'}; "
                f"published results exist for: {known}"
            )

    def table(self) -> pl.DataFrame:
        """Return one row per environment, family and statistic: both values with their intervals."""
        return pl.concat([match.rows for cells in self.matches.values() for match in cells])

    def charts(self, env: str) -> dict[str, Callable[[], Chart]]:
        """Return the charts of `env` by name, as functions that draw them; none without published results."""
        cells = self.matches.get(env, [])
        if not cells:
            return {}
        drawn: dict[str, Callable[[], Chart]] = {"published": partial(side_by_side, cells)}
        if any(len(match.pairs) for match in cells):
            drawn["published_samples"] = partial(sample_by_sample, cells)
        return drawn

    def section(self, pictures: Pictures) -> Markup:
        """Return the section as HTML: a verdict per family, the charts, and the table."""
        parts = []
        for place, (env, cells) in enumerate(self.matches.items()):
            lines = [verdict(match) for match in cells]
            lines += [f"Ours: {made}" for made in dict.fromkeys(about(match.results) for match in cells)]
            drawn = (pictures.add(f"p{place}_{name}", draw) for name, draw in self.charts(env).items())
            parts.append(piece("part", env, joined(markup.notes(lines), *drawn)))
        if self.unpublished:
            parts.append(piece("note", f"Without published results: {', '.join(self.unpublished)}."))
        note = (
            "No order is claimed where intervals overlap, for statistics of the best samples, or against a "
            f"published number without its samples. The file {TABLE} holds the same numbers."
        )
        table, first = self.table(), next(iter(self.matches.values()))[0].results
        return joined(
            definition(first), *parts, markup.table(table.drop("definition"), "published-table", note, True)
        )


def verdict(match: Matched) -> str:
    """Summarise the comparison of one experiment in a sentence: who is ahead in which statistics."""
    name, rows = match.results.name, match.rows
    parts = []
    for side, words in (("ours", "our result is ahead in"), ("published", "the published one is ahead in")):
        if won := rows.filter(pl.col("ahead") == side)["statistic"].to_list():
            parts.append(f"{words} {', '.join(won)}")
    if unclear := rows.filter(pl.col("ahead").str.starts_with("not"))["statistic"].to_list():
        parts.append(f"no order is claimed in {', '.join(unclear)}")
    samples = ""
    if match.mismatch:
        samples = f" Samples are not compared one by one, because the designs differ: {match.mismatch}."
    elif len(match.pairs):
        samples = f" Rank correlation of the samples: {correlation(match)}."
    reference = ""
    if match.schedule:
        reference = f" These published results are no reference for the protocol: {match.schedule}."
    elif match.unclaimed:
        reference = f" The reason: {match.unclaimed}."
    return f"{name}: {'; '.join(parts)}.{reference}{_counted_words(match)}{samples}"


def _counted_words(match: Matched) -> str:
    """Say which samples count although they diverged, and how many of ours do not, as sentences."""
    said = ""
    if match.diverged:
        said += (
            f" Counted: {counted(match.diverged, 'published sample')} that diverged, as ours are, with the "
            "return of a random policy, or the lowest published one if that is lower or the former unknown."
        )
    if match.left_out:
        said += (
            f" Left out: {counted(match.left_out, 'sample')} of ours without an evaluation, with fewer env "
            "steps than others, or of pairs and sensitivity analyses."
        )
    return said
