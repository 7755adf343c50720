"""Chart of hyperparameter sensitivity: tuning per environment against one sample for all environments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from hyperlax.report.charts.style import NEUTRAL, WIDTH, Chart, NothingToDraw, family_colours, finished
from hyperlax.report.tuning import sensitivity_table
from hyperlax.statistics import Unavailable
from hyperlax.storage.results import Results

_KINDS = {"per_environment": "tuned for each environment", "across_environments": "one sample for all"}


def tuning_chart(experiments: Sequence[Results]) -> Chart:
    """Draw the normalised scores of every family tuned per environment and tuned once for all.

    The distance between the two is the hyperparameter sensitivity of the family.
    """
    try:
        table = sensitivity_table(experiments)
    except Unavailable as reason:
        raise NothingToDraw(str(reason)) from reason
    first = {str(r.manifest.get("recipe", r.name)): r for r in reversed(experiments)}
    names = table["family"].to_list()
    colours = alt.Scale(domain=names, range=family_colours([first[name] for name in names]))
    return finished(
        alt.layer(*_layers(table, colours)).properties(width=WIDTH - 420, height=alt.Step(56)),
        "Across environments",
        [
            f"Mean over environments of the {table['metric'][0]} score, scaled so that on each "
            "environment the 5th percentile of all samples is 0 and the 95th is 1. The difference is the "
            "hyperparameter sensitivity (Adkins et al. 2024).",
            _shared_words(table, experiments),
            "The best of noisy samples is optimistic, so with few seeds the sensitivity tends to be too "
            "high. There are no intervals, because none holds for a maximum.",
        ],
    )


def _shared_words(table: pl.DataFrame, experiments: Sequence[Results]) -> str:
    """Say among how many samples every family is tuned, and how many of their scores are missing."""
    said = []
    for family, shared, missing in table.select("family", "samples", "missing").iter_rows():
        own = [len(r.samples) for r in experiments if str(r.manifest.get("recipe", r.name)) == family]
        left = f" ({missing} of their scores left out, unknown or of fewer env steps)" if missing else ""
        said.append(f"{shared:,} of {max(own):,} of {family}{left}")
    return f"Tuned among the samples that all environments of a family share: {'; '.join(said)}."


def _layers(table: pl.DataFrame, colours: alt.Scale) -> list[alt.Chart]:
    """Return layers with the points, and the sensitivity as text between a family's points."""
    table = table.with_columns(
        middle=(pl.col("per_environment") + pl.col("across_environments")) / 2,
        label=pl.Series([f"sensitivity {value:.2f}" for value in table["sensitivity"]]),
    )
    rows = pl.concat([table.select("family", kind=pl.lit(label), score=key) for key, label in _KINDS.items()])
    kinds = list(_KINDS.values())
    y = alt.Y("family:N", title=None, sort=table["family"].to_list(), axis=alt.Axis(labelLimit=300))
    axis: dict[str, Any] = {
        "title": "normalised score",
        "scale": alt.Scale(zero=False, padding=20),
        "axis": alt.Axis(tickCount=10),
    }
    encoding: dict[str, Any] = {
        "y": y,
        "yOffset": alt.YOffset("kind:N", sort=kinds),
        "color": alt.Color("family:N", scale=colours, legend=None),
        "tooltip": [alt.Tooltip("family:N"), alt.Tooltip("kind:N"), _number("score")],
    }
    shape = alt.Shape(
        "kind:N",
        scale=alt.Scale(domain=kinds, range=["circle", "diamond"]),
        legend=alt.Legend(title=None, orient="top", symbolFillColor=NEUTRAL, symbolStrokeColor=NEUTRAL),
    )
    points = alt.Chart(rows).mark_point(filled=True, size=90)
    words = alt.Chart(table).mark_text(fontSize=11, color=NEUTRAL)
    return [
        points.encode(x=alt.X("score:Q", **axis), shape=shape, **encoding),
        words.encode(x=alt.X("middle:Q"), y=y, text=alt.Text("label:N")),
    ]


def _number(column: str) -> alt.Tooltip:
    return alt.Tooltip(f"{column}:Q", format=".3f")
