"""Learning curves of the best samples and of all samples, and the interquartile mean over all samples."""

from __future__ import annotations

import altair as alt
import numpy as np
import polars as pl
from jaxtyping import Float

from hyperlax.report.charts import bands
from hyperlax.report.charts.style import (
    HIGHLIGHT,
    MAX_ROWS,
    NEUTRAL,
    WIDTH,
    Chart,
    NothingToDraw,
    finished,
    is_picked,
    of_returns,
    over_training,
    sample_colours,
    steps_axis,
)
from hyperlax.report.draws import dependence, unscored_words
from hyperlax.report.evaluations import Evaluations, behind, evaluations
from hyperlax.report.scores import ranked
from hyperlax.statistics import iqm
from hyperlax.storage.results import Results

X_TITLES = {
    "env_steps": "environment steps",
    "seconds": "wall time (s)",
    "gradient_steps": "gradient steps",
    "circuit_executions": "circuit executions",
}
_GRID = 100
_TOP_POINTS = 150


def learning_curves(results: Results, x: str = "env_steps", top: int = 5) -> Chart:
    """Draw the return against `x`, one of `X_TITLES`.

    The `top` samples by the headline metric have bands over seeds, and the interquartile mean over all
    samples one over samples (`report.charts.bands`). Thin lines show all samples, or the seeds if there is
    only one sample.
    """
    found = evaluations(results)
    if found.values.size == 0:
        raise NothingToDraw("No evaluation has been written yet.")
    if np.nanmax(found.x[x], initial=0.0) <= 0:
        raise NothingToDraw(f"No evaluation recorded its {X_TITLES[x]}.")
    order = _rows_by_rank(results, found)
    best = order[:top]
    names = [f"sample {found.samples[row]}" for row in best]
    thin_lines, thinned = _thin_lines(found, x, order)
    shades = dict(zip(names, sample_colours(results.manifest, len(names)), strict=True))
    overall = f"IQM of {len(order)} samples"
    if len(order) > 2:
        shades[overall] = NEUTRAL
    legend = alt.Color(
        "name:N",
        scale=alt.Scale(domain=list(shades), range=list(shades.values())),
        legend=alt.Legend(title=None, symbolOpacity=1),
    )
    layers = [_thin_layer(thin_lines), *_bands(_best_curves(found, x, best, names), legend, dash=[])]
    dashed = ""
    if len(order) > 2:
        grid, values = found.on_grid(x, min(found.values.shape[2], _GRID))
        together = _overall_curve(grid, values, overall, independent=not dependence(results))
        layers += _bands(together, legend, dash=[6, 4])
        bounded, late = not together.drop_nulls(["low", "high"]).is_empty(), len(behind(results))
        partly = bands.uneven_words(values)
        if bounded or late or partly:
            dashed = bands.words_of_all(len(found.values), late, bounded) + partly
    layers.append(_selected_layer(thin_lines))
    spread = bands.words(found.values.shape[1])
    chart = alt.layer(*layers).properties(width=WIDTH - 190, height=360)
    caveat = "The best samples were selected by these same evaluations, so their curves are optimistic."
    subtitle = [
        f"{spread} Thin lines: {thinned}.{unscored_words([results])}",
        dashed,
        *([caveat] if len(order) > 1 else []),
    ]
    return finished(chart.encode(x=_x(x)), f"Learning curves against {X_TITLES[x]}", subtitle)


def _rows_by_rank(results: Results, found: Evaluations) -> list[int]:
    """Return the rows of `found` that have an evaluation, best sample first."""
    place = {sample: row for row, sample in enumerate(found.samples.tolist())}
    return [place[sample] for sample in ranked(results)["sample"].to_list()]


def _best_curves(found: Evaluations, x: str, rows: list[int], names: list[str]) -> pl.DataFrame:
    """Return the curves of the samples in `rows` with their intervals, at `_TOP_POINTS` points or fewer."""
    estimate = bands.over_seeds(found.values[rows])
    points = _evenly_spaced(found.values.shape[2], _TOP_POINTS)
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
    return _drop_missing(pl.concat(frames))


def _overall_curve(
    grid: Float[np.ndarray, " points"],
    values: Float[np.ndarray, "samples seeds points"],
    name: str,
    independent: bool,
) -> pl.DataFrame:
    """Return the interquartile mean over all samples, with its interval, on a grid of positions.

    There is an interval over samples only if these are `independent`.
    """
    estimate = bands.over_samples(values, independent)
    columns = {"x": grid, "value": estimate.value, "low": estimate.low, "high": estimate.high}
    return _drop_missing(pl.DataFrame(columns).with_columns(name=pl.lit(name), sample=pl.lit(-1)))


def _thin_lines(found: Evaluations, x: str, order: list[int]) -> tuple[pl.DataFrame, str]:
    """Return the curve of every sample (of every seed, if there is one sample) and a description of them.

    The table has at most about `MAX_ROWS` rows; the description says which samples or evaluations are shown.
    """
    count = found.values.shape[2]
    if len(order) == 1 and found.values.shape[1] > 1:
        return _seed_lines(found, x, order[0])
    points = _evenly_spaced(count, max(20, MAX_ROWS // max(1, len(order))))
    rows = [order[i] for i in _evenly_spaced(len(order), MAX_ROWS // len(points))]
    value = iqm(found.values[rows], axis=1)
    frame = pl.DataFrame(
        {
            "sample": np.repeat(found.samples[rows], len(points)),
            "line": np.repeat(found.samples[rows], len(points)),
            "x": found.x[x][np.ix_(rows, points)].ravel(),
            "value": value[:, points].ravel(),
        }
    )
    description = (
        f"all {len(order)} samples"
        if len(rows) == len(order)
        else f"{len(rows)} of {len(order)} samples, evenly spaced by rank"
    )
    description += "" if len(points) == count else f", {len(points)} of {count} evaluations"
    return _drop_missing(frame), description


def _seed_lines(found: Evaluations, x: str, row: int) -> tuple[pl.DataFrame, str]:
    """Return the curve of every seed of one sample, and a description of them."""
    seeds = found.values.shape[1]
    points = _evenly_spaced(found.values.shape[2], MAX_ROWS // seeds)
    frame = pl.DataFrame(
        {
            "sample": np.full(seeds * len(points), found.samples[row]),
            "line": np.repeat(np.arange(seeds), len(points)),
            "x": np.tile(found.x[x][row, points], seeds),
            "value": found.values[row][:, points].ravel(),
        }
    )
    return _drop_missing(frame), f"its {seeds} seeds"


def _bands(rows: pl.DataFrame, colour: alt.Color, dash: list[int]) -> list[alt.Chart]:
    """Return layers with the curves and, where there are any, their intervals as bands."""
    tooltip = [
        alt.Tooltip("name:N", title="curve"),
        alt.Tooltip("x:Q", format=",.0f"),
        alt.Tooltip("value:Q", title="return", format=",.4~g"),
        alt.Tooltip("low:Q", format=",.4~g"),
        alt.Tooltip("high:Q", format=",.4~g"),
    ]
    points = rows.group_by("name").len()["len"]
    sparse = bool((points <= (1 if dash else 15)).all())
    line = alt.Chart(rows).mark_line(
        strokeWidth=2.3, strokeDash=dash, point={"size": 26} if sparse else False
    )
    layers = [line.encode(y=_y("value"), color=colour, tooltip=tooltip)]
    bounded = rows.drop_nulls(["low", "high"])
    if not bounded.is_empty():
        band = alt.Chart(bounded).encode(y=_y("low"), y2=alt.Y2("high:Q"), color=colour, tooltip=tooltip)
        layers.insert(0, band.mark_area(opacity=0.16))
        if bool((points == 1).any()):
            layers.append(band.mark_rule(strokeWidth=2))
    return layers


def _thin_layer(rows: pl.DataFrame) -> alt.Chart:
    """Draw thin lines, fainter if there are many, and with dots if the samples have few evaluations."""
    samples = rows["line"].n_unique()
    line = alt.Chart(rows).mark_line(
        strokeWidth=1,
        opacity=0.5 if samples <= 32 else 0.2,
        color=NEUTRAL,
        point={"size": 12, "color": NEUTRAL} if len(rows) <= 15 * samples else False,
    )
    return line.encode(
        y=_y("value"),
        detail=[alt.Detail("sample:N"), alt.Detail("line:N")],
        tooltip=[alt.Tooltip("sample:N"), alt.Tooltip("value:Q", title="return")],
    )


def _selected_layer(rows: pl.DataFrame) -> alt.Chart:
    """Draw the curves of the selected samples as thick lines."""
    line = alt.Chart(rows).mark_line(strokeWidth=3, color=HIGHLIGHT, point={"size": 40, "color": HIGHLIGHT})
    return line.encode(
        y=_y("value"),
        detail=[alt.Detail("sample:N"), alt.Detail("line:N")],
        opacity=alt.when(is_picked()).then(alt.value(1.0)).otherwise(alt.value(0.0)),
        tooltip=[alt.Tooltip("sample:N"), alt.Tooltip("value:Q", title="return")],
    )


def _x(axis: str) -> alt.X:
    return alt.X("x:Q", title=X_TITLES[axis], axis=steps_axis(8), scale=over_training())


def _y(column: str) -> alt.Y:
    return alt.Y(f"{column}:Q", title="evaluation return", scale=of_returns())


def _evenly_spaced(count: int, most: int) -> list[int]:
    """Return at most `most` evenly spaced indices below `count`, which include the last one."""
    if count <= most:
        return list(range(count))
    return sorted({round(place) for place in np.linspace(0, count - 1, max(1, most))} | {count - 1})


def _drop_missing(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.fill_nan(None).filter(pl.col("x").is_not_null(), pl.col("value").is_not_null())
