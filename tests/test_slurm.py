"""Units on a real Slurm of two nodes, disturbed in many ways: bit for bit what one process trains."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys

import psutil
import pytest
from slurm_cluster import (
    TASKS,
    back,
    begun,
    claim,
    cluster,
    completed,
    empty_queue,
    finished,
    log,
    restarted,
    slurm,
    start,
    states,
    status,
    task_of,
    typed,
    until,
    warned_before_its_limit,
    whole,
)

from hyperlax.cluster import slurm as commands
from hyperlax.cluster import state, sweep
from hyperlax.cluster.sweep import Cell, Sweep, Unit

__all__ = ["cluster", "empty_queue", "whole"]

MANY = 1001
"""One more unit than an array of Slurm may have tasks by default."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_more_units_than_an_array_may_have_are_queued_once_each(cluster, tmp_path):
    """The units are made up, and no node takes them; the queue is Slurm's."""
    cell = Cell("cell", "batched", {}, None, {}, {}, [])
    units = tuple(Unit(f"c000-p0-{i:04d}", 0, (i,), 1, 1000, 60.0) for i in range(MANY))
    Sweep(tmp_path, "many", {}, "cpu", {}, (cell,), units, slurm={"time": "10"}).write()
    slurm("scontrol", "update", "partitionname=main", "state=down")
    try:
        assert f"{MANY - 1:,} units\n" in typed("submit", str(tmp_path))
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
    unit, claimed = min(begun(root).items())
    warned_before_its_limit(root, unit, claimed)
    assert {u["unit"]: u["state"] for u in status(root)["units"]}[unit] in ("waiting", "running")
    finished(root, whole)
    assert "state saved, continue with --resume" in log(root, unit)
    assert "ExitCode=0:0" in completed(task_of(root, unit))


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

    First one node goes down with its task. Then the other is cut off: its daemon and the srun of a task hear
    nothing any more. The training stands still until there is a successor, so that it has something to save.
    """
    root = start(tmp_path, *TASKS.split())
    claims = begun(root)
    node_of = lambda unit: slurm(  # noqa: E731
        "squeue", "--noheader", f"--jobs={task_of(root, unit)}", "--format=%N"
    ).strip()
    nodes = {unit: node_of(unit) for unit in sorted(claims)}
    cut, dead = (next((u for u, n in nodes.items() if n == name), "") for name in ("n1", "n2"))
    slurm("scontrol", "update", "nodename=n2", "state=down", "reason=dead")
    restarted(root, dead)
    assert {u["unit"]: u["state"] for u in status(root)["units"]}[dead] in ("waiting", "running")
    until(lambda: not _on("n2"), "nothing trains on the dead node any more")
    back("n2")
    node, old = "n1", psutil.Process(claims[cut]["pid"])
    daemon = psutil.Process(int((cluster / f"slurmd.{node}.pid").read_text()))
    deaf = [daemon, *_above(old, "srun")]
    for process in (*deaf, old):
        process.suspend()
    try:
        slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=cut off")
        assert {u["unit"]: u["state"] for u in status(root)["units"]}[cut] in ("waiting", "running")
        until(lambda: claim(root, cut).get("pid") not in (None, old.pid), "another process has taken over")
        old.resume()
        ends = f"({old.pid}) exited with exit code 76"
        until(lambda: ends in (cluster / "log" / f"slurmd.{node}.log").read_text(), "the old one has left")
    finally:
        for process in deaf:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
    until(lambda: not _on(node), "nothing trains on the lost node any more")
    back(node)
    if (released := status(root)["next"]).startswith("scontrol release"):
        slurm(*released.split())
    finished(root, whole)
    said = log(root, cut)
    # its last line may be lost with the srun that was to pass it on
    assert "has taken over" in said or "exit code 76" in said, said


def _on(node: str) -> list[psutil.Process]:
    """The processes that train on a node."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            if "unit" in (process.info["cmdline"] or ()) and process.environ().get("SLURMD_NODENAME") == node:
                found.append(process)
    return found


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
