"""The objectives of a search: metrics of the report, reduced over the seeds of a trial to one number.

The headline metrics (`statistics.HEADLINES`) are objectives by their names, and score a trial as the report
scores a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hyperlax.hyperparams import nearest
from hyperlax.report.metrics import METRICS, Curves, PerLane, metrics_by_name, reference_scores
from hyperlax.statistics import HEADLINES, MIN_RUNS, iqm, iqm_over_runs
from hyperlax.statistics.headline import DEFAULT, PUBLISHED

DIRECTIONS = ("maximize", "minimize")


def _over_seeds(values: PerLane) -> float:
    """The interquartile mean over seeds."""
    return float(iqm(values))


def _median(values: PerLane) -> float:
    return float(np.median(values))


def _low(values: PerLane) -> float:
    """The lower end of the 95 % interval of the interquartile mean over seeds, or what all seeds agree on."""
    return _end(values, "low")


def _high(values: PerLane) -> float:
    """The upper end of the 95 % interval of the interquartile mean over seeds, or what all seeds agree on."""
    return _end(values, "high")


def _end(values: PerLane, name: str) -> float:
    found = iqm_over_runs(values[None, :, None])
    agree = len(values) >= MIN_RUNS and np.isnan(found.low).all()
    return float((found.value if agree else getattr(found, name))[0, 0])


@dataclass(frozen=True)
class Objective:
    """An objective of a search.

    - `metric`: its name in `METRICS` or `HEADLINES`.
    - `direction`: "maximize" or "minimize".
    - `over`: the function that reduces the values of all seeds of a trial to one number; a headline metric
      has its own.
    - `seeds`: the smallest number of seeds that it is defined for.
    - `per_budget`: whether it is divided by the env steps of a lane.
    """

    name: str
    metric: str
    direction: str = "maximize"
    over: Callable[[PerLane], float] = _over_seeds
    seeds: int = 1
    per_budget: bool = False

    @property
    def sign(self) -> int:
        """1 if larger is better, otherwise -1."""
        return 1 if self.direction == "maximize" else -1

    def score(self, curves: Sequence[Sequence[tuple[int, float]]], about: Mapping[str, Any]) -> float:
        """The value of the objective for a trial; NaN while it is undefined.

        `curves` holds the points (env steps, return) of every lane, and `about` is a manifest, of which
        `reference` and `settings` suffice. A lane that never reaches the solved score counts as if it had
        reached it after twice its budget.
        """
        steps, returns = _rectangular(curves)
        if not returns.size:
            return float("nan")
        if self.metric in HEADLINES:  # the seeds of a trial are evaluated at the same steps
            return float(HEADLINES[self.metric].score(np.fmax.reduce(steps)[None], returns[None])[0])
        per_lane = metrics_by_name(steps, returns, dict(about))[self.metric]
        per_lane = np.where(np.isposinf(per_lane), 2.0 * _budget(about), per_lane)
        if np.isnan(per_lane).any():
            return float("nan")
        return self.over(per_lane / _budget(about) if self.per_budget else per_lane)

    def worst(self, about: Mapping[str, Any], seen: Sequence[float]) -> float:
        """A finite score, no better than any of `seen`, for a trial that has no score of its own.

        It is also no better than the bound of the metric. For returns, this is as far below the score of the
        random policy as the solved score is above it, or -1e6 if there are neither reference scores nor
        `seen` ones.
        """
        low, high = _bounds(self.metric, about, seen)
        bound = (low if self.sign > 0 else high) / (_budget(about) if self.per_budget else 1.0)
        return float(min([bound, *seen]) if self.sign > 0 else max([bound, *seen]))


def _alias(metric: str, **how: Any) -> dict[str, Any]:
    """The arguments of the `Objective` for a metric."""
    return {"metric": metric, **how}


KNOWN: dict[str, dict[str, Any]] = {
    **{name: _alias(name) for name in (*HEADLINES, *METRICS)},
    "peak_performance": _alias("peak_return"),
    "final_performance": _alias("final_return"),
    "final_performance_median": _alias("final_return", over=_median),
    "peak_ci_lower": _alias("peak_return", over=_low, seeds=MIN_RUNS),
    "peak_ci_upper": _alias("peak_return", over=_high, seeds=MIN_RUNS),
    "tail_smoothness": _alias("stability_score"),
    "t_at_target": _alias("time_to_target"),
    "peak_time_ratio": _alias("peak_timestep", per_budget=True),
}
"""Name → arguments of the `Objective`; the metrics of the report, and their names in version 0.1."""

_LEAST_EVALUATIONS = {
    "auc_at_budget": 2,
    "auc_at_budget_published": 2,
    "stability_score": 3,
    "early_learning_rate": 4,
}
"""Metric → the number of evaluations that it needs, if that is more than one."""
_OF_REFERENCES = ("auc_at_budget", "time_to_target")
"""The metrics that need the reference scores of the environment."""


LESS_IS_BETTER = ("forgetting_score", "time_to_target", "time_to_target_published", "peak_timestep")
"""The metrics that are minimised unless a direction is given."""


def objectives(names: Sequence[str], directions: Sequence[str] = ()) -> tuple[Objective, ...]:
    """The objectives with the given names.

    `directions` holds one for each, one for all, or none for the default of each metric. Raises `ValueError`
    for unknown or repeated names, for unknown directions, and if the numbers do not match.
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
    if repeated := [n for i, n in enumerate(names) if n in names[:i]]:
        raise ValueError(f"{repeated[0]} is named twice among the objectives")
    defaults = [DIRECTIONS[KNOWN[name]["metric"] in LESS_IS_BETTER] for name in names]
    ways = list(directions) * len(names) if len(directions) == 1 else list(directions) or defaults
    return tuple(Objective(n, direction=way, **KNOWN[n]) for n, way in zip(names, ways, strict=True))


def usual(protocol: str | None) -> tuple[str, ...]:
    """The objective that a search has unless others are named: the headline metric of its protocol."""
    return (PUBLISHED if protocol == "published" else DEFAULT,)


def check(objective: Objective, about: Mapping[str, Any]) -> None:
    """Raise `ValueError` if the experiment with the manifest `about` cannot measure the objective."""
    settings = about["settings"]
    least = _LEAST_EVALUATIONS.get(objective.metric, 1)
    if settings["evaluations"] + settings["eval_at_start"] < least:
        raise ValueError(
            f"{objective.name} needs at least {least} evaluations, the run has {settings['evaluations']}: "
            f"--set evaluations={least}"
        )
    if settings["seeds"] < objective.seeds:
        raise ValueError(
            f"{objective.name} is the end of an interval over seeds: it needs --seeds {MIN_RUNS} or more"
        )
    if objective.metric in _OF_REFERENCES and len(reference_scores(dict(about))) < 2:
        raise ValueError(
            f"{objective.name} needs the environment's reference scores (random policy and solved), which "
            f"are not known; take {objective.metric}_published or final"
        )


def _rectangular(curves: Sequence[Sequence[tuple[int, float]]]) -> tuple[Curves, Curves]:
    """Env steps and returns of shape [lanes, evaluations], padded with NaN at the end."""
    length = max((len(curve) for curve in curves), default=0)
    steps, returns = (np.full((len(curves), length), np.nan) for _ in range(2))
    for place, curve in enumerate(curves):
        for at, (step, value) in enumerate(curve):
            steps[place, at], returns[place, at] = step, value
    return steps, returns


def _budget(about: Mapping[str, Any]) -> float:
    """The env steps of a lane."""
    return float(about["settings"]["total_timesteps"])


def _bounds(metric: str, about: Mapping[str, Any], seen: Sequence[float]) -> tuple[float, float]:
    """Lower and upper bound of the metric for any sensible run."""
    budget, scores = _budget(about), reference_scores(dict(about))
    span = 1.0
    low, high = (min(seen), max(seen)) if seen else (-1e6, 1e6)
    if len(scores) == 2:
        span = abs(scores["solved"] - scores["random"])
        low, high = scores["random"] - span, scores["solved"] + span
    elif seen:
        span = max(high - low, 1.0)
    if metric in HEADLINES:
        return low, high
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
