"""Charts of runtime and speed against the number of lanes, with compilation shown separately."""

from __future__ import annotations

from collections.abc import Sequence

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
    colour_of,
    family_colours,
    family_shape,
    finished,
)
from hyperlax.storage.results import Results

_PANEL = ((WIDTH - 250) // 2, 250)
_DASHES = {"without compiling": [1, 0], "compiling": [6, 4], "compiling included": [6, 4]}


def runtime(results: Results) -> Chart:
    """Draw the seconds until n lanes had ended, and the env steps per second up to then.

    Dashed lines show the time of compilation, and the speed including it.
    """
    rows = progress(results)
    if rows.is_empty():
        raise NothingToDraw("No lane has ended yet.")
    rows = rows.gather_every(-(-2 * len(rows) // MAX_ROWS))
    seconds = _to_long(rows, {"without compiling": "running", "compiling": "compiling"})
    speed = _to_long(
        rows.with_columns(
            apart=_ratio(pl.col("env_steps"), pl.col("running")),
            whole=_ratio(pl.col("env_steps"), pl.col("running") + pl.col("compiling")),
        ),
        {"without compiling": "apart", "compiling included": "whole"},
    )
    if speed.is_empty():
        raise NothingToDraw("No lane has recorded how long it took.")
    colour = colour_of(results.manifest)
    return finished(
        alt.hconcat(
            _line_panel(seconds, "seconds", colour),
            _line_panel(speed, "env steps per second", colour),
            spacing=30,
        ).resolve_scale(strokeDash="independent"),
        "Runtime against lanes",
        [
            "From the start until the given number of lanes had ended. "
            "Solid: without tracing and compiling. Dashed: the time they took, and the speed including it."
        ],
    )


def progress(results: Results) -> pl.DataFrame:
    """Return the time and the env steps until n lanes had ended, for n = 1, 2, ….

    Columns: `lanes` (n); the seconds since the start, split into `compiling` (which includes tracing) and
    `running` (the rest); and `env_steps` of all lanes up to that time. A lane ends with its last evaluation.
    """
    points = (
        results.curves.filter(pl.col("metric") == "return", pl.col("seconds").is_finite())
        .select("lane", "env_steps", "seconds")
        .unique(["lane", "env_steps"], keep="last", maintain_order=True)
        .sort("lane", "env_steps")
        .with_columns(gained=pl.col("env_steps") - pl.col("env_steps").shift(1).over("lane").fill_null(0))
    )
    over = results.lanes.filter(pl.col("status").is_in(["done", "diverged", "pruned"])).select("lane")
    ends = points.group_by("lane").agg(pl.col("seconds").max()).join(over, on="lane", how="semi")
    times = np.sort(ends["seconds"].to_numpy())
    order = points.sort("seconds")
    total = np.concatenate([[0.0], np.cumsum(order["gained"].to_numpy())])
    steps = total[np.searchsorted(order["seconds"].to_numpy(), times, side="right")]
    compiling = compile_seconds(results, times)
    return pl.DataFrame(
        {
            "lanes": np.arange(1, len(times) + 1),
            "compiling": compiling,
            "running": times - compiling,
            "env_steps": steps.astype(float),
        }
    )


def compile_seconds(results: Results, until: np.ndarray) -> np.ndarray:
    """Return the seconds before each time of `until` that the run spent on tracing or compiling only.

    Compiling one program while another one trains does not delay the run, so it is not counted.
    """
    spans = results.timeline.filter(pl.col("end").is_finite(), pl.col("start").is_finite())
    compiled = spans.filter(pl.col("phase").is_in(["trace", "compile"]))
    others = spans.filter(~pl.col("phase").is_in(["trace", "compile"]))
    edges = np.unique(np.concatenate([spans["start"].to_numpy(), spans["end"].to_numpy(), [0.0]]))
    middle = (edges[1:] + edges[:-1]) / 2
    alone = _inside(compiled, middle) & ~_inside(others, middle)
    spent = np.concatenate([[0.0], np.cumsum(np.where(alone, np.diff(edges), 0.0))])
    return np.interp(until, edges, spent)


def _inside(spans: pl.DataFrame, times: np.ndarray) -> np.ndarray:
    """Whether each of `times` lies within a span, with shape (times,)."""
    begun = np.searchsorted(np.sort(spans["start"].to_numpy()), times, side="right")
    ended = np.searchsorted(np.sort(spans["end"].to_numpy()), times, side="right")
    return begun > ended


def scaling(families: Sequence[Results]) -> Chart:
    """Draw the seconds and the env steps per second of whole experiments against their numbers of lanes.

    A line joins the experiments of the same algorithm, network and recipe. Hollow marks and dashed lines show
    the time of compilation, and the speed including it.
    """
    frames = []
    for results in families:
        last = progress(results).tail(1)
        line = " ".join(str(results.manifest.get(k, "")) for k in ("algorithm", "network", "recipe"))
        frames.append(last.with_columns(name=pl.lit(results.name), line=pl.lit(line)))
    rows = pl.concat(frames)
    if rows.is_empty():
        raise NothingToDraw("No lane has ended yet.")
    rows = rows.with_columns(
        apart=_ratio(pl.col("env_steps"), pl.col("running")),
        whole=_ratio(pl.col("env_steps"), pl.col("running") + pl.col("compiling")),
    )
    seconds = _to_long(rows, {"without compiling": "running", "compiling": "compiling"})
    speed = _to_long(rows, {"without compiling": "apart", "compiling included": "whole"})
    if speed.is_empty():
        raise NothingToDraw("No lane has recorded how long it took.")
    panels = [
        _experiment_panel(data, families, title)
        for data, title in ((seconds, "seconds"), (speed, "env steps per second"))
    ]
    return finished(
        alt.hconcat(*panels, spacing=30).resolve_scale(strokeDash="independent"),
        "Runtime against lanes",
        [
            "One mark per experiment. Filled: without tracing and compiling. "
            "Hollow and dashed: the time they took, and the speed including it."
        ],
    )


def _ratio(above: pl.Expr, below: pl.Expr) -> pl.Expr:
    return pl.when(below > 0).then(above / below)


def _to_long(rows: pl.DataFrame, columns: dict[str, str]) -> pl.DataFrame:
    """Reshape `columns` of a table to one row per value, with the columns `lanes`, `value` and `kind`.

    `columns` maps each kind of line to the column that holds its values. The columns `name` and `line`, which
    identify an experiment, are kept if there are any.
    """
    identifiers = [c for c in ("lanes", "name", "line") if c in rows.columns]
    frames = [
        rows.select(*identifiers, kind=pl.lit(kind), value=pl.col(c).cast(pl.Float64))
        for kind, c in columns.items()
    ]
    return pl.concat(frames).drop_nulls("value")


def _line_panel(rows: pl.DataFrame, title: str, colour: str) -> alt.Chart:
    """Draw `value` against `lanes` for one experiment, with one line per kind."""
    sparse = len(rows) <= 60
    return (
        alt.Chart(rows)
        .mark_line(strokeWidth=2.2, color=colour, point={"size": 22, "color": colour} if sparse else False)
        .encode(
            x=alt.X("lanes:Q", axis=alt.Axis(format="~s", tickMinStep=1, tickCount=8)),
            y=alt.Y("value:Q", title=title, axis=alt.Axis(format="~s")),
            strokeDash=_dash(rows),
            tooltip=[
                alt.Tooltip("lanes:Q"),
                alt.Tooltip("kind:N"),
                alt.Tooltip("value:Q", title=title, format=",.4~g"),
            ],
        )
        .properties(width=_PANEL[0], height=_PANEL[1])
    )


def _experiment_panel(rows: pl.DataFrame, families: Sequence[Results], title: str) -> Layered:
    """Draw `value` against `lanes` with one mark per experiment and kind."""
    names = [results.name for results in families]
    scale = alt.Scale(domain=names, range=family_colours(families))
    colour = alt.Color("name:N", scale=scale, legend=alt.Legend(title=None))
    y = alt.Y("value:Q", title=title, axis=alt.Axis(format="~s"), scale=alt.Scale(zero=True))
    base = alt.Chart(rows).encode(x=_lanes(rows), y=y)
    solid = next(iter(_DASHES))
    hollow = alt.when(f"datum.kind === '{solid}'").then(alt.value(1.0)).otherwise(alt.value(0.0))
    return alt.layer(
        base.mark_line(strokeWidth=1.6, color=NEUTRAL).encode(
            detail=alt.Detail("line:N"), strokeDash=_dash(rows)
        ),
        base.mark_point(size=85, strokeWidth=1.8).encode(
            color=colour,
            fill=alt.Fill("name:N", scale=scale, legend=alt.Legend(title=None)),
            fillOpacity=hollow,
            shape=family_shape(families, "name", alt.Legend(title=None)),
            tooltip=[
                alt.Tooltip("name:N"),
                alt.Tooltip("lanes:Q"),
                alt.Tooltip("kind:N"),
                alt.Tooltip("value:Q", title=title, format=",.4~g"),
            ],
        ),
    ).properties(width=_PANEL[0], height=_PANEL[1])


def _lanes(rows: pl.DataFrame) -> alt.X:
    """Return the axis of the numbers of lanes, logarithmic if they differ by more than a factor of 20."""
    low, high = (float(v) for v in (rows["lanes"].to_numpy().min(), rows["lanes"].to_numpy().max()))
    log = high / max(low, 1.0) > 20
    scale = alt.Scale(type="log", nice=False) if log else alt.Scale(zero=False, padding=12)
    return alt.X(
        "lanes:Q", title="lanes", scale=scale, axis=alt.Axis(format="~s", tickMinStep=1, tickCount=8)
    )


def _dash(rows: pl.DataFrame) -> alt.StrokeDash:
    kinds = [kind for kind in _DASHES if kind in set(rows["kind"])]
    scale = alt.Scale(domain=kinds, range=[_DASHES[kind] for kind in kinds])
    return alt.StrokeDash("kind:N", scale=scale, legend=alt.Legend(title=None, orient="bottom"))
