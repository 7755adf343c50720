"""Slurm: job scripts, and the commands sbatch, squeue, scontrol and scancel. No other module calls them."""

from __future__ import annotations

import getpass
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperlax.cluster.records import FAILED, TRIES
from hyperlax.storage.files import cache_folder
from hyperlax.storage.reading import UNITS

REQUEUED = "75|138|140|143"
"""Exit codes after which a task is queued again: out of time, and killed by USR1, USR2 or TERM."""
WITHOUT_IMAGE = 135
"""The exit code of a process in a container whose image is gone: killed by SIGBUS.

Where Apptainer has no rights of root, a process of the user mounts the image. Slurm sends TERM to it, too,
when it preempts the task, and it ends at once. The task is queued again, from its last checkpoint.
"""
MOST_RESTARTS = 100
MOST_TRIES = 5
"""Starts of a unit in a row that end before the training begins, after which it has failed."""
WARNING_SECONDS = 180
"""How long before the time limit a task is told to save."""
SMALLEST_ARRAY = 1001
"""The limit of Slurm's own defaults, `MaxArraySize`, where the cluster does not tell its own."""
PATIENCE = 60.0
"""Seconds that a command of Slurm may take."""
SILENT = "squeue does not answer (log in to a node of the cluster, or enter the command again later)"


_FULL = re.compile("submit ?(job)? ?limit|MaxSubmit|invalid job array|temporarily un", re.IGNORECASE)
"""Messages of sbatch when a user may queue no more jobs, or none as large as this one."""
_TOO_MUCH = re.compile("(QOS|Assoc)[a-z]*(Wall|Time|Cpu|Node|Mem|TRES)", re.IGNORECASE)
"""Further words in such a message when a single task asks for too much, so that fewer tasks do not help."""


class Refused(ValueError):
    """Raised with Slurm's own message when it refuses a request."""

    @property
    def full(self) -> bool:
        """Whether there are too many jobs, so that fewer or later ones may be accepted."""
        return _FULL.search(str(self)) is not None and _TOO_MUCH.search(str(self)) is None


@dataclass(frozen=True)
class Options:
    """The resources that a task requests, under the names of sbatch; None leaves a choice to the cluster.

    - `time`: the limit of a task. `array_parallelism`: how many tasks may run at once.
    - `container`: an Apptainer image; `bind`: folders inside it, as SOURCE:TARGET.
    - `setup`: a line of shell before the task, such as `module load apptainer`.
    - `sbatch_arg`: further options of sbatch, each in one text.
    """

    time: str
    partition: str | None = None
    account: str | None = None
    gpus_per_task: int | None = None
    cpus_per_task: int | None = None
    mem: str | None = None
    constraint: str | None = None
    array_parallelism: int | None = None
    container: str | None = None
    bind: tuple[str, ...] = ()
    setup: str | None = None
    sbatch_arg: tuple[str, ...] = ()

    def __post_init__(self):
        if seconds(self.time) < 60:
            raise ValueError(f"--time {self.time} is below a minute; Slurm's limits are whole minutes")


def seconds(limit: str) -> int:
    """The seconds of a limit as sbatch takes it: minutes, M:S, H:M:S, D-H, D-H:M or D-H:M:S."""
    days, dash, rest = limit.rpartition("-")
    parts = rest.split(":")
    if not all(re.fullmatch(r"\d+", p) for p in [*parts, *([days] if dash else [])]) or len(parts) > 3:
        raise ValueError(f"--time {limit} is not a time limit; write minutes, H:M:S or D-H:M:S")
    numbers = [int(p) for p in parts]
    if dash:
        hours, minutes, secs = [*numbers, 0, 0][:3]
        return int(days) * 86_400 + hours * 3600 + minutes * 60 + secs
    if len(numbers) == 1:
        return numbers[0] * 60
    hours, minutes, secs = [0, *numbers][-3:]
    return hours * 3600 + minutes * 60 + secs


def script(root: Path, options: Options, name: str, units: Path, count: int) -> str:
    """The job script of an array of `count` tasks, each of which trains the unit in its line of `units`."""
    warning = int(min(WARNING_SECONDS, seconds(options.time) / 4))
    parallel = f"%{options.array_parallelism}" if options.array_parallelism else ""
    asked = {
        "job-name": name,
        "array": f"0-{count - 1}{parallel}",
        "time": options.time,
        "partition": options.partition,
        "account": options.account,
        "gres": options.gpus_per_task and f"gpu:{options.gpus_per_task}",
        "cpus-per-task": options.cpus_per_task,
        "mem": options.mem,
        "constraint": options.constraint,
        "signal": f"TERM@{warning}" if options.container is None else f"B:TERM@{warning}",
        "open-mode": "append",
        "output": root / "logs" / "%A_%a.out",
    }
    lines = ["#!/bin/bash"]
    lines += [f"#SBATCH --{key}={shlex.quote(str(value))}" for key, value in asked.items() if value]
    lines += ["#SBATCH --requeue", "#SBATCH --nodes=1 --ntasks=1"]
    lines += [f"#SBATCH {more}" for more in options.sbatch_arg]
    lines += ['export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"']
    if (cache := cache_folder()) is not None:
        lines += [f"export HYPERLAX_CACHE_DIR={shlex.quote(str(cache.absolute()))}"]
    lines += [options.setup] if options.setup else []
    command = _command(root, options, cache)
    again = REQUEUED if options.container is None else f"{REQUEUED}|{WITHOUT_IMAGE}"
    lines += [
        f'unit=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {shlex.quote(str(units))})',
        *_counted(root),
        *_trained(options, f'{command} unit run {shlex.quote(str(root))} "$unit" --trust'),
        f"case $code in {again})",
        f'  if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {MOST_RESTARTS} ]; then',
        '    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}" && sleep 60',
        "  fi;;",
        "esac",
        "exit $code",
    ]
    return "\n".join(lines) + "\n"


def _trained(options: Options, command: str) -> list[str]:
    """Lines of shell that run `command` and leave its exit code in `code`.

    Slurm signals all processes of a step, including the one that mounts the image of a container, which then
    exits. With a container only the script is signalled (`B:`), and it passes the signal on to `command`.
    """
    if options.container is None:
        return [f"srun {command}", "code=$?"]
    return [
        "told=",
        f"{command} &",
        "running=$!",
        "trap 'told=1; kill -TERM $running' TERM",
        "wait $running; code=$?",
        'while [ -n "$told" ]; do told=; wait $running; code=$?; done  # a signal ends a wait',
    ]


def _counted(root: Path) -> list[str]:
    """Lines of shell that record a start, and end the task if too many in a row never reached the training.

    The training itself counts its starts without progress (`records.stuck`) and clears this record.
    """
    why = (
        f"stopped {MOST_TRIES} times in a row before it could train: the time limit is too short to start "
        "in; raise it with hyperlax submit --retry-failed --time"
    )
    failed = json.dumps({"unit": "UNIT", "reason": why}).replace("UNIT", "'\"$unit\"'")
    return [
        f'records={shlex.quote(str(root / UNITS))}/"$unit"',
        f'mkdir -p "$records" && echo "$SLURM_JOB_ID" >> "$records/{TRIES}"',
        f'if [ "$(wc -l < "$records/{TRIES}")" -gt {MOST_TRIES} ]; then',
        f'  echo \'{failed}\' > "$records/{FAILED}.new" && mv "$records/{FAILED}.new" "$records/{FAILED}"',
        f'  echo "$unit: {why}"; exit 1',
        "fi",
    ]


def _command(root: Path, options: Options, cache: Path | None) -> str:
    """The command that runs hyperlax: this installation, or the one in a container."""
    if options.container is None:
        return f"{shlex.quote(sys.executable)} -m hyperlax"
    folders = [str(root), *([str(cache.absolute())] if cache is not None else []), *options.bind]
    nv = ["--nv"] if options.gpus_per_task else []
    passed = [f"--env=HYPERLAX_CACHE_DIR={cache.absolute()}"] if cache is not None else []
    words = [
        "apptainer",
        "exec",
        *nv,
        *(f"--bind={f}" for f in folders),
        *passed,
        options.container,
        "hyperlax",
    ]
    return shlex.join(words)


def send(job: Path) -> str:
    """Submit a script and return the number of the job; raise `Refused` with the message of sbatch."""
    answer = _asked("sbatch", "--parsable", str(job))
    return answer.strip().splitlines()[-1].partition(";")[0]


def largest_array() -> int:
    """The number of tasks that an array may have."""
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", _asked("scontrol", "show", "config"))
    return int(found.group(1) if found else SMALLEST_ARRAY) - 1


@dataclass(frozen=True)
class Task:
    """A task of an array in the queue: its state in Slurm's words, its node, why it waits, and its script."""

    job: str
    index: int
    state: str
    node: str
    reason: str = ""
    script: str = ""

    @property
    def held(self) -> bool:
        """Whether it is held until somebody releases it, for example after a node failed to start it."""
        return not self.runs and "held" in self.reason.lower()

    @property
    def runs(self) -> bool:
        """Whether it has a node; otherwise it waits for one."""
        return self.state in ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT")


def queue() -> list[Task] | None:
    """The tasks of this user that wait or run; None where squeue cannot be asked."""
    try:
        answer = _asked(
            "squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%F|%K|%T|%N|%r|%o"
        )
    except (FileNotFoundError, Refused):
        return None
    tasks = []
    for line in answer.splitlines():
        job, index, state, node, reason, path = line.split("|", 5)
        if index.isdecimal():
            tasks.append(Task(job, int(index), state, node, reason, path))
    return tasks


def cancel(jobs: Sequence[str]) -> None:
    """Cancel jobs; jobs that have already ended are not an error."""
    if jobs:
        _asked("scancel", *jobs)


def _asked(*command: str) -> str:
    """Run a command of Slurm and return what it prints.

    Raises `FileNotFoundError` if the command does not exist, and `Refused` if it fails or takes too long.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no {command[0]} here: log in to a node of the cluster") from None
    except subprocess.TimeoutExpired:
        raise Refused(f"{command[0]} has not answered within {PATIENCE:.0f} s") from None
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip()
        raise Refused(f"{command[0]} says: {said}")
    return done.stdout
