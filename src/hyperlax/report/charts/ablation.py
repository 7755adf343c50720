"""Paired differences: what changing one hyperparameter alone does to the return in training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import altair as alt
import polars as pl

from hyperlax.report.charts.curves import X_TITLES
from hyperlax.report.charts.style import (
    NEUTRAL,
    WIDTH,
    Chart,
    Layered,
    NothingToDraw,
    colour_of,
    finished,
    of_returns,
    over_training,
    steps_axis,
)
from hyperlax.report.figures import pairs
from hyperlax.report.figures.drawing import curve_table, thinned_words
from hyperlax.report.figures.panels import MOST_GROUPS, Panel, grouped, panels
from hyperlax.report.scores import title_of
from hyperlax.storage.results import Results


@dataclass(frozen=True)
class Comparison:
    """One ablated hyperparameter: the differences of its other values from the first, as a panel of pairs."""

    path: str
    against: str
    values: list[str]
    differences: Panel
    labels: pl.Series


def ablated(results: Results) -> list[str]:
    """Return the hyperparameters of few values that differ within pairs of samples; none without pairs."""
    samples = results.samples
    if "pair" not in samples.columns:
        return []
    within = samples.group_by("pair").agg(pl.exclude("sample", "matrix").n_unique())
    differing = [path for path in within.columns[1:] if (within[path] > 1).any()]
    return [path for path in differing if samples[path].n_unique() <= MOST_GROUPS]


def comparisons(results: Results) -> Iterator[Comparison]:
    """Yield a comparison for every hyperparameter that is `ablated`; none before the first evaluation."""
    try:
        several = panels([results]) if ablated(results) else []
    except NothingToDraw:
        return
    for path in ablated(results):
        groups, own = grouped(several, [path])
        gaps, named = pairs.difference_panels(several, own, [path], groups[1:], groups[0])
        yield Comparison(path, groups[0], groups[1:], gaps[0], named[0])


def ablation_table(results: Results) -> pl.DataFrame:
    """Return the differences of scores, one row per hyperparameter and value, or no row without pairs.

    Columns: `hyperparameter`, `value`, `against`, and those of `pairs.SUMMARY` from `pairs` on.
    """
    found = [
        pairs.summary([c.differences], [c.labels], c.values, c.against).select(
            pl.lit(c.path).alias("hyperparameter"), pl.col("group").alias("value"), pl.exclude("env", "group")
        )
        for c in comparisons(results)
    ]
    return pl.concat(found) if found else pl.DataFrame()


def ablation_notes(results: Results) -> list[str]:
    """Say what the pairs show, one sentence for each row of `ablation_table`."""
    score = title_of([results])
    rows = []
    for c in comparisons(results):
        found = pairs.summary([c.differences], [c.labels], c.values, c.against)
        rows += [(row, c.path) for row in found.iter_rows(named=True)]
    return pairs.summary_words(rows, score)


def ablation_chart(results: Results) -> Chart:
    """Draw the difference of every pair as a thin line, and the median over pairs with its 95 % interval."""
    drawn, thinned = [], {}
    for c in comparisons(results):
        several, labels = [c.differences], [c.labels]
        middle = curve_table(several, c.values, labels, "median", "interval")
        each = curve_table(several, c.values, labels, "all", "none")
        if said := thinned_words(several, c.values, labels, "all"):
            thinned[c.path] = said.replace("samples", "pairs")
        for value in c.values:
            title = f"{c.path}: {value} − {c.against}"
            own = pl.col("group") == value
            drawn.append(_panel(middle.filter(own), each.filter(own), title, colour_of(results.manifest)))
    if not drawn:
        why = "No evaluation has been written yet." if ablated(results) else "No samples were drawn in pairs."
        raise NothingToDraw(why)
    rows = [alt.hconcat(*drawn[place : place + 2], spacing=30) for place in range(0, len(drawn), 2)]
    return finished(
        alt.vconcat(*rows, spacing=24),
        "Paired differences in return",
        [
            "Samples of a pair agree in all else, have the same random keys, and are compared seed by seed.",
            "Thin lines: pairs, averaged over seeds. Line: median over pairs; band: its 95 % interval, "
            "by order statistics.",
            *(f"{path}:{said}" for path, said in thinned.items()),
        ],
    )


def _panel(middle: pl.DataFrame, each: pl.DataFrame, title: str, colour: str) -> Layered:
    """Draw one comparison: `middle` is the table of the median, `each` that of the pairs."""
    x = alt.X(
        "x:Q",
        title=X_TITLES["env_steps"],
        axis=steps_axis(6),
        scale=over_training(),
    )
    y = alt.Y("value:Q", title="difference in return", scale=of_returns())
    tooltip = [alt.Tooltip(f"{column}:Q", format=",.4~g") for column in ("x", "value", "low", "high")]
    zero = alt.Chart(pl.DataFrame({"value": [0.0]})).mark_rule(strokeDash=[4, 4], color=NEUTRAL).encode(y=y)
    thin = (
        alt.Chart(each)
        .mark_line(strokeWidth=1, opacity=0.5, color=NEUTRAL)
        .encode(x=x, y=y, detail=alt.Detail("line:N"))
    )
    base = alt.Chart(middle).encode(x=x, tooltip=tooltip)
    layers = [
        zero,
        thin,
        base.mark_line(
            strokeWidth=2.5, color=colour, point={"color": colour} if middle.height < 16 else False
        ).encode(y=y),
    ]
    bounded = middle.drop_nulls(["low", "high"])
    if not bounded.is_empty():
        band = alt.Chart(bounded).mark_area(opacity=0.16, color=colour)
        layers.insert(
            1, band.encode(x=x, y=alt.Y("low:Q", title="difference in return"), y2=alt.Y2("high:Q"))
        )
    return alt.layer(*layers).properties(
        title=alt.TitleParams(title, fontSize=12), width=(WIDTH - 200) // 2, height=260
    )
