"""Charts of training health: entropy, policy updates, value fit, gradient norms and diverged lanes."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import polars as pl

from hyperlax.report.charts.style import (
    DIVERGED,
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
    over_training,
    steps_axis,
)
from hyperlax.report.evaluations import Evaluations, evaluations
from hyperlax.report.leaderboard import leaderboard
from hyperlax.statistics import iqm, quantiles
from hyperlax.storage.results import Results

_MAX_PANELS = 14
_COLUMNS = 3
_POINTS = 60
_PICKED_ROWS = 2_000
"""Maximum number of rows of the curves that each panel holds for samples that may be selected."""
_FIRST = ("entropy", "approx_kl", "kl", "clip_fraction", "explained_variance")
"""Metrics whose panels come first, in this order."""
_LAST = ("return", "length")
"""Metrics of the training episodes. They come last, because the learning curves show the returns better."""


def training_health(results: Results) -> Chart:
    """Draw training metrics over env steps: median and middle half of all lanes, and the best sample.

    Samples that are selected on the page are drawn in every panel. The last panel counts the lanes that have
    diverged.
    """
    names = _health_metrics(results)
    if not names:
        raise NothingToDraw("No training metric has been written yet.")
    table = leaderboard(results, top=1).drop_nulls("score")
    best = table["sample"][0] if len(table) else None
    shown = names[: _MAX_PANELS - 1]
    drawn = {name: panel for name in shown if (panel := _panel(results, name, best)) is not None}
    if not drawn:
        raise NothingToDraw("No training metric has a finite value yet.")
    panels = [*drawn.values(), _diverged_panel(results)]
    which = "" if best is None else f" Coloured: the best sample ({best})."
    rest = [n.removeprefix("train/") for n in names[_MAX_PANELS - 1 :]]
    left_out = f" Not shown: {', '.join(rest)}." if rest else ""
    return finished(
        alt.concat(*panels, columns=_COLUMNS, spacing=20),
        "Training health",
        [f"Grey: median and middle half of all lanes.{which}{left_out}"],
    )


def _panel(results: Results, metric: str, best: int | None) -> Layered | None:
    """Draw the panel of one metric; None if it has no finite value."""
    found = evaluations(results, metric, whole=True)
    if found.values.size == 0:
        return None
    grid, values = found.on_grid("env_steps", min(_POINTS, found.values.shape[2]))
    low, middle, high = quantiles(values.reshape(-1, len(grid)), (0.25, 0.5, 0.75), axis=0)
    columns = {"x": grid, "low": low, "value": middle, "high": high}
    rows = pl.DataFrame(columns).fill_nan(None).drop_nulls()
    name = metric.removeprefix("train/").replace("_", " ")
    sparse = len(grid) < 15
    tooltip = [alt.Tooltip(c, format=",.4~g") for c in columns]
    base = alt.Chart(rows).encode(x=_x(), tooltip=tooltip)
    axis, zero = alt.Axis(format=axis_format(rows["high"]), tickCount=4), _is_constant(rows)
    layers = [
        base.mark_area(opacity=0.25, color=NEUTRAL).encode(y=_y("low", name, zero=zero), y2=alt.Y2("high:Q")),
        base.mark_line(color=NEUTRAL, point=_point_mark(sparse, NEUTRAL)).encode(
            y=_y("value", name, axis, zero)
        ),
    ]
    place = np.flatnonzero(found.samples == best)
    if len(place):
        line = pl.DataFrame({"x": grid, "value": iqm(values[place[0]], axis=0)}).fill_nan(None).drop_nulls()
        colour = colour_of(results.manifest)
        drawn = alt.Chart(line).mark_line(color=colour, strokeWidth=2.2, point=_point_mark(sparse, colour))
        layers.append(drawn.encode(x=_x(), y=_y("value", name, zero=zero), tooltip=tooltip[::2][:2]))
    layers.append(_selected_layer(_per_sample(found, grid, values), name, sparse, zero))
    return alt.layer(*layers).properties(width=275, height=165)


def _selected_layer(rows: pl.DataFrame, name: str, sparse: bool, zero: bool) -> alt.Chart:
    """Draw the lines of the selected samples; the others are filtered out, because they would widen the axis.

    One invisible row is never filtered out, because Vega warns about axes without data.
    """
    kept = pl.concat([rows, rows.sort("value")[[len(rows) // 2]].with_columns(sample=pl.lit(-1, pl.Int64))])
    chart = alt.Chart(kept).transform_filter(f"datum.sample < 0 || {is_picked()}")
    return chart.mark_line(color=HIGHLIGHT, strokeWidth=2.5, point=_point_mark(sparse, HIGHLIGHT)).encode(
        x=_x(),
        y=_y("value", name, zero=zero),
        detail=alt.Detail("sample:N"),
        opacity=alt.when(is_picked()).then(alt.value(1.0)).otherwise(alt.value(0.0)),
        tooltip=[alt.Tooltip("sample:N"), alt.Tooltip("value:Q", format=",.4~g")],
    )


def _per_sample(found: Evaluations, grid: np.ndarray, values: np.ndarray) -> pl.DataFrame:
    """Return the interquartile mean over seeds of every sample, at few enough points to fit into a chart."""
    samples = len(found.samples)
    points = np.unique(np.linspace(0, len(grid) - 1, max(2, min(len(grid), _PICKED_ROWS // samples))).round())
    kept = points.astype(int)
    rows = found.samples[: _PICKED_ROWS // max(1, len(kept))]
    mean = iqm(values[: len(rows), :, kept], axis=1)
    return (
        pl.DataFrame(
            {
                "sample": np.repeat(rows, len(kept)),
                "x": np.tile(grid[kept], len(rows)),
                "value": mean.ravel(),
            }
        )
        .with_columns(pl.col("x", "value").round_sig_figs(4))
        .fill_nan(None)
        .drop_nulls()
    )


def _diverged_panel(results: Results) -> Layered:
    """Draw the number of lanes that have diverged, against env steps."""
    lanes = results.lanes
    diverged = lanes.filter(pl.col("status") == "diverged").with_columns(
        at=pl.coalesce("diverged_at", "env_steps").fill_null(0)
    )
    end = lanes["env_steps"].fill_null(0).to_numpy().max(initial=0)
    times = np.sort(diverged["at"].to_numpy()).astype(float)
    rows = pl.DataFrame(
        {
            "x": np.concatenate([[0.0], times, [max(float(end), *times, 0.0)]]),
            "lanes": np.concatenate([[0], np.arange(1, len(times) + 1), [len(times)]]),
        }
    ).gather_every(max(1, len(times) // MAX_ROWS + 1))
    y = alt.Y(
        "lanes:Q",
        title=f"diverged, of {len(lanes)} lanes",
        scale=alt.Scale(domain=[0, max(1, len(times))], nice=True),
        axis=alt.Axis(values=list(range(0, max(1, len(times)) + 1, 1 + len(times) // 5)), format="d"),
    )
    line = alt.Chart(rows).mark_line(interpolate="step-after", color=DIVERGED, strokeWidth=2.2)
    tooltip = [alt.Tooltip("lanes:Q"), alt.Tooltip("x:Q", format=",.0f")]
    points: dict[str, Any] = {"sample": diverged["sample"], "x": diverged["at"].cast(pl.Float64)}
    marks = pl.DataFrame(points).sort("x").with_row_index("lanes", offset=1).head(MAX_ROWS)
    cross = alt.Chart(marks).mark_point(shape="cross", filled=True, size=70)
    colour = alt.when(is_picked()).then(alt.value(HIGHLIGHT)).otherwise(alt.value(DIVERGED))
    layers = [line.encode(x=_x(), y=y, tooltip=tooltip)]
    if len(marks):
        layers.append(cross.encode(x=_x(), y=y, color=colour, tooltip=[alt.Tooltip("sample:N"), *tooltip]))
    return alt.layer(*layers).properties(width=275, height=165)


def _health_metrics(results: Results) -> list[str]:
    """Return the names of all training metrics (`train/…`) in the order in which they are drawn.

    The usual metrics of policy gradients come first, then gradient norms, then the others.
    """
    present = sorted(n for n in results.curves["metric"].unique().to_list() if n.startswith("train/"))

    def place(name: str) -> tuple[int, str]:
        short = name.removeprefix("train/")
        if short in _FIRST:
            return _FIRST.index(short), short
        return len(_FIRST) + ("norm" not in short) + (short in _LAST), short

    return sorted(present, key=place)


def _point_mark(sparse: bool, colour: str) -> Any:
    return {"size": 18, "color": colour} if sparse else False


def _x() -> alt.X:
    axis = steps_axis(4)
    return alt.X("x:Q", title="environment steps", axis=axis, scale=over_training())


def _y(column: str, title: str, axis: Any = alt.Undefined, zero: bool = False) -> alt.Y:
    return alt.Y(f"{column}:Q", title=title, scale=alt.Scale(zero=zero), axis=axis)


def _is_constant(rows: pl.DataFrame) -> bool:
    """Whether the values differ by rounding errors only, so that an axis fitted to them would show noise."""
    low, high = rows["low"].to_numpy(), rows["high"].to_numpy()
    return bool(high.max(initial=-np.inf) - low.min(initial=np.inf) <= 1e-3 * np.abs(high).max(initial=0.0))
