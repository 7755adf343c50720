"""Two processes work on one study in PostgreSQL: a real server on loopback, started and stopped here."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

import hyperlax
from hyperlax.searches import studies

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name))
PASSWORD = "not-to-be-shown"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BINARIES, reason="no PostgreSQL server: apt-get install postgresql"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of an empty database. PostgreSQL refuses to run as root: then it runs as another user."""
    pytest.importorskip("psycopg", reason='pip install ".[search]"')
    home = Path(tempfile.mkdtemp(prefix="hyperlax-postgresql-"))
    other = _unprivileged() if os.geteuid() == 0 else None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (home / "password").write_text(PASSWORD)
    if other is not None:
        for path in (home, home / "password"):
            os.chown(path, other.pw_uid, other.pw_gid)
    as_user = {} if other is None else {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
    flags = ["-U", "hyperlax", "--auth=scram-sha-256", f"--pwfile={home / 'password'}", "--no-sync"]
    initdb = [str(BINARIES[-1] / "initdb"), "-D", str(home / "data"), *flags]
    made = subprocess.run(initdb, cwd=home, capture_output=True, text=True, **as_user)
    assert made.returncode == 0, made.stderr
    options = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
    command = [str(BINARIES[-1] / "postgres"), "-D", str(home / "data"), "-p", str(port)]
    log = (home / "log").open("w")
    running = subprocess.Popen(
        [*command, *(part for option in options for part in ("-c", option))],
        cwd=home,
        stdout=log,
        stderr=log,
        **as_user,
    )
    try:
        _wait_for(port, running, home / "log")
        yield f"postgresql://hyperlax:{PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(timeout=30)
        log.close()
        shutil.rmtree(home)


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("no user that PostgreSQL could run as")


def _wait_for(port: int, running: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert running.poll() is None, log.read_text()
        if "ready to accept connections" in log.read_text():
            return
        time.sleep(0.1)
    pytest.fail(f"PostgreSQL did not start on port {port}:\n{log.read_text()}")


def _process(url: str, root: Path, trials: int) -> subprocess.Popen:
    flags = "--algo-and-network-config ppo_mlp_no_network_search --env-config gymnax.pendulum"
    length = "--run-length-modifier quick --total-timesteps 6000 --checkpoint-seconds 0.5 --resume"
    command = f"optuna-hp-search {flags} {length} --n-trials {trials} --storage {url} --output-root {root}"
    environment = {**os.environ, "HYPERLAX_CACHE_DIR": str(Path(__file__).parents[1] / ".jax_cache")}
    environment.pop("HYPERLAX_TYPECHECK", None)
    return subprocess.Popen(
        [sys.executable, "-m", "hyperlax", *command.split()],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _folder(root: Path) -> Path:
    return root / "ppo_mlp_no_network_search" / "gymnax.pendulum"


def _counts(url: str) -> dict[str, int]:
    where = studies.storage(url, None)
    trials = where.get_all_trials(where.get_study_id_from_name(studies.NAME), deepcopy=False)
    studies.close(where)
    states = [t.state.name for t in trials]
    return {state: states.count(state) for state in set(states)}


@pytest.mark.timeout(900)
def test_processes_share_a_study_one_is_killed_and_the_total_is_kept(server, tmp_path):
    """Started by the same command on an empty database; then a larger total, kill -9, and resuming.

    Of two processes that ask for the last trial at once, one gives its trial up and does not train it.
    """
    roots = [tmp_path / "a", tmp_path / "b"]
    processes = [_process(server, root, 12) for root in roots]
    said = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert _counts(server)["COMPLETE"] == 12
    results = [hyperlax.read(_folder(root)) for root in roots]
    samples = [set(r.samples["sample"].to_list()) for r in results]
    assert not samples[0] & samples[1]
    assert all(samples)
    assert sum(map(len, samples)) == 12
    assert all(set(r.lanes["status"]) == {"done"} for r in results)
    last = max(results, key=lambda r: r.trials["state"].eq("done").sum())
    assert set(last.trials["process"]) == {0, 1}
    best = json.loads((_folder(roots[0]) / "best_params.json").read_text())
    assert best["trial"] in samples[0] | samples[1]
    for root in roots:
        for name in ("manifest.json", "report.html", "hyperlax.log"):
            assert PASSWORD not in (_folder(root) / name).read_text(), name

    killed = _process(server, roots[0], 40)
    deadline = time.monotonic() + 300
    while sum(_counts(server).values()) < 20 and time.monotonic() < deadline:
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.1)
    killed.kill()
    killed.communicate(timeout=60)
    assert _counts(server).get("RUNNING", 0) > 0
    again = _process(server, roots[0], 24)
    output = again.communicate(timeout=600)[0]
    assert again.returncode == 0, output
    counts = _counts(server)
    assert counts["COMPLETE"] >= 20
    assert counts.get("RUNNING", 0) == 0
    trained = hyperlax.read(_folder(roots[0]))
    mine = trained.trials.filter(pl.col("process") == _owner(trained), pl.col("state") != "given up")
    assert set(trained.samples["sample"]) == set(mine["trial"])
    assert set(trained.lanes["status"]) == {"done"}


@pytest.mark.timeout(900)
def test_tasks_of_one_search_share_a_study_whose_password_is_nowhere(server, tmp_path):
    """Where the processes find it, libpq decides: here in PGPASSWORD."""
    url = server.replace(f":{PASSWORD}@", "@")
    flags = "--algo-and-network-config ppo_mlp_no_network_search --env-config gymnax.pendulum --tasks 2"
    length = "--run-length-modifier quick --total-timesteps 6000 --n-trials 6 --study-name tasks"
    command = f"optuna-hp-search {flags} {length} --storage {url} --output-root {tmp_path}"
    environment = {**os.environ, "HYPERLAX_CACHE_DIR": str(Path(__file__).parents[1] / ".jax_cache")}
    environment.pop("HYPERLAX_TYPECHECK", None)
    environment["PGPASSWORD"] = PASSWORD
    done = subprocess.run(
        [sys.executable, "-m", "hyperlax", *command.split()],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    results = hyperlax.read(_folder(tmp_path))
    counted = results.trials.filter(pl.col("state") != "given up")  # both may ask for the last at a time
    assert counted["state"].to_list() == ["done"] * 6
    assert counted["trial"].to_list() == results.samples["sample"].to_list() == list(range(6))
    assert not (_folder(tmp_path) / studies.JOURNAL).exists()
    for path in _folder(tmp_path).rglob("*"):
        assert path.is_dir() or PASSWORD.encode() not in path.read_bytes(), path


def _owner(results: hyperlax.Results) -> int:
    """Which of the study's processes a folder belongs to."""
    first = results.samples["sample"].min()
    return results.trials.filter(pl.col("trial") == first)["process"][0]
