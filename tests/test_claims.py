"""Sentences of reports are true of chosen, tied, unequal and contradicting scores."""

from __future__ import annotations

import re
from unittest.mock import Mock

import numpy as np
import pytest
from scored_data import scored, with_confirmation

from hyperlax.agents.base import AbstractAgent
from hyperlax.commands.ending import next_command
from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.samples import Lane
from hyperlax.report.comparison import verdicts
from hyperlax.report.findings import comparison_findings, findings
from hyperlax.report.leaderboard import leaderboard, tied
from hyperlax.report.scores import ranked, scores
from hyperlax.run.best import BEST_POLICIES, BestPolicies
from hyperlax.storage.store import Store


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
