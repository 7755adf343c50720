"""Learning curves of groups as a chart, and the table that it is drawn from."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import numpy as np
import polars as pl

from hyperlax.report.charts.curves import X_TITLES
from hyperlax.report.charts.style import MAX_ROWS, Chart, of_returns, over_training, steps_axis
from hyperlax.report.draws import no_interval
from hyperlax.report.figures.averages import average, best_row
from hyperlax.report.figures.look import Look
from hyperlax.report.figures.panels import Panel
from hyperlax.statistics import iqm, without_interval

COLUMNS = {
    "env": pl.String,
    "group": pl.String,
    "line": pl.String,
    "x": pl.Float64,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "samples": pl.Int64,
    "seeds": pl.Int64,
}
"""Columns of the table behind a figure: `x` is the position, `low` and `high` the ends of the band."""
_FEWEST_POINTS = 10
"""Fewest points of the line of a sample, if there are so many evaluations; for more, samples are left out."""


def curve_table(
    several: Sequence[Panel], groups: Sequence[str], labels: Sequence[pl.Series], show: str, band: str
) -> pl.DataFrame:
    """Return the lines of all groups in every panel, with the columns `COLUMNS`.

    There are about `MAX_ROWS` rows at most: lines have fewer points if there are many, and of very many
    samples some are drawn, as `thinned_words` says.
    """
    frames = [pl.DataFrame(schema=COLUMNS)]
    parts = _parts(several, groups, labels)
    lines = sum(len(drawn) for *_, drawn in parts) if show == "all" else len(parts)
    most = max(2, MAX_ROWS // max(1, lines))
    for panel, group, rows, drawn in parts:
        points = _evenly_spaced(len(panel.x), most)
        if show == "all":
            frames += _all_lines(panel, group, drawn, points)
            continue
        values = panel.values[rows]
        if show == "best":
            values = values[[best_row(panel.table["score"][rows.tolist()])]]
        found = average(values, "iqm" if show == "best" else show, band)
        if band == "interval" and len(values) > 1 and panel.dependence(rows):
            found = without_interval(found.value)
        seeds = int((~np.isnan(values).all(axis=2)).sum(axis=1).min())
        columns = {"x": panel.x, "value": found.value, "low": found.low, "high": found.high}
        columns = {name: numbers[points] for name, numbers in columns.items()}
        frames.append(_frame(panel.env, group, group, columns, len(values), seeds))
    return pl.concat(frames).fill_nan(None).drop_nulls(["x", "value"])


def thinned_words(
    several: Sequence[Panel], groups: Sequence[str], labels: Sequence[pl.Series], show: str
) -> str:
    """Say how many samples `curve_table` leaves out; nothing if all are drawn or averaged."""
    parts = _parts(several, groups, labels)
    shown, total = sum(len(drawn) for *_, drawn in parts), sum(len(rows) for _, _, rows, _ in parts)
    return (
        "" if show != "all" or shown == total else f" Shown: {shown:,} of {total:,} samples, evenly chosen."
    )


def dependence_words(
    several: Sequence[Panel], groups: Sequence[str], labels: Sequence[pl.Series], show: str, band: str
) -> str:
    """Say where `curve_table` draws no interval because samples are no independent draws; else nothing."""
    if band != "interval" or show not in ("iqm", "median"):
        return ""
    said = no_interval(panel.dependence(rows) for panel, _, rows, _ in _parts(several, groups, labels))
    return f" {said}" if said else ""


def _parts(
    several: Sequence[Panel], groups: Sequence[str], labels: Sequence[pl.Series]
) -> list[tuple[Panel, str, np.ndarray, np.ndarray]]:
    """Every group in every panel, with its rows, and those of them to draw if each has a line of its own."""
    found = [
        (panel, group, np.flatnonzero((own == group).to_numpy()))
        for panel, own in zip(several, labels, strict=True)
        for group in groups
    ]
    share = (MAX_ROWS // _FEWEST_POINTS) / max(1, sum(len(rows) for *_, rows in found))
    return [
        (panel, group, rows, rows[_evenly_spaced(len(rows), max(1, int(len(rows) * share)))])
        for panel, group, rows in found
        if len(rows)
    ]


def _evenly_spaced(count: int, most: int) -> np.ndarray:
    """At most `most` evenly spaced indices below `count`."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))


def _all_lines(panel: Panel, group: str, rows: np.ndarray, points: np.ndarray) -> list[pl.DataFrame]:
    """The curves of the samples in `rows` at `points`."""
    values = panel.values[rows]
    over_seeds = iqm(values, axis=1)[:, points]
    nothing = np.full(len(points), np.nan)
    return [
        _frame(
            panel.env,
            group,
            f"{panel.table['experiment'][int(row)]} {panel.table['sample'][int(row)]}",
            {"x": panel.x[points], "value": curve, "low": nothing, "high": nothing},
            1,
            values.shape[1],
        )
        for row, curve in zip(rows, over_seeds, strict=True)
    ]


def _frame(
    env: str, group: str, line: str, columns: dict[str, np.ndarray], samples: int, seeds: int
) -> pl.DataFrame:
    about = {"env": env, "group": group, "line": line, "samples": samples, "seeds": seeds}
    frame = pl.DataFrame(columns).with_columns(**{name: pl.lit(value) for name, value in about.items()})
    return frame.select(pl.col(name).cast(kind) for name, kind in COLUMNS.items())


def curve_chart(
    table: pl.DataFrame,
    groups: Sequence[str],
    look: Look,
    x: str,
    y_title: str,
    legend_title: str,
    description: str,
    zero: bool = False,
) -> Chart:
    """Draw the table of `curve_table`, a panel for each environment; `zero` marks a difference of zero.

    What the lines and bands are is in the `description` of the chart, which is not drawn.
    """
    envs = table["env"].unique(maintain_order=True).to_list()
    x_title = X_TITLES[x] if look.x_title is None else look.x_title
    y_title = y_title if look.y_title is None else look.y_title
    across = alt.X(
        "x:Q",
        title=x_title or None,
        axis=steps_axis(5, float(table["x"].to_numpy().max(initial=0)) >= 1e4),
        scale=over_training(),
    )

    def up(column: str) -> alt.Y:
        return alt.Y(f"{column}:Q", title=y_title or None, scale=of_returns(), axis=alt.Axis(tickCount=5))

    tooltip = [
        alt.Tooltip("env:N"),
        alt.Tooltip("group:N"),
        alt.Tooltip("x:Q"),
        *(alt.Tooltip(f"{c}:Q") for c in ("value", "low", "high")),
    ]
    colour, thin = look.colour(groups, legend_title), table["line"].n_unique() > len(groups)
    base = alt.Chart(table).encode(x=across, color=colour, tooltip=tooltip)
    line = base.mark_line(strokeWidth=0.7 if thin else 1.6, opacity=0.75 if thin else 1.0, clip=True)
    layers = [
        line.encode(y=up("value"), strokeDash=look.dash(groups, legend_title), detail=alt.Detail("line:N"))
    ]
    if table["low"].count():
        band = base.transform_filter("isValid(datum.low) && isValid(datum.high)").mark_area(
            opacity=0.18, clip=True
        )
        layers.insert(0, band.encode(y=up("low"), y2=alt.Y2("high:Q")))
    if zero:
        rule = alt.Chart(table).mark_rule(strokeWidth=0.7, color="black", strokeDash=[2, 2])
        layers.insert(0, rule.encode(y=alt.datum(0)))
    if (table.group_by("env", "line").len()["len"] == 1).any():
        layers.append(base.mark_point(filled=True, size=18).encode(y=up("value")))
    width, height = look.size(len(envs))
    chart = alt.layer(*layers).properties(width=width, height=height)
    whole: Chart = chart
    if len(envs) > 1:
        column = alt.Column("env:N", title=None, sort=envs, header=alt.Header(labelOrient="top"))
        whole = chart.facet(column=column, spacing=8, data=table).resolve_scale(
            y="independent", x="independent"
        )
    else:
        whole = chart.properties(autosize=alt.AutoSizeParams(type="fit", contains="padding"))
    return whole.properties(description=description).configure(**look.config())
