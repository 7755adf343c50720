"""Results that were lost with damaged files are had again by training their lanes again, and only these."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from fake_runner import StillRunner
from folders import MANIFEST, commit, new, phase, point
from snapshots import KINDS, RECIPES, Kind, Snapshots, _exit_code, contents, differences

import hyperlax
from hyperlax.commands.flags import Running
from hyperlax.experiments.samples import Lane
from hyperlax.run.again import Outcome, Repetition
from hyperlax.schedules import Schedule
from hyperlax.storage.files import write_atomically
from hyperlax.storage.integrity import Damaged
from hyperlax.storage.repairing import repairing
from hyperlax.storage.restoring import in_words
from hyperlax.storage.store import Store
from hyperlax.storage.wording import counted

CACHE = str(Path(__file__).parents[1] / ".jax_cache")


def begun(folder: Path) -> Store:
    """A run of three lanes with three commits: lanes 0 and 1 are measured in the first, 2 in the second."""
    keeper = new(folder)
    for number, lanes in enumerate([(0, 1), (2,), ()], 1):
        for lane in lanes:
            keeper.append("curves", [point(number, lane)])
            row = {"lane": lane, "env_steps": number, "mode": "deterministic", "episode": 0}
            keeper.append("episodes", [{**row, "return": 1.0, "length": 1}])
        keeper.append("timeline", [phase(number)])
        write_atomically(folder / "policies/lane-00001.policy", b"an agent")
        keeper.put("lanes", hyperlax.read(folder).lanes)
        about = [{"lane": lane, "env_steps": number} for lane in range(3)]
        keeper.commit([], {"lanes": about}, ["policies/lane-00001.policy"])
    return keeper


def opened(folder: Path) -> Store:
    keeper = Store(folder)
    keeper.take()
    return keeper


@pytest.mark.parametrize(
    ("damaged", "lost"),
    [
        (["parts/curves-000001-000001.parquet"], {0, 1}),
        (["parts/episodes-000001-000002.parquet"], {2}),
        (["policies/lane-00001.policy"], {1}),
        (["parts/curves-000001-000002.parquet", "parts/episodes-000001-000002.parquet"], {0, 1, 2}),
        (["parts/timeline-000001-000001.parquet"], set()),
    ],
)
def test_exactly_the_lanes_in_damaged_files_are_lost(tmp_path, damaged, lost):
    """A part of one table tells which lanes were in that of the other; with both gone, all count."""
    begun(tmp_path)
    whole = {name: (tmp_path / name).read_bytes() for name in damaged}
    for name in damaged:
        (tmp_path / name).write_bytes(whole[name][:-3])
    if lost:
        with pytest.raises(Damaged, match=f"--retrain-damaged {in_words(lost)} trained again"):
            opened(tmp_path).restore()
    keeper = opened(tmp_path)
    found = keeper.restore(mend=True)
    assert found is not None
    assert found.lost == lost
    assert {path.relative_to(tmp_path).as_posix() for path in found.damaged} == set(damaged)
    keeper.forget(found.lost, ["policies/lane-00001.policy"])
    commit(keeper, 3)
    assert set(hyperlax.read(tmp_path).curves["lane"]) == {0, 1, 2} - lost
    for name in damaged:
        assert (tmp_path / "damaged" / Path(name).name).read_bytes() == whole[name][:-3]
    assert [entry.problems for entry in hyperlax.check(tmp_path)] == [()]
    keeper.complete(dict(MANIFEST))
    (checked,) = hyperlax.check(tmp_path)
    assert f"{counted(len(damaged), 'damaged file')} in damaged/" in checked.notes[0]


def test_a_damaged_journal_or_the_only_checkpoint_is_beyond_training(tmp_path):
    begun(tmp_path)
    for path in (tmp_path / "checkpoint").glob("state-*.bin"):
        path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="no other checkpoint is left: train again, in another folder"):
        opened(tmp_path).restore(mend=True)


def test_lanes_are_named_in_spans():
    assert in_words({4}) == "lane 4 is"
    assert in_words({0, 1, 2, 5, 7, 8}) == "lanes 0 to 2, 5 and 7 to 8 are"
    assert in_words(()) == "nothing is"


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("hyperlax sweep-hp-samples --seed 3", "hyperlax sweep-hp-samples --seed 3 --resume-from {}"),
        ("hyperlax run-single-hp --output-root=a --resume", "hyperlax run-single-hp --resume-from {}"),
        (
            "hyperlax run-single-hp --resume-from x --seed 1",
            "hyperlax run-single-hp --seed 1 --resume-from {}",
        ),
    ],
)
def test_the_command_that_trains_again_is_the_one_of_the_manifest(tmp_path, typed, told):
    folder = tmp_path / "with space"
    manifest = {"command": shlex.split(typed)}
    told = f"cd {shlex.quote(str(Path.cwd()))} && {told.format(shlex.quote(str(folder)))}"
    assert repairing(folder, manifest, ["x is damaged; do it with --resume"]) == told
    mended = ["x is damaged; --resume --retrain-damaged does it"]
    assert repairing(folder, manifest, mended) == f"{told} --retrain-damaged"
    assert repairing(folder, manifest, ["x is damaged; restore it from a backup"]) == ""
    assert "retrain_damaged=True" in repairing(folder, {"command": ["mine.py"]}, mended)
    above = {**manifest, "confirms": {"best": 2}}
    assert repairing(folder / "confirmation", above, mended) == f"{told} --retrain-damaged"


@pytest.mark.parametrize(
    ("before", "now", "differs"),
    [
        (math.nan, math.nan, False),
        (1.0, 1.0, False),
        (None, None, False),
        (math.nan, 1.0, True),
        (1.0, math.nan, True),
        (None, math.nan, True),
    ],
)
def test_a_lane_ends_as_it_had_if_its_last_return_was_no_number_either(before, now, differs):
    lane = Lane(0, 0, 0, status="diverged", env_steps=10, diverged_at=10)
    repeated = Repetition(Schedule(), {0: Outcome(dataclasses.replace(lane), before)})
    runner = StillRunner(None, repeated, [lane])
    if now is not None:
        runner.last_return[0] = now
    repeated.ended(runner, lane)
    assert repeated.differing == [0] * differs


def test_training_again_is_asked_for_with_resume():
    with pytest.raises(ValueError, match="--retrain-damaged continues an experiment: add --resume"):
        Running(retrain_damaged=True).execution()
    assert Running(retrain_damaged=True, resume=True).execution().retrain_damaged


# Every kind of experiment


def typed(kind: Kind, root: Path, *more: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        assert _exit_code([*kind.line(root, bool(more)), *more]) == 0, said.getvalue()


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with the recipes, which is the current one; reports take a second each and are stand-ins."""
    monkeypatch.setenv("HYPERLAX_CACHE_DIR", CACHE)
    monkeypatch.chdir(tmp_path)
    for module in ("hyperlax.report", "hyperlax.studies.benchmark"):
        monkeypatch.setattr(f"{module}.write_report", lambda results, path: write_atomically(path, "report"))
    (tmp_path / "recipes.py").write_text(RECIPES)
    return tmp_path


def _found(root: Path) -> dict[str, Any]:
    """What is there, without the files that were set aside and how the work was spread over slots."""
    for folder in root.rglob("damaged"):
        shutil.rmtree(folder)
    found = contents(root)
    for about in found:
        if about.endswith("checkpoint"):
            found[about].pop("seating", None)
    return found


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_experiment_has_again_what_was_damaged(kind, place):
    """Complete ones with a damaged policy, or damaged curves, end as they were; so do those below them."""
    root = place / "root"
    if KINDS[kind].folder != Path():
        root.mkdir()  # for a study beside the experiment
    typed(KINDS[kind], root)
    expected = _found(root)
    shutil.copytree(root, place / "whole")
    for name in ("policies/*.policy", "curves.parquet", "episodes.parquet"):
        shutil.rmtree(root)
        shutil.copytree(place / "whole", root)
        for path in sorted(root.rglob(name))[-1:]:
            path.write_bytes(path.read_bytes()[:-5])
        assert any(entry.problems for entry in hyperlax.check(root))
        typed(KINDS[kind], root, "--retrain-damaged")
        assert not differences(expected, _found(root)), name
        assert not any(entry.problems for entry in hyperlax.check(root))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["ppo", "asha", "pbt", "pruned"])
def test_unfinished_experiments_have_again_what_was_damaged(kind, place):
    """A part is lost that both checkpoints need; the rest goes on as it would have, those lanes follow."""
    root = place / "root"
    with Snapshots(root, place / "moments") as taken:
        typed(KINDS[kind], root)
    expected = _found(root)
    torn = [m for m in taken.folders if len(list(m.rglob("parts/curves-*.parquet"))) > 2]
    assert len(torn) > 5
    for moment in torn[:: len(torn) // 3]:
        shutil.rmtree(root)
        shutil.copytree(moment, root)
        min(root.rglob("parts/curves-*.parquet")).unlink()
        typed(KINDS[kind], root, "--retrain-damaged")
        assert not differences(expected, _found(root)), moment
        assert not any(entry.problems for entry in hyperlax.check(root))
