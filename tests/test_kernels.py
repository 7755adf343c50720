"""A GPU launches few kernels for the programs, and nothing in a step makes the host wait for the device."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from hyperlax.experiments.samples import Lane

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
h100, hlo = (importlib.import_module(name) for name in ("h100", "hlo"))

BUDGETS: dict[tuple[str, int], dict[str, float]] = {
    ("ppo", 1): {
        "beside": 25,
        "env step": 5,
        "advantage step": 3,
        "gradient step": 16,
        "evaluation step": 5,
        "trips?": 0,
        "branches": 0,
        "whole cycle": 933,
    },
    ("ppo", 128): {
        "beside": 29,
        "env step": 6,
        "advantage step": 3,
        "gradient step": 21,
        "evaluation step": 6,
        "trips?": 0,
        "branches": 0,
        "whole cycle": 1113,
    },
    ("sac", 1): {"evaluation step": 5, "trips?": 0, "branches": 0, "whole cycle": 54},
    ("sac", 128): {"evaluation step": 5.5, "trips?": 0, "branches": 0, "whole cycle": 54},
    ("dqn", 1): {
        "gradient step": 19,
        "evaluation step": 6,
        "trips?": 0,
        "branches": 0,
        "whole cycle": 122,
    },
    ("dqn", 128): {
        "gradient step": 22,
        "evaluation step": 7.5,
        "trips?": 0,
        "branches": 0,
        "whole cycle": 137,
    },
}
"""Algorithm and lanes → the most that may be counted, as `benchmarks/kernels.py` does, with jax 0.10.2."""
if jax.__version_info__ >= (0, 11):  # weight matrices that a loop carries are not read as parts of a page
    BUDGETS["ppo", 1] |= {"beside": 28, "gradient step": 18, "whole cycle": 968}
    BUDGETS["ppo", 128] |= {"beside": 32, "gradient step": 22, "whole cycle": 1132}
    BUDGETS["sac", 128] |= {"whole cycle": 59}
if jax.__version_info__ >= (0, 12):
    BUDGETS["ppo", 128] |= {"gradient step": 21, "whole cycle": 1116}
    BUDGETS["sac", 128] |= {"whole cycle": 57}
CIRCUITS: dict[str, dict[str, float]] = {
    "4 wires × 5 layers, grouped": {"in all": 67, "in loops, per layer": 9.6, "trips?": 0, "branches": 0},
    "4 wires × 5 layers, fused": {"in all": 13, "in loops, per layer": 0, "trips?": 0, "branches": 0},
    "6 wires × 10 layers, grouped": {"in all": 107, "in loops, per layer": 8.8, "trips?": 0, "branches": 0},
    "6 wires × 10 layers, fused": {"in all": 12, "in loops, per layer": 0, "trips?": 0, "branches": 0},
    "12 wires × 15 layers, grouped": {"in all": 392, "in loops, per layer": 24.5, "trips?": 0, "branches": 0},
    "12 wires × 15 layers, fused": {"in all": 15, "in loops, per layer": 0, "trips?": 0, "branches": 0},
}
"""The same for value and gradient of a circuit."""
PUBLISHED: dict[str, dict[str, float]] = {
    "dqn_mlp on gymnax.cartpole": {"gradient step": 37, "trips?": 0, "branches": 0, "whole cycle": 220},
    "ppo_drpqc on gymnax.cartpole": {"gradient step": 18, "trips?": 0, "branches": 0, "whole cycle": 9_200},
    "ppo_drpqc on gymnax.reacher": {"gradient step": 29, "trips?": 0, "branches": 0, "whole cycle": 15_500},
    "ppo_mlp on gymnax.cartpole": {"gradient step": 27, "trips?": 0, "branches": 0, "whole cycle": 14_000},
    "ppo_tmlp on gymnax.cartpole": {"gradient step": 62, "trips?": 0, "branches": 0, "whole cycle": 32_000},
    "sac_mlp on gymnax.pendulum": {"gradient step": 80, "trips?": 0, "branches": 0, "whole cycle": 500},
}
"""The same for the first programs of cells of the published benchmark, however many lanes they hold."""
if jax.__version_info__ < (0, 11):  # eight env steps for four gradient steps: more in these shows
    PUBLISHED["sac_mlp on gymnax.pendulum"] |= {"whole cycle": 480}
UNSEEN = "no loop is recognised as one (ROLES in benchmarks/hlo.py)"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(h100.missing() is not None, reason=str(h100.missing()))
def test_programs_launch_no_more_kernels_than_budgeted(tmp_path):
    """Programs as planned for a GPU, compiled for an H100, which need not be here."""
    out = tmp_path / "kernels.json"
    command = [sys.executable, str(BENCHMARKS / "kernels.py"), "--planned", "gpu", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    programs = json.loads(out.read_text())["results"]["programs"]
    counted = {(p["name"], 0 if p["name"] in PUBLISHED else p["lanes"]): p["counts"] for p in programs}
    budgets = {**BUDGETS, **{(name, 1): budget for name, budget in CIRCUITS.items()}}
    budgets |= {(name, 0): budget for name, budget in PUBLISHED.items()}
    assert counted.keys() == budgets.keys()
    over = [
        f"{name}, {lanes} lanes, {what}: {counted[name, lanes].get(what, UNSEEN)}, budget {most}"
        for (name, lanes), budget in budgets.items()
        for what, most in budget.items()
        if counted[name, lanes].get(what, float("inf")) > most
    ]
    assert not over, "\n".join([*over, done.stdout])


def program(body: str, condition: str = "", trips: int | None = None) -> str:
    """A program with a loop whose computations hold the given lines, and a kernel on either side of it."""
    known = f', backend_config={{"known_trip_count":{{"n":"{trips}"}}}}' if trips else ""
    return f"""HloModule jit_f, is_scheduled=true

%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {{
  %p = (s32[], f32[4]{{0}}) parameter(0)
{body}
  ROOT %t = (s32[], f32[4]{{0}}) tuple(%i, %x)
}}

%condition (p: (s32[], f32[4])) -> pred[] {{
  %q = (s32[], f32[4]{{0}}) parameter(0)
{condition}
}}

ENTRY %main (x: f32[4]) -> f32[4] {{
  %x.1 = f32[4]{{0}} parameter(0)
  %first = f32[4]{{0}} fusion(%x.1), kind=kLoop, calls=%c, backend_config={{"kind":"__triton"}}
  %w = (s32[], /*index=1*/f32[4]{{0:T(128)}}) while(%t.1), condition=%condition, body=%body{known}
  %y = f32[4]{{0}} get-tuple-element(%w), index=1
  ROOT %last = f32[4]{{0}} custom-call(%y), custom_call_target="cublas$gemm"
}}
"""


def test_only_what_is_launched_counts():
    """Tuples, parameters, memory that is not filled and the second half of an asynchronous copy are free."""
    text = program(
        """
  %x = f32[4]{0} get-tuple-element(%p), index=1
  %b = f32[2,2]{1,0} bitcast(%x)
  %e = f32[9]{0} custom-call(), custom_call_target="AllocateBuffer"
  %s = (f32[4]{0}, f32[4]{0}, u32[]) copy-start(%x)
  %d = f32[4]{0} copy-done(%s)
  %f = f32[4]{0} fusion(%d), kind=kInput, calls=%fused
""".strip("\n")
    )
    found = hlo.count(text)
    assert dict(found.kernels) == {"fusion triton": 1, "custom-call cublas$gemm": 1}
    (loop,) = found.loops
    assert dict(loop.kernels) == {"copy-start": 1, "fusion Input": 1}


@pytest.mark.parametrize(("trips", "total"), [(7, 2 + 7 * 1), (None, 2 + 5 * (1 + 2))])
def test_a_loop_of_unknown_length_also_launches_its_condition(trips, total):
    condition = "  %c.1 = pred[] compare(%n, %m), direction=LT\n  ROOT %r = pred[] copy(%c.1)"
    found = hlo.count(program("  %x = f32[4]{0} copy(%y)", condition, trips))
    assert found.loops[0].trips == trips
    assert found.total({found.loops[0].role: 5}) == total


@pytest.mark.parametrize(
    "attributes",
    ["true_computation=%short, false_computation=%long", "branch_computations={%short, %long}"],
)
def test_a_conditional_counts_as_its_longest_branch(attributes):
    branch = "%{} (x: f32[4]) -> f32[4] {{\n{}\n}}\n"
    copies = [f"  %c.{i} = f32[4]{{0}} copy(%x)" for i in range(3)]
    text = branch.format("short", copies[0]) + branch.format("long", "\n".join(copies))
    text += program(f"  %k = f32[4]{{0}} conditional(%pred, %x, %x), {attributes}")
    found = hlo.count(text)
    assert [b.own for b in found.loops[0].conditionals[0]] == [1, 3]
    assert found.branches() == 1
    assert found.total({}) == 2 + 3
    assert found.launches() == "2 + ? × (0 + 3?)"


def test_what_is_called_is_part_of_the_caller():
    text = "%inner (x: f32[4]) -> f32[4] {\n  ROOT %c = f32[4]{0} copy(%x)\n}\n" + program(
        "  %a = f32[4]{0} call(%x), to_apply=%inner\n  %b = f32[4]{0} call(%x), to_apply=%inner"
    )
    assert hlo.count(text).loops[0].own == 2


def test_a_text_without_an_entry_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.count("HloModule empty\n")


def compiled(function: Any, *arguments: Any) -> Any:
    """The region of a function compiled for the CPU: the text of the jax that is installed."""
    return hlo.count(jax.jit(function).lower(*arguments).compile().as_text())


def scanned(x: jax.Array, n: int) -> jax.Array:
    """A loop that XLA cannot simplify."""
    return jax.lax.scan(lambda c, _: (jnp.sin(c) @ c, None), x, None, n)[0]


def test_loops_are_recognised_by_their_scope():
    """A loop inside that has no name of its own does not inherit that of the loop around it."""

    def nested(x: jax.Array) -> jax.Array:
        def epoch_of(c: jax.Array, _: None) -> tuple[jax.Array, None]:
            return scanned(jnp.cos(c), 3), None

        with jax.named_scope("env_step"):
            x = scanned(x, 7)
        with jax.named_scope("epoch"):
            return jax.lax.scan(epoch_of, x, None, 5)[0]

    loops = compiled(nested, jnp.ones((8, 8))).loops
    assert [(x.role, x.trips) for x in loops] == [("env step", 7), ("epoch", 5)]
    assert [(x.role, x.trips) for x in loops[1].loops] == [("scanned", 3)]


def test_loops_are_recognised_by_functions():
    """By the one they are called in, and by the one that is their body."""

    def generalised_advantage(x: jax.Array) -> jax.Array:
        return scanned(x, 6)

    def _env_step(c: jax.Array, _: None) -> tuple[jax.Array, None]:
        return jnp.sin(c) @ c, None

    def both(x: jax.Array) -> jax.Array:
        return jax.lax.scan(_env_step, generalised_advantage(x), None, 9)[0]

    roles = {x.role: x.trips for x in compiled(both, jnp.ones((8, 8))).inside()}
    assert roles == {"advantage step": 6, "env step": 9}


def test_a_bound_that_is_an_argument_is_unknown():
    def collect(x: jax.Array, n: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, n, lambda i, c: jnp.sin(c) @ c, x)

    (loop,) = compiled(collect, jnp.ones((8, 8)), jnp.int32(3)).inside()
    assert (loop.role, loop.trips) == ("env step", None)


@pytest.fixture
def cells(monkeypatch):
    """The module of the short runs, with a clock that only `tick` moves."""
    module = importlib.import_module("cells")
    now = [100.0]

    def tick(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0], tick=tick))
    return module


@pytest.mark.parametrize(("slots", "seconds"), [(2, 100.0), (1, 150.0)])
def test_the_slowest_lane_or_the_slots_decide_how_long_a_program_takes(cells, slots, seconds):
    """A warm-up is not measured. The lanes take 100 s and 50 s: at the same time, or in one slot in turn."""
    lanes = [Lane(i, i, 0, status="running") for i in range(2)]
    watch = cells.Watch(10.0)
    watch.compiled(0, SimpleNamespace(slots=slots, trace_seconds=1.0, compile_seconds=2.0))
    for _ in range(3):  # fast, and without gradient steps
        cells.time.tick(0.1)
        for lane in lanes:
            lane.env_steps += 1000
        watch.update(lanes, 0.0)

    def segments() -> None:
        for _ in range(100):
            cells.time.tick(1.0)
            for lane, steps in zip(lanes, (100, 200), strict=True):
                lane.env_steps += steps
                lane.gradient_steps += steps // 10
            watch.update(lanes, 0.0)

    with pytest.raises(cells.EnoughError):
        segments()
    found = watch.result(10_000, [10, 10])
    assert found["seconds"] == pytest.approx(seconds)
    assert found["ms_per_cycle"] == pytest.approx(1e3 * 10 / 200)
    assert found["ms_per_gradient_step"] == pytest.approx(1e3 / 20)
    assert found["busy_share"] == pytest.approx(0.75)


def test_a_cell_that_was_cut_off_goes_on_with_its_next_program(cells, monkeypatch):
    """With `--resume`, `gpu.py` passes on what was measured, and `cells.py` sums up all of it."""
    gpu = importlib.import_module("gpu")
    measured = {"lanes": 2, "trace_seconds": 1.0, "compile_seconds": 2.0, "seconds": 3600.0}
    monkeypatch.setattr(cells.suites, "prepare", lambda *_: SimpleNamespace(
        settings=SimpleNamespace(total_timesteps=100, seeds=2), trees=[0, 0, 0], env=None
    ))  # fmt: skip
    monkeypatch.setattr(cells, "plan", lambda *_: ["first", "second", "third"])
    trained: list[str] = []
    monkeypatch.setattr(cells, "run_program", lambda _, name, *__: trained.append(name) or measured)
    cell = SimpleNamespace(recipe="ppo_mlp", env="gymnax.cartpole", skipped=None)

    def streamed(command: list[str], platform: str) -> Any:
        given = json.loads(command[command.index("--measured") + 1])
        yield from ({"program": {"cell": "x", **measured}} for _ in range(3 - len(given)))
        yield {"cells": [cells.run_cell(None, cell, 1.0, given)]}

    monkeypatch.setattr(gpu, "streamed", streamed)
    arguments = SimpleNamespace(rehearse=True, resume=True, seconds=None, cells=["*"], purejaxrl="", rejax="")
    monkeypatch.setattr(gpu.Bench, "_run_cells", lambda *_: {"names": ["ppo_mlp on gymnax.cartpole"]})
    whole = list(gpu.Bench(arguments, {}).cells())
    assert [row["program"] for row in whole] == ["1", "2", "3", "all"]
    assert trained == ["first", "second", "third"]
    trained.clear()
    kept = [{**row, "cell": "ppo_mlp on gymnax.cartpole"} for row in whole[:2]]
    resumed = list(gpu.Bench(arguments, {"cells": kept}).cells())
    assert trained == ["third"]
    assert [row["program"] for row in resumed] == ["1", "2", "3", "all"]
    assert resumed[-1]["hours"] == whole[-1]["hours"] == 3


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_measurements_for_gpus_can_be_rehearsed(tmp_path):
    """Every measurement yields its rows on a CPU."""
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--rehearse", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    stored = json.loads(out.read_text())
    assert {"machine", "versions", "git_commit", "gpus"} <= stored.keys()
    rows = stored["results"]
    assert [(r["algorithm"], r["hyperlax wall"] > 0) for r in rows["lanes"]] == [
        ("ppo", True),
        ("sac", True),
        ("dqn", True),
    ]
    assert rows["circuit"][0]["call_ms"] > 0
    assert all(row["whole cycle"] > 0 for row in rows["kernels"])
    assert [row["hours"] > 0 for row in rows["cells"]] == [True, True]
    assert [row["hours"] > 0 for row in rows["prediction"]] == [True, True]


@pytest.mark.skipif(jax.devices()[0].platform == "gpu", reason="there is a GPU")
def test_without_a_gpu_there_is_one_clear_line():
    command = [sys.executable, str(BENCHMARKS / "gpu.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "jax finds no NVIDIA GPU here; --rehearse runs this on the CPU, at tiny sizes\n"
