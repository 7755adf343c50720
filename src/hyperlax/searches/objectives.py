"""What a search optimises: a metric of the report, over the seeds of a trial, as one finite number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hyperlax.hyperparams import nearest
from hyperlax.report.metrics import METRICS, Curves, PerLane, metrics_by_name, reference_scores
from hyperlax.report.statistics import iqm, iqm_over_runs

DIRECTIONS = ("maximize", "minimize")


def _over_seeds(values: PerLane) -> float:
    return float(iqm(values))


def _median(values: PerLane) -> float:
    return float(np.median(values))


def _low(values: PerLane) -> float:
    return float(iqm_over_runs(values[None, :, None]).low[0, 0])


def _high(values: PerLane) -> float:
    return float(iqm_over_runs(values[None, :, None]).high[0, 0])


@dataclass(frozen=True)
class Objective:
    """A metric of `METRICS`, how a trial's seeds become one number, and which way is better.

    `per_budget`: as a share of the environment steps of a lane. `seeds`: the fewest it is defined with.
    """

    name: str
    metric: str
    direction: str = "maximize"
    over: Callable[[PerLane], float] = _over_seeds
    seeds: int = 1
    per_budget: bool = False

    @property
    def sign(self) -> int:
        """1 where more is better, else -1."""
        return 1 if self.direction == "maximize" else -1

    def score(self, curves: Sequence[Sequence[tuple[int, float]]], about: Mapping[str, Any]) -> float:
        """The objective of a trial: `curves` holds (env steps, return) of every lane; NaN while undefined.

        `about` is a manifest, or what it says of `reference` and `settings`. A lane that never reaches the
        solved score counts as having reached it at the end of twice the budget.
        """
        per_lane = metrics_by_name(*_rectangular(curves), dict(about))[self.metric]
        per_lane = np.where(np.isposinf(per_lane), 2.0 * _budget(about), per_lane)
        if np.isnan(per_lane).any():
            return float("nan")
        return self.over(per_lane / _budget(about) if self.per_budget else per_lane)

    def worst(self, about: Mapping[str, Any], seen: Sequence[float]) -> float:
        """A finite score no better than any of `seen`, for a trial that has none of its own.

        It is also no better than the metric's bound: for returns as far below the random policy as solved
        is above it, and -1e6 where the environment has no reference scores and nothing has been seen.
        """
        low, high = _bounds(self.metric, about, seen)
        bound = (low if self.sign > 0 else high) / (_budget(about) if self.per_budget else 1.0)
        return float(min([bound, *seen]) if self.sign > 0 else max([bound, *seen]))


def _alias(metric: str, **how: Any) -> dict[str, Any]:
    return {"metric": metric, **how}


KNOWN: dict[str, dict[str, Any]] = {
    **{metric: _alias(metric) for metric in METRICS},
    "peak_performance": _alias("peak_return"),
    "final_performance": _alias("final_return"),
    "final_performance_median": _alias("final_return", over=_median),
    "peak_ci_lower": _alias("peak_return", over=_low, seeds=2),
    "peak_ci_upper": _alias("peak_return", over=_high, seeds=2),
    "tail_smoothness": _alias("stability_score"),
    "t_at_target": _alias("time_to_target"),
    "peak_time_ratio": _alias("peak_timestep", per_budget=True),
}
"""Objectives by name: the report's metrics, and what v0.1 called them."""

_LEAST_EVALUATIONS = {
    "auc_at_budget": 2,
    "auc_at_budget_published": 2,
    "stability_score": 3,
    "early_learning_rate": 4,
}
_OF_REFERENCES = ("auc_at_budget", "time_to_target")


LESS_IS_BETTER = ("forgetting_score", "time_to_target", "time_to_target_published", "peak_timestep")
"""Metrics that are minimised unless a direction is given."""


def objectives(names: Sequence[str], directions: Sequence[str] = ()) -> tuple[Objective, ...]:
    """The objectives of those names; one direction may stand for all, none for the usual ones.

    Raises `ValueError` for unknown names and directions, and where their numbers do not match.
    """
    if not names:
        raise ValueError("a search needs at least one objective")
    for name in names:
        if name not in KNOWN:
            known = ", ".join(KNOWN)
            raise ValueError(f'unknown objective "{name}"{nearest(name, KNOWN)}\nknown: {known}')
    for direction in directions:
        if direction not in DIRECTIONS:
            hint = nearest(direction, DIRECTIONS)
            raise ValueError(f'a direction is maximize or minimize, not "{direction}"{hint}')
    if len(directions) not in (0, 1, len(names)):
        raise ValueError(f"{len(names)} objectives need as many directions, got {len(directions)}")
    if twice := [n for i, n in enumerate(names) if n in names[:i]]:
        raise ValueError(f"{twice[0]} is named twice among the objectives")
    usual = [DIRECTIONS[KNOWN[name]["metric"] in LESS_IS_BETTER] for name in names]
    ways = list(directions) * len(names) if len(directions) == 1 else list(directions) or usual
    return tuple(Objective(n, direction=way, **KNOWN[n]) for n, way in zip(names, ways, strict=True))


def check(objective: Objective, about: Mapping[str, Any]) -> None:
    """Raises `ValueError` when the experiment that `about` describes cannot measure the objective."""
    settings = about["settings"]
    least = _LEAST_EVALUATIONS.get(objective.metric, 1)
    if settings["evaluations"] + settings["eval_at_start"] < least:
        raise ValueError(
            f"{objective.name} needs at least {least} evaluations, the run has {settings['evaluations']}: "
            f"--set evaluations={least}"
        )
    if settings["seeds"] < objective.seeds:
        raise ValueError(f"{objective.name} is the end of an interval over seeds: it needs --seeds 2 or more")
    if objective.metric in _OF_REFERENCES and len(reference_scores(dict(about))) < 2:
        raise ValueError(
            f"{objective.name} needs the environment's reference scores (random policy and solved), which "
            f"are not known; take {objective.metric}_published or peak_return"
        )


def _rectangular(curves: Sequence[Sequence[tuple[int, float]]]) -> tuple[Curves, Curves]:
    """Env steps and returns of every lane, NaN where it has fewer evaluations than another."""
    length = max((len(curve) for curve in curves), default=0)
    steps, returns = (np.full((len(curves), length), np.nan) for _ in range(2))
    for place, curve in enumerate(curves):
        for at, (step, value) in enumerate(curve):
            steps[place, at], returns[place, at] = step, value
    return steps, returns


def _budget(about: Mapping[str, Any]) -> float:
    return float(about["settings"]["total_timesteps"])


def _bounds(metric: str, about: Mapping[str, Any], seen: Sequence[float]) -> tuple[float, float]:
    """Values of the metric that a sensible run does not go beyond."""
    budget, scores = _budget(about), reference_scores(dict(about))
    span = 1.0
    low, high = (min(seen), max(seen)) if seen else (-1e6, 1e6)
    if len(scores) == 2:
        span = abs(scores["solved"] - scores["random"])
        low, high = scores["random"] - span, scores["solved"] + span
    elif seen:
        span = max(high - low, 1.0)
    return {
        "peak_return": (low, high),
        "final_return": (low, high),
        "auc_at_budget": (-1.0, 2.0),
        "auc_at_budget_published": (0.0, 1.0),
        "stability_score": (0.0, 1.0),
        "forgetting_score": (0.0, 1.0),
        "peak_timestep": (0.0, budget),
        "time_to_target": (0.0, 2.0 * budget),
        "time_to_target_published": (0.0, budget),
        "early_learning_rate": (-4.0 * span / budget, 4.0 * span / budget),
    }[metric]
