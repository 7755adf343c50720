"""All charts of an experiment, in the order of the report."""

from __future__ import annotations

from collections.abc import Callable

from hyperlax.report.charts.ablation import ablation_chart
from hyperlax.report.charts.confirmation import confirmation_chart
from hyperlax.report.charts.curves import learning_curves
from hyperlax.report.charts.ecdf import ecdf
from hyperlax.report.charts.families import best_of_k_chart, tuned_curves
from hyperlax.report.charts.health import training_health
from hyperlax.report.charts.importances import importance_chart, sobol_chart
from hyperlax.report.charts.parallel import parallel_coordinates
from hyperlax.report.charts.run import timeline
from hyperlax.report.charts.runtime import runtime
from hyperlax.report.charts.samples import leaderboard_chart, return_distribution
from hyperlax.report.charts.schedules import SCHEDULED
from hyperlax.report.charts.sizes import entanglement, size_chart
from hyperlax.report.charts.slices import slices
from hyperlax.report.charts.style import Chart, NothingToDraw
from hyperlax.report.evaluations import X_AXES
from hyperlax.report.options import Options
from hyperlax.storage.results import Results

CHARTS: dict[str, Callable[[Results], Chart]] = {
    "learning_curves": learning_curves,
    "learning_curves_seconds": lambda results: learning_curves(results, "seconds"),
    "learning_curves_gradient_steps": lambda results: learning_curves(results, "gradient_steps"),
    "learning_curves_circuit_executions": lambda results: learning_curves(results, "circuit_executions"),
    "leaderboard": leaderboard_chart,
    "aggregate_curves": lambda results: tuned_curves([results]),
    "ablation": ablation_chart,
    "return_distribution": return_distribution,
    "confirmation": confirmation_chart,
    "ecdf": ecdf,
    "best_of_k": lambda results: best_of_k_chart([results]),
    "slices": slices,
    "importance": importance_chart,
    "sobol_indices": sobol_chart,
    "parallel_coordinates": parallel_coordinates,
    "return_against_parameters": size_chart,
    "entanglement": entanglement,
    "training_health": training_health,
    "runtime": runtime,
    "timeline": timeline,
    **SCHEDULED,
}
"""Every chart of one experiment, by file name. A function raises `NothingToDraw` if its data is missing."""


def charts_with(options: Options) -> dict[str, Callable[[Results], Chart]]:
    """Return `CHARTS`, with `options` applied to those that they concern."""
    chosen: dict[str, Callable[[Results], Chart]] = {
        name: lambda results, x=x: learning_curves(results, x, options.top)
        for name, x in {"learning_curves": "env_steps", **{f"learning_curves_{x}": x for x in X_AXES}}.items()
    }
    chosen |= {
        "aggregate_curves": lambda results: tuned_curves([results], top=options.top),
        "slices": lambda results: slices(results, options.metric),
        "parallel_coordinates": lambda results: parallel_coordinates(results, options.metric),
    }
    return {name: chosen.get(name, chart) for name, chart in CHARTS.items()}


__all__ = [
    "CHARTS",
    "SCHEDULED",
    "Chart",
    "NothingToDraw",
    "charts_with",
    "ecdf",
    "entanglement",
    "leaderboard_chart",
    "learning_curves",
    "parallel_coordinates",
    "return_distribution",
    "runtime",
    "size_chart",
    "slices",
    "timeline",
    "training_health",
]
