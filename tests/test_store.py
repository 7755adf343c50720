"""The folder of an experiment holds every row exactly once, whenever and by whomever it is written."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from folders import (
    MANIFEST,
    SAMPLES,
    commit,
    continued,
    killed,
    lanes,
    names,
    new,
    phase,
    point,
    steps,
    trained,
    write,
)

from hyperlax import sweeps
from hyperlax.experiments.execution import Execution
from hyperlax.storage import claims, commits, files, store
from hyperlax.storage.checking import check
from hyperlax.storage.checkpoint import pack
from hyperlax.storage.claims import Superseded
from hyperlax.storage.integrity import Damaged
from hyperlax.storage.results import SCHEMAS, empty
from hyperlax.storage.store import GROWING, Store, read

COMPLETE = {
    "manifest.json",
    "samples.parquet",
    "samples.csv",
    "lanes.parquet",
    "curves.parquet",
    "timeline.parquet",
    "checkpoint/state.bin",
    "checkpoint/manifest-copy.json",
}


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)


# Reading


def test_what_is_committed_can_be_read_while_the_sweep_runs(tmp_path):
    keeper = new(tmp_path)
    assert steps(tmp_path) == []
    write(keeper, 1, 2)
    keeper.append("curves", [point(3)])
    assert steps(tmp_path) == [1, 2], "rows that wait belong to no checkpoint yet"
    keeper.append("timeline", [phase(3)])
    commit(keeper, 3)
    assert steps(tmp_path) == [1, 2, 3]
    assert read(tmp_path).lanes["env_steps"].to_list() == [3]


def test_a_search_that_commits_faster_than_its_parts_are_read_is_not_taken_for_damaged(tmp_path, monkeypatch):
    keeper, frame, count = Store(tmp_path), commits.Commit.frame, itertools.count(1)
    keeper.begin(MANIFEST, None)

    def go_on():
        step = next(count)
        keeper.put("samples", SAMPLES)
        keeper.put("trials", pl.DataFrame({"trial": [step]}))
        write(keeper, step)

    def slow(self, name):
        found = frame(self, name)
        if name == commits.part_name("curves", 1, 1):
            for _ in range(2):  # they remove what belongs to the commit that is read alone
                go_on()
        return found

    go_on()
    monkeypatch.setattr(commits.Commit, "frame", slow)
    results = read(tmp_path)
    assert results.curves["env_steps"].to_list() == [1]
    assert results.lanes.equals(lanes(1))
    assert results.samples.equals(SAMPLES)
    assert results.trials.to_dict(as_series=False) == {"trial": [1]}


def test_tables_have_their_schemas_with_and_without_rows(tmp_path):
    keeper = new(tmp_path)
    write(keeper, 1)
    for _ in range(2):
        results = read(tmp_path)
        for name, schema in SCHEMAS.items():
            assert dict(getattr(results, name).schema) == schema, name
        assert results.episodes.equals(empty("episodes"))
        assert results.manifest["name"] == "ppo_mlp"
        assert results.samples.equals(SAMPLES)
        assert pl.read_csv(tmp_path / "samples.csv").equals(results.samples)
        if keeper.last is not None:
            keeper.complete(dict(MANIFEST))


def test_a_folder_without_an_experiment_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no experiment"):
        read(tmp_path)
    assert store.read_manifest(tmp_path) is None


def test_every_growing_table_has_a_schema():
    assert set(GROWING) | {"lanes"} == set(SCHEMAS)


@pytest.mark.parametrize("name", ["line.py.Line[speed=1e-3]", "run?", "run*"])
def test_a_folder_is_read_whatever_it_is_called(tmp_path, name):
    (tmp_path / "run1").mkdir()
    write(new(tmp_path / "run1"), 7)
    keeper = new(tmp_path / name)
    write(keeper, 1)
    keeper.complete(dict(MANIFEST))
    write(continued(tmp_path / name), 2)
    assert steps(tmp_path / name) == [1, 2]


# Continuing


def test_work_after_the_checkpoint_is_recorded_once(tmp_path):
    keeper = new(tmp_path)
    write(keeper, 1)
    keeper.append("curves", [point(2)])
    again = continued(tmp_path)
    write(again, 2)
    assert steps(tmp_path) == [1, 2]


def test_starting_over_before_the_first_commit_discards_everything(tmp_path, monkeypatch):
    keeper = new(tmp_path)
    keeper.append("curves", [point(1)])
    assert killed(monkeypatch, 3, lambda: commit(keeper, 1))
    assert (tmp_path / "parts").exists()
    assert steps(tmp_path) == []
    again = continued(tmp_path)
    assert again.last is None
    write(again, 5)
    assert steps(tmp_path) == [5]
    assert {commits.attempt_of(n) for n in names(tmp_path) if n.startswith("parts/")} == {2}


def test_the_last_two_commits_are_kept(tmp_path):
    keeper = new(tmp_path)
    for step in range(1, 6):
        write(keeper, step)
    assert commits.saved(tmp_path) == [(1, 5), (1, 4)]
    assert {n for n in names(tmp_path) if "lanes" in n} == {
        commits.part_name("lanes", 1, 5),
        commits.part_name("lanes", 1, 4),
    }


def test_completing_leaves_one_file_per_table_all_of_them_listed(tmp_path):
    keeper = new(tmp_path)
    for i in range(12):
        write(keeper, 2 * i, 2 * i + 1)
    manifest: dict[str, Any] = dict(MANIFEST)
    keeper.complete(manifest)
    assert steps(tmp_path) == list(range(24))
    assert names(tmp_path) == COMPLETE
    assert manifest["files"].keys() == COMPLETE - {"manifest.json", "checkpoint/manifest-copy.json"}


def test_an_interrupted_run_leaves_the_same_bytes(tmp_path):
    """However the rows were spread over commits and attempts; lanes may take turns in another order."""
    both = lambda step: [point(step, lane) for lane in (0, 1)]  # noqa: E731
    keeper = new(tmp_path / "a")
    for step in (1, 2):
        keeper.append("curves", both(step))
    commit(keeper, 2)
    keeper.complete(dict(MANIFEST))
    keeper = new(tmp_path / "b")
    keeper.append("curves", [point(1, 1)])
    commit(keeper, 1)
    keeper = continued(tmp_path / "b")
    keeper.append("curves", [point(2, 1), point(1, 0), point(2, 0)])
    commit(keeper, 2)
    keeper.complete(dict(MANIFEST))
    a, b = ({n: (tmp_path / f / n).read_bytes() for n in names(tmp_path / f)} for f in "ab")
    assert a == b


def test_rows_of_a_continued_experiment_join_those_that_were_complete(tmp_path):
    keeper = new(tmp_path)
    write(keeper, 1)
    keeper.complete(dict(MANIFEST))
    again = continued(tmp_path)
    write(again, 2)
    assert steps(tmp_path) == [1, 2]
    again.complete(dict(MANIFEST))
    assert steps(tmp_path) == [1, 2]
    assert names(tmp_path) == COMPLETE


def test_a_forgotten_lane_leaves_no_row(tmp_path):
    """In a run that is complete and in one that is not; other lanes keep their rows."""
    keeper = new(tmp_path)
    for step in (1, 2):
        keeper.append("curves", [point(step), point(step, 1)])
        commit(keeper, step)
    for lane in (0, 2):
        keeper = continued(tmp_path)
        keeper.forget([lane])
        commit(keeper, 2)
        kept = read(tmp_path).curves
        assert list(zip(kept["lane"], kept["env_steps"], strict=True)) == [(1, 1), (1, 2)]
        keeper.complete(dict(MANIFEST))
        assert read(tmp_path).curves.equals(kept)


def test_policies_that_belong_to_neither_commit_are_removed(tmp_path):
    keeper = new(tmp_path)
    policies = [f"policies/lane-{n:05d}.policy" for n in range(3)]
    for name in policies:
        files.write_atomically(tmp_path / name, name)
    (tmp_path / "policies" / "mine.policy").write_text("by hand")
    commit(keeper, 1, policies[:2])
    assert {p for p in names(tmp_path) if p.startswith("policies")} == {*policies[:2], "policies/mine.policy"}
    commit(keeper, 2, policies[:1])
    assert (tmp_path / policies[1]).exists(), "the commit before has it"
    keeper.complete(dict(MANIFEST))
    assert {p for p in names(tmp_path) if p.startswith("policies")} == {policies[0], "policies/mine.policy"}


# Killed at any moment


def test_a_kill_after_any_file_operation_loses_and_repeats_nothing(tmp_path, monkeypatch):
    """The folder can always be read, and continued to the files of a run that was never killed."""
    trained(tmp_path / "whole", 2)
    whole = {n: (tmp_path / "whole" / n).read_bytes() for n in names(tmp_path / "whole")}
    operations = 0
    for operations in itertools.count():
        folder = tmp_path / str(operations)
        run = lambda folder=folder: trained(folder, 2)  # noqa: E731
        if not killed(monkeypatch, operations, run):
            break
        seen = steps(folder) if store.read_manifest(folder) is not None else []
        assert seen == list(range(1, len(seen) + 1))
        assert killed(monkeypatch, operations % 7, run), "and soon again"
        trained(folder, 2)
        assert {n: (folder / n).read_bytes() for n in names(folder)} == whole, operations
        shutil.rmtree(folder)
    assert operations > 40


def test_a_folder_in_which_nothing_has_begun_can_be_started(tmp_path):
    assert store.nothing_begun(tmp_path / "none")
    (tmp_path / "checkpoint").mkdir()
    for name in (".manifest.json.k3v_9xq2.tmp", "hyperlax.log", "checkpoint/claim-000001.json"):
        (tmp_path / name).write_text("half a fi")
    assert store.nothing_begun(tmp_path)
    write(new(tmp_path), 1)
    assert steps(tmp_path) == [1]
    assert not any(n.endswith(".tmp") for n in names(tmp_path)), "what the dead have left is cleared"
    assert not store.nothing_begun(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    assert not store.nothing_begun(tmp_path / "other")


# Several writers


def test_of_two_fresh_starts_one_gets_the_folder(tmp_path):
    new(tmp_path)
    with pytest.raises(ValueError, match="another process has just started"):
        new(tmp_path)


def test_a_start_that_comes_after_the_check_takes_nothing_over(tmp_path, monkeypatch):
    """The other process begins when this one has looked at the folder, and before it makes its own."""
    spec = sweeps.prepare("ppo_mlp", "gymnax.cartpole", run_length_modifier="quick", num_samples=1)
    others = []

    def check(spec, how):
        others.append(new(tmp_path))
        return tmp_path

    monkeypatch.setattr(sweeps, "check", check)
    with pytest.raises(ValueError, match="another process has just started"):
        sweeps.run(spec, Execution(folder=tmp_path))
    write(others[0], 1)
    assert steps(tmp_path) == [1]


def test_whoever_was_taken_over_leaves_and_no_row_is_lost(tmp_path):
    first = new(tmp_path)
    write(first, 1)
    second = continued(tmp_path)
    first.append("curves", [point(9)])
    for leave in (lambda: commit(first, 9), lambda: first.complete({}), lambda: first.write_manifest({})):
        with pytest.raises(Superseded, match=r"process \d+ on .* has taken over"):
            leave()
    write(second, 2)
    third = continued(tmp_path)
    with pytest.raises(Superseded):
        write(second, 3)
    write(third, 3)
    third.complete(dict(MANIFEST))
    assert steps(tmp_path) == [1, 2, 3]
    with pytest.raises(Superseded, match="another process has taken over"):
        commit(second, 3)
    assert names(tmp_path) == COMPLETE


def test_a_writer_that_is_overtaken_while_it_writes_does_no_harm(tmp_path, monkeypatch):
    """It has looked for claims just before the other came: its files have names of their own."""
    first = new(tmp_path)
    write(first, 1)
    with monkeypatch.context() as patched:
        patched.setattr(claims.Claim, "check", lambda _: None)
        second = continued(tmp_path)
        write(first, 2)
        write(second, 2)
        assert steps(tmp_path) == [1, 2]
        write(second, 3)
        second.complete(dict(MANIFEST))
        write(first, 3)
        assert steps(tmp_path) == [1, 2, 3]
        trained(tmp_path)
        assert steps(tmp_path) == [1, 2, 3, 4]


def test_whoever_ends_while_another_takes_over_leaves_its_files_alone(tmp_path, monkeypatch):
    first = new(tmp_path)
    write(first, 1)
    second = continued(tmp_path)
    monkeypatch.setattr(claims.Claim, "check", lambda _: None)
    first.complete(dict(MANIFEST))
    assert steps(tmp_path) == [1]
    write(second, 2)
    second.complete(dict(MANIFEST))
    assert steps(tmp_path) == [1, 2]
    assert names(tmp_path) == COMPLETE


@pytest.mark.parametrize("links", [True, False])
def test_one_of_many_creates_a_file(tmp_path, monkeypatch, links):
    """Also on file systems that have no links."""
    if not links:

        def refuse(*_):
            raise PermissionError(1, "no links here")

        monkeypatch.setattr(os, "link", refuse)
    made = [files.create(tmp_path / "x", str(n)) for n in range(3)]
    assert made == [True, False, False]
    assert (tmp_path / "x").read_text() == "0"
    assert names(tmp_path) == {"x"}


def test_a_link_whose_answer_was_lost_counts(tmp_path, monkeypatch):
    link = os.link

    def lost(*paths):
        link(*paths)
        raise FileExistsError

    monkeypatch.setattr(os, "link", lost)
    assert files.create(tmp_path / "x", "mine")


def test_a_temporary_file_that_another_process_clears_is_written_again(tmp_path, monkeypatch):
    replace, cleared = os.replace, []

    def clear(source, target):
        if not cleared:
            cleared.append(source)
            os.unlink(source)
        return replace(source, target)

    monkeypatch.setattr(os, "replace", clear)
    files.write_atomically(tmp_path / "x", "content")
    assert cleared
    assert (tmp_path / "x").read_text() == "content"


# Damage


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["state", "lanes"])
@pytest.mark.parametrize("how", [damage, Path.unlink, lambda p: p.write_bytes(b"")])
def test_after_a_damaged_commit_the_one_before_is_offered(tmp_path, kind, how):
    keeper = new(tmp_path)
    for step in (1, 2, 3):
        write(keeper, step)
    name = commits.state_name(1, 3) if kind == "state" else commits.part_name("lanes", 1, 3)
    how(tmp_path / name)
    with pytest.raises(
        Damaged, match=r"--resume continues from the checkpoint before, at 2 env steps"
    ) as why:
        read(tmp_path)
    assert str(why.value).startswith(f"{tmp_path / name} is ")
    again = continued(tmp_path)
    assert len(again.notes) == 1
    assert again.notes[0].endswith("going on from the checkpoint before, at 2 env steps")
    write(again, 3)
    assert steps(tmp_path) == [1, 2, 3]


def test_samples_that_another_version_of_polars_wrote_stay_as_they_are(tmp_path, monkeypatch):
    write(new(tmp_path), 1)
    before = (tmp_path / "samples.parquet").read_bytes()
    monkeypatch.setattr(store, "sample_files", lambda _: {"samples.parquet": b"", "samples.csv": b""})
    again = Store(tmp_path)
    again.take(SAMPLES)
    again.restore()
    write(again, 2)
    assert not again.notes
    assert (tmp_path / "samples.parquet").read_bytes() == before
    assert steps(tmp_path) == [1, 2]


@pytest.mark.parametrize("name", [commits.part_name("lanes", 1, 1), "samples.parquet", "samples.csv"])
@pytest.mark.parametrize("how", [damage, Path.unlink])
def test_what_is_written_again_anyway_does_not_stop_a_run_with_one_commit(tmp_path, name, how):
    write(new(tmp_path), 1)
    how(tmp_path / name)
    (entry,) = check(tmp_path)
    assert len(entry.problems) == 1
    assert entry.problems[0].endswith("; the command that made the folder writes it again with --resume")
    again = Store(tmp_path)
    again.take(SAMPLES)
    again.restore()
    for step in (2, 3):
        write(again, step)
    assert steps(tmp_path) == [1, 2, 3]
    assert read(tmp_path).lanes.equals(lanes(3))
    assert not check(tmp_path)[0].problems


def test_a_damaged_manifest_is_restored_from_its_copy(tmp_path, caplog):
    write(new(tmp_path), 1)
    before = (tmp_path / "manifest.json").read_text()
    for text in (None, "", "{", "[]", before.replace("ppo_mlp", "ppo_mlq")):
        (tmp_path / "manifest.json").unlink()
        if text is not None:
            (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(Damaged, match=r"--resume restores it from checkpoint/manifest-copy\.json"):
            read(tmp_path)
        continued(tmp_path)
        assert json.loads((tmp_path / "manifest.json").read_text()) == json.loads(before)
        assert "going on with its copy" in caplog.text
        assert store.find(tmp_path) == [tmp_path]


@pytest.mark.parametrize("name", sorted(COMPLETE - {"samples.csv", "checkpoint/manifest-copy.json"}))
def test_a_damaged_file_of_a_complete_run_is_named(tmp_path, name):
    keeper = new(tmp_path)
    write(keeper, 1)
    keeper.complete(dict(MANIFEST))
    damage(tmp_path / name)
    if name != "checkpoint/state.bin":
        with pytest.raises(Damaged, match=f"{name} is damaged: .*; ") as why:
            read(tmp_path)
        assert "\n" not in str(why.value)
    ways = {
        "curves.parquet": "--resume --retrain-damaged trains every lane again",
        "timeline.parquet": "--resume --retrain-damaged goes on without it",
        "checkpoint/state.bin": "can still be read and drawn; to go on from them train again, in another",
    }
    if name in ways:
        with pytest.raises(Damaged, match=ways[name]):
            continued(tmp_path)
    else:
        trained(tmp_path)
        assert steps(tmp_path) == [1, 2, 3, 4]


def test_crafted_names_do_not_leave_the_folder(tmp_path):
    write(new(tmp_path), 1)
    own = {"attempt": 1, "number": 1, "tables": {"curves": ["../x.parquet"]}, "files": {}, "grown": {}}
    (tmp_path / commits.state_name(1, 1)).write_bytes(pack([], lanes=[], commit=own))
    with pytest.raises(Damaged, match="its header does not describe a commit"):
        read(tmp_path)


# Folders of older versions


def older(folder) -> None:
    """A killed run as older versions left it: a table of parts 1 and 2, further parts, and half a file."""
    (folder / "parts").mkdir(parents=True)
    (folder / "checkpoint").mkdir()
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    SAMPLES.write_parquet(folder / "samples.parquet")
    lanes(3).write_parquet(folder / "lanes.parquet")
    for table, row in (("curves", point), ("timeline", phase)):
        frame = lambda *rows, row=row, table=table: pl.DataFrame(  # noqa: E731
            [row(r) for r in rows], schema=SCHEMAS[table]
        )
        frame(1, 2).write_parquet(folder / f"{table}.parquet", metadata={"parts": "2"})
        for part in (2, 3, 4):
            frame(part).write_parquet(folder / "parts" / f"{table}-{part:06d}.parquet")
    (folder / "parts" / ".curves-000005.parquet.abcdefgh.tmp").write_bytes(b"half a fi")
    content = pack([np.arange(3)], parts=3, lanes=[{"lane": 0, "env_steps": 3}])
    (folder / "checkpoint" / "state.bin").write_bytes(content)


def test_folders_of_older_versions_are_read_and_continued(tmp_path):
    older(tmp_path)
    assert steps(tmp_path) == [1, 2, 3]
    write(continued(tmp_path), 4)
    assert steps(tmp_path) == [1, 2, 3, 4]
    trained(tmp_path)
    assert steps(tmp_path) == [1, 2, 3, 4]
    assert names(tmp_path) == COMPLETE


def test_a_column_that_an_older_version_left_out_is_null(tmp_path):
    older(tmp_path)
    path = tmp_path / "parts" / "timeline-000003.parquet"
    pl.read_parquet(path).drop("program").write_parquet(path)
    assert read(tmp_path).timeline["program"].to_list() == [0, 0, None]


@pytest.mark.parametrize("name", ["curves.parquet", "lanes.parquet", "parts/curves-000003.parquet"])
def test_a_torn_file_of_an_older_version_is_named(tmp_path, name):
    older(tmp_path)
    content = (tmp_path / name).read_bytes()
    for torn in (b"", content[:9], content[: len(content) // 2]):
        (tmp_path / name).write_bytes(torn)
        with pytest.raises(Damaged, match=f"{name} is damaged: it is not a table"):
            read(tmp_path)
