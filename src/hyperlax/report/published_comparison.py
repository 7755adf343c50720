"""Statistical comparison of experiments with published results of the same environments and families.

Both sides use the metric of the published side, which is that of hyperlax v0.1 (`peak_of_mean`: the largest
evaluation of a sample, each a mean over its seeds) unless the table names another. Quantiles have
intervals over samples that hold for any distribution. A published number without its samples has none, so
that nobody is ahead of it; neither have statistics of the best samples, for which no interval holds.
Samples that diverged count on both sides as `evaluations.DIVERGED` says. Ours that cannot be compared at
equal steps are left out, as everywhere, and if both sides have the same design also on the published side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float

from hyperlax.report.draws import dependence, repeated
from hyperlax.report.evaluations import behind, has_ended
from hyperlax.report.metrics import reference_scores
from hyperlax.report.published import COLUMNS, Cell, Published, other_schedule
from hyperlax.report.scores import described, measured_by, ranked
from hyperlax.statistics import Estimate, iqm, quantile_intervals, spearman, without_interval
from hyperlax.storage.results import Results

STATISTICS = tuple(COLUMNS)
BEST_STATISTICS = ("best", "top 5 IQM")
"""Statistics whose expectation grows with the number of samples."""
OTHER_SCHEDULE = "not claimed: the published returns come from another evaluation schedule"
_TOLERANCE = 2e-3
"""Relative tolerance when hyperparameters are compared: published values have four significant digits."""


class Matched(NamedTuple):
    """An experiment paired with the published results of its cell (environment, algorithm and network).

    - `rows`: a table with one row per statistic.
    - `pairs`: scores of the samples that both sides trained, with the columns sample, ours and
      published. Empty if the samples were not published, or if their hyperparameters differ from ours.
    - `correlation`: Spearman's rank correlation of the pairs.
    - `mismatch`: why the samples cannot be paired; empty if they can.
    - `schedule`: why the published returns are no reference for the protocol; empty if they may be one.
    - `unclaimed`: why ours have no intervals over samples, and no order is claimed; empty if they may have.
    - `diverged`, `left_out`: published samples that diverged, and samples of ours that are not compared.
    """

    results: Results
    rows: pl.DataFrame
    pairs: pl.DataFrame
    correlation: Estimate
    mismatch: str
    schedule: str = ""
    unclaimed: str = ""
    diverged: int = 0
    left_out: int = 0


def over_samples(values: Float[np.ndarray, " samples"]) -> dict[str, Estimate]:
    """Return each of `STATISTICS` over the samples; the quantiles have intervals over enough samples."""
    if len(values) == 0:
        return dict.fromkeys(STATISTICS, without_interval(np.nan))
    quantile = quantile_intervals(values, np.array([0.5, 0.25]))
    median, q25 = (
        Estimate(*(np.asarray(end[place]) for end in (quantile.value, quantile.low, quantile.high)))
        for place in range(2)
    )
    best, top = np.max(values), iqm(np.sort(values)[-5:])
    return dict(zip(STATISTICS, (without_interval(best), without_interval(top), median, q25), strict=True))


def matched(experiments: Sequence[Results], published: Published) -> list[Matched]:
    """Compare each experiment with its published cell; skip the experiments whose cell was not published."""
    found = []
    for results in experiments:
        about = results.manifest
        cell = Cell.of(*(str(about.get(key, "")) for key in ("env", "algorithm", "network")))
        if cell in published.cells or cell in published.samples:
            found.append(_match(results, cell, published))
    return found


def _match(results: Results, cell: Cell, published: Published) -> Matched:
    """Compare one experiment with the published numbers or samples of `cell`."""
    results = measured_by(results, published.metric)
    apart = [*behind(results), *repeated(results)]
    ours, theirs = ranked(results).filter(~pl.col("sample").is_in(apart)), published.samples.get(cell)
    left_out, diverged = len(results.samples) - len(ours), 0
    pairs = pl.DataFrame(schema={"sample": pl.Int64, "ours": pl.Float64, "published": pl.Float64})
    mismatch = ""
    if theirs is None:
        values, count = published.cells[cell]
        numbers = {name: without_interval(value) for name, value in values.items()}
    else:
        mismatch = design_mismatch(results.samples, theirs)
        lost, theirs = theirs["peak"].is_null(), _with_diverged(theirs, results)
        if not mismatch:  # restrict both sides to the samples that both have
            lost = lost.filter(theirs["sample"].is_in(ours["sample"].implode()))
            theirs = theirs.filter(pl.col("sample").is_in(ours["sample"].implode()))
            ours = ours.filter(pl.col("sample").is_in(theirs["sample"].implode()))
            known = theirs.select("sample", published="peak").drop_nulls()
            pairs = ours.select("sample", ours="score").join(known, on="sample").sort("sample")
        diverged = int(lost.sum())
        numbers, count = over_samples(theirs["peak"].drop_nulls().to_numpy()), len(theirs)
    own, unclaimed = over_samples(ours["score"].to_numpy()), dependence(results)
    if unclaimed:
        own = {name: without_interval(found.value) for name, found in own.items()}
    elif not has_ended(results):
        unclaimed = f"no lane of {results.name} has trained to the end"
    rows = _rows(results, own, len(ours), numbers, count, theirs is not None)
    schedule = "" if theirs is None else other_schedule(theirs)
    if schedule or unclaimed:
        rows = rows.with_columns(ahead=pl.lit(OTHER_SCHEDULE if schedule else f"not claimed: {unclaimed}"))
    correlation = spearman(pairs["ours"].to_numpy(), pairs["published"].to_numpy())
    return Matched(results, rows, pairs, correlation, mismatch, schedule, unclaimed, diverged, left_out)


def _with_diverged(theirs: pl.DataFrame, results: Results) -> pl.DataFrame:
    """Return published samples with the peaks of those that diverged, once any is known.

    They are as low as ours would be: the return of a random policy, or the lowest peak if that is lower or
    the former unknown.
    """
    peaks = theirs["peak"].drop_nulls().to_list()
    random = reference_scores(results.manifest).get("random")
    return theirs.with_columns(
        pl.col("peak").fill_null(min([*peaks, *([] if random is None else [random])]) if peaks else None)
    )


def design_mismatch(ours: pl.DataFrame, theirs: pl.DataFrame) -> str:
    """Explain why equal sample ids do not stand for equal hyperparameters; return "" if they do.

    Compares the numeric columns that both tables have, to the published number of digits.
    """
    both = ours.join(theirs, on="sample", suffix=" published")
    if both.is_empty():
        return "no sample id occurs on both sides"
    for column in ours.columns:
        other = f"{column} published"
        if other not in both.columns or not (
            both[column].dtype.is_float() and both[other].dtype.is_numeric()
        ):
            continue
        a, b = (both[c].cast(pl.Float64).fill_null(np.nan).to_numpy() for c in (column, other))
        wrong = ~np.isclose(a, b, rtol=_TOLERANCE, atol=1e-12, equal_nan=True)
        if wrong.any():
            at = int(np.argmax(wrong))
            return (
                f"{column} of sample {both['sample'][at]} is {a[at]:.4g} here, "
                f"but {b[at]:.4g} in the published results"
            )
    return ""


def _rows(
    results: Results,
    ours: Mapping[str, Estimate],
    count: int,
    theirs: Mapping[str, Estimate],
    published_count: int,
    sampled: bool,
) -> pl.DataFrame:
    """Build the comparison table: both values of each statistic with their intervals, and who is ahead."""
    rows = []
    for name in STATISTICS:
        a, b = ours[name], theirs[name]
        claim = ahead(a, b, sampled)
        if name in BEST_STATISTICS:
            claim = "not claimed: no interval holds for the best"
            if count != published_count:
                claim = "not claimed: different numbers of samples"
        rows.append(
            {
                "environment": results.manifest.get("env"),
                "family": results.name,
                "statistic": name,
                "ahead": claim,
                "samples": count,
                "ours": float(a.value),
                "low": float(a.low),
                "high": float(a.high),
                "published samples": published_count or None,
                "published": float(b.value),
                "published low": float(b.low),
                "published high": float(b.high),
            }
        )
    numbers = ("ours", "low", "high", "published", "published low", "published high")
    schema = {"published samples": pl.Int64, **dict.fromkeys(numbers, pl.Float64)}
    table = pl.DataFrame(rows, schema_overrides=schema).with_columns(pl.col(numbers).fill_nan(None))
    return described(table, results)


def ahead(ours: Estimate, theirs: Estimate, sampled: bool) -> str:
    """Return "ours" or "published" if the two intervals are disjoint, else "not claimed: …" with the reason.

    Unless the published side is `sampled`, it is a single number whose spread is not known.
    """
    if not sampled:
        return "not claimed: the published number has no spread"
    if np.isnan([ours.low, ours.high, theirs.low, theirs.high]).any():
        return "not claimed: no interval"
    if ours.low > theirs.high:
        return "ours"
    return "published" if ours.high < theirs.low else "not claimed: intervals overlap"
