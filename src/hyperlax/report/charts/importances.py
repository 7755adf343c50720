"""Charts of the influence of each hyperparameter: PED-ANOVA importances and Sobol' indices."""

from __future__ import annotations

import altair as alt
import numpy as np
import polars as pl

from hyperlax.report.charts.style import (
    NEUTRAL,
    WIDTH,
    Chart,
    NothingToDraw,
    colour_of,
    finished,
    lighten,
)
from hyperlax.report.draws import fewer_steps_words, unscored_words
from hyperlax.report.importance import importance_table
from hyperlax.report.scores import DESCRIPTION, SCORE, words_of
from hyperlax.report.sensitivity import noise_of, sobol_table
from hyperlax.statistics import Unavailable
from hyperlax.storage.results import Results

_CHANCE = "#b8860b"
_MAX_ROWS = 40
_WIDEST = (-0.5, 1.5)
"""Widest limits of the axis for Sobol' indices; intervals from few rows can exceed them and are cut off."""


def importance_chart(results: Results) -> Chart:
    """Draw the importance of every hyperparameter for being among the best tenth of the samples.

    Each bar has a tick at the level that chance alone would reach.
    """
    try:
        rows = importance_table(results)
    except Unavailable as reason:
        raise NothingToDraw(str(reason)) from reason
    shown = rows.head(_MAX_ROWS).drop(DESCRIPTION)
    y = alt.Y("hyperparameter:N", title=None, sort=shown["hyperparameter"].to_list())
    tooltip = [alt.Tooltip("hyperparameter:N"), *(_number(c) for c in ("importance", "chance", "p"))]
    base = alt.Chart(shown)
    layers = [
        base.mark_bar(color=colour_of(results.manifest), opacity=0.55, height=13).encode(
            y=y,
            x=alt.X("importance:Q", title="importance", axis=alt.Axis(format="%", tickCount=10)),
            tooltip=tooltip,
        ),
        base.mark_tick(color=_CHANCE, thickness=2, size=17).encode(y=y, x=alt.X("chance:Q"), tooltip=tooltip),
    ]
    left_out = (
        f" The {len(shown)} most important of {len(rows)} hyperparameters are shown."
        if len(rows) > len(shown)
        else ""
    )
    return finished(
        alt.layer(*layers).properties(width=WIDTH - 240, height=alt.Step(22)),
        "Importance of hyperparameters",
        [
            "PED-ANOVA: how much the values of the best tenth of the samples (at least five) differ from "
            f"those of all samples, as a share of the sum over all hyperparameters.{left_out}"
            + fewer_steps_words([results])
            + unscored_words([results]),
            "Yellow tick: in 95 % of reports no hyperparameter without effect reaches beyond its tick. No "
            "effect is claimed for a hyperparameter whose bar does not.",
        ],
    )


def sobol_chart(results: Results) -> Chart:
    """Draw the first-order and total Sobol' index of every hyperparameter, with intervals."""
    try:
        table = sobol_table(results)
    except Unavailable as reason:
        raise NothingToDraw(str(reason)) from reason
    known = table.drop_nulls("total").sort("total", descending=True)
    if known.is_empty():
        raise NothingToDraw("Sobol’ indices need at least two base rows with different returns.")
    shown = known.head(_MAX_ROWS)
    rows = pl.concat(
        [
            shown.select(
                "hyperparameter", "rows", index=pl.lit(name), value=key, low=f"{key}_low", high=f"{key}_high"
            )
            for key, name in (("first", "first order"), ("total", "total"))
        ]
    )
    colour = colour_of(results.manifest)
    encoding = {
        "y": alt.Y("hyperparameter:N", title=None, sort=shown["hyperparameter"].to_list()),
        "yOffset": alt.YOffset("index:N", sort=["first order", "total"]),
        "tooltip": [
            alt.Tooltip("hyperparameter:N"),
            alt.Tooltip("index:N"),
            *(_number(c) for c in ("value", "low", "high")),
            alt.Tooltip("rows:Q"),
        ],
    }
    legend = alt.Color(
        "index:N",
        scale=alt.Scale(domain=["first order", "total"], range=[colour, lighten(colour, 0.6)]),
        legend=alt.Legend(title=None),
    )
    ends = rows.select("value", "low", "high").cast(pl.Float64).fill_null(np.nan).to_numpy()
    low, high = min(0.0, float(np.nanmin(ends))), max(1.0, float(np.nanmax(ends)))
    beyond = low < _WIDEST[0] or high > _WIDEST[1]
    scale = alt.Scale(domain=[max(low, _WIDEST[0]), min(high, _WIDEST[1])], nice=False)
    base = alt.Chart(rows)
    bars = base.mark_bar(clip=True).encode(
        x=alt.X("value:Q", title=f"share of the variance of the {words_of(results, SCORE)}", scale=scale),
        color=legend,
        **encoding,
    )
    return finished(
        alt.layer(bars, _interval(base, "low", "high").encode(**encoding)).properties(
            width=WIDTH - 340, height=alt.Step(13)
        ),
        "Sobol’ indices",
        [
            "Share of the variance between samples that a hyperparameter explains alone (first order), and "
            "alone or in interaction with others (total). Grey: approximate 95 % bootstrap intervals over 64 "
            "or more rows, too narrow where a few of them hold most of the variance"
            + (", some of them cut off." if beyond else "."),
            *_caveats(results, table),
        ],
    )


def _caveats(results: Results, table: pl.DataFrame) -> list[str]:
    """Say what limits the reliability of the indices: few base rows, lost evaluations, noise of the seeds."""
    drawn = int((results.samples["matrix"] == "A").sum())
    fewest = int(table["rows"].to_numpy().min())
    sentences = [
        f"{drawn} base rows." if drawn >= 64 else f"Only {drawn} base rows; several hundred are usual."
    ]
    if fewest < drawn:
        sentences.append(
            f"Rows with a lost evaluation are left out; only {fewest} rows remain for at least one index, "
            "which therefore describes only the part of the space that could be evaluated."
        )
    noise = noise_of(results)
    sentences.append(
        "With one seed per sample, the noise of training cannot be distinguished from an effect: it lowers "
        "first-order indices and raises total indices."
        if np.isnan(noise)
        else f"{noise:.0%} of the variance is noise of the seeds. It lowers first-order indices, and a "
        "hyperparameter without effect has a total index of about this size."
    )
    return [" ".join(sentences)]


def _interval(chart: alt.Chart, low: str, high: str) -> alt.Chart:
    return chart.mark_rule(color=NEUTRAL, strokeWidth=2.5, clip=True).encode(
        x=alt.X(f"{low}:Q"), x2=alt.X2(f"{high}:Q")
    )


def _number(column: str) -> alt.Tooltip:
    return alt.Tooltip(f"{column}:Q", format=".3f")
