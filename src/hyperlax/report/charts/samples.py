"""Charts of the scores of samples: the leaderboard and the distribution over samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl

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
    family_colours,
    family_shape,
    finished,
    is_picked,
    jitter,
    none_or_picked,
    sample_keys,
)
from hyperlax.report.draws import fewer_steps_words, unscored_words
from hyperlax.report.leaderboard import leaderboard
from hyperlax.report.metrics import reference_scores
from hyperlax.report.scores import SCORE, lane_scores, sample_scores, title_of, words_of
from hyperlax.storage.results import FRESH, Results

_DEFAULT_TOP = 20


def leaderboard_chart(results: Results, top: int = _DEFAULT_TOP) -> Chart:
    """Draw the scores of the best samples, each with its 95 % interval and one tick per seed."""
    table, title = leaderboard(results, top=None).drop_nulls("score"), words_of(results, SCORE)
    if table.is_empty():
        raise NothingToDraw("No sample has an evaluation yet.")
    shown = table.head(top).with_columns(name=pl.format("sample {} · rank {}", "sample", "rank"))
    seeds = (
        lane_scores(results)
        .drop_nulls("score")
        .select("sample", "seed", "status", "diverged", "score")
        .join(shown.select("sample", "name"), on="sample", maintain_order="left")
    )
    rows = shown.select("sample", "name", "rank", "score", "score_low", "score_high", FRESH)
    y = alt.Y("name:N", sort=shown["name"].to_list(), title=None, axis=alt.Axis(grid=True))
    faded = alt.when(none_or_picked()).then(alt.value(1.0)).otherwise(alt.value(0.25))
    accent = (
        alt.when(is_picked()).then(alt.value(HIGHLIGHT)).otherwise(alt.value(colour_of(results.manifest)))
    )
    encoding = {"y": y, "color": accent, "tooltip": _tooltip(rows)}
    point = alt.Chart(rows).mark_point(filled=True, size=75)
    layers = [
        point.encode(x=_x("score", title), opacity=faded, **encoding),
        *_seed_marks(seeds, y, faded, title),
    ]
    bounded = rows.drop_nulls(["score_low", "score_high"])
    if not bounded.is_empty():
        bar = alt.Chart(bounded).mark_rule(strokeWidth=6, opacity=0.3)
        layers.insert(0, bar.encode(x=_x("score_low", title), x2=alt.X2("score_high:Q"), **encoding))
    chart = alt.layer(*layers).properties(width=WIDTH - 120, height=alt.Step(22))
    shown_note = f"The best {len(shown)} of {len(table)} samples. " if len(table) > len(shown) else ""
    return finished(
        chart,
        "Leaderboard",
        [
            f"{shown_note}Point: {title} over seeds; bar: 95 % interval, if one holds; tick: one seed; "
            "cross: a seed that diverged.",
            "A rank is a range where the order is not certain; in 95 % of leaderboards all ranks hold.",
            "The best are best by luck as well: their scores are optimistic, and their intervals hold less "
            "often than in 95 % of cases."
            if len(table) > 1
            else "",
        ],
    )


def _seed_marks(seeds: pl.DataFrame, y: alt.Y, faded: Any, title: str) -> list[alt.Chart]:
    """Return layers with one mark per seed: ticks, and crosses for seeds that diverged."""
    layers = []
    for diverged, rows in seeds.partition_by("diverged", as_dict=True).items():
        base = alt.Chart(rows)
        marked = (
            base.mark_point(shape="cross", color=DIVERGED, filled=True, size=60)
            if diverged[0]
            else base.mark_tick(color=NEUTRAL, thickness=2, size=13)
        )
        tooltip = [alt.Tooltip("sample:N"), alt.Tooltip("seed:N"), alt.Tooltip("status:N"), _number("score")]
        layers.append(marked.encode(y=y, x=_x("score", title), opacity=faded, tooltip=tooltip))
    return layers


def return_distribution(*experiments: Results, shared: bool = False) -> Chart:
    """Draw the scores of all samples of each family as a box plot and as points.

    `shared` says that the page also shows other experiments, so that a sample is identified by its family and
    its id.
    """
    known = bool(reference_scores(experiments[0].manifest))
    layers, thinned = _distribution(experiments, shared or len(experiments) > 1)
    if not layers:
        raise NothingToDraw("No sample has an evaluation yet.")
    chart = alt.layer(*layers).properties(width=WIDTH - 120, height=alt.Step(110))
    return finished(
        chart,
        "Return across samples",
        [
            f"{title_of(experiments).capitalize()} of each sample (over seeds). "
            "Box: quartiles and median; whiskers: extremes."
            + fewer_steps_words(experiments)
            + unscored_words(experiments)
            + thinned,
            "Dashed: returns of a random policy and of a solved environment." if known else "",
        ],
    )


def combined_distribution(environments: Mapping[str, Sequence[Results]]) -> Chart:
    """Draw the distributions of scores on all environments, each with its own axis."""
    panels, notes, maximum = [], [], MAX_ROWS // max(1, len(environments))
    for env, families in environments.items():
        layers, thinned = _distribution(families, True, maximum, box=32)
        if layers:
            if said := fewer_steps_words(families) + unscored_words(families) + thinned:
                notes.append(f"{env}:{said}")
            panels.append(
                alt.layer(*layers).properties(
                    title=alt.TitleParams(env, fontSize=12, offset=20), width=390, height=alt.Step(58)
                )
            )
    if not panels:
        raise NothingToDraw("No sample has an evaluation yet.")
    return finished(
        alt.concat(*panels, columns=2, spacing=28).resolve_scale(color="independent", shape="independent"),
        "Return across samples, all environments",
        [
            "Score of each sample (over seeds). Box: quartiles and median; "
            "whiskers: extremes. Dashed: returns of a random policy and of a solved environment.",
            *notes,
        ],
    )


def _distribution(
    experiments: Sequence[Results], shared: bool, maximum: int = MAX_ROWS, box: int = 60
) -> tuple[list[Any], str]:
    """Return layers with boxes, points and reference scores, and a note on the samples that are left out."""
    frames = []
    for results in experiments:
        scored = sample_scores(results).select("sample", "score").drop_nulls()
        offset = pl.Series(jitter(len(scored)), dtype=pl.Float64)
        keys = sample_keys(results, scored["sample"], shared)
        frames.append(scored.with_columns(keys, family=pl.lit(results.name), offset=offset))
    rows = pl.concat(frames)
    if rows.is_empty():
        return [], ""
    stride = -(-len(rows) // maximum)
    points = rows.sort("family", "score", "sample").gather_every(stride)
    families, title = [results.name for results in experiments], title_of(experiments)
    colours = alt.Scale(domain=families, range=family_colours(experiments))
    y = alt.Y("family:N", title=None, sort=families)
    point = (
        alt.Chart(points)
        .mark_point(filled=True, size=45)
        .encode(
            y=y,
            yOffset=alt.YOffset("offset:Q", scale=alt.Scale(domain=[-1.6, 1.6])),
            x=_x("score", title),
            shape=family_shape(experiments, "family"),
            color=alt.when(is_picked())
            .then(alt.value(HIGHLIGHT))
            .otherwise(alt.Color("family:N", scale=colours, legend=None)),
            opacity=alt.when(none_or_picked()).then(alt.value(0.75)).otherwise(alt.value(0.25)),
            size=alt.when(is_picked()).then(alt.value(130)).otherwise(alt.value(45)),
            tooltip=[alt.Tooltip("family:N"), alt.Tooltip("sample:N"), _number("score")],
        )
    )
    thinned = f" Points: 1 in {stride} of {len(rows)} samples, ranked by return." if stride > 1 else ""
    return [*_boxes(rows, y, colours, box, title), point, *_reference_lines(experiments[0])], thinned


def _boxes(rows: pl.DataFrame, y: alt.Y, colours: alt.Scale, height: int, title: str) -> list[alt.Chart]:
    """Return layers with one box per family: whiskers to the extremes, the quartiles and the median."""
    boxes = rows.group_by("family", maintain_order=True).agg(
        smallest=pl.col("score").min(),
        lower=pl.col("score").quantile(0.25, "linear"),
        median=pl.col("score").median(),
        upper=pl.col("score").quantile(0.75, "linear"),
        largest=pl.col("score").max(),
        samples=pl.len(),
    )
    colour = alt.Color("family:N", scale=colours, legend=None)
    tooltip = [alt.Tooltip("family:N"), *(_number(c) for c in boxes.columns[1:])]
    base = alt.Chart(boxes).encode(y=y, color=colour, tooltip=tooltip)
    return [
        base.mark_rule().encode(x=_x("smallest", title), x2=alt.X2("largest:Q")),
        base.mark_bar(height=height, opacity=0.25).encode(x=_x("lower", title), x2=alt.X2("upper:Q")),
        base.mark_tick(thickness=3, size=height).encode(x=_x("median", title)),
    ]


def _reference_lines(results: Results) -> list[Layered]:
    """Return a layer with the reference scores of the environment; none if they are unknown."""
    scores = reference_scores(results.manifest)
    if not scores:
        return []
    rows = pl.DataFrame({"label": list(scores), "score": list(scores.values())})
    base = alt.Chart(rows).encode(x=alt.X("score:Q"))
    label = base.mark_text(baseline="bottom", dy=-4, color=NEUTRAL, fontSize=11).encode(
        text=alt.Text("label:N"), y=alt.YValue(0)
    )
    return [base.mark_rule(strokeDash=[4, 4], color=NEUTRAL) + label]


def _tooltip(rows: pl.DataFrame) -> list:
    return [
        alt.Tooltip("sample:N"),
        alt.Tooltip("rank:N"),
        *(_number(c) for c in rows.columns if rows[c].dtype == pl.Float64),
    ]


def _number(column: str) -> alt.Tooltip:
    return alt.Tooltip(f"{column}:Q", title=column.replace("_", " "), format=",.4~g")


def _x(column: str, title: str) -> alt.X:
    return alt.X(f"{column}:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=10))
