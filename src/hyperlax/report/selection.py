"""Selection bias: tuning scores of the best samples against their scores when retrained with fresh seeds."""

from __future__ import annotations

import numpy as np
import polars as pl
from jaxtyping import Float

from hyperlax.report.charts.style import text
from hyperlax.report.scores import described, headline_of, measured_by, sample_scores, seed_scores
from hyperlax.report.words import spanned
from hyperlax.statistics import Difference, average_difference, difference
from hyperlax.storage.results import Results

DROP_MEANING = (
    "The drop is a difference of scores; its interval is that of the difference of the plain means over "
    "seeds, and may lie to one side of it where seeds differ much."
)
"""What readers have to know who see a drop beside its interval."""


def selection_bias(results: Results) -> pl.DataFrame:
    """Return tuning score, confirmed score and their difference, one row per confirmed sample.

    The sample with the best tuning score comes first. Columns: `sample`; `tuning` and `confirmed` (scores by
    the headline metric), each with the ends of its 95 % interval in `…_low` and `…_high`; `drop`, which is
    tuning minus confirmed, with the interval of a permutation test; `seeds`, the number of seeds that count
    in the confirmation, `seeds_diverged`, and what the scores are (`scores.described`). Scores are null
    without an evaluation, their intervals where none holds, that of the drop with three seeds on both sides
    or fewer. A drop has no interval either where the score is a maximum. The interval is that of the
    difference of plain means over seeds, while the drop itself is that of the scores (`DROP_MEANING`).
    Raises `ValueError` without a confirmation.
    """
    confirmation = _confirmation(results)
    counts = sample_scores(confirmation).select("sample", "seeds", "seeds_diverged")
    table = (
        _scores(confirmation, "confirmed")
        .join(_scores(results, "tuning"), on="sample", how="left")
        .join(counts, on="sample", how="left")
        .sort("tuning", "sample", descending=[True, False], nulls_last=True)
    )
    drops = [difference(*pair) for pair in _pairs(results, table["sample"].to_list())]
    shown = table.select(
        "sample",
        *("tuning", "tuning_low", "tuning_high"),
        *("confirmed", "confirmed_low", "confirmed_high"),
        drop=pl.col("tuning") - pl.col("confirmed"),
        drop_low=pl.Series([float(d.low) for d in drops], dtype=pl.Float64).fill_nan(None),
        drop_high=pl.Series([float(d.high) for d in drops], dtype=pl.Float64).fill_nan(None),
        seeds="seeds",
        seeds_diverged="seeds_diverged",
    )
    return described(shown, results)


def average_drop(results: Results) -> Difference:
    """Return the mean drop over the samples that have both scores, with its interval over seeds (scalars)."""
    table = selection_bias(results).drop_nulls("drop")
    found = average_difference(_pairs(results, table["sample"].to_list()))
    value = np.asarray(table["drop"].to_numpy().mean()) if len(table) else found.value
    return Difference(value, found.low, found.high, found.p)


def drop_words(results: Results) -> str:
    """Describe the average drop in a sentence, which claims no bias if the interval contains zero."""
    found = average_drop(results)
    if np.isnan(found.value):
        return "Nothing has been confirmed yet."
    sentence = f"The average drop is {text(float(found.value))}"
    if np.isnan(found.low):
        if headline_of(results.manifest).maximum:
            return f"{sentence}; a maximum over the mean of seeds has no interval."
        return f"{sentence}; so few seeds give no interval."
    mean = average_difference(_pairs(results, selection_bias(results).drop_nulls("drop")["sample"].to_list()))
    value, low, high = spanned(float(mean.value), float(mean.low), float(mean.high))
    if not np.isclose(mean.value, found.value):
        sentence += f"; that of the plain means over seeds is {value}"
    sentence += f" [{low}, {high}]"
    return f"{sentence}." if found.p <= 0.05 else f"{sentence}: no bias is claimed."


def _confirmation(results: Results) -> Results:
    """Return the confirmation of an experiment, with its metric; raise `ValueError` if there is none."""
    if results.confirmation is None:
        raise ValueError("no sample was retrained with fresh seeds: use --confirm or hyperlax.confirm")
    return measured_by(results.confirmation, headline_of(results.manifest).name)


def _scores(results: Results, name: str) -> pl.DataFrame:
    """Return scores with their intervals, in the columns `sample`, `name`, `name_low`, `name_high`."""
    ends = {f"{name}{end}": f"score{end}" for end in ("", "_low", "_high")}
    return results.samples.select("sample").join(
        sample_scores(results).select("sample", **ends), on="sample", how="left"
    )


def _pairs(
    results: Results, samples: list[int]
) -> list[tuple[Float[np.ndarray, " before"], Float[np.ndarray, " after"]]]:
    """Return the scores of the seeds in tuning and in confirmation of every sample in `samples`.

    There are none where the score is a maximum over the mean of seeds, which single seeds say nothing about.
    """
    if headline_of(results.manifest).maximum:
        return [(np.empty(0), np.empty(0)) for _ in samples]
    sides = (seed_scores(part, samples) for part in (results, _confirmation(results)))
    return [
        (before[~np.isnan(before)], after[~np.isnan(after)]) for before, after in zip(*sides, strict=True)
    ]
