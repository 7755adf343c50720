"""Planning: which samples share a program."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hyperlax import envs
from hyperlax.agents import PPOHyperparams, costs
from hyperlax.envs.brax import BraxEnv
from hyperlax.experiments import recipes
from hyperlax.hyperparams import assign
from hyperlax.hyperparams.samplers import design
from hyperlax.lanes.sizes import Extent
from hyperlax.programs import lockstep
from hyperlax.programs.budget import cycles_of
from hyperlax.programs.plan import MAX_PROGRAMS, MAX_PROGRAMS_IN_LOCKSTEP, Machine, plan

PUBLISHED = "benchmarked.01_static_qmc_sampling_S64.ppo_mlp"
ENV = envs.load("gymnax.pendulum")
MACHINES = [Machine.of("cpu", 2), Machine.of("gpu", 1)]


def drawn(recipe, n, seed) -> list[Any]:
    base = recipes.resolve(recipe)
    return [assign(base.hyperparams(), s) for s in design(base.search_space(), n, "random", seed)]


def check(programs, samples):
    placed = sorted(i for p in programs for i in p.samples)
    assert placed == list(range(len(samples))), "every sample in exactly one program"
    for program in programs:
        assert 0 < program.useful_share <= 1
        assert all(program.holds(samples[i].sizes()) for i in program.samples)
        assert program.caps["env_blocks"] * program.caps["env_block"] >= program.caps["num_envs"]
        for i in program.samples:
            for name, size in samples[i].sizes().items():
                cap = program.caps[name]
                assert size <= cap, f"{name} of sample {i} does not fit"


@pytest.mark.parametrize("machine", MACHINES, ids=["cpu", "gpu"])
def test_every_sample_fits_into_exactly_one_program(machine):
    rng = np.random.default_rng(0)
    for recipe in ("ppo_mlp", "ppo_vec_mlp_lower_num_envs", PUBLISHED):
        samples = drawn(recipe, int(rng.integers(1, 24)), int(rng.integers(100)))
        check(plan(samples, ENV, int(rng.integers(1, 10**7)), int(rng.integers(1, 9)), machine), samples)


def test_capacities_are_no_larger_than_the_largest_sample():
    samples = drawn("ppo_mlp", 12, 3)
    for program in plan(samples, ENV, 10**6, 2, MACHINES[0]):
        for name in samples[0].sizes():
            sizes = [samples[i].sizes()[name] for i in program.samples]
            wanted = frozenset().union(*sizes) if isinstance(sizes[0], frozenset) else max(sizes)
            assert program.caps[name] == wanted, name


@pytest.mark.parametrize("most", [1, 2, 5])
def test_there_are_never_more_programs_than_allowed(most):
    samples = drawn(PUBLISHED, 20, 1)
    programs = plan(samples, ENV, 10**9, 4, Machine(1, 1e9, 0.0), max_programs=most)
    assert len(programs) <= most
    check(programs, samples)


def test_samples_of_one_size_share_one_program_without_padding():
    samples = [
        assign(PPOHyperparams(), {"gamma": 0.9 + i / 100, "actor_lr": 1e-4 * (i + 1)}) for i in range(9)
    ]
    for machine in MACHINES:
        (program,) = plan(samples, ENV, 10**6, 3, machine)
        assert program.useful_share == pytest.approx(1)
        check([program], samples)


def test_a_single_sample_has_no_padding():
    for samples in ([s] for s in drawn(PUBLISHED, 5, 2)):
        (program,) = plan(samples, ENV, 10**6, 1, MACHINES[0])
        assert program.useful_share == pytest.approx(1)


def test_the_published_design_is_planned_quickly_into_few_programs():
    recipe = recipes.resolve(PUBLISHED)
    samples = [assign(recipe.hyperparams(), s) for s in design(recipe.search_space(), 64, "qmc_sobol", 42)]
    plan(samples[:2], ENV, 5_000_000, 4, MACHINES[0])
    began = time.perf_counter()
    programs = plan(samples, ENV, 5_000_000, 4, MACHINES[0])
    seconds = time.perf_counter() - began
    assert len(programs) <= MAX_PROGRAMS
    assert seconds < 6, "3 s without the type checker"
    check(programs, samples)


@pytest.mark.slow
def test_on_an_accelerator_most_of_the_published_design_is_useful():
    """By steps of all slots, for lanes whose cycles hold from 128 to 2,048 gradient steps."""
    recipe, env = recipes.resolve(PUBLISHED), envs.load("gymnax.cartpole")
    samples = [assign(recipe.hyperparams(), s) for s in design(recipe.search_space(), 64, "qmc_sobol", 42)]
    programs = plan(samples, env, 5_000_000, 4, Machine.planned("gpu"))
    check(programs, samples)
    assert len(programs) <= MAX_PROGRAMS_IN_LOCKSTEP
    launched = []
    for program in programs:
        lanes = [samples[i] for i in program.samples for _ in range(4)]
        iterations = [cycles_of(5_000_000, x.sizes()) * program.iterations(x) for x in lanes]
        seconds = lockstep.training_seconds(samples[0], program.caps, env, iterations, program.slots, 1, 1e13)
        launched.append(program.slots * seconds.waiting)
    useful = sum(n * p.useful_share for n, p in zip(launched, programs, strict=True))
    assert useful >= 0.85 * sum(launched)


def test_programs_that_take_turns_are_few():
    machine = Machine.planned("gpu")
    assert machine.most(turns=True) == MAX_PROGRAMS < machine.most(turns=False)
    assert Machine.planned("cpu").most(turns=False) == MAX_PROGRAMS


def test_if_compilation_is_free_no_program_is_padded():
    """Every distinct architecture keeps a program of its own, as long as that is within the limit."""
    small, large = {"actor.width": 8, "critic.width": 8}, {"actor.width": 128, "critic.width": 128}
    samples = [assign(PPOHyperparams(), s) for s in (small, large, small, large)]
    programs = plan(samples, ENV, 10**7, 1, Machine(1, 1e9, 0.0))
    assert sorted(p.samples for p in programs) == [(0, 2), (1, 3)]
    (together,) = plan(samples, ENV, 10**4, 1, Machine(1, 1e12, 60.0))
    assert together.samples == (0, 1, 2, 3)
    assert together.useful_share < 1


def test_environments_that_are_slow_to_compile_and_to_step_share_optimised_programs(monkeypatch):
    samples = drawn("ppo_mlp", 8, 0)
    machine, steps = Machine.of("cpu", 2), 300_000
    simple = plan(samples, ENV, steps, 1, machine)
    monkeypatch.setattr(type(ENV), "compilation", 4.0)
    monkeypatch.setattr(type(ENV), "step_work", 2e6)
    costly = plan(samples, ENV, steps, 1, machine)
    check(costly, samples)
    assert len(costly) < len(simple)
    assert "low" in {p.effort for p in simple}
    assert {p.effort for p in costly} == {"full"}


def test_the_compilation_of_physics_weighs_less_for_an_accelerator(monkeypatch):
    """XLA compiles brax for an H100 in 30 s where CartPole takes 15 s; for a CPU it is 40 s against 11 s."""
    samples = drawn("ppo_mlp", 8, 0)
    (caps,) = (p.caps for p in plan(samples[:1], ENV, 300_000, 1, Machine.of("gpu", 1)))
    simple = [costs.compilation(caps, ENV, accelerator) for accelerator in (False, True)]
    assert simple[0] == simple[1], "units are those of the machine"
    monkeypatch.setattr(type(ENV), "compilation", BraxEnv.compilation)
    cpu, gpu = (costs.compilation(caps, ENV, accelerator) / simple[0] for accelerator in (False, True))
    assert gpu == pytest.approx(30 / 15, rel=0.15)
    assert cpu == pytest.approx(40 / 11, rel=0.4)


def test_a_program_holds_exactly_the_samples_that_fit_its_capacities():
    small, large = (assign(PPOHyperparams(), {"actor.width": w, "num_envs": w}) for w in (8, 16))
    relu = assign(PPOHyperparams(), {"actor.width": 8, "actor.activation": "gelu"})
    (program,) = plan([large], ENV, 10**6, 1, MACHINES[0])
    assert program.holds(large.sizes())
    assert program.holds(small.sizes())
    assert not program.holds(relu.sizes())
    (program,) = plan([small], ENV, 10**6, 1, MACHINES[0])
    assert not program.holds(large.sizes())
    first, second = drawn("ppo_tmlp", 10, 3)[:1], drawn("ppo_tmlp", 10, 3)
    (program,) = plan(first, ENV, 10**6, 1, MACHINES[0])
    others = [hp for hp in second if int(hp.actor.shape) != int(first[0].actor.shape)]
    assert others
    assert not any(program.holds(hp.sizes()) for hp in others)


def test_grouping_by_sizes_avoids_all_padding():
    samples = drawn("ppo_vec_mlp_lower_num_envs", 10, 4)
    sizes = lambda i: {k: v for k, v in samples[i].sizes().items() if isinstance(v, int)}  # noqa: E731
    programs = plan(samples, ENV, 10**6, 1, MACHINES[0], group_by_sizes=True)
    check(programs, samples)
    for program in programs:
        assert all(sizes(i) == sizes(program.samples[0]) for i in program.samples)


def test_the_longest_program_starts_first():
    samples = drawn(PUBLISHED, 16, 5)
    programs = plan(samples, ENV, 10**7, 1, MACHINES[0])
    cycles = [-(-(10**7) // (s.sizes()["num_envs"] * s.sizes()["rollout_length"])) for s in samples]
    work = [
        sum(samples[i].work(samples[i].sizes(), p.caps, ENV)[0] * cycles[i] for i in p.samples)
        for p in programs
    ]
    assert work == sorted(work, reverse=True)


def test_programs_are_described_in_json_and_equal_keys_mean_equal_code():
    samples = drawn("ppo_mlp", 6, 6)
    programs = plan(samples, ENV, 10**6, 1, MACHINES[0])
    for program in programs:
        assert json.loads(json.dumps(program.describe()))["samples"] == list(program.samples)
    again = plan(samples, ENV, 10**6, 1, MACHINES[0])
    assert [p.key for p in programs] == [p.key for p in again]
    first = programs[0]
    others = (
        {"caps": {**first.caps, "num_envs": Extent(first.caps["num_envs"] + 1)}},
        {"effort": "full" if first.effort == "low" else "low"},
        {"accelerator": True},
        {"shared": {"gamma": 0.5}},
    )
    assert len({first.key, *(replace(first, **other).key for other in others)}) == 5
    assert replace(first, samples=(), useful_share=0.5, slots=7).key == first.key


@pytest.mark.parametrize("most", [1, 8])
def test_shapes_that_cannot_be_padded_never_share_a_program(most):
    shapes = ("64=2^6", "64=8^2", "64=4^3", "8=2^3")
    either = [{"actor.shape": shapes[i % 4], "critic.shape": shapes[i // 4 % 3]} for i in range(12)]
    samples = [assign(s, e) for s, e in zip(drawn("ppo_tmlp", 12, 3), either, strict=True)]
    programs = plan(samples, ENV, 10**4, 1, Machine(1, 1e12, 60.0), max_programs=most)
    check(programs, samples)
    together = {tuple(sorted(p.samples)) for p in programs}
    by_local = {}
    for i, hp in enumerate(samples):
        by_local.setdefault((hp.sizes()["actor.local"], hp.sizes()["critic.local"]), []).append(i)
    assert together == {tuple(members) for members in by_local.values()}
    assert len(together) == 9, "of four shapes, two have the same local dimension"
