"""Cycles in parts: lanes of one program for accelerators whose cycles hold different numbers of steps."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from snapshots import RECIPES, Kind, campaign

import hyperlax
from hyperlax import envs
from hyperlax.agents import DQNHyperparams, PPOHyperparams, costs
from hyperlax.agents.costs import whole
from hyperlax.hyperparams import assign, stack
from hyperlax.lanes.constants import tracing_for_accelerator
from hyperlax.lanes.masking import LANES
from hyperlax.programs import lockstep, train
from hyperlax.programs.plan import Machine, Program, plan
from hyperlax.programs.shared import Shared, shared_values
from hyperlax.programs.stored import stored_plan
from hyperlax.storage.files import write_atomically

ENV = envs.load("gymnax.cartpole")
RATE = 1e13
SMALL = {"rollout_length": 6, "actor.width": 3, "actor.depth": 1, "critic.width": 3, "critic.depth": 1}
OTHERS = ({"num_envs": 4, "epochs": 1}, {"num_envs": 3, "epochs": 2}, {"num_envs": 4, "epochs": 4})
SAMPLES: list[Any] = [
    assign(PPOHyperparams(), {**SMALL, **other, "num_minibatches": n})
    for n, other in zip((2, 3, 4), OTHERS, strict=True)
]
CYCLES = 5


def iterations(part: int | None) -> list[int]:
    caps = {} if part is None else {"steps_per_part": part}
    return [CYCLES * costs.iterations(hp.sizes(), caps) for hp in SAMPLES]


@cache
def functions(part: int | None) -> tuple[Any, Any]:
    """What begins a lane of each of `SAMPLES`, and what trains it for so many iterations.

    The step sizes may be others.
    """
    caps = whole(SAMPLES[0].capacities([hp.sizes() for hp in SAMPLES], [CYCLES] * len(SAMPLES), ENV))
    caps |= {} if part is None else {"steps_per_part": part}
    shared = Shared(shared_values(SAMPLES, ("actor_lr", "critic_lr")), once=True)

    def begin(hp: Any, key: Any) -> Any:
        state = train.start(hp, ENV, caps, jnp.int32(400), key=key, init_key=key)
        shared.find(hp, state)
        return state

    def segment(state: Any, count: Any) -> Any:
        return train.segment(state, ENV, caps, count, shared)

    return jax.jit(jax.vmap(begin, axis_name=LANES)), jax.jit(jax.vmap(segment, axis_name=LANES))


def trained(part: int | None, segments: list[list[int]], hps: list[Any] = SAMPLES) -> Any:
    """The state of a lane of each of `hps` after segments of so many iterations each."""
    begin, segment = functions(part)
    with tracing_for_accelerator():
        keys = jax.vmap(lambda i: jr.key_data(jr.key(i)))(jnp.arange(len(hps)))
        state = begin(jax.tree.map(jnp.asarray, stack(hps)), keys)
        for counts in segments:
            state = segment(state, jnp.asarray(counts, jnp.int32))
    return state


@pytest.mark.parametrize("part", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 16))])
def test_parts_of_any_length_learn_what_whole_cycles_do(part):
    """Lanes take 2, 6 and 16 gradient steps per cycle, so that parts end within and at the end of cycles."""
    expected = trained(None, [[CYCLES] * 3])
    assert [int(n) for n in expected.gradient_steps] == [10, 30, 80]
    every = iterations(part)
    found = trained(part, [every])
    assert not found.learning.part.any()
    learned = eqx.tree_at(lambda s: s.learning, found, None)
    for a, b in zip(jax.tree.leaves(learned), jax.tree.leaves(expected), strict=True):
        close = np.testing.assert_allclose if jnp.issubdtype(a.dtype, jnp.floating) else _equal
        close(a, b, rtol=1e-3, atol=1e-5)


def _equal(a: Any, b: Any, **_: float) -> None:
    np.testing.assert_array_equal(a, b)


def test_segments_may_end_within_cycles():
    """Bit for bit, wherever they end."""
    every, first, then = iterations(4), [1, 3, 6], [2, 0, 5]
    left = [n - a - b for n, a, b in zip(every, first, then, strict=True)]
    expected = trained(4, [every])
    for a, b in zip(jax.tree.leaves(trained(4, [first, then, left])), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_lane_that_stops_within_a_cycle_counts_the_cycles_before():
    found = trained(4, [[3, 3, 6]])
    assert [int(n) for n in found.cycles] == [3, 1, 1]
    assert [int(n) for n in found.learning.part] == [0, 1, 2]
    assert [int(n) for n in found.env_steps] == [3 * 24, 18, 24]
    assert [int(n) for n in found.gradient_steps] == [6, 6, 16]


def test_a_lane_that_diverges_stops_at_the_end_of_its_cycle():
    state = trained(4, [[2, 3, 5]])
    assert (np.asarray(state.diverged_at) == train.NEVER).all()
    spoiled = [assign(hp, {"actor_lr": 1e30, "critic_lr": 1e30}) for hp in SAMPLES]
    whole_cycles = trained(None, [[CYCLES] * 3], spoiled)
    parts = trained(4, [iterations(4)], spoiled)
    np.testing.assert_array_equal(parts.diverged_at, whole_cycles.diverged_at)
    assert (np.asarray(parts.diverged_at) > 0).any()
    np.testing.assert_array_equal(parts.env_steps, whole_cycles.env_steps)


def with_steps(n: int, **changes: Any) -> Any:
    return assign(PPOHyperparams(), {"num_minibatches": n, "epochs": 1, **changes})


def test_lanes_with_few_and_with_many_steps_share_a_program_without_waiting():
    """All take equally many gradient steps in all, and every eighth lane in few, long cycles."""
    samples = [with_steps(512, num_envs=512, rollout_length=2)]
    samples += [with_steps(64, num_envs=64, rollout_length=2)] * 7
    machine = Machine.planned("gpu")
    (program,) = plan(samples, ENV, 10**6, 2, machine, max_programs=1)
    assert program.caps["steps_per_part"] == 64
    assert [program.iterations(hp) for hp in samples] == [8] + [1] * 7
    assert program.useful_share > 0.95
    assert Program.restored(json.loads(json.dumps(program.describe()))).caps == program.caps
    waiting = {k: v for k, v in program.caps.items() if k != "steps_per_part"}
    undivided = replace(program, caps=waiting)
    assert program.work(samples[1], ENV) < undivided.work(samples[1], ENV) / 7
    assert program.work(samples[0], ENV) == pytest.approx(undivided.work(samples[0], ENV), rel=0.05)


@pytest.mark.parametrize(
    "samples",
    [
        [with_steps(64), with_steps(64, gamma=0.9)],
        [with_steps(8, rollout_length=128), with_steps(16, rollout_length=128)],
        [assign(DQNHyperparams(), {"update_to_data": 0.0, "epochs": n}) for n in (16, 256)],
    ],
    ids=["equal", "long-rollouts", "not-in-parts"],
)
def test_cycles_are_whole_where_parts_would_save_nothing(samples):
    for program in plan(samples, ENV, 10**6, 2, Machine.planned("gpu"), max_programs=1):
        assert "steps_per_part" not in program.caps
        assert {program.iterations(hp) for hp in samples} == {1}


def test_programs_for_a_cpu_take_whole_cycles():
    samples = [with_steps(n, num_envs=64, rollout_length=8) for n in (512, 64)]
    assert not any("steps_per_part" in p.caps for p in plan(samples, ENV, 10**6, 2, Machine.planned("cpu")))


def test_no_iteration_lasts_long():
    """Cycles that take seconds are divided although all lanes have the same."""
    slow = with_steps(2**15, num_envs=2**13, rollout_length=4)
    caps = whole(slow.capacities([slow.sizes()], [9], ENV))
    undivided = lockstep.iteration_seconds(slow, caps, ENV, 16, RATE)
    assert sum(undivided) > 2 * lockstep.LONGEST_ITERATION
    found = lockstep.parts(slow, caps, ENV, [(slow.sizes(), 9)] * 16, 1, RATE, 8)
    assert lockstep.LONGEST_ITERATION / 4 < sum(found.iteration) <= lockstep.LONGEST_ITERATION
    assert found.slots == 16


def test_an_agent_that_cannot_learn_in_parts_is_refused(monkeypatch):
    monkeypatch.setattr(DQNHyperparams, "learns_in_parts", True)
    hp: Any = DQNHyperparams()
    caps = {**whole(hp.capacities([hp.sizes()], [1], ENV)), "steps_per_part": 4}
    key = jnp.zeros(2, jnp.uint32)
    with pytest.raises(TypeError, match="learns_in_parts: ClassVar\\[bool\\] = False"):
        jax.eval_shape(lambda: train.start(hp, ENV, caps, jnp.int32(9), key=key, init_key=key))


LONG = (
    RECIPES
    + """
RECIPES["ppo"] = Recipe(
    "ppo", "mlp",
    {"actor_lr": RATE, **NETS, "num_envs": 4, "rollout_length": 4, "num_minibatches": Choice(2, 4, 8),
     "epochs": Choice(1, 2)},
    SETTINGS, only=True,
)
"""
)
LINE = (
    "sweep-hp-samples --algo-and-network-config recipes.py:ppo --env-config gymnax.cartpole --num-samples 6"
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a recipe whose cycles differ, planned as one program for accelerators."""
    monkeypatch.setenv("HYPERLAX_CACHE_DIR", str(Path(__file__).parents[1] / ".jax_cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "hyperlax.report.write_report", lambda results, path: write_atomically(path, "report")
    )
    monkeypatch.setattr(lockstep, "_divisions", lambda hp, caps: [4 if hp.learns_in_parts else None])
    machine = replace(Machine.of("gpu", 1), compile_seconds=1e6)
    monkeypatch.setattr(Machine, "planned", staticmethod(lambda platform: machine))
    (tmp_path / "recipes.py").write_text(LONG)
    return tmp_path


@pytest.mark.slow
def test_a_run_killed_within_cycles_ends_as_the_uninterrupted_one(place):
    kind = Kind(LINE, Path("recipes.py_ppo") / "gymnax.cartpole")
    taken, wrong = campaign(kind, place, 4, range(1, 1_000))  # the first one precedes all training
    assert taken >= 2
    assert not wrong, "\n".join(wrong)
    (about,) = hyperlax.read(place / "root" / kind.folder).manifest["plan"]
    assert about["accelerator"]
    assert about["caps"]["steps_per_part"] == 4
    lanes = hyperlax.read(place / "root" / kind.folder).lanes
    assert set(lanes["status"]) == {"done"}
    assert set(lanes["env_steps"]) == {96}


@pytest.mark.slow
def test_curves_are_those_of_whole_cycles(place, monkeypatch):
    kind = Kind(LINE, Path("recipes.py_ppo") / "gymnax.cartpole")
    kind.run(place / "root")
    monkeypatch.setattr(PPOHyperparams, "learns_in_parts", False)
    kind.run(place / "whole")
    found, expected = (hyperlax.read(place / name / kind.folder) for name in ("root", "whole"))
    assert "steps_per_part" in found.manifest["plan"][0]["caps"]
    assert "steps_per_part" not in expected.manifest["plan"][0]["caps"]
    of_time = ("seconds", "start", "end")
    assert found.lanes.drop(of_time, strict=False).equals(expected.lanes.drop(of_time, strict=False))
    order = ["lane", "env_steps", "metric"]
    ours, theirs = (r.curves.drop("seconds").sort(order) for r in (found, expected))
    assert ours.drop("value").equals(theirs.drop("value"))
    np.testing.assert_allclose(ours["value"], theirs["value"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("steps", "changes"),
    [(0, {}), (-4, {}), ("4", {}), ([4], {}), (4, {"accelerator": False})],
    ids=["zero", "negative", "text", "list", "on-a-cpu"],
)
def test_a_stored_plan_whose_parts_cannot_be_is_refused(steps, changes):
    samples = dict(enumerate(SAMPLES))
    (program,) = plan(SAMPLES, ENV, 10_000, 1, Machine.planned("gpu"), max_programs=1)
    entry = json.loads(json.dumps(program.describe()))
    entry["caps"]["steps_per_part"] = 4
    (read,) = stored_plan([entry], samples, SAMPLES[0], ENV, 2**30)
    assert read.iterations(SAMPLES[2]) == 4
    entry = {**entry, **changes, "caps": {**entry["caps"], "steps_per_part": steps}}
    with pytest.raises(ValueError, match=r"stored plan of programs cannot be used.*part"):
        stored_plan([entry], samples, SAMPLES[0], ENV, 2**30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entry: {"samples": entry["samples"][1:]}, "every sample once"),
        (lambda entry: {"samples": [*entry["samples"], 0]}, "every sample once"),
        (lambda entry: {"caps": {**entry["caps"], "minibatch_chunks": [1]}}, "minibatches into chunks"),
    ],
    ids=["lacking", "twice", "chunks"],
)
def test_a_stored_plan_that_would_train_something_else_is_refused(change, message):
    samples = dict(enumerate(SAMPLES))
    (program,) = plan(SAMPLES, ENV, 10_000, 1, Machine.planned("gpu"), max_programs=1)
    entry = json.loads(json.dumps(program.describe()))
    with pytest.raises(ValueError, match=message):
        stored_plan([{**entry, **change(entry)}], samples, SAMPLES[0], ENV, 2**30)


def test_what_describes_a_program_need_not_have_been_text():
    (program,) = plan(SAMPLES, ENV, 10_000, 1, Machine.planned("gpu"), max_programs=1)
    assert Program.restored(program.describe()).caps == program.caps
