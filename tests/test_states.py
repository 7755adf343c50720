"""The status of experiments that no units train, and tables in terminals of any width."""

from __future__ import annotations

import io
import json

import pytest
from folders import new, trained, write
from rich.console import Console

from hyperlax.commands.main import app
from hyperlax.run.fitting import Fitting
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
