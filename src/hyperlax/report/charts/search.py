"""Charts of a search: its history, the importance of hyperparameters, and its trials in the search space."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from hyperlax.report import importance
from hyperlax.report.charts.slices import panels, space_by_column
from hyperlax.report.charts.style import (
    DIVERGED,
    HIGHLIGHT,
    MAX_ROWS,
    NEUTRAL,
    WIDTH,
    Chart,
    Layered,
    NothingToDraw,
    colour_of,
    finished,
    is_picked,
    none_or_picked,
    text,
)
from hyperlax.statistics import importances as importances_of
from hyperlax.statistics import undominated
from hyperlax.storage.results import TRIAL_COLUMNS, Results

MIN_TRIALS = 10
"""Minimum number of trials with a score for their hyperparameter importances to be meaningful."""
_MAX_DIMENSIONS = 24
_REPETITIONS = 500
_CHANCE = "#b8860b"


def history(results: Results) -> Chart:
    """Draw the score of every trial in order, and the best score so far, for each objective."""
    wanted, parts, thinned = _objectives(results), [], []
    scored = results.trials.filter(pl.col("state") != "given up")
    for name, sign in wanted.items():
        rows = scored.select("state", score=name, sample="trial").drop_nulls("score").sort("sample")
        if rows.is_empty():
            continue
        kept = pl.when(pl.col("state") == "done").then(sign * pl.col("score"))
        best = rows.with_columns(best=sign * kept.cum_max().forward_fill()).select("sample", "best")
        stride = -(-len(rows) // (MAX_ROWS // 2))
        if stride > 1:
            thinned.append(f"Points: 1 in {stride} of {len(rows)} trials.")
        drawn = rows.gather_every(stride)
        parts.append(_history(drawn, _steps(best.drop_nulls()), name, colour_of(results.manifest)))
    if not parts:
        raise NothingToDraw("No trial has ended yet.")
    note = "Line: best score so far among the trials that were trained to the end."
    worst_note = "A trial that diverged or could not be trained has the worst score."
    notes = [f"{note} {worst_note}", *dict.fromkeys(thinned)]
    return finished(alt.concat(*parts, columns=1), "History of the search", notes)


def what_mattered(results: Results) -> Chart:
    """Draw the importance of each hyperparameter for being among the best trials (PED-ANOVA)."""
    parts = []
    for name, sign in _objectives(results).items():
        rows = importances(results, name, sign)
        if rows is not None:
            parts.append(_importance(rows.head(_MAX_DIMENSIONS), name, colour_of(results.manifest)))
    if not parts:
        raise NothingToDraw(f"Importance needs {MIN_TRIALS} trials with scores that differ.")
    note = (
        "PED-ANOVA: how much the values of the best tenth of the trials (at least five) differ from those of "
        "all trials. Yellow tick: were the trials drawn at random, no hyperparameter without effect would "
        "reach beyond its tick in 95 % of reports. A search samples promising regions more densely, so the "
        "importances describe its trials rather than the whole search space, and an effect is a hint."
    )
    note += _left_out_words(results, *_objectives(results))
    return finished(alt.concat(*parts, columns=1), "Importance of hyperparameters", [note])


def slices(results: Results) -> Chart:
    """Draw the first objective of each trial against each hyperparameter, one panel per hyperparameter."""
    name = next(iter(_objectives(results)))
    varied = _varied(results)
    rows = _scored(results, name)
    if rows.is_empty() or not varied:
        raise NothingToDraw("No trial has been trained to the end yet.")
    shown = rows.rename({name: "score", "trial": "sample"})
    stride = -(-len(shown) // MAX_ROWS)
    drawn = panels(results.manifest, shown.gather_every(stride), varied, _words(name))
    left_out = _left_out_words(results, name)
    left_out += f" Shown: 1 in {stride} of {len(shown)} trials." if stride > 1 else ""
    if len(varied) > len(drawn):
        left_out += f" Shown: the first {len(drawn)} of {len(varied)} hyperparameters."
    return finished(
        alt.concat(*drawn, columns=4, spacing=18),
        "Slices through the trials",
        [
            f"{_words(name).capitalize()} of each trial trained to the end. "
            f"Tick: median of a category.{left_out}"
        ],
    )


def parallel(results: Results) -> Chart:
    """Draw one line per trial through its hyperparameters, coloured by the first objective."""
    name, sign = next(iter(_objectives(results).items()))
    every = _varied(results)
    varied = every[:_MAX_DIMENSIONS]
    rows = _scored(results, name).sort(name, descending=sign < 0)
    if rows.is_empty() or not varied:
        raise NothingToDraw("No trial has been trained to the end yet.")
    rows = rows.tail(MAX_ROWS // len(varied))
    spaces = space_by_column(results.manifest.get("space", {}), varied)
    long = pl.concat(
        rows.select(
            sample="trial",
            score=name,
            hyperparameter=pl.lit(column),
            value=pl.Series([text(v) for v in rows[column].to_list()]),
            height=_heights(rows[column], spaces.get(column, {})),
        )
        for column in varied
    )
    colour = alt.Color(
        "score:Q",
        title=_words(name),
        scale=alt.Scale(scheme="viridis", reverse=sign < 0),
        legend=alt.Legend(format=",.4~g"),
        condition={"test": is_picked(), "value": HIGHLIGHT},
    )
    chart = (
        alt.Chart(long)
        .mark_line(strokeWidth=1.5, interpolate="monotone")
        .encode(
            x=alt.X("hyperparameter:N", sort=varied, title=None, axis=alt.Axis(labelAngle=-35, grid=True)),
            y=alt.Y("height:Q", title="lowest … highest", axis=alt.Axis(labels=False, ticks=False)),
            detail=alt.Detail("sample:N"),
            color=colour,
            opacity=alt.OpacityValue(0.12, condition={"test": none_or_picked(), "value": 0.75}),
            order=alt.Order("place:Q"),
            tooltip=[
                alt.Tooltip("sample:N"),
                alt.Tooltip("hyperparameter:N"),
                alt.Tooltip("value:N"),
                alt.Tooltip("score:Q", format=",.4~g"),
            ],
        )
        .transform_calculate(place=f"indexof({json.dumps(varied)}, datum.hyperparameter)")
        .properties(width=WIDTH - 150, height=300)
    )
    omitted = len(_scored(results, name)) - len(rows)
    note = _left_out_words(results, name) + (f" Shown: the best {len(rows)} trials." if omitted else "")
    if len(every) > len(varied):
        note += f" Axes: the first {len(varied)} of {len(every)} hyperparameters that vary."
    axes_note = (
        "Each axis runs from the lowest to the highest value tried, on a logarithmic scale where the search "
        "space is logarithmic."
    )
    return finished(chart, "Trials through the space", [axes_note + note])


def pareto(results: Results) -> Chart:
    """Draw two objectives against each other, and join the Pareto-optimal trials by a line."""
    wanted = _objectives(results)
    if len(wanted) != 2:
        raise NothingToDraw("A Pareto front is drawn for two objectives.")
    (first, second), signs = wanted, np.array(list(wanted.values()))
    rows = results.trials.filter(pl.col("state") == "done").drop_nulls([first, second])
    if rows.is_empty():
        raise NothingToDraw("No trial that was trained to the end has a score for both objectives yet.")
    scores = rows.select(first, second).to_numpy() * signs
    rows = rows.select(sample="trial", x=first, y=second, front=pl.Series(undominated(scores)))
    optimal, total = int(rows["front"].sum()), len(rows)
    rows = rows.sort("front").tail(MAX_ROWS)
    front = rows.filter("front").sort("x")
    x, y = (
        alt.X("x:Q", title=_words(first), scale=alt.Scale(zero=False)),
        alt.Y("y:Q", title=_words(second), scale=alt.Scale(zero=False)),
    )
    step = "step-before" if signs[0] > 0 else "step-after"  # along what was reached, whatever the second is
    line = alt.Chart(front).mark_line(color=HIGHLIGHT, opacity=0.6, interpolate=step, strokeWidth=1.5)
    colour = alt.condition("datum.front", alt.value(colour_of(results.manifest)), alt.value(NEUTRAL))
    points = (
        alt.Chart(rows)
        .mark_circle()
        .encode(
            x=x,
            y=y,
            color=colour,
            size=alt.SizeValue(60, condition={"test": is_picked(), "value": 170}),
            opacity=alt.OpacityValue(0.25, condition={"test": none_or_picked(), "value": 0.9}),
            tooltip=[
                alt.Tooltip("sample:N", title="trial"),
                alt.Tooltip("x:Q", title=_words(first), format=",.4~g"),
                alt.Tooltip("y:Q", title=_words(second), format=",.4~g"),
            ],
        )
    )
    chart = alt.layer(line.encode(x=x, y=y), points).properties(width=560, height=380)
    return finished(
        chart,
        "Pareto front",
        [
            f"{optimal} of {total} trials are Pareto-optimal: no other trial is at least as good in "
            f"both objectives and better in one.{_left_out_words(results, first, second)}"
            + (f" Shown: {len(rows)} of them." if total > len(rows) else "")
        ],
    )


def importances(results: Results, name: str, sign: int) -> pl.DataFrame | None:
    """Return the importance of each hyperparameter for the objective `name`; None with too few trials.

    `sign` is 1 if the objective is maximised, else -1. Only trials that were trained to the end count.
    Columns: `hyperparameter`, `importance` (a share; all shares add up to 1), `chance` (the level that no
    hyperparameter without effect exceeds in 95 % of cases) and `p`, corrected for their number.
    """
    rows, varied = _scored(results, name), _varied(results)
    if len(rows) < MIN_TRIALS or rows[name].n_unique() < 2 or not varied:
        return None
    found = importance.dimensions_of(
        rows.select(pl.col("trial").alias("sample"), *varied), results.manifest.get("space") or {}
    )
    scores = sign * rows[name].to_numpy()[:, None]
    result = importances_of(scores, found, repetitions=_REPETITIONS)
    if np.isnan(result.share).all():
        return None
    table = {"hyperparameter": [d.name for d in found], "importance": result.share, "chance": result.chance}
    table["p"] = result.p
    return pl.DataFrame(table).sort("importance", descending=True)


SEARCH_CHARTS: dict[str, Callable[[Results], Chart]] = {
    "search_history": history,
    "search_pareto": pareto,
    "search_importance": what_mattered,
    "search_slices": slices,
    "search_parallel": parallel,
}
"""Every chart of a search, by file name and in the order of the report."""


def _objectives(results: Results) -> dict[str, int]:
    """Map each objective to 1 if it is maximised, else to -1."""
    about = results.manifest.get("search") or {}
    names, directions = about.get("objectives", []), about.get("directions", [])
    if results.trials.is_empty() or not names:
        raise NothingToDraw("The search has not started a trial yet.")
    return {n: 1 if d == "maximize" else -1 for n, d in zip(names, directions, strict=True)}


def _scored(results: Results, name: str) -> pl.DataFrame:
    """Return the trials that were trained to the end and have a score for the objective `name`."""
    return results.trials.filter(pl.col("state") == "done").drop_nulls(name)


def _left_out_words(results: Results, *names: str) -> str:
    """Say which trials have no place in a chart of all objectives `names`, as a sentence; empty if none."""
    kept = (pl.col("state") == "done") & pl.all_horizontal(pl.col(name).is_not_null() for name in names)
    left = results.trials.filter(~kept)["state"].value_counts().sort("state")
    states = [f"{n} {'without a score' if state == 'done' else state}" for state, n in left.iter_rows()]
    total = len(results.trials)
    return f" Left out: {left['count'].sum()} of {total} trials ({', '.join(states)})." if states else ""


def _varied(results: Results) -> list[str]:
    """Return the searched hyperparameters that differ between trials."""
    apart = {*TRIAL_COLUMNS, *_objectives(results)}
    columns = [c for c in results.trials.columns if c not in apart]
    return [c for c in columns if len({str(v) for v in results.trials[c].to_list()}) > 1]


def _importance(rows: pl.DataFrame, name: str, colour: str) -> Layered:
    """Draw importances as bars, with a tick at the chance level of each."""
    x = alt.X("importance:Q", title=f"share of importance for {name}", axis=alt.Axis(format="%", tickCount=6))
    y = alt.Y("hyperparameter:N", sort=rows["hyperparameter"].to_list(), title=None)
    tooltip = [
        alt.Tooltip("hyperparameter:N"),
        *(alt.Tooltip(f"{c}:Q", format=".1%") for c in ("importance", "chance")),
    ]
    bars = alt.Chart(rows).mark_bar(color=colour, height=13).encode(x=x, y=y, tooltip=tooltip)
    ticks = alt.Chart(rows).mark_tick(color=_CHANCE, thickness=2, size=15).encode(x=alt.X("chance:Q"), y=y)
    return alt.layer(bars, ticks).properties(width=WIDTH - 260, height=alt.Step(19))


def _history(rows: pl.DataFrame, best: pl.DataFrame, name: str, colour: str) -> Layered:
    """Draw the scores of the trials by state, and the best score so far as a line."""
    known = {"done": colour, "pruned": NEUTRAL, "diverged": DIVERGED}
    others = sorted(set(rows["state"]) - set(known))
    states = [s for s in known if s in set(rows["state"])] + others
    scale = alt.Scale(domain=states, range=[known.get(s, _CHANCE) for s in states])
    x = alt.X("sample:Q", title="trial", axis=alt.Axis(tickMinStep=1), scale=alt.Scale(nice=False, padding=8))
    legend = alt.Legend(title=None) if len(states) > 1 else None
    points = (
        alt.Chart(rows)
        .mark_point(filled=True)
        .encode(
            x=x,
            y=alt.Y("score:Q", title=_words(name), scale=alt.Scale(zero=False)),
            color=alt.Color("state:N", scale=scale, legend=legend),
            shape=alt.Shape("state:N", scale=alt.Scale(domain=states, range=_shapes(states)), legend=legend),
            size=alt.SizeValue(48, condition={"test": is_picked(), "value": 150}),
            opacity=alt.OpacityValue(0.25, condition={"test": none_or_picked(), "value": 0.85}),
            tooltip=[
                alt.Tooltip("sample:N", title="trial"),
                alt.Tooltip("state:N"),
                alt.Tooltip("score:Q", format=",.4~g"),
            ],
        )
    )
    line = alt.Chart(best).mark_line(color=HIGHLIGHT, interpolate="step-after", strokeWidth=1.5)
    return alt.layer(line.encode(x=x, y=alt.Y("best:Q")), points).properties(width=WIDTH - 150, height=240)


def _steps(best: pl.DataFrame) -> pl.DataFrame:
    """The rows in which the best score changes, at most `MAX_ROWS` of them, and the last row."""
    changed = best.filter((pl.col("best") != pl.col("best").shift()).fill_null(value=True))
    changed = changed.reverse().gather_every(max(1, -(-len(changed) // MAX_ROWS))).reverse()
    return pl.concat([changed, best.tail(1)]).unique(maintain_order=True)


def _shapes(states: list[str]) -> list[str]:
    return [{"done": "circle", "pruned": "triangle-down"}.get(state, "cross") for state in states]


def _heights(values: pl.Series, space: dict[str, Any]) -> pl.Series:
    """Scale the values of a hyperparameter to [0, 1]; categories are numbered in the order of the space."""
    if values.dtype.is_numeric() and space.get("type") != "choice":
        numbers = values.cast(pl.Float64).to_numpy()
        numbers = np.log(numbers) if space.get("type") == "log_uniform" else numbers
    else:
        labels = [text(v) for v in values.to_list()]
        order = [text(v) for v in space.get("values", [])]
        order += sorted(set(labels) - set(order))
        numbers = np.array([order.index(label) for label in labels], float)
    low, high = numbers.min(), numbers.max()
    return pl.Series((numbers - low) / (high - low) if high > low else np.full(len(numbers), 0.5))


def _words(name: str) -> str:
    return name.replace("_", " ")
