"""Evaluation curves of an experiment as rectangular arrays, padded with NaN where a lane has no point.

One convention for lanes that diverged holds in every table and chart, since all of them read the returns here
(`DIVERGED`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from hyperlax.hyperparams.samplers.optuna import UNGUIDED
from hyperlax.programs.budget import within_reach
from hyperlax.report.once import once
from hyperlax.storage.results import UNFINISHED, Results

X_AXES = ("env_steps", "seconds", "gradient_steps", "circuit_executions")
"""Quantities for the x axis of a curve. All seeds of a sample are evaluated at the same `env_steps`."""

DIVERGED = (
    "A lane that diverged counts, at all evaluations that it has missed, with the return of a random policy, "
    "or with the lowest evaluation of its experiment if that is lower or the former unknown."
)
"""The convention, in a sentence for readers."""


@dataclass(frozen=True)
class Evaluations:
    """One metric of all lanes, arranged by sample, seed and point, and padded with NaN.

    `x` maps each of `X_AXES` to the positions of the points of every sample, as means over its seeds.
    """

    samples: Int[np.ndarray, " samples"]
    x: dict[str, Float[np.ndarray, "samples points"]]
    values: Float[np.ndarray, "samples seeds points"]
    lanes: pl.DataFrame
    """One row per lane: `lane`, `sample`, `seed`, `status`, and its indices `row`, `column` in `values`.

    In addition `points`, the number of its evaluations; of a lane that diverged `values` holds more.
    """

    def by_lane(self) -> tuple[Float[np.ndarray, "lanes points"], Float[np.ndarray, "lanes points"]]:
        """Return the env steps and the values of each row of `lanes`, with all NaN moved to the end."""
        row, column = self.lanes["row"].to_numpy(), self.lanes["column"].to_numpy()
        values = self.values[row, column]
        order = np.argsort(np.isnan(values), axis=1, kind="stable")
        values = np.take_along_axis(values, order, 1)
        steps = np.take_along_axis(self.x["env_steps"][row], order, 1)
        return np.where(np.isnan(values), np.nan, steps), values

    def on_grid(
        self, axis: str, points: int
    ) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, "samples seeds points"]]:
        """Interpolate all curves linearly onto one grid of evenly spaced positions on `axis`.

        Returns the grid and the curves. A lane is NaN outside the range of its own points, widened by half a
        grid step because samples with different rollout lengths are evaluated at slightly different steps.
        """
        x = self.x[axis]
        known = np.where(np.isnan(x), np.inf, x)
        first = float(np.median(known.min(axis=1)[np.isfinite(known.min(axis=1))]))
        grid = np.linspace(first, float(np.nanmax(x)), points)
        return grid, self.at(axis, grid, (grid[1] - grid[0]) / 2 if points > 1 else np.inf)

    def where_evaluated(
        self, axis: str, most: int
    ) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, "samples seeds points"]]:
        """Interpolate all curves linearly to the positions on `axis` where any sample was evaluated.

        Returns these positions, of which there are at most about `most` because close ones count as one, and
        the curves. A lane is NaN outside the range of its own points.
        """
        x = self.x[axis]
        step, grid = float(np.nanmax(x)) / most, []
        for position in np.unique(x[~np.isnan(x)]).tolist():
            if not grid or position >= grid[-1] + step:
                grid.append(position)
        return np.asarray(grid), self.at(axis, np.asarray(grid), step)

    def at(
        self, axis: str, grid: Float[np.ndarray, " points"], margin: float
    ) -> Float[np.ndarray, "samples seeds points"]:
        """Return all curves at the positions `grid`, linear between the evaluations of each.

        They are NaN where they are further than `margin` outside the range of a lane's own points.
        """
        x = self.x[axis]
        out = np.full((*self.values.shape[:2], len(grid)), np.nan)
        for row, column in np.argwhere(~np.isnan(self.values).all(axis=2)):
            present = ~np.isnan(self.values[row, column]) & ~np.isnan(x[row])
            if present.any():
                at, value = x[row][present], self.values[row, column][present]
                inside = (grid >= at[0] - margin) & (grid <= at[-1] + margin)
                out[row, column, inside] = np.interp(grid[inside], at, value)
        return out


def equal_steps(*experiments: Results) -> int | None:
    """Return the env steps up to which the lanes of experiments are compared; None if all end there.

    They are those at which the first of the lanes that are done has ended. Lanes end at different steps
    because they train whole cycles. Ends that are at most 1 % above the first count as equal.
    """
    done = pl.col("status") == "done", pl.col("env_steps") > 0
    return common_end(
        [end for results in experiments for end in results.lanes.filter(*done)["env_steps"].to_list()]
    )


def common_end(ends: Sequence[int]) -> int | None:
    """Return the smallest of `ends`; None if all are at most 1 % above it, or if there is none."""
    return min(ends) if ends and not within_reach(max(ends), min(ends)) else None


def at_equal_steps(experiments: Sequence[Results]) -> list[Results]:
    """Return `experiments` with curves up to the `equal_steps` of all that were to train equally long."""
    lengths = [results.manifest.get("settings", {}).get("total_timesteps") for results in experiments]
    cut = []
    for results, length in zip(experiments, lengths, strict=True):
        alike = [r for r, n in zip(experiments, lengths, strict=True) if n == length]
        if length is None or (end := equal_steps(*alike)) is None:
            cut.append(results)
        else:
            curves = results.curves.filter(within_reach(pl.col("env_steps"), end))
            whole = curves.height == results.curves.height
            cut.append(results if whole else replace(results, curves=curves))
    return cut


@once
def evaluations(results: Results, metric: str = "return", whole: bool = False) -> Evaluations:
    """Return the curves of `metric`, up to `equal_steps` unless they are wanted as a `whole`.

    Values that are not finite are dropped, and repeated points count once. Returns of lanes that diverged are
    continued as `DIVERGED` says, once there is any evaluation.
    """
    lanes = _lanes(results)
    wanted = [pl.col("metric") == metric, pl.col("value").is_finite()]
    end = None if whole else equal_steps(results)
    if end is not None:
        wanted.append(within_reach(pl.col("env_steps"), end))
    points = (
        results.curves.lazy()
        .filter(*wanted)
        .unique(["lane", "env_steps"], keep="last", maintain_order=True)
        .join(lanes.lazy().select("lane", "row", "column"), on="lane")
        .with_columns(point=pl.col("env_steps").rank("dense").over("row").cast(pl.Int64) - 1)
        .select("row", "column", "point", "value", *X_AXES)
        .collect()
    )
    samples = lanes.unique("row").sort("row")["sample"].to_numpy()
    seeds = 1 + _largest(lanes, "column")
    length = 1 + _largest(points, "point")
    values = np.full((len(samples), seeds, length), np.nan)
    values[points["row"].to_numpy(), points["column"].to_numpy(), points["point"].to_numpy()] = points[
        "value"
    ]
    shared = points.group_by("row", "point").agg(pl.col(axis).cast(pl.Float64).mean() for axis in X_AXES)
    x = {axis: np.full((len(samples), length), np.nan) for axis in X_AXES}
    for axis, array in x.items():
        array[shared["row"].to_numpy(), shared["point"].to_numpy()] = shared[axis].fill_null(np.nan)
    count = np.sum(~np.isnan(values), axis=2)[lanes["row"].to_numpy(), lanes["column"].to_numpy()]
    lanes = lanes.with_columns(points=pl.Series(count, dtype=pl.Int64))
    found = Evaluations(samples, x, values, lanes)
    if metric == "return" and length:
        found = _continued(found, results, end)
    for array in (found.values, *found.x.values()):
        array.flags.writeable = False  # all who ask share them
    return found


@once
def behind(results: Results) -> frozenset[int]:
    """Return the samples with a lane whose evaluations end before those of the lanes that are done.

    Such a lane was stopped early, failed or is still in training, so that its sample cannot be compared with
    others at equal steps. Until a lane is done, the longest one takes its place. Lanes that diverged are
    continued (`DIVERGED`), and samples without an evaluation are none of these.
    """
    found = evaluations(results)
    row, column = found.lanes["row"].to_numpy(), found.lanes["column"].to_numpy()
    steps = np.where(np.isnan(found.values), -np.inf, found.x["env_steps"][:, None])
    last = np.fmax.reduce(steps, axis=2, initial=-np.inf)[row, column]
    status, known = found.lanes["status"], np.isfinite(last)
    done = last[(status == "done").to_numpy() & known]
    if not known.any():
        return frozenset()
    least = done.min() if done.size else last.max()
    short = known & ~within_reach(least, last) & ~status.is_in(["done", "diverged"]).to_numpy()
    return frozenset(found.lanes["sample"].to_numpy()[short].tolist())


def has_ended(results: Results) -> bool:
    """Whether any lane has trained to its end or would have, had it not diverged."""
    return bool(results.lanes["status"].is_in(["done", "diverged"]).any())


def stopped_early(results: Results) -> int:
    """Return how many samples are `behind` because their scores made a schedule or a search stop them."""
    own = pl.col("sample").is_in(list(behind(results))), pl.col("status") == "pruned"
    return results.lanes.filter(*own)["sample"].n_unique()


def is_guided(results: Results) -> bool:
    """Whether the samples are trials that a search has proposed by the scores of those before."""
    sampler = (results.manifest.get("search") or {}).get("sampler")
    return bool(len(results.trials)) and sampler not in UNGUIDED


def _continued(found: Evaluations, results: Results, end: int | None) -> Evaluations:
    """Return the curves with those of lanes that diverged continued, as `DIVERGED` says."""
    lost = found.lanes.filter(pl.col("status") == "diverged")
    if lost.is_empty():
        return found
    reference = results.manifest.get("reference") or {}
    lowest = float(np.nanmin(found.values))
    floor = min(lowest, float(reference["random"])) if reference.get("random") is not None else lowest
    found = _lengthened(found, _due(results, end))
    row, column = lost["row"].to_numpy(), lost["column"].to_numpy()
    values, steps = found.values.copy(), found.x["env_steps"].copy()
    own = values[row, column]
    missed = np.cumsum(~np.isnan(own)[:, ::-1], axis=1)[:, ::-1] == 0
    values[row, column] = np.where(missed, floor, own)
    usual = np.nanmedian(np.where(np.isnan(steps).all(axis=0), 0.0, steps), axis=0)
    steps[row] = np.fmax.accumulate(np.where(np.isnan(steps[row]), usual, steps[row]), axis=1)
    return replace(found, x={**found.x, "env_steps": steps}, values=values)


def _lengthened(found: Evaluations, due: list[int]) -> Evaluations:
    """Return the curves with as many points as are `due`, if there are fewer, the new ones at those steps.

    So it shows if all lanes have diverged before the last evaluation.
    """
    count = found.values.shape[2]
    if len(due) <= count:
        return found
    more = ((0, 0), (0, len(due) - count))
    x = {axis: np.pad(array, more, constant_values=np.nan) for axis, array in found.x.items()}
    x["env_steps"][:, count:] = due[count:]
    return replace(found, x=x, values=np.pad(found.values, ((0, 0), *more), constant_values=np.nan))


def _due(results: Results, end: int | None) -> list[int]:
    """Return the env steps, up to `end`, after which lanes are evaluated; none while any is in training."""
    settings = results.manifest.get("settings") or {}
    count, total = settings.get("evaluations") or 0, settings.get("total_timesteps") or 0
    if not count or results.lanes["status"].is_in(UNFINISHED).any():
        return []
    marks = [0] if settings.get("eval_at_start") else []
    marks += [i * (total // count) for i in range(1, count)] + [total]
    return [mark for mark in marks if end is None or within_reach(mark, end)]


def _lanes(results: Results) -> pl.DataFrame:
    """Return all lanes with their indices; one with points but without a row in `lanes` counts as running."""
    key = ["lane", "sample", "seed"]
    seen = results.curves.select(key).unique("lane").join(results.lanes, on="lane", how="anti")
    known = results.lanes.select(*key, "status")
    return (
        pl.concat([known, seen.with_columns(status=pl.lit("running"))])
        .sort("sample", "seed", "lane")
        .with_columns(
            row=pl.col("sample").rank("dense").cast(pl.Int64) - 1,
            column=pl.int_range(pl.len()).over("sample"),
        )
    )


def _largest(frame: pl.DataFrame, column: str) -> int:
    return -1 if frame.is_empty() else int(frame[column].to_numpy().max())
