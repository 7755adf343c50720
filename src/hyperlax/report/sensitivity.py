"""Sobol' indices of an experiment: how much of the variance of returns each hyperparameter explains.

The estimators are in `hyperlax.statistics.sobol`.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from hyperlax.report.scores import SCORE, described, ranked, seed_scores, values_of
from hyperlax.statistics import Unavailable, noise_share, sobol_indices
from hyperlax.storage.results import Results

COLUMNS = ("first", "first_low", "first_high", "total", "total_low", "total_high")


def sobol_table(results: Results, metric: str = SCORE) -> pl.DataFrame:
    """Return the Sobol' indices of every searched hyperparameter.

    Columns: `hyperparameter` (a joint choice counts as one, its names joined by "+"), `COLUMNS`, and `rows`,
    the number of rows used, with what the scores are (`scores.described`). The score of a sample is that of
    the headline metric, or the interquartile mean of another `metric` over its seeds.
    Raises `Unavailable` for a design without AB matrices, and before the first evaluation.
    """
    rows, paths = _design(results.samples)
    scores = values_of(results, metric)
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
    found = pl.DataFrame({"hyperparameter": paths, **table, "rows": used.astype(np.int64)}).fill_nan(None)
    return described(found, results) if metric == SCORE else found


def noise_of(results: Results) -> float:
    """Return the share of the variance of an experiment's scores that is due to the seeds; NaN if unknown."""
    samples = ranked(results)["sample"].to_list()
    return noise_share(seed_scores(results, samples)) if samples else float("nan")


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
