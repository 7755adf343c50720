"""Submissions that overlap, are killed, or are answered too late: no unit is in the queue twice."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from hyperlax.cluster import slurm, submitting
from hyperlax.cluster.slurm import Refused, Task
from hyperlax.cluster.submitting import BEGUN, SENDING, SENT
from hyperlax.cluster.sweep import Cell, Sweep, Unit
from hyperlax.storage.integrity import read_json, write_json


class Killed(BaseException):
    """Raised in place of a kill of the process."""


@pytest.fixture
def found(tmp_path) -> Sweep:
    """A sweep of four units that nobody has trained."""
    cell = Cell(".", "batched", {}, None, {}, {}, [])
    units = tuple(Unit(f"c000-u{n:04d}", 0, (n,), 1, 100, 1.0) for n in range(4))
    return Sweep(tmp_path / "r", "s", {}, "cpu", {}, (cell,), units, {"time": "1:00:00"})


@pytest.fixture
def queue(monkeypatch) -> SimpleNamespace:
    """A queue that takes arrays of two; `meanwhile` is called with the number of a job that is in it."""
    made = SimpleNamespace(tasks=[], sent=[], meanwhile=lambda number: None)

    def send(job: Path) -> str:
        listed = job.with_name(job.name.replace("job", "units")).with_suffix(".txt").read_text().split()
        made.sent.append(listed)
        number = str(len(made.sent))
        made.tasks += [Task(number, i, "PENDING", "", "", str(job.absolute())) for i in range(len(listed))]
        made.meanwhile(number)
        return number

    monkeypatch.setattr(slurm, "queue", lambda: list(made.tasks))
    monkeypatch.setattr(slurm, "send", send)
    monkeypatch.setattr(slurm, "largest_array", lambda: 2)
    monkeypatch.setattr(submitting, "WAIT_SECONDS", 0.05)
    return made


def raising(error: BaseException, job: str) -> Callable[[str], None]:
    """What is to be called meanwhile in order to raise an error as this job is sent."""

    def meanwhile(number: str) -> None:
        if number == job:
            raise error

    return meanwhile


def killed(found: Sweep, queue: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Submit, and kill the process as its second array is in the queue; returns the folder."""
    queue.meanwhile = raising(Killed(), "2")
    with monkeypatch.context() as patched:
        patched.setattr(submitting, "_end", lambda folder: None)
        with pytest.raises(Killed):
            submitting.submit(found)
    queue.meanwhile = lambda number: None
    (folder,) = (found.root / submitting.FOLDER).iterdir()
    return folder


def in_queue(found: Sweep, queue: SimpleNamespace) -> bool:
    """Whether every unit is in the queue, and once."""
    return sorted(name for listed in queue.sent for name in listed) == [unit.name for unit in found.units]


def test_a_submission_waits_until_another_has_sent_its_last_array(found, queue):
    refused = []

    def meanwhile(number: str) -> None:
        queue.meanwhile = lambda number: None
        with pytest.raises(Refused, match=f"process {os.getpid()} on .* is submitting") as error:
            submitting.submit(found)
        refused.append(error)

    def after_the_first(number: str) -> None:
        queue.meanwhile = meanwhile

    queue.meanwhile = after_the_first
    assert list(submitting.submit(found).jobs) == ["1", "2"]
    assert len(refused) == 1
    assert in_queue(found, queue)
    assert submitting.submit(found).jobs == {}


@pytest.mark.parametrize("named", [True, False])
def test_the_jobs_of_a_submission_that_was_killed_are_known(found, queue, monkeypatch, named):
    """Also by their numbers, where squeue names other paths than those they were sent with."""
    folder = killed(found, queue, monkeypatch)
    dead = subprocess.Popen(["true"])
    dead.wait()
    write_json(folder / BEGUN, {**read_json(folder / BEGUN), "pid": dead.pid})
    if not named:
        queue.tasks = [Task(task.job, task.index, "PENDING", "") for task in queue.tasks if task.job == "1"]
        queue.sent.pop()
    assert len(submitting.live(found, queue.tasks)) == len(queue.tasks)
    assert len(submitting.submit(found).jobs) == (0 if named else 1)
    assert in_queue(found, queue)
    assert read_json(folder / SENT)["jobs"] == {"1": [unit.name for unit in found.units[:2]]}
    assert not (folder / SENDING).exists()


def test_a_job_of_which_sbatch_told_too_late_is_known_by_its_script(found, queue):
    queue.meanwhile = raising(Refused("sbatch has not answered within 60 s"), "2")
    with pytest.raises(Refused, match="has not answered"):
        submitting.submit(found)
    assert set(submitting.live(found, queue.tasks)) == {unit.name for unit in found.units}
    assert submitting.submit(found).jobs == {}
    assert in_queue(found, queue)
    assert submitting.jobs(found, queue.tasks) == (["1", "2"], {})


def test_a_process_elsewhere_that_has_ended_is_no_obstacle_once_that_is_told(found, queue, monkeypatch):
    folder = killed(found, queue, monkeypatch)
    write_json(folder / BEGUN, {**read_json(folder / BEGUN), "host": "elsewhere"})
    with pytest.raises(Refused, match="on elsewhere is submitting; if it has ended: mv ") as refused:
        submitting.submit(found)
    assert len(queue.sent) == 2
    subprocess.run(shlex.split(str(refused.value).partition("ended: ")[2]), check=True)
    assert submitting.submit(found).jobs == {}
    assert in_queue(found, queue)


def test_a_job_of_another_sweep_or_without_its_list_trains_no_unit_of_this_one(found, queue):
    submitting.submit(found)
    scripts = {task.script for task in queue.tasks}
    other = replace(found, root=found.root.with_name("other"))
    assert submitting.live(other, queue.tasks) == {}
    assert submitting.jobs(other, queue.tasks) == ([], {})
    strays = [Task("9", 0, "PENDING", "", "", str(Path(s).with_name("job-7.sh"))) for s in scripts]
    assert submitting.live(found, strays) == {}
    assert submitting.live(found, [Task("9", 0, "PENDING", "")]) == {}
