"""Metrics that summarise one learning curve, and their interquartile means over the seeds of a sample.

The pure functions take one curve per row: `steps` increase, and `returns` are NaN after the last point of a
short curve. The definitions are those of hyperlax v0.1. In v0.1 the area under the curve and the time to
target normalise each curve by its own range, so that they cannot be compared between curves, and the target
cannot be reached when returns are negative. Those two keep their definitions under the suffix `_published`;
the versions without it use fixed reference scores of the environment.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int

from hyperlax.report.evaluations import Evaluations, evaluations
from hyperlax.report.once import once
from hyperlax.statistics import iqm_over_runs, quantiles
from hyperlax.statistics.curves import (
    Curves,
    PerLane,
    area_per_step,
    final_return,
    peak_return,
    point_count,
    tail,
)
from hyperlax.storage.results import Results

METRICS = (
    "peak_return",
    "peak_timestep",
    "final_return",
    "auc_at_budget",
    "auc_at_budget_published",
    "stability_score",
    "time_to_target",
    "time_to_target_published",
    "early_learning_rate",
    "forgetting_score",
)
"""Columns of `lane_metrics`; `sample_metrics` adds `<metric>_low` and `<metric>_high`."""


def peak_timestep(steps: Curves, returns: Curves) -> PerLane:
    """Return the env steps at which each curve first reaches its largest evaluation."""
    known = np.where(np.isnan(returns), -np.inf, returns)
    return _take(steps, np.argmax(known, axis=1)) if returns.shape[1] else peak_return(returns)


def auc_at_budget(steps: Curves, returns: Curves, random: float, solved: float) -> PerLane:
    """Return the area under the curve per env step, scaled so that `random` scores 0 and `solved` scores 1.

    Values are not clipped: returns below `random` count as negative, returns above `solved` as more than 1.
    The area extends over the evaluations of the curve itself, also if its lane stopped early. NaN with fewer
    than two evaluations.
    """
    return area_per_step(steps, (returns - random) / (solved - random))


def auc_at_budget_published(steps: Curves, returns: Curves) -> PerLane:
    """Return the area per env step under clip((y - b)/(g - b), 0, 1), as hyperlax v0.1 defines it.

    b is the minimum of the curve and g its own 90th percentile. NaN for a flat curve, and with fewer than two
    evaluations.
    """
    low, goal = quantiles(returns, (0.0, 0.9))
    span = np.where(goal > low, goal - low, np.nan)[:, None]
    return area_per_step(steps, np.clip((returns - low[:, None]) / span, 0.0, 1.0))


def stability_score(returns: Curves) -> PerLane:
    """Return clip(1 - IQR/|median|, 0, 1) over the last max(3, ⌊n/10⌋) evaluations: 1 is a steady return.

    IQR is the interquartile range. NaN with fewer than three evaluations.
    """
    count = point_count(returns)
    end = np.where(tail(returns, np.maximum(3, count // 10)), returns, np.nan)
    lower, median, upper = quantiles(end, (0.25, 0.5, 0.75))
    score = np.clip(1.0 - (upper - lower) / (np.abs(median) + 1e-8), 0.0, 1.0)
    return np.where(count >= 3, score, np.nan)


def time_to_target(steps: Curves, returns: Curves, target: float | PerLane) -> PerLane:
    """Return the env steps at which each curve first reaches `target`, interpolated between evaluations.

    Infinity if it is never reached, NaN without evaluations.
    """
    if returns.shape[1] == 0:
        return np.full(len(returns), np.nan)
    goal = np.broadcast_to(np.asarray(target, float), (len(returns),))
    above = returns >= goal[:, None]
    after = np.argmax(above, axis=1)
    before = np.maximum(after - 1, 0)
    gained, wanted = _take(returns, after) - _take(returns, before), goal - _take(returns, before)
    share = np.divide(wanted, gained, out=np.zeros(len(returns)), where=gained > 0)
    crossing = _take(steps, before) + share * (_take(steps, after) - _take(steps, before))
    return np.where(above.any(axis=1), crossing, np.where(point_count(returns) > 0, np.inf, np.nan))


def time_to_target_published(steps: Curves, returns: Curves, budget: float) -> PerLane:
    """Return the env steps until 0.9 × the curve's own peak, and `budget` if that is never reached.

    A curve with a negative peak never reaches it, since 0.9 × the peak is then above the peak.
    """
    crossing = time_to_target(steps, returns, 0.9 * peak_return(returns))
    return np.where(np.isposinf(crossing), budget, crossing)


def early_learning_rate(steps: Curves, returns: Curves) -> PerLane:
    """Return the gain per env step over the first ⌊n/2⌋ of n evaluations; NaN with fewer than four."""
    half = point_count(returns) // 2
    if returns.shape[1] == 0:
        return np.full(len(returns), np.nan)
    end = np.maximum(half - 1, 0)
    gained, elapsed = _take(returns, end) - returns[:, 0], _take(steps, end) - steps[:, 0]
    return np.divide(gained, elapsed, out=np.full(len(returns), np.nan), where=(half >= 2) & (elapsed > 0))


def forgetting_score(returns: Curves) -> PerLane:
    """Return clip((peak - final)/|peak|, 0, 1): 0 if the final return equals the peak return."""
    peak, final = peak_return(returns), final_return(returns)
    lost = peak - final
    share = np.divide(lost, np.abs(peak), out=np.where(lost > 0, 1.0, lost), where=peak != 0)
    return np.clip(share, 0.0, 1.0)


def lane_metrics(results: Results) -> pl.DataFrame:
    """Return the metrics of every lane.

    Columns: `lane`, `sample`, `seed`, `status`, `diverged`, `points` (the number of evaluations) and
    `METRICS`. A lane that diverged counts as `evaluations.DIVERGED` says, and its return is not steady: its
    stability is 0. An undefined metric is null: without evaluations, without reference scores of the
    environment, or, for the time to target, if the solved score was not reached.
    """
    found = evaluations(results)
    columns = _by_name(found, results)
    return (
        found.lanes.select("lane", "sample", "seed", "status", "points")
        .with_columns(
            diverged=pl.col("status") == "diverged",
            **{name: pl.Series(column, dtype=pl.Float64) for name, column in columns.items()},
        )
        .with_columns(_finite_or_null(METRICS))
        .sort("lane")
    )


@once
def sample_metrics(results: Results) -> pl.DataFrame:
    """Return the interquartile mean over seeds of every metric, one row per sample.

    `<metric>_low` and `<metric>_high` are the ends of the 95 % interval, null with fewer than ten seeds
    and where all seeds agree. Further columns: `seeds` (lanes that count: evaluated or diverged),
    `seeds_done` and `seeds_diverged`. A seed that never reached the solved score counts as later than any
    that did; the mean is null if such a seed is among the middle half.
    """
    found = evaluations(results)
    row, column = found.lanes["row"].to_numpy(), found.lanes["column"].to_numpy()
    stacked = np.full((*found.values.shape[:2], len(METRICS)), np.nan)
    for place, values in enumerate(_by_name(found, results).values()):
        stacked[row, column, place] = values
    estimate = iqm_over_runs(stacked)
    table = {"sample": pl.Series(found.samples, dtype=pl.Int64)}
    for place, name in enumerate(METRICS):
        for suffix, array in (("", estimate.value), ("_low", estimate.low), ("_high", estimate.high)):
            table[name + suffix] = pl.Series(array[:, place], dtype=pl.Float64)
    measured = pl.DataFrame(table)
    return (
        seed_counts(found)
        .join(measured, on="sample", how="left", coalesce=True)
        .with_columns(_finite_or_null(measured.columns[1:]))
        .sort("sample")
    )


def seed_counts(found: Evaluations) -> pl.DataFrame:
    """Return the columns `sample`, `seeds` (lanes that count), `seeds_done` and `seeds_diverged`."""
    known = point_count(found.by_lane()[1]) > 0
    return (
        found.lanes.with_columns(counts=pl.Series(known, dtype=pl.Boolean))
        .group_by("sample")
        .agg(
            seeds=pl.col("counts").sum().cast(pl.Int64),
            seeds_done=(pl.col("status") == "done").sum().cast(pl.Int64),
            seeds_diverged=(pl.col("status") == "diverged").sum().cast(pl.Int64),
        )
    )


def _by_name(found: Evaluations, results: Results) -> dict[str, PerLane]:
    """Return every metric of `METRICS` of the lanes of an experiment, in the order of `found.lanes`."""
    by_name = metrics_by_name(*found.by_lane(), results.manifest)
    lost = (found.lanes["status"] == "diverged").to_numpy()
    return {**by_name, "stability_score": np.where(lost, 0.0, by_name["stability_score"])}


def reference_scores(manifest: dict[str, Any]) -> dict[str, float]:
    """Return the known reference returns of the environment: `random` (of a random policy) and `solved`."""
    scores = manifest.get("reference") or {}
    return {name: float(scores[name]) for name in ("random", "solved") if scores.get(name) is not None}


def metrics_by_name(steps: Curves, returns: Curves, manifest: dict[str, Any]) -> dict[str, PerLane]:
    """Return every metric of `METRICS` by name, in that order, for curves from `Evaluations.by_lane`.

    The reference scores of the environment and the budget are read from `manifest`, where it has them.
    """
    scores = reference_scores(manifest)
    random, solved = scores.get("random", np.nan), scores.get("solved", np.nan)
    unknown = np.full(len(returns), np.nan)
    last = steps[~np.isnan(steps)].max(initial=0.0)
    budget = float(manifest.get("settings", {}).get("total_timesteps") or last)
    return {
        "peak_return": peak_return(returns),
        "peak_timestep": peak_timestep(steps, returns),
        "final_return": final_return(returns),
        "auc_at_budget": auc_at_budget(steps, returns, random, solved),
        "auc_at_budget_published": auc_at_budget_published(steps, returns),
        "stability_score": stability_score(returns),
        "time_to_target": unknown if np.isnan(solved) else time_to_target(steps, returns, solved),
        "time_to_target_published": time_to_target_published(steps, returns, budget),
        "early_learning_rate": early_learning_rate(steps, returns),
        "forgetting_score": forgetting_score(returns),
    }


def _finite_or_null(columns) -> list[pl.Expr]:
    return [pl.when(pl.col(c).is_finite()).then(pl.col(c)).alias(c) for c in columns]


def _take(rows: Curves, place: Int[np.ndarray, " lanes"]) -> PerLane:
    """Return the entry at index `place[i]` of each row i."""
    return np.take_along_axis(rows, place[:, None], axis=1)[:, 0]
