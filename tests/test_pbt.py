"""Population-based training: donors worked out by hand, exact copies, and runs that resume bitwise."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import polars as pl
import pytest
from fake_runner import StillRunner

import hyperlax
from hyperlax import envs, sweeps
from hyperlax.agents import PPOHyperparams
from hyperlax.experiments.execution import Execution
from hyperlax.experiments.samples import Lane
from hyperlax.experiments.settings import Settings
from hyperlax.hyperparams import assign, values
from hyperlax.hyperparams.spaces import Choice, Integers, LogUniform, Uniform
from hyperlax.programs import train
from hyperlax.programs.plan import Machine
from hyperlax.report.lineage import ancestry, best_lane, explored, spans
from hyperlax.run.display import Display
from hyperlax.schedules import PBT, Verdict, load, pbt
from hyperlax.schedules.pbt import _draws, inherited
from hyperlax.storage.checkpoint import read_header

RECIPE = hyperlax.Recipe(
    "ppo",
    "mlp",
    space={
        "actor_lr": LogUniform(1e-4, 1e-2),
        "gamma": Uniform(0.9, 0.99),
        "epochs": Choice(1, 2),
        "num_envs": Choice(4, 8),
        "actor.width": Choice(8, 16),
        "critic.width": 8,
        "num_minibatches": 2,
        "rollout_length": 8,
    },
    only=True,
)
ARGUMENTS = {
    "recipe": RECIPE,
    "env": "gymnax.cartpole",
    "total_timesteps": 800,
    "seeds": 2,
    "eval_episodes": 2,
    "evaluations": 8,
}
ROWS = [
    {"actor_lr": 1e-3, "gamma": 0.95, "epochs": 1, "num_envs": 4, "actor.width": 8},
    {"actor_lr": 3e38, "gamma": 0.95, "epochs": 1, "num_envs": 4, "actor.width": 16},
    {"actor_lr": 2e-3, "gamma": 0.98, "epochs": 2, "num_envs": 8, "actor.width": 16},
    {"actor_lr": 5e-4, "gamma": 0.91, "epochs": 2, "num_envs": 4, "actor.width": 8},
]


def test_the_worst_quarter_copies_the_best_quarter():
    """Eight lanes, two at each end; ties by number; deterministic; never a lane that is no better."""
    scores = {0: 1.0, 1: 8.0, 2: 3.0, 3: 0.5, 4: 9.0, 5: 3.0, 6: 4.0, 7: 5.0}
    chosen = PBT().copies(1, 1, scores)
    assert set(chosen) == {0, 3}
    assert set(chosen.values()) <= {1, 4}
    assert chosen == PBT().copies(1, 1, dict(reversed(scores.items())))
    drawn = {tuple(PBT().copies(1, b, scores).values()) for b in range(40)}
    assert drawn == {(1, 1), (1, 4), (4, 1), (4, 4)}
    assert PBT(quantile=0.5).copies(1, 1, scores).keys() == {0, 2, 3, 5}
    assert PBT().copies(1, 1, {0: 2.0, 1: 2.0}) == {}
    assert PBT().copies(1, 1, {5: 2.0, 6: 1.0}) == {6: 5}


def test_every_draw_has_a_stream_of_its_own():
    """By seed, of up to 63 bits, barrier, lane, and what is drawn."""
    places = [(1, 1, 1, 0), (1 + 2**32, 1, 1, 0), (2, 1, 1, 0), (1, 2, 1, 0), (1, 1, 2, 0), (1, 1, 1, 1)]
    assert len({_draws(*place).random() for place in places}) == len(places)
    assert _draws(*places[0]).random() == _draws(*places[0]).random()


def test_diverged_lanes_are_always_replaced():
    scores = {0: None, 1: None, 2: None, 3: 1.0, 4: 2.0}
    assert PBT().copies(1, 1, scores) == {0: 4, 1: 4, 2: 4}
    assert PBT().copies(1, 1, {0: None, 1: 1.0}) == {0: 1}
    assert PBT().copies(1, 1, {0: None, 1: None}) == {}


class Fake(StillRunner):
    """Lanes whose copies are only noted."""

    def __init__(self, schedule, lanes):
        super().__init__(SimpleNamespace(settings=SimpleNamespace(seed=1)), schedule, lanes)
        self.copied = []
        schedule._copy = lambda _, lane, donor, barrier: self.note(lane, donor, barrier)

    def note(self, lane, donor, barrier):
        self.copied.append((lane.lane, donor.lane, barrier))
        reached, _ = self.schedule.waiting[lane.lane]
        self.schedule.waiting[lane.lane] = (reached, 0.0)

    def arrives(self, number, steps, value):
        lane = self.lanes[number]
        lane.env_steps = steps
        verdict = self.schedule.lost(self, lane) if value is None else self.schedule.judge(self, lane, value)
        lane.status = {Verdict.PAUSE: "paused", Verdict.PRUNE: "diverged"}.get(verdict, "running")
        self.schedule.refill(self)
        return lane.status


def begun(lanes=2, programs=(0, 0, 0, 0), **options):
    schedule = PBT(**options)
    schedule.barriers = [100, 200]
    found = [Lane(i, i, 0, program=programs[i], status="running") for i in range(lanes)]
    return Fake(schedule, found)


def test_lanes_wait_for_the_others_of_their_population():
    runner = begun()
    assert runner.arrives(0, 60, 9.0) == "running"
    assert runner.arrives(0, 110, 2.0) == "paused"
    assert runner.arrives(1, 100, 1.0) == "queued"
    assert [lane.status for lane in runner.lanes] == ["queued", "queued"]
    assert runner.copied == [(1, 0, 1)]
    assert runner.arrives(1, 210, 5.0) == "paused"
    assert runner.arrives(0, 210, 4.0) == "queued"
    assert runner.copied[1:] == [(0, 1, 2)]
    assert runner.arrives(0, 250, 4.0) == "running", "no barrier is left"


def test_populations_of_other_programs_and_seeds_are_apart():
    runner = begun(4, (0, 0, 1, 1))
    runner.lanes[1].seed = 1
    assert runner.arrives(0, 100, 1.0) == "queued", "nobody else has its seed and program"
    assert runner.arrives(2, 100, 1.0) == "paused"
    assert runner.arrives(3, 100, 2.0) == "queued"
    assert runner.copied == [(2, 3, 1)]


@pytest.mark.parametrize(("steps", "copies"), [(588, True), (596, False)])
def test_a_lane_without_room_for_a_cycle_of_the_other_goes_on_unchanged(steps, copies):
    """The other trains 12 steps per cycle: to 600 of 600, and to 608, over 1 % above."""
    tree = assign(PPOHyperparams(), {"num_envs": 3, "rollout_length": 4})
    experiment = SimpleNamespace(settings=Settings(seed=1, total_timesteps=600))
    lanes = [Lane(i, i, 0, status="paused", env_steps=steps) for i in range(2)]
    schedule = PBT()
    schedule.waiting = {0: (1, 1.0), 1: (1, 2.0)}
    runner = StillRunner(experiment, schedule, lanes)
    runner.tree = lambda lane: tree
    assert schedule._has_room(runner, *lanes) == copies
    if not copies:
        schedule._copy(runner, lanes[0], lanes[1], 1)
        assert (lanes[0].env_steps, schedule.waiting[0]) == (steps, (1, 1.0))
    schedule.waiting[0] = (1, None)
    assert schedule._has_room(runner, *lanes), "a diverged lane goes on from the steps of the other"


def test_a_copy_stays_within_the_capacities_of_its_program(monkeypatch):
    """Of 1 to 8 epochs the program has room for as many as its samples have."""
    schedule = PBT(resample=1.0)
    spec = sweeps.prepare(
        hyperlax.Recipe("ppo", "mlp", {**RECIPE.space, "epochs": Integers(1, 8)}, only=True),
        "gymnax.cartpole",
        samples=[{**ROWS[0], "epochs": 2}] * 2,
        seeds=2,
        total_timesteps=800,
        schedule=schedule,
    )
    lanes = [Lane(i, 0, i, status="paused", env_steps=100) for i in range(2)]
    runner = StillRunner(spec, schedule, lanes)
    runner.programs = sweeps.plan(spec.trees, spec.env, 800, 2, Machine.planned("cpu"))
    runner.parked = {0: None, 1: None}  # type: ignore[dict-item]
    made = []
    monkeypatch.setattr(pbt, "inherited", lambda previous, state, tree, again: made.append(tree))
    schedule.explored = {"epochs": Integers(1, 8)}
    for barrier in range(1, 31):
        schedule.waiting = {0: (barrier, 1.0), 1: (barrier, 2.0)}
        schedule._copy(runner, lanes[0], lanes[1], barrier)
    epochs = [values(tree)["epochs"] for tree in made]
    assert set(epochs) == {1, 2}


def test_a_lane_that_jumps_over_a_barrier_waits_at_the_next():
    runner = begun()
    assert runner.arrives(0, 210, 9.0) == "paused"
    assert runner.arrives(1, 100, 1.0) == "queued"
    assert runner.lanes[0].status == "paused"
    runner.lanes[1].status = "running"
    assert runner.arrives(1, 200, 10.0) == "queued"
    assert runner.lanes[0].status == "queued"
    assert runner.copied == [(1, 0, 1), (0, 1, 2)]


def test_diverged_lanes_wait_to_be_replaced_or_are_over():
    runner = begun()
    assert runner.arrives(0, 50, None) == "paused"
    assert runner.arrives(1, 100, 1.0) == "queued"
    assert runner.copied == [(0, 1, 1)]
    assert runner.lanes[0].status == "queued"
    for lane in (0, 1):
        runner.lanes[lane].status = "running"
        runner.arrives(lane, 150, None)
    assert [lane.status for lane in runner.lanes] == ["diverged", "diverged"], "nobody is left to copy"
    late = begun()
    late.schedule.passed = {(0, 0): 2}
    assert late.arrives(0, 300, None) == "diverged"


def test_waiting_survives_an_interruption():
    runner = begun()
    runner.arrives(0, 110, 2.0)
    resumed = begun()
    resumed.lanes = runner.lanes
    resumed.schedule.restore(runner.schedule.state())
    assert resumed.arrives(1, 100, 1.0) == "queued"
    assert resumed.copied == [(1, 0, 1)]
    again = PBT()
    again.restore(resumed.schedule.state())
    assert (again.passed, again.waiting) == ({(0, 0): 1}, {})


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ({"samples": ROWS[:1]}, {}, "copies between samples and there is 1: --num-samples"),
        ({"evaluations": 1}, {}, "there are 0 .* --set evaluations=4"),
        (
            {"evaluations": 3},
            {"interval": 3},
            "there are 2 and scheduler.interval is 3: --set evaluations=12",
        ),
        ({"samples": [{"matrix": "A"}, {"matrix": "B"}]}, {}, "leave out --scheduler"),
    ],
)
def test_experiments_without_a_population_are_refused_with_the_fix(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        hyperlax.prepare(**{**ARGUMENTS, "samples": ROWS, **arguments}, schedule=PBT(**options))


def test_options_are_checked():
    assert load("pbt", {"interval": "2", "quantile": "0.2"}) == PBT(2, 0.2)
    for wrong in ({"interval": 0}, {"quantile": 0.6}, {"factor": 1}, {"resample": 1.5}):
        with pytest.raises(ValueError, match=f"scheduler.{next(iter(wrong))}"):
            load("pbt", wrong)
    with pytest.raises(ValueError, match="only within a program"):
        hyperlax.sweep(**ARGUMENTS, samples=ROWS, schedule=PBT(), execution=Execution(group_by_sizes=True))


# A copy by itself

ENV = envs.load("gymnax.cartpole")
HP = assign(PPOHyperparams(), {"num_envs": 3, "rollout_length": 4, "epochs": 2, "num_minibatches": 2})
HP = assign(
    HP, {f"{net}.{size}": n for net in ("actor", "critic") for size, n in (("width", 4), ("depth", 1))}
)
CAPS = HP.capacities([HP.sizes()], [1], ENV)


@jax.jit
def lane(hp, key):
    return train.start(hp, ENV, CAPS, jnp.int32(600), key=key, init_key=key)


@jax.jit
def trained(state, cycles):
    return train.segment(state, ENV, CAPS, cycles)


def bits(tree):
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


def test_a_copy_goes_on_exactly_as_its_donor_would_with_its_key_and_hyperparameters():
    hp = jax.tree.map(jnp.asarray, HP)
    own, donor = (trained(lane(hp, jr.key_data(jr.key(k))), jnp.int32(n)) for k, n in ((1, 4), (2, 6)))
    mine, donors = (jax.tree.map(np.asarray, state) for state in (own, donor))
    other = assign(donors.agent.hp, {"actor_lr": 2e-3, "epochs": 1})
    copy = inherited(mine, donors, other, False)
    counts = (own.key, own.env_steps, own.gradient_steps, own.cycles)
    told = eqx.tree_at(lambda s: (s.key, s.env_steps, s.gradient_steps, s.cycles), donor, counts)
    told = eqx.tree_at(
        lambda s: (s.agent.hp.actor_lr, s.agent.hp.epochs), told, (jnp.float32(2e-3), jnp.int32(1))
    )
    assert bits(trained(jax.tree.map(jnp.asarray, copy), 3)) == bits(trained(told, 3))
    same = inherited(donors, donors, donors.agent.hp, False)
    assert bits(trained(jax.tree.map(jnp.asarray, same), 3)) == bits(trained(donor, 3))
    assert int(copy.env_steps) == 4 * 12
    assert int(inherited(mine, donors, other, True).env_steps) == 6 * 12


# Whole runs


class Crash(Display):
    """Dies at the n-th evaluation."""

    def __init__(self, evaluations):
        self.left = evaluations

    def evaluated(self, lane, score):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def population(tmp_path_factory):
    how = Execution(folder=tmp_path_factory.mktemp("pbt") / "x", save_policies="all")
    return hyperlax.sweep(**ARGUMENTS, samples=ROWS, schedule=PBT(interval=2), execution=how)


@pytest.mark.slow
def test_an_interrupted_population_goes_on_bitwise_whatever_the_slots(population, tmp_path):
    """Killed between barriers and at one, one lane at a time; then continued on all cores."""
    for evaluation in (11, 17):
        how = Execution(folder=tmp_path / str(evaluation), checkpoint_seconds=0, sequential=evaluation == 11)
        with pytest.raises(KeyboardInterrupt):
            hyperlax.sweep(
                **ARGUMENTS, samples=ROWS, schedule=PBT(interval=2), execution=how, progress=Crash(evaluation)
            )
        last = max((tmp_path / str(evaluation) / "checkpoint").glob("state-*.bin"))
        assert read_header(last.read_bytes())["schedule"]
        resumed = hyperlax.sweep(
            **ARGUMENTS,
            samples=ROWS,
            schedule=PBT(interval=2),
            folder=tmp_path / str(evaluation),
            resume=True,
        )
        for table, keys in (
            ("lanes", ["lane"]),
            ("curves", ["lane", "metric", "env_steps"]),
            ("lineage", ["barrier", "lane", "hyperparameter"]),
        ):
            ours, theirs = (
                getattr(r, table).drop("seconds", strict=False).sort(keys) for r in (population, resumed)
            )
            assert ours.equals(theirs), table


def test_every_lane_arrives_and_the_diverged_ones_are_replaced(population):
    assert population.lanes["status"].to_list() == ["done"] * 8
    assert set(population.lanes["env_steps"]) == {768, 800}, "cycles of 64 and 128 do not divide 800"
    assert population.lanes["diverged_at"].null_count() == 8
    revived = population.lineage.filter(pl.col("score").is_null())
    assert set(revived["sample"]) == {1}
    assert set(revived["barrier"]) == {1}
    assert len(population.manifest["plan"]) == 1


def test_the_lineage_follows_from_the_scores(population):
    """Every copy replayed from the recorded returns: who was worst, who was best, per seed."""
    returns = population.curves.filter(pl.col("metric") == "return")
    events = population.lineage.unique(["lane", "barrier"]).sort("barrier", "lane")
    assert not events.is_empty()
    assert (events["barrier"] * 200 <= events["env_steps"]).all()
    for barrier in (1, 2, 3):
        for seed in (0, 1):
            here = returns.filter(pl.col("seed") == seed, pl.col("env_steps") >= 200 * barrier)
            scores = dict(here.sort("env_steps").group_by("lane").first().select("lane", "value").iter_rows())
            if barrier == 1:
                scores[2 + seed] = None
            found = events.filter(pl.col("barrier") == barrier, pl.col("seed") == seed)
            expected = PBT(interval=2).copies(42, barrier, scores)
            assert dict(found.select("lane", "parent").iter_rows()) == expected


def test_hyperparameters_are_inherited_and_only_the_explored_ones_perturbed(population):
    assert explored(population) == ["actor_lr", "gamma", "epochs"]
    every = spans(population)
    for event in population.lineage.unique(["lane", "barrier"]).iter_rows(named=True):
        own = population.lineage.filter(pl.col("lane") == event["lane"])["barrier"].unique().sort().to_list()
        child = every[event["lane"]][own.index(event["barrier"]) + 1].hyperparameters
        parent = [s for s in every[event["parent"]] if s.start < event["env_steps"]][-1].hyperparameters
        for name, value in child.items():
            if name == "actor_lr":
                ratio = float(value) / float(parent[name])
                assert ratio == pytest.approx(1.2, rel=1e-5) or ratio == pytest.approx(1 / 1.2, rel=1e-5)
            elif name == "gamma":
                assert RECIPE.space["gamma"].contains(float(value))
            elif name != "epochs":
                assert value == parent[name], name


def test_policies_carry_the_hyperparameters_they_ended_with(population):
    every = spans(population)
    for lane_number, history in every.items():
        policy = hyperlax.load(population.folder / "policies" / f"lane-{lane_number:05d}.policy")
        found = {k: str(v) for k, v in policy.header["hyperparams"].items()}
        assert found == history[-1].hyperparameters
        hp: Any = policy.agent.hp
        assert int(hp.actor.width) == int(history[-1].hyperparameters["actor.width"])
    best = best_lane(population)
    assert best is not None
    line = ancestry(population, best)
    assert [span.start for span in line[1:]] == [span.end for span in line[:-1]]
    assert line[0].start == 0


def test_the_report_shows_who_copied_whom(population, tmp_path):
    from hyperlax.report import write_report

    page = write_report(population, tmp_path / "report.html").read_text()
    assert "Population-based training" in page
    assert "Hyperparameters are initial values" in page
    assert 'data-chart="lineage"' in page
    assert 'data-chart="hyperparameter_schedules"' in page


def test_a_population_is_not_confirmed(population):
    with pytest.raises(ValueError, match="leave out --confirm"):
        hyperlax.confirm(population)
