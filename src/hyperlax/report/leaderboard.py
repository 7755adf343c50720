"""Leaderboard: the best samples, with ranks that are ranges wherever the order is not certain."""

from __future__ import annotations

import numpy as np
import polars as pl
from jaxtyping import Float

from hyperlax.hyperparams import design
from hyperlax.report.metrics import lane_metrics, sample_metrics
from hyperlax.statistics import quantiles, rank_intervals
from hyperlax.storage.results import Results


def leaderboard(results: Results, top: int | None = 5) -> pl.DataFrame:
    """Return the `top` samples (all if None) by peak return, best first.

    Columns: `rank`, `sample`, `peak_return` (interquartile mean over seeds), `peak_low`, `peak_high` (95 %
    interval, null with fewer than ten seeds or if all agree), `lowest_seed`, `highest_seed`, `final_return`,
    `seeds_done`, `seeds_diverged` and every hyperparameter that varies. `rank` is text, a place or a range of
    places ("1", "2–5"); in 95 % of leaderboards all ranges hold together (`statistics.rank_intervals`). With
    three seeds or fewer no samples are told apart. Samples without an evaluation come last, with rank "–".
    """
    measured = sample_metrics(results).sort(
        "peak_return", descending=True, nulls_last=True, maintain_order=True
    )
    peaks = _seeds(results, measured["sample"].to_list())
    score = measured["peak_return"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    table = measured.select(
        pl.Series("rank", _ranks(peaks, score), dtype=pl.String),
        "sample",
        "peak_return",
        peak_low="peak_return_low",
        peak_high="peak_return_high",
        lowest_seed=pl.Series(quantiles(peaks, (0.0,))[0]).fill_nan(None),
        highest_seed=pl.Series(quantiles(peaks, (1.0,))[0]).fill_nan(None),
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
        if column not in design.COLUMNS and len({str(value) for value in samples[column].to_list()}) > 1
    ]


def _seeds(results: Results, samples: list[int]) -> Float[np.ndarray, "samples seeds"]:
    """Return the peak returns of the seeds of every sample, NaN where there is none."""
    scored = lane_metrics(results).drop_nulls("peak_return").group_by("sample").agg("peak_return")
    found = dict(scored.iter_rows())
    peaks = np.full((len(samples), max(map(len, found.values()), default=1)), np.nan)
    for row, sample in enumerate(samples):
        own = found.get(sample, [])
        peaks[row, : len(own)] = own
    return peaks


def _ranks(peaks: Float[np.ndarray, "samples seeds"], score: Float[np.ndarray, " samples"]) -> list[str]:
    """Return the rank of each sample: "a" or "a–b", and "–" for a sample without an evaluation."""
    places = zip(*(end.tolist() for end in rank_intervals(peaks, score)), strict=True)
    return ["–" if not b else str(a) if a == b else f"{a}–{b}" for a, b in places]
