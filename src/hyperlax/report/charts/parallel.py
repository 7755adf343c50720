"""Parallel coordinates: every sample as one line through all hyperparameters that vary."""

from __future__ import annotations

import math
from typing import Any

import altair as alt
import polars as pl

from hyperlax.report.charts.slices import in_order, space_by_column
from hyperlax.report.charts.style import (
    HIGHLIGHT,
    MAX_ROWS,
    NEUTRAL,
    WIDTH,
    Chart,
    Layered,
    NothingToDraw,
    finished,
    is_picked,
    none_or_picked,
    text,
)
from hyperlax.report.draws import fewer_steps_words
from hyperlax.report.leaderboard import varied_hyperparameters
from hyperlax.report.scores import SCORE, unmeasured_words, values_of, words_of
from hyperlax.storage.results import Results

_MAX_AXES = 40
_AXES_PER_ROW = 11
_MAX_LABELS = 8
_WORST_TO_BEST = ("#3b82c4", "#9a9a9a", "#e08214")
"""Colours from the lowest to the highest score, legible on light and dark pages and to the colour-blind."""


def parallel_coordinates(results: Results, metric: str = SCORE) -> Chart:
    """Draw one line per sample through its hyperparameters to its `metric` (over seeds), which colours it.

    An axis is logarithmic if its search space is; categories are spaced evenly. The best samples are drawn
    last, on top of the others. If there are many hyperparameters, their axes take several rows, each of which
    ends in `metric`.
    """
    every = varied_hyperparameters(results.samples)
    varied = every[:_MAX_AXES]
    if not varied:
        raise NothingToDraw("No hyperparameter varies between the samples.")
    title = words_of(results, metric)
    rows = values_of(results, metric).rename({metric: "score"}).filter(pl.col("score").is_finite())
    rows = rows.join(results.samples.select("sample", *varied), on="sample").sort("score", "sample")
    if rows.is_empty():
        raise NothingToDraw(f"No sample has a {title} yet.")
    count = math.ceil(len(varied) / _AXES_PER_ROW)
    size = math.ceil(len(varied) / count)
    groups = [varied[i : i + size] for i in range(0, len(varied), size)]
    stride = math.ceil(len(rows) * (size + 1) / MAX_ROWS)
    shown = rows[::-1].gather_every(stride)[::-1]
    spaces = space_by_column(results.manifest.get("space", {}), varied)
    panels = [_panel(shown, group, spaces, title) for group in groups]
    thinned = f" Shown: 1 in {stride} of {len(rows)} samples, ranked by {title}." if stride > 1 else ""
    thinned += fewer_steps_words([results]) + unmeasured_words(results, len(rows), title)
    if len(every) > len(varied):
        thinned += f" Axes: the first {len(varied)} of {len(every)} hyperparameters that vary."
    return finished(
        alt.vconcat(*panels, spacing=26),
        "Parallel coordinates",
        [f"One line per sample, from its hyperparameters to its {title} (over seeds).{thinned}"],
    )


def _panel(rows: pl.DataFrame, columns: list[str], spaces: dict[str, Any], title: str) -> Layered:
    """Draw one row of axes, each of which runs from 0 to 1."""
    lines, labels = [], []
    for column in [*columns, title]:
        values = rows["score"] if column == title else rows[column]
        places, marks = _axis(values, None if column == title else spaces.get(column))
        lines.append(
            pl.DataFrame(
                {
                    "sample": rows["sample"],
                    "axis": [column] * len(rows),
                    "place": places,
                    "value": [text(value) for value in values.to_list()],
                    "score": rows["score"],
                },
                strict=False,
            )
        )
        labels += [(column, place, label) for place, label in marks]
    data = pl.concat(lines).drop_nulls("place")
    ticks = pl.DataFrame(labels, schema=["axis", "place", "label"], orient="row")
    order = [*columns, title]
    x = alt.X(
        "axis:N",
        sort=order,
        title=None,
        scale=alt.Scale(type="point", padding=0.5),
        axis=alt.Axis(
            orient="top",
            labelAngle=-28,
            labelAlign="left",
            domain=False,
            ticks=False,
            grid=True,
            labelLimit=170,
        ),
    )
    y = alt.Y("place:Q", axis=None, scale=alt.Scale(domain=[-0.04, 1.04]))
    line = alt.Chart(data).encode(x=x, y=y, detail=alt.Detail("sample:N"), tooltip=_tooltip(title))
    colour = alt.Color(
        "score:Q",
        title=title,
        scale=alt.Scale(range=list(_WORST_TO_BEST)),
        legend=alt.Legend(gradientLength=150, format=",.4~g"),
    )
    picked = line.transform_filter(is_picked()).mark_line(strokeWidth=3.5, color=HIGHLIGHT, point=False)
    sparse = len(rows) <= 64
    faded = alt.when(none_or_picked()).then(alt.value(0.8 if sparse else 0.45)).otherwise(alt.value(0.12))
    dot = alt.Chart(ticks).mark_point(filled=True, size=9, color=NEUTRAL, opacity=1)
    label = alt.Chart(ticks).encode(x=x, y=y, text=alt.Text("label:N"))
    beside: dict[str, Any] = {"align": "right", "dx": -5, "fontSize": 10, "limit": 74}
    return alt.layer(
        line.mark_line(strokeWidth=1.6).encode(color=colour, opacity=faded),
        picked,
        dot.encode(x=x, y=y),
        label.mark_text(style="halo", **beside),
        label.mark_text(**beside),
    ).properties(width=WIDTH - 140, height=230)


def _tooltip(title: str) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("sample:N"),
        alt.Tooltip("axis:N", title="hyperparameter"),
        alt.Tooltip("value:N"),
        alt.Tooltip("score:Q", title=title, format=",.4~g"),
    ]


def _axis(
    values: pl.Series, space: dict[str, Any] | None
) -> tuple[list[float | None], list[tuple[float, str]]]:
    """Return the position of each value on an axis from 0 to 1, and the labels of the axis by position."""
    if not values.dtype.is_numeric() or (space or {}).get("type") == "choice":
        order = in_order(values, space)
        spread = {
            label: (i + 0.5) / len(order) if len(order) < 3 else i / (len(order) - 1)
            for i, label in enumerate(order)
        }
        every = math.ceil(len(order) / _MAX_LABELS)
        marks = [(spread[label], label) for label in order[::every]]
        return [spread.get(text(value)) for value in values.to_list()], marks
    known = [float(v) for v in values.drop_nulls().to_list()]
    if not known:
        return [None] * len(values), []
    low, high = min(known), max(known)
    log = low > 0 and (space or {}).get("type") == "log_uniform"
    transform = math.log if log else float
    span = transform(high) - transform(low)
    places = [
        None if v is None else 0.5 if span <= 0 else (transform(v) - transform(low)) / span
        for v in values.to_list()
    ]
    middle = math.sqrt(low * high) if log else (low + high) / 2
    ends = [(0.0, low), (0.5, middle), (1.0, high)] if span > 0 else [(0.5, low)]
    return places, [(place, _short(value)) for place, value in ends]


def _short(value: float) -> str:
    """Format a number with three significant digits, without superfluous zeros."""
    if 1e3 <= abs(value) < 1e5:
        return f"{value:,.0f}"
    return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e")
