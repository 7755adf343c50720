"""Charts of the score against the number of trained parameters, and by entangler of a circuit."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import polars as pl

from hyperlax.networks.pqc import ENTANGLERS
from hyperlax.report.charts.style import (
    HIGHLIGHT,
    MAX_ROWS,
    NEUTRAL,
    WIDTH,
    Chart,
    Layered,
    NothingToDraw,
    family_colours,
    family_shape,
    finished,
    is_picked,
    jitter,
    none_or_picked,
    sample_keys,
)
from hyperlax.report.draws import fewer_steps_words, unscored_words
from hyperlax.report.leaderboard import varied_hyperparameters
from hyperlax.report.scores import SCORE, sample_scores, title_of, words_of
from hyperlax.storage.results import Results


def size_chart(*experiments: Results, shared: bool = False) -> Chart:
    """Draw the score of every sample against its number of trained parameters."""
    frames = []
    for results in experiments:
        sizes = results.lanes.group_by("sample").agg(
            pl.col("parameters").drop_nulls().first().cast(pl.Float64)
        )
        scored = _scored(results, shared or len(experiments) > 1)
        frames.append(scored.join(sizes.rename({"sample": "id"}), on="id", maintain_order="left"))
    rows = pl.concat(frames).drop_nulls()
    if rows.is_empty():
        raise NothingToDraw("No lane has recorded its parameters yet.")
    stride = -(-len(rows) // MAX_ROWS)
    sizes = rows["parameters"].to_numpy()
    log = float(sizes.max()) / max(1.0, float(sizes.min())) > 5
    x = alt.X(
        "parameters:Q",
        title="trained parameters",
        scale=alt.Scale(type="log", padding=12, nice=False) if log else alt.Scale(zero=False, padding=12),
        axis=alt.Axis(format="~s" if sizes.max() >= 1e5 else ",.0f", tickCount=8, labelOverlap=True),
    )
    chart = _points(alt.Chart(rows.gather_every(stride)), experiments).encode(x=x)
    return finished(
        chart.properties(width=WIDTH - 190, height=300),
        "Return against parameters",
        [
            ("One mark per sample." if stride == 1 else f"Shown: 1 in {stride} of {len(rows)} samples.")
            + fewer_steps_words(experiments)
            + unscored_words(experiments)
        ],
    )


def entanglement(*experiments: Results, shared: bool = False) -> Chart:
    """Draw the score by entangler, one panel per network whose samples differ in their entangler."""
    panels = [
        _entangler_panel(results, column, shared or len(experiments) > 1)
        for results in experiments
        for column in varied_hyperparameters(results.samples)
        if column.rpartition(".")[2] == "entangler"
    ]
    shown = [panel for panel in panels if panel is not None]
    if not shown:
        raise NothingToDraw("The entangler does not vary between the samples.")
    return finished(
        alt.concat(*shown, columns=2, spacing=40),
        "With and without entanglement",
        [
            f"{title_of(experiments).capitalize()} of each sample. Box: quartiles and median. "
            "Other hyperparameters vary as well."
            + fewer_steps_words(experiments)
            + unscored_words(experiments)
        ],
    )


def _entangler_panel(results: Results, column: str, shared: bool) -> Layered | None:
    """Draw the score by the value of the entangler in `column`; None without an evaluation."""
    chosen = results.samples.select(id="sample", value=pl.col(column).cast(pl.String))
    rows = _scored(results, shared).join(chosen, on="id").drop_nulls().sort("score", "id")
    if rows.is_empty():
        return None
    rows = rows.gather_every(-(-len(rows) // MAX_ROWS))
    offsets = pl.Series(jitter(len(rows)), dtype=pl.Float64)
    rows = rows.with_columns(
        offset=offsets.gather(rows.select(pl.int_range(pl.len()).over("value"))["literal"])
    )
    present = set(rows["value"])
    order = [v for v in ENTANGLERS if v in present] + sorted(present - set(ENTANGLERS))
    boxes = rows.group_by("value", maintain_order=True).agg(
        lower=pl.col("score").quantile(0.25, "linear"),
        median=pl.col("score").median(),
        upper=pl.col("score").quantile(0.75, "linear"),
        samples=pl.len(),
    )
    y = alt.Y("value:N", sort=order, title=column)
    tooltip = [
        alt.Tooltip("value:N"),
        alt.Tooltip("samples:Q"),
        *(_number(c) for c in ("lower", "median", "upper")),
    ]
    box = alt.Chart(boxes).encode(y=y, tooltip=tooltip)
    scale = alt.Scale(zero=False)
    x = alt.X("score:Q", title=words_of(results, SCORE), scale=scale, axis=alt.Axis(tickCount=6))
    layers = [
        box.mark_bar(height=26, opacity=0.25, color=NEUTRAL).encode(
            x=alt.X("lower:Q", scale=scale), x2=alt.X2("upper:Q")
        ),
        box.mark_tick(thickness=3, size=26, color=NEUTRAL).encode(x=alt.X("median:Q")),
        _points(alt.Chart(rows), [results]).encode(
            x=x, y=y, yOffset=alt.YOffset("offset:Q", scale=alt.Scale(domain=[-1.6, 1.6]))
        ),
    ]
    panel = alt.layer(*layers).properties(width=340, height=alt.Step(46))
    return panel.properties(title=alt.TitleParams(results.name, fontSize=12, offset=6)) if shared else panel


def _scored(results: Results, shared: bool) -> pl.DataFrame:
    """Return the scores, with the columns `id`, `sample` (the key of the selection), `name`, `score`."""
    found = sample_scores(results).select("score", id="sample").drop_nulls()
    keys = sample_keys(results, found["id"], shared).alias("sample")
    return found.with_columns(keys, name=pl.lit(results.name))


def _points(chart: alt.Chart, experiments: Sequence[Results]) -> alt.Chart:
    """Encode a chart as points of the score, coloured by family and linked to the selection."""
    names = [results.name for results in experiments]
    scale = alt.Scale(domain=names, range=family_colours(experiments))
    legend = alt.Legend(title=None) if len(names) > 1 else None
    return chart.mark_point(filled=True).encode(
        y=alt.Y("score:Q", title=title_of(experiments), scale=alt.Scale(zero=False)),
        color=alt.when(is_picked())
        .then(alt.value(HIGHLIGHT))
        .otherwise(alt.Color("name:N", scale=scale, legend=legend)),
        shape=family_shape(experiments, "name", legend),
        opacity=alt.when(none_or_picked()).then(alt.value(0.85)).otherwise(alt.value(0.25)),
        size=alt.when(is_picked()).then(alt.value(160)).otherwise(alt.value(60)),
        tooltip=[
            alt.Tooltip("name:N"),
            alt.Tooltip("sample:N"),
            alt.Tooltip("parameters:Q"),
            _number("score"),
        ],
    )


def _number(column: str) -> alt.Tooltip:
    return alt.Tooltip(f"{column}:Q", format=",.4~g")
