"""Charts that compare experiments with published results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from hyperlax.report.charts.style import (
    HIGHLIGHT,
    MAX_ROWS,
    NEUTRAL,
    Chart,
    Layered,
    NothingToDraw,
    family_colours,
    finished,
    is_picked,
    none_or_picked,
    sample_keys,
)
from hyperlax.report.published_comparison import STATISTICS, Matched
from hyperlax.report.scores import SCORE, words_of

_SOURCES = {"ours": "circle", "published": "diamond"}
_DASHES = {"ours": [1, 0], "published": [3, 3]}


def side_by_side(found: Sequence[Matched]) -> Chart:
    """Draw our statistics of every family on one environment next to the published ones."""
    rows = pl.concat([_by_source(match.rows) for match in found]).drop_nulls("value")
    if rows.is_empty():
        raise NothingToDraw("No sample has an evaluation yet.")
    shown = [name for name in STATISTICS if name in set(rows["statistic"])]
    return finished(
        alt.hconcat(
            *(
                _statistic_panel(rows.filter(pl.col("statistic") == name), name, found, place == 0)
                for place, name in enumerate(shown)
            ),
            spacing=14,
        ),
        "Ours and published",
        [
            f"{words_of(found[0].results, SCORE).capitalize()} of both sides. Bars: 95 % intervals "
            "over samples; a published number without its samples has none.",
            "Samples that diverged count on both sides with the return of a random policy, or with the "
            "lowest return if that is lower; how a number without its samples counts them is not known.",
        ],
    )


def _by_source(rows: pl.DataFrame) -> pl.DataFrame:
    """Reshape the comparison table to one row per statistic and source (ours or published)."""
    identifiers = ["family", "statistic"]
    ours = rows.select(*identifiers, "low", "high", "ahead", value="ours", tried="samples")
    theirs = rows.select(
        *identifiers,
        "ahead",
        low="published low",
        high="published high",
        value="published",
        tried="published samples",
    ).select(ours.columns)
    return pl.concat(
        [ours.with_columns(source=pl.lit("ours")), theirs.with_columns(source=pl.lit("published"))],
        how="vertical_relaxed",
    )


def _statistic_panel(rows: pl.DataFrame, name: str, found: Sequence[Matched], first: bool) -> Layered:
    """Draw the panel of one statistic; only the first panel of the row labels the families."""
    names = [match.results.name for match in found]
    families = [match.results for match in found]
    y = alt.Y("family:N", sort=names, title=None, axis=alt.Axis() if first else None)
    aside = alt.YOffset("source:N", scale=alt.Scale(domain=list(_SOURCES)))
    x = alt.X(
        "value:Q",
        title=words_of(found[0].results, SCORE),
        scale=alt.Scale(zero=False),
        axis=alt.Axis(tickCount=4),
    )
    tooltip: list[Any] = [
        alt.Tooltip("family:N"),
        alt.Tooltip("statistic:N"),
        alt.Tooltip("source:N"),
        alt.Tooltip("tried:Q", title="samples"),
    ]
    tooltip += [alt.Tooltip(f"{c}:Q", format=",.4~g") for c in ("value", "low", "high")]
    scale = alt.Scale(domain=names, range=family_colours(families))
    colour = alt.Color("family:N", scale=scale, legend=None)
    inside = alt.when("datum.source === 'ours'").then(alt.value(1.0)).otherwise(alt.value(0.0))
    legend = alt.Legend(title=None, orient="bottom", symbolFillColor=NEUTRAL, symbolStrokeColor=NEUTRAL)
    shape = alt.Shape(
        "source:N",
        scale=alt.Scale(domain=list(_SOURCES), range=list(_SOURCES.values())),
        legend=legend,
    )
    base = alt.Chart(rows).encode(y=y, yOffset=aside, tooltip=[*tooltip, alt.Tooltip("ahead:N")])
    layers = [
        base.mark_point(size=80, strokeWidth=1.8).encode(
            x=x,
            color=colour,
            fill=alt.Fill("family:N", scale=scale, legend=None),
            fillOpacity=inside,
            shape=shape,
        )
    ]
    bounded = rows.drop_nulls(["low", "high"])
    if not bounded.is_empty():
        dash = alt.StrokeDash(
            "source:N",
            scale=alt.Scale(domain=list(_DASHES), range=list(_DASHES.values())),
            legend=legend,
        )
        bar = alt.Chart(bounded).mark_rule(strokeWidth=2).encode(y=y, yOffset=aside, color=colour)
        layers.insert(
            0,
            bar.encode(
                x=alt.X("low:Q", title=words_of(found[0].results, SCORE)),
                x2=alt.X2("high:Q"),
                strokeDash=dash,
            ),
        )
    title = alt.TitleParams(name, fontSize=12, offset=6)
    return alt.layer(*layers).properties(title=title, width=195, height=alt.Step(16))


def sample_by_sample(found: Sequence[Matched]) -> Chart:
    """Draw our score of every sample against the published score of the same sample."""
    paired = [match for match in found if len(match.pairs)]
    if not paired:
        raise NothingToDraw("The samples were not published, or their hyperparameters differ from ours.")
    colours = family_colours([match.results for match in paired])
    panels = [
        _scatter(match, colour, MAX_ROWS // len(paired))
        for match, colour in zip(paired, colours, strict=True)
    ]
    return finished(
        alt.concat(*panels, columns=3, spacing=26),
        "Sample by sample",
        [
            f"{words_of(paired[0].results, SCORE).capitalize()} of the same hyperparameters, ours "
            "against published. Dashed line: equal returns. "
            "ρ: Spearman's rank correlation with its 95 % interval over samples."
        ],
    )


def _scatter(match: Matched, colour: str, maximum: int) -> Layered:
    """Draw the pairs of one family, at most `maximum` of them, with a diagonal and their correlation."""
    keys = sample_keys(match.results, match.pairs["sample"], True)
    rows = match.pairs.with_columns(keys).gather_every(math.ceil(len(match.pairs) / maximum))
    both = pl.concat([rows["ours"], rows["published"]]).to_numpy()
    diagonal = pl.DataFrame({"ours": [both.min(), both.max()], "published": [both.min(), both.max()]})
    x = alt.X("published:Q", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4))
    y = alt.Y("ours:Q", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4))
    point = alt.Chart(rows).mark_circle(size=55)
    tooltip = [
        alt.Tooltip("sample:N"),
        *(alt.Tooltip(f"{c}:Q", format=",.4~g") for c in ("ours", "published")),
    ]
    layers = [
        alt.Chart(diagonal).mark_line(strokeDash=[4, 4], color=NEUTRAL).encode(x=x, y=y),
        point.encode(
            x=x,
            y=y,
            tooltip=tooltip,
            color=alt.when(is_picked()).then(alt.value(HIGHLIGHT)).otherwise(alt.value(colour)),
            opacity=alt.when(none_or_picked()).then(alt.value(0.8)).otherwise(alt.value(0.25)),
            size=alt.when(is_picked()).then(alt.value(140)).otherwise(alt.value(55)),
        ),
    ]
    title = alt.TitleParams(match.results.name, subtitle=correlation(match), fontSize=12, subtitleFontSize=11)
    return alt.layer(*layers).properties(title=title, width=250, height=220)


def correlation(match: Matched) -> str:
    """Format the rank correlation with its interval, as in `ρ 0.62 [0.41, 0.77], 64 samples`."""
    value, low, high = (
        float(v) for v in (match.correlation.value, match.correlation.low, match.correlation.high)
    )
    count = f"{len(match.pairs)} samples"
    if math.isnan(value):
        return f"ρ not defined, {count}"
    ends = "" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]"
    return f"ρ {value:.2f}{ends}, {count}"
