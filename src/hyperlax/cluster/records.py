"""Records of a unit: small files beside the folder in which it is trained.

- `done.json`: the unit is trained; written last.
- `failed.json`: it raised an exception or made no progress; it is tried again only on request.
- `mend.json`: it is to retrain what was in damaged files, or merged lanes that have failed.
- `starts.json`: how often a job has started again without progress.
- `tries`: one line for every start by Slurm since a process last began to train.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hyperlax.cluster.sweep import Sweep, Unit
from hyperlax.storage import commits, store
from hyperlax.storage.claims import claims, noted
from hyperlax.storage.integrity import Damaged, read_json, write_json

DONE, FAILED, MEND, STARTS, TRIES = "done.json", "failed.json", "mend.json", "starts.json", "tries"
_ABOUT_LANES = ("lanes", "failed_lanes")
"""Entries of `done.json` about lanes."""
_ABOUT_STARTS = (FAILED, STARTS, TRIES)
MOST_NAMED = 50
"""The largest number of units or tasks that a printed command names; repeating it handles the others."""
MOST_STARTS = 3
"""Number of starts at the same point of the training after which a unit counts as failed."""


def is_done(sweep: Sweep, unit: Unit) -> bool:
    """Whether a unit is trained."""
    return (sweep.records(unit) / DONE).exists()


def outcome(sweep: Sweep, unit: Unit) -> dict[str, Any] | None:
    """The contents of a unit's `done.json`; None if the unit is not trained."""
    return _read(sweep.records(unit) / DONE)


def failure(sweep: Sweep, unit: Unit) -> str | None:
    """Why a unit has failed; None if it has not."""
    found = _read(sweep.records(unit) / FAILED)
    return None if found is None else str(found.get("reason"))


def is_whole(sweep: Sweep, cell: int) -> bool:
    """Whether the folder of a cell holds all that its units have trained."""
    manifest = store.recovered_manifest(sweep.root / sweep.cells[cell].path) or {}
    return bool(manifest.get("complete"))


def mending(sweep: Sweep, unit: Unit) -> dict[str, Any] | None:
    """The contents of a unit's `mend.json`; None if it has nothing to mend."""
    return _read(sweep.records(unit) / MEND)


def being_mended(sweep: Sweep, cell: int) -> bool:
    """Whether a unit of a cell has something to mend and has not done so."""
    return any(mending(sweep, u) and not is_done(sweep, u) for u in sweep.units_of(cell))


def folder(sweep: Sweep, unit: Unit) -> Path:
    """The folder in which a unit trains: its own, or that of its merged cell, if it mends that."""
    mends = (mending(sweep, unit) or {}).get("merged")
    return sweep.root / sweep.cells[unit.cell].path if mends else sweep.folder(unit)


def begun(sweep: Sweep, unit: Unit) -> bool:
    """Whether a process has begun to train a unit."""
    return store.holds(folder(sweep, unit)) or any(True for _ in claims(_checkpoints(sweep, unit)))


def newest_claim(sweep: Sweep, unit: Unit) -> dict[str, Any]:
    """What the latest process to claim a unit has noted about itself and its progress; empty without one."""
    found = noted(_checkpoints(sweep, unit))
    return found[max(found)] if found else {}


def env_steps(sweep: Sweep, unit: Unit) -> int:
    """The env steps of a unit that are saved."""
    if (found := outcome(sweep, unit)) is not None:
        return int(found["env_steps"])
    told = newest_claim(sweep, unit).get("env_steps")
    return _saved(sweep, unit) if told is None else int(told)


def note_done(sweep: Sweep, unit: Unit, about: dict[str, Any]) -> None:
    """Record that a unit is trained, and remove the record of a failure.

    For a unit that was mended, everything but the numbers of lanes and of failed lanes stays as it was
    recorded before.
    """
    if (before := (mending(sweep, unit) or {}).get("done")) is not None:
        about = {**about, **before, **{name: about[name] for name in _ABOUT_LANES}}
    write_json(sweep.records(unit) / DONE, {"unit": unit.name, **about})
    for name in (MEND, *_ABOUT_STARTS):
        (sweep.records(unit) / name).unlink(missing_ok=True)


def note_failed(sweep: Sweep, unit: Unit, reason: str) -> None:
    """Record that a unit has failed, and why."""
    write_json(sweep.records(unit) / FAILED, {"unit": unit.name, "reason": reason})


def forgive(sweep: Sweep, units: Iterable[Unit]) -> None:
    """Let failed units, and units with failed lanes, be tried again.

    Once a cell is merged, a single unit retries the failed lanes of all, in the folder of the cell.
    """
    for cell, own in itertools.groupby(units, key=lambda unit: unit.cell):
        asked = list(own)
        for unit in asked:
            for name in _ABOUT_STARTS:
                (sweep.records(unit) / name).unlink(missing_ok=True)
        failed = [unit for unit in asked if failed_lanes(sweep, unit)]
        if failed and is_whole(sweep, cell) and not failed[0].whole:
            _try_merged_again(sweep, failed[0])
        else:
            for unit in failed:
                (sweep.records(unit) / DONE).unlink(missing_ok=True)


def failed_lanes(sweep: Sweep, unit: Unit) -> int:
    """The number of failed lanes of a trained unit; zero once its merged cell has none left.

    The lanes of a merged cell are also tried again by `--resume`, which knows nothing of units.
    """
    count = int((outcome(sweep, unit) or {}).get("failed_lanes", 0))
    if count and is_whole(sweep, unit.cell):
        with suppress(ValueError):  # of damaged files the count stays
            lanes = store.read(sweep.root / sweep.cells[unit.cell].path).lanes
            return count if "failed" in lanes["status"] else 0
    return count


def _try_merged_again(sweep: Sweep, unit: Unit) -> None:
    """Let `unit` retry the failed lanes of its merged cell, unless another unit is mending that cell."""
    if not being_mended(sweep, unit.cell):
        about = {"unit": unit.name, "merged": True, "done": outcome(sweep, unit)}
        write_json(sweep.records(unit) / MEND, about)
        (sweep.records(unit) / DONE).unlink(missing_ok=True)
    for other in sweep.units_of(unit.cell):
        if failed_lanes(sweep, other):
            write_json(sweep.records(other) / DONE, {**(outcome(sweep, other) or {}), "failed_lanes": 0})


def stuck(sweep: Sweep, unit: Unit, job: str | None) -> bool:
    """Record a start of `job` (None outside Slurm); return whether too many in a row made no progress."""
    if job is None:
        return False
    (sweep.records(unit) / TRIES).unlink(missing_ok=True)
    path, steps = sweep.records(unit) / STARTS, _saved(sweep, unit)
    last = _read(path) or {}
    same = last.get("job") == job and last.get("env_steps") == steps
    times = int(last.get("times", 0)) + 1 if same else 1
    write_json(path, {"job": job, "env_steps": steps, "times": times})
    return times >= MOST_STARTS


def _saved(sweep: Sweep, unit: Unit) -> int:
    """The env steps in the newest intact checkpoint of a unit."""
    at = folder(sweep, unit)
    found = next(commits.intact(at, commits.saved(at)), None)
    return 0 if found is None else found.env_steps


def _checkpoints(sweep: Sweep, unit: Unit) -> Path:
    return folder(sweep, unit) / commits.CHECKPOINT.parent


def _read(path: Path) -> dict[str, Any] | None:
    """The contents of a record; None if there is none. A damaged record has the damage as its reason."""
    try:
        return read_json(path)
    except FileNotFoundError:
        return None
    except Damaged as error:
        return {"reason": str(error), "env_steps": 0}
