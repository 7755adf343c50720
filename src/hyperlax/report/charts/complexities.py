"""Chart of the sample complexity: env steps that every family needs until its environment is solved."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from hyperlax.report.charts.families import Families
from hyperlax.report.charts.style import (
    NEUTRAL,
    WIDTH,
    Chart,
    NothingToDraw,
    family_colours,
    finished,
    steps_axis,
)
from hyperlax.report.complexity import PROBABILITIES, sample_complexities
from hyperlax.report.draws import no_interval_words
from hyperlax.report.metrics import reference_scores
from hyperlax.statistics import Unavailable

_KINDS = [f"{p:.0%} of runs" for p in PROBABILITIES]


def complexity_chart(families: Families) -> Chart:
    """Draw the env steps until a given share of the runs solves the environment.

    Each family has two rows: the runs of its best sample, and the runs of all samples.
    """
    try:
        table = sample_complexities(families)
    except Unavailable as reason:
        raise NothingToDraw(str(reason)) from reason
    rows = table.with_columns(
        name=pl.format("{}, {} ({} runs)", "family", "runs", "lanes"),
        solved=pl.col("probability").replace_strict(dict(zip(PROBABILITIES, _KINDS, strict=True))),
        reached=pl.col("steps").is_finite(),
        **{f"{c}_drawn": pl.min_horizontal(c, "budget") for c in ("steps", "low", "high")},
        **{f"{c}_text": _steps_text(c) for c in ("steps", "low", "high")},
    ).drop("steps", "low", "high")
    solved = reference_scores(families[0].manifest)["solved"]
    return finished(
        alt.layer(*_layers(rows, families)).properties(width=WIDTH - 420, height=alt.Step(24)),
        "Sample complexity",
        [
            f"Env steps until 50 % and 90 % of the runs reach a return of {solved:g}, which counts as "
            "solved. The best sample was selected by these same evaluations, so its result is optimistic.",
            "Bars: 95 % intervals over five seeds or more, or over ten samples or more; a bar that ends at "
            "the budget has no upper limit.",
            no_interval_words(families),
            _stopped_words(families),
        ],
    )


def _stopped_words(families: Families) -> str:
    """Say how runs count that were stopped early; nothing if there are none."""
    stopped = any((results.lanes["status"] == "pruned").any() for results in families)
    return "Runs that were stopped early count as unsolved from then on." if stopped else ""


def _layers(rows: pl.DataFrame, families: Families) -> list[alt.Chart]:
    """Return layers with the intervals, the points, and a text where the budget does not suffice."""
    tooltips = {"steps_text": "env steps", "low_text": "low", "high_text": "high"}
    colours = alt.Scale(domain=[r.name for r in families], range=family_colours(families))
    encoding: dict[str, Any] = {
        "y": alt.Y("name:N", title=None, sort=rows["name"].unique(maintain_order=True).to_list()),
        "yOffset": alt.YOffset("solved:N", sort=_KINDS),
        "color": alt.Color("family:N", scale=colours, legend=None),
        "tooltip": [
            alt.Tooltip("family:N"),
            alt.Tooltip("runs:N"),
            alt.Tooltip("lanes:Q"),
            alt.Tooltip("solved:N"),
            *(alt.Tooltip(f"{column}:N", title=title) for column, title in tooltips.items()),
        ],
    }
    axis: dict[str, Any] = {
        "title": "env steps until solved",
        "axis": steps_axis(8),
        "scale": alt.Scale(domain=[0, float(rows["budget"].to_numpy().max())], nice=False),
    }
    x = alt.X("steps_drawn:Q", **axis)
    shape = alt.Shape(
        "solved:N",
        scale=alt.Scale(domain=_KINDS, range=["circle", "diamond"]),
        legend=alt.Legend(title=None, orient="top", symbolFillColor=NEUTRAL, symbolStrokeColor=NEUTRAL),
    )
    bounded, reached = rows.drop_nulls(["low_drawn", "high_drawn"]), rows.filter("reached")
    never = rows.filter(~pl.col("reached")).with_columns(
        text=pl.format("→ {}: not within the budget", "solved")
    )
    bars = alt.Chart(bounded).mark_rule(strokeWidth=4, opacity=0.35)
    points = alt.Chart(reached).mark_point(filled=True, size=80)
    words = alt.Chart(never).mark_text(align="left", dx=6, fontSize=11)
    drawn = (
        (bounded, bars.encode(x=alt.X("low_drawn:Q", **axis), x2=alt.X2("high_drawn:Q"), **encoding)),
        (reached, points.encode(x=x, shape=shape, **encoding)),
        (never, words.encode(x=x, text=alt.Text("text:N"), **{**encoding, "color": alt.value(NEUTRAL)})),
    )
    return [layer for frame, layer in drawn if not frame.is_empty()]


def _steps_text(column: str) -> pl.Expr:
    """Return an expression for the env steps in `column` as text."""
    steps = pl.col(column).round().cast(pl.Int64, strict=False).cast(pl.String)
    return pl.when(pl.col(column).is_infinite()).then(pl.lit("not within the budget")).otherwise(steps)
