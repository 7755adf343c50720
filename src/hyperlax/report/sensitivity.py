"""Sobol' indices: the share of the variance of returns that each hyperparameter explains.

The first-order index of a hyperparameter is the share of variance that it explains alone, the total index
the share that it explains alone or in interaction with others (Sobol' 2001, "Global sensitivity indices for
nonlinear mathematical models"). Both are estimated from Saltelli's matrices A, B and AB with the estimators
of Jansen 1999, "Analysis of variance designs for model output" (also in table 2 of Saltelli et al. 2010,
"Variance based sensitivity analysis of model output").

A score is a mean over a few seeds, so its variance includes the noise of training. That noise acts like an
interaction of all hyperparameters with chance: it lowers first-order indices, and the total index of a
hyperparameter without any effect is the share of noise in the variance (`noise_share`) instead of 0.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from hyperlax.report.evaluations import evaluations
from hyperlax.report.metrics import sample_metrics
from hyperlax.report.statistics import LEVEL, REPETITIONS, Estimate, Unavailable, quantiles
from hyperlax.storage.results import Results

COLUMNS = ("first", "first_low", "first_high", "total", "total_low", "total_high")


def sobol_indices(
    a: Float[np.ndarray, " rows"],
    b: Float[np.ndarray, " rows"],
    ab: Float[np.ndarray, "dimensions rows"],
    repetitions: int = REPETITIONS,
    seed: int = 0,
) -> tuple[Estimate, Estimate, Int[np.ndarray, " dimensions"]]:
    """Return the first-order and total index of every dimension, and the number of rows used for each.

    The fields of the estimates and the counts have shape (dimensions,). `a` and `b` hold the scores of the
    rows of the matrices A and B, `ab[i]` those of A with column i taken from B. NaN stands for a lost
    evaluation: an index leaves out every row in which one of its three scores is lost, and is NaN with fewer
    than two rows left, or if the scores do not vary.

    The bootstrap interval resamples rows, the same ones for all dimensions. A row carries the noise of its
    seeds with it, so resampling the seeds as well would count that noise twice. The rows of a Sobol sequence
    are spread more evenly than independent ones, so the interval tends to be too wide.
    """
    centre = np.nanmean(np.concatenate([a, b])) if np.isfinite([*a, *b]).any() else 0.0
    a, b, ab = a - centre, b - centre, ab - centre
    used = ~np.isnan(a) & ~np.isnan(b) & ~np.isnan(ab)
    terms = [((b - ab) ** 2) / 2, ((a - ab) ** 2) / 2, (a + b + 0 * ab) / 2, (a**2 + b**2 + 0 * ab) / 2]
    terms = [np.where(used, term, 0.0).T for term in terms]
    rows = len(a)
    draws = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), repetitions)
    values = _jansen_indices(np.ones((1, rows)), used.T, terms)
    redrawn = _jansen_indices(draws.astype(float), used.T, terms)
    estimates = []
    for value, drawn in zip(values, redrawn, strict=True):
        low, high = quantiles(drawn, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0)
        known = ~np.isnan(value[0])
        estimates.append(Estimate(value[0], *(np.where(known, end, np.nan) for end in (low, high))))
    return estimates[0], estimates[1], used.sum(axis=1)


def _jansen_indices(
    weights: Float[np.ndarray, "repetitions rows"],
    used: Bool[np.ndarray, "rows dimensions"],
    terms: list[Float[np.ndarray, "rows dimensions"]],
) -> tuple[Float[np.ndarray, "repetitions dimensions"], Float[np.ndarray, "repetitions dimensions"]]:
    """Return first-order and total indices by Jansen's estimators, for every set of row weights.

    `terms` are (b - ab)²/2, (a - ab)²/2, (a + b)/2 and (a² + b²)/2, with 0 in rows that are not used.
    """
    count = weights @ used.astype(float)
    enough = count >= 2
    from_b, from_a, mean, square = (weights @ term / np.where(enough, count, np.nan) for term in terms)
    variance = (square - mean**2) * 2 * count / np.maximum(2 * count - 1, 1)
    # A variance that consists of rounding errors counts as zero.
    variance = np.where(variance > 1e-12 * square, variance, np.nan)
    return 1 - from_b / variance, from_a / variance


def noise_share(scores: Float[np.ndarray, "samples seeds"]) -> float:
    """Return the share of the variance of the samples' mean scores that is due to their seeds, at most 1.

    NaN if no sample has two seeds, or if the means do not vary.
    """
    count = np.sum(~np.isnan(scores), axis=1)
    means = np.nansum(scores, axis=1) / np.maximum(count, 1)
    several = count > 1
    spread = np.nansum((scores - means[:, None]) ** 2, axis=1) / np.maximum(count - 1, 1)
    between = np.var(means[count > 0], ddof=1) if np.sum(count > 0) > 1 else 0.0
    if not several.any() or between <= 0:
        return float("nan")
    return float(min(1.0, np.mean(spread[several] / count[several]) / between))


def sobol_table(results: Results, metric: str = "peak_return") -> pl.DataFrame:
    """Return the Sobol' indices of every searched hyperparameter.

    Columns: `hyperparameter` (a joint choice counts as one, its names joined by "+"), `COLUMNS`, and `rows`,
    the number of rows used. The score of a sample is the interquartile mean of `metric` over its seeds.
    Raises `Unavailable` for a design without AB matrices, and before the first evaluation.
    """
    rows, paths = _design(results.samples)
    scores = sample_metrics(results).select("sample", metric)
    found = rows.select("matrix", "sample").join(scores, on="sample", how="left", maintain_order="left")
    by_matrix = {
        str(matrix): group[metric].cast(pl.Float64).fill_null(np.nan).to_numpy()
        for (matrix,), group in found.partition_by("matrix", as_dict=True).items()
    }
    if np.isnan(found[metric].cast(pl.Float64).fill_null(np.nan).to_numpy()).all():
        raise Unavailable("No sample has an evaluation yet.")
    mixed = np.stack([by_matrix[f"AB:{path}"] for path in paths])
    first, total, used = sobol_indices(by_matrix["A"], by_matrix["B"], mixed)
    arrays = (first.value, first.low, first.high, total.value, total.low, total.high)
    table = {name: pl.Series(array, dtype=pl.Float64) for name, array in zip(COLUMNS, arrays, strict=True)}
    return pl.DataFrame({"hyperparameter": paths, **table, "rows": used.astype(np.int64)}).fill_nan(None)


def noise_of(results: Results) -> float:
    """Return the share of the variance of an experiment's peak returns that is due to the seeds."""
    found = evaluations(results)
    if found.values.size == 0:
        return float("nan")
    return noise_share(quantiles(found.values, (1.0,))[0])


def _design(samples: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Return the samples of a Saltelli design, sorted by id, and the hyperparameters of its AB matrices.

    Raises `Unavailable` if the design has no AB matrices, or if the matrices do not belong together.
    """
    if "matrix" not in samples.columns:
        raise Unavailable("Sobol' indices need samples from --experiment-type sobol_matrices_A_B_AB.")
    rows = samples.drop_nulls("matrix").sort("sample")
    paths = [m.removeprefix("AB:") for m in rows["matrix"].unique(maintain_order=True) if m.startswith("AB:")]
    if not paths:
        raise Unavailable("The design has no AB matrices (--omit-ab), which Sobol' indices require.")
    columns = [c for c in rows.columns if c not in ("sample", "matrix")]
    a, b = (rows.filter(pl.col("matrix") == m).select(columns) for m in ("A", "B"))
    for path in paths:
        own = [c for c in path.split("+") if c in columns]
        mixed = rows.filter(pl.col("matrix") == f"AB:{path}").select(columns)
        if not (len(a) == len(b) and mixed.drop(own).equals(a.drop(own)) and mixed[own].equals(b[own])):
            raise Unavailable(
                f"Rows of A, B and AB:{path} do not belong together, so there are no Sobol' indices."
            )
    return rows, paths
