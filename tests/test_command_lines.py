"""Whatever is typed: no traceback, an exit code of the documented ones, and nothing written when refused."""

from __future__ import annotations

import random
import traceback
from pathlib import Path
from typing import Any

import command_lines
import pytest

from hyperlax import searches, sweeps
from hyperlax.commands import benchmarking, main, searching, training
from hyperlax.studies import inspection
from hyperlax.studies.benchmark import Benchmark


class Trained(BaseException):
    """A command line that was accepted has come to where training or measuring starts."""


def _train(*_: Any, **__: Any) -> Any:
    raise Trained


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty home, and in it the folder in which lines are typed; nothing trains."""
    folder = tmp_path / "home" / "here"
    folder.mkdir(parents=True)
    command_lines.prepare(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(folder)
    for owner, name in (
        (sweeps, "run"),
        (searches, "run"),
        (Benchmark, "run"),
        (Benchmark, "predict"),
        (inspection, "of_recipe"),
        (training, "display"),
        (searching, "display"),
        (benchmarking, "display"),
    ):
        monkeypatch.setattr(owner, name, _train)
    return folder


def _files(folder: Path) -> set[str]:
    return {str(path) for path in folder.parents[1].rglob("*") if "__pycache__" not in str(path)}


def fault(words: list[str], folder: Path, capsys: Any) -> str | None:
    """What is wrong with how a line was answered, None if nothing is."""
    before, code = _files(folder), None
    try:
        main.main(words)
    except Trained:
        return None
    except SystemExit as left:
        code = left.code
    except BaseException:
        return traceback.format_exc()
    said = capsys.readouterr().err
    if code not in (0, 1, 2):
        return f"exit code {code}: {said}"
    if code and not said.strip():
        return f"exit code {code} without a word"
    if "Traceback" in said or "\x1b" in said:
        return said
    if code == 2 and (new := _files(folder) - before):
        return f"refused ({said.strip()}), and yet written: {new}"
    return None


def faults(seed: int, count: int, folder: Path, capsys: Any) -> dict[str, str]:
    """Line → what is wrong with its answer, for `count` lines drawn with `seed`."""
    draw, found = random.Random(seed), {}
    for _ in range(count):
        words = command_lines.mutated(draw)
        if (wrong := fault(words, folder, capsys)) is not None:
            found[repr(words)] = wrong
    return found


def test_mistyped_lines_are_answered(place, capsys):
    assert not faults(1, 30, place, capsys)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(2, 6))
def test_thousands_of_mistyped_lines_are_answered(place, capsys, seed):
    assert not faults(seed, 1000, place, capsys)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("sweep-hp-samples --num-samples 4 --omit-ab", "omit_ab leaves out matrices"),
        ("generate-hp-samples --num-samples 4 --omit-ab", "omit_ab leaves out matrices"),
        ("sweep-hp-samples --load-hyperparams samples.csv --sampling-method grid", "are not drawn"),
        ("sweep-hp-samples --experiment-type sobol_matrices_A_B_AB --sampling-method grid", "in its own way"),
        ("run-single-hp --algo-and-network-config relative.py:Net", "write `from name import ...`"),
        ("run-benchmark --envs", "needs at least one name in envs"),
        ("play \x1b[2J.policy", "\\x1b[2J.policy: no such file"),
    ],
)
def test_what_would_be_ignored_or_misread_is_said(place, capsys, line, reason):
    (place / "relative.py").write_text("from .beside import x\n")
    with pytest.raises(SystemExit) as left:
        main.main(line.split(" "))
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert reason in said, said
    assert len(said.strip().splitlines()) == 1
