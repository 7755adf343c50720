"""Sending units to Slurm: never twice, however often and by whomever it is asked for.

A submission is a folder that keeps the scripts, their lists of units and, in `sent.json`, the job numbers.
Until it is over these are in `sending.json`. A job that no file tells of, because the process was killed or
sbatch answered too late, is known by its script.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from hyperlax.cluster import mending, records, slurm
from hyperlax.cluster.slurm import Options, Refused, Task
from hyperlax.cluster.sweep import Sweep, Unit
from hyperlax.storage.files import write_atomically
from hyperlax.storage.integrity import create_json, read_json, write_json

FOLDER = "submissions"
BEGUN, SENDING, SENT = "begun.json", "sending.json", "sent.json"
_SCRIPT = re.compile(r"job-(\d+)\.sh")
WAIT_SECONDS = 60.0
"""Seconds that a submission waits for another one that is under way."""


@dataclass(frozen=True)
class Sent:
    """The outcome of a submission: the units of every job; how many did not fit in the queue, and why."""

    jobs: dict[str, list[str]]
    left: int = 0
    why: str = ""


def options(sweep: Sweep, changes: Mapping[str, Any] | None = None) -> Options:
    """The resources that the tasks of a sweep request, with `changes`.

    Raises `ValueError` for a sweep that was not planned for a cluster, and for invalid options.
    """
    if sweep.slurm is None:
        raise ValueError(f"{sweep.root} was not planned for Slurm: continue it with --executor local")
    asked = {**sweep.slurm, **(changes or {})}
    about: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in asked.items()}
    return Options(**about)


def live(sweep: Sweep, tasks: Sequence[Task]) -> dict[str, Task]:
    """Unit → the task in the queue that trains it, or will."""
    found = {(task.job, task.index): task for task in tasks}
    sent = {script: _listed(script) for script in _own_scripts(sweep, tasks)}
    units = {task.job: sent[task.script] for task in tasks if task.script in sent}
    for folder in _submissions(sweep):
        units |= _jobs(folder)
    pairs = ((name, found.get((job, i))) for job, own in units.items() for i, name in enumerate(own))
    return {name: task for name, task in pairs if task is not None}


def jobs(sweep: Sweep, tasks: Sequence[Task]) -> tuple[list[str], dict[str, str]]:
    """The jobs in the queue that the sweep has sent, and those that only have a number of one of them.

    The folder of a sweep, which somebody else may have written, gives numbers of jobs; a job is of the sweep
    if its script is in this folder. The others are returned with their scripts.
    """
    numbers = {job for folder in _submissions(sweep) for job in _jobs(folder)}
    scripts = {task.job: task.script for task in tasks}
    of_sweep = _own_scripts(sweep, tasks)
    own = [job for job, script in scripts.items() if script in of_sweep]
    return own, {job: script for job, script in scripts.items() if job in numbers and job not in own}


def missing(sweep: Sweep, tasks: Sequence[Task]) -> list[Unit]:
    """The units that are neither trained, nor failed, nor in the queue."""
    sent = live(sweep, tasks)
    return [
        unit
        for unit in sweep.units
        if unit.name not in sent and not records.is_done(sweep, unit) and records.failure(sweep, unit) is None
    ]


def submit(
    sweep: Sweep,
    retry_failed: bool = False,
    changes: Mapping[str, Any] | None = None,
    retrain_damaged: bool = False,
) -> Sent:
    """Send the units that are missing, or as many of them as the queue takes.

    On request these include failed units, and units with damaged files, which retrain what was in them.
    `changes` are options of Slurm that differ from those that the sweep was planned with. Raises `Refused` if
    Slurm refuses for another reason than a full queue, or another submission is under way.
    """
    asked = options(sweep, changes)
    folder = _begin(sweep)
    try:
        if (tasks := slurm.queue()) is None:
            raise Refused(f"{slurm.SILENT}, so nobody knows which units are in the queue already")
        if retry_failed:
            records.forgive(sweep, sweep.units)
        if retrain_damaged:
            sent = live(sweep, tasks)
            mending.ask(sweep, [unit for unit in sweep.units if unit.name not in sent])
        return _sent(sweep, asked, folder, [unit.name for unit in missing(sweep, tasks)])
    finally:
        _end(folder)


def _sent(sweep: Sweep, asked: Options, folder: Path, names: list[str]) -> Sent:
    """Send arrays of units as large as Slurm accepts; after each refusal smaller ones, down to one unit."""
    jobs: dict[str, list[str]] = {}
    size = slurm.largest_array() if names else 1
    while names:
        chosen = names[:size]
        job = write_script(sweep, asked, folder, len(jobs), chosen)
        try:
            number = slurm.send(job)
        except Refused as error:
            if not error.full:
                raise
            if len(chosen) == 1:
                return Sent(jobs, len(names), str(error))
            size = len(chosen) // 2
            continue
        jobs[number] = chosen
        write_json(folder / SENDING, {"jobs": jobs})
        names = names[size:]
    return Sent(jobs)


def write_script(sweep: Sweep, asked: Options, folder: Path, number: int, names: Sequence[str]) -> Path:
    """Write the script of one array and its list of units; returns the script."""
    listed = folder.absolute() / f"units-{number}.txt"
    write_atomically(listed, "".join(f"{name}\n" for name in names))
    (sweep.root / "logs").mkdir(parents=True, exist_ok=True)
    root = sweep.root.absolute()
    text = slurm.script(root, asked, job_name(sweep), listed, len(names))
    return write_atomically(folder / f"job-{number}.sh", text)


def job_name(sweep: Sweep) -> str:
    """The name of the jobs of a sweep."""
    return "hlx-" + re.sub(r"[^A-Za-z0-9_.-]+", "-", sweep.name)[:40]


def dry_run(sweep: Sweep) -> str:
    """The script that would be sent; writes nothing."""
    folder = sweep.root.absolute() / FOLDER / "0001"
    return slurm.script(
        sweep.root.absolute(), options(sweep), job_name(sweep), folder / "units-0.txt", len(sweep.units)
    )


def _submissions(sweep: Sweep) -> list[Path]:
    """The folders of all submissions, in order."""
    return sorted(path.parent for path in (sweep.root / FOLDER).glob(f"*/{BEGUN}"))


def _begin(sweep: Sweep) -> Path:
    """Create the folder of a new submission, once earlier submissions have ended.

    Only one process can create the next folder, and it waits for the earlier ones, so no unit is sent twice.
    """
    own = {"host": socket.gethostname(), "pid": os.getpid(), "born": _born(os.getpid())}
    number = len(_submissions(sweep))
    while True:
        number += 1
        folder = sweep.root / FOLDER / f"{number:04d}"
        if create_json(folder / BEGUN, own):
            break
    end = time.monotonic() + WAIT_SECONDS
    for other in _submissions(sweep):
        while other < folder and not (other / SENT).exists():
            about = read_json(other / BEGUN)
            if _is_dead(about):
                _end(other)
            elif time.monotonic() > end:
                _end(folder)
                names = [str(other.absolute() / name) for name in (SENDING, SENT)]
                # The folder of one that has sent something stays: its jobs read their lists of units there.
                way_out = shlex.join(["mv", *names]) if (other / SENDING).exists() else f"remove {other}"
                raise Refused(
                    f"process {about['pid']} on {about['host']} is submitting; if it has ended: {way_out}"
                )
            else:
                time.sleep(0.1)
    write_json(folder / SENDING, {"jobs": {}})
    return folder


def _end(folder: Path) -> None:
    """Record that a submission is over, with the jobs that it is known to have sent."""
    with suppress(FileNotFoundError):  # it had not begun to send, or another process has just done this
        (folder / SENDING).replace(folder / SENT)
    if not (folder / SENT).exists():
        write_json(folder / SENT, {"jobs": {}})


def _jobs(folder: Path) -> dict[str, list[str]]:
    """The jobs that a submission has sent so far, with the units of each."""
    for name in (SENT, SENDING, SENT):  # it may end between two looks
        with suppress(FileNotFoundError):
            return read_json(folder / name)["jobs"]
    return {}


def _own_scripts(sweep: Sweep, tasks: Sequence[Task]) -> set[str]:
    """The scripts of `tasks` that a submission of the sweep has written, as squeue names them."""
    here = (sweep.root / FOLDER).resolve()
    scripts = {task.script for task in tasks if _SCRIPT.fullmatch(Path(task.script).name)}
    return {script for script in scripts if Path(script).resolve().parent.parent == here}


def _listed(script: str) -> list[str]:
    """The units that the tasks of a script train, in order; none if their list has been removed."""
    path = Path(script)
    listed = path.with_name(_SCRIPT.sub(r"units-\1.txt", path.name))
    return listed.read_text().splitlines() if listed.exists() else []


def _is_dead(about: dict[str, Any]) -> bool:
    """Whether the process of a submission has ended; False where that cannot be known."""
    return about["host"] == socket.gethostname() and _born(about["pid"]) != about["born"]


def _born(pid: int) -> float | None:
    """When the process `pid` of this machine was started, in seconds; None if there is none."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None


def described(asked: Options) -> dict[str, Any]:
    """The options as they are stored with a sweep."""
    return {k: v for k, v in dataclasses.asdict(asked).items() if v not in (None, ())}
