"""The section on published results of a comparison, its table and its charts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import polars as pl

from hyperlax.report import markup
from hyperlax.report.against import Matched, matched
from hyperlax.report.charts.published import correlation, sample_by_sample, side_by_side
from hyperlax.report.charts.style import Chart
from hyperlax.report.document import Pictures
from hyperlax.report.export import about
from hyperlax.report.published import Published
from hyperlax.storage.results import Results

TABLE = "comparison_published.csv"
"""The table's file, beside the page."""


class Against:
    """Experiments of every environment against what was published of them.

    Raises ValueError when nothing was published of any.
    """

    def __init__(self, environments: Mapping[str, Sequence[Results]], published: Published):
        self.found = {
            env: cells for env, group in environments.items() if (cells := matched(group, published))
        }
        self.rest = [
            f"{results.name} on {env}"
            for env, group in environments.items()
            for results in group
            if not any(one.results is results for one in self.found.get(env, []))
        ]
        if not self.found:
            known = ", ".join(str(cell) for cell in published.names()[:12]) or "nothing"
            raise ValueError(
                f"nothing was published of {', '.join(self.rest) or 'these experiments'}; "
                f"what was published: {known}"
            )

    def table(self) -> pl.DataFrame:
        """One row per environment, family and statistic, both sides with the ends of their intervals."""
        return pl.concat([one.rows for cells in self.found.values() for one in cells])

    def charts(self, env: str) -> dict[str, Callable[[], Chart]]:
        cells = self.found.get(env, [])
        if not cells:
            return {}
        drawn: dict[str, Callable[[], Chart]] = {"published": partial(side_by_side, cells)}
        if any(len(one.pairs) for one in cells):
            drawn["published_samples"] = partial(sample_by_sample, cells)
        return drawn

    def section(self, pictures: Pictures) -> str:
        """Who is ahead, the charts, and the table."""
        parts = []
        for place, (env, cells) in enumerate(self.found.items()):
            lines = [verdict(one) for one in cells]
            lines += [f"Ours: {made}" for made in dict.fromkeys(about(one.results) for one in cells)]
            said = "".join(f'<p class="note">{markup.public(line)}</p>' for line in lines)
            drawn = (pictures.add(f"p{place}_{name}", draw) for name, draw in self.charts(env).items())
            parts.append(f"<h3>{markup.public(env)}</h3>{said}{''.join(drawn)}")
        if self.rest:
            parts.append(f'<p class="note">Not published: {markup.public(", ".join(self.rest))}.</p>')
        note = (
            "No order is claimed where intervals overlap, nor of the best of unequally many samples. "
            f"The same numbers: {TABLE}, beside this page."
        )
        return "".join(parts) + markup.table(self.table(), "published-table", note, filtered=True)


def verdict(one: Matched) -> str:
    """What can be said of one cell, in words."""
    name, rows = one.results.name, one.rows
    parts = []
    for side, words in (("ours", "ours is ahead in"), ("published", "the published one is ahead in")):
        if won := rows.filter(pl.col("ahead") == side)["statistic"].to_list():
            parts.append(f"{words} {', '.join(won)}")
    if unclear := rows.filter(pl.col("ahead").str.starts_with("not"))["statistic"].to_list():
        parts.append(f"no order is claimed in {', '.join(unclear)}")
    samples = ""
    if one.different:
        samples = f" Samples are not compared one by one, since theirs are others: {one.different}."
    elif len(one.pairs):
        samples = f" Order of the samples: {correlation(one)}."
    return f"{name}: {'; '.join(parts)}.{samples}"
