"""Schedules decide about lanes in training without influencing what they learn."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

import hyperlax
from hyperlax import Recipe
from hyperlax.schedules import Schedule, Verdict
from hyperlax.schedules.base import saved_state
from hyperlax.testing.schedules import SIZES

ARGUMENTS = {
    "recipe": Recipe("ppo", "mlp", SIZES, only=True),
    "env": "gymnax.cartpole",
    "total_timesteps": 700,
    "seeds": 2,
    "eval_episodes": 2,
    "evaluations": 3,
}
ROWS = [
    {"gamma": 0.9, "num_envs": 2, "rollout_length": 4},
    {"gamma": 0.95, "num_envs": 2, "rollout_length": 4},
    {"gamma": 0.99, "num_envs": 4, "rollout_length": 8},
]
KEYS = ["lane", "env_steps", "metric"]


class Grows(Schedule):
    """Admits the next sample when one is over."""

    grows = True
    at_once = 2

    def __init__(self):
        self.waiting, self.ends, self.training = list(ROWS), [], set()

    def describe(self):
        return {"rows": len(ROWS)}

    def trees_to_plan(self, experiment):
        return [experiment.base]

    def refill(self, runner):
        while self.waiting and len(self.training) < self.at_once:
            self.training |= {lane.lane for lane in runner.admit(self.waiting.pop(0))}

    def ended(self, runner, lane):
        self.training.discard(lane.lane)
        self.ends.append(lane.lane)


class Stops(Schedule):
    """Prunes the lanes of sample 0 at their first evaluation, and makes those of sample 1 wait at theirs."""

    def __init__(self):
        self.held = []

    def describe(self):
        return {"stops": 0}

    def judge(self, runner, lane, value):
        if lane.sample == 0:
            return Verdict.PRUNE
        if lane.sample == 1 and lane.lane not in self.held:
            self.held.append(lane.lane)
            return Verdict.PAUSE
        return Verdict.GO_ON

    def refill(self, runner):
        if all(lane.over or lane.status == "paused" for lane in runner.lanes):
            for lane in runner.lanes:
                if lane.status == "paused":
                    lane.status = "queued"


@pytest.fixture(scope="module")
def whole() -> hyperlax.Results:
    return hyperlax.sweep(**ARGUMENTS, samples=ROWS)


def returns(results: hyperlax.Results, samples: tuple[int, ...]) -> pl.DataFrame:
    kept = results.curves.filter(pl.col("metric").eq("return") & pl.col("sample").is_in(samples))
    return kept.sort(KEYS).select(*KEYS, "value")


def test_samples_added_while_it_runs_learn_what_they_learn_in_a_sweep(whole):
    schedule = Grows()
    grown = hyperlax.sweep(**ARGUMENTS, schedule=schedule)
    assert sorted(schedule.ends) == whole.lanes["lane"].to_list()
    assert grown.lanes["status"].to_list() == ["done"] * 6
    assert grown.samples.equals(whole.samples)
    a, b = returns(grown, (0, 1, 2)), returns(whole, (0, 1, 2))
    assert a.select(KEYS).equals(b.select(KEYS))
    first = pl.col("env_steps") < 300
    assert a.filter(first)["value"].to_list() == pytest.approx(b.filter(first)["value"].to_list(), rel=1e-3)


def test_a_lane_that_waits_goes_on_as_if_it_had_not_and_a_pruned_one_keeps_its_points(whole):
    stopped = hyperlax.sweep(**ARGUMENTS, samples=ROWS, schedule=Stops())
    assert stopped.lanes["status"].to_list() == ["pruned", "pruned", "done", "done", "done", "done"]
    assert returns(stopped, (1, 2)).equals(returns(whole, (1, 2)))
    first = returns(whole, (0,)).group_by("lane", maintain_order=True).first().sort("lane")
    assert returns(stopped, (0,)).select(first.columns).equals(first)


class AllWait(Schedule):
    """Makes every lane wait at its first evaluation until all have come, and counts how often it is asked."""

    def __init__(self):
        self.held, self.asked = set(), 0

    def judge(self, runner, lane, value):
        if lane.lane in self.held:
            return Verdict.GO_ON
        self.held.add(lane.lane)
        return Verdict.PAUSE

    def refill(self, runner):
        self.asked += 1
        if all(lane.status == "paused" for lane in runner.lanes):
            for lane in runner.lanes:
                lane.status = "queued"


def test_the_next_program_is_waited_for_while_all_lanes_of_the_last_one_wait():
    """Polling would keep a core busy and leave signals unanswered."""
    schedule = AllWait()
    results = hyperlax.sweep(
        **ARGUMENTS, samples=ROWS, schedule=schedule, execution=hyperlax.Execution(group_by_sizes=True)
    )
    assert len(results.manifest["plan"]) == 2
    assert results.lanes["status"].to_list() == ["done"] * 6
    segments = results.timeline.filter(pl.col("phase") == "train").height
    assert schedule.asked <= segments + 3


class Silent(Schedule):
    """Returns no verdict, and keeps what JSON cannot hold."""

    def __init__(self, kept):
        self.kept = kept

    def state(self):
        return {"kept": self.kept}


@pytest.mark.parametrize("verdict", [None, "prune", True])
def test_what_is_no_verdict_is_refused_with_class_and_method(verdict):
    with pytest.raises(ValueError, match=r"Silent\.judge returns .*; it must return Verdict\.GO_ON, "):
        Verdict.checked(verdict, Silent(0), "judge")


def test_the_state_of_a_schedule_holds_numbers_of_numpy_and_nothing_that_json_cannot():
    kept = {"best": np.float32(0.5), "counts": np.arange(2), "pairs": [(np.int64(1), None)]}
    assert saved_state(Silent(kept)) == {"kept": {"best": 0.5, "counts": [0, 1], "pairs": [[1, None]]}}
    assert json.loads(json.dumps(saved_state(Silent(kept)))) == saved_state(Silent(kept))
    for wrong, message in (({1, 2}, "an object of set at state"), ({(1, 2): 0}, r"the key \(1, 2\)")):
        with pytest.raises(ValueError, match=rf"Silent\.state\(\) returns .*{message}"):
            saved_state(Silent(wrong))


def test_a_state_that_cannot_be_saved_is_refused_before_anything_is_created(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(ValueError, match=r"Silent\.state\(\) returns an object of set"):
        hyperlax.sweep(**ARGUMENTS, schedule=Silent({1}), folder=folder)
    assert not folder.exists()
