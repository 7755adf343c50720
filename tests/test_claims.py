"""Sentences of reports are true of chosen, tied, unequal and contradicting scores."""

from __future__ import annotations

import dataclasses
import re
import shlex
from unittest.mock import Mock

import numpy as np
import polars as pl
import pytest
from report_data import sobol_design, synthetic
from scored_data import scored, with_confirmation

from hyperlax.agents.base import AbstractAgent, AbstractAgentHyperparams
from hyperlax.commands.ending import next_command
from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.samples import Lane
from hyperlax.hyperparams import design
from hyperlax.report.agreement import differences
from hyperlax.report.applies import telling
from hyperlax.report.charts import CHARTS, NothingToDraw, bands, ecdf, return_distribution
from hyperlax.report.charts.curves import learning_curves
from hyperlax.report.charts.families import (
    best_of_k_chart,
    improvement_chart,
    paired,
    profile_chart,
    tuned_curves,
)
from hyperlax.report.charts.health import training_health
from hyperlax.report.charts.runtime import scaling
from hyperlax.report.claims import verdicts, verdicts_by_environment
from hyperlax.report.comparison import summary
from hyperlax.report.draws import drawn_scores
from hyperlax.report.export import about
from hyperlax.report.figures.averages import average_words
from hyperlax.report.figures.pairs import claimed, summary_words
from hyperlax.report.findings import comparison_findings, findings
from hyperlax.report.html import _circuit_section
from hyperlax.report.leaderboard import leaderboard, tied
from hyperlax.report.scores import ranked, scores
from hyperlax.report.selection import drop_words
from hyperlax.report.tables import sample_table
from hyperlax.report.tuning import effective_dimensionality
from hyperlax.report.words import spanned
from hyperlax.run.best import BEST_POLICIES, BestPolicies
from hyperlax.storage.store import Store


def drawn(count: int, name: str) -> pl.DataFrame:
    """Return samples of another hyperparameter, which are no pairs of those of `scored`."""
    return pl.DataFrame({"sample": range(count), name: [float(i) for i in range(count)]})


def test_the_score_to_quote_was_chosen_before_the_fresh_seeds():
    """The highest of the confirmed scores of equal samples would be 13 too high on average."""
    rng, quoted = np.random.default_rng(0), []
    for _ in range(40):
        tuned = rng.normal(100, 20, (16, 3))
        best = np.argsort(-tuned.mean(axis=1))[:5].tolist()
        said = findings(with_confirmation(scored(tuned), best, rng.normal(100, 20, (5, 3)))).next
        assert f"sample {best[0]}, which came first in tuning, scores " in said
        quoted.append(float(re.findall(r"scores ([\d.]+)", said)[0]))
    assert np.mean(quoted) == pytest.approx(100, abs=3 * 20 / 3**0.5 / 40**0.5)


def test_another_confirmed_sample_is_a_maximum_that_may_be_told_apart():
    tuned = [[100.0] * 6, [99.0] * 6, [98.0] * 6]
    fresh = np.array([[50.0], [80.0], [10.0]]) + np.arange(6)
    said = findings(with_confirmation(scored(tuned), [0, 1, 2], fresh)).next
    assert "sample 0, which came first in tuning, scores 52.5" in said
    assert "Sample 1 scores more, 82.5" in said
    assert "again a maximum, of 3 samples, and so optimistic; it is told apart from sample 0." in said
    said = findings(with_confirmation(scored(tuned), [0, 1, 2], fresh[:, :3])).next
    assert "it cannot be told apart from sample 0." in said


def test_a_sample_that_stands_in_for_the_first_is_not_called_the_first():
    made = with_confirmation(scored([[9.0], [5.0], [1.0]]), [0, 1], [[np.nan], [4.0]])
    assert (
        "sample 1, which came first in tuning of those with a confirmed score, scores" in findings(made).next
    )


def test_a_paired_test_needs_enough_pairs_that_have_scores():
    values = np.arange(8.0)[:, None]
    one, other = scored(values, "A"), scored(values + 1, "B")
    assert paired(one, other) is not None
    values[5:] = np.nan
    assert paired(scored(values, "A"), other) is None


def test_confirmed_samples_that_tie_are_named():
    tuned, fresh = [[500.0] * 3, [500.0] * 3, [400.0] * 3], [[500.0] * 3, [500.0] * 3]
    found = findings(with_confirmation(scored(tuned), [0, 1], fresh))
    assert found.next == (
        "Confirmed: with fresh seeds, sample 0, the first of 2 that tied in tuning, scores 500 "
        "(all 3 seeds alike); quote that. Sample 1 scores exactly the same."
    )
    assert (found.flags, found.sample) == ((), 0)


def test_the_policy_to_watch_is_of_the_sample_that_is_named(tmp_path):
    """The confirmation's own, or one of the search if that of the confirmation was not kept."""
    made = with_confirmation(scored([[1.0, 2.0], [3.0, 4.0]]), [1, 0], [[1.0, 2.0], [5.0, 6.0]])
    found = findings(made)
    assert found.sample == 1
    for name in ("policies/lane-00001", "policies/lane-00003", "confirmation/policies/lane-00003"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.policy").touch()
    assert next_command(made, found.flags, tmp_path, found.sample).endswith(" policies/lane-00003.policy"[1:])
    (tmp_path / "confirmation/policies/lane-00000.policy").touch()
    said = next_command(made, found.flags, tmp_path, found.sample)
    assert said.endswith("confirmation/policies/lane-00000.policy")


def test_the_command_that_plays_a_policy_names_classes_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (policy := tmp_path / "policies/lane-00001.policy").parent.mkdir()
    policy.touch()
    made = scored([[1.0, 2.0]])
    own = {"algorithm": "a b.py:Mine", "network": "mlp", "env": "my.py:Env[g=2]"}
    said = next_command(dataclasses.replace(made, manifest={**made.manifest, **own}), (), tmp_path)
    assert shlex.split(said)[:3] == ["cd", str(tmp_path), "&&"]
    flags = ["--algorithm", "a b.py:Mine", "--env-config", "my.py:Env[g=2]"]
    assert shlex.split(said)[4:] == ["play", str(policy), *flags]
    hidden = {"algorithm": "…/a.py:Mine", "network": "mlp", "env": "gymnax.cartpole"}
    said = next_command(dataclasses.replace(made, manifest={**made.manifest, **hidden}), (), tmp_path)
    assert "plot-benchmark" in said


def test_samples_that_stopped_early_or_still_train_are_not_ranked():
    """They come last although their scores are the highest, and their number is said."""
    values = np.array([[900.0], [800.0], [50.0], [10.0]]) + np.arange(12)
    stopped = {(0, seed): "pruned" for seed in range(12)} | {(1, 3): "running"}
    results = scored(values, status=stopped, steps=dict.fromkeys(stopped, 1_000))
    board = leaderboard(results)
    assert board["sample"].to_list() == [2, 3, 0, 1]
    assert board["rank"].to_list() == ["1", "2", "–", "–"]
    assert ranked(results)["sample"].to_list() == [2, 3, 0, 1]
    best = findings(results).best
    assert best.startswith("Best: sample 2 ")
    assert "It is told apart from the other one. Not ranked: 2 samples with lanes that stopped early" in best
    assert scores(results).tolist() == [55.5, 15.5]


def test_no_hyperparameter_has_the_name_of_another_column_of_leaderboards():
    board = leaderboard(scored([[5.0], [6.0]]))
    others = {*design.SCORED, *design.COLUMNS}
    assert {*board.columns} - others <= {*scored([[5.0], [6.0]]).samples.columns}
    assert {*design.SCORED} <= {*board.columns}
    assert others <= {*AbstractAgentHyperparams.reserved}


def test_samples_that_tie_with_one_that_stopped_early_are_not_counted_as_ties():
    results = scored([[5.0], [5.0], [5.0]], status={(0, 0): "pruned"}, steps={(0, 0): 100})
    assert tied(leaderboard(results)) == 2


def test_families_of_which_only_chosen_samples_train_to_the_end_are_not_compared():
    whole, halved = np.arange(16.0)[:, None], np.arange(16.0)[:, None] + 500
    stopped = {(sample, 0): "pruned" for sample in range(8)}
    one = scored(halved, "A", status=stopped, steps=dict.fromkeys(stopped, 1_000))
    assert verdicts([one, scored(whole, "B")]) == [
        "A and B are not compared, because 8 samples of A stopped early by their scores."
    ]
    begun = {(sample, 0): "running" for sample in range(16)}
    one = scored(halved, "A", status=begun, steps=dict.fromkeys(begun, 1_000))
    groups = {"x": [one, scored(whole, "B")]}
    assert "no lane of A has trained to the end" in verdicts(groups["x"])[0]
    assert "sample 15 of B" in comparison_findings(groups, {"x": []})[1]


def test_survivors_of_successive_halving_are_not_shown_as_random_samples():
    stopped = {(sample, 0): "pruned" for sample in range(8)}
    values = np.arange(16.0)[:, None]
    halved = scored(values, "A", status=stopped, steps=dict.fromkeys(stopped, 1_000))
    whole = scored(values, "B")
    for draw in (best_of_k_chart, profile_chart):
        with pytest.raises(NothingToDraw, match="no random ones"):
            draw([halved])
        spec = draw([halved, whole]).to_dict()
        names = {row["name"] for rows in spec["datasets"].values() for row in rows}
        assert names == {"B"}
        assert (
            "Left out: A, where samples were proposed, copied or stopped by scores."
            in spec["title"]["subtitle"]
        )
    one, other = summary([halved, whole]).iter_rows(named=True)
    assert (one["evaluated"], one["best"], one["top 5 IQM"]) == (16, 15.0, other["top 5 IQM"])
    assert [one[name] for name in ("median", "q25", "expected best of 8")] == [None] * 3
    assert None not in [other[name] for name in ("median", "q25", "expected best of 8")]


def test_sentences_on_samples_and_metrics_suit_their_number():
    single = scored([[1.0, 2.0]])
    words = " ".join(tuned_curves([single]).to_dict()["title"]["subtitle"])
    assert "selected" not in words
    assert "interquartile mean of the best" not in words
    several = " ".join(tuned_curves([scored([[1.0], [2.0]])]).to_dict()["title"]["subtitle"])
    assert "selected by these same evaluations" in several
    one = scored([[1.0]])
    assert about(one).startswith("1 sample × 1 seed, 10,000 env steps, 1 evaluation of 16 episodes, ")
    one.manifest["settings"] = {"seeds": 2, "eval_episodes": 16}
    assert about(one) == "1 sample × 2 seeds, protocol corrected, seed 0."
    lone = scored([[np.nan], [2.0]])
    with pytest.raises(NothingToDraw, match=r"^A single lane has a score, which the table shows\.$"):
        telling("leaderboard", CHARTS["leaderboard"], lone)()


def test_the_table_of_all_samples_shows_the_headline_once():
    page = str(sample_table(scored([[1.0, 2.0], [3.0, 4.0]])))
    assert re.findall(r"final[ _]return", page.partition("<table")[2].partition("</thead>")[0]) == [
        "final return"
    ]


def test_the_interval_of_a_sample_that_was_chosen_by_its_score_is_said_to_ignore_that():
    """One that was the only sample, or has no interval, was not."""
    rng, words = np.random.default_rng(0), "Its interval does not allow for its being chosen as the best."
    best, alone, few = (scored(rng.normal(size=shape)) for shape in ((3, 10), (1, 10), (3, 4)))
    assert words in findings(best).best
    assert words in comparison_findings({"cartpole": [best]}, {"cartpole": []})[1]
    for other in (alone, few):
        assert words not in findings(other).best
        assert words not in comparison_findings({"cartpole": [other]}, {"cartpole": []})[1]
    for results, said in ((best, True), (alone, False)):
        assert (
            "their scores are optimistic" in str(CHARTS["leaderboard"](results).to_dict()["title"])
        ) == said


def test_no_sample_is_called_the_best_before_any_is_evaluated():
    made = synthetic(samples=3, seeds=2, diverged=())
    begun = dataclasses.replace(made, curves=made.curves.filter(pl.col("metric") != "return"))
    (said, *_) = training_health(begun).to_dict()["title"]["subtitle"]
    assert said == "Grey: median and middle half of all lanes."
    drawn = dataclasses.replace(
        begun, manifest={**begun.manifest, "network": "drpqc", "inputs": {"actor": 3}}
    )
    assert _circuit_section(drawn) == {}


@pytest.mark.parametrize(("states", "advised"), [(["pruned", "diverged"], False), (["pruned", "done"], True)])
def test_the_recipe_of_the_best_trial_is_named_only_where_there_is_one(states, advised):
    trials = pl.DataFrame({"trial": [0, 1], "state": states})
    made = dataclasses.replace(scored([[1.0], [2.0]]), trials=trials)
    assert ("best_recipe.py" in findings(made).next) == advised


def test_claims_are_corrected_over_all_environments_of_a_page():
    one, other = np.arange(12.0)[:, None], np.arange(12.0)[:, None] + 3.5
    pair = [scored(one, "A"), scored(other, "B", samples=drawn(12, "x"))]
    assert "B is ahead of A" in verdicts(pair)[0]
    said = verdicts_by_environment({str(env): pair for env in range(10)})
    assert list(said.values()) == [["A and B: no difference is claimed."]] * 10
    far = [pair[0], scored(other + 100, "B", samples=drawn(12, "x"))]
    assert "corrected for 2 comparisons" in verdicts_by_environment({"a": far, "b": far})["a"][0]


def test_a_probability_that_contradicts_a_claim_is_no_support_of_it():
    few_succeed = np.r_[np.zeros(50), np.full(14, 500.0)] + np.arange(64) / 1e3
    (said,) = verdicts(
        [
            scored(few_succeed[:, None], "A", samples=drawn(64, "x")),
            scored(20 + np.arange(64)[:, None] / 1e3, "B"),
        ]
    )
    assert said.startswith("A is ahead of B in the mean only: the mean difference in final return is 89.38 [")
    assert said.endswith("but a random sample of B has the higher one with probability 0.78.")


def test_single_samples_are_compared_seed_by_seed_and_called_so():
    (said,) = verdicts([scored([np.arange(6.0) + 100], "A"), scored([np.arange(6.0)], "B")])
    assert said.startswith("A is ahead of B: a random seed of the former has the higher final return")


def test_so_many_of_those_that_may_be_the_best_are_trained_again():
    rng = np.random.default_rng(0)
    assert findings(scored(rng.normal(100, 20, (16, 4)))).next.startswith(
        "Next: train 5 of the 16 that may be the best again"
    )


def test_ties_across_families_and_families_without_a_score_are_named():
    alike, none = np.full((4, 5), 500.0), np.full((4, 5), np.nan)
    groups = {"x": [scored(alike, "A"), scored(alike, "B"), scored(none, "C")]}
    assert comparison_findings(groups, {"x": []})[1] == (
        "Best on x: sample 0 of A (one of 4 that score the same) and sample 0 of B (one of 4 that score the "
        "same) alike, with 500 (all 5 seeds alike). C has no score yet."
    )


@pytest.mark.parametrize("top", [-2.0, -0.01, 0.5, 1.2])
def test_the_share_of_a_score_makes_sense_below_zero(top):
    """A tenth of the range is more than may be lost, whatever the sign of the score."""
    assert effective_dimensionality(np.array([top - 1, top - 0.1, top - 0.01, top])) == 2


def row(better: int, worse: int, equal: int, low: float | None, high: float | None) -> dict[str, object]:
    pairs = better + worse + equal
    counts = {"pairs": pairs, "better": better, "worse": worse, "difference": 2.0, "low": low, "high": high}
    return {"group": "x", "against": "y", **counts}


def test_pairs_that_agree_tie_or_are_many_are_said_as_they_are():
    (alike,) = summary_words([(row(0, 0, 8, None, None), "lr")], "final return")
    assert "equal in 8" in alike
    assert alike.endswith("without an interval: too many pairs differ by the same.")
    (few,) = summary_words([(row(3, 0, 0, None, None), "lr")], "final return")
    assert few.endswith("without an interval: it needs five pairs.")
    single = row(6, 0, 0, 1.0, 3.0)
    assert summary_words([(single, "lr")], "final return")[0].endswith(": the interval leaves out zero.")
    many = summary_words([(single, "lr")] + [(row(3, 3, 0, -1.0, 3.0), "lr")] * 9, "final return")
    assert "but no difference is claimed among 10 comparisons" in many[0]
    assert claimed([single]) == [True]
    assert claimed([single] + [row(3, 3, 0, -1.0, 3.0)] * 9) == [False] * 10
    assert claimed([row(3, 0, 0, None, None)]) == [False]
    assert claimed([row(12, 0, 0, 1.0, 2.0), row(3, 3, 0, -1.0, 3.0)]) == [True, False]


def test_an_interval_shows_enough_digits_not_to_collapse():
    assert spanned(-1_000_000.21, -1_000_000.52, -999_999.93) == [
        "-1,000,000.21",
        "-1,000,000.52",
        "-999,999.93",
    ]
    assert spanned(1.23456, 1.1, 1.3) == ["1.235", "1.1", "1.3"]
    assert spanned(5.0, 5.0, 5.0) == ["5", "5", "5"]


def test_a_drop_and_the_interval_beside_it_say_what_they_are_of():
    before = [500.0, 499, 501, 500, 498, 502, 500, 499, 501, 500]
    after = [500.0, 501, 499, 500, 502, 498, 500, 501, 0, 1]
    said = drop_words(with_confirmation(scored([before]), [0], [after]))
    assert re.match(r"The average drop is [\d.-]+; that of the plain means over seeds is 99.8 \[", said)


def test_captions_name_the_families_whose_bands_are_intervals():
    said = bands.words_of_families({"A": 10, "B": 3, "C": 1})
    assert "95 % intervals for A; from the lowest to the highest seed for B; none, because" in said
    assert bands.words_of_families({"A": 10, "B": 12}) == bands.words(10)
    assert bands.words_of_families({"A": 3, "B": 1}) != bands.words(1)
    assert "over seeds, with the samples of a group held fixed" in average_words(
        "iqm", "interval", 3, 10, True
    )


def test_a_chart_of_times_is_left_out_where_none_was_recorded():
    made = scored([[1.0, 2.0]])
    timeless = dataclasses.replace(made, curves=made.curves.with_columns(seconds=pl.lit(0.0)))
    with pytest.raises(NothingToDraw, match="how long"):
        scaling([timeless])


def test_the_leader_among_lanes_that_tie_keeps_its_policy(tmp_path, monkeypatch):
    """The leaderboard is led by the smallest of equal samples, in whatever order lanes end."""
    monkeypatch.setattr("hyperlax.policies.save", lambda path, *_, **__: None)
    monkeypatch.setattr("hyperlax.run.best.definition", lambda spec: "")
    keeper = BestPolicies(
        Mock(spec=Store, folder=tmp_path), "best", Mock(spec=Experiment, recipe=None, env_name="")
    )
    lanes = list(range(BEST_POLICIES + 4))
    for number in np.random.default_rng(0).permutation(lanes).tolist():
        lane = Mock(spec=Lane, lane=number, sample=number, seed=0, env_steps=1, status="done")
        keeper.keep(lane, 500.0, {}, lambda: Mock(spec=AbstractAgent))
    assert sorted(lane for _, lane in keeper.best) == lanes[:BEST_POLICIES]


@pytest.mark.parametrize("design", ["sensitivity", "pairs", "copies"])
def test_intervals_over_samples_are_drawn_only_where_these_are_independent_draws(design):
    results, why = {
        "sensitivity": (sobol_design(), "agree with others in all but a part"),
        "pairs": (
            scored(
                np.arange(16.0)[:, None], samples=pl.DataFrame({"sample": range(16), "pair": [*range(8)] * 2})
            ),
            "agree with others in all but a part",
        ),
        "copies": (
            dataclasses.replace(
                scored(np.arange(16.0)[:, None]), lineage=pl.DataFrame({"lane": [1], "donor": [2]})
            ),
            "continued from copies of one another",
        ),
    }[design]
    spec = ecdf(results).to_dict()
    (steps,) = [rows for rows in spec["datasets"].values() if "share" in rows[0]]
    assert {row["low"] for row in steps} == {None}
    assert why in str(spec["title"])
    if design == "copies":
        with pytest.raises(NothingToDraw, match="no random ones"):
            best_of_k_chart([results])
    else:
        drawn_only = drawn_scores(results)
        assert 0 < len(drawn_only) < len(scores(results))
        best = best_of_k_chart([results]).to_dict()
        assert "which agree with others in all but a part" in str(best["title"])
        (curve,) = [rows for rows in best["datasets"].values() if len(rows) > 1]
        assert len(curve) == len(drawn_only)


def test_samples_with_fewer_env_steps_are_named_beside_distributions():
    stopped = {(sample, 0): "pruned" for sample in range(8)}
    halved = scored(np.arange(16.0)[:, None], status=stopped, steps=dict.fromkeys(stopped, 1_000))
    charts = (
        ecdf,
        return_distribution,
        *(CHARTS[name] for name in ("importance", "slices", "parallel_coordinates")),
    )
    for draw in charts:
        assert "Among them 8 samples with lanes that stopped early" in str(draw(halved).to_dict()["title"])
        assert "stopped early" not in str(draw(scored(np.arange(16.0)[:, None])).to_dict()["title"])


def test_samples_without_a_score_are_counted_where_they_are_left_out():
    lost = np.concatenate([np.arange(16.0), np.full(3, np.nan)])[:, None]
    late = {(0, 0): 1_000}
    ours = scored(lost, "A", status={(0, 0): "running"}, steps=late)
    theirs = scored(np.arange(19.0)[:, None] + 40, "B")
    for name in ("return_distribution", "ecdf", "importance", "learning_curves"):
        assert "Left out: 3 samples without an evaluation." in str(CHARTS[name](ours).to_dict()["title"]), (
            name
        )
        assert "Left out" not in str(CHARTS[name](theirs).to_dict()["title"]), name
    for name in ("slices", "parallel_coordinates"):
        assert "Left out: 3 of 19 samples without a finite" in str(CHARTS[name](ours).to_dict()["title"]), (
            name
        )
    said = "Left out, without an evaluation or with fewer env steps: 4 of 19 samples of A."
    for draw in (best_of_k_chart, profile_chart, improvement_chart):
        assert said in str(draw([ours, theirs]).to_dict()["title"])
    assert said in verdicts([ours, theirs])[0]
    assert "Left out" not in str(best_of_k_chart([theirs]).to_dict()["title"])
    assert "even the best of equal samples rises with k" in str(best_of_k_chart([theirs]).to_dict()["title"])


def test_an_average_over_fewer_samples_at_some_positions_says_so():
    """Samples of slow programs are still evaluated at wall times when others have ended."""
    even, seconds = synthetic(samples=4, seeds=2, diverged=()), pl.col("seconds")
    slow = pl.when(pl.col("sample") == 0).then(4 * seconds).otherwise(seconds)
    uneven = dataclasses.replace(even, curves=even.curves.with_columns(seconds=slow))
    words = "Where only some of these samples were evaluated"
    for draw in (lambda r: learning_curves(r, "seconds"), lambda r: tuned_curves([r], "seconds")):
        assert words in str(draw(uneven).to_dict()["title"])
        assert words not in str(draw(even).to_dict()["title"])


def test_hyperparameters_beyond_the_axes_that_fit_are_counted():
    columns = {f"h{i:02d}": [float(i), float(i + 1)] for i in range(42)}
    many = scored([[1.0], [2.0]], samples=pl.DataFrame({"sample": [0, 1], **columns}))
    said = str(CHARTS["parallel_coordinates"](many).to_dict()["title"])
    assert "Axes: the first 40 of 42 hyperparameters that vary." in said


def test_a_setting_that_an_older_version_did_not_record_is_called_unknown():
    one, other = scored([[1.0]], "A"), scored([[1.0]], "B")
    one.manifest["settings"] = {**one.manifest.get("settings", {}), "eval_episodes": None}
    other.manifest["settings"] = {**other.manifest.get("settings", {}), "eval_episodes": 16}
    assert "A unknown, B 16" in differences([one, other])[0]
