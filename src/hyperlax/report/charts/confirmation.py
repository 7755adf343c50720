"""Chart of tuning scores against the scores of the same samples when retrained with fresh seeds."""

from __future__ import annotations

import altair as alt
import polars as pl

from hyperlax.report.charts.style import (
    HIGHLIGHT,
    NEUTRAL,
    Chart,
    NothingToDraw,
    axis_format,
    colour_of,
    finished,
    is_picked,
    none_or_picked,
)
from hyperlax.report.scores import DESCRIPTION, SCORE, words_of
from hyperlax.report.selection import selection_bias
from hyperlax.storage.results import Results

_SIDE = 420


def confirmation_chart(results: Results) -> Chart:
    """Draw one point per confirmed sample, with intervals in both directions.

    Points below the diagonal score less with fresh seeds than they did in tuning.
    """
    if results.confirmation is None:
        raise NothingToDraw("No sample was retrained with fresh seeds.")
    rows = selection_bias(results).drop_nulls(["tuning", "confirmed"]).drop(DESCRIPTION)
    if rows.is_empty():
        raise NothingToDraw("No sample has been confirmed yet.")
    layers, title = _marks(rows, colour_of(results.manifest)), words_of(results, SCORE).capitalize()
    seeds = results.confirmation.manifest.get("settings", {}).get("seeds")
    return finished(
        alt.layer(*layers).properties(width=_SIDE, height=_SIDE),
        "Tuning score against confirmed score",
        [
            f"{title} of each confirmed sample in tuning, and when it was retrained with "
            + (f"{seeds} fresh seeds. " if seeds else "fresh seeds. ")
            + "Bars: 95 % intervals, where one holds.",
            "Dashed line: equal scores. Below it, the score dropped.",
        ],
    )


def _domain(rows: pl.DataFrame) -> list[float]:
    """Return common limits for both axes, so that the diagonal marks equal scores."""
    values = pl.concat([rows[c].drop_nulls() for c in rows.columns if c.startswith(("tuning", "confirmed"))])
    low, high = float(values.to_numpy().min()), float(values.to_numpy().max())
    margin = 0.06 * (high - low) or max(1.0, 0.05 * abs(high))
    return [low - margin, high + margin]


def _marks(rows: pl.DataFrame, colour: str) -> list[alt.Chart]:
    """Return layers with the diagonal, the intervals in both directions, the points and their labels."""
    limits = _domain(rows)
    scale = alt.Scale(domain=limits, nice=False)
    axis = alt.Axis(format=axis_format(pl.Series(limits)), tickCount=7)

    def x(column: str) -> alt.X:
        return alt.X(f"{column}:Q", title="tuning score", scale=scale, axis=axis)

    def y(column: str) -> alt.Y:
        return alt.Y(f"{column}:Q", title="confirmed score", scale=scale, axis=axis)

    ends = alt.Chart(pl.DataFrame({"tuning": limits, "confirmed": limits}))
    layers = [
        ends.mark_line(strokeDash=[5, 4], color=NEUTRAL).encode(x=x("tuning"), y=y("confirmed")),
    ]
    numbers = [
        alt.Tooltip(f"{c}:Q", title=c.replace("_", " "), format=",.4~g")
        for c in rows.columns
        if c != "sample"
    ]
    common = {
        "color": alt.when(is_picked()).then(alt.value(HIGHLIGHT)).otherwise(alt.value(colour)),
        "opacity": alt.when(none_or_picked()).then(alt.value(1.0)).otherwise(alt.value(0.3)),
        "tooltip": [alt.Tooltip("sample:N"), *numbers],
    }
    across, along = (rows.drop_nulls([f"{c}_low", f"{c}_high"]) for c in ("tuning", "confirmed"))
    if not across.is_empty():
        bar = alt.Chart(across).mark_rule(strokeWidth=2)
        layers.append(bar.encode(x=x("tuning_low"), x2=alt.X2("tuning_high:Q"), y=y("confirmed"), **common))
    if not along.is_empty():
        bar = alt.Chart(along).mark_rule(strokeWidth=2)
        layers.append(
            bar.encode(x=x("tuning"), y=y("confirmed_low"), y2=alt.Y2("confirmed_high:Q"), **common)
        )
    point = alt.Chart(rows).mark_point(filled=True, size=80)
    layers.append(point.encode(x=x("tuning"), y=y("confirmed"), **common))
    label = alt.Chart(rows).mark_text(align="left", baseline="bottom", dx=6, dy=-5, color=NEUTRAL)
    name = alt.Text("name:N")
    return [
        *layers,
        label.transform_calculate(name="'sample ' + datum.sample").encode(
            x=x("tuning"), y=y("confirmed"), text=name, opacity=common["opacity"]
        ),
    ]
