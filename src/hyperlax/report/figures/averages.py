"""The line that stands for a group of samples, with a band where one holds."""

from __future__ import annotations

import numpy as np
import polars as pl
from jaxtyping import Float

from hyperlax.report.charts import bands
from hyperlax.statistics import (
    FEWEST_TRIMMED,
    MIN_RUNS,
    Estimate,
    iqm,
    iqm_over_runs,
    mean,
    median_interval_words,
    median_over_runs,
    without_interval,
)

SHOW = ("iqm", "median", "mean", "best", "all")
"""What may stand for a group: an average over its samples, its best sample, or all of them."""
BANDS = ("interval", "range", "none")
"""What a band may be."""
_MEDIAN_RUNS = 5
_NAMES = {"iqm": "interquartile mean", "median": "median", "mean": "mean"}


def best_row(scores: pl.Series) -> int:
    """The position of the sample with the highest score; the first if none has one."""
    return int(np.argmax(scores.cast(pl.Float64).fill_null(-np.inf).fill_nan(-np.inf).to_numpy()))


def average(values: Float[np.ndarray, "samples seeds points"], show: str, band: str) -> Estimate:
    """Return the line of a group, with the ends of its band, at every point.

    Samples count once each, with the interquartile mean over their seeds (for `mean` their mean); a group of
    one sample is averaged over its seeds. The interval is that of `hyperlax.statistics`, of 95 %, and is
    missing with too few samples and for the mean; the range reaches from the lowest to the highest of them.
    """
    single = len(values) == 1
    runs = values[0] if single else (mean(values, axis=1) if show == "mean" else iqm(values, axis=1))
    if show == "mean":
        found = without_interval(mean(runs, axis=0))
    elif show == "median":
        found = _first(median_over_runs(runs[None]))
    else:
        found = _first(iqm_over_runs(runs[None])) if single else bands.over_samples(values)
    if band == "interval":
        return found
    if band == "none" or len(runs) < 2:
        return without_interval(found.value)
    known = ~np.isnan(runs).all(axis=0)
    low, high = (np.full(runs.shape[1], np.nan) for _ in range(2))
    low[known], high[known] = np.nanmin(runs[:, known], axis=0), np.nanmax(runs[:, known], axis=0)
    return Estimate(found.value, low, high)


def average_words(
    show: str, band: str, samples: int, seeds: int, drawn: bool, most: int | None = None
) -> str:
    """Say what the lines and bands are, for a caption: `drawn` if there is any band.

    `samples` is the least number of samples of a group, `most` the largest (by default the same), and `seeds`
    the least of a sample.
    """
    if samples == 1 and (most or 1) > 1 and show not in ("best", "all"):
        return _mixed_words(show, band, seeds, drawn) + _trimmed_words(show, most or 1, seeds)
    return f"{_line_and_band_words(show, band, samples, seeds, drawn)}{_trimmed_words(show, samples, seeds)}"


def _mixed_words(show: str, band: str, seeds: int, drawn: bool) -> str:
    """Say what lines and bands are where some groups have one sample, and others several."""
    of_each = " of their interquartile means over seeds" if seeds > 1 and show != "mean" else ""
    line = (
        f"Lines: {_NAMES[show]} over the samples of a group{of_each}, or over seeds where it has one sample."
    )
    least = _MEDIAN_RUNS if show == "median" else MIN_RUNS
    if band == "none" or (band == "range" and not drawn):
        return line
    if band == "range":
        return f"{line} Bands: from the lowest to the highest of these."
    if drawn:
        if show == "median":
            how = "by order statistics; of five runs their range, which is one of 93.75 %"
        else:
            how = f"by bootstrap{_over_words(one=False, samples=1)}"
        return f"{line} Bands: 95 % intervals, {how}."
    if show == "mean":
        return f"{line} No bands: no interval of a mean holds for few runs; median and iqm have one."
    return f"{line} No bands: an interval that holds needs {least} of these, that differ."


def _trimmed_words(show: str, samples: int, seeds: int) -> str:
    """Say where an interquartile mean is over so few that it drops none of them."""
    one = samples == 1 or show == "best"
    few = [
        f"{runs} {kind}"
        for runs, kind, used in (
            (samples, "samples", show == "iqm" and not one),
            (seeds, "seeds", show in ("iqm", "median", "best", "all") and not (one and show == "median")),
        )
        if used and 1 < runs < FEWEST_TRIMMED
    ]
    return f" The interquartile mean of {' and of '.join(few)} is their plain mean." if few else ""


def _line_and_band_words(show: str, band: str, samples: int, seeds: int, drawn: bool) -> str:
    if show == "all":
        return "Every line is a sample: the interquartile mean over its seeds."
    one = samples == 1 or show == "best"
    over = (
        "seeds"
        if one
        else "samples" + (" of their interquartile means over seeds" if seeds > 1 and show != "mean" else "")
    )
    line = f"Lines: {_NAMES.get(show, 'interquartile mean')} over {over}"
    line += (
        ", of the sample with the best score, which was chosen by these evaluations."
        if show == "best"
        else "."
    )
    if band == "none":
        return line
    runs = seeds if one else samples
    if drawn:
        of_median = show == "median"
        what = (
            f"intervals of the median ({median_interval_words(runs)})"
            if band == "interval" and of_median
            else "95 % intervals, by bootstrap" + _over_words(one, samples)
            if band == "interval"
            else f"from the lowest to the highest {'seed' if one else 'sample'}"
        )
        return f"{line} Bands: {what}."
    if show == "mean":
        return f"{line} No bands: no interval of a mean holds for few runs; median and iqm have one."
    least = _MEDIAN_RUNS if show == "median" else MIN_RUNS
    if runs < least:
        other = (
            f"; the median has one from {_MEDIAN_RUNS} on"
            if show != "median" and runs >= _MEDIAN_RUNS
            else ""
        )
        kind = "seeds" if one else "samples"
        return f"{line} No bands: an interval that holds needs {least} {kind}, there are {runs}{other}."
    return f"{line} No bands: all runs agree."


def _over_words(one: bool, samples: int) -> str:
    """Say over what a bootstrap draws that is not over what its line is: see `bands.over_samples`."""
    if one or samples >= MIN_RUNS:
        return ""
    return f" over seeds, with the samples of a group held fixed where it has fewer than {MIN_RUNS}"


def _first(estimate: Estimate) -> Estimate:
    return Estimate(estimate.value[0], estimate.low[0], estimate.high[0])
