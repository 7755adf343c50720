"""A signal ends a command at any moment: all that is worth keeping is saved, or nothing was begun."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

import hyperlax
from hyperlax import leaving
from hyperlax.run.display import Display
from hyperlax.run.signals import Interrupted, signals_of, wait

ROOT = Path(__file__).parents[1]
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]
CODES = {number: 130 if number == signal.SIGINT else 75 for number in SIGNALS}


class Left(BaseException):
    """Raised in place of the end of the process."""


@pytest.fixture
def watch(monkeypatch) -> Iterator[leaving.Watch]:
    """A watch that hears what it is told, and raises `Left` where the process would end."""
    clock = [time.monotonic()]
    monkeypatch.setattr(leaving, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    leaving.from_now_on(leaving.NOTHING_BEGUN)
    watch: Any = leaving.Watch()
    watch.pass_time = lambda seconds: clock.__setitem__(0, clock[0] + seconds)
    monkeypatch.setattr(leaving, "_watch", watch)

    def leave(code: int, line: str):
        raise Left(code, line)

    monkeypatch.setattr(leaving, "leave", leave)
    yield watch
    leaving.from_now_on(leaving.NOTHING_BEGUN)


class Run(Display):
    """A run that trains nothing: what `signals_of` needs."""

    def __init__(self):
        self.stop: int | None = None
        self.folder, self.progress = Path("somewhere"), self
        self.saved = self.shown = 0

    def save(self) -> None:
        self.saved += 1

    def stopping(self) -> None:
        self.shown += 1


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_process_that_has_begun_nothing(watch, number):
    watch.hear(number)
    with pytest.raises(Left) as left:
        watch.remaining()
    assert left.value.args == (CODES[number], f"stopped by {signal.Signals(number).name}; nothing was begun")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_run_is_told_once_and_may_take_its_time_to_save(watch, number):
    """In a container every signal comes twice within milliseconds: that is not a second one."""
    run: Any = Run()
    with pytest.raises(Interrupted) as stopped, signals_of(run):  # noqa: PT012
        assert watch.remaining() is None
        watch.hear(number)
        watch.pass_time(0.01)
        watch.hear(number)
        assert run.stop == number
        watch.pass_time(3_600)
        assert watch.remaining() == 1.0
    assert stopped.value.signum == number
    assert watch.remaining() == 1.0, "the main thread leaves by itself"
    watch.pass_time(2 * leaving.FAREWELL_SECONDS)
    with pytest.raises(Left):
        watch.remaining()


def test_only_a_second_interrupt_of_a_person_ends_a_run_at_once(watch):
    run: Any = Run()
    leaving.from_now_on("continue with --resume")
    with pytest.raises(Left) as left, signals_of(run):  # noqa: PT012
        watch.hear(signal.SIGINT)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            watch.hear(number)
        watch.pass_time(2.0)
        watch.hear(signal.SIGTERM)
        assert run.saved == 0
        watch.hear(signal.SIGINT)
    assert left.value.args == (130, "stopped at once by a second SIGINT; continue with --resume")


def test_a_signal_before_or_after_a_run_is_not_lost(watch):
    """The first one comes while the next run of a benchmark is prepared, the second after the last save."""
    run: Any = Run()
    watch.asked = signal.SIGTERM
    with pytest.raises(Interrupted), signals_of(run):
        assert run.stop == signal.SIGTERM
    watch.asked, run = None, Run()
    with pytest.raises(Interrupted), signals_of(run):
        watch.hear(signal.SIGTERM)
    assert run.saved == 0


def test_a_run_that_waits_for_others_is_left_after_a_while(watch):
    """Such as for a study whose storage another process has locked."""
    run: Any = Run()
    with pytest.raises(Left, match="state saved"), signals_of(run):  # noqa: PT012
        watch.hear(signal.SIGTERM)
        watch.pass_time(100.0)
        with leaving.moment("state saved", patience=10.0):
            assert watch.remaining() == 1.0
            watch.pass_time(9.5)
            assert watch.remaining() == pytest.approx(0.5)
            watch.pass_time(1.0)
            watch.remaining()


def test_what_is_finished_is_not_stopped(watch):
    leaving.from_now_on(None)
    watch.hear(signal.SIGTERM)
    watch.pass_time(100.0)
    assert watch.remaining() == 1.0


def test_a_run_that_compiles_saves_without_waiting(watch):
    run: Any = Run()
    with pytest.raises(Interrupted), signals_of(run):  # noqa: PT012
        watch.hear(signal.SIGUSR1)
        wait(Future(), run)
    assert run.saved == 1


@pytest.mark.timeout(20)
def test_a_time_limit_that_what_is_waited_for_has_exceeded_is_its_error():
    future: Future[None] = Future()
    future.set_exception(TimeoutError("the compiler gives up"))
    run: Any = Run()
    with pytest.raises(TimeoutError, match="the compiler gives up"):
        wait(future, run)


@pytest.mark.parametrize("number", SIGNALS)
def test_in_a_program_of_ones_own_handlers_are_those_of_a_run_only_while_it_runs(number):
    """A second SIGINT is a `KeyboardInterrupt` there."""
    run: Any = Run()
    before = {n: signal.getsignal(n) for n in SIGNALS}
    with pytest.raises(Interrupted), signals_of(run):  # noqa: PT012
        for _ in range(2):
            os.kill(os.getpid(), number)
        assert (run.stop, run.shown) == (number, 1)
    assert {n: signal.getsignal(n) for n in SIGNALS} == before
    run: Any = Run()
    with pytest.raises(KeyboardInterrupt), signals_of(run):  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1.2 * leaving.ECHO_SECONDS)
        os.kill(os.getpid(), signal.SIGINT)
    assert {n: signal.getsignal(n) for n in SIGNALS} == before


def test_in_another_thread_nothing_is_installed():
    run: Any = Run()
    before = {n: signal.getsignal(n) for n in SIGNALS}

    def enter():
        with signals_of(run), leaving.watched():
            seen.append({n: signal.getsignal(n) for n in SIGNALS})

    seen: list[Any] = []
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]


BUSY = """
import hashlib, os, signal, sys
from hyperlax import leaving
with leaving.watched(to_the_end=True), leaving.unfinished("half", "tree"):
    open("half", "w").write("half of it")
    os.makedirs("tree/folder")
    print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 100_000_000)  # no bytecode runs for a minute
"""


def _light(code: str, tmp_path: Path, ignoring: str = "") -> subprocess.Popen[str]:
    """A process that runs `code`, and has inherited that the signal named `ignoring` is ignored."""
    environment = {k: v for k, v in os.environ.items() if k != "HYPERLAX_TYPECHECK"}
    environment["PYTHONPATH"] = str(Path(hyperlax.__file__).parents[1])
    return subprocess.Popen(
        [
            "sh",
            "-c",
            f'trap "" {ignoring}; exec "$0" -c "$1"' if ignoring else 'exec "$0" -c "$1"',
            sys.executable,
            code,
        ],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", SIGNALS)
def test_a_process_that_runs_no_bytecode_leaves_at_once_and_clears_away(tmp_path, number):
    process = _light(BUSY, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "False\n"
    process.send_signal(number)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (
        CODES[number],
        f"stopped by {signal.Signals(number).name}; nothing was begun\n",
    )
    assert not any(tmp_path.iterdir())


def test_under_nohup_a_hangup_is_ignored(tmp_path):
    process = _light(BUSY, tmp_path, "HUP")
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 75


def test_handlers_of_the_calling_program_come_back():
    before = {n: signal.getsignal(n) for n in SIGNALS}
    with leaving.watched():
        assert leaving.watching()
        assert {n: signal.getsignal(n) for n in SIGNALS} != before
        with leaving.watched():
            pass
        assert leaving.watching()
    assert not leaving.watching()
    assert {n: signal.getsignal(n) for n in SIGNALS} == before


# Real commands. `HYPERLAX_SIGNALS` is how many moments of each are tried, by default two for each signal.

TINY = "--run-length-modifier quick --total-timesteps 3000 --seeds 1 --checkpoint-seconds 0.2"
SMALL = "--algo-and-network-config ppo_mlp_no_network_search --env-config gymnax.pendulum"
COMMANDS = {
    "single": f"run-single-hp {SMALL} {TINY} --output-root out",
    "sweep": f"sweep-hp-samples {SMALL} {TINY} --num-samples 3 --output-root out",
    "asha": f"sweep-hp-samples {SMALL} {TINY} --num-samples 4 --scheduler asha --output-root out",
    "confirm": f"sweep-hp-samples {SMALL} {TINY} --num-samples 2 --confirm 1 --output-root out",
    "search": f"optuna-hp-search {SMALL} {TINY} --n-trials 4 --output-root out",
    "benchmark": f"run-benchmark {TINY} --algos ppo_mlp_no_network_search --envs gymnax.pendulum"
    " --sweep-modes batched sequential --num-samples-per-run 2 --output-root out",
    "dry run": f"run-benchmark {TINY} --algos ppo_mlp_no_network_search --envs gymnax.pendulum"
    " --num-samples-per-run 2 --output-root out --dry-run",
    "circuit": "inspect-circuit --layers 1 --stacks 1 --draws 20 --output-file table.csv",
    "samples": "generate-hp-samples --num-samples 8",
    "list": "list",
}
RESUMABLE = ("single", "sweep", "asha", "confirm", "search", "benchmark")


def _start(line: str, folder: Path) -> subprocess.Popen[bytes]:
    environment = {k: v for k, v in os.environ.items() if k not in ("HYPERLAX_TYPECHECK", "XLA_FLAGS")}
    environment["HYPERLAX_CACHE_DIR"] = str(ROOT / ".jax_cache")
    environment["PYTHONPATH"] = str(Path(hyperlax.__file__).parents[1])
    command = [sys.executable, "-m", "hyperlax", *line.split()]
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _listens(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process has come to the first line of the command, which installs the handlers."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGUSR2 - 1) & 1)


def _finish(line: str, folder: Path) -> None:
    process = _start(line, folder)
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, (line, said, errors)


def _contents(folder: Path) -> dict[str, Any]:
    """What was measured, without times, by folder of an experiment; and the tables in `folder` itself."""
    found: dict[str, Any] = {path.name: (path.read_bytes(),) for path in folder.glob("*.csv")}
    for path in sorted(folder.rglob("manifest.json")):
        results = hyperlax.read(path.parent)
        curves = results.curves.drop("seconds").sort("lane", "env_steps", "metric")
        lanes = results.lanes.drop("seconds").sort("lane")
        pages = (path.parent / "report.html").exists()
        found[str(path.parent.relative_to(folder))] = (curves, lanes, results.samples, pages)
    return found


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        a.equals(b) if isinstance(a, pl.DataFrame) else a == b
        for name, parts in one.items()
        for a, b in zip(parts, other[name], strict=True)
    )


def _again(name: str, folder: Path) -> str:
    """The command that goes on after an interruption."""
    begun = any(folder.rglob("manifest.json")) or any(folder.rglob("benchmark.json"))
    return COMMANDS[name] + (" --resume" if name in RESUMABLE and begun else "")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_can_be_stopped_at_any_moment(tmp_path, name):
    """Saved or nothing begun, with the right code and one line; afterwards the same results."""
    _finish(COMMANDS[name], tmp_path / "warm")
    began = time.monotonic()
    _finish(COMMANDS[name], tmp_path / "whole")
    whole, expected = time.monotonic() - began, _contents(tmp_path / "whole")
    draw = random.Random(name)
    count = int(os.environ.get("HYPERLAX_SIGNALS", 2 * len(SIGNALS)))
    for i in range(count):
        number, twice = SIGNALS[i % len(SIGNALS)], i // len(SIGNALS) % 2
        folder, moment = tmp_path / str(i), whole * (i + draw.random()) / count
        process = _start(COMMANDS[name], folder)
        while not _listens(process):
            time.sleep(0.002)
        time.sleep(moment)
        for _ in range(1 + twice):
            process.send_signal(number)
            time.sleep(0.003)
        asked = time.monotonic()
        said, errors = process.communicate(timeout=120)
        about = (name, number, twice, moment, said, errors)
        assert b"Traceback" not in errors + said, about
        assert time.monotonic() - asked < 30, about
        if process.returncode:
            assert process.returncode == CODES[number], about
            lines = [line for line in errors.splitlines() if line.startswith(b"stopped by")]
            assert len(lines) == 1, about
        if process.returncode or name in RESUMABLE:
            _finish(_again(name, folder), folder)
        assert _same(_contents(folder), expected), about
        assert not list(folder.rglob("*.tmp")), about
