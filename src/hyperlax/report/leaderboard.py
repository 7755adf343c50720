"""Leaderboard: the best samples, with ranks that are ranges wherever confidence intervals overlap."""

from __future__ import annotations

import numpy as np
import polars as pl
from jaxtyping import Float

from hyperlax.report.metrics import sample_metrics
from hyperlax.storage.results import Results

MIN_SEEDS = 3
"""Minimum number of seeds for the interval of a sample to be trusted in ranking."""


def leaderboard(results: Results, top: int | None = 5) -> pl.DataFrame:
    """Return the `top` samples (all if None) by peak return, best first.

    Columns: `rank`, `sample`, `peak_return` (interquartile mean over seeds), `peak_low`, `peak_high` (95 %
    interval), `final_return`, `seeds_done`, `seeds_diverged` and every hyperparameter that varies. `rank` is
    text, a place or a range of places ("1", "2–5"): no order is claimed between samples whose intervals
    overlap or that have fewer than three seeds. Samples without an evaluation come last, with rank "–".
    """
    measured = sample_metrics(results).sort(
        "peak_return", descending=True, nulls_last=True, maintain_order=True
    )
    ranks = _ranks(measured)
    table = measured.select(
        pl.Series("rank", ranks, dtype=pl.String),
        "sample",
        "peak_return",
        peak_low="peak_return_low",
        peak_high="peak_return_high",
        final_return="final_return",
        seeds_done="seeds_done",
        seeds_diverged="seeds_diverged",
    )
    varied = varied_hyperparameters(results.samples)
    if varied:
        table = table.join(
            results.samples.select("sample", *varied), on="sample", how="left", maintain_order="left"
        )
    return table if top is None else table.head(top)


def varied_hyperparameters(samples: pl.DataFrame) -> list[str]:
    """Return the hyperparameter columns of the sample table that hold more than one value."""
    return [
        column
        for column in samples.columns
        if column not in ("sample", "matrix") and len({str(value) for value in samples[column].to_list()}) > 1
    ]


def _ranks(measured: pl.DataFrame) -> list[str]:
    """Return the rank of each row: "a" or "a–b", and "–" for a sample without an evaluation.

    a is 1 + the number of samples whose intervals lie above, b the number of samples whose intervals do not
    lie below. The interval of a sample with fewer than `MIN_SEEDS` seeds is taken as unbounded, because
    resampling two seeds says little about a third.
    """
    value = _floats(measured, "peak_return")
    low, high = _floats(measured, "peak_return_low"), _floats(measured, "peak_return_high")
    scored = ~np.isnan(value)
    unsure = np.isnan(low) | (_floats(measured, "seeds") < MIN_SEEDS)
    low = np.where(scored & unsure, -np.inf, low)
    high = np.where(scored & unsure, np.inf, high)
    texts = []
    for has_score, above, below in zip(scored, low, high, strict=True):
        if not has_score:
            texts.append("–")
            continue
        first = 1 + int(np.sum(scored & (low > below)))
        last = int(scored.sum()) - int(np.sum(scored & (high < above)))
        texts.append(str(first) if first == last else f"{first}–{last}")
    return texts


def _floats(frame: pl.DataFrame, name: str) -> Float[np.ndarray, " rows"]:
    """Return a column as an array of floats, NaN for null."""
    return frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
