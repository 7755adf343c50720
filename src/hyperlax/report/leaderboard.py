"""The best samples, with the ranks their intervals allow."""

from __future__ import annotations

import numpy as np
import polars as pl
from jaxtyping import Float

from hyperlax.report.metrics import sample_metrics
from hyperlax.storage.results import Results

LEAST_SEEDS = 3
"""Seeds a sample needs for its interval to rank it."""


def leaderboard(results: Results, top: int | None = 5) -> pl.DataFrame:
    """The `top` samples (all if None) by peak return, best first.

    Columns: `rank`, `sample`, `peak_return` (interquartile mean over seeds), `peak_low`, `peak_high` (95 %
    interval), `final_return`, `seeds_done`, `seeds_diverged` and every hyperparameter that varies. `rank` is
    text: the places the sample may have ("1", "2–5"), since no order is claimed between samples whose
    intervals overlap, or with fewer than three seeds. Samples without an evaluation come last, with rank "–".
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
    """Columns of the sample table, its `matrix` aside, that do not hold the same value for all samples."""
    return [
        column
        for column in samples.columns
        if column not in ("sample", "matrix") and len({str(value) for value in samples[column].to_list()}) > 1
    ]


def _ranks(measured: pl.DataFrame) -> list[str]:
    """Place of each row: 1 + samples surely better … samples not surely worse.

    Fewer than `LEAST_SEEDS` seeds make nothing sure: resampling two of them says little about a third.
    """
    value = _column(measured, "peak_return")
    low, high = _column(measured, "peak_return_low"), _column(measured, "peak_return_high")
    scored = ~np.isnan(value)
    unsure = np.isnan(low) | (_column(measured, "seeds") < LEAST_SEEDS)
    low = np.where(scored & unsure, -np.inf, low)
    high = np.where(scored & unsure, np.inf, high)
    texts = []
    for here, above, below in zip(scored, low, high, strict=True):
        if not here:
            texts.append("–")
            continue
        first = 1 + int(np.sum(scored & (low > below)))
        last = int(scored.sum()) - int(np.sum(scored & (high < above)))
        texts.append(str(first) if first == last else f"{first}–{last}")
    return texts


def _column(frame: pl.DataFrame, name: str) -> Float[np.ndarray, " rows"]:
    return frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
