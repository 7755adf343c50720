"""Statistics of a few noisy runs, usable on any arrays: averages, intervals, comparisons, ranks, importance.

Every function takes and returns NumPy arrays; NaN stands for a missing run. Intervals are at 95 %, and were
chosen by simulation for 3 to 20 runs that are normal, skewed, saturated or fail in part
(`benchmarks/coverage.py`). Where no interval holds the ends are NaN, and the documentation of the function
says why.
"""

from hyperlax.statistics.averages import FEWEST_TRIMMED, iqm, iqm_variance, mean, optimality_gap, quantiles
from hyperlax.statistics.comparisons import (
    MIN_PAIRED,
    MIN_PER_SIDE,
    Difference,
    average_difference,
    difference,
    holm,
    paired_difference,
    probability_of_improvement,
)
from hyperlax.statistics.complexity import MIN_SEEDS, sample_complexity
from hyperlax.statistics.correlation import MIN_PAIRS, spearman
from hyperlax.statistics.curves import area_per_step, final_return, mean_return, peak_return
from hyperlax.statistics.estimates import LEVEL, REPETITIONS, Estimate, Unavailable, without_interval
from hyperlax.statistics.headline import HEADLINES, Headline
from hyperlax.statistics.importance import Dimension, Importances, divergence, importances, top_samples
from hyperlax.statistics.intervals import (
    MIN_RUNS,
    iqm_over_runs,
    iqm_over_strata,
    median_interval_words,
    median_over_runs,
    quantile_intervals,
)
from hyperlax.statistics.profiles import best_of_k, median_best_of_k, performance_profile
from hyperlax.statistics.ranks import rank_intervals, undominated
from hyperlax.statistics.sobol import MIN_ROWS, noise_share, sobol_indices

__all__ = [
    "FEWEST_TRIMMED",
    "HEADLINES",
    "LEVEL",
    "MIN_PAIRED",
    "MIN_PAIRS",
    "MIN_PER_SIDE",
    "MIN_ROWS",
    "MIN_RUNS",
    "MIN_SEEDS",
    "REPETITIONS",
    "Difference",
    "Dimension",
    "Estimate",
    "Headline",
    "Importances",
    "Unavailable",
    "area_per_step",
    "average_difference",
    "best_of_k",
    "difference",
    "divergence",
    "final_return",
    "holm",
    "importances",
    "iqm",
    "iqm_over_runs",
    "iqm_over_strata",
    "iqm_variance",
    "mean",
    "mean_return",
    "median_best_of_k",
    "median_interval_words",
    "median_over_runs",
    "noise_share",
    "optimality_gap",
    "paired_difference",
    "peak_return",
    "performance_profile",
    "probability_of_improvement",
    "quantile_intervals",
    "quantiles",
    "rank_intervals",
    "sample_complexity",
    "sobol_indices",
    "spearman",
    "top_samples",
    "undominated",
    "without_interval",
]
