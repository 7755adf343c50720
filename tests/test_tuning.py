"""Hyperparameter sensitivity and effective dimensionality against cases worked out by hand."""

import dataclasses
import itertools

import numpy as np
import polars as pl
import pytest
from report_data import nothing_yet, synthetic

from hyperlax.report.charts.tuning import tuning_chart
from hyperlax.report.tuning import (
    effective_dimensionality,
    normalised,
    scores_by_tuned,
    sensitivity,
    sensitivity_table,
    tuned_scores,
)
from hyperlax.statistics import Unavailable
from hyperlax.storage.results import Results

NAN = np.nan


def test_percentiles_of_the_pool_become_zero_and_one():
    pool = np.arange(101.0)
    np.testing.assert_allclose(normalised(np.array([5.0, 95, 50, 104]), pool), [0, 1, 0.5, 1.1])
    assert np.isnan(normalised(np.zeros(3), np.zeros(5))).all()


def test_scores_of_tuning_per_environment_and_once_for_all():
    scores = np.array([[1.0, 0.0, 0.6], [0.0, 0.8, 0.5]])
    own, common, sample = tuned_scores(scores)
    assert (own, common, sample) == (pytest.approx(0.9), pytest.approx(0.55), 2)


def test_a_sample_that_is_nan_in_one_environment_is_not_chosen_for_all():
    own, common, sample = tuned_scores(np.array([[1.0, 0.1], [NAN, 0.2]]))
    assert (own, common, sample) == (pytest.approx(0.6), pytest.approx(0.15), 1)


def test_the_number_of_hyperparameters_to_tune():
    """x must be tuned per environment, y has a small effect, and z has none; each has two values."""
    levels = np.array(list(itertools.product(range(2), repeat=3)))
    x, y, z = levels.T
    scores = np.stack([1.0 - x - 0.02 * y + 0 * z, 0.0 + x - 0.03 * (1 - y) + 0 * z])
    by_tuned = scores_by_tuned(scores, levels)
    np.testing.assert_allclose(by_tuned, [0.49, 0.99, 1.0, 1.0])
    assert effective_dimensionality(by_tuned) == 1
    assert effective_dimensionality(by_tuned, retained=0.999) == 2
    same = np.stack([1.0 - x, 1.0 - x])
    assert effective_dimensionality(scores_by_tuned(same, levels)) == 0


def test_the_sensitivity_of_exact_scores_is_worked_out_by_hand():
    truth = np.array([[0.0, 1.0, 0.7, 0.2], [1.0, 0.0, 0.7, 0.1]])
    scores = [np.repeat(row[:, None], 3, axis=1) for row in truth]
    found = sensitivity(scores, [np.array([0.0, 1.0])] * 2)
    spread = 0.9  # between the percentiles of the pool
    assert found == pytest.approx(((1 - 0.05) / spread, 0.65 / spread, 0.3 / spread))


def grid(env: str, best: float, recipe: str = "ppo_mlp") -> Results:
    """Build a full grid of three rates and two gammas; the closer the rate is to `best`, the better."""
    values = list(itertools.product((1.0, 2.0, 3.0), (0.9, 0.99)))
    full = synthetic(samples=6, seeds=3, diverged=())
    samples = pl.DataFrame(
        [{"sample": i, "rate": rate, "gamma": gamma, "fixed": 1} for i, (rate, gamma) in enumerate(values)]
    )
    curves = full.curves.join(samples.select("sample", "rate"), on="sample").with_columns(
        value=pl.when(pl.col("metric") == "return")
        .then(-(pl.col("rate") - best).abs())
        .otherwise(pl.col("value"))
    )
    manifest = {**full.manifest, "env": env, "recipe": recipe, "space": {}}
    return dataclasses.replace(full, manifest=manifest, samples=samples, curves=curves.drop("rate"))


def test_the_table_of_a_family_in_two_environments():
    table = sensitivity_table([grid("a", 1.0), grid("b", 3.0), grid("a", 1.0, "other")])
    (row,) = table.to_dicts()
    assert row["family"] == "ppo_mlp"
    assert (row["environments"], row["samples"], row["hyperparameters"]) == (2, 6, 2)
    assert row["per_environment"] == pytest.approx(1)
    assert row["across_environments"] == pytest.approx(0.5)
    assert row["sensitivity"] == pytest.approx(0.5)
    assert row["effective_dimensionality"] == 1


def test_samples_that_stopped_early_and_copies_are_not_what_a_family_is_tuned_to():
    """One lane of the best sample stopped early; the caption says so, and how many samples are shared."""
    here, there = grid("a", 1.0), grid("b", 3.0)
    late = (pl.col("sample") < 2) & (pl.col("seed") == 0)
    status = pl.when(late).then(pl.lit("pruned")).otherwise("status")
    stopped = dataclasses.replace(
        here,
        lanes=here.lanes.with_columns(status=status),
        curves=here.curves.filter(~late | (pl.col("env_steps") < 250_000)),
    )
    (row,) = sensitivity_table([stopped, there]).to_dicts()
    assert (row["samples"], row["missing"], row["best_for_all"]) == (6, 2, 2)
    said = str(tuning_chart([stopped, there]).to_dict()["title"])
    assert "share: 6 of 6 of ppo_mlp (2 of their scores left out, unknown or of fewer env steps)." in said
    copied = dataclasses.replace(here, lineage=pl.DataFrame({"lane": [0], "donor": [1]}))
    with pytest.raises(Unavailable, match="same samples in two environments"):
        sensitivity_table([copied, there])


def test_samples_that_form_no_grid_have_no_effective_dimensionality():
    results = synthetic(samples=8, seeds=2)
    other = dataclasses.replace(results, manifest={**results.manifest, "env": "another"})
    (row,) = sensitivity_table([results, other]).to_dicts()
    assert row["sensitivity"] == pytest.approx(0)
    assert row["effective_dimensionality"] is None
    assert row["hyperparameters"] == 7


def test_only_samples_with_equal_hyperparameters_are_compared():
    one, other = grid("a", 1.0), grid("b", 3.0)
    changed = other.samples.with_columns(
        rate=pl.when(pl.col("sample") == 5).then(9.0).otherwise(pl.col("rate"))
    )
    (row,) = sensitivity_table([one, dataclasses.replace(other, samples=changed)]).to_dicts()
    assert row["samples"] == 5
    assert row["effective_dimensionality"] is None


def test_experiments_without_shared_samples_are_refused_with_the_reason():
    different = grid("b", 3.0)
    different = dataclasses.replace(
        different, samples=different.samples.with_columns(gamma=pl.col("gamma") / 2)
    )
    begun = nothing_yet()
    elsewhere = dataclasses.replace(begun, manifest={**begun.manifest, "env": "b"})
    for experiments in ([], [grid("a", 1.0)], [grid("a", 1.0), different], [begun, elsewhere]):
        with pytest.raises(Unavailable, match="same samples in two environments"):
            sensitivity_table(experiments)
    flat = grid("b", 3.0)
    flat = dataclasses.replace(flat, curves=flat.curves.with_columns(value=pl.lit(500.0)))
    with pytest.raises(Unavailable, match="all samples are equally good"):
        sensitivity_table([grid("a", 1.0), flat])
