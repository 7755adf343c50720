"""How the run itself went: where the time was spent, and whether training was healthy."""

from __future__ import annotations

import altair as alt
import numpy as np
import polars as pl

from hyperlax.report.charts.style import (
    MAX_ROWS,
    NEUTRAL,
    WIDTH,
    Chart,
    Layered,
    NothingToDraw,
    axis_format,
    colour_of,
    finished,
)
from hyperlax.report.evaluations import evaluations
from hyperlax.report.leaderboard import leaderboard
from hyperlax.report.statistics import iqm, quantiles
from hyperlax.results import Results

PHASES = {
    "trace": "#cc79a7",
    "compile": "#d55e00",
    "train": "#0072b2",
    "evaluate": "#009e73",
    "save": "#b8860b",
}
_MOST_SPANS = 1_500
_MOST_PANELS = 12
_COLUMNS = 3
_FIRST = ("entropy", "approx_kl", "kl", "clip_fraction", "explained_variance")


def timeline(results: Results) -> Chart:
    """Seconds spent tracing, compiling, training, evaluating and saving, one row per program."""
    spans = results.timeline.filter(pl.col("end").is_finite(), pl.col("start").is_finite())
    if spans.is_empty():
        raise NothingToDraw("No phase has been timed yet.")
    shown = _merged(spans)
    rows = shown.with_columns(
        row=pl.format("program {}", pl.col("program").fill_null(0)), seconds=pl.col("end") - pl.col("start")
    )
    known = [phase for phase in PHASES if phase in set(rows["phase"])]
    others = sorted(set(rows["phase"]) - set(PHASES))
    scale = alt.Scale(domain=known + others, range=[PHASES[p] for p in known] + [NEUTRAL] * len(others))
    chart = (
        alt.Chart(rows)
        .mark_bar(height=18)
        .encode(
            x=alt.X("start:Q", title="seconds since the start", axis=alt.Axis(format="~s")),
            x2="end:Q",
            y=alt.Y("row:N", title=None, sort=alt.EncodingSortField("program", op="min")),
            color=alt.Color("phase:N", scale=scale, title=None),
            tooltip=[
                "row:N",
                "phase:N",
                alt.Tooltip("seconds:Q", format=",.3~g"),
                alt.Tooltip("start:Q", format=",.1f"),
            ],
        )
        .properties(width=WIDTH - 190, height=alt.Step(28))
    )
    thinned = f"{len(spans)} spans, neighbours joined to {len(shown)}." if len(shown) < len(spans) else ""
    return finished(chart, "Where the time went", [_shares(spans), _speed(results, spans), thinned])


def training_health(results: Results) -> Chart:
    """Training metrics over env steps: median and middle half of all lanes, and the best sample."""
    names = _health_metrics(results)
    if not names:
        raise NothingToDraw("No training metric has been written yet.")
    points = max(2, min(60, MAX_ROWS // (2 * min(len(names), _MOST_PANELS))))
    table = leaderboard(results, top=1)
    best = table["sample"][0] if len(table) else None
    panels = [
        panel for name in names[:_MOST_PANELS] if (panel := _panel(results, name, best, points)) is not None
    ]
    if not panels:
        raise NothingToDraw("No training metric has a finite value yet.")
    left_out = (
        f" Not shown: {', '.join(n.removeprefix('train/') for n in names[_MOST_PANELS:])}."
        if len(names) > _MOST_PANELS
        else ""
    )
    return finished(
        alt.concat(*panels, columns=_COLUMNS, spacing=20),
        "Training health",
        [f"Grey: median and middle half of all lanes. Coloured: sample {best}, the best.{left_out}"],
    )


def _panel(results: Results, metric: str, best: int | None, points: int) -> Layered | None:
    found = evaluations(results, metric)
    if found.values.size == 0:
        return None
    grid, values = found.on_grid("env_steps", min(points, found.values.shape[2]))
    low, middle, high = quantiles(values.reshape(-1, len(grid)), (0.25, 0.5, 0.75), axis=0)
    columns = {"x": grid, "low": low, "value": middle, "high": high}
    rows = pl.DataFrame(columns).fill_nan(None).drop_nulls()
    x = alt.X(
        "x:Q", title="environment steps", axis=alt.Axis(format="~s", tickCount=4), scale=alt.Scale(zero=False)
    )
    name = metric.removeprefix("train/").replace("_", " ")
    scale = alt.Scale(zero=False)
    point = {"size": 16} if len(grid) < 15 else False
    base = alt.Chart(rows).encode(x=x, tooltip=[alt.Tooltip(c, format=",.4~g") for c in columns])
    layers = [
        base.mark_area(opacity=0.25, color=NEUTRAL).encode(
            y=alt.Y("low:Q", title=name, scale=scale), y2="high:Q"
        ),
        base.mark_line(color=NEUTRAL, point={"size": 16, "color": NEUTRAL} if point else False).encode(
            y=alt.Y(
                "value:Q",
                title=name,
                scale=scale,
                axis=alt.Axis(format=axis_format(rows["high"]), tickCount=4),
            )
        ),
    ]
    place = np.flatnonzero(found.samples == best)
    if len(place):
        line = pl.DataFrame({"x": grid, "value": iqm(values[place[0]], axis=0)}).fill_nan(None).drop_nulls()
        colour = colour_of(results.manifest)
        layers.append(
            alt.Chart(line)
            .mark_line(color=colour, strokeWidth=2.2, point={"size": 20, "color": colour} if point else False)
            .encode(
                x=x,
                y=alt.Y("value:Q", title=name, scale=scale),
                tooltip=[alt.Tooltip("value", format=",.4~g")],
            )
        )
    return alt.layer(*layers).properties(width=275, height=165)


def _health_metrics(results: Results) -> list[str]:
    """Names `train/…`, the usual ones of policy gradients first, then gradient norms, then the rest."""
    present = sorted(n for n in results.curves["metric"].unique().to_list() if n.startswith("train/"))

    def place(name: str) -> tuple[int, str]:
        short = name.removeprefix("train/")
        if short in _FIRST:
            return _FIRST.index(short), short
        return len(_FIRST) + ("norm" not in short), short

    return sorted(present, key=place)


def _merged(spans: pl.DataFrame) -> pl.DataFrame:
    """At most about `_MOST_SPANS` rows: equal phases of a program are joined over ever longer gaps."""
    extent = float(spans["end"].to_numpy().max() - spans["start"].to_numpy().min())
    gap, rows = extent / 4_000, spans
    while len(rows) > _MOST_SPANS and gap <= extent:
        rows = (
            spans.sort("program", "phase", "start")
            .with_columns(
                apart=(pl.col("start") - pl.col("end").shift(1)).over("program", "phase").fill_null(0) > gap
            )
            .with_columns(group=pl.col("apart").cum_sum().over("program", "phase"))
            .group_by("program", "phase", "group", maintain_order=True)
            .agg(pl.col("start").min(), pl.col("end").max())
            .drop("group")
        )
        gap *= 2
    return rows


def _shares(spans: pl.DataFrame) -> str:
    totals = (
        spans.group_by("phase")
        .agg(seconds=(pl.col("end") - pl.col("start")).sum())
        .sort("seconds", "phase", descending=[True, False])
    )
    whole = max(sum(totals["seconds"].to_list()), 1e-9)
    return ", ".join(f"{phase} {s:.1f} s ({s / whole:.0%})" for phase, s in totals.iter_rows()) + "."


def _speed(results: Results, spans: pl.DataFrame) -> str:
    steps = sum(results.lanes["env_steps"].drop_nulls().to_list())
    train = spans.filter(pl.col("phase") == "train")
    seconds = sum((train["end"] - train["start"]).to_list())
    if not steps or seconds <= 0:
        return ""
    whole = float(spans["end"].to_numpy().max() - spans["start"].to_numpy().min())
    overall = steps / max(whole, seconds)
    return f"{steps / seconds:,.0f} env steps/s while training, {overall:,.0f} over the whole run."
