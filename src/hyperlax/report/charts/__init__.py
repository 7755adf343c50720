"""The pictures of an experiment, in the order of the report."""

from __future__ import annotations

from collections.abc import Callable

from hyperlax.report.charts.confirmation import confirmation_chart
from hyperlax.report.charts.curves import learning_curves
from hyperlax.report.charts.importances import importance_chart, sobol_chart
from hyperlax.report.charts.run import timeline, training_health
from hyperlax.report.charts.samples import leaderboard_chart, return_distribution
from hyperlax.report.charts.slices import slices
from hyperlax.report.charts.style import Chart, NothingToDraw
from hyperlax.results import Results

CHARTS: dict[str, Callable[[Results], Chart]] = {
    "learning_curves": learning_curves,
    "learning_curves_seconds": lambda results: learning_curves(results, "seconds"),
    "learning_curves_gradient_steps": lambda results: learning_curves(results, "gradient_steps"),
    "learning_curves_circuit_executions": lambda results: learning_curves(results, "circuit_executions"),
    "leaderboard": leaderboard_chart,
    "return_distribution": return_distribution,
    "confirmation": confirmation_chart,
    "slices": slices,
    "importance": importance_chart,
    "sobol_indices": sobol_chart,
    "training_health": training_health,
    "timeline": timeline,
}
"""Every chart of one experiment by file name. Each raises `NothingToDraw` when its data is missing."""

__all__ = [
    "CHARTS",
    "Chart",
    "NothingToDraw",
    "leaderboard_chart",
    "learning_curves",
    "return_distribution",
    "slices",
    "timeline",
    "training_health",
]
