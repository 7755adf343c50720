"""Importance of hyperparameters for being among the best samples, estimated by PED-ANOVA.

Watanabe et al. 2023, "PED-ANOVA: efficiently quantifying hyperparameter importance in arbitrary subspaces": a
hyperparameter is important if its values among the best samples are distributed differently from its values
among all samples. The importance is the Pearson divergence between the two densities, each estimated with
kernels on a grid.

A divergence cannot be negative, and a small set of best samples never matches the distribution of all samples
exactly, so that even a hyperparameter without any effect gets some importance. The chance level says how
much: it is the importance that arises when the best samples are drawn at random.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from scipy.special import ndtr

from hyperlax.report.leaderboard import varied_hyperparameters
from hyperlax.report.metrics import lane_metrics
from hyperlax.report.statistics import (
    LEVEL,
    REPETITIONS,
    Estimate,
    Unavailable,
    affordable,
    bootstrap_iqm,
    iqm,
    quantiles,
)
from hyperlax.storage.results import Results

QUANTILE = 0.1
"""Share of the samples that count as the best."""
MIN_TOP = 5
"""Minimum number of samples that count as the best."""
_CELLS = 50
_LOG_RATIO = 100


@dataclass(frozen=True)
class Dimension:
    """A hyperparameter on a grid of `cells` cells.

    `cell` holds the index of every sample's cell. `ordered` says whether neighbouring cells hold similar
    values, as for numbers, so that the density may be smoothed across them.
    """

    name: str
    cell: Int[np.ndarray, " samples"]
    cells: int
    ordered: bool


def dimension(name: str, values: Sequence[Any], space: Mapping[str, Any] | None = None) -> Dimension:
    """Place the values of one hyperparameter on a grid over its `space`, as described in the manifest.

    A continuous space gets 50 cells of equal probability (equally wide in the logarithm for a log-uniform
    space), an integer space one cell per value but at most 50, and choices, flags and joint choices (lists of
    values) one cell per value. Without a description, numbers are taken to be uniform between the smallest
    and the largest value, in the logarithm if their ratio is at least 100.
    """
    kind = (space or {}).get("type")
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if kind in ("choice", "joint") or not numbers:
        declared = (space or {}).get("values") or (space or {}).get("choices") or []
        keys = list(dict.fromkeys(json.dumps(v, default=str) for v in [*declared, *values]))
        return Dimension(
            name, np.array([keys.index(json.dumps(v, default=str)) for v in values]), len(keys), False
        )
    x = np.asarray(values, float)
    low, high = (float(space[end]) for end in ("low", "high")) if space else (x.min(), x.max())
    log = kind == "log_uniform" or (space is None and low > 0 and high / low >= _LOG_RATIO)
    integral = kind == "integers" or (space is None and all(isinstance(v, int) for v in values) and not log)
    if integral:
        low, high = low - 0.5, high + 0.5
    cells = min(_CELLS, round(high - low)) if integral else _CELLS
    if log:
        x, low, high = np.log(x), np.log(low), np.log(high)
    place = np.floor((x - low) / (high - low) * cells) if high > low else np.zeros(len(x))
    return Dimension(name, np.clip(place, 0, cells - 1).astype(int), cells, True)


def top_samples(
    scores: Float[np.ndarray, "repetitions samples"], quantile: float = QUANTILE, minimum: int = MIN_TOP
) -> Bool[np.ndarray, "repetitions samples"]:
    """Mark the best `quantile` of the samples, at least `minimum` of them, and all ties with the last one."""
    samples = scores.shape[1]
    last = samples - min(samples, max(minimum, int(np.ceil(quantile * samples))))
    return scores >= np.partition(scores, last, axis=1)[:, last : last + 1]


def divergence(
    dim: Dimension, top: Bool[np.ndarray, "repetitions samples"]
) -> Float[np.ndarray, " repetitions"]:
    """Return the Pearson divergence of the density of the top samples from the density of all samples.

    Σ p_all (p_top / p_all - 1)², summed over the cells of the grid; the factor (γ' / γ)² of Watanabe et al.
    is left out, because all hyperparameters share it. Each row of `top` is one choice of the top samples; the
    kernel width is derived from the first row and used for all of them.
    """
    one_hot = np.zeros((len(dim.cell), dim.cells))
    one_hot[np.arange(len(dim.cell)), dim.cell] = 1.0
    overall = _density(dim, one_hot.sum(axis=0, keepdims=True), dim.cell)
    best = _density(dim, top.astype(float) @ one_hot, dim.cell[top[0]])
    return np.sum((best - overall) ** 2 / overall, axis=1)


def importances(
    scores: Float[np.ndarray, "samples seeds"],
    dimensions: Sequence[Dimension],
    quantile: float = QUANTILE,
    repetitions: int = REPETITIONS,
    seed: int = 0,
) -> tuple[Estimate, Float[np.ndarray, " dimensions"]]:
    """Return the importance of every dimension, with intervals, and the level that chance alone would reach.

    Importances are shares of the sum of all divergences; all results have shape (dimensions,). The score of a
    sample is the interquartile mean over its seeds. The bootstrap interval resamples the seeds of every
    sample, which may change the set of the best samples; it is NaN if no sample has two seeds. The chance
    level is the 95th percentile of the importance when the best samples are drawn at random. All results are
    NaN if all samples are equally good.
    """
    measured = iqm(scores, axis=1)[None]
    top = top_samples(measured, quantile)
    value = np.array([divergence(dim, top)[0] for dim in dimensions])
    if top.all():
        none = np.full(value.shape, np.nan)
        return Estimate(none, none, none), none
    rng = np.random.default_rng(seed)
    shuffled = rng.permuted(np.repeat(top, repetitions, axis=0), axis=1)
    by_chance = quantiles(np.stack([divergence(dim, shuffled) for dim in dimensions]), (LEVEL,))[0]
    low = high = np.full(value.shape, np.nan)
    if (np.sum(~np.isnan(scores), axis=1) > 1).any():
        redrawn = bootstrap_iqm(scores[:, :, None], repetitions, seed)[:, 0].T
        redrawn = np.where(np.isnan(redrawn), measured, redrawn)
        # The first row must be the top of the scores as measured: it sets the width of the kernels.
        tops = np.concatenate([top, top_samples(redrawn, quantile)])
        draws = np.stack([divergence(dim, tops)[1:] for dim in dimensions])
        total = draws.sum(axis=0)
        shares = np.divide(draws, total, out=np.full(draws.shape, np.nan), where=total > 0)
        low, high = quantiles(shares, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Estimate(value / value.sum(), low, high), by_chance / value.sum()


def importance_table(results: Results, quantile: float = QUANTILE) -> pl.DataFrame:
    """Return the importance of every hyperparameter that varies, most important first.

    Columns: `hyperparameter` (a joint choice counts as one, its names joined by "+"), `importance` (a share;
    all shares add up to 1), `low` and `high` (the 95 % interval over seeds, null if every sample has one
    seed), and `chance` (the level that a hyperparameter without effect stays below in 95 % of cases). The
    score of a sample is its peak return. Samples without an evaluation are left out, and so are the AB
    matrices of a Sobol design, whose rows nearly repeat those of A. Raises `Unavailable` with fewer than ten
    samples, if no hyperparameter varies, or if all samples score the same.
    """
    scored = lane_metrics(results).drop_nulls("peak_return").sort("sample", "seed")
    if "matrix" in results.samples.columns:
        mixed = results.samples.filter(pl.col("matrix").str.starts_with("AB:"))
        scored = scored.join(mixed, on="sample", how="anti", maintain_order="left")
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
    scores[row, column] = scored["peak_return"].to_numpy()
    estimate, chance = importances(scores, found, quantile, affordable(scores.size))
    if np.isnan(estimate.value).all():
        raise Unavailable("All samples reach the same return, so no hyperparameter decides between them.")
    arrays = {"importance": estimate.value, "low": estimate.low, "high": estimate.high, "chance": chance}
    table = {name: pl.Series(array, dtype=pl.Float64) for name, array in arrays.items()}
    frame = pl.DataFrame({"hyperparameter": [dim.name for dim in found], **table}).fill_nan(None)
    return frame.sort("importance", descending=True, maintain_order=True)


def dimensions_of(samples: pl.DataFrame, space: Mapping[str, Any]) -> list[Dimension]:
    """Return the hyperparameters that vary in a sample table, in its order; a joint choice counts as one."""
    found = []
    for name, columns in hyperparameters_of(samples, space).items():
        described = space.get(name)
        rows = samples.select(columns).rows()
        joint = (described or {}).get("type") == "joint"
        found.append(dimension(name, [list(row) if joint else row[0] for row in rows], described))
    return found


def hyperparameters_of(samples: pl.DataFrame, space: Mapping[str, Any]) -> dict[str, list[str]]:
    """Map every hyperparameter that varies to its columns: one, or several for a joint choice."""
    varied = varied_hyperparameters(samples)
    joints = {}
    for name, described in space.items():
        if described.get("type") == "joint":
            paths = [f"{name}.{p}" if f"{name}.{p}" in samples.columns else p for p in described["paths"]]
            joints |= dict.fromkeys(paths, (name, paths))
    return dict(joints.get(path, (path, [path])) for path in varied)


def _density(
    dim: Dimension, counts: Float[np.ndarray, "repetitions cells"], seen: Int[np.ndarray, " seen"]
) -> Float[np.ndarray, "repetitions cells"]:
    """Estimate a density on the grid from `counts` per cell and one more observation spread evenly over it.

    Ordered cells are smoothed with normal kernels, truncated at the ends of the grid, whose width follows
    Scott's rule for the cells `seen`; unordered cells are not smoothed.
    """
    smooth = counts
    if dim.ordered:
        at = np.arange(dim.cells)
        edges = (np.arange(dim.cells + 1) - 0.5 - at[:, None]) / _width(seen)
        mass = np.diff(ndtr(edges), axis=1)
        smooth = counts @ (mass / mass.sum(axis=1, keepdims=True))
    return (smooth + 1 / dim.cells) / (counts.sum(axis=1, keepdims=True) + 1)


def _width(cells: Int[np.ndarray, " seen"]) -> float:
    """Return the kernel width by Scott's rule (Scott 1992), 1.06 min(σ, IQR / 1.34) n^(-1/5), in cells.

    The width is at least 0.3 cells, at which nearly all of a kernel lies within its own cell.
    """
    lower, upper = np.quantile(cells, (0.25, 0.75))
    spreads = [float(np.std(cells, ddof=1)) if len(cells) > 1 else 0.0, float(upper - lower) / 1.34]
    spread = min((s for s in spreads if s > 0), default=0.0)
    return max(1.059 * spread * len(cells) ** -0.2, 0.3)
