"""Which charts of an experiment apply to it, and which would have nothing to say."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import polars as pl

from hyperlax.report.charts.style import Chart, NothingToDraw
from hyperlax.report.evaluations import is_guided
from hyperlax.report.leaderboard import varied_hyperparameters
from hyperlax.report.scores import lane_scores, sample_scores, title_of
from hyperlax.storage.results import UNFINISHED, Results

_NEED_SEVERAL_SAMPLES = (
    "aggregate_curves",
    "return_distribution",
    "ecdf",
    "best_of_k",
    "slices",
    "importance",
    "parallel_coordinates",
    "return_against_parameters",
)
"""Charts that need several samples."""
_NEED_DIFFERENT_SCORES = tuple(name for name in _NEED_SEVERAL_SAMPLES if name != "aggregate_curves")
_DESIGNED = {"ablation": "pair", "sobol_indices": "matrix"}
"""Chart → the column that the samples of its design have."""
_SCHEDULED = {"lineage": "pbt", "hyperparameter_schedules": "pbt", "rungs": "asha"}
"""Chart → the schedule that it is about."""
_CURVES = ("learning_curves", "aggregate_curves")


def applies(name: str, results: Results) -> bool:
    """Whether the chart `name` makes sense for this experiment, whatever data it has so far.

    Some charts are specific to circuits, to several samples or to a confirmation, and some are replaced by
    charts of their own in a search.
    """
    if name in _NEED_SEVERAL_SAMPLES and len(results.samples) == 1:
        return False
    if name == "learning_curves_circuit_executions":
        return bool((results.lanes["circuit_executions"] > 0).any())
    if name == "entanglement":
        return any(c.endswith("entangler") for c in varied_hyperparameters(results.samples))
    if name in _DESIGNED:
        return _DESIGNED[name] in results.samples.columns
    if name in _SCHEDULED:
        schedule = (results.manifest.get("identity") or {}).get("schedule") or {}
        return schedule.get("name") == _SCHEDULED[name]
    if name == "best_of_k":
        return not is_guided(results)
    if name in ("slices", "importance", "parallel_coordinates"):
        return results.trials.is_empty()
    return name != "confirmation" or results.confirmation is not None


def telling(name: str, draw: Callable[[Results], Chart], results: Results) -> Callable[[], Chart]:
    """Return what draws a chart, or raises `NothingToDraw` if it would show a single point or a constant."""
    if (reason := _silence(name, results)) is None:
        return partial(draw, results)

    def refuse() -> Chart:
        raise NothingToDraw(reason)

    return refuse


def over(results: Results) -> bool:
    """Whether nothing more comes: there are lanes, and none is still to be trained."""
    return bool(len(results.lanes)) and not results.lanes["status"].is_in(UNFINISHED).any()


def _silence(name: str, results: Results) -> str | None:
    """Say why the chart `name` would show nothing once the experiment is over; None if it would."""
    if not over(results):
        return None
    if name.startswith(_CURVES):
        points = results.curves.filter(pl.col("metric") == "return").group_by("lane").len()["len"].max()
        return "Every lane was evaluated once, and a point is not a curve." if points == 1 else None
    if name == "leaderboard":
        few = lane_scores(results).drop_nulls("score").height == 1
        return "A single lane has a score, which the table shows." if few else None
    if name in _NEED_DIFFERENT_SCORES:
        values = sample_scores(results)["score"].drop_nulls()
        if len(values) > 1 and values.n_unique() == 1:
            return f"All samples have the same {title_of([results])}."
    if name == "return_against_parameters" and results.lanes["parameters"].drop_nulls().n_unique() == 1:
        return "All samples have the same number of parameters."
    return None
