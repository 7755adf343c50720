"""Experiments killed after any of their file operations: the folders of these moments, resumed, compared."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import polars as pl

import hyperlax
from hyperlax.commands import main as cli
from hyperlax.storage import store
from hyperlax.storage.checkpoint import read_header
from hyperlax.storage.files import write_atomically
from hyperlax.storage.results import SCHEMAS

OPERATIONS = ("replace", "rename", "link", "symlink", "fsync", "mkdir", "unlink", "rmdir")
"""The functions of `os` that change a folder; a process may be killed after each call."""
LOG = "hyperlax.log"
OF_TIME = ("seconds", "start", "end")
"""Columns that hold wall time."""
NOT_COMPARED = ("timeline", "system")
"""Tables that hold nothing but wall time and the load of the machine."""
HEADER_OF_TIME = ("parts", "elapsed", "files", "sha256", "attempt")
"""Entries of a checkpoint's header that depend on when and how often it was saved."""

RECIPES = """
from hyperlax import Choice, LogUniform, Recipe

NETS = {f"{net}.{what}": n for net in ("actor", "critic") for what, n in (("width", 8), ("depth", 1))}
SETTINGS = {"total_timesteps": 96, "seeds": 2, "evaluations": 3, "eval_episodes": 2}
ON = {"num_envs": 4, "rollout_length": Choice(4, 8), "num_minibatches": 2, "epochs": 1}
OFF = {"num_envs": 2, "rollout_length": Choice(2, 4), "buffer_size": 64, "batch_size": 8}
OFF |= {"warmup_rollout_length": 8}
RATE = LogUniform(1e-4, 1e-2)
CRITIC = {"critic.width": 8, "critic.depth": 1}
RECIPES = {
    "ppo": Recipe("ppo", "mlp", {"actor_lr": RATE, **NETS, **ON}, SETTINGS, only=True),
    "dqn": Recipe("dqn", "mlp", {"critic_lr": RATE, **CRITIC, **OFF}, SETTINGS, only=True),
    "sac": Recipe("sac", "mlp", {"actor_lr": RATE, **NETS, **OFF}, SETTINGS, only=True),
}
"""
"""The recipes of the experiments, small enough to train in a moment.

That of PPO has the sizes of `hyperlax.testing.schedules`, so that all tests of schedules share a program.
"""


@dataclass(frozen=True)
class Kind:
    """A kind of experiment: the command that runs it, in a folder with `recipes.py`, and where it writes."""

    command: str
    folder: Path

    def line(self, root: Path, resume: bool) -> list[str]:
        """The command line that begins or resumes it below `root`."""
        more = f"--output-root {root} --checkpoint-seconds 0 --log-level ERROR"
        return [*self.command.split(), *more.split(), *(["--resume"] if resume else [])]

    def run(self, root: Path) -> None:
        """Run or resume it, whichever its folder asks for, in this process; its output is thrown away."""
        if self.folder != Path():
            root.mkdir(exist_ok=True)  # for a study beside the experiment
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            code = _exit_code(self.line(root, (root / self.folder).exists()))
        if code != 0:
            raise RuntimeError(f"exit code {code}: {said.getvalue()}")


def _exit_code(line: list[str]) -> Any:
    try:
        cli.main(line)
    except SystemExit as left:
        return left.code


def _trained(command: str, algorithm: str, env: str, more: str) -> Kind:
    line = f"{command} --algo-and-network-config recipes.py:{algorithm} --env-config {env} {more}"
    return Kind(line, Path(f"recipes.py_{algorithm}") / env)


HALF = "--set scheduler.reduction_factor=2"
SWEEP, SEARCH = "sweep-hp-samples", "optuna-hp-search"
CARTPOLE, PENDULUM = "gymnax.cartpole", "gymnax.pendulum"
KINDS = {
    "ppo": _trained(SWEEP, "ppo", CARTPOLE, "--num-samples 4"),
    "dqn": _trained(SWEEP, "dqn", CARTPOLE, "--num-samples 3"),
    "sac": _trained(SWEEP, "sac", PENDULUM, "--num-samples 3"),
    "asha": _trained(
        SWEEP, "ppo", CARTPOLE, "--num-samples 6 --scheduler asha --set scheduler.reduction_factor=2"
    ),
    "pbt": _trained(SWEEP, "ppo", CARTPOLE, "--num-samples 4 --scheduler pbt"),
    "random": _trained(SEARCH, "ppo", CARTPOLE, "--n-trials 5 --sampler random --seeds 1"),
    "tpe": _trained(SEARCH, "ppo", CARTPOLE, "--n-trials 14 --seeds 1"),
    "qmc": _trained(SEARCH, "ppo", CARTPOLE, "--n-trials 5 --seeds 1 --sampler qmc"),
    "pruned": _trained(SEARCH, "ppo", CARTPOLE, "--n-trials 9 --pruner asha --sampler random"),
    "sqlite": _trained(SEARCH, "ppo", CARTPOLE, "--n-trials 6 --seeds 1 --storage sqlite:///root/study.db"),
    "benchmark": Kind(
        "run-benchmark --algos recipes.py:ppo recipes.py:dqn --envs gymnax.cartpole --num-samples-per-run 2 "
        "--run-length-modifier 96",
        Path(),
    ),
    "confirmation": _trained(SWEEP, "ppo", CARTPOLE, "--num-samples 3 --confirm 2"),
}
"""Name → experiment."""


class Snapshots:
    """While it is entered, copies what is below `root` to a new folder in `into` after every file operation.

    Moments at which the files have the same names and contents as before are left out. `folders` are the
    copies.
    """

    def __init__(self, root: Path, into: Path):
        self.root, self.into = root, into
        self.folders: list[Path] = []
        self._seen: set[str] = set()
        self._lock, self._copying = threading.RLock(), False

    def __enter__(self) -> Snapshots:
        with contextlib.ExitStack() as stack:
            for name in OPERATIONS:
                stack.enter_context(mock.patch.object(os, name, self._watched(getattr(os, name))))
            self._left = stack.pop_all()
        return self

    def __exit__(self, *_: Any) -> None:
        self._left.close()

    def _watched(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(operation)
        def watched(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                result = operation(*args, **kwargs)
                self._copy()
                return result

        return watched

    def _copy(self) -> None:
        if self._copying or not self.root.exists() or (now := fingerprint(self.root)) in self._seen:
            return
        self._seen.add(now)
        self.folders.append(self.into / f"{len(self.folders):05d}")
        self._copying = True
        shutil.copytree(self.root, self.folders[-1], symlinks=True)
        self._copying = False


def files(root: Path) -> Iterator[Path]:
    """Everything below `root`, in the order of names."""
    return iter(sorted(p for p in root.rglob("*") if p.name != LOG))


def fingerprint(root: Path) -> str:
    """A digest of the names and contents of all files below `root`; random parts of temporary names aside."""
    digest = hashlib.sha256()
    for path in files(root):
        name = re.sub(r"[^.]*\.tmp$", "tmp", str(path.relative_to(root)))
        digest.update(name.encode() + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()


def contents(root: Path) -> dict[str, Any]:
    """Everything that experiments have left below `root`, apart from wall time, by the name of what it is."""
    found: dict[str, Any] = {"files": sorted({_plain(p.relative_to(root)) for p in files(root)})}
    for path in sorted(root.rglob(store.MANIFEST)):
        about, results = str(path.parent.relative_to(root)), hyperlax.read(path.parent)
        for name in (*SCHEMAS, "samples", "trials"):
            if name not in NOT_COMPARED:
                found[f"{about} {name}"] = _table(getattr(results, name))
        for policy in sorted((path.parent / "policies").glob("*")):
            found[f"{about} {policy.name}"] = hashlib.sha256(policy.read_bytes()).hexdigest()
        for checkpoint in sorted((path.parent / "checkpoint").glob("*.bin")):
            found[f"{about} checkpoint"] = _header(checkpoint)
    return found


def _plain(path: Path) -> str:
    """A name without the numbers that count attempts and checkpoints."""
    return re.sub(r"\d+", "#", str(path)) if path.parent.name != "policies" else str(path)


def _table(frame: pl.DataFrame) -> list[str]:
    """The rows of a table, in an order of their own."""
    return sorted(str(row) for row in frame.drop(OF_TIME, strict=False).iter_rows())


def _header(path: Path) -> dict[str, Any]:
    header = read_header(path.read_bytes(), str(path))
    lanes = [{k: v for k, v in lane.items() if k != "seconds"} for lane in header["lanes"]]
    return {k: v for k, v in {**header, "lanes": lanes}.items() if k not in HEADER_OF_TIME}


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What differs between two results of `contents`, one short line each."""
    lines = []
    for name in sorted({*expected, *found}):
        ours, theirs = expected.get(name), found.get(name)
        if ours == theirs:
            continue
        if isinstance(ours, list) and isinstance(theirs, list):
            gone, new = [x for x in ours if x not in theirs], [x for x in theirs if x not in ours]
            lines.append(f"{name}: missing {gone[:2]}, too much {new[:2]} ({len(ours)} and {len(theirs)})")
        elif isinstance(ours, dict) and isinstance(theirs, dict):
            keys = [k for k in {*ours, *theirs} if ours.get(k) != theirs.get(k)]
            lines += [f"{name} {k}: {ours.get(k)!r:.300}, not {theirs.get(k)!r:.300}" for k in keys]
        else:
            lines.append(f"{name}: {ours!r:.80}, not {theirs!r:.80}")
    return lines


def campaign(
    kind: Kind, place: Path, step: int = 1, only: Sequence[int] | None = None
) -> tuple[int, list[str]]:
    """Run an experiment once, then resume it from the moments after its file operations, every `step`th.

    `place` is the current folder, which holds `recipes.py`. Returns the number of moments, and a line for
    each difference from the uninterrupted run.
    """
    root, wrong = place / "root", []
    with Snapshots(root, place / "moments") as taken:
        kind.run(root)
    expected = contents(root)
    moments = [n for n in range(0, len(taken.folders), step) if only is None or n in only]
    for number in moments:
        with set_aside(root):
            shutil.copytree(taken.folders[number], root, symlinks=True)
            try:
                kind.run(root)
                wrong += [f"moment {number}: {line}" for line in differences(expected, contents(root))]
            except Exception as error:  # every failure is one of the campaign's results
                wrong.append(f"moment {number}: {type(error).__name__}: {str(error)[:300]}")
    return len(moments), wrong


@contextlib.contextmanager
def set_aside(root: Path) -> Iterator[None]:
    """Make room at `root`, which holds a finished experiment, and put it back."""
    whole = root.with_name("whole")
    root.rename(whole)
    try:
        yield
    finally:
        shutil.rmtree(root, ignore_errors=True)
        whole.rename(root)


def in_a_process(kind: str, root: Path) -> None:
    """Run or resume an experiment as a process of its own does; without a report, which takes a second."""
    import hyperlax.report
    import hyperlax.studies.benchmark

    def report(results: Any, path: Path) -> Path:
        return write_atomically(path, "report")

    hyperlax.report.write_report = hyperlax.studies.benchmark.write_report = report
    KINDS[kind].run(root)
