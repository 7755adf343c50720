"""Whatever is truncated, emptied, deleted or flipped: the right result, or one line that names the file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from folders import MANIFEST, commit, names, new, phase, point, trained

import hyperlax
from hyperlax.report.batch import begun, readable
from hyperlax.storage import store
from hyperlax.storage.files import write_atomically
from hyperlax.storage.integrity import write_json
from hyperlax.storage.results import Results

POLICY = "policies/lane-00000.policy"
JOURNAL = "study.journal"
TRIALS = pl.DataFrame({"trial": [0], "state": ["done"]})


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr("hyperlax.storage.reading._PAUSE", 0.0)


def experiment(folder: Path, last: int, complete: bool) -> Path:
    """A run with as many commits, a policy, a study and a table of trials."""
    keeper = new(folder)
    if last:
        write_atomically(folder / POLICY, b"an agent")
    for step in range(1, last + 1):
        with (folder / JOURNAL).open("a") as file:
            file.write(json.dumps({"op": step, "value": 0.1 * step}) + "\n")
        keeper.put("trials", TRIALS)
        keeper.append("curves", [point(step)])
        keeper.append("timeline", [phase(step)])
        commit(keeper, step, [POLICY], [JOURNAL])
    if complete:
        keeper.complete(dict(MANIFEST))
    return folder


def damages(
    content: bytes, path: Path, thorough: bool, emptied: bool
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What can happen to the file `path` with this content: a name, and what does it.

    All of it if `thorough`, else a choice, in which the file is `emptied` or not.
    """
    size = len(content)
    yield "deleted", path.unlink
    lengths = {1, size // 2, size - 1} if thorough else {size // 2}
    for left in sorted({0, *lengths} if thorough or emptied else lengths):
        yield f"truncated to {left}", lambda left=left: path.write_bytes(content[:left])
    places = {0, 9, 45, size // 3, size // 2, size - 9, size - 2} & set(range(size))
    for place in sorted(places if thorough else {size // 2}):
        for bit in (0, 3, 6) if thorough else (3,):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            yield f"bit {bit} of byte {place} flipped", lambda f=bytes(flipped): path.write_bytes(f)


def tables(results: Results) -> dict[str, Any]:
    found = {
        n: getattr(results, n).write_json() for n in ("samples", "lanes", "curves", "timeline", "trials")
    }
    if results.confirmation is not None:
        found["confirmation"] = tables(results.confirmation)
    return {**found, "name": results.manifest["name"]}


def outcome(action: Callable[[], Any]) -> Any:
    """What `action` returns, or the line that it refuses with; anything else that is raised is a failure."""
    try:
        return action()
    except (ValueError, FileNotFoundError) as error:
        line = str(error)
        assert "\n" not in line
        return RuntimeError(line)


def plotted(folder: Path) -> Any:
    """What plot-benchmark reads; the reason if it is nothing."""
    found, problems = readable(begun(store.find(folder))[0])
    if problems:
        raise ValueError(next(iter(problems.values())))
    return {str(path): tables(results) for path, results in found.items()}


def gone_on(folder: Path) -> Any:
    """The results after the run was continued to its end."""
    trained(folder)
    return tables(hyperlax.read(folder))


def claims(name: str) -> bool:
    """Whether the name of a file is all that matters."""
    return "claim-" in name


@pytest.mark.parametrize("thorough", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("last", "complete"),
    [*(pytest.param(n, False, marks=pytest.mark.slow) for n in (0, 1)), (3, False), (4, True)],
)
def test_a_damaged_folder_is_never_silently_wrong(tmp_path, last, complete, thorough):
    """Every file of a run that was just started, killed early, killed late, or is complete."""
    whole = experiment(tmp_path / "whole", last, complete)
    home = tmp_path / "home"
    folder = home / "x"
    shutil.copytree(whole, folder)
    right = {"read": tables(hyperlax.read(folder)), "plot": plotted(home)}
    shutil.copytree(whole, tmp_path / "on")
    right["resume"] = gone_on(tmp_path / "on")
    for name in sorted(names(whole)):
        for how, damage in damages((whole / name).read_bytes(), folder / name, thorough, emptied=False):
            shutil.rmtree(home)
            shutil.copytree(whole, folder)
            damage()
            intact = (folder / name).exists() and _same(whole / name, folder / name)
            found = {
                "read": outcome(lambda: tables(hyperlax.read(folder))),
                "plot": outcome(lambda: plotted(home)),
                "check": outcome(lambda: [p for entry in hyperlax.check(home) for p in entry.problems]),
                "resume": outcome(lambda: gone_on(folder)),
            }
            begins = last == 0 and name in (
                "samples.parquet",
                "samples.csv",
                "manifest.json",
                "checkpoint/manifest-copy.json",
            )
            for action, result in found.items():
                if isinstance(result, RuntimeError):
                    assert Path(name).name in str(result), (name, how, action)
                    assert "; " in str(result), "the way out"
                elif action == "check":
                    assert intact or claims(name) or begins or any(name in p for p in result), (name, how)
                else:
                    assert begins or result == right[action], (name, how, action)


def _same(one: Path, other: Path) -> bool:
    """Whether two files are equal, apart from the white space of JSON."""
    if one.suffix != ".json":
        return one.read_bytes() == other.read_bytes()
    try:
        return json.loads(one.read_text()) == json.loads(other.read_text())
    except ValueError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("evaluations", [9, None])
def test_a_damaged_run_is_continued_to_the_right_results_or_refused(tmp_path, evaluations):
    """A real sweep, killed in the middle or complete: what it learns does not depend on what was damaged."""
    from test_sweep import ARGUMENTS, Crash, assert_same

    whole = hyperlax.sweep(**ARGUMENTS, folder=tmp_path / "whole")
    start, folder = tmp_path / "start", tmp_path / "x"
    if evaluations is None:
        shutil.copytree(tmp_path / "whole", start)
    else:
        how = hyperlax.Execution(folder=start, checkpoint_seconds=0)
        with pytest.raises(KeyboardInterrupt):
            hyperlax.sweep(**ARGUMENTS, execution=how, progress=Crash(evaluations))
    outcomes = {"continued": 0, "refused": 0}
    for name in sorted(names(start)):
        for how, damage in damages((start / name).read_bytes(), folder / name, False, emptied=True):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(start, folder)
            damage()
            found = outcome(lambda: hyperlax.sweep(**ARGUMENTS, folder=folder, resume=True))
            if isinstance(found, RuntimeError):
                assert Path(name).name in str(found), (name, how)
                outcomes["refused"] += 1
            else:
                assert_same(whole, found)
                assert names(folder) == names(tmp_path / "whole"), (name, how)
                outcomes["continued"] += 1
    assert sum(outcomes.values()) == 4 * len(names(start))
    assert outcomes["continued"] > len(names(start))


@pytest.mark.parametrize("cells", [[1], {"a": 1}, {"a": {}}, {"a": {"status": []}}, "x"])
def test_a_record_of_a_benchmark_that_says_nothing_is_named(tmp_path, cells):
    write_json(tmp_path / "benchmark.json", {"cells": cells})
    (found,) = hyperlax.check(tmp_path)
    assert found.state == "damaged"
    assert found.problems == (
        f"{tmp_path / 'benchmark.json'} is damaged: it does not say how far each cell is; remove it: "
        "--resume finds what is done in the cells",
    )
