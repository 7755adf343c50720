"""Charts of what a schedule decided: copies in population-based training, and stops in successive halving."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import altair as alt
import polars as pl

from hyperlax.experiments.settings import Settings
from hyperlax.report.charts.slices import space_by_column
from hyperlax.report.charts.style import (
    DIVERGED,
    HIGHLIGHT,
    MAX_ROWS,
    NEUTRAL,
    WIDTH,
    Chart,
    Layered,
    NothingToDraw,
    axis_format,
    colour_of,
    finished,
    none_or_picked,
)
from hyperlax.report.lineage import Span, ancestry, best_lane, explored
from hyperlax.schedules.asha import rungs
from hyperlax.schedules.base import decisions
from hyperlax.storage.results import Results

_MAX_SEEDS = 4
_MAX_PANELS = 12
_COLUMNS = 3
_X_TITLE = "environment steps"


def lineage(results: Results) -> Chart:
    """Draw the lanes of a population over env steps, coloured by return, and the copies between them."""
    _require_schedule(results, "pbt", "Lanes copy one another only in population-based training.")
    evaluated = _evaluation_spans(results)
    best = best_lane(results)
    if best is None:
        raise NothingToDraw("No lane has an evaluation yet.")
    seed_of = dict(results.lanes.select("lane", "seed").iter_rows())
    seeds = sorted(set(evaluated["seed"]), key=lambda seed: (seed != seed_of[best], seed))
    ancestors = ancestry(results, best)
    panels = [
        _population(results, seed, evaluated, ancestors if seed == seed_of[best] else [])
        for seed in seeds[:_MAX_SEEDS]
    ]
    copies = results.lineage.select("lane", "barrier").n_unique() if len(results.lineage) else 0
    revived = results.lineage.filter(pl.col("score").is_null()).select("lane", "barrier").n_unique()
    return finished(
        alt.vconcat(*panels, spacing=24),
        "Lineage",
        [
            f"Number of copies: {copies}. Each row is a sample, coloured by its evaluation return. A "
            "vertical line leads from the copied lane to a dot in the lane that continued from the copy.",
            f"Outlined: the lineage of the lane that is best at the end (sample {ancestors[-1].sample}).",
            f"Crosses: lanes that had diverged and continued from a copy ({revived})." if revived else "",
            f"Shown: seeds {', '.join(map(str, seeds[:_MAX_SEEDS]))} of {len(seeds)} seeds."
            if len(seeds) > _MAX_SEEDS
            else "",
        ],
    )


def _evaluation_spans(results: Results) -> pl.DataFrame:
    """Return one row per lane and evaluation, with the stretch of env steps before it and its return.

    Columns: `lane`, `sample`, `seed`, `begin` (env steps of the previous evaluation, or 0), `env_steps` and
    `value` (the return).
    """
    points = results.curves.filter(pl.col("metric") == "return", pl.col("value").is_finite())
    points = points.unique(["lane", "env_steps"], keep="last").sort("lane", "env_steps")
    stride = -(-len(points) // (MAX_ROWS // 2))
    return (
        points.filter(pl.int_range(pl.len()).reverse().over("lane") % max(stride, 1) == 0)
        .with_columns(begin=pl.col("env_steps").shift(1).over("lane").fill_null(0))
        .select("lane", "sample", "seed", "begin", "env_steps", "value")
    )


def _population(results: Results, seed: int, evaluated: pl.DataFrame, ancestors: list[Span]) -> Layered:
    """Draw the lanes of one seed, with the spans of the ancestry `line` outlined."""
    own = evaluated.filter(pl.col("seed") == seed)
    x = alt.X("begin:Q", title=_X_TITLE, axis=alt.Axis(format="~s"), scale=alt.Scale(nice=False))
    y = alt.Y("sample:O", title=f"seed {seed}")
    values = evaluated["value"].to_numpy()
    scale = alt.Scale(scheme="viridis", domain=[float(values.min()), float(values.max())])
    faded = alt.when(none_or_picked()).then(alt.value(1.0)).otherwise(alt.value(0.25))
    bars = (
        alt.Chart(own)
        .mark_bar(height=9)
        .encode(
            x=x,
            x2=alt.X2("env_steps:Q"),
            y=y,
            color=alt.Color("value:Q", scale=scale, title="return"),
            opacity=faded,
            tooltip=[
                alt.Tooltip("sample:O"),
                alt.Tooltip("env_steps:Q"),
                alt.Tooltip("value:Q", title="return", format=",.4~g"),
            ],
        )
    )
    layers: list[Any] = [bars]
    if ancestors:
        rows = pl.DataFrame([{"sample": s.sample, "begin": s.start, "env_steps": s.end} for s in ancestors])
        outline = alt.Chart(rows).mark_bar(height=13, filled=False, stroke=HIGHLIGHT, strokeWidth=2)
        layers.append(outline.encode(x=x, x2=alt.X2("env_steps:Q"), y=y))
    copies = _copies(results, seed)
    for diverged, rows in copies.partition_by("diverged", as_dict=True).items():
        tooltip = [
            alt.Tooltip("parent:O"),
            alt.Tooltip("sample:O"),
            alt.Tooltip("begin:Q"),
            alt.Tooltip("score:Q"),
            alt.Tooltip("parent_score:Q"),
        ]
        base = alt.Chart(rows).encode(x=x, tooltip=tooltip)
        layers.append(
            base.mark_rule(color=NEUTRAL, strokeWidth=1.5).encode(y=alt.Y("parent:O"), y2=alt.Y2("sample:O"))
        )
        mark = (
            base.mark_point(shape="cross", color=DIVERGED, size=70, filled=True)
            if diverged[0]
            else base.mark_point(color=NEUTRAL, size=45, filled=True, opacity=1)
        )
        layers.append(mark.encode(y=y))
    return alt.layer(*layers).properties(width=WIDTH - 170, height=alt.Step(18))


def _copies(results: Results, seed: int) -> pl.DataFrame:
    """Return one row per copy, with the samples and the scores of the lane and of the lane it copied."""
    samples = results.lanes.select(parent="lane", from_sample="sample")
    return (
        results.lineage.filter(pl.col("seed") == seed)
        .unique(["lane", "barrier"], keep="first", maintain_order=True)
        .join(samples, on="parent", how="left")
        .select(
            "sample",
            "score",
            "parent_score",
            begin="env_steps",
            parent="from_sample",
            diverged=pl.col("score").is_null(),
        )
    )


def hyperparameter_schedules(results: Results) -> Chart:
    """Draw the hyperparameters along the lineage of the lane that is best at the end."""
    _require_schedule(results, "pbt", "Hyperparameters change only in population-based training.")
    best = best_lane(results)
    if best is None:
        raise NothingToDraw("No lane has an evaluation yet.")
    ancestors = ancestry(results, best)
    names = [n for n in explored(results) if len({span.hyperparameters[n] for span in ancestors}) > 1]
    if not names:
        raise NothingToDraw("No hyperparameter of the best lane has changed.")
    spaces = space_by_column(results.manifest.get("space") or {}, names)
    panels = [
        _hyperparameter_panel(ancestors, name, spaces.get(name) or {}, results)
        for name in names[:_MAX_PANELS]
    ]
    left_out = f" Not shown: {', '.join(names[_MAX_PANELS:])}." if len(names) > _MAX_PANELS else ""
    lanes = " → ".join(str(span.sample) for span in ancestors)
    return finished(
        alt.concat(*panels, columns=_COLUMNS, spacing=20),
        "Hyperparameters over training",
        [
            f"Hyperparameters along the lineage of the lane that is best at the end: samples {lanes}. "
            f"They change where the state of a lane was copied.{left_out}"
        ],
    )


def _hyperparameter_panel(
    ancestors: list[Span], name: str, space: dict[str, Any], results: Results
) -> Layered:
    """Draw one hyperparameter over the spans of an ancestry."""
    texts = [span.hyperparameters[name] for span in ancestors]
    numeric = all(_is_number(t) for t in texts)
    rows = pl.DataFrame(
        {
            "begin": [span.start for span in ancestors],
            "end": [span.end for span in ancestors],
            "sample": [span.sample for span in ancestors],
            "value": [float(t) for t in texts] if numeric else texts,
        }
    )
    axis = alt.Axis(format="~s", tickCount=4)
    x = alt.X("begin:Q", title=_X_TITLE, axis=axis, scale=alt.Scale(nice=False))
    if numeric:
        logarithmic = space.get("type") == "log_uniform"
        scale = alt.Scale(type="log") if logarithmic else alt.Scale(zero=False)
        form = ".1~e" if logarithmic else axis_format(rows["value"])
        step = 1 if all(t.isdigit() for t in texts) else alt.Undefined
        axis = alt.Axis(format=form, tickCount=4, tickMinStep=step)
        y = alt.Y("value:Q", title=name, scale=scale, axis=axis)
    else:
        y = alt.Y("value:N", title=name)
    tooltip = [alt.Tooltip("value"), alt.Tooltip("sample:O"), alt.Tooltip("begin:Q"), alt.Tooltip("end:Q")]
    base = alt.Chart(rows).encode(x=x, y=y, tooltip=tooltip)
    colour = colour_of(results.manifest)
    bar = base.mark_rule(color=colour, strokeWidth=3).encode(x2=alt.X2("end:Q"))
    point = base.mark_point(color=colour, filled=True, size=45, opacity=1)
    return alt.layer(bar, point).properties(width=275, height=130)


def pruned_at_rungs(results: Results) -> Chart:
    """Draw the mean return of every sample at each rung, and whether the sample continued from there."""
    schedule = _require_schedule(results, "asha", "Samples are stopped at rungs only in successive halving.")
    stored = results.manifest["settings"]
    settings = Settings(total_timesteps=stored["total_timesteps"], evaluations=stored["evaluations"])
    rung_steps = rungs(decisions(settings), schedule["reduction_factor"], schedule["minimum"])
    rows = _at_rungs(results, [*rung_steps, settings.total_timesteps])
    if rows.is_empty():
        raise NothingToDraw("No sample has reached a rung yet.")
    order = rows.sort("rung")["label"].unique(maintain_order=True).to_list()
    # Those that came farthest first, so that every rung keeps its share of the samples.
    samples = rows["sample"].value_counts().sort("count", "sample", descending=[True, False])
    stride = -(-len(rows) // MAX_ROWS)
    rows = rows.join(samples.gather_every(stride), on="sample", how="semi", maintain_order="left")
    colour = colour_of(results.manifest)
    faded = alt.when(none_or_picked()).then(alt.value(0.9)).otherwise(alt.value(0.15))
    x = alt.X("label:N", sort=order, title=None, axis=alt.Axis(labelAngle=0))
    y = alt.Y("value:Q", title="mean return over seeds", scale=alt.Scale(zero=False))
    tooltip = [
        alt.Tooltip("sample:O"),
        alt.Tooltip("label:N"),
        alt.Tooltip("fate:N"),
        alt.Tooltip("value:Q", format=",.4~g"),
    ]
    base = alt.Chart(rows).encode(x=x, y=y, tooltip=tooltip, opacity=faded)
    fates = alt.Scale(domain=["continued", "stopped"], range=[colour, DIVERGED])
    shapes = alt.Scale(domain=["continued", "stopped"], range=["circle", "cross"])
    layers = [
        base.mark_line(color=NEUTRAL, strokeWidth=1).encode(detail=alt.Detail("sample:N")),
        base.mark_point(filled=True, size=70).encode(
            color=alt.Color("fate:N", scale=fates, title=None), shape=alt.Shape("fate:N", scale=shapes)
        ),
    ]
    return finished(
        alt.layer(*layers).properties(width=WIDTH - 150, height=300),
        "Samples that continued from each rung",
        [
            f"A sample is stopped unless it is among the best 1/{schedule['reduction_factor']:g} of the "
            "samples that have reached the rung. The first samples to reach a rung are rarely stopped, "
            "because there are few others to compare them with.",
            f"Shown: 1 in {stride} of {len(samples)} samples." if stride > 1 else "",
        ],
    )


def _at_rungs(results: Results, rung_steps: list[int]) -> pl.DataFrame:
    """Return one row for each sample and each rung that the sample has reached; the last rung is the end.

    A lane is at its end when it is done, wherever its last cycle ends. Columns: `rung` (env steps), `sample`,
    `value` (mean return over seeds at the rung), `fate` ("continued" or "stopped") and `label` (the rung with
    the numbers of samples, as text).
    """
    points = results.curves.filter(pl.col("metric") == "return", pl.col("value").is_finite())
    stopped = set(results.lanes.filter(pl.col("status") == "pruned")["sample"])
    points = points.sort("env_steps")
    done = results.lanes.filter(pl.col("status") == "done")["lane"].to_list()
    reached = [
        points.filter(pl.col("env_steps") >= rung).group_by("lane").first() for rung in rung_steps[:-1]
    ]
    reached.append(points.filter(pl.col("lane").is_in(done)).group_by("lane").last())
    found = []
    for place, (rung, here) in enumerate(zip(rung_steps, reached, strict=True)):
        means = here.group_by("sample").agg(pl.col("value").mean(), pl.len())
        beyond = {sample for later in reached[place + 1 :] for sample in later["sample"]}
        fate = pl.Series(
            ["stopped" if s in stopped and s not in beyond else "continued" for s in means["sample"]],
            dtype=pl.String,
        )
        continued = int((fate == "continued").sum())
        if place == len(rung_steps) - 1:
            label = f"the end: {len(means)} samples"
        else:
            label = f"{rung:,} steps: {continued} of {len(means)} continued"
        found.append(means.with_columns(fate=fate, rung=pl.lit(rung), label=pl.lit(label)))
    return pl.concat(found).sort("rung", "sample")


def _require_schedule(results: Results, name: str, message: str) -> dict[str, Any]:
    """Return the description of the schedule in the manifest.

    Raises `NothingToDraw` with the message `otherwise` if the schedule is not the one called `name`.
    """
    schedule = (results.manifest.get("identity") or {}).get("schedule") or {}
    if schedule.get("name") != name:
        raise NothingToDraw(message)
    return schedule


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


SCHEDULED: dict[str, Callable[[Results], Chart]] = {
    "lineage": lineage,
    "hyperparameter_schedules": hyperparameter_schedules,
    "rungs": pruned_at_rungs,
}
"""Charts of experiments with a schedule; the report of an experiment without one does not mention them."""
