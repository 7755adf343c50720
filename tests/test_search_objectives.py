"""Objectives are the report's metrics over seeds; what a trial without one is told is finite and worst."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from report_data import synthetic

from hyperlax.report.metrics import METRICS, sample_metrics
from hyperlax.report.scores import measured_by, sample_scores
from hyperlax.searches.objectives import KNOWN, check, objectives
from hyperlax.statistics import HEADLINES

ABOUT = {
    "settings": {"total_timesteps": 100, "evaluations": 4, "eval_at_start": False, "seeds": 3},
    "reference": {"random": -1200.0, "solved": -200.0},
}
CURVES = [
    [(25, -900.0), (50, -700.0), (75, -100.0), (100, -300.0)],
    [(25, -1000.0), (50, -400.0), (75, -800.0), (100, -500.0)],
    [(25, -1100.0), (50, -600.0), (75, -500.0), (100, -100.0)],
]


def one(name, *direction):
    return objectives([name], direction)[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("peak_performance", (-100 - 400 - 100) / 3),
        ("final_performance", -300.0),
        ("final_performance_median", -300.0),
        ("peak_time_ratio", (0.75 + 0.5 + 1.0) / 3),
        ("time_to_target", ((50 + 25 * 500 / 600) + 200 + (75 + 25 * 300 / 400)) / 3),
        ("forgetting_score", (1 + 0.25 + 0) / 3),
    ],
)
def test_scores_of_curves_by_hand(name, value):
    """The second lane never reaches -200: it counts as having done so at twice the budget."""
    assert one(name).score(CURVES, ABOUT) == pytest.approx(value)


@pytest.mark.parametrize("metric", METRICS)
def test_a_score_equals_the_metric_in_the_report(metric):
    results = synthetic(samples=3, seeds=4, evaluations=8, diverged=())
    reported = sample_metrics(results).filter(sample=1)[metric][0]
    points = results.curves.filter(sample=1, metric="return").sort("env_steps")
    curves = [list(zip(p["env_steps"], p["value"], strict=True)) for _, p in points.group_by("lane")]
    score = one(metric).score(curves, results.manifest)
    if reported is None:  # hangs on seeds that never reach the solved score
        assert score > results.manifest["settings"]["total_timesteps"]
    else:
        assert score == pytest.approx(reported)


@pytest.mark.parametrize("name", HEADLINES)
def test_a_score_by_a_headline_metric_is_that_of_the_report(name):
    results = measured_by(synthetic(samples=3, seeds=4, evaluations=8, diverged=()), name)
    points = results.curves.filter(sample=1, metric="return").sort("env_steps")
    curves = [list(zip(p["env_steps"], p["value"], strict=True)) for _, p in points.group_by("lane")]
    assert one(name).score(curves, results.manifest) == pytest.approx(sample_scores(results)["score"][1])


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("reference", [ABOUT["reference"], None])
def test_the_worst_score_is_finite_and_no_better_than_any_seen(name, direction, reference):
    objective, about = one(name, direction), {**ABOUT, "reference": reference}
    rng = np.random.default_rng(0)
    for seen in ([], [0.5], list(rng.normal(0, 1e5, 5))):
        worst = objective.worst(about, seen)
        assert np.isfinite(worst)
        assert all(objective.sign * worst <= objective.sign * s for s in seen)
        assert objective.worst(about, [*seen, worst]) == worst


def test_a_score_is_nan_while_it_is_undefined():
    for name, least in (("stability_score", 3), ("early_learning_rate", 4), ("peak_return", 1)):
        scores = [one(name).score([c[:n] for c in CURVES], ABOUT) for n in range(5)]
        assert [s == s for s in scores] == [n >= least for n in range(5)], name


def test_names_and_directions_are_checked():
    for names, directions, said in (
        (["peak_retrun"], [], 'did you mean "peak_return"'),
        (["peak_return"], ["maximise"], 'did you mean "maximize"'),
        (["peak_return", "final_return"], ["maximize"] * 3, "2 objectives need as many directions, got 3"),
        (["peak_return", "peak_return"], [], "twice"),
        ([], [], "at least one"),
    ):
        with pytest.raises(ValueError, match=said):
            objectives(names, directions)
    usual = objectives(["peak_return", "time_to_target"])
    assert [o.direction for o in usual] == ["maximize", "minimize"]
    assert [o.sign for o in objectives(["peak_return", "time_to_target"], ["minimize"])] == [-1, -1]


def test_the_ends_of_the_interval_over_seeds_enclose_the_peak_performance():
    """Seeds that agree have no interval: both ends are what they agree on."""
    names = ("peak_ci_lower", "peak_performance", "peak_ci_upper")
    spread, same = ([[(25, -900.0), (50, -200.0 - step * i)] for i in range(10)] for step in (10.0, 0.0))
    low, middle, high = (one(name).score(spread, ABOUT) for name in names)
    assert -290 <= low < middle < high <= -200
    assert [one(name).score(same, ABOUT) for name in names] == pytest.approx([-200.0] * 3)


def test_an_objective_that_the_run_cannot_measure_is_refused():
    few = {**ABOUT, "settings": {**ABOUT["settings"], "evaluations": 2, "seeds": 1}}
    with pytest.raises(ValueError, match="at least 3 evaluations, the run has 2"):
        check(one("stability_score"), few)
    with pytest.raises(ValueError, match="--seeds 10"):
        check(one("peak_ci_lower"), few)
    with pytest.raises(ValueError, match="take auc_at_budget_published or final"):
        check(one("auc_at_budget"), {**few, "reference": None})
    enough = {**ABOUT, "settings": {**ABOUT["settings"], "seeds": 10}}
    for name in KNOWN:
        check(one(name), enough)
        assert dataclasses.is_dataclass(one(name))


def test_the_tutorial_lists_every_objective_with_its_usual_direction():
    page = (Path(__file__).parents[1] / "docs" / "tutorials" / "search.md").read_text("utf-8")
    rows = re.findall(r"^\| (`.*?`) \| .* \| (maximize|minimize) \|$", page, re.MULTILINE)
    told = {name: direction for names, direction in rows for name in re.findall(r"`(\w+)`", names)}
    assert told == {name: one(name).direction for name in KNOWN}
