"""Predicted times are the planner's work estimates at measured rates, taken from the most similar cells."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest

from hyperlax import sweeps
from hyperlax.agents import costs
from hyperlax.experiments.execution import Execution
from hyperlax.programs import lockstep
from hyperlax.programs.plan import Machine, plan
from hyperlax.studies import prediction
from hyperlax.studies.prediction import BORROWED_WITHIN, MEASURED_WITHIN, Predictor, Rates, duration, predict

RATES = Rates(compilation=2.0, work=1e9, evaluation=1e-3)
SIZES = {"actor.width": 16, "critic.width": 16, "num_envs": 4, "rollout_length": 16}


def cell(recipe="ppo_mlp", env="gymnax.cartpole", left=1.0, how=Execution(), **settings):  # noqa: B008
    """A cell of three samples with the same sizes and two seeds, as `Predictor` takes it."""
    samples = [{"gamma": 0.9 + i / 100} for i in range(3)]
    fixed = SIZES if recipe == "ppo_mlp" else {"critic.width": 16, "num_envs": 4, "rollout_length": 4}
    about = {"seeds": 2, "total_timesteps": 640, "evaluations": 4, **settings}
    spec = sweeps.prepare(recipe, env, samples=samples, set=fixed, **about)
    s = spec.settings
    programs = plan(spec.trees, spec.env, s.total_timesteps, s.seeds, Machine(2, 1e9, 8.0))
    return spec, [replace(p, effort="full") for p in programs], how, left


@pytest.fixture
def two_devices(monkeypatch):
    monkeypatch.setattr(
        prediction.jax, "local_devices", lambda: [type("Device", (), {"platform": "cpu"})] * 2
    )


def test_seconds_are_work_over_rates(two_devices):
    """A hand-made count: 6 lanes of 10 cycles on two devices.

    Four evaluations and one of the final weights have at most 500 steps each.
    """
    work = cell()
    spec, (program,), _, _ = work
    found = predict(work, RATES, 2.0, set())
    tree = spec.trees[0]
    cycle = tree.work(tree.sizes(), program.caps, spec.env)[0]
    assert found.training == pytest.approx(6 * 10 * cycle / 1e9 / 2)
    assert found.evaluation == pytest.approx(6 * (4 + 1) * 500 * 1e-3 / 2)
    assert found.compilation == pytest.approx(2.0 * costs.compilation(program.caps, spec.env, False))
    assert found.seconds > found.training + found.evaluation + found.compilation


def test_sequential_lanes_use_one_device_and_finished_training_is_left_out(two_devices):
    whole = predict(cell(), RATES, 2.0, set())
    alone = predict(cell(how=Execution(sequential=True)), RATES, 2.0, set())
    assert (alone.training, alone.evaluation) == pytest.approx((2 * whole.training, 2 * whole.evaluation))
    part = predict(cell(left=0.25), RATES, 2.0, set())
    assert (part.training, part.compilation) == pytest.approx((whole.training / 4, whole.compilation))
    assert predict(cell(left=0.0), RATES, 2.0, set()).compilation == 0


def test_compilation_counts_for_the_first_cell_that_needs_the_program(two_devices):
    """Another environment or number of evaluation episodes needs another program, another mode does not."""
    compiled = set()
    works = [cell(), cell(how=Execution(sequential=True)), cell(env="gymnax.pendulum"), cell(eval_episodes=3)]
    seconds = [predict(w, RATES, 2.0, compiled).compilation for w in works]
    assert [s > 0 for s in seconds] == [True, False, True, True]


def test_little_optimised_programs_compile_faster_and_run_slower(two_devices):
    spec, (program,), how, left = cell()
    low = predict((spec, [replace(program, effort="low")], how, left), RATES, 2.0, set())
    full = predict((spec, [program], how, left), RATES, 2.0, set())
    assert low.compilation < full.compilation
    assert low.training > full.training


def test_rates_come_from_the_cell_its_family_or_others(monkeypatch):
    """New families and environments are measured first; when time is up, other cells use their rates."""
    rates = {"ppo_mlp": RATES, "dqn_mlp": replace(RATES, work=4e9)}
    order = []

    def calibrate(spec, programs, how):
        order.append((spec.recipe_name, spec.env_name))
        clock[0] += 20
        return rates[spec.recipe_name]

    clock = [0.0]
    monkeypatch.setattr(prediction, "calibrate", calibrate)
    monkeypatch.setattr(prediction, "_rates", {})
    monkeypatch.setattr(prediction.time, "perf_counter", lambda: clock[0])
    works = {
        "a": cell("ppo_mlp", "gymnax.cartpole", total_timesteps=64_000),
        "b": cell("ppo_mlp", "gymnax.acrobot"),
        "c": cell("dqn_mlp", "gymnax.acrobot"),
        "d": cell("dqn_mlp", "gymnax.mountain_car"),
    }
    predictor = Predictor(works)
    assert len(order) == predictor.measured == 2, "20 seconds each: the third would begin after 40"
    assert {name for name, _ in order} == {"ppo_mlp", "dqn_mlp"}
    assert len({env for _, env in order}) == 2
    found = {name: p for name, p in predictor.all().items() if not isinstance(p, str)}
    measured = {n for n, w in works.items() if (w[0].recipe_name, w[0].env_name) in order}
    assert {n: p.within for n, p in found.items()} == {
        n: MEASURED_WITHIN if n in measured else BORROWED_WITHIN for n in works
    }
    assert {n for n, p in found.items() if "~" in p.words()["predicted"]} == set(works) - measured
    for name, work in works.items():
        own = predict(work, rates[work[0].recipe_name], 2.0, set())
        assert found[name].training == pytest.approx(own.training), "of its own family"
    again = Predictor({n: works[n] for n in measured})
    assert (again.measured, len(order)) == (0, 2), "what was measured in this process is not measured again"


def test_a_mean_of_rates_is_geometric():
    assert dataclasses.astuple(Rates.mean([Rates(1.0, 1.0, 1.0), Rates(4.0, 100.0, 9.0)])) == pytest.approx(
        (2, 10, 3)
    )


def test_a_cell_that_cannot_be_measured_has_the_reason_instead_of_a_prediction(monkeypatch):
    def calibrate(spec, programs, how):
        raise MemoryError("one lane needs 9 MB")

    monkeypatch.setattr(prediction, "calibrate", calibrate)
    monkeypatch.setattr(prediction, "_rates", {})
    predictor = Predictor({"a": cell()})
    assert predictor.all() == {"a": "cannot be measured: one lane needs 9 MB"}
    assert "roughly 0 s in total" in predictor.summary()


def test_calibration_runs_the_cells_program(monkeypatch):
    """The rates are finite, and the compilation cache is restored."""
    monkeypatch.setattr(prediction, "RUN_SECONDS", 0.05)
    before = prediction.jax.config.values["jax_enable_compilation_cache"]
    spec, (program,), how, _ = cell()
    rates = prediction.calibrate(spec, [replace(program, effort="low")], how)
    assert 1e6 < rates.work < 1e14
    assert 0.05 < rates.compilation < 1000
    assert 1e-8 < rates.evaluation < 1
    assert prediction.jax.config.values["jax_enable_compilation_cache"] == before


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (3.14, "3.1 s"), (99, "99 s"), (600, "10 min"), (7200, "2.0 h"), (864000, "10 days")],
)
def test_durations_have_two_digits(seconds, words):
    assert duration(seconds) == words


def test_lanes_in_lockstep_take_the_predicted_cycles_of_the_slowest_slot(two_devices):
    """On accelerators the unit of work is a predicted second; four lanes of 10 cycles share two slots."""
    spec, _, how, left = cell()
    steps, seeds = spec.settings.total_timesteps, spec.settings.seeds
    (program,) = plan(spec.trees[:2], spec.env, steps, seeds, Machine.planned("gpu"))
    rates = Rates(compilation=2.0, work=0.5, evaluation=1e-3)
    rate = Machine.planned("gpu").rate
    for slots, cycles, per_device in ((4, 10, 2), (2, 20, 1)):
        found = predict((spec, [replace(program, slots=slots)], how, left), rates, 2.0, set())
        cycle = sum(lockstep.iteration_seconds(spec.trees[0], program.caps, spec.env, per_device, rate))
        assert found.training == pytest.approx(cycles * cycle / 0.5)
