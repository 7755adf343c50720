"""The status of experiments that no units train, and tables in terminals of any width."""

from __future__ import annotations

import io
import json
import os
import shutil

import polars as pl
import pytest
from folders import MANIFEST, lanes, new, trained, write
from rich.console import Console

from hyperlax.commands import states
from hyperlax.commands.main import app
from hyperlax.run.fitting import Fitting
from hyperlax.storage.claims import Claim
from hyperlax.storage.integrity import read_json, write_json


def status(*words):
    return app(["status", *map(str, words)], result_action="return_value")


@pytest.fixture
def interrupted(tmp_path):
    """An experiment of one lane that was left at step 3, by a process that is no more."""
    keeper = new(tmp_path)
    write(keeper, 1, 3)
    manifest = read_json(tmp_path / "manifest.json")
    about = {"command": ["hyperlax", "sweep-hp-samples"], "settings": {"total_timesteps": 4}}
    write_json(tmp_path / "manifest.json", {**manifest, **about})
    [claim] = (tmp_path / "checkpoint").glob("claim-*.json")
    write_json(claim, {**read_json(claim), "pid": 2**22 + 1})
    return tmp_path


def test_a_run_that_was_interrupted_is_shown_with_the_command_that_continues_it(interrupted, capsys):
    assert status(interrupted) == 3
    out = capsys.readouterr().out
    assert f"next: hyperlax sweep-hp-samples --resume-from {interrupted}" in out
    assert status(interrupted, "--json") == 3
    told = json.loads(capsys.readouterr().out)
    [one] = told["experiments"]
    assert (one["state"], one["lanes"], one["env_steps"]) == ("unfinished", [0, 1], [3, 4])
    assert told["next"] == one["next"]


def test_a_run_whose_process_lives_is_not_taken_over(tmp_path, capsys):
    write(new(tmp_path), 1)
    assert status(tmp_path) == 3
    out = capsys.readouterr().out
    assert "trains it" in out
    assert f"next: hyperlax status {tmp_path} --watch" in out


def test_what_is_done_and_what_is_damaged_are_told_apart(tmp_path, capsys):
    trained(tmp_path / "a")
    trained(tmp_path / "b")
    (tmp_path / "b" / "curves.parquet").write_bytes(b"nothing")
    assert status(tmp_path) == 1
    out = capsys.readouterr().out
    assert f"next: hyperlax check {tmp_path / 'b'}" in out


def test_a_folder_without_an_experiment_is_refused_with_what_it_should_be(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no experiment: status is for the folder of a sweep"):
        status(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds no sweep.json"):
        status(tmp_path, "--units")


def finished(folder, **about):
    """An experiment of one lane that is done."""
    keeper = new(folder)
    keeper.put("lanes", lanes(4).with_columns(status=pl.lit("done")))
    keeper.commit([], {"lanes": [{"lane": 0, "env_steps": 4}]}, (), ())
    keeper.complete({**MANIFEST, "settings": {"total_timesteps": 4}, **about})


CELLS = [f"batched/ppo_mlp/gymnax.{env}" for env in ("acrobot", "cartpole", "pendulum", "reacher")]
BENCHMARK = {"command": ["hyperlax", "run-benchmark", "--base-config", "mine"]}


@pytest.fixture
def benchmark(tmp_path):
    """A benchmark of four cells that was killed when two of them were done."""
    for cell in CELLS[:2]:
        finished(tmp_path / cell, **BENCHMARK)
    record(tmp_path, ["done", "done", "waiting", "waiting"])
    return tmp_path


def record(folder, found, reason=None):
    cells = {c: {"status": s, "reason": reason} for c, s in zip(CELLS, found, strict=True)}
    write_json(folder / "benchmark.json", {"cells": cells})


def test_cells_that_have_not_begun_are_waiting(benchmark, capsys):
    assert status(benchmark) == 3
    out = capsys.readouterr().out
    assert out.count("waiting") == 2
    assert f"next: hyperlax run-benchmark --resume-from {benchmark}\n" in out
    assert status(benchmark, "--json") == 3
    told = json.loads(capsys.readouterr().out)["experiments"]
    assert [one["state"] for one in told] == ["done", "done", "waiting", "waiting"]
    assert [one["folder"] for one in told] == [str(benchmark / cell) for cell in CELLS]
    record(benchmark, ["done", "done", "skipped", "skipped"])
    assert status(benchmark) == 0
    assert "next: hyperlax plot-benchmark" in capsys.readouterr().out


def test_a_benchmark_that_runs_is_watched_between_two_cells(benchmark, capsys, monkeypatch):
    Claim(benchmark / ".claims", benchmark)
    assert status(benchmark) == 3
    out = capsys.readouterr().out
    assert f"process {os.getpid()} runs the benchmark" in out
    assert f"next: hyperlax status {benchmark} --watch" in out

    def end(seconds):
        for cell in CELLS[2:]:
            finished(benchmark / cell, **BENCHMARK)

    monkeypatch.setattr(states.time, "sleep", end)
    assert status(benchmark, "--watch") == 0


def test_a_cell_that_failed_before_it_had_begun_has_failed(benchmark, capsys):
    record(benchmark, ["done", "done", "failed", "waiting"], "MemoryError: no luck")
    assert status(benchmark) == 1
    out = capsys.readouterr().out
    assert f"{benchmark / CELLS[2]}: MemoryError: no luck" in out
    assert f"next: hyperlax run-benchmark --resume-from {benchmark}\n" in out


def test_a_benchmark_of_which_no_cell_has_begun_is_shown(tmp_path, capsys):
    record(tmp_path, ["waiting"] * 4)
    assert status(tmp_path) == 3
    advice = "add the flags that the benchmark was begun with"
    assert advice in capsys.readouterr().out
    cells = {name: {"status": "waiting", "reason": None} for name in CELLS}
    write_json(tmp_path / "benchmark.json", {"cells": cells, "command": ["hyperlax", "run-benchmark"]})
    assert status(tmp_path) == 3
    assert advice not in capsys.readouterr().out


@pytest.mark.parametrize("content", ["{", '{"cells": {"../x": {"status": "waiting"}}}', '{"cells": [1]}'])
def test_a_record_of_a_benchmark_that_cannot_be_read_is_damaged(benchmark, capsys, content):
    (benchmark / "benchmark.json").write_text(content)
    assert status(benchmark) == 1
    assert f"next: hyperlax check {benchmark}\n" in capsys.readouterr().out


def test_a_sweep_is_done_with_its_confirmation(tmp_path, capsys):
    about = {"command": ["hyperlax", "sweep-hp-samples", "--confirm", "2"]}
    finished(tmp_path, **about)
    resume = f"next: hyperlax sweep-hp-samples --resume-from {tmp_path}\n"
    assert status(tmp_path) == 3
    out = capsys.readouterr().out
    assert "its confirmation has not begun" in out
    assert resume in out
    again = new(tmp_path / "confirmation")
    write(again, 1, 3)
    assert status(tmp_path) == 3
    assert f"confirmation has 0 of 1 lane done: process {os.getpid()} trains it" in capsys.readouterr().out
    [claim] = (tmp_path / "confirmation" / "checkpoint").glob("claim-*.json")
    write_json(claim, {**read_json(claim), "pid": 2**22 + 1})
    assert status(tmp_path) == 3
    out = capsys.readouterr().out
    assert "unfinished" in out
    assert resume in out
    shutil.rmtree(tmp_path / "confirmation")
    finished(tmp_path / "confirmation", **about, confirms={"best": 2, "samples": [0], "seed": 1})
    for folder in (tmp_path, tmp_path / "confirmation"):
        assert status(folder) == 0


@pytest.mark.parametrize("width", range(8, 130, 7))
def test_no_table_is_cut_without_a_sign(width):
    rows = [["a/long/name/of/an/experiment", "1,440,768 of 1,440,768", "386.1"], ["short", "2", "3.5"]]
    names = ("experiment", "env steps", "fresh")
    table = Fitting(names, rows, ("env steps",), ("experiment",), {"fresh": "unchosen"})
    file = io.StringIO()
    Console(file=file, width=width).print(table)
    shown = file.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    whole = "".join(shown.split())
    assert "386.1" in whole
    assert "1,440,768of1,440,768" in whole or "notshown,forwantofwidth:envsteps" in whole
    assert "fresh:unchosen" in whole


def test_text_of_a_folder_cannot_steer_the_terminal(interrupted, capsys):
    evil = "\x1b]0;owned\x07\nnext: rm -rf"
    where = interrupted / "a\x1b[2J\nnext: b"
    where.mkdir()
    for path in [p for p in interrupted.iterdir() if p != where]:
        path.rename(where / path.name)
    about = {"command": ["hyperlax", f"sweep-hp-samples{evil}"]}
    write_json(where / "manifest.json", {**read_json(where / "manifest.json"), **about})
    for folder in (interrupted, where):
        assert status(folder) == 3
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert out.count("\nnext: ") == 1
    (where / "manifest.json").write_text(f'{{"{evil}')
    (where / "manifest-copy.json").unlink(missing_ok=True)
    assert status(interrupted) in (1, 3)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.count("\nnext: ") == 1
