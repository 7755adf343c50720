"""`merge`, killed after any file operation and entered again; lanes that are tried again after merging."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from snapshots import RECIPES, Snapshots, contents, differences, files, set_aside

import hyperlax
from hyperlax.cluster import mending, merging, state, sweep
from hyperlax.cluster.sweep import Sweep
from hyperlax.commands.main import main
from hyperlax.run.slots import Slots
from hyperlax.storage import store
from hyperlax.storage.claims import Superseded
from hyperlax.storage.files import write_atomically
from hyperlax.storage.places import PLAN

CACHE = str(Path(__file__).parents[1] / ".jax_cache")
SWEEP = "sweep-hp-samples --algo-and-network-config recipes.py:ppo --env-config gymnax.cartpole"
KINDS = {
    "sweep": f"{SWEEP} --num-samples 3 --units 3",
    "search": "optuna-hp-search --algo-and-network-config recipes.py:ppo --env-config gymnax.cartpole "
    "--n-trials 6 --sampler random --seeds 1 --units 2",
    "benchmark": "run-benchmark --algos recipes.py:ppo recipes.py:dqn --envs gymnax.cartpole "
    "--num-samples-per-run 2 --run-length-modifier 96 --units 4",
}
"""Command lines of experiments that are cut into units."""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """A folder with the recipes, which is the current one; reports take a second each and are stand-ins."""
    monkeypatch.setenv("HYPERLAX_CACHE_DIR", CACHE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "hyperlax.report.write_report", lambda results, path: write_atomically(path, "report")
    )
    (tmp_path / "recipes.py").write_text(RECIPES)
    return tmp_path


def entered(*words: str | Path) -> int:
    """The exit code of a command line."""
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return int(left.value.code or 0)


def planned(command: str, place: Path) -> Sweep:
    """A sweep of which nothing is trained."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hyperlax.commands.spread.work_here", lambda *_: 0)
        assert entered(*command.split(), "--tasks", "1", "--output-root", place / "root") == 0
    return sweep.needed(next((place / "root").rglob(PLAN)).parent)


@pytest.fixture
def trained(place) -> Callable[[str], Sweep]:
    """For a command line, a sweep whose units are trained."""

    def of(command: str) -> Sweep:
        found = planned(command, place)
        assert entered("unit", "run", found.root) == 0
        return found

    return of


def injected(*_: Any) -> None:
    raise RuntimeError("injected")


def everything(root: Path) -> dict[str, Any]:
    """The results below `root`, and the names of all files."""
    listed = {
        f"{path.relative_to(root)} files": json.loads(path.read_text())["files"]
        for path in root.rglob(store.MANIFEST)
    }
    return {**contents(root), **listed, "names": [str(path.relative_to(root)) for path in files(root)]}


def campaign(found: Sweep, place: Path, most: int | None = None) -> int:
    """Merge, then again from `most` evenly spread moments of that, or from all; how many there are."""
    with Snapshots(found.root, place / "moments") as taken:
        assert entered("merge", found.root) == 0
    expected = everything(found.root)
    assert not [name for name in expected["names"] if name.endswith(".tmp")]
    number = len(taken.folders)
    chosen = range(number) if most is None else [(2 * i + 1) * number // (2 * most) for i in range(most)]
    for moment in [taken.folders[i] for i in chosen]:
        with set_aside(found.root):
            shutil.copytree(moment, found.root, symlinks=True)
            assert entered("merge", found.root) == 0, moment.name
            assert not (wrong := differences(expected, everything(found.root))), (moment.name, wrong)
    return number


def test_a_merge_that_was_killed_is_finished_by_the_next(trained, place):
    """The report and the removal of what was merged included; the slow test below takes every moment."""
    assert campaign(trained(KINDS["sweep"]), place, most=8) >= 40


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_a_merge_that_was_killed_at_any_moment_is_finished_by_the_next(trained, place, kind):
    assert campaign(trained(KINDS[kind]), place) >= 40


@pytest.mark.parametrize("when", ["refuse", "refuse_merged"])
def test_of_two_that_merge_the_same_the_later_one_does_it(trained, place, monkeypatch, when):
    """Whether the other one begins before the tables are written or after that."""
    found = trained(KINDS["sweep"])
    with set_aside(found.root):
        shutil.copytree(found.root.with_name("whole"), found.root)
        assert entered("merge", found.root) == 0
        expected = everything(found.root)
    real, left = getattr(mending, when), [1]

    def overtaken(*about: Any) -> None:
        real(*about)
        if left:
            left.clear()
            assert entered("merge", found.root) == 0

    monkeypatch.setattr(mending, when, overtaken)
    with pytest.raises(Superseded):
        merging.merge(found, 0)
    assert not differences(expected, everything(found.root))


@pytest.mark.parametrize(
    ("others", "named"),
    [
        pytest.param(0, False, marks=pytest.mark.slow),
        pytest.param(1, False, marks=pytest.mark.slow),
        (1, True),
    ],
)
def test_lanes_that_have_failed_are_tried_again_after_merging(trained, place, monkeypatch, others, named):
    """In the merged folder, once for all units, whichever is `named`, and its report is written again."""
    whole = trained(KINDS["sweep"])
    assert entered("merge", whole.root) == 0
    expected = contents(whole.root)
    shutil.rmtree(place / "root")

    found = planned(KINDS["sweep"], place)
    for number, unit in enumerate(found.units):
        with monkeypatch.context() as patch:
            if number <= others:
                patch.setattr(Slots, "advance", injected)
            assert entered("unit", "run", found.root, unit.name) == 0
    assert entered("merge", found.root) == 0
    lanes = hyperlax.read(found.root).lanes
    assert lanes.filter(status="failed").height == 2 * (1 + others)
    assert [u.state for u in state.look(found).units] == ["failed"] * (1 + others) + ["done"] * (2 - others)
    (found.root / store.REPORT).write_text("of what was there before")

    names = [found.units[1].name] if named else []
    assert entered("unit", "run", found.root, *names, "--retry-failed") == 0
    assert (found.root / store.REPORT).read_text() == "report"
    assert [u.state for u in state.look(found).units] == ["done"] * 3
    assert entered("merge", found.root) == 0
    found_again = contents(found.root)
    for about in (expected, found_again):
        about[". checkpoint"].pop("seating")  # how long the schedule has worked
    assert not differences(expected, found_again)


def test_lanes_that_fail_again_after_merging_are_said(trained, place, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Slots, "advance", injected)
        found = trained(KINDS["sweep"])
        assert entered("merge", found.root) == 0
        for _ in range(2):
            assert entered("unit", "run", found.root, "--retry-failed") == 0
            seen = state.look(found)
            assert [u.why for u in seen.units if u.state == "failed"] == ["6 of 6 lanes failed"]
    assert entered("unit", "run", found.root, "--retry-failed") == 0
    assert set(hyperlax.read(found.root).lanes["status"]) == {"done"}


def test_lanes_that_the_command_itself_tries_again_after_merging_count_no_longer(trained, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Slots, "advance", injected)
        found = trained(KINDS["sweep"])
        assert entered("merge", found.root) == 0
    merged = hyperlax.read(found.root).manifest["timings"]["programs"]
    assert [u.state for u in state.look(found).units] == ["failed"] * 3
    again = ["--tasks", "1", "--output-root", found.root.parents[1], "--resume"]
    assert entered(*KINDS["sweep"].split(), *again) == 0
    results = hyperlax.read(found.root)
    assert set(results.lanes["status"]) == {"done"}
    assert [u.state for u in state.look(found).units] == ["done"] * 3
    noted = results.manifest["timings"]["programs"]
    assert noted[: len(merged)] == merged, "what the units say of their programs stays"
    assert {entry["unit"] for entry in merged} == {u.name for u in found.units}


def test_experiments_of_a_single_unit_get_their_reports_too(trained):
    found = trained(f"{SWEEP} --num-samples 2 --scheduler asha --set scheduler.reduction_factor=2")
    assert found.units[0].whole
    assert entered("merge", found.root) == 0
    assert (found.root / store.REPORT).read_text() == "report"
