"""Shared helpers of the benchmarks: machine information, tables, JSON files and timing of processes."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent / "out"
_WRITTEN: set[Path] = set()
"""The files that this process has written."""


def context() -> dict[str, Any]:
    """The machine, versions, commit and date, which are stored with every result."""
    from hyperlax.experiments.machine import git_commit, machine, versions

    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {**machine(), "load_average": os.getloadavg()[0]},
        "versions": versions(),
        "git_commit": git_commit(),
    }


def save(name: str, results: Any, path: Path | None = None, about: Mapping[str, Any] | None = None) -> Path:
    """Write `results` to `path`, or `benchmarks/out/<name>.json`, in one step; returns the path.

    With them goes `about`: the `context` of this process if it is None. A file of an earlier process is kept
    under a name with the time of its last change.
    """
    path = path or OUT / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.resolve() not in _WRITTEN:
        changed = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
        path.replace(path.with_name(f"{path.stem}-{changed:%Y%m%dT%H%M%S}{path.suffix}"))
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps({**(about or context()), "results": results}, indent=1, default=str) + "\n")
    beside.replace(path)
    _WRITTEN.add(path.resolve())
    return path


def table(rows: Sequence[Mapping[str, Any]], title: str, width: int = 130) -> None:
    """Print `rows`, which share their columns, as a table with a title, `width` characters wide at most."""
    from rich.console import Console
    from rich.table import Table

    if not rows:
        print(f"{title}: nothing was measured")
        return
    shown = Table(title=title)
    for name in rows[0]:
        shown.add_column(name)
    for row in rows:
        shown.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console(width=width).print(shown)


def whole_process(command: Sequence[str], **environment: str) -> float:
    """Run a command; returns the seconds from start to exit. Raises `RuntimeError` when it fails."""
    began = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout}{done.stderr}")
    return seconds


def cli(*arguments: str) -> list[str]:
    """The command line of this package with `arguments`."""
    return [sys.executable, "-m", "hyperlax", *arguments]


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that is deleted when its `with` block ends."""
    return tempfile.TemporaryDirectory(prefix="hyperlax-bench-")


def usable_cores() -> list[int]:
    """The numbers of the cores that this process may run on; all of them if the system does not tell."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@contextmanager
def pinned(cores: Sequence[int] | None) -> Iterator[None]:
    """Let this thread and the processes that it starts run on `cores` only, if any are given.

    Without effect where the system cannot, as on macOS. Nothing has to run between fork and exec, which
    would be unsafe beside the threads of JAX.
    """
    if cores is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def child(function: str, *arguments: str, cores: Sequence[int] | None = None) -> Any:
    """The JSON that `suite.py <function> <arguments>` prints in a fresh process, pinned to `cores`."""
    command = [sys.executable, str(Path(__file__).with_name("suite.py")), function, *arguments]
    with pinned(cores):
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{function} failed:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])
