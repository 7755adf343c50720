"""Units on a real Slurm of two nodes, disturbed in many ways: bit for bit what one process trains."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hyperlax
from hyperlax.cluster import sweep

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
HERE = Path(__file__).parent / "real_slurm"
RECIPE = "--algo-and-network-config ppo_mlp_no_network_search --env-config gymnax.pendulum"
FLAGS = (
    "--run-length-modifier quick --num-samples 6 --seeds 2 --total-timesteps 240000 --checkpoint-seconds 0.3"
)
BELOW = Path("ppo_mlp_no_network_search") / "gymnax.pendulum"
TASKS = "--executor slurm --units 3 --time 10 --cpus-per-task 1 --mem 1500"
PATIENCE = 240.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def hyperlax_command(*words: str, codes: tuple[int, ...] = (0,)) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("HYPERLAX_TYPECHECK", "XLA_FLAGS")}
    environment["HYPERLAX_CACHE_DIR"] = str(Path(__file__).parents[1] / ".jax_cache")
    done = subprocess.run(
        [sys.executable, "-m", "hyperlax", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode in codes, (done.returncode, done.stdout, done.stderr)
    return done.stdout


def start(root: Path, *more: str) -> Path:
    hyperlax_command("sweep-hp-samples", *f"{RECIPE} {FLAGS}".split(), "--output-root", str(root), *more)
    return root / BELOW


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[None]:
    """A Slurm of two nodes; skipped where it cannot be had."""
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
    os.environ |= {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    yield
    subprocess.run([HERE / "stop.sh", folder], capture_output=True, timeout=60)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """What one process trains."""
    return start(tmp_path_factory.mktemp("whole"))


def slurm(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def status(root: Path) -> dict[str, Any]:
    return json.loads(hyperlax_command("status", str(root), "--json", codes=(0, 1, 3)))


def states(root: Path) -> dict[str, str]:
    return {u["unit"]: u["state"] for u in status(root)["units"]}


def until(what: Callable[[], Any], why: str) -> Any:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.2)
    pytest.fail(f"never happened: {why}")


def claim(root: Path, unit: str) -> dict[str, Any]:
    """What the process that trains a unit says of itself; empty before it has begun, and when it is done."""
    found = sorted((root / ".units" / unit / "run" / "checkpoint").glob("claim-*.json"))
    try:
        return json.loads(found[-1].read_text()) if found else {}
    except (ValueError, FileNotFoundError):
        return {}


def task_of(root: Path, unit: str) -> str:
    for path in sorted((root / "submissions").glob("*/sent.json"), reverse=True):
        for job, names in json.loads(path.read_text())["jobs"].items():
            if unit in names:
                return f"{job}_{names.index(unit)}"
    raise AssertionError(f"{unit} was not sent")


def finished(root: Path, whole: Path) -> None:
    """Wait for all units, merge them, and compare with what one process has trained, bit for bit."""
    until(lambda: set(states(root).values()) == {"done"}, f"all is trained: {states(root)}")
    assert status(root)["exit_code"] == 0
    hyperlax_command("merge", str(root))
    ours, theirs = hyperlax.read(root), hyperlax.read(whole)
    for table in ("samples", "lanes", "curves", "episodes"):
        a, b = (getattr(r, table).drop("seconds", strict=False) for r in (ours, theirs))
        assert a.equals(b), table
    policies = {p.name: p.read_bytes() for p in (whole / "policies").iterdir()}
    assert {p.name: p.read_bytes() for p in (root / "policies").iterdir()} == policies
    assert not [p for entry in hyperlax.check(root) for p in entry.problems]
    assert not list((root / ".units").glob("*/run"))


def test_killed_cancelled_and_requeued_tasks_lose_nothing(cluster, whole, tmp_path):
    """A task that is killed is lost until it is sent again; submitting twice sends nothing twice."""
    root = start(tmp_path, *TASKS.split())
    assert "nothing to send" in hyperlax_command("submit", str(root))
    killed, cancelled, requeued = (unit.name for unit in sweep.needed(root).units)
    victims = [until(lambda u=u: claim(root, u), f"{u} has begun") for u in (killed, cancelled, requeued)]
    os.kill(victims[0]["pid"], signal.SIGKILL)
    slurm("scancel", task_of(root, cancelled))
    slurm("scontrol", "requeue", task_of(root, requeued))
    until(lambda: states(root)[killed] == "lost", "the killed unit is lost")
    until(lambda: states(root)[cancelled] == "lost", "the cancelled unit is lost")
    assert states(root)[requeued] in ("waiting", "running", "done")
    sent = hyperlax_command("submit", str(root))
    assert "units" in sent
    assert "nothing to send" in hyperlax_command("submit", str(root))
    finished(root, whole)


def test_a_task_at_its_limit_saves_and_goes_on_by_itself(cluster, whole, tmp_path):
    """It gets a TERM before the limit, leaves with 75, is queued again, and ends as if nothing had been."""
    root = start(tmp_path, *TASKS.split())
    unit = sweep.needed(root).units[0].name
    until(lambda: claim(root, unit), "the unit has begun")
    task = task_of(root, unit)
    slurm("scancel", "--signal=TERM", task)
    until(lambda: "Restarts=1" in slurm("scontrol", "show", "job", task), "the task is queued again")
    finished(root, whole)
    job, index = task.split("_")
    log = (root / "logs" / f"{job}_{index}.out").read_text()
    assert "state saved, continue with --resume" in log
    said = until(
        lambda: found if "COMPLETED" in (found := slurm("scontrol", "show", "job", task)) else "",
        "it has ended",
    )
    assert "ExitCode=0:0" in said


def test_a_node_that_dies_costs_nothing(cluster, whole, tmp_path):
    root = start(tmp_path, *TASKS.split())
    unit = sweep.needed(root).units[0].name
    until(lambda: claim(root, unit), "the unit has begun")
    node = slurm("squeue", "--noheader", f"--jobs={task_of(root, unit)}", "--format=%N").strip()
    slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    assert states(root)[unit] in ("waiting", "running", "lost")
    subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], capture_output=True)
    until(lambda: "DOWN" not in slurm("scontrol", "show", "node", node), "the node, or Slurm, resumes it")
    finished(root, whole)


def test_preempted_tasks_go_on_later(cluster, whole, tmp_path):
    root = start(tmp_path, *TASKS.split())
    unit = sweep.needed(root).units[0].name
    until(lambda: claim(root, unit), "the unit has begun")
    task = task_of(root, unit)
    slurm("sbatch", "--partition=high", "--ntasks=4", "--time=1", "--mem-per-cpu=100", "--wrap", "sleep 1")
    until(lambda: "Restarts=1" in slurm("scontrol", "show", "job", task), "the task was preempted")
    finished(root, whole)
