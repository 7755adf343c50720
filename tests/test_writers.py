"""Several processes write to one folder: one of them goes on, the others leave, and no row is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from folders import names

import hyperlax

SUPERSEDED = 76
FLAGS = "--run-length-modifier quick --num-samples 3 --seeds 2 --total-timesteps 6000 --checkpoint-seconds 0"
RECIPE = "--algo-and-network-config ppo_mlp_no_network_search --env-config gymnax.pendulum"
BELOW = Path("ppo_mlp_no_network_search") / "gymnax.pendulum"

pytestmark = pytest.mark.slow


def start(root: Path, *more: str) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k != "HYPERLAX_TYPECHECK"}
    environment["HYPERLAX_CACHE_DIR"] = str(Path(__file__).parents[1] / ".jax_cache")
    command = [sys.executable, "-m", "hyperlax", "sweep-hp-samples", *f"{RECIPE} {FLAGS}".split(), *more]
    return subprocess.Popen(
        [*command, "--output-root", str(root)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(processes: list[subprocess.Popen[str]]) -> list[int]:
    """The exit codes; whoever left says why in its last line."""
    codes = []
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert "Traceback" not in errors, errors
        codes.append(process.returncode)
        if process.returncode == SUPERSEDED:
            assert "has taken over" in errors.strip().splitlines()[-1]
            assert "nothing is lost" in errors
    return codes


def committed(root: Path, process: subprocess.Popen[str], number: int = 1) -> None:
    """Wait until the process has committed so many times, or has ended."""
    while process.poll() is None:
        found = [int(p.stem.rpartition("-")[2]) for p in (root / BELOW / "checkpoint").glob("state-*.bin")]
        if max(found, default=0) >= number:
            return
        time.sleep(0.01)


def assert_whole(root: Path, whole: Path) -> None:
    ours, theirs = hyperlax.read(root / BELOW), hyperlax.read(whole / BELOW)
    for table in ("samples", "lanes", "curves", "episodes"):
        a, b = (getattr(r, table).drop("seconds", strict=False) for r in (ours, theirs))
        assert a.equals(b), table
    assert names(root / BELOW) == names(whole / BELOW)
    assert not [p for entry in hyperlax.check(root) for p in entry.problems]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    assert ended([start(root)]) == [0]
    return root


@pytest.mark.parametrize("writers", [2, 3])
def test_processes_that_continue_a_killed_run_at_once(whole, tmp_path, writers):
    first = start(tmp_path)
    committed(tmp_path, first)
    first.kill()
    first.communicate()
    codes = ended([start(tmp_path, "--resume") for _ in range(writers)])
    assert set(codes) <= {0, SUPERSEDED}
    assert 0 in codes
    assert_whole(tmp_path, whole)


@pytest.mark.parametrize("writers", [2, 3])
@pytest.mark.parametrize("number", [1, 4])
def test_processes_that_continue_a_run_that_goes_on(whole, tmp_path, writers, number):
    processes = [start(tmp_path)]
    while len(processes) < writers:
        committed(tmp_path, processes[-1], number)
        processes.append(start(tmp_path, "--resume"))
    codes = ended(processes)
    assert set(codes) <= {0, SUPERSEDED}
    assert 0 in codes
    assert_whole(tmp_path, whole)


@pytest.mark.parametrize("writers", [2, 3])
def test_processes_that_start_one_experiment_at_once(whole, tmp_path, writers):
    """One gets the folder, whichever of them; the others say so and touch nothing."""
    codes = ended([start(tmp_path) for _ in range(writers)])
    assert sorted(codes) == [0, *[2] * (writers - 1)]
    assert_whole(tmp_path, whole)
