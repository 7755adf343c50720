"""Sample complexity: env steps until a given share of the runs has reached a target return."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from jaxtyping import Float

from hyperlax.report.draws import dependence
from hyperlax.report.evaluations import evaluations
from hyperlax.report.metrics import reference_scores
from hyperlax.report.scores import ranked
from hyperlax.statistics import Unavailable, sample_complexity, without_interval
from hyperlax.storage.results import Results

PROBABILITIES = (0.5, 0.9)
"""Values of 1 - δ that are reported: half of the runs, and nine out of ten."""
_GRID = 200


def sample_complexities(
    families: Sequence[Results], probabilities: Sequence[float] = PROBABILITIES
) -> pl.DataFrame:
    """Return the env steps until each family solves its environment, for its best sample and for all samples.

    Columns: `family`, `runs` ("best sample" or "all samples"), `lanes`, `probability`, `steps`, `low`, `high`
    and `budget`, the last step that was evaluated. Infinity means "not within the budget", null "unknown".
    The best sample is the one with the highest score by the headline metric. Returns are interpolated between
    evaluations. Lanes that are done keep their last return, lanes that diverged, failed or were pruned count
    as unsolved from then on, and unfinished lanes are left out. Over samples that are no independent draws
    (`draws.dependence`) there is no interval. Raises `Unavailable` if the environment has
    no score that counts as solved, or if nothing has been evaluated.
    """
    rows = []
    for results in families:
        threshold = reference_scores(results.manifest).get("solved")
        if threshold is None:
            raise Unavailable("No return of this environment counts as solved.")
        found = evaluations(results)
        if found.values.size == 0:
            continue
        steps, returns = found.on_grid("env_steps", _GRID)
        done = _lane_indices(found.lanes, "done")
        returns[done] = _forward_filled(returns[done])
        returns[_lane_indices(found.lanes, "queued", "running", "paused")] = np.nan
        lost = _lane_indices(found.lanes, "diverged", "failed", "pruned")
        returns[..., 0][lost] = np.where(np.isnan(returns[..., 0][lost]), -np.inf, returns[..., 0][lost])
        best = found.samples == ranked(results)["sample"][0]
        for runs, own in (("best sample", returns[best]), ("all samples", returns)):
            for probability in probabilities:
                estimate = sample_complexity(steps, own, threshold, probability)
                if len(own) > 1 and dependence(results):
                    estimate = without_interval(estimate.value)
                rows.append(
                    {
                        "family": results.name,
                        "runs": runs,
                        "lanes": int((~np.isnan(own).all(axis=2)).sum()),
                        "probability": probability,
                        "steps": float(estimate.value),
                        "low": float(estimate.low),
                        "high": float(estimate.high),
                        "budget": float(steps[-1]),
                    }
                )
    if not rows:
        raise Unavailable("No sample has an evaluation yet.")
    return pl.DataFrame(rows).fill_nan(None)


def _lane_indices(lanes: pl.DataFrame, *statuses: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and columns in `Evaluations.values` of the lanes with one of these statuses."""
    chosen = lanes.filter(pl.col("status").is_in(statuses))
    return chosen["row"].to_numpy(), chosen["column"].to_numpy()


def _forward_filled(returns: Float[np.ndarray, "lanes points"]) -> Float[np.ndarray, "lanes points"]:
    """Replace each NaN by the last value before it."""
    last = np.maximum.accumulate(np.where(np.isnan(returns), 0, np.arange(returns.shape[1])), axis=1)
    return np.take_along_axis(returns, last, axis=1)
