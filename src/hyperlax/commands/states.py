"""The progress of experiments that were not planned in units, from manifests and newest checkpoints."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hyperlax.registry import escaped
from hyperlax.storage import calling, claims
from hyperlax.storage.repairing import BENCHMARK, CLAIMS
from hyperlax.storage.results import UNFINISHED, Results
from hyperlax.storage.wording import counted

ALL_DONE, FAILED, LEFT = 0, 1, 3
_GO_ON = ("unfinished", "waiting", "running")
"""States of experiments that are still to be trained."""


@dataclass(frozen=True)
class State:
    """The progress of one experiment.

    - `state`: done, running (in a process of this machine), unfinished (interrupted, or running elsewhere, or
      with a confirmation that is), waiting (a cell of a benchmark that has not begun), failed, or damaged.
    - `lanes`: the numbers of lanes that are done, and of all; `env_steps`: those trained by the checkpoint,
      and in the end. None where nothing has been recorded yet.
    - `why`: what is wrong; empty if nothing is.
    - `next`: the command to type next; empty if it is done.
    """

    folder: Path
    state: str
    lanes: tuple[int, int] | None
    env_steps: tuple[int, int] | None
    why: str
    next: str

    def row(self, root: Path) -> dict[str, Any]:
        """The entry of a table; the folder is said from `root` on."""
        name = str(self.folder.relative_to(root)) if self.folder != root else self.folder.name
        done = "–" if self.lanes is None else f"{self.lanes[0]:,} of {self.lanes[1]:,}"
        steps = "–" if self.env_steps is None else f"{self.env_steps[0]:,} of {self.env_steps[1]:,}"
        return {"experiment": name, "state": self.state, "lanes done": done, "env steps": steps}


def states(root: Path) -> list[State]:
    """Look at every experiment at or below `root`, and every cell of a benchmark there; changes nothing.

    Raises `FileNotFoundError`, with what the folder would have to hold, if there is none.
    """
    from hyperlax.storage import store

    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder")
    try:
        folders = store.find(root)
    except ValueError:
        folders = []
    records = [r for r in root.rglob(BENCHMARK) if not any(p[:1] == "." for p in r.relative_to(root).parts)]
    found = [_state(folder) for folder in folders]
    for record in records:
        found += _unbegun(record.parent)
    if not (found or records):
        raise FileNotFoundError(
            f"{root} holds no experiment: status is for the folder of a sweep, search or benchmark, or any "
            "folder that contains some; commands print it when they begin, by default below results/<command>"
        )
    return sorted(found, key=lambda one: one.folder)


def show(folder: Path, watch: bool, as_json: bool, every: float) -> int:
    """Print the progress of every experiment at or below `folder`; return the exit code."""
    from rich.console import Console

    from hyperlax import leaving
    from hyperlax.commands.tables import states_table

    console, found = Console(highlight=False, markup=False), states(folder)
    leaving.from_now_on(None if not watch else "nothing was changed")
    while True:
        if as_json:
            print(json.dumps(_plain(folder, found)), flush=True)
        else:
            console.print(states_table([one.row(folder) for one in found]))
            for one in found:
                if one.why:
                    console.print(escaped(f"{one.folder}: {one.why}"), soft_wrap=True)
            console.print(escaped(f"next: {_next(folder, found)}"), soft_wrap=True)
        if not watch or not any(one.state in _GO_ON for one in found):
            return exit_code(found)
        time.sleep(every)
        found = states(folder)


def _next(root: Path, found: Sequence[State]) -> str:
    """The command for the first experiment that needs attention, or for all of them."""
    order = ("damaged", "failed", *_GO_ON, "done")
    first = min(found, key=lambda one: order.index(one.state), default=None)
    whole = calling.line("plot-benchmark", "--results-dir-to-plot", root.absolute())
    return whole if first is None or first.state == "done" else first.next


def _plain(root: Path, found: Sequence[State]) -> dict[str, Any]:
    """What was found, JSON-ready."""
    return {
        "folder": str(root),
        "experiments": [{**asdict(one), "folder": str(one.folder)} for one in found],
        "next": _next(root, found),
        "exit_code": exit_code(found),
    }


def exit_code(found: Sequence[State]) -> int:
    """0 if all is trained, 1 if something has failed or is damaged, 3 if there is work left."""
    kinds = {one.state for one in found}
    if kinds & {"failed", "damaged"}:
        return FAILED
    return ALL_DONE if kinds <= {"done"} else LEFT


def _state(folder: Path) -> State:
    """The state of an experiment and, if that is done, of its confirmation."""
    from hyperlax.storage import store

    try:
        results = store.read(folder)
    except ValueError as error:
        return State(folder, "damaged", None, None, str(error), calling.line("check", folder.absolute()))
    resumed = _resumed(folder, results.manifest)
    own = _progress(folder, results, resumed)
    if own.state != "done":
        return own
    if results.confirmation is None:
        if not _to_be_confirmed(results):
            return own
        return replace(own, state="unfinished", why="its confirmation has not begun", next=resumed)
    then = _progress(folder / store.CONFIRMATION, results.confirmation, resumed)
    if then.state == "done":
        return own
    done = "" if then.lanes is None else f" has {then.lanes[0]:,} of {counted(then.lanes[1], 'lane')} done"
    why = f"its confirmation{done}" + (f": {then.why}" if then.why else "")
    return replace(own, state=then.state, why=why, next=then.next)


def _to_be_confirmed(results: Results) -> bool:
    """Whether the command that began a sweep asked for a confirmation, for which it has a score."""
    manifest = results.manifest
    asked = any(str(word).partition("=")[0] == "--confirm" for word in manifest.get("command") or [])
    return asked and not manifest.get("confirms") and bool((results.lanes["status"] == "done").any())


def _progress(folder: Path, results: Results, resumed: str) -> State:
    """The state of an experiment that can be read; the command `resumed` continues it."""
    from hyperlax.storage import store

    manifest, lanes = results.manifest, results.lanes
    settings = manifest.get("settings") or {}
    done = int(lanes["status"].is_in(["done", "pruned", "diverged"]).sum())
    failed = int((lanes["status"] == "failed").sum())
    steps = int(lanes["env_steps"].sum()) if lanes.height else 0
    total = lanes.height * int(settings.get("total_timesteps") or 0)
    counts = ((done, lanes.height), (steps, max(steps, total))) if lanes.height else (None, None)
    if not manifest.get("complete") or lanes["status"].is_in(UNFINISHED).any():
        owners = claims.noted(folder / store.CHECKPOINT.parent)
        if owners and claims.alive(owner := owners[max(owners)]):
            why, command = f"process {owner['pid']} trains it", ("status", folder.absolute(), "--watch")
            return State(folder, "running", *counts, why, calling.line(*command))
        why = "" if lanes.height else "nothing has been recorded yet"
        return State(folder, "unfinished", *counts, why, resumed)
    if failed:
        return State(folder, "failed", *counts, f"{counted(failed, 'lane')} failed", resumed)
    return State(folder, "done", *counts, "", "")


def _unbegun(folder: Path) -> list[State]:
    """The cells of the benchmark in `folder` that wait or have failed, and have left no experiment."""
    from hyperlax.storage import store
    from hyperlax.storage.checking import recorded_cells
    from hyperlax.storage.integrity import read_json

    try:
        cells = recorded_cells(folder)
    except ValueError as error:
        return [State(folder, "damaged", None, None, str(error), calling.line("check", folder.absolute()))]
    owners = claims.noted(folder / CLAIMS)
    if owners and claims.alive(owner := owners[max(owners)]):
        waits = f"process {owner['pid']} runs the benchmark"
        command = calling.line("status", folder.absolute(), "--watch")
    else:
        told = any(store.holds(folder / n) for n in cells) or "command" in read_json(folder / BENCHMARK)
        waits = "" if told else "no cell has begun: add the flags that the benchmark was begun with"
        command = calling.line("run-benchmark", "--resume-from", folder.absolute())
    found = []
    for name, cell in cells.items():
        if cell["status"] not in ("waiting", "failed") or store.holds(folder / name):
            continue
        failed = cell["status"] == "failed"
        why = str(cell.get("reason") or "") if failed else waits
        found.append(State(folder / name, cell["status"], None, None, why, command))
    return found


def _resumed(folder: Path, manifest: dict[str, Any]) -> str:
    """The command that continues an experiment, or advice for one that a Python program made."""
    command = [str(word) for word in manifest.get("command") or []]
    if command[:1] != ["hyperlax"] or len(command) < 2:
        return f"give the program that made it folder={str(folder.absolute())!r} and resume=True"
    if command[1] == "run-benchmark":
        return calling.line("run-benchmark", "--resume-from", _benchmark(folder).absolute())
    return calling.line(command[1], "--resume-from", folder.absolute())


def _benchmark(folder: Path) -> Path:
    """The folder of the benchmark that an experiment is a cell of."""
    return next((place for place in folder.absolute().parents if (place / "benchmark.json").exists()), folder)
