"""Benchmarks: cells are independent and repeatable, and a failed one does not stop the rest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hyperlax import store, sweeps
from hyperlax.cli import app
from hyperlax.execution import Execution
from hyperlax.recipes import resolve
from hyperlax.runner import Interrupted
from hyperlax.suites import Benchmark, Cell, Suite, cells, find
from hyperlax.terminal import Silent

SMALL = Suite(("ppo_mlp", "dqn_mlp"), ("gymnax.pendulum", "gymnax.cartpole"), samples=2, run_length="quick")


def benchmark(folder: Path, resume: bool = False, suite: Suite = SMALL, **settings) -> Benchmark:
    return Benchmark(suite, folder, "small", resume, **settings)


def quietly(cell: Cell, folder: Path) -> Silent:
    return Silent()


@pytest.fixture
def runs(monkeypatch):
    """The cells that were run: nothing is trained, an experiment is its manifest and samples."""
    seen: list[str] = []
    broken: dict[str, Exception] = {}

    def run(spec, how, progress, command=None):
        name = f"{spec.recipe_name} on {spec.env_name}"
        seen.append(f"{name}{' resumed' if how.resume else ''}{', one by one' if how.sequential else ''}")
        keeper = store.Store(how.folder)
        keeper.write_manifest({**spec.manifest(command), "plan": []})
        keeper.write_samples(spec.samples)
        if name in broken:
            raise broken[name]
        return store.read(how.folder)

    monkeypatch.setattr(sweeps, "run", run)
    return seen, broken


def test_every_combination_is_a_cell_and_impossible_ones_say_why():
    found = cells(SMALL)
    assert [c.name for c in found if c.skipped is None] == [
        "ppo_mlp on gymnax.pendulum, batched",
        "ppo_mlp on gymnax.cartpole, batched",
        "dqn_mlp on gymnax.cartpole, batched",
    ]
    (skipped,) = [c for c in found if c.skipped]
    assert skipped.name == "dqn_mlp on gymnax.pendulum, batched"
    assert "DQN needs discrete actions" in str(skipped.skipped)
    assert len({c.path for c in found}) == 4


def test_a_benchmark_runs_its_cells_once(tmp_path, runs):
    seen, _ = runs
    ended = benchmark(tmp_path / "b").run(Execution(), quietly)
    assert [e["status"] for e in ended.values()] == ["done", "done", "skipped", "done"]
    assert len(seen) == 3
    record = json.loads((tmp_path / "b" / "benchmark.json").read_text())
    assert record["cells"] == ended
    assert (tmp_path / "b" / "batched" / "ppo_mlp" / "gymnax.cartpole" / "report.html").exists()
    again = benchmark(tmp_path / "b", resume=True)
    again.run(Execution(), quietly)
    assert len(seen) == 3, "what is done is not run again"
    assert len(again.results()) == 3


def test_a_failed_cell_stops_no_other_and_is_tried_again_on_resume(tmp_path, runs):
    seen, broken = runs
    broken["ppo_mlp on gymnax.cartpole"] = RuntimeError("no luck")
    ended = benchmark(tmp_path / "b").run(Execution(), quietly)
    assert [e["status"] for e in ended.values()] == ["done", "failed", "skipped", "done"]
    assert ended["batched/ppo_mlp/gymnax.cartpole"]["reason"] == "RuntimeError: no luck"
    broken.clear()
    ended = benchmark(tmp_path / "b", resume=True).run(Execution(), quietly)
    assert [e["status"] for e in ended.values()] == ["done", "done", "skipped", "done"]
    assert seen[3:] == ["ppo_mlp on gymnax.cartpole resumed"]


def test_an_interruption_stops_the_benchmark_and_resume_runs_what_is_missing(tmp_path, runs):
    seen, broken = runs
    broken["ppo_mlp on gymnax.cartpole"] = Interrupted(2, None)
    with pytest.raises(Interrupted):
        benchmark(tmp_path / "b").run(Execution(), quietly)
    assert len(seen) == 2
    broken.clear()
    benchmark(tmp_path / "b", resume=True).run(Execution(), quietly)
    assert seen[2:] == ["ppo_mlp on gymnax.cartpole resumed", "dqn_mlp on gymnax.cartpole"]


def test_modes_are_cells_of_their_own(tmp_path, runs):
    seen, _ = runs
    both = Suite(("ppo_mlp",), ("gymnax.cartpole",), ("batched", "sequential"), 2, run_length="quick")
    benchmark(tmp_path / "b", suite=both).run(Execution(), quietly)
    assert seen == ["ppo_mlp on gymnax.cartpole", "ppo_mlp on gymnax.cartpole, one by one"]


def test_the_plan_says_what_will_be_run_and_creates_nothing(tmp_path):
    rows = benchmark(tmp_path / "b", seeds=3).plan()
    assert [r.get("lanes") for r in rows] == [6, 6, None, 6]
    assert all(r["programs"] >= 1 and r["env steps"] == 6 * 2048 for r in rows if "why" not in r)
    assert not (tmp_path / "b").exists()


def test_recipes_are_named_as_briefly_as_they_can_be(tmp_path):
    one = Suite(("benchmarked.01_static_qmc_sampling_S64.ppo_mlp",), ("gymnax.cartpole",))
    assert benchmark(tmp_path / "b", suite=one).plan()[0]["recipe"] == "ppo_mlp"
    both = Suite((*one.algos, "ppo_mlp"), one.envs)
    assert benchmark(tmp_path / "c", suite=both).plan()[0]["recipe"] == one.algos[0]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: Suite(("ppo_mlp",), ("gymnax.cartpole",), ("batchd",)),
            'unknown sweep mode batchd.*"batched"',
        ),
        (lambda: Suite((), ("gymnax.cartpole",)), "at least one of algos"),
        (lambda: Suite(("ppo_mlp", "ppo_mlp"), ("gymnax.cartpole",)), "ppo_mlp is named twice in algos"),
        (lambda: Suite(("ppo_mlp",), ("gymnax.cartpole",), samples=0), "samples must be at least 1"),
        (lambda: find("ppo_mlp_vs_drpq"), 'did you mean "ppo_mlp_vs_drpqc"'),
        (lambda: find("nowhere.py:mine"), "suite file nowhere.py does not exist"),
        (lambda: cells(Suite(("ppo_mpl",), ("gymnax.cartpole",))), 'did you mean "ppo_mlp"'),
        (lambda: cells(Suite(("ppo_mlp",), ("gymnax.cartpol",))), "gymnax.cartpole"),
    ],
)
def test_what_cannot_be_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_a_folder_in_use_is_refused(tmp_path, runs):
    with pytest.raises(ValueError, match="nothing to resume"):
        benchmark(tmp_path / "b", resume=True)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mine.txt").write_text("kept")
    with pytest.raises(ValueError, match="not empty"):
        benchmark(tmp_path / "c")
    benchmark(tmp_path / "b").run(Execution(), quietly)
    with pytest.raises(ValueError, match="continue it with --resume"):
        benchmark(tmp_path / "b")
    with pytest.raises(ValueError, match="holds another benchmark"):
        benchmark(tmp_path / "b", resume=True, seeds=7)


def test_a_wrong_setting_names_the_cell_before_anything_is_created(tmp_path):
    wrong = Suite(("ppo_mlp",), ("gymnax.cartpole",), settings={"gama": 1})
    with pytest.raises(ValueError, match=r'ppo_mlp on gymnax\.cartpole, batched: unknown.*"gama"'):
        benchmark(tmp_path / "b", suite=wrong)
    with pytest.raises(ValueError, match="no cell can be run"):
        benchmark(tmp_path / "b", suite=Suite(("dqn_mlp",), ("gymnax.pendulum",)))
    assert not (tmp_path / "b").exists()


def test_a_suite_of_ones_own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from hyperlax import Suite\nSUITES = {'a': Suite(('ppo_mlp',), ('gymnax.cartpole',))}\n")
    assert find(f"{path}:a") == find(str(path)) == Suite(("ppo_mlp",), ("gymnax.cartpole",))


@pytest.mark.parametrize("name", ["ppo_mlp_vs_drpqc", "ppo_families", "published"])
def test_shipped_suites_name_what_exists(name):
    suite = find(name)
    assert [resolve(a) for a in suite.algos]
    assert len(suite.envs) >= 2


def test_the_published_suite_is_the_published_benchmark():
    suite = find("published")
    gymnax = tuple(e for e in suite.envs if e.startswith("gymnax."))
    assert set(suite.envs) - set(gymnax) == {"brax.inverted_double_pendulum"}
    possible = [c for c in cells(replace(suite, envs=gymnax)) if c.skipped is None]
    pairs = {(c.recipe.rpartition(".")[2].partition("_")[0], c.env) for c in possible}
    assert ("dqn", "gymnax.pendulum") not in pairs
    assert ("sac", "gymnax.cartpole") in pairs
    assert (suite.samples, len(suite.algos)) == (64, 9)


def run(*line: str) -> int:
    return app(["run-benchmark", *line], exit_on_error=False, result_action="return_value")


def test_flags_win_over_the_suite_and_failures_are_said(tmp_path, runs, capsys, monkeypatch):
    seen, broken = runs
    broken["ppo_mlp on gymnax.cartpole"] = RuntimeError("no luck")
    line = ["--algos", "ppo_mlp", "dqn_mlp", "--envs", "gymnax.cartpole", "--num-samples-per-run", "3"]
    root = ["--output-root", str(tmp_path / "b"), "--run-length-modifier", "quick"]
    assert run(*line, *root) == 1
    out, err = capsys.readouterr()
    assert "batched/ppo_mlp/gymnax.cartpole failed: RuntimeError: no luck; log:" in err
    assert "comparison:" in out
    assert json.loads((tmp_path / "b" / "benchmark.json").read_text())["identity"]["suite"]["samples"] == 3
    broken.clear()
    assert run(*line, *root, "--resume") == 0
    assert seen[2:] == ["ppo_mlp on gymnax.cartpole resumed"]


def test_a_dry_run_creates_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("--dry-run", "--run-length-modifier", "quick", "--envs", "gymnax.cartpole") == 0
    out = capsys.readouterr().out
    assert "ppo_mlp" in out
    assert "ppo_drpqc" in out
    assert list(tmp_path.iterdir()) == []
