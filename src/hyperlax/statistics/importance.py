"""Importance of hyperparameters for being among the best samples, estimated by PED-ANOVA.

Watanabe et al. 2023, "PED-ANOVA: efficiently quantifying hyperparameter importance in arbitrary subspaces": a
hyperparameter is important if its values among the best samples are distributed differently from its values
among all samples. The importance is the Pearson divergence between the two densities, each estimated with
kernels on a grid.

A divergence cannot be negative, and a small set of best samples never matches the distribution of all samples
exactly, so that even a hyperparameter without any effect gets some importance. The chance level says how
much: with the best samples drawn at random, no hyperparameter at all exceeds its chance level in 95 % of
cases. It is a permutation test of all hyperparameters at once (Westfall and Young 1993, "Resampling-based
multiple testing", the single-step procedure on the smallest p value), exact for any number of samples.

The densities of categories are their frequencies, smoothed only by one further observation that is spread
evenly over them. They converge to the population's divergence as samples are added. Optuna mixes categories
by an amount that does not shrink, and converges to a fraction of the divergence, about a third with three
categories; next to numbers, whose kernels do shrink, that understates categories at any number of samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import ndtr

from hyperlax.statistics.averages import iqm
from hyperlax.statistics.estimates import LEVEL, REPETITIONS

QUANTILE = 0.1
"""Share of the samples that count as the best."""
MIN_TOP = 5
"""Minimum number of samples that count as the best."""
_WIDTH_STEPS = 50


@dataclass(frozen=True)
class Dimension:
    """A hyperparameter on a grid of `cells` cells.

    `cell` holds the index of every sample's cell. `ordered` says whether neighbouring cells hold similar
    values, as for numbers, so that the density may be smoothed across them.
    """

    name: str
    cell: Int[np.ndarray, " samples"]
    cells: int
    ordered: bool


@dataclass(frozen=True)
class Importances:
    """The importance of every dimension, as a share of the sum; the level that chance reaches; and p values.

    The levels and p values are corrected for the number of dimensions. An effect may be claimed where
    p ≤ 0.05, which is where the share is above the chance level.
    """

    share: Float[np.ndarray, " dimensions"]
    chance: Float[np.ndarray, " dimensions"]
    p: Float[np.ndarray, " dimensions"]


def top_samples(
    scores: Float[np.ndarray, " samples"], quantile: float = QUANTILE, minimum: int = MIN_TOP
) -> Bool[np.ndarray, " samples"]:
    """Mark the best `quantile` of the samples, at least `minimum` of them, and all ties with the last one.

    A sample without a score (NaN), such as one of which a lane diverged, is worse than all others.
    """
    scores = np.where(np.isnan(scores), -np.inf, scores)
    last = len(scores) - min(len(scores), max(minimum, int(np.ceil(quantile * len(scores)))))
    return scores >= np.partition(scores, last)[last]


def divergence(
    dim: Dimension, top: Bool[np.ndarray, "repetitions samples"]
) -> Float[np.ndarray, " repetitions"]:
    """Return the Pearson divergence of the density of the top samples from the density of all samples.

    Σ p_all (p_top / p_all - 1)², summed over the cells of the grid; the factor (γ' / γ)² of Watanabe et al.
    is left out, because all hyperparameters share it. Each row of `top` is one choice of the top samples,
    and has a kernel width of its own.
    """
    one_hot = np.zeros((len(dim.cell), dim.cells))
    one_hot[np.arange(len(dim.cell)), dim.cell] = 1.0
    overall = _density(dim, one_hot.sum(axis=0, keepdims=True))
    best = _density(dim, top.astype(float) @ one_hot)
    return np.sum((best - overall) ** 2 / overall, axis=1)


def importances(
    scores: Float[np.ndarray, "samples seeds"],
    dimensions: Sequence[Dimension],
    quantile: float = QUANTILE,
    repetitions: int = REPETITIONS,
    seed: int = 0,
) -> Importances:
    """Return the importance of every dimension, and the level that chance alone would reach.

    Importances are shares of the sum of all divergences. The score of a sample is the interquartile mean over
    its seeds. All results are NaN if all samples are equally good. There is no interval over seeds: noise
    mixes up the best samples and lowers every importance, which resampling the seeds only repeats.
    """
    top = top_samples(iqm(scores, axis=1), quantile)
    if top.all():
        return Importances(*(np.full(len(dimensions), np.nan) for _ in range(3)))
    rng = np.random.default_rng(seed)
    shuffled = rng.permuted(np.repeat(top[None], repetitions, axis=0), axis=1)
    tops = np.concatenate([top[None], shuffled])
    found = np.stack([divergence(dim, tops) for dim in dimensions])
    value, total = found[:, 0], found[:, 0].sum()
    p = _p_values(found)
    smallest = np.sort(p.min(axis=0))
    allowed = smallest[int(np.floor((1 - LEVEL) * len(smallest) + 1e-9))]
    corrected = np.searchsorted(smallest, p[:, 0], side="right") / len(smallest)
    chance = np.where(p >= allowed, found, -np.inf).max(axis=1)
    return Importances(value / total, chance / total, corrected)


def _p_values(found: Float[np.ndarray, "dimensions draws"]) -> Float[np.ndarray, "dimensions draws"]:
    """Return the share of each row that is at least as large as each of its values, but for rounding."""
    places = np.round(found, 10)
    ordered = np.sort(places, axis=1)
    at = np.stack([np.searchsorted(row, own, side="left") for row, own in zip(ordered, places, strict=True)])
    return 1 - at / found.shape[1]


def _density(
    dim: Dimension, counts: Float[np.ndarray, "repetitions cells"]
) -> Float[np.ndarray, "repetitions cells"]:
    """Estimate a density on the grid from `counts` per cell and one more observation spread evenly over it.

    Ordered cells are smoothed with normal kernels, truncated at the ends of the grid, whose width follows
    Scott's rule for each row; unordered cells are not smoothed.
    """
    smooth = counts
    if dim.ordered:
        edges = np.arange(dim.cells + 1) - 0.5 - np.arange(dim.cells)[:, None]
        smooth = np.empty_like(counts)
        steps = np.round(np.log(_widths(counts)) * _WIDTH_STEPS)
        for step in np.unique(steps):
            mass = np.diff(ndtr(edges / np.exp(step / _WIDTH_STEPS)), axis=1)
            own = steps == step
            smooth[own] = counts[own] @ (mass / mass.sum(axis=1, keepdims=True))
    return (smooth + 1 / dim.cells) / (counts.sum(axis=1, keepdims=True) + 1)


def _widths(counts: Float[np.ndarray, "repetitions cells"]) -> Float[np.ndarray, " repetitions"]:
    """Return the kernel widths by Scott's rule (Scott 1992), 1.06 min(σ, IQR / 1.34) n^(-1/5), in cells.

    A width is at least 0.3 cells, at which nearly all of a kernel lies within its own cell. Widths are used
    in steps of 2 %, so that random choices of the best samples share their kernels.
    """
    at, n = np.arange(counts.shape[1]), counts.sum(axis=1)
    centre = counts @ at / n
    squares = np.sum(counts * (at - centre[:, None]) ** 2, axis=1)
    sigma = np.sqrt(squares / np.maximum(n - 1, 1))
    reached = np.cumsum(counts, axis=1)
    lower, upper = (_cell_at_rank(reached, level * (n - 1)) for level in (0.25, 0.75))
    spreads = np.stack([sigma, (upper - lower) / 1.34])
    spread = np.where(spreads > 0, spreads, np.inf).min(axis=0)
    return np.maximum(np.where(np.isfinite(spread), 1.059 * spread * n**-0.2, 0.0), 0.3)


def _cell_at_rank(
    reached: Float[np.ndarray, "repetitions cells"], rank: Float[np.ndarray, " repetitions"]
) -> Float[np.ndarray, " repetitions"]:
    """Return the cell at a fractional rank, interpolated linearly, from cumulative counts of the cells."""
    below, above = (np.sum(reached <= end(rank)[:, None], axis=1) for end in (np.floor, np.ceil))
    return below + (rank - np.floor(rank)) * (above - below)
