"""Units that processes train, and what is merged from them: bit for bit what one process writes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import hyperlax
from hyperlax.storage.files import experiment_path

FLAGS = "--run-length-modifier quick --num-samples 4 --seeds 2 --checkpoint-seconds 0.3 --device cpu"
ALGORITHMS = {
    "ppo": ("ppo_mlp_no_network_search", "gymnax.pendulum"),
    "dqn": ("dqn_mlp", "gymnax.cartpole"),
    "sac": ("sac_mlp", "gymnax.pendulum"),
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def begin(root: Path, algorithm: str, *more: str, devices: int = 2) -> subprocess.Popen[str]:
    recipe, env = ALGORITHMS[algorithm]
    environment = {k: v for k, v in os.environ.items() if k not in ("HYPERLAX_TYPECHECK", "XLA_FLAGS")}
    environment["HYPERLAX_CACHE_DIR"] = str(Path(__file__).parents[1] / ".jax_cache")
    environment["JAX_NUM_CPU_DEVICES"] = str(devices)
    about = ["--algo-and-network-config", recipe, "--env-config", env, "--output-root", str(root)]
    command = [sys.executable, "-m", "hyperlax", "sweep-hp-samples", *about, *FLAGS.split(), *more]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process: subprocess.Popen[str]) -> int:
    _, errors = process.communicate(timeout=300)
    assert "Traceback" not in errors, errors
    return process.returncode


def folder(root: Path, algorithm: str) -> Path:
    return root / experiment_path(*ALGORITHMS[algorithm])


def assert_equal(ours: Path, theirs: Path) -> None:
    a, b = hyperlax.read(ours), hyperlax.read(theirs)
    for table in ("samples", "lanes", "curves", "episodes"):
        x, y = (getattr(r, table).drop("seconds", strict=False) for r in (a, b))
        assert x.equals(y), table
    policies = {p.name: p.read_bytes() for p in (theirs / "policies").iterdir()}
    assert {p.name: p.read_bytes() for p in (ours / "policies").iterdir()} == policies
    assert not [p for entry in hyperlax.check(ours) for p in entry.problems]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder that one process with one device has trained, by algorithm."""
    done: dict[str, Path] = {}

    def trained(algorithm: str) -> Path:
        if algorithm not in done:
            root = tmp_path_factory.mktemp(algorithm)
            assert ended(begin(root, algorithm, devices=1)) == 0
            done[algorithm] = folder(root, algorithm)
        return done[algorithm]

    return trained


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("devices", [2, 4])
def test_the_number_of_devices_does_not_show(whole, tmp_path, algorithm, devices):
    assert ended(begin(tmp_path, algorithm, devices=devices)) == 0
    assert_equal(folder(tmp_path, algorithm), whole(algorithm))


@pytest.mark.parametrize(("units", "tasks", "devices"), [(2, 2, 1), (4, 2, 4)])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_division_into_units_does_not_show(whole, tmp_path, algorithm, units, tasks, devices):
    more = ("--tasks", str(tasks), "--units", str(units))
    assert ended(begin(tmp_path, algorithm, *more, devices=devices)) == 0
    assert_equal(folder(tmp_path, algorithm), whole(algorithm))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_of_units_is_interrupted_and_goes_on(whole, tmp_path, number):
    """Stopped at some moment and resumed until it is done; killed, its processes leave by themselves."""
    rng, codes = random.Random(0), []
    for attempt in range(6):
        more = ("--tasks", "2", "--units", "4", *(("--resume",) if attempt else ()))
        process = begin(tmp_path, "ppo", *more)
        if attempt < 2:
            time.sleep(rng.uniform(8, 16))
            process.send_signal(number)
        codes.append(ended(process))
        if codes[-1] == 0:
            break
    assert codes[-1] == 0
    assert set(codes) <= {0, 75, 2, -signal.SIGKILL}
    assert_equal(folder(tmp_path, "ppo"), whole("ppo"))


def test_processes_that_train_the_same_units_do_no_harm(whole, tmp_path):
    more = ("--tasks", "1", "--units", "2")
    first = begin(tmp_path, "ppo", *more)
    while not (folder(tmp_path, "ppo") / "sweep.json").exists():
        assert first.poll() is None
        time.sleep(0.05)
    second = begin(tmp_path, "ppo", *more, "--resume")
    assert 0 in (ended(first), ended(second))
    assert_equal(folder(tmp_path, "ppo"), whole("ppo"))
