"""Slice plots: the score of every sample against each hyperparameter that varies."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import altair as alt
import polars as pl

from hyperlax.report.charts.style import (
    HIGHLIGHT,
    MAX_ROWS,
    NEUTRAL,
    Chart,
    Layered,
    NothingToDraw,
    axis_format,
    colour_of,
    finished,
    is_picked,
    jitter,
    none_or_picked,
    text,
)
from hyperlax.report.draws import fewer_steps_words
from hyperlax.report.leaderboard import varied_hyperparameters
from hyperlax.report.scores import SCORE, unmeasured_words, values_of, words_of
from hyperlax.storage.results import Results

_COLUMNS = 4
_MAX_PANELS = 40
_LOG_RATIO = 100


def slices(results: Results, metric: str = SCORE) -> Chart:
    """Draw `metric` (over seeds) of each sample against each hyperparameter, one panel per hyperparameter.

    An axis is logarithmic if the search space is. The points of a category are jittered, with a tick at their
    median.
    """
    varied = varied_hyperparameters(results.samples)
    if not varied:
        raise NothingToDraw("No hyperparameter varies between the samples.")
    rows = values_of(results, metric).rename({metric: "score"}).filter(pl.col("score").is_finite())
    rows = rows.join(results.samples.select("sample", *varied), on="sample").sort("sample")
    if rows.is_empty():
        raise NothingToDraw("No sample has an evaluation yet.")
    stride = -(-len(rows) // MAX_ROWS)
    shown = rows.sort("score").gather_every(stride).sort("sample")
    title = words_of(results, metric)
    drawn = panels(results.manifest, shown, varied, title)
    thinned = f" Shown: 1 in {stride} of {len(rows)} samples, ranked by {title}." if stride > 1 else ""
    left_out = len(varied) - len(drawn)
    shown_note = f" Shown: the first {len(drawn)} of {len(varied)} hyperparameters." if left_out > 0 else ""
    shown_note += fewer_steps_words([results]) + unmeasured_words(results, len(rows), title)
    return finished(
        alt.concat(*drawn, columns=_COLUMNS, spacing=18),
        "Slices through the search space",
        [
            f"{title.capitalize()} (over seeds) of each sample. "
            f"Tick: median of a category.{thinned}{shown_note}"
        ],
    )


def panels(manifest: Mapping[str, Any], rows: pl.DataFrame, varied: list[str], title: str) -> list[Layered]:
    """Draw the column `score` of `rows` against each hyperparameter of `varied`, at most forty of them."""
    spaces, colour = space_by_column(manifest.get("space", {}), varied), colour_of(dict(manifest))
    return [
        _panel(rows, column, spaces.get(column), colour, title if i % _COLUMNS == 0 else None)
        for i, column in enumerate(varied[:_MAX_PANELS])
    ]


def space_by_column(space: Mapping[str, Any], columns: list[str]) -> dict[str, dict[str, Any]]:
    """Return the description of each column's search space.

    A joint space is split into one choice for each of its hyperparameters.
    """
    found: dict[str, dict[str, Any]] = {}
    for path, description in space.items():
        if description.get("type") != "joint":
            found[path] = dict(description)
            continue
        for place, part in enumerate(description["paths"]):
            values = list(dict.fromkeys(_hashable(choice[place]) for choice in description["choices"]))
            joined = f"{path}.{part}" if f"{path}.{part}" in columns else part
            found[joined] = {"type": "choice", "values": values}
    return found


def _panel(
    rows: pl.DataFrame, column: str, space: dict[str, Any] | None, colour: str, title: str | None
) -> Layered:
    """Draw `score` against the hyperparameter in `column`, as numbers or as categories."""
    data = rows.select("sample", "score", value=column).drop_nulls()
    values = data["value"]
    if data.is_empty() or not values.dtype.is_numeric() or (space or {}).get("type") == "choice":
        return _categories(rows, column, space, colour, title)
    low, high = float(values.to_numpy().min()), float(values.to_numpy().max())
    kind = (space or {}).get("type")
    log = low > 0 and (kind == "log_uniform" if kind else high / low >= _LOG_RATIO)
    axis = _decades(low, high) if log else alt.Axis(format=axis_format(values), tickCount=4)
    if values.dtype.is_integer() and not log:
        axis.tickMinStep = 1
    scale = alt.Scale(type="log") if log else alt.Scale(type="linear", zero=False)
    scale.nice, scale.padding = False, 6
    x = alt.X("value:Q", title=column, scale=scale, axis=axis)
    return alt.layer(_points(alt.Chart(data), colour, title).encode(x=x))


def _decades(low: float, high: float) -> alt.Axis:
    """Return an axis with ticks at powers of ten, or with default ticks if the range has fewer than two."""
    powers = [10.0**p for p in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    form = ",~g" if low >= 0.01 and high < 1e5 else ".0e"
    if len(powers) < 2:
        return alt.Axis(format=form, tickCount=2, grid=False, labelOverlap=True)
    return alt.Axis(format=form, values=powers, labelOverlap=True)


def _categories(
    rows: pl.DataFrame, column: str, space: dict[str, Any] | None, colour: str, title: str | None
) -> Layered:
    """Draw a categorical hyperparameter, with its categories at 0, 1, … of a linear axis.

    On a linear axis, jitter is a shift, and the medians are centred above the labels.
    """
    labels = [text(value) for value in rows[column].to_list()]
    order = in_order(rows[column], space)
    data = rows.select("sample", "score").with_columns(value=pl.Series(labels))
    place = pl.col("value").replace_strict({label: float(i) for i, label in enumerate(order)})
    turn = pl.int_range(pl.len()).over("value")
    data = data.with_columns(x=place + 0.3 * turn.replace_strict(dict(enumerate(jitter(len(rows))))))
    medians = data.group_by("value", maintain_order=True).agg(
        score=pl.col("score").median(), samples=pl.len()
    )
    axis = alt.Axis(
        values=list(range(len(order))),
        labelExpr=f"{json.dumps(order)}[datum.value]",
        labelAngle=-35 if sum(len(label) for label in order) > 24 else 0,
        labelLimit=90,
        grid=False,
    )
    x = alt.X("x:Q", title=column, axis=axis, scale=alt.Scale(domain=[-0.6, len(order) - 0.4], nice=False))
    tick = alt.Chart(medians.with_columns(x=place)).mark_tick(
        orient="horizontal", color=NEUTRAL, thickness=3, size=24
    )
    tooltip = [
        alt.Tooltip("value:N"),
        alt.Tooltip("samples:Q"),
        alt.Tooltip("score:Q", title="median", format=",.4~g"),
    ]
    return alt.layer(
        _points(alt.Chart(data), colour, title).encode(x=x),
        tick.encode(x=x, y=_y(title), tooltip=tooltip),
    )


def _points(chart: alt.Chart, colour: str, title: str | None) -> alt.Chart:
    """Encode a chart as circles of `score`, linked to the selection."""
    return (
        chart.mark_circle()
        .encode(
            y=_y(title),
            # Explicit channels: resolving shorthands would take most of the time of drawing fifteen panels.
            color=alt.ColorValue(colour, condition={"test": is_picked(), "value": HIGHLIGHT}),
            size=alt.SizeValue(42, condition={"test": is_picked(), "value": 130}),
            opacity=alt.OpacityValue(0.25, condition={"test": none_or_picked(), "value": 0.8}),
            tooltip=[alt.Tooltip("sample:N"), alt.Tooltip("value"), alt.Tooltip("score:Q", format=",.4~g")],
        )
        .properties(width=195, height=155)
    )


def _y(title: str | None) -> alt.Y:
    return alt.Y("score:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4))


def in_order(values: pl.Series, space: Mapping[str, Any] | None = None) -> list[str]:
    """Return the labels of the values that occur: numbers by size, categories in the order of the space."""
    present = [value for value in values.to_list() if value is not None]
    labels = [text(value) for value in present]
    declared = [] if values.dtype.is_numeric() else [text(v) for v in (space or {}).get("values", [])]
    order = [label for label in dict.fromkeys(declared) if label in set(labels)]
    try:
        found = [text(value) for value in sorted(set(present))]
    except TypeError:
        found = labels
    return [*order, *(label for label in dict.fromkeys(found) if label not in set(order))]


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
