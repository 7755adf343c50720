"""Checkpoints that are written while the run goes on hold what was there when they were begun."""

from __future__ import annotations

import itertools
import shutil
import threading
from functools import partial

import numpy as np
import pytest
from folders import MANIFEST, continued, killed, lanes, names, new, phase, point, steps, trained, write

import hyperlax
from hyperlax import Execution
from hyperlax.programs import compiled
from hyperlax.run import slots
from hyperlax.run.display import Display
from hyperlax.storage import behind, files, store
from hyperlax.storage.aside import Aside
from hyperlax.storage.checkpoint import read_header_of
from hyperlax.storage.claims import Superseded
from hyperlax.storage.store import Store


@pytest.fixture
def gate(monkeypatch) -> threading.Event:
    """Every checkpoint counts as large, and is written when the event is set."""
    opened = threading.Event()

    def write(path, content):
        assert opened.wait(30)
        return files.write_atomically(path, content)

    monkeypatch.setattr(behind, "LARGE", 0)
    monkeypatch.setattr(behind, "write_atomically", write)
    return opened


def begin(keeper: Store, step: int, policies=(), states=None) -> None:
    """Begin a commit with a row in two tables."""
    keeper.append("curves", [point(step)])
    keeper.append("timeline", [phase(step)])
    keeper.put("lanes", lanes(step))
    header = {"lanes": [{"lane": 0, "env_steps": step}]}
    keeper.commit([np.arange(step)] if states is None else states, header, policies, behind=True)


def committed(keeper: Store, step: int) -> None:
    """Begin a commit and wait until it counts."""
    begin(keeper, step)
    keeper.settle()


def test_a_commit_counts_when_it_is_written_and_later_rows_belong_to_the_next(tmp_path, gate):
    keeper = new(tmp_path)
    begin(keeper, 1)
    keeper.append("curves", [point(2)])
    keeper.append("timeline", [phase(2)])
    assert (keeper.settle(wait=False), steps(tmp_path)) == (False, [])
    gate.set()
    assert keeper.settle()
    assert keeper.settle(wait=False)
    assert steps(tmp_path) == [1]
    begin(keeper, 3)
    begin(keeper, 4)  # waits for the one before
    keeper.complete(dict(MANIFEST))
    assert steps(tmp_path) == [1, 2, 3, 4]


def test_a_small_checkpoint_is_written_at_once(tmp_path):
    keeper = new(tmp_path)
    begin(keeper, 1)
    assert steps(tmp_path) == [1]


def test_what_is_written_is_what_was_there(tmp_path, gate):
    """The run changes its arrays and lists at once."""
    keeper = new(tmp_path)
    states, header = [np.arange(3)], {"lanes": [{"lane": 0, "env_steps": 1}]}
    keeper.commit(states, header, behind=True)
    states[0][:] = 7
    header["lanes"][0]["env_steps"] = 9
    gate.set()
    keeper.settle()
    assert keeper.last is not None
    path = tmp_path / keeper.last.name
    assert read_header_of(path)["lanes"] == [{"lane": 0, "env_steps": 1}]
    assert path.read_bytes().endswith(np.arange(3).tobytes())


def test_policies_that_are_written_meanwhile_stay(tmp_path, gate):
    """Whether they are new, or replace one that the commit before last was the last to have."""
    keeper = new(tmp_path)
    old, kept, fresh = (f"policies/lane-{n:05d}.policy" for n in range(3))
    for name in (old, kept):
        files.write_atomically(tmp_path / name, "before")
    begin(keeper, 1, [kept])
    for name in (old, fresh):
        files.write_atomically(tmp_path / name, "meanwhile")
    gate.set()
    keeper.settle()
    begin(keeper, 2, [old, kept, fresh])
    keeper.complete(dict(MANIFEST))
    found = {name: (tmp_path / name).read_text() for name in (old, kept, fresh)}
    assert found == {old: "meanwhile", kept: "before", fresh: "meanwhile"}


@pytest.mark.parametrize("error", [MemoryError, OSError])
def test_the_rows_of_a_commit_that_could_not_be_written_are_in_the_next(tmp_path, gate, monkeypatch, error):
    keeper = new(tmp_path)
    gate.set()
    with monkeypatch.context() as patched:

        def fail(path, content):
            raise error("no room")

        patched.setattr(behind, "write_atomically", fail)
        with pytest.raises(error, match="no room"):
            committed(keeper, 1)
    assert steps(tmp_path) == []
    begin(keeper, 2)
    keeper.complete(dict(MANIFEST))
    assert steps(tmp_path) == [1, 2]


def test_an_interruption_ends_the_waiting_and_not_the_writing(tmp_path, gate, monkeypatch):
    keeper = new(tmp_path)
    begin(keeper, 1)
    with monkeypatch.context() as patched:

        def interrupted(*_):
            raise KeyboardInterrupt

        patched.setattr("concurrent.futures.Future.result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            keeper.settle()
    assert not keeper.settle(wait=False)
    gate.set()
    keeper.settle()
    assert steps(tmp_path) == [1]


def test_whoever_is_taken_over_while_a_checkpoint_is_written_leaves(tmp_path, gate):
    """The other goes on from the commit before, and nothing of it is touched."""
    gate.set()
    first = new(tmp_path)
    write(first, 1)
    gate.clear()
    begin(first, 2)
    second = continued(tmp_path)
    gate.set()
    write(second, 3)
    before = {n: (tmp_path / n).read_bytes() for n in names(tmp_path) if "state-000001" not in n}
    with pytest.raises(Superseded, match="has taken over"):
        first.settle()
    assert {n: (tmp_path / n).read_bytes() for n in before} == before
    second.complete(dict(MANIFEST))
    assert steps(tmp_path) == [1, 3]


def test_a_kill_after_any_file_operation_loses_and_repeats_nothing(tmp_path, gate, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)
    gate.set()
    finish = partial(trained, last=3, write=begin)
    finish(tmp_path / "whole")
    whole = {n: (tmp_path / "whole" / n).read_bytes() for n in names(tmp_path / "whole")}
    operations = 0
    for operations in itertools.count():
        folder = tmp_path / str(operations)
        if not killed(monkeypatch, operations, partial(finish, folder)):
            break
        seen = steps(folder) if store.read_manifest(folder) is not None else []
        assert seen == list(range(1, len(seen) + 1))
        finish(folder)
        assert {n: (folder / n).read_bytes() for n in names(folder)} == whole, operations
        shutil.rmtree(folder)
    assert operations > 40


# Whole sweeps


SWEEP = {
    "recipe": "dqn_mlp",
    "env": "gymnax.cartpole",
    "num_samples": 2,
    "run_length_modifier": "quick",
    "total_timesteps": 200,
    "seeds": 2,
    "eval_episodes": 2,
    "evaluations": 3,
    "set": {"buffer_size": 20_000, "update_to_data": 0.5},
}


class Crash(Display):
    """Raises KeyboardInterrupt at the evaluation number `left`."""

    def __init__(self, left: int):
        self.left = left

    def evaluated(self, lane, score) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def table(results: hyperlax.Results):
    return results.curves.sort("lane", "env_steps", "metric").drop("seconds")


@pytest.fixture(params=["host", "aside"])
def held(request, monkeypatch) -> str:
    """Where a checkpoint waits to be written, however small it is: on the host, or on the device."""
    monkeypatch.setattr(behind, "LARGE", 0)
    if request.param == "aside":
        monkeypatch.setattr(compiled, "SMALL_STATE", 0)
        monkeypatch.setattr(slots, "spare_memory", lambda device: 2**40)
    return request.param


@pytest.mark.parametrize(
    ("held", "evaluations"), [("host", 6), ("host", 10), ("aside", 6)], indirect=["held"]
)
def test_a_sweep_whose_checkpoints_are_written_behind_resumes_bitwise(tmp_path, held, evaluations):
    """Every segment ends in one that is still being written in the next."""
    how = Execution(folder=tmp_path / "x", checkpoint_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        hyperlax.sweep(**SWEEP, execution=how, progress=Crash(evaluations))
    assert len(hyperlax.read(tmp_path / "x").curves) > 0
    resumed = hyperlax.sweep(**SWEEP, execution=Execution(folder=tmp_path / "x", resume=True))
    assert table(resumed).equals(table(hyperlax.sweep(**SWEEP)))
    assert [entry.problems for entry in hyperlax.check(tmp_path / "x")] == [()]


def test_a_run_trains_while_its_checkpoint_is_fetched_and_written(tmp_path, held, monkeypatch):
    """The first is neither fetched nor written before all lanes have ended: no segment waits for it."""
    ended, calls, fetched = threading.Event(), [], []

    def write(path, content):
        calls.append(path.name)
        assert len(calls) > 1 or ended.wait(60)
        return files.write_atomically(path, content)

    def fetch(array, dtype=None, copy=None):
        assert fetched or ended.wait(60)
        fetched.append(array)
        return read(array, dtype, copy)

    class Ends(Display):
        def update(self, lanes, seconds) -> None:
            if all(lane.over for lane in lanes):
                ended.set()

    read = Aside.__array__
    monkeypatch.setattr(Aside, "__array__", fetch)
    monkeypatch.setattr(behind, "write_atomically", write)
    how = Execution(folder=tmp_path / "x", checkpoint_seconds=0)
    results = hyperlax.sweep(**SWEEP, execution=how, progress=Ends())
    assert len(calls) == 2, "and the last one"
    assert bool(fetched) == (held == "aside")
    assert table(results).equals(table(hyperlax.sweep(**SWEEP)))
