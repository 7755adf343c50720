"""Paths are resolved once, read without patterns, and refused in one line before anything is created."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import hyperlax
from hyperlax import leaving
from hyperlax.commands import main as cli
from hyperlax.experiments.execution import Execution
from hyperlax.storage import files, patience, places, store
from hyperlax.storage.files import experiment_path, write_atomically
from hyperlax.storage.store import Store

NAMES = [
    "a b",
    "é中",
    "x[1]",
    "[lr=1e-3]",
    "what?",
    "*",
    "~",
    "~root",
    "a#b%20",
    "-x",
    "{a,b}",
    "$HOME",
    "a\\b",
]


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_is_read_from_its_own_folder_whatever_that_is_called(tmp_path, monkeypatch, name):
    """A neighbour that the name would match as a pattern is not read."""
    monkeypatch.chdir(tmp_path)
    for neighbour in ("x1", "whatx", "l", "a", "b"):
        _experiment(Path(neighbour), 7.0)
    folder = Path(name)
    _experiment(folder, 1.0)
    results = hyperlax.read(f"./{name}")
    assert results.curves["value"].to_list() == [1.0, 1.0]
    assert results.samples["lr"].to_list() == [1.0]
    assert store.find(f"./{name}") in ([folder], [folder.absolute()])


def _experiment(folder: Path, value: float) -> Store:
    """The folder of an experiment of one lane, with two parts of its curves."""
    folder.mkdir()
    keeper = Store(folder.absolute())
    keeper.begin({"name": "ppo_mlp"}, pl.DataFrame({"sample": [0], "lr": [value]}))
    row = {"lane": 0, "sample": 0, "seed": 0, "metric": "return", "value": value}
    for step in (1, 2):
        keeper.append("curves", [{**row, "env_steps": step}])
        keeper.commit([np.arange(step)], {"lanes": [{"lane": 0, "env_steps": step}]})
    return keeper


def test_a_home_is_expanded_and_other_folders_stay_as_typed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert Execution(folder="~/runs").folder == tmp_path / "runs"
    assert Execution(folder="runs[1]").folder == Path("runs[1]")
    assert Execution(folder="./~/runs").folder == tmp_path / "~" / "runs"


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("", "is empty"),
        ("a\0b", "null character"),
        ("a\udcffb", "not valid UTF-8"),
        (
            "~no_such_user/x",
            "there is no user ~no_such_user; for a folder of that name write ./~no_such_user",
        ),
    ],
)
def test_what_cannot_be_a_path_is_refused(path, problem):
    with pytest.raises(ValueError, match=problem) as refused:
        places.resolved(path)
    str(refused.value).encode()
    assert "\n" not in str(refused.value)


def _file_in_the_way(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("")
    return tmp_path / "file"


def _loop(tmp_path: Path) -> Path:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    return tmp_path / "loop" / "runs"


def _dangling(tmp_path: Path) -> Path:
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    return tmp_path / "link" / "runs"


PLACES = {
    "is a file, where a folder is needed; remove it": _file_in_the_way,
    "file is a file, where a folder is needed": lambda tmp_path: _file_in_the_way(tmp_path) / "runs" / "x",
    "too many levels of symbolic links": _loop,
    "a link that leads nowhere": _dangling,
    "is a name of 300 bytes": lambda tmp_path: tmp_path / ("n" * 300) / "runs",
    "is a name of 400 bytes": lambda tmp_path: tmp_path / ("é" * 200),
    "is a path of": lambda tmp_path: tmp_path.joinpath(*["p" * 200] * 21),
}


@pytest.mark.parametrize("problem", PLACES)
def test_a_folder_that_cannot_be_is_refused_with_the_fix_and_nothing_is_created(tmp_path, problem):
    folder = PLACES[problem](tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match=problem) as refused:
        places.check_writable(folder)
    assert "choose another --output-root" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_that_may_not_be_written_is_refused(tmp_path, monkeypatch):
    """The superuser may write anywhere but on a disk that is read-only, so the answer is given here."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ValueError, match=r"cannot be written: no permission \(mode drwx"):
        places.check_writable(tmp_path / "a" / "b")
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result([0] * 8 + [os.ST_RDONLY, 255]))
    with pytest.raises(ValueError, match="cannot be written: the disk is read-only"):
        places.check_writable(tmp_path / "a" / "b")


@pytest.mark.parametrize("command", ["run-single-hp", "run-benchmark"])
def test_commands_refuse_it_in_one_line(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("mine")
    flags = ["--output-root", "taken", "--run-length-modifier", "quick"]
    if command == "run-benchmark":
        flags += ["--algos", "ppo_mlp", "--envs", "gymnax.pendulum", "--num-samples-per-run", "1"]
    with pytest.raises(SystemExit) as left:
        cli.main([command, *flags])
    said = capsys.readouterr().err
    assert (left.value.code, said.count("\n")) == (2, 1)
    assert f"{tmp_path}/taken is a file" in said
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_a_file_to_write_is_refused_before_anything_is_drawn(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for target in ("file/x.csv", "n" * 300 + "/x.csv"):
        with pytest.raises(SystemExit) as left:
            cli.main(["generate-hp-samples", "--num-samples", "2", "--output-file", str(tmp_path / target)])
        said = capsys.readouterr().err
        assert (left.value.code, said.count("\n")) == (2, 1)
        assert "choose another --output-file" in said


HOSTILE = [
    "gymnax.pendulum[a=../../../../esc]",
    "my.py:E[a=../../esc]",
    "..",
    "../..",
    "a/..",
    "",
    "dir[1]/../../my.py:E[a=/etc]",
    "[../..]",
    "my.py:" + "E" * 300,
    "gymnax.pendulum[" + ",".join(f"option{i}=1" for i in range(60)) + "]",
]


@pytest.mark.parametrize("env", HOSTILE)
@pytest.mark.parametrize("recipe", ["ppo_mlp", "..", "../../x", "r.py:../..", "ppo+../../n.py:..", ""])
def test_no_name_leads_out_of_the_output_root(recipe, env):
    folder = experiment_path(recipe, env)
    assert len(folder.parts) == 2
    assert not folder.is_absolute()
    for part in folder.parts:
        assert part.strip(".")
        assert len(os.fsencode(part)) <= files.LONGEST_NAME


def test_long_names_that_differ_have_folders_that_differ():
    long = ",".join(f"option{i}=1" for i in range(60))
    assert experiment_path("r", f"e.x[{long},z=1]") != experiment_path("r", f"e.x[{long},z=2]")
    assert experiment_path("ppo_mlp", "gymnax.pendulum[a=1]") == Path("ppo_mlp/gymnax.pendulum[a=1]")


@pytest.mark.parametrize("number", patience.FULL)
def test_a_full_disk_is_waited_for_where_that_is_wanted(tmp_path, monkeypatch, capsys, number):
    """Room comes after the third attempt; a line says that it is waited for, and nothing stays behind."""
    attempts = _refusing(monkeypatch, number, 3)
    path = tmp_path / "folder" / "state.bin"
    with pytest.raises(OSError, match=os.strerror(number)) as refused:
        write_atomically(path, b"whole")
    assert refused.value.filename == str(path)
    assert list(path.parent.iterdir()) == []
    with patience.patient():
        write_atomically(path, b"whole")
    said = capsys.readouterr().err
    assert path.read_bytes() == b"whole"
    assert len(attempts) == 4
    assert said.count("\n") == 1
    assert f"{path.parent}: {os.strerror(number).lower()}; waiting for room" in said


def _refusing(monkeypatch: pytest.MonkeyPatch, number: int, times: int) -> list[int]:
    """The first `times` attempts to write fail with the error `number`; returns a list of all attempts."""
    attempts: list[int] = []
    original = os.fsync

    def fsync(handle: int) -> None:
        if not os.path.isdir(f"/proc/self/fd/{handle}"):
            attempts.append(handle)
            if len(attempts) <= times:
                raise OSError(number, os.strerror(number))
        original(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(patience, "TRY_SECONDS", 0.0)
    return attempts


def test_waiting_ends_with_what_asks_for_it_and_other_errors_are_not_waited_for(tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def stop() -> None:
        raise Stop

    _refusing(monkeypatch, errno.ENOSPC, 10)
    with patience.patient(), pytest.raises(Stop), patience.patient(stop):
        write_atomically(tmp_path / "x", b"")
    _refusing(monkeypatch, errno.EIO, 1)
    with patience.patient(), pytest.raises(OSError, match="Input/output"):
        write_atomically(tmp_path / "x", b"")


def test_while_a_disk_is_full_a_signal_ends_the_process_at_once(tmp_path, monkeypatch):
    words = []
    _refusing(monkeypatch, errno.ENOSPC, 1)
    monkeypatch.setattr(patience.time, "sleep", lambda _: words.append(leaving.words_now()))
    with patience.patient():
        write_atomically(tmp_path / "x", b"")
    assert words == [patience.MAKE_ROOM]


@pytest.mark.parametrize("lost", ["run", "run/parts", "run/manifest.json"])
def test_what_is_removed_is_noticed_before_a_part_is_made_anew(tmp_path, lost):
    folder = tmp_path / "run"
    keeper = _experiment(folder, 1.0)
    keeper.own()
    (tmp_path / lost).rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match="was removed or moved while the experiment ran"):
        keeper.commit([], {"lanes": []})
    with pytest.raises(FileNotFoundError):
        keeper.write_manifest({})
    assert not (tmp_path / lost).exists()


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 75), (errno.EIO, 1), (errno.EROFS, 1)])
def test_what_a_disk_refuses_is_one_line_that_says_how_to_go_on(monkeypatch, capsys, number, code):
    error = OSError(number, os.strerror(number), "/runs/state.bin")
    leaving.from_now_on(leaving.NOTHING_BEGUN)
    assert cli._disk(error) == 2
    leaving.from_now_on("continue with --resume")
    try:
        assert cli._disk(error) == code
    finally:
        leaving.from_now_on(leaving.NOTHING_BEGUN)
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"error: /runs/state.bin: {os.strerror(number).lower()}"
    assert second == f"{first}; continue with --resume"
