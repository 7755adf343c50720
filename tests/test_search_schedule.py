"""A search asks when there is room, tells once, never passes its total, and survives interruptions."""

from __future__ import annotations

import copy

import pytest
from fake_runner import FakeRunner
from optuna.trial import TrialState

import hyperlax
from hyperlax import searches
from hyperlax.searches import shared

RECIPE = hyperlax.Recipe(
    "ppo",
    "mlp",
    {"gamma": hyperlax.Uniform(0.9, 0.99), "epochs": hyperlax.Choice(1, 2)},
    only=True,
)


def prepare(n_trials=12, seeds=2, evaluations=4, **more):
    spec = searches.prepare(
        RECIPE, "gymnax.pendulum", n_trials=n_trials, seeds=seeds, evaluations=evaluations, **more
    )
    spec.schedule.owner = "a"
    return spec


def better_with_gamma(row, seed, step):
    return -1000 * (1 - row["gamma"]) + seed + step / 1e6


def trials(runner):
    return runner.schedule.study.trials()


def test_a_trial_is_told_the_interquartile_mean_of_its_seeds_ends():
    runner = FakeRunner(prepare(n_trials=3, seeds=5), better_with_gamma)
    runner.run()
    assert [t.state for t in trials(runner)] == [TrialState.COMPLETE] * 3
    for trial in trials(runner):
        ends = sorted(better_with_gamma(trial.params, seed, 1e6) for seed in range(5))
        assert trial.values == [pytest.approx(sum(ends[1:4]) / 3)]


def test_slots_are_never_idle_while_trials_are_left():
    """Three seeds on two slots: the next trial fills in as soon as one lane ends."""
    runner = FakeRunner(prepare(n_trials=10, seeds=3), better_with_gamma)
    runner.run()
    assert set(runner.occupied[:-3]) == {2}
    assert len(trials(runner)) == 10


@pytest.mark.parametrize("pruner", ["median", "asha", "hyperband"])
def test_a_pruned_trial_frees_all_its_slots_and_good_ones_live(pruner):
    """Lanes of a trial never stop at different milestones, whatever the number of slots."""
    for slots in (1, 2, 5):
        runner = FakeRunner(prepare(n_trials=24, seeds=3, pruner=pruner), better_with_gamma, slots)
        runner.run()
        states = [t.state for t in trials(runner)]
        assert set(states) == {TrialState.COMPLETE, TrialState.PRUNED}
        best = max(trials(runner), key=lambda t: t.params["gamma"])
        assert best.state is TrialState.COMPLETE
        for trial in trials(runner):
            lanes = [lane for lane in runner.lanes if lane.sample == trial.number]
            pruned = trial.state is TrialState.PRUNED
            assert {lane.status for lane in lanes} == {"pruned" if pruned else "done"}
            assert len({lane.env_steps for lane in lanes}) == 1


def test_pruning_saves_steps():
    steps = []
    for pruner in ("none", "asha"):
        runner = FakeRunner(prepare(n_trials=24, pruner=pruner), better_with_gamma)
        runner.run()
        steps.append(sum(lane.env_steps for lane in runner.lanes))
    assert steps[1] < 0.8 * steps[0]


def test_a_trial_that_diverges_scores_worst_and_its_other_lanes_stop():
    def breaks(row, seed, step):
        return None if row["epochs"] == 2 and seed == 1 else better_with_gamma(row, seed, step)

    runner = FakeRunner(prepare(n_trials=16, sampler="random", seeds=3), breaks, slots=1)
    runner.run()
    told = {t.number: t for t in trials(runner)}
    broken = [t for t in told.values() if t.params["epochs"] == 2]
    whole = [t for t in told.values() if t.params["epochs"] == 1]
    assert broken
    assert whole
    assert all(t.state is TrialState.COMPLETE for t in told.values())
    assert max(t.value for t in broken) < min(t.value for t in whole)
    first = [lane.status for lane in runner.lanes if lane.sample == broken[0].number]
    assert first == ["done", "diverged", "pruned"]
    assert {t.user_attrs["status"] for t in broken} == {"diverged"}


def test_when_every_trial_diverges_the_search_ends_with_finite_scores_and_no_best_one():
    runner = FakeRunner(prepare(n_trials=13), lambda row, seed, step: None)
    runner.run()
    assert {t.value for t in trials(runner)} == {-1230.0 - 1080.0}
    schedule = runner.schedule
    table = searches.outcome.trials_table(schedule.study.study, schedule.space, schedule.search.objectives)
    assert searches.outcome.best(table, schedule.search.objectives) == []


def test_a_sample_that_cannot_be_trained_gets_the_worst_score_and_a_reason(monkeypatch):
    spec = prepare(n_trials=6, sampler="random")
    add = spec.add

    def refuses(row):
        if row["epochs"] == 2:
            raise ValueError("too large")
        return add(row)

    monkeypatch.setattr(spec, "add", refuses)
    runner = FakeRunner(spec, better_with_gamma)
    runner.run()
    refused = [t for t in trials(runner) if t.params["epochs"] == 2]
    assert refused
    assert {t.user_attrs["why"] for t in refused} == {"too large"}
    assert {t.state for t in trials(runner)} == {TrialState.COMPLETE}


@pytest.mark.parametrize("pruner", ["none", "asha"])
@pytest.mark.parametrize("lost", [1, 4, 9])
def test_an_interrupted_search_ends_like_one_that_was_not(pruner, lost):
    """The checkpoint is `lost` segments older than the study; nothing is told twice, nothing is missing."""
    whole = FakeRunner(prepare(pruner=pruner), better_with_gamma)
    whole.run()
    first = FakeRunner(prepare(pruner=pruner), better_with_gamma)
    first.run(8)
    header = copy.deepcopy(first.checkpoint())
    for _ in range(lost):
        first.schedule.refill(first)
        first._fill()
        first._segment()
    told = {t.number: t.values for t in trials(first) if t.state.is_finished()}
    spec = prepare(pruner=pruner)
    spec.schedule.storage = first.schedule.storage
    again = FakeRunner(spec, better_with_gamma)
    again.restore(header)
    again.run()
    ended = trials(again)
    assert [t.number for t in ended] == list(range(12))
    assert all(t.state.is_finished() for t in ended)
    assert {n: ended[n].values for n in told} == told
    assert sorted(again.experiment.records) == list(range(12))
    assert all(lane.over for lane in again.lanes)
    if pruner == "none":
        assert [t.params for t in ended] == [t.params for t in trials(whole)]


def test_a_search_can_be_continued_to_a_larger_total():
    first = FakeRunner(prepare(n_trials=5), better_with_gamma)
    first.run()
    told = [t.values for t in trials(first)]
    spec = prepare(n_trials=9)
    spec.schedule.storage = first.schedule.storage
    again = FakeRunner(spec, better_with_gamma)
    again.restore(copy.deepcopy(first.checkpoint()))
    again.run()
    assert [t.number for t in trials(again)] == list(range(9))
    assert [t.values for t in trials(again)[:5]] == told
    assert spec.identity() == prepare(n_trials=5).identity()


def workers(tmp_path, n_trials, count=2, **more):
    url = f"sqlite:///{tmp_path}/study.db"
    made = []
    for name in "abc"[:count]:
        spec = prepare(n_trials=n_trials, storage=url, **more)
        spec.schedule.owner = name
        made.append(FakeRunner(spec, better_with_gamma))
        made[-1].schedule.begin(made[-1])
    return made


def turn(runner):
    runner.schedule.refill(runner)
    runner._fill()
    if runner.busy:
        runner._segment()


def test_processes_share_a_study_and_its_total(tmp_path):
    a, b = workers(tmp_path, 11)
    for _ in range(60):
        turn(a)
        turn(b)
    ended = trials(a)
    assert sum(t.state is TrialState.COMPLETE for t in ended) == 11
    assert {t.state for t in ended} <= {TrialState.COMPLETE, TrialState.FAIL}
    samples = [set(r.experiment.records) for r in (a, b)]
    assert not samples[0] & samples[1]
    assert min(map(len, samples)) >= 3
    assert len({tuple(t.params.values()) for t in ended}) == len(ended)


def test_of_processes_that_ask_for_the_last_trial_at_once_only_one_gets_it(tmp_path):
    a, b = (worker.schedule.study for worker in workers(tmp_path, 3))
    for study in (a, b):
        assert study.ask() is not None
    seen = a.trials

    def late():
        a.trials = seen
        old = [t for t in seen() if t.number < 2]
        assert b.ask() is not None
        return old

    a.trials = late
    assert a.ask() is None
    counted = [t for t in b.trials() if t.state in shared.COUNTED]
    assert len(counted) == 3


def test_trials_of_a_process_that_has_died_are_trained_by_another(tmp_path, monkeypatch):
    a, b = workers(tmp_path, 6)
    turn(a)
    mine = [t.params for t in trials(a)]
    assert mine
    monkeypatch.setattr(shared, "STALE_SECONDS", -1.0)
    for _ in range(60):
        turn(b)
    assert sum(t.state is TrialState.COMPLETE for t in trials(b)) == 6
    assert all(params in [t.params for t in trials(b) if t.state is TrialState.COMPLETE] for params in mine)
    header = copy.deepcopy(a.checkpoint())
    spec = prepare(n_trials=6, storage=f"sqlite:///{tmp_path}/study.db")
    spec.schedule.owner = "a"
    back = FakeRunner(spec, better_with_gamma)
    back.restore(header)
    back.run()
    assert {lane.status for lane in back.lanes} == {"pruned"}
    assert sum(t.state is TrialState.COMPLETE for t in trials(back)) == 6
