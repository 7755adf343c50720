"""Sample complexity against values counted by hand."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from report_data import nothing_yet, synthetic

from hyperlax.report.complexity import sample_complexities
from hyperlax.statistics import Unavailable, median_over_runs, sample_complexity

STEPS = np.array([10.0, 20.0, 30.0, 40.0])
NAN = np.nan


def test_sample_complexity_is_the_first_step_with_enough_solved_runs():
    runs = np.array([[1.0, 5, 5, 5], [1, 1, 5, 1], [1, 1, 5, 5], [1, 1, 1, 5]])[None]
    for probability, wanted in ((0.25, 20), (0.5, 30), (0.75, 30), (0.76, np.inf), (1.0, np.inf)):
        assert sample_complexity(STEPS, runs, 5.0, probability).value == wanted
    assert sample_complexity(STEPS, runs, 1.0, 1.0).value == 10
    assert sample_complexity(STEPS, runs, 5.1, 0.1).value == np.inf


def test_a_stopped_run_counts_as_unsolved_and_an_empty_run_does_not_count():
    runs = np.array([[5.0, 5, NAN, NAN], [1, 5, 5, 5], [NAN, NAN, NAN, NAN]])[None]
    assert sample_complexity(STEPS, runs, 5.0, 1.0).value == 20
    late = np.array([[1.0, 1, NAN, NAN], [1, 1, 5, 5], [NAN, NAN, NAN, NAN]])[None]
    assert sample_complexity(STEPS, late, 5.0, 0.5).value == 30
    assert sample_complexity(STEPS, late, 5.0, 0.6).value == np.inf
    assert np.isnan(sample_complexity(STEPS, np.full((1, 2, 4), NAN), 5.0, 0.5).value)


@pytest.mark.parametrize("count", [5, 6, 7, 8, 9, 10, 16, 20, 37])
def test_the_interval_of_independent_runs_is_that_of_the_median_of_their_times(count):
    times = np.random.default_rng(0).uniform(0, 1, count)
    steps = np.linspace(0, 1, 100_001)
    found = sample_complexity(steps, (steps >= times[:, None]).astype(float)[None], 1.0, 0.5)
    expected = median_over_runs(times[None, :, None])
    assert [found.low, found.high] == pytest.approx([expected.low.item(), expected.high.item()], abs=2e-5)


@pytest.mark.parametrize(("count", "probability"), [(8, 0.5), (8, 0.75), (20, 0.75), (60, 0.9)])
def test_the_interval_of_independent_runs_covers_as_often_as_it_says(count, probability):
    steps = np.linspace(0, 1, 1001)
    times = np.random.default_rng(0).uniform(0, 1, (2000, count))
    found = [
        sample_complexity(steps, (steps >= own[:, None]).astype(float)[None], 1.0, probability)
        for own in times
    ]
    assert 0.935 < np.mean([e.low - 1e-3 <= probability <= e.high for e in found]) < 0.97


def test_few_runs_do_not_bound_a_high_quantile_from_above():
    steps = np.arange(21, dtype=float)
    found = sample_complexity(steps, (steps >= np.arange(1, 21)[:, None]).astype(float)[None], 1.0, 0.9)
    assert 14 < found.low < 16
    assert found.value == 18
    assert found.high == np.inf


def test_samples_are_resampled_together_with_their_seeds():
    """If the seeds of a sample agree, the interval over samples is wider than one over independent runs."""
    rng = np.random.default_rng(1)
    steps = np.arange(1, 101, dtype=float)
    reached = np.repeat(rng.integers(5, 95, size=12), 10).reshape(12, 10)
    runs = (steps >= reached[:, :, None]).astype(float)
    clustered = sample_complexity(steps, runs, 1.0, 0.5)
    independent = sample_complexity(steps, runs.reshape(1, 120, 100), 1.0, 0.5)
    assert clustered.value == independent.value
    assert clustered.high - clustered.low > 1.5 * (independent.high - independent.low)


def test_one_run_has_no_interval_and_an_interval_may_be_unbounded():
    one = sample_complexity(STEPS, np.array([[[1.0, 1, 5, 5]]]), 5.0, 0.5)
    assert one.value == 30
    assert np.isnan([one.low, one.high]).all()
    runs = np.array([[1.0, 1, 5, 5]] * 5 + [[1, 5, 5, 5]] * 2 + [[1, 1, 1, 1]])[None]
    open_end = sample_complexity(STEPS, runs, 5.0, 0.8)
    assert (open_end.low, open_end.value, open_end.high) == (30, 30, np.inf)


def test_the_table_of_families():
    easy = synthetic(samples=8, seeds=4, evaluations=20)
    easy.manifest["reference"] = {"random": -1400.0, "solved": -1000.0}
    hard = dataclasses.replace(
        easy, manifest={**easy.manifest, "name": "sac_mlp", "reference": {"random": -1400.0, "solved": 0.0}}
    )
    table = sample_complexities([easy, hard])
    assert table["family"].to_list() == ["ppo_mlp"] * 4 + ["sac_mlp"] * 4
    assert table["lanes"].to_list() == [4, 4, 32, 32] * 2
    assert table["probability"].to_list() == [0.5, 0.9] * 4
    assert table.filter(family="sac_mlp")["steps"].to_list() == [np.inf] * 4
    best, all_samples = table.filter(family="ppo_mlp", probability=0.5)["steps"]
    assert best <= all_samples
    assert best < 500_000


def test_lanes_that_diverged_before_an_evaluation_count_as_unsolved():
    full = synthetic(samples=4, seeds=4, evaluations=10, diverged=())
    full.manifest["reference"] = {"random": -2000.0, "solved": -1800.0}
    assert sample_complexities([full], (1.0,))["steps"].is_finite().all()
    curves = full.curves.filter(pl.col("lane") != 3)
    for status, finite, lanes in (("diverged", False, 16), ("running", True, 15)):
        lost = full.lanes.with_columns(
            status=pl.when(pl.col("lane") == 3).then(pl.lit(status)).otherwise(pl.col("status"))
        )
        table = sample_complexities([dataclasses.replace(full, curves=curves, lanes=lost)], (1.0,))
        all_samples = table.filter(runs="all samples")
        assert all_samples["steps"].is_finite().to_list() == [finite]
        assert all_samples["lanes"].to_list() == [lanes]


def test_finished_lanes_keep_their_last_return():
    """Samples with long rollouts overshoot the budget, to steps at which the others have no evaluations."""
    full = synthetic(samples=4, seeds=2, evaluations=10, diverged=())
    late = pl.when(pl.col("sample") == 0).then(3 * pl.col("env_steps")).otherwise(pl.col("env_steps"))
    returns = pl.when(pl.col("sample") == 0).then(pl.col("env_steps") * 1.0).otherwise(2e6)
    curves = full.curves.with_columns(env_steps=late).with_columns(value=returns)
    full.manifest["reference"] = {"random": 0.0, "solved": 9e5}
    table = sample_complexities([dataclasses.replace(full, curves=curves)], (0.5, 1.0))
    half, every = table.filter(runs="all samples")["steps"]
    assert half < 200_000
    assert every == pytest.approx(9e5, rel=0.05)


def test_environments_without_a_solved_score_are_refused():
    results = synthetic(samples=2, seeds=1, diverged=())
    results.manifest["reference"] = None
    with pytest.raises(Unavailable, match="No return of this environment counts as solved"):
        sample_complexities([results])
    with pytest.raises(Unavailable, match="No sample has an evaluation"):
        sample_complexities([nothing_yet()])
