"""Empirical cumulative distribution of the score over samples."""

from __future__ import annotations

import altair as alt
import numpy as np
import polars as pl

from hyperlax.report.charts.style import (
    HIGHLIGHT,
    MAX_ROWS,
    WIDTH,
    Chart,
    NothingToDraw,
    family_colours,
    family_shape,
    finished,
    is_picked,
    none_or_picked,
    sample_keys,
)
from hyperlax.report.draws import dependence, fewer_steps_words, no_interval_words, unscored_words
from hyperlax.report.scores import sample_scores, title_of
from hyperlax.statistics import performance_profile, without_interval
from hyperlax.storage.results import Results

_MAX_POINTS = 500


def ecdf(*experiments: Results, shared: bool = False) -> Chart:
    """Draw the share of samples with at most a given score, as one line per family.

    The band of a family holds for all returns at once, in 95 % of cases. There is none for samples that are
    no independent draws (`draws.dependence`). `shared` says that the page also
    shows other experiments, so that a sample is identified by its family and its id.
    """
    maximum = min(_MAX_POINTS, MAX_ROWS // len(experiments))
    shown = pl.concat([_steps(results, maximum, shared or len(experiments) > 1) for results in experiments])
    if shown.is_empty():
        raise NothingToDraw("No sample has an evaluation yet.")
    names, title = [results.name for results in experiments], title_of(experiments)
    scale = alt.Scale(domain=names, range=family_colours(experiments))
    legend = alt.Legend(title=None, symbolOpacity=1) if len(names) > 1 else None
    colour = alt.Color("family:N", scale=scale, legend=legend)
    x = alt.X("value:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=10))
    y = alt.Y("share:Q", title="share of samples at or below", scale=alt.Scale(domain=[0, 1]))
    base = alt.Chart(shown).encode(x=x)
    point = base.mark_point(filled=True, size=34).encode(
        y=y,
        shape=family_shape(experiments, "family", legend),
        color=alt.when(is_picked()).then(alt.value(HIGHLIGHT)).otherwise(colour),
        opacity=alt.when(none_or_picked()).then(alt.value(0.85)).otherwise(alt.value(0.3)),
        size=alt.when(is_picked()).then(alt.value(150)).otherwise(alt.value(34)),
        tooltip=[
            alt.Tooltip("family:N"),
            alt.Tooltip("sample:N"),
            alt.Tooltip("value:Q", title=title, format=",.4~g"),
            alt.Tooltip("share:Q", format=".1%"),
        ],
    )
    line = base.mark_line(interpolate="step-after", strokeWidth=2).encode(y=y, color=colour)
    layers = [line, point]
    if bounded := shown["low"].null_count() < len(shown):
        band = base.mark_area(interpolate="step-after", opacity=0.13)
        layers.insert(0, band.encode(y=alt.Y("low:Q"), y2=alt.Y2("high:Q"), color=colour))
    large = max(len(results.samples) for results in experiments) > maximum
    thinned = f" At most {maximum} samples of each family are drawn, evenly spaced by rank." if large else ""
    return finished(
        alt.layer(*layers).properties(width=WIDTH - 190, height=270),
        "Distribution over samples",
        [
            f"Share of the samples whose {title} is at most x."
            + fewer_steps_words(experiments)
            + unscored_words(experiments)
            + thinned,
            ("Bands: 95 % for all x together, over samples. " if bounded else "")
            + no_interval_words(experiments),
        ],
    )


def _steps(results: Results, maximum: int, shared: bool) -> pl.DataFrame:
    """Return the steps of the distribution at no more than `maximum` samples, in the order of their returns.

    Columns: `family`, `sample`, `value` (the score), `share` (of the samples at or below it), and
    `low`, `high` (the ends of the interval of the share; null for samples that are no independent draws).
    """
    every = sample_scores(results).select("sample", value="score").drop_nulls().sort("value", "sample")
    places = np.unique(np.linspace(0, max(0, len(every) - 1), min(len(every), maximum)).round().astype(int))
    scored = every[places]
    above = performance_profile(every["value"].to_numpy(), scored["value"].to_numpy())
    if dependence(results):
        above = without_interval(above.value)
    columns = {"share": 1 - above.value, "low": 1 - above.high, "high": 1 - above.low}
    frame = scored.with_columns(
        pl.Series(name, column, dtype=pl.Float64).fill_nan(None) for name, column in columns.items()
    )
    shown = frame.with_columns(
        family=pl.lit(results.name), sample=sample_keys(results, frame["sample"], shared)
    )
    return shown.select("family", "sample", "value", "share", "low", "high")
