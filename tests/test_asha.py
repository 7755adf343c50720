"""Successive halving: rungs worked out by hand, decisions by the rule, and whole runs."""

from __future__ import annotations

import polars as pl
import pytest
from fake_runner import StillRunner

import hyperlax
from hyperlax import Recipe
from hyperlax.experiments.execution import Execution
from hyperlax.experiments.samples import Lane
from hyperlax.experiments.settings import Settings
from hyperlax.run.display import Display
from hyperlax.run.slots import Slots
from hyperlax.schedules import ASHA, Verdict, load
from hyperlax.schedules.asha import among_best, rungs
from hyperlax.schedules.base import decisions
from hyperlax.storage.results import Results
from hyperlax.testing.schedules import SIZES

ARGUMENTS = {
    "recipe": Recipe("ppo", "mlp", SIZES, only=True),
    "env": "gymnax.cartpole",
    "total_timesteps": 600,
    "seeds": 2,
    "eval_episodes": 2,
    "evaluations": 6,
}
ROWS = [{"gamma": 0.9 + i / 100} for i in range(9)]


@pytest.mark.parametrize(
    ("marks", "factor", "minimum", "expected"),
    [
        ([100, 200, 300, 400, 500, 600, 700, 800], 3, 0, [100, 300]),
        ([100, 200, 300, 400, 500, 600, 700, 800], 2, 150, [200, 300, 600]),
        ([100, 200], 1.1, 0, [100, 200]),
        ([100, 200], 3, 201, []),
        ([], 3, 0, []),
    ],
)
def test_rungs_are_at_the_first_evaluations_from_the_powers_of_eta_on(marks, factor, minimum, expected):
    assert rungs(marks, factor, minimum) == expected


def test_the_end_and_the_start_are_no_rungs():
    settings = Settings(total_timesteps=900, evaluations=9, eval_at_start=True)
    assert decisions(settings) == [100, 200, 300, 400, 500, 600, 700, 800]


def test_samples_continue_if_they_are_among_the_best_third_so_far():
    """Worked by hand for η = 3: the first two go on, then one, one, one, two, two, two and three of n."""
    scores, went_on = [], []
    for score in [5.0, 1.0, 3.0, 6.0, 5.5, 5.9, 5.7, 7.0, 6.5]:
        scores.append(score)
        went_on.append(among_best(scores, 3))
    assert went_on == [True, True, False, True, False, True, False, True, True]
    assert among_best([5.0, 5.0, 5.0], 3), "nobody was better"


class Fake(StillRunner):
    """Lanes, and how they end."""

    def __init__(self, schedule, samples, seeds):
        lanes = [Lane(i * seeds + s, i, s, status="running") for i in range(samples) for s in range(seeds)]
        super().__init__(None, schedule, lanes)
        self.ended = []

    def end(self, lane, status):
        super().end(lane, status)
        self.ended.append(lane.lane)

    def arrives(self, number, steps, value):
        """What a real runner does with a lane at an evaluation."""
        lane = self.lanes[number]
        lane.env_steps, lane.status = steps, "running"
        if self.schedule.judge(self, lane, value) is Verdict.PAUSE:
            lane.status = "paused"
        self.schedule.refill(self)
        return lane.status


def begun(seeds=2, samples=4):
    schedule = ASHA(reduction_factor=2)
    schedule.rungs = [100, 200, 400]
    return Fake(schedule, samples, seeds)


def test_a_sample_waits_for_its_seeds_and_is_judged_by_their_mean():
    runner = begun()
    assert runner.arrives(0, 100, 9.0) == "paused"
    assert runner.arrives(1, 100, 1.0) == "queued"
    assert runner.arrives(2, 100, 2.0) == "paused"
    assert runner.arrives(3, 100, 4.0) == "pruned", "3 is less than 5, although its first seed alone is not"
    assert runner.ended == [2, 3]
    assert runner.arrives(4, 100, 4.0) == "paused"
    assert runner.arrives(5, 100, 7.0) == "queued"
    assert [lane.status for lane in runner.lanes] == ["queued"] * 2 + ["pruned"] * 2 + ["queued"] * 2 + [
        "running"
    ] * 2


def test_evaluations_between_rungs_decide_nothing_and_a_rung_decides_once():
    runner = begun(seeds=1)
    assert runner.arrives(0, 50, 0.0) == "running"
    assert runner.arrives(0, 100, 0.0) == "queued"
    assert runner.arrives(0, 150, 0.0) == "running"
    assert runner.schedule.means == {0: {0: 0.0}}


def test_a_long_cycle_is_judged_at_all_the_rungs_it_passes():
    runner = begun(seeds=1)
    runner.arrives(0, 100, 5.0)
    runner.arrives(0, 200, 8.0)
    assert runner.arrives(1, 250, 7.0) == "pruned"
    assert runner.schedule.means == {0: {0: 5.0, 1: 7.0}, 1: {0: 8.0, 1: 7.0}}


def test_samples_are_judged_in_their_order_whoever_arrives_first():
    runner = begun(seeds=1)
    assert runner.arrives(1, 100, 9.0) == "paused"
    assert runner.arrives(0, 100, 5.0) == "queued"
    assert runner.lanes[1].status == "queued"
    assert list(runner.schedule.means[0].items()) == [(0, 5.0), (1, 9.0)]


def test_samples_do_not_wait_for_seeds_that_are_over():
    runner = begun()
    runner.lanes[0].status = "diverged"
    assert runner.arrives(1, 100, 3.0) == "queued"
    assert runner.schedule.means == {0: {0: 3.0}}


def test_the_order_of_seeds_changes_nothing_and_the_state_survives():
    runner, other = begun(), begun()
    for number, value in ((0, 9.0), (1, 1.0), (2, 2.0)):
        runner.arrives(number, 100, value)
    for number, value in ((1, 1.0), (0, 9.0), (2, 2.0)):
        other.arrives(number, 100, value)
    resumed = begun()
    resumed.lanes = runner.lanes
    resumed.schedule.restore(runner.schedule.state())
    assert resumed.schedule.means == other.schedule.means == runner.schedule.means
    assert resumed.arrives(3, 100, 4.0) == "pruned"


def test_lanes_with_fewest_steps_come_first():
    schedule = ASHA()
    lanes = [Lane(0, 0, 0, env_steps=300), Lane(1, 1, 0), Lane(2, 2, 0, env_steps=100)]
    assert [lane.lane for lane in sorted(lanes, key=lambda lane: schedule.order(lane, 1.0))] == [1, 2, 0]
    assert not schedule.started_first


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ({"evaluations": 1}, {}, "there is none: --set evaluations=9"),
        ({"samples": ROWS[:1]}, {}, "compares samples and there is 1"),
        ({}, {"minimum": 501}, "minimum=501 lies beyond .* at 500"),
        ({"samples": [{"matrix": m, **ROWS[0]} for m in "AB"]}, {}, "leave out --scheduler"),
    ],
)
def test_experiments_that_cannot_be_halved_are_refused_with_the_fix(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        hyperlax.prepare(**{**ARGUMENTS, "samples": ROWS, **arguments}, schedule=ASHA(**options))


def test_options_are_checked_and_may_be_text():
    assert load("asha", {"reduction_factor": "4", "minimum": "100"}) == ASHA(4.0, 100)
    for options, message in (
        ({"reduction_factr": 3}, 'did you mean "scheduler.reduction_factor"'),
        ({"minimum": "few"}, "scheduler.minimum needs an integer"),
        ({"reduction_factor": 1}, "must be above 1"),
        ({"minimum": -1}, "scheduler.minimum must be at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            load("asha", options)
    with pytest.raises(ValueError, match='did you mean "asha"'):
        load("ashas", {})


class Crash(Display):
    """Dies at the n-th evaluation."""

    def __init__(self, evaluations):
        self.left = evaluations

    def evaluated(self, lane, score):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_errors_of_lanes_that_are_not_tried_again_survive_that_a_run_is_continued(tmp_path, monkeypatch):
    def advance(self, clock):
        raise RuntimeError("injected")

    given = {**ARGUMENTS, "samples": ROWS[:2], "schedule": ASHA(), "folder": tmp_path / "x"}
    with monkeypatch.context() as patch:
        patch.setattr(Slots, "advance", advance)
        broken = hyperlax.sweep(**given)
    resumed = hyperlax.sweep(**given, resume=True)
    assert set(resumed.lanes["status"]) == {"failed"}
    noted = resumed.manifest["timings"]
    assert noted["errors"] == {str(lane): "injected" for lane in range(4)}
    assert noted["programs"] == broken.manifest["timings"]["programs"] != []


@pytest.fixture(scope="module")
def halved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("asha") / "x"
    return hyperlax.sweep(**ARGUMENTS, samples=ROWS, schedule=ASHA(), folder=folder)


def test_samples_are_stopped_as_their_recorded_curves_imply(halved):
    """Replayed from what was recorded: rungs at 100 and 300 steps, samples in the order they train in."""
    returns = halved.curves.filter(pl.col("metric") == "return")
    expected = {}
    for rung in (100, 300):
        here = returns.filter(pl.col("env_steps") >= rung).sort("env_steps").group_by("lane").first()
        means = dict(here.group_by("sample").agg(pl.col("value").mean()).sort("sample").iter_rows())
        scores = []
        for sample, score in means.items():
            scores.append(score)
            if not among_best(scores, 3):
                expected[sample] = rung
    ended = halved.lanes.group_by("sample").agg(pl.col("env_steps").max(), pl.col("status").first())
    for sample, steps, status in ended.iter_rows():
        assert status == ("pruned" if sample in expected else "done")
        assert steps < 576 if sample in expected else steps == 576, "600 is not a multiple of 32"
    assert {"pruned", "done"} == set(halved.lanes["status"])
    assert len(list((halved.folder / "policies").iterdir())) <= (halved.lanes["status"] == "done").sum()


def test_an_interrupted_run_stops_the_same_samples(halved, tmp_path):
    how = Execution(folder=tmp_path / "x", checkpoint_seconds=0, sequential=True)
    with pytest.raises(KeyboardInterrupt):
        hyperlax.sweep(**ARGUMENTS, samples=ROWS, schedule=ASHA(), execution=how, progress=Crash(14))
    resumed = hyperlax.sweep(**ARGUMENTS, samples=ROWS, schedule=ASHA(), folder=tmp_path / "x", resume=True)
    for table in ("lanes", "curves"):
        keys = ["lane", "metric", "env_steps"] if table == "curves" else ["lane"]
        ours, theirs = (getattr(r, table).drop("seconds").sort(keys) for r in (halved, resumed))
        assert ours.equals(theirs), table
    with pytest.raises(ValueError, match=r"schedule: .*asha.* in the folder, None asked for"):
        hyperlax.sweep(**ARGUMENTS, samples=ROWS, folder=tmp_path / "x", resume=True)


def test_the_picture_counts_who_went_on(halved):
    from hyperlax.report.charts.schedules import pruned_at_rungs

    rows = next(iter(pruned_at_rungs(halved).to_dict()["datasets"].values()))
    labels = {row["label"] for row in rows}
    stopped = {row["sample"] for row in rows if row["fate"] == "stopped"}
    assert stopped == set(halved.lanes.filter(pl.col("status") == "pruned")["sample"])
    assert any(label.startswith("100 steps: ") and label.endswith(" of 9 continued") for label in labels)
    assert any(label.startswith("the end: ") for label in labels)


def test_the_picture_of_very_many_samples_shows_some_of_them_and_says_so():
    from report_data import synthetic

    from hyperlax.report.charts.schedules import pruned_at_rungs

    few = synthetic(samples=2, seeds=1, evaluations=4, diverged=(), budget=4_000)
    count, last = 3_500, 3
    curves = pl.DataFrame(
        {
            "lane": (lanes := [i for i in range(count) for _ in range(4 if i % 1_000 == 1 else 2)]),
            "sample": lanes,
            "env_steps": [1_000 * (k + 1) for i in range(count) for k in range(4 if i % 1_000 == 1 else 2)],
            "metric": ["return"] * len(lanes),
            "value": [float(lane) for lane in lanes],
        }
    )
    ended = [i % 1_000 == 1 for i in range(count)]
    table = pl.DataFrame({"lane": range(count), "sample": range(count)})
    table = table.with_columns(status=pl.Series(["done" if end else "pruned" for end in ended]))
    schedule = {"name": "asha", "reduction_factor": 2, "minimum": 1_000}
    halving = {**few.manifest, "identity": {"schedule": schedule}}
    spec = pruned_at_rungs(Results(halving, few.samples, table, curves)).to_dict()
    rows = next(iter(spec["datasets"].values()))
    shown = {row["sample"] for row in rows}
    assert spec["title"]["subtitle"][-1] == "Shown: 1 in 2 of 3500 samples."
    assert len(shown) == count // 2
    assert len(rows) <= 4_000
    assert {row["label"] for row in rows if row["fate"] == "continued"} >= {f"the end: {last + 1} samples"}
