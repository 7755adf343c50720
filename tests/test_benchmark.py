"""The cells of a benchmark are independent and repeatable, and a failed one does not stop the rest."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

import hyperlax
from hyperlax import sweeps
from hyperlax.commands.main import app
from hyperlax.commands.tables import cells_table
from hyperlax.experiments.execution import Execution
from hyperlax.experiments.experiment import Experiment
from hyperlax.report import write_report
from hyperlax.run import compiling
from hyperlax.run.display import Display
from hyperlax.run.signals import Interrupted
from hyperlax.storage import store
from hyperlax.storage.files import write_atomically
from hyperlax.studies import prediction
from hyperlax.studies.benchmark import Benchmark
from hyperlax.studies.prediction import Rates
from hyperlax.studies.suites import Cell, Rule, Suite, cells

SMALL = Suite(("ppo_mlp", "dqn_mlp"), ("gymnax.pendulum", "gymnax.cartpole"), samples=2, run_length="quick")


def benchmark(folder: Path, resume: bool = False, suite: Suite = SMALL, **settings) -> Benchmark:
    return Benchmark(suite, folder, "small", resume, **settings)


def quietly(cell: Cell, folder: Path) -> Display:
    return Display()


PREPARED: dict[str, Experiment] = {}
"""The experiments of cells by what was asked for. Tests that train nothing share them."""
PREPARE = sweeps.prepare


def prepared(*cell, **settings) -> Experiment:
    asked = repr((cell, settings))
    if asked not in PREPARED:
        PREPARED[asked] = PREPARE(*cell, **settings)
    return PREPARED[asked]


@pytest.fixture
def runs(monkeypatch):
    """The list of cells that were run; instead of training, a manifest and samples are written.

    Reports, which take a second each, are stand-ins.
    """
    seen: list[str] = []
    broken: dict[str, Exception] = {}
    monkeypatch.setattr(sweeps, "prepare", prepared)
    stand_in = lambda results, path: write_atomically(path, "report")  # noqa: E731
    monkeypatch.setattr("hyperlax.studies.benchmark.write_report", stand_in)

    def run(spec, how, progress, command=None, programs=None):
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


def test_a_benchmark_runs_its_cells_once(tmp_path, runs, monkeypatch):
    seen, _ = runs
    monkeypatch.setattr("hyperlax.studies.benchmark.write_report", write_report)
    ended = benchmark(tmp_path / "b").run(Execution(), quietly)
    assert [e["status"] for e in ended.values()] == ["done", "done", "skipped", "done"]
    assert len(seen) == 3
    record = json.loads((tmp_path / "b" / "benchmark.json").read_text())
    assert record["cells"] == ended
    page = tmp_path / "b" / "batched" / "ppo_mlp" / "gymnax.cartpole" / "report.html"
    assert "<html" in page.read_text()[:500]
    again = benchmark(tmp_path / "b", resume=True)
    again.run(Execution(), quietly)
    assert len(seen) == 3, "what is done is not run again"
    assert len(again.results()) == 3


@pytest.mark.parametrize("place", ["", "done"])
def test_what_a_killed_process_was_writing_is_cleared(tmp_path, runs, place):
    """Beside the cells too, where comparisons are written when all of them are over; other files stay."""
    first = benchmark(tmp_path / "b")
    first.run(Execution(), quietly)
    folder = tmp_path / "b" / (first.cells[0].path if place else "")
    unfinished, own = folder / ".comparison.csv.ab_12cd9.tmp", folder / ".notes.tmp"
    for file in (unfinished, own):
        file.write_text("mode,")
    benchmark(tmp_path / "b", resume=True).run(Execution(), quietly)
    assert not unfinished.exists()
    assert own.exists()


@pytest.mark.parametrize("error", [RuntimeError, AttributeError])
def test_a_failed_cell_stops_no_other_and_is_tried_again_on_resume(tmp_path, runs, error):
    seen, broken = runs
    broken["ppo_mlp on gymnax.cartpole"] = error("no luck")
    ended = benchmark(tmp_path / "b").run(Execution(), quietly)
    assert [e["status"] for e in ended.values()] == ["done", "failed", "skipped", "done"]
    assert ended["batched/ppo_mlp/gymnax.cartpole"]["reason"] == f"{error.__name__}: no luck"
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


def test_every_cell_records_the_command_that_the_benchmark_was_begun_with(tmp_path, runs):
    _, broken = runs
    broken["ppo_mlp on gymnax.cartpole"] = Interrupted(2, None)
    command = ["hyperlax", "run-benchmark", "--base-config", "small"]
    with pytest.raises(Interrupted):
        benchmark(tmp_path / "b").run(Execution(), quietly, command)
    broken.clear()
    again = benchmark(tmp_path / "b", resume=True)
    again.run(Execution(), quietly, ["hyperlax", "run-benchmark", "--resume-from", "b"])
    assert json.loads((tmp_path / "b" / "benchmark.json").read_text())["command"] == command
    assert [results.manifest["command"] for results in again.results()] == [command] * 3


@pytest.mark.parametrize("metric", [None, "auc"])
def test_a_search_of_a_benchmark_optimises_the_metric_of_its_reports(tmp_path, metric):
    suite = Suite(("ppo_mlp",), ("gymnax.pendulum",), ("optuna",), 2, run_length="quick")
    (spec,) = Benchmark(suite, tmp_path / "b", "small", False, metric).specs.values()
    assert [o.metric for o in spec.schedule.search.objectives] == [metric or "final"]


def test_every_mode_has_its_own_cells(tmp_path, runs):
    seen, _ = runs
    both = Suite(("ppo_mlp",), ("gymnax.cartpole",), ("batched", "sequential"), 2, run_length="quick")
    benchmark(tmp_path / "b", suite=both).run(Execution(), quietly)
    assert seen == ["ppo_mlp on gymnax.cartpole", "ppo_mlp on gymnax.cartpole, one by one"]


def test_the_plan_says_what_will_be_run_and_creates_nothing(tmp_path):
    rows = benchmark(tmp_path / "b", seeds=3).plan()
    assert [r.get("lanes") for r in rows] == [6, 6, None, 6]
    assert all(r["programs"] >= 1 and r["env steps"] == 6 * 2048 for r in rows if "why" not in r)
    assert not (tmp_path / "b").exists()


def test_recipes_appear_under_the_shortest_unique_name(tmp_path):
    one = Suite(("benchmarked.01_static_qmc_sampling_S64.ppo_mlp",), ("gymnax.cartpole",))
    assert benchmark(tmp_path / "b", suite=one).plan()[0]["recipe"] == "ppo_mlp"
    both = Suite((*one.algos, "ppo_mlp"), one.envs)
    assert benchmark(tmp_path / "c", suite=both).plan()[0]["recipe"] == one.algos[0]


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


SPACE = "{'actor.width': 16, 'critic.width': 16, 'num_envs': 4, 'rollout_length': 16, 'epochs': 1"
"""Hyperparameters that fix every size, so that one program serves all samples."""


def family(folder: Path) -> tuple[str, str]:
    """A file with two recipes of one family, the second of which has smaller minibatches."""
    sizes = SPACE + ", 'num_minibatches': "
    text = "from hyperlax import LogUniform, Recipe\nRECIPES = {\n"
    for name, count in (("a", 2), ("b", 4)):
        space = f"{sizes}{count}, 'actor_lr': LogUniform(1e-4, 1e-3)}}"
        text += f"    '{name}': Recipe('ppo', 'mlp', {space}, only=True),\n"
    (folder / "mine.py").write_text(text + "}\n")
    return f"{folder / 'mine.py'}:a", f"{folder / 'mine.py'}:b"


def test_cells_of_one_family_and_environment_share_programs(tmp_path):
    """Cells of another environment or length have other programs; every cell keeps its own samples."""
    algos = (*family(tmp_path), "dqn_mlp")
    found = benchmark(tmp_path / "x", suite=replace(SMALL, algos=algos, modes=("batched", "sequential")))
    keys: dict[str, set[str]] = {}
    for cell, programs in found.programs().items():
        assert sorted(i for p in programs for i in p.samples) == [0, 1]
        assert all(p.holds(found.specs[cell].trees[i].sizes()) for p in programs for i in p.samples)
        name = f"{cell.recipe.rpartition(':')[2]} {cell.env.partition('.')[2]} {cell.mode}"
        keys[name] = {p.key for p in programs}
    for env in ("pendulum", "cartpole"):
        assert len({frozenset(k) for n, k in keys.items() if env in n and "dqn" not in n}) == 1
    lengths = replace(SMALL, algos=algos[:2], rules=(Rule(algo="*:b", settings={"seeds": 5}),))
    apart = benchmark(tmp_path / "x", suite=lengths).programs()
    alone = {c.recipe: benchmark(tmp_path / "x", suite=replace(lengths, algos=(c.recipe,))) for c in apart}
    assert all(apart[c] == alone[c.recipe].programs()[c] for c in apart)


@pytest.mark.slow
def test_a_second_cell_of_one_family_and_environment_compiles_nothing(tmp_path, monkeypatch):
    """This holds for another mode and for another recipe; all lanes train to their end."""
    compiled = []
    real = compiling.compile_program
    monkeypatch.setattr(compiling, "_compiled", {})
    monkeypatch.setattr(
        compiling, "compile_program", lambda *args: compiled.append(args[0].key) or real(*args)
    )
    suite = Suite(family(tmp_path), ("gymnax.pendulum",), ("batched", "sequential"), 2, run_length="quick")
    settings = {"total_timesteps": 200, "evaluations": 1}
    found = benchmark(tmp_path / "x", suite=replace(suite, settings=settings))
    assert {e["status"] for e in found.run(Execution(), quietly).values()} == {"done"}
    timelines = [r.timeline.with_columns(seconds=pl.col("end") - pl.col("start")) for r in found.results()]
    assert all((t["seconds"] >= 0).all() for t in timelines)
    assert [r.manifest["timings"]["compile_seconds"] > 0 for r in found.results()] == [True] + [False] * 3
    assert len(compiled) == 1
    curves = [
        store.read(tmp_path / "x" / mode / "mine.py_b" / "gymnax.pendulum").curves.sort(
            "lane", "env_steps", "metric"
        )
        for mode in ("batched", "sequential")
    ]
    assert (
        curves[0]
        .select("lane", "env_steps", "metric", "value")
        .equals(curves[1].select("lane", "env_steps", "metric", "value"))
    )


def test_a_folder_from_before_a_field_of_suites_existed_is_continued(tmp_path, runs):
    seen, _ = runs
    benchmark(tmp_path / "b").run(Execution(), quietly)
    path = tmp_path / "b" / "benchmark.json"
    record = json.loads(path.read_text())
    del record["identity"]["suite"]["rules"], record["sha256"]  # nor did checksums
    path.write_text(json.dumps(record))
    benchmark(tmp_path / "b", resume=True).run(Execution(), quietly)
    assert len(seen) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"identity": None},
        {"identity": {}},
        {"identity": {"suite": 3, "settings": {}}},
        {"cells": []},
        {"cells": {"x": {"status": 5}}},
        {"cells": {}},
    ],
    ids=str,
)
def test_a_record_that_is_not_one_is_refused_with_the_way_out(change, tmp_path, runs):
    """Although no checksum says so: anybody may have written it."""
    benchmark(tmp_path / "b").run(Execution(), quietly)
    path = tmp_path / "b" / "benchmark.json"
    record = {**json.loads(path.read_text()), **change}
    del record["sha256"]
    path.write_text(json.dumps({k: v for k, v in record.items() if v is not None}))
    with pytest.raises(ValueError, match=r"benchmark\.json is damaged: it.*; remove it: --resume then finds"):
        benchmark(tmp_path / "b", resume=True)


def test_a_damaged_or_lost_record_is_made_again_from_the_cells(tmp_path, runs):
    seen, _ = runs
    ended = benchmark(tmp_path / "b").run(Execution(), quietly)
    path = tmp_path / "b" / "benchmark.json"
    path.write_text(path.read_text().replace("done", "gone"))
    for resume in (False, True):
        with pytest.raises(
            ValueError, match=r"benchmark.json is damaged: .*; remove it: --resume then finds"
        ):
            benchmark(tmp_path / "b", resume=resume)
    path.unlink()
    with pytest.raises(ValueError, match="--resume makes it again"):
        benchmark(tmp_path / "b")
    again = benchmark(tmp_path / "b", resume=True).run(Execution(), quietly)
    assert [e["status"] for e in again.values()] == [e["status"] for e in ended.values()]
    assert [name for name in seen if name.endswith("resumed")] == [f"{name} resumed" for name in seen[:3]]


def test_a_benchmark_that_another_process_continues_leaves(tmp_path, runs):
    """The one that comes later goes on; of two that start at once one is refused."""
    first, other = benchmark(tmp_path / "b"), benchmark(tmp_path / "b")

    def show(cell: Cell, folder: Path) -> Display:
        if len(runs[0]) == 1:
            with pytest.raises(ValueError, match="another process has just started a benchmark"):
                other.run(Execution(), quietly)
            benchmark(tmp_path / "b", resume=True).run(Execution(), quietly)
        return Display()

    with pytest.raises(hyperlax.Superseded, match=r"has taken over .*; this process stops"):
        first.run(Execution(), show)
    record = json.loads((tmp_path / "b" / "benchmark.json").read_text())
    assert [e["status"] for e in record["cells"].values()] == ["done", "done", "skipped", "done"]
    assert not (tmp_path / "b" / ".claims").exists()


@pytest.fixture
def measured(monkeypatch):
    """The list of cells whose programs were measured; the rates are made up."""
    seen: list[str] = []

    def calibrate(spec, programs, how):
        seen.append(f"{spec.recipe_name} on {spec.env_name}")
        return Rates(1.0, 1e9, 1e-4)

    monkeypatch.setattr(prediction, "calibrate", calibrate)
    monkeypatch.setattr(prediction, "_rates", {})
    return seen


def test_finished_cells_are_not_predicted(tmp_path, runs, measured):
    runs[1]["ppo_mlp on gymnax.cartpole"] = RuntimeError("no luck")
    benchmark(tmp_path / "b").run(Execution(), quietly)
    again = benchmark(tmp_path / "b", resume=True)
    predictor = again.predict(Execution())
    assert [c.name for c in predictor.all()] == ["ppo_mlp on gymnax.cartpole, batched"]
    rows = again.plan(predictor=predictor)
    assert [r.get("predicted") is not None for r in rows] == [False, True, False, False]
    assert measured == ["ppo_mlp on gymnax.cartpole"]


def run(*line: str) -> int:
    return app(["run-benchmark", *line], exit_on_error=False, result_action="return_value")


def test_flags_win_over_the_suite_and_failures_are_reported(tmp_path, runs, capsys, monkeypatch):
    seen, broken = runs
    broken["ppo_mlp on gymnax.cartpole"] = RuntimeError("no luck")
    line = ["--algos", "ppo_mlp", "dqn_mlp", "--envs", "gymnax.cartpole", "--num-samples-per-run", "3"]
    root = ["--output-root", str(tmp_path / "b"), "--run-length-modifier", "quick"]
    assert run(*line, *root) == 1
    out, err = capsys.readouterr()
    assert "batched/ppo_mlp/gymnax.cartpole failed: RuntimeError: no luck; log:" in err
    assert "comparison:" in out
    assert "\nCompared: " in out
    assert "\nNext: " in out
    assert json.loads((tmp_path / "b" / "benchmark.json").read_text())["identity"]["suite"]["samples"] == 3
    broken.clear()
    assert run(*line, *root, "--resume") == 0
    assert seen[2:] == ["ppo_mlp on gymnax.cartpole resumed"]


def test_a_dry_run_predicts_and_creates_nothing(tmp_path, capsys, monkeypatch, measured):
    monkeypatch.chdir(tmp_path)
    assert run("--dry-run", "--run-length-modifier", "quick", "--envs", "gymnax.cartpole") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "ppo_mlp" in out
    assert "ppo_drpqc" in out
    assert "predicted: roughly" in out
    assert "2 short programs measured" in out
    assert "~ marks" not in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sign", ["", "~ "])
def test_a_narrow_table_of_cells_keeps_the_predictions(sign):
    """And explains their marks only where there are some."""
    times = {"compile": "12 s", "train": "3.4 min", "evaluate": "8.1 s", "predicted": f"{sign}3.8 min"}
    row = {"recipe": "dqn_mlp_no_network_search", "environment": "gymnax.cartpole", "mode": "batched"}
    console = Console(width=60, file=io.StringIO(), highlight=False)
    console.print(cells_table([{**row, "lanes": 32, "programs": 2, **times}]))
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert f"{sign}3.8 min" in said
    assert ("~ marks estimates" in said) == bool(sign)
    assert "not shown, for want of width: programs, evaluate" in said


EVERY = [f"{a}_{n}" for n in ("mlp", "tmlp", "drpqc") for a in ("dqn", "ppo", "sac")]


@pytest.mark.parametrize(
    ("recipes", "more"),
    [(EVERY[::4], ()), pytest.param(EVERY, ("brax.inverted_double_pendulum",), marks=pytest.mark.slow)],
    ids=["every name", "every pair"],
)
def test_the_reproduction_command_of_the_original_is_accepted(recipes, more, tmp_path, capsys, measured):
    """The command is given as the shell expands it, with fewer samples; impossible pairs are skipped."""
    algos = [f"benchmarked.01_static_qmc_sampling_S64.{recipe}" for recipe in recipes]
    envs = ["gymnax.cartpole", "gymnax.pendulum", "gymnax.reacher", *more]
    line = ["--algos", *algos, "--envs", *envs, "--num-samples-per-run", "2", "--sweep-modes", "sequential"]
    line += ["--run-length-modifier", "long", "--sampling-method", "qmc_sobol", "--log-level", "INFO"]
    assert run(*line, "--output-root", str(tmp_path / "results"), "--dry-run") == 0
    out = " ".join(capsys.readouterr().out.split())
    skipped = sum("dqn" in recipe for recipe in recipes) * (len(envs) - 1)
    assert out.count("skipped: DQN needs discrete actions") == skipped
    assert len(set(measured)) == len(measured) == len(algos) * len(envs) - skipped
    assert not (tmp_path / "results").exists()
    found = cells(Suite(tuple(algos), tuple(envs[:3]), ("sequential",)))
    assert len({c.path for c in found}) == 3 * len(algos)


def test_the_other_commands_of_the_original_are_accepted(tmp_path, capsys, measured):
    line = ["--algos", "ppo_mlp", "ppo_drpqc", "--envs", "gymnax.pendulum", "gymnax.cartpole"]
    root = ["--output-root", str(tmp_path / "x"), "--dry-run"]
    assert run(*line, "--num-samples-per-run", "16", *root) == 0
    assert run("--base-config", "ppo_mlp_vs_drpqc", *root) == 0
    assert len(measured) == 4


def test_flags_win_over_settings_of_a_suite(tmp_path, capsys, measured):
    path = tmp_path / "mine.py"
    text = "SUITES = {'a': Suite(('ppo_mlp',), ('gymnax.cartpole',), samples=2, settings={'seeds': 7})}\n"
    path.write_text("from hyperlax import Suite\n" + text)
    line = ["--base-config", f"{path}:a", "--output-root", str(tmp_path / "x"), "--dry-run"]
    for more, lanes in (([], 14), (["--seeds", "3"], 6), (["--set", "seeds=2"], 4)):
        assert run(*line, *more, "--run-length-modifier", "2000") == 0
        assert f"gymnax.cartpole {lanes} " in " ".join(capsys.readouterr().out.split())
    with pytest.raises(ValueError, match="seeds is given twice"):
        run(*line, "--seeds", "3", "--set", "seeds=2")
