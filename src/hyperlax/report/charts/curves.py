"""Learning curves: the best samples, all samples, and their interquartile mean."""

from __future__ import annotations

import altair as alt
import numpy as np
import polars as pl

from hyperlax.report.charts.style import (
    HIGHLIGHT,
    MAX_ROWS,
    NEUTRAL,
    WIDTH,
    Chart,
    NothingToDraw,
    colour_of,
    finished,
    is_picked,
    lighten,
)
from hyperlax.report.evaluations import Evaluations, evaluations
from hyperlax.report.leaderboard import leaderboard
from hyperlax.report.statistics import iqm, iqm_over_runs, iqm_over_strata
from hyperlax.results import Results

X_TITLES = {"env_steps": "environment steps", "seconds": "wall time (s)", "gradient_steps": "gradient steps"}
_GRID = 100
_TOP_POINTS = 150


def learning_curves(results: Results, x: str = "env_steps", top: int = 5) -> Chart:
    """Return against `x` (env_steps, seconds or gradient_steps).

    The `top` samples by peak return and the interquartile mean over all samples come with 95 % intervals over
    seeds; the other samples are thin lines.
    """
    found = evaluations(results)
    if found.values.size == 0:
        raise NothingToDraw("No evaluation has been written yet.")
    if np.nanmax(found.x[x], initial=0.0) <= 0:
        raise NothingToDraw(f"No evaluation recorded its {X_TITLES[x]}.")
    order = _by_rank(results, found)
    best = order[:top]
    names = [f"sample {found.samples[row]}" for row in best]
    best_rows = _best(found, x, best, names)
    thin_rows, thinned = _thin_lines(found, x, order)
    overall = f"IQM of {len(order)} samples"
    colour = colour_of(results.manifest)
    shades = [lighten(colour, 0.75 * place / max(1, len(best) - 1)) for place in range(len(best))]
    layers = [_others(thin_rows), *_bands(best_rows, names, shades, overall, 2.2, [])]
    if len(order) > 2:
        rows = _overall(found, x, overall)
        layers += _bands(rows, names, shades, overall, 2.4, [6, 4])
    layers.append(_picked(thin_rows))
    chart = alt.layer(*layers).properties(width=WIDTH - 190, height=360)
    return finished(
        chart.encode(x=_x(x)),
        f"Learning curves against {X_TITLES[x]}",
        [
            f"Interquartile mean over seeds; bands: 95 % bootstrap intervals. Thin lines: {thinned}.",
            "The best samples were chosen on the same evaluations that are drawn, so their peaks are optimistic.",
        ],
    )


def _by_rank(results: Results, found: Evaluations) -> list[int]:
    """Rows of `found` with a point, best sample first."""
    place = {sample: row for row, sample in enumerate(found.samples.tolist())}
    ranked = leaderboard(results, top=None).filter(pl.col("peak_return").is_not_null())["sample"].to_list()
    return [place[sample] for sample in ranked]


def _best(found: Evaluations, x: str, rows: list[int], names: list[str]) -> pl.DataFrame:
    estimate = iqm_over_runs(found.values[rows])
    points = _every(found.values.shape[2], _TOP_POINTS)
    frames = []
    for place, (row, name) in enumerate(zip(rows, names, strict=True)):
        columns = {
            "x": found.x[x][row, points],
            "value": estimate.value[place, points],
            "low": estimate.low[place, points],
            "high": estimate.high[place, points],
        }
        frames.append(
            pl.DataFrame(columns).with_columns(name=pl.lit(name), sample=pl.lit(int(found.samples[row])))
        )
    return _present(pl.concat(frames))


def _overall(found: Evaluations, x: str, name: str) -> pl.DataFrame:
    grid, values = found.on_grid(x, min(found.values.shape[2], _GRID))
    estimate = iqm_over_strata(values)
    columns = {"x": grid, "value": estimate.value, "low": estimate.low, "high": estimate.high}
    return _present(pl.DataFrame(columns).with_columns(name=pl.lit(name), sample=pl.lit(-1)))


def _thin_lines(found: Evaluations, x: str, order: list[int]) -> tuple[pl.DataFrame, str]:
    """Interquartile mean of every sample, within `MAX_ROWS` rows, and what had to be left out in words."""
    count = found.values.shape[2]
    points = _every(count, max(20, MAX_ROWS // max(1, len(order))))
    rows = [order[i] for i in _every(len(order), MAX_ROWS // len(points))]
    value = iqm(found.values[rows], axis=1)
    frame = pl.DataFrame(
        {
            "sample": np.repeat(found.samples[rows], len(points)),
            "x": found.x[x][np.ix_(rows, points)].ravel(),
            "value": value[:, points].ravel(),
        }
    )
    said = (
        f"all {len(order)} samples"
        if len(rows) == len(order)
        else f"{len(rows)} of {len(order)} samples, evenly by rank"
    )
    said += "" if len(points) == count else f", {len(points)} of {count} evaluations"
    return _present(frame), said


def _bands(
    rows: pl.DataFrame, names: list[str], shades: list[str], overall: str, width: float, dash: list[int]
) -> list[alt.Chart]:
    domain, colours = [*names, overall], [*shades, NEUTRAL]
    if not rows["name"].is_in([overall]).any() and not dash and len(names) < 3:
        domain, colours = names, shades
    colour = alt.Color(
        "name:N",
        scale=alt.Scale(domain=domain, range=colours),
        legend=alt.Legend(title=None, symbolOpacity=1),
    )
    tooltip = [
        alt.Tooltip("name:N", title="curve"),
        alt.Tooltip("x:Q", format=",.0f"),
        alt.Tooltip("value:Q", title="return", format=",.4~g"),
        alt.Tooltip("low:Q", format=",.4~g"),
        alt.Tooltip("high:Q", format=",.4~g"),
    ]
    base = alt.Chart(rows).encode(color=colour, tooltip=tooltip)
    few = rows["x"].n_unique() <= 15 * rows["name"].n_unique() and not dash
    band = base.mark_area(opacity=0.16).encode(y=_y("low"), y2="high:Q")
    line = base.mark_line(strokeWidth=width, strokeDash=dash, point={"size": 26} if few else False)
    layers = [band, line.encode(y=_y("value"))]
    if (rows.group_by("name").len()["len"] == 1).any():
        layers.append(base.mark_rule(strokeWidth=2).encode(y=_y("low"), y2="high:Q"))
    return layers


def _others(rows: pl.DataFrame) -> alt.Chart:
    line = alt.Chart(rows).mark_line(
        strokeWidth=1, opacity=0.45, color=NEUTRAL, point={"size": 6, "color": NEUTRAL}
    )
    return line.encode(
        y=_y("value"), detail="sample:N", tooltip=["sample:N", alt.Tooltip("value:Q", title="return")]
    )


def _picked(rows: pl.DataFrame) -> alt.Chart:
    line = alt.Chart(rows).mark_line(strokeWidth=3, color=HIGHLIGHT, point={"size": 40, "color": HIGHLIGHT})
    return line.encode(
        y=_y("value"),
        detail="sample:N",
        opacity=alt.when(is_picked()).then(alt.value(1.0)).otherwise(alt.value(0.0)),
        tooltip=["sample:N", alt.Tooltip("value:Q", title="return")],
    )


def _x(axis: str) -> alt.X:
    return alt.X(
        "x:Q", title=X_TITLES[axis], axis=alt.Axis(format="~s", tickCount=8), scale=alt.Scale(zero=False)
    )


def _y(column: str) -> alt.Y:
    return alt.Y(f"{column}:Q", title="evaluation return", scale=alt.Scale(zero=False))


def _every(count: int, most: int) -> list[int]:
    """At most `most` places out of `count`, evenly spread, the last always among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(place) for place in np.linspace(0, count - 1, max(1, most))} | {count - 1})


def _present(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.fill_nan(None).filter(pl.col("x").is_not_null(), pl.col("value").is_not_null())
