"""Timeline of a run: the phases of every compiled program."""

from __future__ import annotations

import altair as alt
import polars as pl

from hyperlax.report.charts.style import (
    NEUTRAL,
    WIDTH,
    Chart,
    NothingToDraw,
    finished,
)
from hyperlax.storage.results import Results

PHASES = {  # colour by phase, in the order of the legend
    "trace": "#cc79a7",
    "compile": "#d55e00",
    "train": "#0072b2",
    "evaluate": "#009e73",
    "save": "#b8860b",
}
_MAX_SPANS = 1_500


def timeline(results: Results) -> Chart:
    """Draw when each program was traced, compiled, trained, evaluated and saved, one row per program."""
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
            x2=alt.X2("end:Q"),
            y=alt.Y("row:N", title=None, sort=alt.EncodingSortField("program", op="min")),
            color=alt.Color("phase:N", scale=scale, title=None),
            tooltip=[
                alt.Tooltip("row:N"),
                alt.Tooltip("phase:N"),
                alt.Tooltip("seconds:Q", format=",.3~g"),
                alt.Tooltip("start:Q", format=",.1f"),
            ],
        )
        .properties(width=WIDTH - 190, height=alt.Step(28))
    )
    thinned = (
        f"The {len(spans)} spans of time are merged into {len(shown)}." if len(shown) < len(spans) else ""
    )
    return finished(chart, "Where the time went", [_shares(spans), _speed(results, spans), thinned])


def _merged(spans: pl.DataFrame) -> pl.DataFrame:
    """Merge spans of the same program and phase across growing gaps, until about `_MAX_SPANS` are left."""
    extent = float(spans["end"].to_numpy().max() - spans["start"].to_numpy().min())
    gap, rows = extent / 4_000, spans
    while len(rows) > _MAX_SPANS and gap <= extent:
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
    """Return the seconds and the share of the total time of each phase, as text."""
    totals = (
        spans.group_by("phase")
        .agg(seconds=(pl.col("end") - pl.col("start")).sum())
        .sort("seconds", "phase", descending=[True, False])
    )
    whole = max(sum(totals["seconds"].to_list()), 1e-9)
    return ", ".join(f"{phase} {s:.1f} s ({s / whole:.0%})" for phase, s in totals.iter_rows()) + "."


def _speed(results: Results, spans: pl.DataFrame) -> str:
    """Return the env steps per second while training and over the whole run, as text; empty if unknown."""
    steps = sum(results.lanes["env_steps"].drop_nulls().to_list())
    train = spans.filter(pl.col("phase") == "train")
    seconds = sum((train["end"] - train["start"]).to_list())
    if not steps or seconds <= 0:
        return ""
    whole = float(spans["end"].to_numpy().max() - spans["start"].to_numpy().min())
    overall = steps / max(whole, seconds)
    return f"{steps / seconds:,.0f} env steps/s while training, {overall:,.0f} over the whole run."
