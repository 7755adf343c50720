"""Charts that compare experiments: families of agents on one environment."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import numpy as np
import polars as pl

from hyperlax.report.charts import bands
from hyperlax.report.charts.curves import X_TITLES
from hyperlax.report.charts.style import (
    NEUTRAL,
    WIDTH,
    Chart,
    NothingToDraw,
    family_colours,
    family_shape,
    finished,
    of_returns,
    over_training,
    steps_axis,
)
from hyperlax.report.draws import chosen, drawn_scores, repeated, repeated_words, uncompared_words
from hyperlax.report.evaluations import behind, evaluations, has_ended
from hyperlax.report.scores import headline_of, lane_scores, ranked, sample_scores, scores, title_of
from hyperlax.statistics import (
    LEVEL,
    MIN_PAIRED,
    MIN_RUNS,
    Estimate,
    best_of_k,
    difference,
    holm,
    iqm_over_strata,
    median_best_of_k,
    paired_difference,
    performance_profile,
    probability_of_improvement,
)
from hyperlax.storage.results import Results
from hyperlax.storage.wording import listed

_POINTS = 100
_MARKS = 7
_PANEL = (WIDTH - 200, 320)
_HALF = ((WIDTH - 260) // 2, 300)

Families = Sequence[Results]
"""Experiments on one environment, with distinct names."""


def tuned_curves(families: Families, x: str = "env_steps", top: int = 5) -> Chart:
    """Draw the best sample of every family, and the interquartile mean of its `top` best samples."""
    best, groups, seeds, partly = [], [], {}, ""
    for results in families:
        found = evaluations(results)
        if found.values.size == 0 or np.nanmax(found.x[x], initial=0.0) <= 0:
            continue
        place = {sample: row for row, sample in enumerate(found.samples.tolist())}
        rows = [place[s] for s in ranked(results)["sample"].to_list()[:top]]
        if not rows:
            continue
        seeds[results.name] = found.values.shape[1]
        single = bands.over_seeds(found.values[rows[:1]])
        best.append(_curve(results.name, found.x[x][rows[0]], _first_stratum(single)))
        if len(rows) > 1:
            leading = type(found)(found.samples[rows], {x: found.x[x][rows]}, found.values[rows], found.lanes)
            grid, values = leading.on_grid(x, min(found.values.shape[2], _POINTS))
            groups.append(_curve(results.name, grid, iqm_over_strata(values)))
            partly = partly or bands.uneven_words(values)
    if not best:
        raise NothingToDraw(f"No evaluation recorded its {X_TITLES[x]}.")
    most = min(top, max(map(len, map(ranked, families))))
    parts = {"best sample": best, f"interquartile mean of the best {most}": groups}
    panels = [
        alt.layer(*_bands(pl.concat(curves), families, x)).properties(
            title=alt.TitleParams(title, fontSize=12), width=_HALF[0], height=_HALF[1]
        )
        for title, curves in parts.items()
        if curves
    ]
    return finished(
        alt.hconcat(*panels, spacing=20).resolve_scale(y="shared"),
        f"Tuned learning curves against {X_TITLES[x]}",
        [
            f"The best sample{f', and the interquartile mean of the best {most} samples' if groups else ''}. "
            f"{bands.words_of_families(seeds)}",
            f"Bands of the best {most}: 95 % intervals over the seeds of these samples, "
            f"where each has {MIN_RUNS}.{partly.replace(', it is', ', an average is')}"
            if groups
            else "",
            "The samples were selected by these same evaluations, so their curves are optimistic."
            if any(len(results.samples) > 1 for results in families)
            else "",
        ],
    )


def best_of_k_chart(families: Families) -> Chart:
    """Draw the expected score of the best of k samples, against the size k of the search."""
    frames = []
    unchosen, left_out = _unchosen(families)
    for results in unchosen:
        found = best_of_k(drawn_scores(results))
        typical = median_best_of_k(drawn_scores(results))
        found = Estimate(found.value, typical.low, typical.high)
        frame = _curve(results.name, np.arange(1, len(found.value) + 1, dtype=float), found)
        points = np.unique(np.geomspace(1, max(1, len(frame)), _POINTS).round().astype(int)) - 1
        frames.append(frame[points] if len(frame) else frame)
    rows = pl.concat(frames)
    if rows.is_empty():
        raise NothingToDraw("No sample has an evaluation yet.")
    scale = alt.Scale(type="log", nice=False)
    title = title_of(families)
    largest = int(rows["x"].to_numpy().max())
    ticks = list(range(1, largest + 1)) if largest < 8 else [2**p for p in range(largest.bit_length())]
    x = alt.X("x:Q", title="samples tried (k)", scale=scale, axis=alt.Axis(format="~s", values=ticks))
    return finished(
        alt.layer(*_lines(rows, families, x, f"expected best {title}")).properties(
            width=_PANEL[0], height=_PANEL[1]
        ),
        "Best of k samples",
        [
            f"Expected {title} of the best of k random samples. Bands: 95 % intervals over samples of the "
            "return that half of the searches of size k exceed. They end where the samples are too few to "
            "bound it; the expectation itself has no interval that holds.",
            "Scores hold the luck of their seeds: trained again, the best of many scores less, and even the "
            "best of equal samples rises with k.",
            left_out,
        ],
    )


def profile_chart(families: Families) -> Chart:
    """Draw performance profiles: the share of the samples above each return."""
    unchosen, left_out = _unchosen(families)
    found = {results.name: drawn_scores(results) for results in unchosen}
    title = title_of(families)
    every = np.concatenate(list(found.values()))
    if every.size == 0:
        raise NothingToDraw("No sample has an evaluation yet.")
    thresholds = np.linspace(every.min(), every.max(), _POINTS)
    rows = pl.concat(
        [
            _curve(name, thresholds, performance_profile(values, thresholds))
            for name, values in found.items()
            if values.size
        ]
    )
    x = alt.X("x:Q", title=f"{title} τ", scale=alt.Scale(zero=False))
    return finished(
        alt.layer(*_lines(rows, families, x, "share of samples above τ")).properties(
            width=_PANEL[0], height=_PANEL[1]
        ),
        "Performance profile",
        [
            f"Share of the samples whose {title} exceeds τ. Bands: 95 % for all τ at once, over samples.",
            left_out,
        ],
    )


def _unchosen(families: Families) -> tuple[list[Results], str]:
    """Return the families whose samples with scores were not `chosen` by these, and what is left out.

    Raises `NothingToDraw` if there is none.
    """
    unchosen = [results for results in families if not chosen(results)]
    if not unchosen:
        raise NothingToDraw(
            "Samples were proposed, copied or stopped by scores: those with a score are no random ones."
        )
    said = [repeated_words(unchosen), uncompared_words(unchosen)]
    if names := [results.name for results in families if chosen(results)]:
        said.insert(
            0, f"Left out: {listed(names)}, where samples were proposed, copied or stopped by scores."
        )
    return unchosen, " ".join(filter(None, said))


def improvements(families: Families, corrected: bool = True) -> pl.DataFrame:
    """Compare every pair of families.

    Columns: `family`, `other`, `probability` (that a random sample of `family` has a higher score than a
    random sample of `other`; ties count half), `low` and `high`; `difference` (of the mean scores),
    `difference_low` and `difference_high`; `p` of the difference, `corrected` for the number of pairs or not;
    `ahead`, the family that is ahead if p is at most 0.05, else null; `values` and `other_values`, how many
    were compared. These are samples, or the seeds if both families have a single sample, as `seeds` says.
    Samples that are `repeated` are left out. `paired` says that both
    have the same samples, so that the difference is that of pairs of equal hyperparameters.
    """
    rows = []
    for i, ours in enumerate(families):
        for theirs in families[i + 1 :]:
            a, b = _compared(ours, theirs)
            better, pairs = probability_of_improvement(a, b), paired(ours, theirs) if len(a) else None
            gap = difference(a, b) if pairs is None else paired_difference(*pairs)
            rows.append(
                {
                    "family": ours.name,
                    "other": theirs.name,
                    "probability": float(better.value),
                    "low": float(better.low),
                    "high": float(better.high),
                    "difference": float(gap.value),
                    "difference_low": float(gap.low),
                    "difference_high": float(gap.high),
                    "p": gap.p,
                    "paired": pairs is not None,
                    "seeds": len(scores(ours)) == len(scores(theirs)) == 1 < max(len(a), len(b)),
                    "values": len(a),
                    "other_values": len(b),
                }
            )
    numbers = ("probability", "low", "high", "difference", "difference_low", "difference_high", "p")
    schema = {"family": pl.String, "other": pl.String, **dict.fromkeys(numbers, pl.Float64)}
    schema |= {"paired": pl.Boolean, "seeds": pl.Boolean, "values": pl.Int64, "other_values": pl.Int64}
    table = pl.DataFrame(rows, schema=schema)
    if corrected:
        table = table.with_columns(pl.Series("p", holm(table["p"].to_numpy())))
    leader = pl.when(pl.col("difference") > 0).then("family").otherwise("other")
    return table.with_columns(ahead=pl.when(pl.col("p") <= 1 - LEVEL).then(leader)).fill_nan(None)


def paired(ours: Results, theirs: Results) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the scores of equal samples of two families side by side.

    None unless both have the same samples, with the same hyperparameters, and enough of them that have scores
    after equal steps for a claim.
    """
    samples = [
        results.samples.drop("matrix", "pair", strict=False).sort("sample") for results in (ours, theirs)
    ]
    apart = [*behind(ours), *behind(theirs), *repeated(ours)]
    if not samples[0].equals(samples[1]):
        return None
    scored = (sample_scores(results).select("sample", "score") for results in (ours, theirs))
    both = next(scored).join(next(scored), on="sample", suffix="_theirs").drop_nulls()
    both = both.filter(~pl.col("sample").is_in(apart))
    if both.height < MIN_PAIRED:
        return None
    return both["score"].to_numpy(), both["score_theirs"].to_numpy()


def incomparable(*families: Results) -> str:
    """Say why families have no samples that can be compared at equal steps; empty if they have.

    Samples that were `chosen` by scores are no random ones.
    """
    for results in families:
        if why := chosen(results):
            return why
    known = [results for results in families if scores(results).size]
    behind_all = [results.name for results in known if not has_ended(results)]
    return f"no lane of {behind_all[0]} has trained to the end" if 0 < len(behind_all) < len(known) else ""


def _compared(ours: Results, theirs: Results) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of the samples of two families, or of the seeds of their only samples.

    Single samples whose score is a maximum over the mean of their seeds are not compared seed by seed. There
    are none if the samples that have trained to the end were chosen (`incomparable`).
    """
    if incomparable(ours, theirs):
        return np.empty(0), np.empty(0)
    single = len(scores(ours)) == len(scores(theirs)) == 1
    if not single or headline_of(ours.manifest).maximum:
        return drawn_scores(ours), drawn_scores(theirs)
    seeds = (lane_scores(results)["score"].drop_nulls().to_numpy() for results in (ours, theirs))
    first, second = seeds
    return first, second


def improvement_chart(families: Families) -> Chart:
    """Draw the probability that a random sample of one family beats a random sample of another."""
    rows = improvements(families).drop_nulls("probability")
    if rows.is_empty():
        raise NothingToDraw("The probability of improvement needs two families with evaluations.")
    rows = rows.with_columns(pair=pl.format("{} beats {}", "family", "other"))
    title = title_of(families)
    scale = alt.Scale(domain=[0, 1])
    y = alt.Y("pair:N", title=None, sort=None)
    tooltip = [
        alt.Tooltip("pair:N"),
        *(alt.Tooltip(f"{c}:Q", format=".2f") for c in ("probability", "low", "high")),
    ]
    even = alt.Chart(pl.DataFrame({"even": [0.5]})).mark_rule(strokeDash=[4, 4], color=NEUTRAL)
    bars = alt.Chart(rows.drop_nulls("low")).mark_rule(strokeWidth=6, opacity=0.35, color=NEUTRAL)
    points = alt.Chart(rows).mark_point(filled=True, size=90, color="#0072b2")
    chart = alt.layer(
        even.encode(x=alt.X("even:Q", scale=scale)),
        bars.encode(x=alt.X("low:Q", scale=scale), x2=alt.X2("high:Q"), y=y, tooltip=tooltip),
        points.encode(x=alt.X("probability:Q", title="probability", scale=scale), y=y, tooltip=tooltip),
    )
    return finished(
        chart.properties(width=WIDTH - 280, height=alt.Step(34)),
        "Probability of improvement",
        [
            f"Probability that a random sample of the first family has the higher {title}. Bars: 95 % "
            "intervals over five samples or more on either side; with one sample each, over its seeds. A "
            "claim is decided by a permutation test of the mean scores, corrected for all comparisons on all "
            "environments.",
            repeated_words(families),
            uncompared_words([results for results in families if not chosen(results)]),
        ],
    )


def _first_stratum(estimate: Estimate) -> Estimate:
    """Select the first stratum of an estimate."""
    return Estimate(estimate.value[0], estimate.low[0], estimate.high[0])


def _curve(name: str, x: np.ndarray, estimate: Estimate) -> pl.DataFrame:
    """Return an estimate along `x` as a table with the columns `x`, `value`, `low`, `high` and `name`."""
    columns = {"x": x, "value": estimate.value, "low": estimate.low, "high": estimate.high}
    frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.Float64))
    return frame.with_columns(name=pl.lit(name)).fill_nan(None).drop_nulls(["x", "value"])


def _bands(rows: pl.DataFrame, families: Families, x: str) -> list[alt.Chart]:
    """Return the layers of `_lines` for learning curves against `x`, one of `X_TITLES`."""
    axis = alt.X("x:Q", title=X_TITLES[x], axis=steps_axis(8), scale=over_training())
    return _lines(rows, families, axis, "evaluation return")


def _lines(rows: pl.DataFrame, families: Families, x: alt.X, title: str) -> list[alt.Chart]:
    """Return layers with one line per family, its marks and, where there are any, its intervals as bands."""
    tooltip = [
        alt.Tooltip("name:N"),
        *(alt.Tooltip(f"{c}:Q", format=",.4~g") for c in ("x", "value", "low", "high")),
    ]
    y = alt.Y("value:Q", title=title, scale=of_returns())
    common = {"x": x, "color": _colour(families), "tooltip": tooltip}
    sparse = len(rows) <= 15 * len(families)
    line = alt.Chart(rows).mark_line(strokeWidth=2.3)
    marks = alt.Chart(rows if sparse else _mark_points(rows)).mark_point(filled=True, size=48, opacity=1)
    shape = family_shape(families, "name", alt.Legend(title=None, symbolOpacity=1))
    layers = [line.encode(y=y, **common), marks.encode(y=y, shape=shape, **common)]
    bounded = rows.drop_nulls(["low", "high"])
    if not bounded.is_empty():
        band = alt.Chart(bounded).mark_area(opacity=0.14)
        layers.insert(0, band.encode(y=alt.Y("low:Q", title=title), y2=alt.Y2("high:Q"), **common))
    return layers


def _mark_points(rows: pl.DataFrame) -> pl.DataFrame:
    """Select a few points of every curve for the marks of its family, at different places for each family."""
    chosen = []
    for turn, own in enumerate(rows.partition_by("name", maintain_order=True)):
        step = max(1, len(own) // _MARKS)
        chosen.append(own.gather_every(step, offset=min(len(own) - 1, (turn * step) // 3 % step)))
    return pl.concat(chosen)


def _colour(families: Families) -> alt.Color:
    scale = alt.Scale(domain=[results.name for results in families], range=family_colours(families))
    return alt.Color("name:N", scale=scale, legend=alt.Legend(title=None, symbolOpacity=1))
