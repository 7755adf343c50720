"""Scores of samples by the headline metric, which every table, chart and choice of a sample takes from here.

Which metric it is follows from the manifest (`headline_of`): the one that was asked for, the objective of a
search if it is one, otherwise that of the protocol.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from hyperlax.report.evaluations import behind, evaluations
from hyperlax.report.metrics import sample_metrics, seed_counts
from hyperlax.report.once import once
from hyperlax.statistics import FEWEST_TRIMMED, HEADLINES, Headline, iqm, mean, quantiles
from hyperlax.statistics.headline import DEFAULT, PUBLISHED
from hyperlax.storage.results import FRESH, Results

FRESH_WORDS = (
    "interquartile mean over seeds of the final weights' mean return in episodes of their own, which are no "
    "part of the learning curve and by which nothing was chosen"
)
FRESH_MEANING = f"Fresh return: {FRESH_WORDS}."


PLAIN_MEAN = f"The interquartile mean of fewer than {FEWEST_TRIMMED} seeds is their plain mean."
"""What readers of few seeds have to know, who may think that outliers are dropped."""


def headline_of(manifest: Mapping[str, Any]) -> Headline:
    """Return the headline metric of the experiment with this manifest.

    Raises `ValueError` if it is unknown.
    """
    name = manifest.get("metric")
    objectives = (manifest.get("search") or {}).get("objectives") or [None]
    if name is None and objectives[0] in HEADLINES:
        name = objectives[0]
    if name is None:
        name = PUBLISHED if manifest.get("protocol") == "published" else DEFAULT
    if name not in HEADLINES:
        raise ValueError(f"unknown metric {name!r}; known: {', '.join(HEADLINES)}")
    return HEADLINES[name]


def measured_by(results: Results, metric: str | None) -> Results:
    """Return the experiment, its confirmation included, with another headline metric; the same for None."""
    if metric is None:
        return results
    again = None if results.confirmation is None else measured_by(results.confirmation, metric)
    if results.manifest.get("metric") == metric and again is results.confirmation:
        return results
    return replace(results, manifest={**results.manifest, "metric": metric}, confirmation=again)


def measured_alike(experiments: Sequence[Results]) -> list[Results]:
    """Return experiments with one headline metric: the one they share, otherwise the default."""
    names = {headline_of(results.manifest).name for results in experiments}
    metric = names.pop() if len(names) == 1 else DEFAULT
    return [measured_by(results, metric) for results in experiments]


@once
def lane_scores(results: Results) -> pl.DataFrame:
    """Return the columns `lane`, `sample`, `seed`, `status`, `diverged` and `score`, sorted by lane.

    The score of a lane is what it contributes to that of its sample; null without an evaluation.
    """
    found = evaluations(results)
    values = headline_of(results.manifest).per_seed(found.x["env_steps"], found.values)
    own = values[found.lanes["row"].to_numpy(), found.lanes["column"].to_numpy()]
    return (
        found.lanes.select("lane", "sample", "seed", "status")
        .with_columns(
            diverged=pl.col("status") == "diverged",
            score=pl.Series(own, dtype=pl.Float64).fill_nan(None),
        )
        .sort("lane")
    )


@once
def sample_scores(results: Results) -> pl.DataFrame:
    """Return the score of every sample, sorted by id.

    Columns: `sample`; `score`, `score_low`, `score_high` (the ends of its 95 % interval, null where none
    holds); `lowest_seed`, `highest_seed`; `fresh_return`, that of the final weights in fresh episodes;
    `seeds` (lanes that count: evaluated or diverged), `seeds_done` and `seeds_diverged`.
    """
    found, headline = evaluations(results), headline_of(results.manifest)
    values = headline.per_seed(found.x["env_steps"], found.values)
    estimate = headline.of_seeds(values)
    lowest, highest = quantiles(values, (0.0, 1.0))
    columns = {
        "score": estimate.value,
        "score_low": estimate.low,
        "score_high": estimate.high,
        "lowest_seed": lowest,
        "highest_seed": highest,
        FRESH: iqm(_fresh(results), axis=1),
    }
    table = {name: pl.Series(column, dtype=pl.Float64).fill_nan(None) for name, column in columns.items()}
    scored = pl.DataFrame({"sample": pl.Series(found.samples, dtype=pl.Int64), **table})
    return scored.join(seed_counts(found), on="sample", how="left", maintain_order="left")


def ranked(results: Results) -> pl.DataFrame:
    """Return the rows of `sample_scores` that have a score, best first; equal scores in the order of ids.

    Samples that are `behind` come after all others.
    """
    late = pl.col("sample").is_in(list(behind(results)))
    found = sample_scores(results).drop_nulls("score")
    return found.sort(late, "score", descending=[False, True], maintain_order=True)


def scores(results: Results, without: Collection[int] = ()) -> Float[np.ndarray, " samples"]:
    """Return the scores of all samples that have one, in the order of their ids, but for those `without`.

    Samples that are `behind` are left out, unless all of them are.
    """
    late = pl.col("sample").is_in(list(behind(results)))
    found = sample_scores(results).drop_nulls("score").filter(~pl.col("sample").is_in(list(without)))
    level = found.filter(~late)
    return (found if level.is_empty() else level)["score"].to_numpy()


def seed_scores(results: Results, samples: Sequence[int]) -> Float[np.ndarray, "samples seeds"]:
    """Return the scores of the seeds of `samples`, NaN where there is none."""
    own = dict(lane_scores(results).drop_nulls("score").group_by("sample").agg("score").iter_rows())
    table = np.full((len(samples), max(map(len, own.values()), default=1)), np.nan)
    for row, sample in enumerate(samples):
        table[row, : len(own.get(sample, []))] = own.get(sample, [])
    return table


def described(frame: pl.DataFrame, results: Results) -> pl.DataFrame:
    """Return a table of scores with what they are of and what they mean, in the columns of `DESCRIPTION`."""
    headline = headline_of(results.manifest)
    return frame.with_columns(
        recipe=pl.lit(str(results.manifest.get("recipe", results.name))),
        metric=pl.lit(headline.name),
        definition=pl.lit(headline.definition),
    )


SCORE = "score"
"""The name of the headline metric, whichever it is, among other metrics."""


def values_of(results: Results, metric: str) -> pl.DataFrame:
    """Return the columns `sample` and `metric`: `SCORE`, or a metric of `METRICS` averaged over seeds."""
    table = sample_scores(results) if metric == SCORE else sample_metrics(results)
    return table.select("sample", metric)


def words_of(results: Results, metric: str) -> str:
    """Return what a metric is called: the title of the headline metric, otherwise its own name."""
    return headline_of(results.manifest).title if metric == SCORE else metric.replace("_", " ")


def unmeasured_words(results: Results, measured: int, title: str) -> str:
    """Say how many samples a chart leaves out that draws those `measured`, as a sentence; empty if none."""
    left = len(results.samples) - measured
    return f" Left out: {left} of {len(results.samples)} samples without a finite {title}." if left else ""


def title_of(experiments: Sequence[Results]) -> str:
    """Return the title of the headline metric that experiments share."""
    return headline_of(next(iter(experiments)).manifest).title


DESCRIPTION = ("recipe", "metric", "definition")
"""The columns that `described` adds."""


def _fresh(results: Results) -> Float[np.ndarray, "samples seeds"]:
    """Return the returns of the final weights in fresh episodes, NaN where a lane has none."""
    return mean(evaluations(results, FRESH, whole=True).values, axis=2)
