"""Bands of learning curves: intervals where there are enough runs, else the range of the seeds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from hyperlax.statistics import (
    MIN_RUNS,
    Estimate,
    iqm,
    iqm_over_runs,
    iqm_over_strata,
    quantiles,
    without_interval,
)
from hyperlax.storage.wording import listed


def over_seeds(values: Float[np.ndarray, "samples seeds points"]) -> Estimate:
    """Return the interquartile mean over the seeds of every sample, with the ends of its band.

    The band is the 95 % interval if there are `MIN_RUNS` seeds, else it reaches from the lowest to the
    highest seed; with a single seed there is none.
    """
    if values.shape[1] >= MIN_RUNS:
        return iqm_over_runs(values)
    if values.shape[1] < 2:
        return without_interval(iqm(values, axis=1))
    return Estimate(iqm(values, axis=1), *quantiles(values, (0.0, 1.0), axis=1))


def over_samples(values: Float[np.ndarray, "samples seeds points"], independent: bool = True) -> Estimate:
    """Return the interquartile mean over samples of those over seeds, with its 95 % interval where one holds.

    The interval is over the samples if there are `MIN_RUNS` of them, else over the seeds of these samples.
    There is none unless samples are `independent` random draws.
    """
    if not independent:
        return without_interval(iqm(iqm(values, axis=1), axis=0))
    if len(values) >= MIN_RUNS:
        found = iqm_over_runs(iqm(values, axis=1)[None])
        return Estimate(found.value[0], found.low[0], found.high[0])
    return iqm_over_strata(values)


def words_of_families(seeds: Mapping[str, int]) -> str:
    """Say what the bands of `over_seeds` are for families of so many seeds, each by its name."""
    if len({(count >= MIN_RUNS, count > 1) for count in seeds.values()}) < 2:
        return words(min(seeds.values()))
    kinds = (
        ("95 % intervals", [name for name, count in seeds.items() if count >= MIN_RUNS]),
        ("from the lowest to the highest seed", [n for n, count in seeds.items() if 1 < count < MIN_RUNS]),
        ("none, because there is one seed,", [name for name, count in seeds.items() if count < 2]),
    )
    said = "; ".join(f"{what} for {listed(names)}" for what, names in kinds if names)
    return f"Interquartile mean over seeds; bands: {said}. An interval needs {MIN_RUNS} seeds."


def words(seeds: int) -> str:
    """Say what the bands of `over_seeds` are."""
    if seeds >= MIN_RUNS:
        return "Interquartile mean over seeds; bands: 95 % intervals."
    if seeds > 1:
        return (
            "Interquartile mean over seeds; bands: from the lowest to the highest seed, because fewer than "
            f"{MIN_RUNS} seeds have no interval that holds."
        )
    return "Each sample has one seed, so there are no intervals of single samples."


def uneven_words(values: Float[np.ndarray, "samples seeds points"]) -> str:
    """Say that an average is not over the same samples everywhere, as a sentence; empty if it is."""
    known = np.asarray(~np.isnan(values).all(axis=1))
    known = known[:, known.any(axis=0)][known.any(axis=1)]
    return "" if known.all() else " Where only some of these samples were evaluated, it is over those."


def words_of_all(samples: int, late: int, bounded: bool) -> str:
    """Say what the dashed curve of so many samples is, with the band of `over_samples` if it is `bounded`.

    So many samples are `late`: they have no evaluation at the end.
    """
    over = "samples" if samples >= MIN_RUNS else "the seeds of these samples"
    each = f"all samples that have come as far, which {late:,} have not" if late else "all samples"
    band = f"; its band: 95 % interval over {over}" if bounded else ""
    return f"Dashed: interquartile mean over {each}{band}."
