"""Leaderboard: the best samples, with ranks that are ranges wherever the order is not certain."""

from __future__ import annotations

import numpy as np
import polars as pl
from jaxtyping import Float

from hyperlax.hyperparams import design
from hyperlax.report.evaluations import behind
from hyperlax.report.scores import described, sample_scores, seed_scores
from hyperlax.statistics import rank_intervals
from hyperlax.storage.results import Results


def leaderboard(results: Results, top: int | None = 5) -> pl.DataFrame:
    """Return the `top` samples (all if None) by the headline metric, best first.

    Columns: `rank`, the columns of `sample_scores` and of `described` (what the score is), and every
    hyperparameter that varies. `rank` is text, a place or a range of places ("1", "2–5"); in 95 % of
    leaderboards all ranges hold together (`statistics.rank_intervals`). With three seeds or fewer no samples
    are told apart. Samples of equal score are in the order of their ids. Samples that cannot be compared at
    equal steps (`evaluations.behind`) come after the ranked ones, and samples without an evaluation last,
    both with rank "–".
    """
    late, measured = pl.col("sample").is_in(list(behind(results))), sample_scores(results)
    measured = measured.sort(
        pl.col("score").is_null(), late, "score", descending=[False, False, True], maintain_order=True
    )
    seeds = seed_scores(results, measured["sample"].to_list())
    score = measured.select(pl.when(~late).then("score").fill_null(np.nan))["score"].to_numpy()
    ranks = pl.Series("rank", _ranks(seeds, score), dtype=pl.String)
    table = described(measured.select(ranks, pl.all()), results)
    varied = varied_hyperparameters(results.samples)
    if varied:
        table = table.join(
            results.samples.select("sample", *varied), on="sample", how="left", maintain_order="left"
        )
    return table if top is None else table.head(top)


def tied(board: pl.DataFrame) -> int:
    """Return how many samples of a leaderboard share score and rank with the first; 0 if it has no score."""
    if not board["score"].count():
        return 0
    return int(((board["score"] == board["score"][0]) & (board["rank"] == board["rank"][0])).sum())


def varied_hyperparameters(samples: pl.DataFrame) -> list[str]:
    """Return the hyperparameter columns of the sample table that hold more than one value."""
    return [
        column
        for column in samples.columns
        if column not in design.COLUMNS and len({str(value) for value in samples[column].to_list()}) > 1
    ]


def _ranks(seeds: Float[np.ndarray, "samples seeds"], score: Float[np.ndarray, " samples"]) -> list[str]:
    """Return the rank of each sample: "a" or "a–b", and "–" for a sample without a score."""
    places = zip(*(end.tolist() for end in rank_intervals(seeds, score)), strict=True)
    return ["–" if not b else str(a) if a == b else f"{a}–{b}" for a, b in places]
