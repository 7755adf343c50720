"""Units on a real Slurm of two nodes, disturbed in many ways: bit for bit what one process trains."""

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
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import hyperlax
from hyperlax.cluster import slurm as commands
from hyperlax.cluster import state, sweep
from hyperlax.cluster.sweep import Cell, Sweep, Unit
from hyperlax.commands.main import main

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
HERE = Path(__file__).parent / "real_slurm"
RECIPE = "--algo-and-network-config ppo_mlp_no_network_search --env-config gymnax.pendulum"
FLAGS = (
    "--run-length-modifier quick --num-samples 6 --seeds 2 --total-timesteps 240000 --checkpoint-seconds 0.3"
)
BELOW = Path("ppo_mlp_no_network_search") / "gymnax.pendulum"
TASKS = "--executor slurm --units 3 --time 10 --cpus-per-task 1 --mem 1500"
MANY = 1001
"""One more unit than an array of Slurm may have tasks by default."""
PATIENCE = 400.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


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
def cluster(tmp_path_factory) -> Iterator[Path]:
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
    folder = tmp_path_factory.mktemp("slurm")
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


@pytest.fixture(autouse=True)
def empty_queue(cluster) -> Iterator[None]:
    """Every test begins with an empty queue and all nodes, whatever became of the one before."""
    yield
    slurm("scancel", "--user=root")
    until(lambda: not slurm("squeue", "--noheader"), "the queue is empty")
    for node in ("n1", "n2"):
        subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], capture_output=True)


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


def test_killed_cancelled_and_requeued_tasks_lose_nothing_whatever_their_clocks_say(cluster, whole, tmp_path):
    """A task that is killed is lost until it is sent again; submitting twice sends nothing twice.

    The clocks of the tasks are two hours apart, as their Python tells the time.
    """
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(WRONG_CLOCK)
    skewed = (
        f"export PYTHONPATH={tmp_path / 'clock'}:$PYTHONPATH SKEW=$((3600 * (SLURM_ARRAY_TASK_ID - 1))); "
        f"{sys.executable} -c 'import time; print(\"clock\", int(time.time()))'"
    )
    root = start(tmp_path / "r", *TASKS.split(), "--setup", skewed)
    assert "nothing to send" in typed("submit", str(root))
    claims = begun(root)
    clocks = [int(re.findall(r"clock (\d+)", log(root, unit))[0]) for unit in sorted(claims)]
    assert clocks[2] - clocks[0] > 7000, clocks
    killed, cancelled, requeued = sorted(claims)
    os.kill(claims[killed]["pid"], signal.SIGKILL)
    slurm("scancel", task_of(root, cancelled))
    slurm("scontrol", "requeue", task_of(root, requeued))
    until(lambda: states(root)[killed] == states(root)[cancelled] == "lost", "two units are lost")
    seen = status(root)
    assert seen["next"] == f"hyperlax submit {root}"
    assert {u["unit"]: u["state"] for u in seen["units"]}[requeued] in ("waiting", "running", "done")
    assert "job " in typed("submit", str(root))
    assert "nothing to send" in typed("submit", str(root))
    finished(root, whole)


WRONG_CLOCK = """
import os, time
skew, now = int(os.environ.get("SKEW", "0")), time.time
time.time = lambda: now() + skew
"""


def test_a_task_at_its_limit_saves_and_goes_on_by_itself(cluster, whole, tmp_path):
    """It gets a TERM before the limit, leaves with 75, is queued again, and ends as if nothing had been."""
    root = start(tmp_path, *TASKS.split())
    unit = min(begun(root))
    task = task_of(root, unit)
    slurm("scontrol", "update", f"jobid={task}", "timelimit=1")  # below the warning: Slurm warns at once
    restarted(root, unit)
    slurm("scontrol", "update", f"jobid={task}", "timelimit=10")
    assert {u["unit"]: u["state"] for u in status(root)["units"]}[unit] in ("waiting", "running")
    finished(root, whole)
    assert "state saved, continue with --resume" in log(root, unit)
    said = until(
        lambda: found if "COMPLETED" in (found := slurm("scontrol", "show", "job", task)) else "",
        "it has ended",
    )
    assert "ExitCode=0:0" in said


def test_a_limit_that_is_too_short_ends_with_a_reason(cluster, whole, tmp_path):
    """Every start is told to leave before it can train: after a few of them the units have failed."""
    early = '(sleep 0.5; while scancel --signal=TERM "$SLURM_JOB_ID"; do sleep 0.5; done) & warned=$!'
    root = start(tmp_path, *TASKS.split(), "--setup", early)
    until(lambda: set(states(root).values()) == {"failed"}, "all have failed")
    seen = status(root)
    assert (seen["exit_code"], seen["next"]) == (1, f"hyperlax submit {root} --retry-failed")
    assert all("time limit" in u["why"] for u in seen["units"])
    assert "nothing to send" in typed("submit", str(root))
    until(lambda: not commands.queue(), "the queue is empty")
    typed("submit", str(root), "--retry-failed", "--time", "12", "--setup", "true")
    assert "TimeLimit=00:12:00" in slurm("scontrol", "show", "job", task_of(root, min(states(root))))
    finished(root, whole)


def test_a_node_that_dies_or_is_cut_off_costs_nothing(cluster, whole, tmp_path):
    """What trains on a node that nobody reaches goes on beside its successor, until it looks and leaves.

    First a node goes down with its tasks. Then the other one is cut off: its daemon and the srun of a task
    hear nothing any more, while the training goes on and saves.
    """
    told = """trap 'echo "the task ends with $?"' EXIT"""
    root = start(tmp_path, *TASKS.split(), "--setup", told)
    claims = begun(root)
    node_of = lambda unit: slurm(  # noqa: E731
        "squeue", "--noheader", f"--jobs={task_of(root, unit)}", "--format=%N"
    ).strip()
    cut = next(unit for unit in sorted(claims) if node_of(unit))
    node, old = node_of(cut), psutil.Process(claims[cut]["pid"])
    daemon = psutil.Process(int((cluster / f"slurmd.{node}.pid").read_text()))
    deaf = [daemon, *_above(old, "srun")]
    for process in deaf:
        process.suspend()
    try:
        slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=cut off")
        assert {u["unit"]: u["state"] for u in status(root)["units"]}[cut] in ("waiting", "running")
        until(lambda: claim(root, cut).get("pid") not in (None, old.pid), "another process has taken over")
        until(lambda: not old.is_running() or old.status() == psutil.STATUS_ZOMBIE, "the old one has left")
    finally:
        for process in deaf:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
    subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], capture_output=True)
    until(lambda: "DOWN" not in slurm("scontrol", "show", "node", node), "the node, or Slurm, resumes it")
    finished(root, whole)
    said = log(root, cut)
    assert "has taken over" in said, said


def _above(process: psutil.Process, name: str) -> list[psutil.Process]:
    """The processes called `name` of the same task of Slurm."""
    job = process.environ()["SLURM_JOB_ID"]
    found = []
    for other in psutil.process_iter(["name"]):
        with contextlib.suppress(psutil.Error):
            if other.info["name"] == name and other.environ().get("SLURM_JOB_ID") == job:
                found.append(other)
    assert found
    return found


def test_preempted_tasks_go_on_later(cluster, whole, tmp_path):
    """Without the signal of --signal first, and with it."""
    root = start(tmp_path, *TASKS.split())
    begun(root)
    for times, signals in enumerate((False, True), start=1):
        conf = cluster / "slurm.conf"
        if signals:
            conf.write_text(f"{conf.read_text()}SlurmctldParameters=preempt_send_user_signal\n")
            slurm("scontrol", "reconfigure")
            until(lambda: any(claim(root, u) for u in states(root)), "they have begun again")
        running = [u.unit.name for u in state.look(sweep.needed(root)).units if u.state == "running"]
        wide = ("--ntasks=4", "--time=1", "--mem-per-cpu=100", "--output=/dev/null", "--wrap", "sleep 1")
        slurm("sbatch", "--partition=high", *wide)
        for unit in running:
            restarted(root, unit, times)
        assert set(states(root).values()) <= {"waiting", "running", "done"}
        assert status(root)["exit_code"] == state.WORK_LEFT
    finished(root, whole)


def test_more_units_than_an_array_may_have_are_queued_once_each(cluster, tmp_path):
    """The units are made up, and no node takes them; the queue is Slurm's."""
    cell = Cell("cell", "batched", {}, None, {}, {}, [])
    units = tuple(Unit(f"c000-p0-{i:04d}", 0, (i,), 1, 1000, 60.0) for i in range(MANY))
    Sweep(tmp_path, "many", {}, "cpu", {}, (cell,), units, slurm={"time": "10"}).write()
    slurm("scontrol", "update", "partitionname=main", "state=down")
    try:
        assert f"{MANY - 1} units\n" in typed("submit", str(tmp_path))
        assert "nothing to send" in typed("submit", str(tmp_path))
        queued = commands.queue()
        assert queued is not None
        assert len(queued) == MANY
        seen = state.look(sweep.needed(tmp_path))
        assert len({u.by for u in seen.units if u.state == "waiting"} - {""}) == MANY
        assert "cancelled 2 jobs" in typed("cancel", str(tmp_path))
        assert commands.queue() == []
    finally:
        slurm("scontrol", "update", "partitionname=main", "state=up")
