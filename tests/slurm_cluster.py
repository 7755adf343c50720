"""A real Slurm of two nodes for tests, and what is typed and looked at on it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import hyperlax
from hyperlax.cluster import state, sweep
from hyperlax.commands.main import main

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
HERE = Path(__file__).parent / "real_slurm"
RECIPE = "--algo-and-network-config ppo_mlp_no_network_search --env-config gymnax.pendulum"
FLAGS = (
    "--run-length-modifier quick --num-samples 6 --seeds 2 --total-timesteps 240000 --checkpoint-seconds 0.3"
)
BELOW = Path("ppo_mlp_no_network_search") / "gymnax.pendulum"
TASKS = "--executor slurm --units 3 --time 10 --cpus-per-task 1 --mem 1500"
PATIENCE = 400.0


def typed(*words: str, codes: tuple[int, ...] = (0,)) -> str:
    """What a command prints that is typed on the login node, which is this process."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code in codes, (words, ended.value.code, said.getvalue())
    return said.getvalue()


def start(root: Path, *more: str) -> Path:
    """Train by one process, or plan and send, which flags decide."""
    words = f"sweep-hp-samples {RECIPE} {FLAGS}".split()
    if not more:
        command = [sys.executable, "-m", "hyperlax", *words, "--output-root", str(root)]
        subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
    else:
        typed(*words, "--output-root", str(root), *more)
    return root / BELOW


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """The folder of a Slurm of two nodes, without accounts; skipped where it cannot be had."""
    if os.geteuid() != 0:
        pytest.skip("a Slurm of our own needs root")
    if subprocess.run(["dpkg", "-s", *PACKAGES], capture_output=True).returncode:
        if shutil.which("apt-get") is None:
            pytest.skip("Slurm is not installed, and there is no apt-get")
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for step in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
            if subprocess.run(
                ["apt-get", "-qq", *step], env=quiet, capture_output=True, timeout=200
            ).returncode:
                pytest.skip("the packages of Slurm cannot be installed")
    folder = Path(tempfile.mkdtemp(prefix="hyperlax-slurm-"))
    folder.chmod(0o755)  # tasks of any user read its configuration
    done = subprocess.run([HERE / "start.sh", folder], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    before = dict(os.environ)
    (folder / "bin").mkdir()
    asked = folder / "accounts-were-asked-for"
    (folder / "bin" / "sacct").write_text(f"#!/bin/sh\ntouch {asked}\nexit 1\n")
    (folder / "bin" / "sacct").chmod(0o755)
    for name in ("HYPERLAX_TYPECHECK", "XLA_FLAGS", "JAX_NUM_CPU_DEVICES"):
        os.environ.pop(name, None)
    os.environ |= {
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}:/usr/sbin",
        "HYPERLAX_CACHE_DIR": str(Path(__file__).parents[1] / ".jax_cache"),
    }
    yield folder
    subprocess.run([HERE / "stop.sh", folder], capture_output=True, timeout=60)
    os.environ.clear()
    os.environ.update(before)
    assert not asked.exists()
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def empty_queue(cluster) -> Iterator[None]:
    """Every test begins with an empty queue and all nodes, whatever became of the one before."""
    yield
    if jobs := slurm("squeue", "--noheader", "--format=%A").split():
        subprocess.run(["scancel", *jobs], capture_output=True)  # some may have ended by now
    until(lambda: not slurm("squeue", "--noheader"), "the queue is empty")
    for node in ("n1", "n2"):
        back(node)


@pytest.fixture(scope="module")
def whole(cluster, tmp_path_factory) -> Path:
    """What one process trains."""
    return start(tmp_path_factory.mktemp("whole"))


def slurm(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def status(root: Path) -> dict[str, Any]:
    return json.loads(typed("status", str(root), "--json", codes=(0, 1, 3)))


def states(root: Path) -> dict[str, str]:
    return {u.unit.name: u.state for u in state.look(sweep.needed(root)).units}


def until(what: Callable[[], Any], why: str) -> Any:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.2)
    pytest.fail(f"never happened: {why}\n{slurm('squeue')}{slurm('sinfo')}")


def claim(root: Path, unit: str) -> dict[str, Any]:
    """What the process that trains a unit says of itself; empty before it has begun, and when it is done."""
    found = sorted((root / ".units" / unit / "run" / "checkpoint").glob("claim-*.json"))
    try:
        return json.loads(found[-1].read_text()) if found else {}
    except (ValueError, FileNotFoundError):
        return {}


def begun(root: Path) -> dict[str, dict[str, Any]]:
    """The claims of the processes that train, once every unit that has room is begun."""
    return until(
        lambda: found if len(found := {u: c for u in states(root) if (c := claim(root, u))}) == 3 else {},
        "all units have begun",
    )


def task_of(root: Path, unit: str) -> str:
    for path in sorted((root / "submissions").glob("*/sent.json"), reverse=True):
        for job, names in json.loads(path.read_text())["jobs"].items():
            if unit in names:
                return f"{job}_{names.index(unit)}"
    raise AssertionError(f"{unit} was not sent")


def log(root: Path, unit: str) -> str:
    job, index = task_of(root, unit).split("_")
    return (root / "logs" / f"{job}_{index}.out").read_text()


def restarted(root: Path, unit: str, times: int = 1) -> None:
    until(
        lambda: f"Restarts={times}" in slurm("scontrol", "show", "job", task_of(root, unit)),
        f"{unit} is queued again, {times} times by now",
    )


def warned_before_its_limit(root: Path, unit: str, claimed: dict[str, Any]) -> None:
    """Let the task of a unit come to its limit, and be queued again.

    The training stands still until the TERM is there, so that it has something to save on any machine.
    """
    task, process = task_of(root, unit), _process(unit, claimed["pid"])
    process.suspend()  # until it is warned, which takes Slurm up to a minute: it would be done by then
    minutes = re.search(r"RunTime=\d+:(\d+):", slurm("scontrol", "show", "job", task))
    assert minutes is not None
    near = int(minutes[1]) + 2  # nearer than the warning, so that Slurm warns when it looks the next time
    slurm("scontrol", "update", f"jobid={task}", f"timelimit={near}")
    until(lambda: _is_told(process, signal.SIGTERM), "it is warned")
    with contextlib.suppress(psutil.NoSuchProcess):
        process.resume()
    restarted(root, unit)
    slurm("scontrol", "update", f"jobid={task}", "timelimit=10")


def completed(task: str) -> str:
    """What Slurm says of a task that has ended as it should."""
    return until(
        lambda: said if "COMPLETED" in (said := slurm("scontrol", "show", "job", task)) else "",
        "it has ended",
    )


def _process(unit: str, pid: int) -> psutil.Process:
    """The process that trains a unit, and calls itself `pid`: in a container it has another number."""

    def is_it(process: psutil.Process) -> bool:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            own = next(line for line in lines if line.startswith("NSpid:")).split()[-1]
            return int(own) == pid and unit in process.cmdline()
        except (FileNotFoundError, ProcessLookupError, psutil.Error):
            return False

    (found,) = filter(is_it, psutil.process_iter())
    return found


def _is_told(process: psutil.Process, number: signal.Signals) -> bool:
    """Whether a process that stands still has been sent a signal; if Slurm woke it, it may have left."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return True
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd:", "ShdPnd:"))]
    return any(mask >> (number - 1) & 1 for mask in masks)


def back(node: str) -> None:
    """Let a node take tasks again; Slurm may have done so by itself, as soon as it has answered."""
    subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], capture_output=True)
    bad = ("DOWN", "DRAIN", "NOT_RESPONDING")
    until(lambda: not any(word in slurm("scontrol", "show", "node", node) for word in bad), f"{node} is back")


def finished(root: Path, whole: Path) -> None:
    """Wait for all units, merge them, and compare with what one process has trained, bit for bit."""
    until(lambda: set(states(root).values()) == {"done"}, "all is trained")
    seen = status(root)
    assert (seen["exit_code"], seen["next"]) == (0, f"hyperlax merge {root}")
    typed("merge", str(root))
    ours, theirs = hyperlax.read(root), hyperlax.read(whole)
    for table in ("samples", "lanes", "curves", "episodes"):
        a, b = (getattr(r, table).drop("seconds", strict=False) for r in (ours, theirs))
        assert a.equals(b), table
    policies = {p.name: p.read_bytes() for p in (whole / "policies").iterdir()}
    assert {p.name: p.read_bytes() for p in (root / "policies").iterdir()} == policies
    assert not [p for entry in hyperlax.check(root) for p in entry.problems]
    assert not list((root / ".units").glob("*/run"))
