"""Learning curves of groups as a chart, and the table that it is drawn from."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import numpy as np
import polars as pl

from hyperlax.report.charts.curves import X_TITLES
from hyperlax.report.charts.style import MAX_ROWS, Chart, of_returns, over_training, steps_axis
from hyperlax.report.figures.averages import average, best_row
from hyperlax.report.figures.look import Look
from hyperlax.report.figures.panels import Panel
from hyperlax.statistics import iqm

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


def curve_table(
    several: Sequence[Panel], groups: Sequence[str], labels: Sequence[pl.Series], show: str, band: str
) -> pl.DataFrame:
    """Return the lines of all groups in every panel, with the columns `COLUMNS`."""
    frames = [pl.DataFrame(schema=COLUMNS)]
    for panel, own in zip(several, labels, strict=True):
        for group in groups:
            rows = np.flatnonzero((own == group).to_numpy())
            if not len(rows):
                continue
            values = panel.values[rows]
            if show == "all":
                frames += _all_lines(panel, group, values, rows)
                continue
            if show == "best":
                values = values[[best_row(panel.table["score"][rows.tolist()])]]
            found = average(values, "iqm" if show == "best" else show, band)
            seeds = int((~np.isnan(values).all(axis=2)).sum(axis=1).min())
            columns = {"x": panel.x, "value": found.value, "low": found.low, "high": found.high}
            frames.append(_frame(panel.env, group, group, columns, len(values), seeds))
    return pl.concat(frames).fill_nan(None).drop_nulls(["x", "value"])


def _all_lines(panel: Panel, group: str, values: np.ndarray, rows: np.ndarray) -> list[pl.DataFrame]:
    """The curve of every sample, of fewer points if there are many samples."""
    most = max(10, MAX_ROWS // max(1, panel.table.height))
    points = np.unique(np.linspace(0, len(panel.x) - 1, min(most, len(panel.x))).round().astype(int))
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
