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
from jaxtyping import Bool, Float, Int

from hyperlax.report.evaluations import evaluations
from hyperlax.statistics import iqm_over_runs, quantiles
from hyperlax.storage.results import Results

Curves = Float[np.ndarray, "lanes points"]
PerLane = Float[np.ndarray, " lanes"]

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


def peak_return(returns: Curves) -> PerLane:
    """Return the largest evaluation of each curve."""
    return quantiles(returns, (1.0,))[0]


def peak_timestep(steps: Curves, returns: Curves) -> PerLane:
    """Return the env steps at which each curve first reaches its largest evaluation."""
    known = np.where(np.isnan(returns), -np.inf, returns)
    return _take(steps, np.argmax(known, axis=1)) if returns.shape[1] else peak_return(returns)


def final_return(returns: Curves) -> PerLane:
    """Return the mean of the last ⌊n/10⌋ of the n evaluations, but of at least one."""
    count = _point_count(returns)
    return _masked_mean(returns, _tail(returns, np.maximum(1, count // 10)))


def auc_at_budget(steps: Curves, returns: Curves, random: float, solved: float) -> PerLane:
    """Return the area under the curve per env step, scaled so that `random` scores 0 and `solved` scores 1.

    Values are not clipped: returns below `random` count as negative, returns above `solved` as more than 1.
    The area extends over the evaluations of the curve itself, also if its lane stopped early. NaN with fewer
    than two evaluations.
    """
    return _area_per_step(steps, (returns - random) / (solved - random))


def auc_at_budget_published(steps: Curves, returns: Curves) -> PerLane:
    """Return the area per env step under clip((y - b)/(g - b), 0, 1), as hyperlax v0.1 defines it.

    b is the minimum of the curve and g its own 90th percentile. NaN for a flat curve, and with fewer than two
    evaluations.
    """
    low, goal = quantiles(returns, (0.0, 0.9))
    span = np.where(goal > low, goal - low, np.nan)[:, None]
    return _area_per_step(steps, np.clip((returns - low[:, None]) / span, 0.0, 1.0))


def stability_score(returns: Curves) -> PerLane:
    """Return clip(1 - IQR/|median|, 0, 1) over the last max(3, ⌊n/10⌋) evaluations: 1 is a steady return.

    IQR is the interquartile range. NaN with fewer than three evaluations.
    """
    count = _point_count(returns)
    tail = np.where(_tail(returns, np.maximum(3, count // 10)), returns, np.nan)
    lower, median, upper = quantiles(tail, (0.25, 0.5, 0.75))
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
    return np.where(above.any(axis=1), crossing, np.where(_point_count(returns) > 0, np.inf, np.nan))


def time_to_target_published(steps: Curves, returns: Curves, budget: float) -> PerLane:
    """Return the env steps until 0.9 × the curve's own peak, and `budget` if that is never reached.

    A curve with a negative peak never reaches it, since 0.9 × the peak is then above the peak.
    """
    crossing = time_to_target(steps, returns, 0.9 * peak_return(returns))
    return np.where(np.isposinf(crossing), budget, crossing)


def early_learning_rate(steps: Curves, returns: Curves) -> PerLane:
    """Return the gain per env step over the first ⌊n/2⌋ of n evaluations; NaN with fewer than four."""
    half = _point_count(returns) // 2
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
    `METRICS`. A diverged lane has the metrics of the evaluations before it diverged. An undefined metric is
    null: without evaluations, without reference scores of the environment, or, for the time to target, if the
    solved score was not reached.
    """
    found = evaluations(results)
    steps, returns = found.by_lane()
    columns = metrics_by_name(steps, returns, results.manifest)
    return (
        found.lanes.select("lane", "sample", "seed", "status")
        .with_columns(
            diverged=pl.col("status") == "diverged",
            points=pl.Series(_point_count(returns), dtype=pl.Int64),
            **{name: pl.Series(column, dtype=pl.Float64) for name, column in columns.items()},
        )
        .with_columns(_finite_or_null(METRICS))
        .sort("lane")
    )


def sample_metrics(results: Results) -> pl.DataFrame:
    """Return the interquartile mean over seeds of every metric, one row per sample.

    `<metric>_low` and `<metric>_high` are the ends of the 95 % interval, null with fewer than ten seeds
    and where all seeds agree. Further columns: `seeds` (lanes with at least one evaluation), `seeds_done` and
    `seeds_diverged`. A seed that never reached the solved score counts as later than any that did; the mean
    is null if such a seed is among the middle half.
    """
    found = evaluations(results)
    steps, returns = found.by_lane()
    row, column = found.lanes["row"].to_numpy(), found.lanes["column"].to_numpy()
    stacked = np.full((*found.values.shape[:2], len(METRICS)), np.nan)
    for place, values in enumerate(metrics_by_name(steps, returns, results.manifest).values()):
        stacked[row, column, place] = values
    estimate = iqm_over_runs(stacked)
    table = {"sample": pl.Series(found.samples, dtype=pl.Int64)}
    for place, name in enumerate(METRICS):
        for suffix, array in (("", estimate.value), ("_low", estimate.low), ("_high", estimate.high)):
            table[name + suffix] = pl.Series(array[:, place], dtype=pl.Float64)
    seeds = (
        found.lanes.with_columns(points=pl.Series(_point_count(returns), dtype=pl.Int64))
        .group_by("sample")
        .agg(
            seeds=(pl.col("points") > 0).sum().cast(pl.Int64),
            seeds_done=(pl.col("status") == "done").sum().cast(pl.Int64),
            seeds_diverged=(pl.col("status") == "diverged").sum().cast(pl.Int64),
        )
    )
    measured = pl.DataFrame(table)
    return (
        seeds.join(measured, on="sample", how="left", coalesce=True)
        .with_columns(_finite_or_null(measured.columns[1:]))
        .sort("sample")
    )


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


def _point_count(returns: Curves) -> Int[np.ndarray, " lanes"]:
    """Return the number of evaluations of each curve."""
    return np.sum(~np.isnan(returns), axis=1)


def _tail(returns: Curves, size: Int[np.ndarray, " lanes"]) -> Bool[np.ndarray, "lanes points"]:
    """Mark the last `size` evaluations of each curve."""
    place, count = np.arange(returns.shape[1]), _point_count(returns)[:, None]
    return (place < count) & (place >= count - size[:, None])


def _masked_mean(returns: Curves, chosen: Bool[np.ndarray, "lanes points"]) -> PerLane:
    """Return the mean of the chosen points of each curve, NaN if none is chosen."""
    total, size = np.where(chosen, returns, 0.0).sum(axis=1), chosen.sum(axis=1)
    return np.divide(total, size, out=np.full(len(returns), np.nan), where=size > 0)


def _take(rows: Curves, place: Int[np.ndarray, " lanes"]) -> PerLane:
    """Return the entry at index `place[i]` of each row i."""
    return np.take_along_axis(rows, place[:, None], axis=1)[:, 0]


def _area_per_step(steps: Curves, heights: Curves) -> PerLane:
    """Return the area by the trapezoid rule, divided by the range of env steps that it extends over."""
    width = np.diff(steps, axis=1)
    present = ~np.isnan(width) & ~np.isnan(heights[:, 1:]) & ~np.isnan(heights[:, :-1])
    area = np.where(present, width * (heights[:, 1:] + heights[:, :-1]) / 2, 0.0).sum(axis=1)
    span = np.where(present, width, 0.0).sum(axis=1)
    return np.divide(area, span, out=np.full(len(area), np.nan), where=span > 0)
