"""Importance of the hyperparameters of an experiment: their grids over its search space, and a table.

The method is in `hyperlax.statistics.importance`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from hyperlax.report.leaderboard import varied_hyperparameters
from hyperlax.report.scores import described, lane_scores
from hyperlax.statistics import Dimension, Unavailable, importances
from hyperlax.statistics.importance import MIN_TOP, QUANTILE
from hyperlax.storage.results import Results

_CELLS = 50
_LOG_RATIO = 100


def dimension(name: str, values: Sequence[Any], space: Mapping[str, Any] | None = None) -> Dimension:
    """Place the values of one hyperparameter on a grid over its `space`, as described in the manifest.

    A continuous space gets 50 cells of equal probability (equally wide in the logarithm for a log-uniform
    space), an integer space one cell per value but at most 50, and choices, flags and joint choices (lists of
    values) one cell per value. Without a description, or one of the ends of the space, numbers are taken to
    be uniform between the smallest and the largest value, in the logarithm if their ratio is at least 100.
    """
    kind = (space or {}).get("type")
    ends = dict(space or {})
    bounded = "low" in ends and "high" in ends
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if kind in ("choice", "joint") or not numbers:
        declared = (space or {}).get("values") or (space or {}).get("choices") or []
        keys = list(dict.fromkeys(json.dumps(v, default=str) for v in [*declared, *values]))
        return Dimension(
            name, np.array([keys.index(json.dumps(v, default=str)) for v in values]), len(keys), False
        )
    x = np.asarray(values, float)
    low, high = (float(ends["low"]), float(ends["high"])) if bounded else (x.min(), x.max())
    log = kind == "log_uniform" or (not bounded and low > 0 and high / low >= _LOG_RATIO)
    integral = kind == "integers" or (not bounded and all(isinstance(v, int) for v in values) and not log)
    if integral:
        low, high = low - 0.5, high + 0.5
    cells = min(_CELLS, round(high - low)) if integral else _CELLS
    if log:
        x, low, high = np.log(x), np.log(low), np.log(high)
    place = np.floor((x - low) / (high - low) * cells) if high > low else np.zeros(len(x))
    return Dimension(name, np.clip(place, 0, cells - 1).astype(int), cells, True)


def importance_table(results: Results, quantile: float = QUANTILE) -> pl.DataFrame:
    """Return the importance of every hyperparameter that varies, most important first.

    Columns: `hyperparameter` (a joint choice counts as one, its names joined by "+"), `importance` (a share;
    all shares add up to 1), `chance` (in 95 % of reports no hyperparameter without effect exceeds this level)
    and `p`, corrected for the number of hyperparameters: an effect may be claimed where it is at most 0.05.
    The columns of `scores.DESCRIPTION` say which metric the scores are of. Samples without an evaluation are
    left out, and so are the AB matrices of a Sobol design, whose rows nearly repeat those of A, and all but
    the first sample of a pair of an ablation. Raises `Unavailable` with fewer than ten samples, if no
    hyperparameter varies, or if all samples score the same.
    """
    scored = lane_scores(results).drop_nulls("score").sort("sample", "seed")
    if "matrix" in results.samples.columns:
        mixed = results.samples.filter(pl.col("matrix").str.starts_with("AB:"))
        scored = scored.join(mixed, on="sample", how="anti", maintain_order="left")
    if "pair" in results.samples.columns:
        first = results.samples.unique("pair", keep="first", maintain_order=True)
        scored = scored.join(first, on="sample", how="semi", maintain_order="left")
    ids = scored["sample"].unique(maintain_order=True)
    if not varied_hyperparameters(results.samples):
        raise Unavailable("No hyperparameter varies between the samples.")
    if len(ids) < 2 * MIN_TOP:
        raise Unavailable(f"Importances need {2 * MIN_TOP} samples with an evaluation.")
    samples = pl.DataFrame({"sample": ids}).join(results.samples, on="sample", maintain_order="left")
    found = dimensions_of(samples, results.manifest.get("space") or {})
    scores = np.full((len(ids), int(scored.group_by("sample").len()["len"].to_numpy().max())), np.nan)
    row = scored["sample"].rank("dense").to_numpy() - 1
    column = scored.select(pl.int_range(pl.len()).over("sample")).to_series().to_numpy()
    scores[row, column] = scored["score"].to_numpy()
    result = importances(scores, found, quantile)
    if np.isnan(result.share).all():
        raise Unavailable("All samples reach the same return, so no hyperparameter decides between them.")
    arrays = {"importance": result.share, "chance": result.chance, "p": result.p}
    table = {name: pl.Series(array, dtype=pl.Float64) for name, array in arrays.items()}
    frame = pl.DataFrame({"hyperparameter": [dim.name for dim in found], **table}).fill_nan(None)
    return described(frame.sort("importance", descending=True, maintain_order=True), results)


def dimensions_of(samples: pl.DataFrame, space: Mapping[str, Any]) -> list[Dimension]:
    """Return the hyperparameters that vary in a sample table, in its order; a joint choice counts as one."""
    found = []
    for name, columns in hyperparameters_of(samples, space).items():
        about = space.get(name)
        rows = samples.select(columns).rows()
        joint = (about or {}).get("type") == "joint"
        found.append(dimension(name, [list(row) if joint else row[0] for row in rows], about))
    return found


def hyperparameters_of(samples: pl.DataFrame, space: Mapping[str, Any]) -> dict[str, list[str]]:
    """Map every hyperparameter that varies to its columns: one, or several for a joint choice."""
    varied = varied_hyperparameters(samples)
    joints = {}
    for name, about in space.items():
        if about.get("type") == "joint":
            paths = [f"{name}.{p}" if f"{name}.{p}" in samples.columns else p for p in about["paths"]]
            joints |= dict.fromkeys(paths, (name, paths))
    return dict(joints.get(path, (path, [path])) for path in varied)
