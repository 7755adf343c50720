"""Ablations: samples that differ in one hyperparameter alone and are trained with the same random keys."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from report_data import synthetic

from hyperlax import LogUniform, Recipe, sweeps
from hyperlax.cluster import planning, sweep
from hyperlax.experiments.recipes import resolve
from hyperlax.hyperparams import design, fields, values
from hyperlax.report.charts.ablation import ablation_chart, ablation_notes, ablation_table
from hyperlax.report.charts.style import NothingToDraw
from hyperlax.report.figures.averages import average_words
from hyperlax.report.figures.figure import curves_figure, difference_figure
from hyperlax.report.html import write_report
from hyperlax.report.importance import importance_table
from hyperlax.schedules import ASHA, PBT
from hyperlax.statistics import median_interval_words, median_over_runs

RECIPE = Recipe("dqn", "mlp", space={"critic_lr": LogUniform(1e-4, 3e-3)}, only=True)
NORM = {"critic.layer_norm": ["true", "false"]}
KNOWN = {f.path: f for f in fields(RECIPE.hyperparams())}


def prepared(**how):
    return sweeps.prepare(RECIPE, "gymnax.cartpole", total_timesteps=2_000, seeds=2, **how)


def test_a_pair_differs_in_what_is_ablated_alone_and_has_the_same_keys():
    plain, pairs = prepared(num_samples=3), prepared(num_samples=3, ablate=NORM)
    assert list(pairs.records) == list(range(6))
    for place, sample in pairs.records.items():
        partner = pairs.records[place ^ 1]
        ours, theirs = values(sample.tree), values(partner.tree)
        assert {k for k in ours if ours[k] != theirs[k]} == {"critic.layer_norm"}
        np.testing.assert_array_equal(sample.keys, partner.keys)
        np.testing.assert_array_equal(sample.init_keys, partner.init_keys)
        alone = plain.records[place // 2]
        assert values(alone.tree)["critic_lr"] == ours["critic_lr"]
        np.testing.assert_array_equal(sample.keys, alone.keys)
    assert len({bytes(s.keys.tobytes()) for s in pairs.records.values()}) == 3
    assert pairs.samples["pair"].to_list() == [0, 0, 1, 1, 2, 2]
    assert "pair" not in plain.samples.columns
    assert pairs.identity() != plain.identity()


def test_every_combination_of_several_ablations_is_trained():
    found = prepared(num_samples=2, ablate={**NORM, "critic.activation": ["tanh", "relu", "silu"]}).samples
    assert found.height == 12
    chosen = found.select("pair", "critic.layer_norm", "critic.activation")
    assert chosen.n_unique() == 12


def test_a_samples_file_names_pairs_itself(tmp_path):
    file = tmp_path / "samples.csv"
    file.write_text("pair,critic.width\n7,16\n7,32\n3,16\n")
    found = prepared(samples=str(file))
    first, second, third = found.records.values()
    np.testing.assert_array_equal(first.keys, second.keys)
    assert (first.keys != third.keys).any()
    file.write_text("pair,critic.width\n-1,16\n")
    with pytest.raises(ValueError, match=r"samples.csv.*the pair id must be at least 0"):
        prepared(samples=str(file))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (
            {"ablate": {"layer_norm": [1, 0]}},
            'unknown hyperparameter "layer_norm"; did you mean "critic.layer_norm"',
        ),
        ({"ablate": {"critic.layer_norm": ["true"]}}, "compares two values or more, got true"),
        ({"ablate": {"critic.layer_norm": ["true", True]}}, "compares two values or more"),
        ({"ablate": {"critic.activation": ["tanh", "rleu"]}}, 'did you mean "relu"'),
        ({"ablate": NORM, "set": {"critic.layer_norm": "true"}}, "cannot be ablated and set to 'true'"),
        ({"ablate": NORM, "num_samples": 2, "experiment_type": "sobol_matrices_A_B_AB"}, "cannot be ablated"),
        (
            {"ablate": NORM, "num_samples": 2, "schedule": PBT(interval=1)},
            "an ablation needs every sample.*--ablate",
        ),
        ({"ablate": NORM, "num_samples": 2, "schedule": ASHA()}, "an ablation needs every sample.*--ablate"),
    ],
)
def test_what_cannot_be_ablated_is_refused_with_the_fix(how, said):
    with pytest.raises(ValueError, match=said):
        prepared(**how)


def test_ablations_are_read_from_the_command_line():
    assert design.parsed(["a.b=true, false", "c=1,2,3"]) == {"a.b": ["true", "false"], "c": ["1", "2", "3"]}
    for wrong in (["a"], ["=1,2"], ["a=1,2", "a=2,3"]):
        with pytest.raises(ValueError, match="--ablate needs path=value,value"):
            design.parsed(wrong)


def paired_report():
    """A made-up sweep of six pairs: `rollout` is ablated, all other hyperparameters agree within a pair."""
    results = synthetic(samples=12, seeds=3, diverged=())
    first = pl.col("sample") // 2 * 2
    table = results.samples.with_columns(pair=pl.col("sample") // 2)
    shared = [c for c in results.samples.columns if c not in ("sample", "rollout")]
    table = table.select(
        "sample", "pair", *(pl.col(c).gather(first) for c in shared), rollout=64 * (1 + pl.col("sample") % 2)
    )
    return dataclasses.replace(results, samples=table)


def test_the_report_shows_paired_differences_where_there_are_pairs(tmp_path):
    results = paired_report()
    row = ablation_table(results).row(0, named=True)
    assert (row["hyperparameter"], row["value"], row["against"], row["pairs"]) == ("rollout", "128", "64", 6)
    ends = (
        results.curves.filter(pl.col("metric") == "return")
        .sort("env_steps")
        .group_by("sample", "seed")
        .agg(pl.col("value").last())
    )
    scores = ends.group_by("sample").agg(pl.col("value").mean()).sort("sample")["value"].to_numpy()
    gaps = scores[1::2] - scores[::2]
    assert row["difference"] == pytest.approx(np.median(gaps))
    assert (row["better"], row["worse"]) == ((gaps > 0).sum(), (gaps < 0).sum())
    assert ablation_notes(results)[0].startswith("rollout: 128 against 64, 6 pairs: better in")
    page = write_report(results, tmp_path / "report.html").read_text()
    assert "What one hyperparameter changes" in page
    plain = write_report(synthetic(samples=4, seeds=2), tmp_path / "plain.html").read_text()
    assert "What one hyperparameter changes" not in plain
    assert "Paired differences" not in plain
    with pytest.raises(NothingToDraw, match="No samples were drawn in pairs"):
        ablation_chart(synthetic(samples=4, seeds=2))
    begun = dataclasses.replace(results, curves=results.curves.clear())
    assert ablation_table(begun).is_empty()
    with pytest.raises(NothingToDraw, match="No evaluation has been written yet"):
        ablation_chart(begun)


def test_pairs_do_not_count_twice_as_evidence_for_other_hyperparameters():
    """Importances see the first sample of each pair, as if the others had not been trained."""
    results = paired_report()
    wide = synthetic(samples=24, seeds=2, diverged=())
    doubled = wide.samples.with_columns(pair=pl.col("sample") % 12)
    both = importance_table(dataclasses.replace(wide, samples=doubled))
    kept = wide.samples.filter(pl.col("sample") < 12)
    alone = dataclasses.replace(
        wide,
        samples=kept,
        lanes=wide.lanes.join(kept.select("sample"), on="sample", how="semi"),
        curves=wide.curves.join(kept.select("sample"), on="sample", how="semi"),
    )
    assert both.equals(importance_table(alone), null_equal=True)
    assert "pair" not in str(results.manifest["space"])


def test_units_build_the_ablated_samples_of_a_file_as_they_were_planned(tmp_path):
    file = tmp_path / "samples.csv"
    file.write_text("sample,critic.width\n3,16\n5,32\n")
    given: dict[str, Any] = {"recipe": "dqn_mlp", "env": "gymnax.cartpole", "run_length_modifier": "quick"}
    given |= {"samples": str(file), "ablate": NORM, "num_samples": 2}
    spec = sweeps.prepare(**given)
    planning.of_experiment(
        spec, tmp_path / "r", Path("."), given, None, ["hyperlax"], "cpu", {}, wanted=2
    ).write()
    again = sweep.needed(tmp_path / "r").spec(0)
    assert again.samples.equals(spec.samples)
    assert again.samples["pair"].to_list() == [3, 3, 5, 5]
    for ours, theirs in zip(spec.records.values(), again.records.values(), strict=True):
        np.testing.assert_array_equal(ours.keys, theirs.keys)


def test_other_recipes_can_be_ablated_in_their_own_terms():
    recipe = resolve("ppo_mlp")
    rows = design.ablated(
        [{}], {"actor.activation": ["relu", "tanh"]}, {f.path: f for f in fields(recipe.hyperparams())}, {}
    )
    assert rows == [
        {"actor.activation": "relu", "pair": 0, "sample": 0},
        {"actor.activation": "tanh", "pair": 0, "sample": 1},
    ]


def test_only_what_is_named_is_searched_and_the_rest_is_as_by_default():
    found = sweeps.prepare(
        "dqn_mlp", "gymnax.cartpole", num_samples=4, search_only=["critic_lr"], total_timesteps=2_000, seeds=1
    )
    usual = values(resolve("dqn_mlp").hyperparams())
    for sample in found.records.values():
        assert {k for k, v in values(sample.tree).items() if v != usual[k]} == {"critic_lr"}
    assert list(found.recipe.search_space()) == ["critic_lr"]
    for path, said in (
        ("lr", 'did you mean "critic_lr"'),
        ("epochs", "not searched by dqn_mlp; give it a range"),
    ):
        with pytest.raises(ValueError, match=said):
            resolve("dqn_mlp").searching([path])
    with pytest.raises(
        ValueError,
        match=r"fixes critic_lr; give it a range .--range critic_lr=LOW,HIGH., or use dqn_mlp",
    ):
        resolve("tuned.acrobot_dqn_mlp").searching(["critic_lr"])


def test_a_figure_of_pairs_finds_what_was_ablated_and_judges_by_the_score_that_is_named():
    results = paired_report()
    found = difference_figure([results])
    assert found.table.equals(difference_figure([results], ["rollout"]).table)
    assert "by interpolated order statistics" in found.notes[0]
    assert "The interquartile mean of 3 seeds is their plain mean." in found.notes[0]
    assert "median difference in final return" in found.notes[-1]
    by_area = difference_figure([results], metric="auc")
    assert by_area.table.equals(found.table)
    assert "median difference in mean return in training" in by_area.notes[-1]
    with pytest.raises(ValueError, match=r"no experiment says what .*--by"):
        difference_figure([synthetic(samples=4, seeds=2)])


def test_curves_of_other_evaluations_are_drawn_where_these_were_and_it_is_said():
    long = synthetic(samples=6, seeds=4, diverged=(), evaluations=6)
    last = long.curves["env_steps"].to_numpy().max()
    curves = long.curves.with_columns(
        pl.when(pl.col("sample") < 3).then(pl.col("env_steps") // 8).otherwise(pl.col("env_steps"))
    )
    samples = long.samples.with_columns(short=pl.col("sample") < 3)
    results = dataclasses.replace(long, curves=curves, samples=samples)
    apart = curves_figure([results], ["short"])
    assert any("different positions" in note for note in apart.notes)
    assert not any("not all samples" in note for note in apart.notes)
    ends = apart.table.group_by("group").agg(pl.col("x").max(), pl.len()).sort("x")
    assert ends["x"].to_list() == pytest.approx([last / 8, last], rel=0.02)
    assert ends["len"].to_list()[1] >= 6
    pooled = curves_figure([results], [])
    assert any("not all samples of a group have an evaluation everywhere" in note for note in pooled.notes)
    whole = curves_figure([long], [])
    assert len(whole.notes) == 1


@pytest.mark.parametrize(
    ("show", "samples", "seeds", "said"),
    [
        ("iqm", 5, 3, " The interquartile mean of 3 seeds is their plain mean."),
        ("iqm", 3, 4, " The interquartile mean of 3 samples is their plain mean."),
        ("iqm", 2, 3, " The interquartile mean of 2 samples and of 3 seeds is their plain mean."),
        ("iqm", 4, 4, ""),
        ("median", 5, 3, " The interquartile mean of 3 seeds is their plain mean."),
        ("median", 1, 3, ""),
        ("best", 9, 2, " The interquartile mean of 2 seeds is their plain mean."),
        ("mean", 3, 3, ""),
        ("iqm", 5, 1, ""),
    ],
)
def test_a_caption_says_where_an_interquartile_mean_trims_nothing(show, samples, seeds, said):
    words = average_words(show, "none", samples, seeds, False)
    assert words.endswith(said)
    assert ("plain mean" in words) == bool(said)


def test_an_interval_of_five_pairs_is_called_what_it_is():
    assert median_interval_words(5) == "the range of 5, which holds the median in 93.75% of cases"
    values = np.array([3.0, 1.0, 5.0, 2.0, 4.0])
    found = median_over_runs(values[None, :, None])
    assert (found.low.item(), found.high.item()) == (values.min(), values.max())
    assert "order statistics" in median_interval_words(6)
