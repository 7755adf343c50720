"""Selection bias: tuning scores of the best samples against their scores when retrained with fresh seeds."""

from __future__ import annotations

import numpy as np
import polars as pl
from jaxtyping import Float

from hyperlax.report.charts.style import text
from hyperlax.report.metrics import lane_metrics, sample_metrics
from hyperlax.report.statistics import REPETITIONS, Estimate, bootstrap_iqm, interval
from hyperlax.storage.results import Results


def selection_bias(results: Results) -> pl.DataFrame:
    """Return tuning score, confirmed score and their difference, one row per confirmed sample.

    The sample with the best tuning score comes first. Columns: `sample`; `tuning` and `confirmed` (peak
    return, interquartile mean over seeds), each with the ends of its 95 % interval in `…_low` and `…_high`;
    `drop`, which is tuning minus confirmed, with an interval from resampling the seeds of both; `seeds`, the
    number of seeds that the confirmation has evaluated, and `seeds_diverged`. Scores are null without an
    evaluation, intervals with fewer than two seeds. Raises `ValueError` without a confirmation.
    """
    confirmation = _confirmation(results)
    counts = sample_metrics(confirmation).select("sample", "seeds", "seeds_diverged")
    table = (
        _scores(confirmation, "confirmed")
        .join(_scores(results, "tuning"), on="sample", how="left")
        .join(counts, on="sample", how="left")
        .sort("tuning", "sample", descending=[True, False], nulls_last=True)
    )
    low, high = interval(_drop_draws(results, table["sample"].to_list()))
    return table.select(
        "sample",
        *("tuning", "tuning_low", "tuning_high"),
        *("confirmed", "confirmed_low", "confirmed_high"),
        drop=pl.col("tuning") - pl.col("confirmed"),
        drop_low=pl.Series(low, dtype=pl.Float64).fill_nan(None),
        drop_high=pl.Series(high, dtype=pl.Float64).fill_nan(None),
        seeds="seeds",
        seeds_diverged="seeds_diverged",
    )


def average_drop(results: Results) -> Estimate:
    """Return the mean drop over the samples that have both scores, with its interval over seeds (scalars)."""
    table = selection_bias(results).drop_nulls("drop")
    if table.is_empty():
        return Estimate(*(np.asarray(np.nan) for _ in range(3)))
    ends = interval(_drop_draws(results, table["sample"].to_list()).mean(axis=0))
    return Estimate(np.asarray(table["drop"].to_numpy().mean()), *ends)


def drop_words(results: Results) -> str:
    """Describe the average drop in a sentence, which claims no bias if the interval contains zero."""
    found = average_drop(results)
    if np.isnan(found.value):
        return "Nothing has been confirmed yet."
    sentence = f"The average drop is {text(float(found.value))}"
    if np.isnan(found.low):
        return f"{sentence}; a single seed gives no interval."
    sentence += f" [{text(float(found.low))}, {text(float(found.high))}]"
    return f"{sentence}: no bias is claimed." if found.low <= 0 <= found.high else f"{sentence}."


def _confirmation(results: Results) -> Results:
    """Return the confirmation of an experiment; raise `ValueError` if there is none."""
    if results.confirmation is None:
        raise ValueError("no sample was retrained with fresh seeds: use --confirm or hyperlax.confirm")
    return results.confirmation


def _scores(results: Results, name: str) -> pl.DataFrame:
    """Return peak returns with their intervals, in the columns `sample`, `name`, `name_low`, `name_high`."""
    ends = {f"{name}{end}": f"peak_return{end}" for end in ("", "_low", "_high")}
    return results.samples.select("sample").join(
        sample_metrics(results).select("sample", **ends), on="sample", how="left"
    )


def _drop_draws(results: Results, samples: list[int]) -> Float[np.ndarray, "samples repetitions"]:
    """Return bootstrap draws of tuning minus confirmed score, resampling the seeds of both.

    NaN for a sample that has fewer than two seeds on either side.
    """
    drops = np.empty((len(samples), REPETITIONS))
    peaks = [
        dict(lane_metrics(r).drop_nulls("peak_return").group_by("sample").agg("peak_return").iter_rows())
        for r in (results, _confirmation(results))
    ]
    for row, sample in enumerate(samples):
        before, after = (
            bootstrap_iqm(np.asarray(own.get(sample, []), float)[None, :, None], seed=2 * row + part)[0, 0]
            for part, own in enumerate(peaks)
        )
        drops[row] = before - after
    return drops
