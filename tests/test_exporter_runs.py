"""Conversion of experiments to tracker runs, whose numbers agree with those of the report."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
from report_data import confirmed, nothing_yet, synthetic
from scipy.stats import trim_mean

from hyperlax.exporters.runs import file_name, flat, package, tracker_runs
from hyperlax.report import leaderboard
from hyperlax.storage.results import Results


@pytest.fixture(scope="module")
def results() -> Results:
    return synthetic(samples=4, seeds=4)


def test_there_is_one_run_per_experiment_and_per_best_sample(results):
    """Runs of samples come in the order of the leaderboard, and their number does not depend on the lanes."""
    runs = list(tracker_runs([results], 3))
    best = leaderboard(results, top=3)["sample"].to_list()
    assert [run.sample for run in runs] == [None, *best]
    assert {run.group for run in runs} == {("gymnax.pendulum", "ppo_mlp")}
    assert [run.sample for run in tracker_runs([results], 0)] == [None]
    assert len(list(tracker_runs([results], 100))) == 1 + 4


def test_a_curve_is_the_interquartile_mean_over_seeds(results):
    """Curves agree with scipy's trimmed mean at every step; the experiment's run shows its best sample."""
    whole, best = list(tracker_runs([results], 1))
    rows = results.curves.filter(pl.col("sample") == best.sample, pl.col("metric") == "return")
    for point, steps in zip(best.points, sorted(rows["env_steps"].unique()), strict=True):
        values = rows.filter(pl.col("env_steps") == steps)["value"].to_list()
        values += [-1250.0] * (4 - len(values))  # a lane that diverged
        assert point.env_steps == steps
        assert point.values["return"] == pytest.approx(trim_mean(values, 0.25))
        assert not {"return_low", "return_high"} & point.values.keys()
    assert whole.points[-1].values == {"return": best.points[-1].values["return"]}
    assert "train/entropy" in best.points[0].values


def test_summaries_are_those_of_the_leaderboard(results):
    whole, best = list(tracker_runs([results], 1))
    first = leaderboard(results, top=1).row(0, named=True)
    assert whole.summary["score"] == best.summary["score"] == first["score"]
    assert whole.config["metric"] == best.config["metric"] == first["metric"] == "final"
    assert whole.config["metric_definition"] == first["definition"]
    assert whole.summary["best_sample"] == best.sample == first["sample"]
    assert (whole.summary["lanes_done"], whole.summary["lanes_diverged"]) == (15, 1)
    assert whole.summary["wall_seconds"] == 96.4
    assert "confirmed" not in best.summary


def test_the_configuration_holds_the_manifest_and_the_hyperparameters(results):
    """The configuration is flat, without unset entries and without absolute paths."""
    whole, best = list(tracker_runs([results], 1))
    assert whole.config["settings.total_timesteps"] == 500_000
    assert whole.config["space.lr.low"] == 1e-5
    assert whole.config["versions.jax"] == "0.10.2"
    assert "/home" not in json.dumps(whole.config)
    own = results.samples.row(by_predicate=pl.col("sample") == best.sample, named=True)
    assert own.items() <= best.config.items()
    assert best.config["rank"] == leaderboard(results)["rank"][0]
    assert flat({"a": {"b": None, "c": [1, "x"]}, "d": True}) == {"a.c": '[1, "x"]', "d": True}


def test_confirmed_scores_come_with_their_sample(results):
    runs = {run.sample: run for run in tracker_runs([confirmed(results, (2, 0))], 4)}
    assert runs[2].summary["confirmed"] == pytest.approx(runs[2].summary["score"] - runs[2].summary["drop"])
    assert "confirmed" not in runs[1].summary


def test_points_have_the_time_of_their_measurement(results):
    whole = next(tracker_runs([results], 0))
    best = next(iter(tracker_runs([results], 1)))
    assert whole.began == 1770113472.0, "2026-02-03T10:11:12 UTC"
    assert [p.time - whole.began for p in best.points] == pytest.approx(
        [3 + 90 * p.env_steps / 500_000 for p in best.points]
    )


def test_experiments_without_evaluations_have_a_run_without_points():
    (run,) = tracker_runs([nothing_yet()], 5)
    assert run.points == []
    assert run.summary["samples"] == 4
    assert run.config["env"] == "gymnax.pendulum"


def test_ten_seeds_have_a_curve_with_intervals():
    whole, best = tracker_runs([synthetic(samples=1, seeds=10, diverged=())], 1)
    for point in best.points:
        assert point.values["return_low"] < point.values["return"] < point.values["return_high"]
    assert whole.points[-1].values.keys() == {"return", "return_low", "return_high"}


def test_one_seed_has_a_curve_without_interval():
    run = list(tracker_runs([synthetic(samples=2, seeds=1, diverged=())], 1))[1]
    assert {"return"} == {k for k in run.points[0].values if k.startswith("return") and "_" not in k}
    assert not {"return_low", "return_high"} & run.points[0].values.keys()


def test_experiments_of_equal_name_are_told_apart(results):
    recipes = ("ppo_mlp", "mine.py:tuned")
    both = [dataclasses.replace(results, manifest={**results.manifest, "recipe": r}) for r in recipes]
    groups = {run.group[1] for run in tracker_runs(both, 1)}
    assert groups == set(recipes)
    assert file_name("mine.py:tuned") == "mine.py_tuned"
    assert file_name("../x") == "_x"


def test_numbers_that_are_not_finite_are_left_out(results):
    curves = results.curves.with_columns(
        value=pl.when(pl.col("metric") == "train/entropy").then(np.nan).otherwise("value")
    )
    runs = list(tracker_runs([dataclasses.replace(results, curves=curves)], 2))
    assert not any("train/entropy" in point.values for run in runs for point in run.points)
    assert np.isfinite([v for run in runs for v in run.summary.values()]).all()


def test_a_missing_tracker_is_refused_with_the_way_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(ValueError, match=r'wandb is not installed: pip install "\.\[trackers\]"'):
        package("wandb")
