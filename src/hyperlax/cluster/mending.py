"""Retraining what was in files of a sweep that have been damaged since.

A unit that is to be retrained has `mend.json` among its records, which also keeps what `done.json` said. Once
the units of a cell have been merged, the first of them mends the folder of the cell.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from hyperlax.cluster import records
from hyperlax.cluster.records import DONE, MEND, MOST_NAMED
from hyperlax.cluster.sweep import Sweep, Unit
from hyperlax.storage import calling, commits, store
from hyperlax.storage.checking import check
from hyperlax.storage.claims import alive
from hyperlax.storage.integrity import write_json
from hyperlax.storage.wording import counted

FLAG = "--retrain-damaged"
"""The flag with which `unit run`, `submit` and the command of the sweep train again what was lost."""


def problems(folder: Path) -> list[str]:
    """Describe what is wrong with the files of an experiment that has ended, one line per damaged file."""
    if not store.holds(folder):
        return [f"{folder} is missing"]
    return [line for entry in check(folder) for line in entry.problems]


def refuse(sweep: Sweep, cell: int) -> None:
    """Raise `ValueError`, with the command that mends them, if files of trained units are damaged."""
    damaged = {u.name: found[0] for u in sweep.units_of(cell) if (found := problems(sweep.folder(u)))}
    if damaged:
        raise ValueError(_said(sweep, list(damaged), next(iter(damaged.values()))))


def refuse_merged(sweep: Sweep, cell: int) -> None:
    """Raise `ValueError`, with the command that mends it, if the folder of a merged cell is damaged."""
    if found := problems(sweep.root / sweep.cells[cell].path):
        raise ValueError(_said(sweep, (), found[0]))


def ask(sweep: Sweep, units: Iterable[Unit]) -> list[str]:
    """Ask the `units` whose files, or whose merged cells, are damaged to train again what is lost.

    Returns the names of these units, and of those that had been asked before. A unit that another process is
    training is left alone.
    """
    units = list(units)
    before = [u.name for u in units if not records.is_done(sweep, u) and records.mending(sweep, u)]
    over = [unit for unit in units if records.is_done(sweep, unit) or _is_left(sweep, unit)]
    over.sort(key=lambda unit: unit.cell)  # those of a cell need not be neighbours in a sweep
    return before + [
        name
        for cell, own in itertools.groupby(over, key=lambda unit: unit.cell)
        for name in _asked(sweep, cell, [unit for unit in own if unit.name not in before])
    ]


def _is_left(sweep: Sweep, unit: Unit) -> bool:
    """Whether a unit was begun, and no process on this machine is known to be training it."""
    return store.holds(sweep.folder(unit)) and not alive(records.newest_claim(sweep, unit))


def _asked(sweep: Sweep, cell: int, units: Sequence[Unit]) -> list[str]:
    """Do what `ask` does, for the units of one cell."""
    merged = records.is_whole(sweep, cell)
    if merged:
        free = [] if records.being_mended(sweep, cell) else units[:1]
        damaged = dict.fromkeys(free, problems(sweep.root / sweep.cells[cell].path))
    else:
        damaged = {unit: problems(sweep.folder(unit)) for unit in units}
    damaged = {unit: found for unit, found in damaged.items() if found}
    for unit, found in damaged.items():
        about = {"unit": unit.name, "merged": merged, "done": records.outcome(sweep, unit)}
        write_json(sweep.records(unit) / MEND, about)
        (sweep.records(unit) / DONE).unlink(missing_ok=True)
        hopeless = any(commits.ELSEWHERE in line for line in found)
        if hopeless and about["done"] and not merged and not unit.whole:
            _put_aside(sweep, unit)
    return [unit.name for unit in damaged]


def _put_aside(sweep: Sweep, unit: Unit) -> None:
    """Rename the folder of a unit, of which nothing can be used, so that it is trained from its beginning."""
    names = (sweep.records(unit) / f"damaged-{number}" for number in itertools.count(1))
    sweep.folder(unit).rename(next(name for name in names if not name.exists()))


def _said(sweep: Sweep, names: Sequence[str], why: str) -> str:
    """The error message: what is damaged, and the command that mends it."""
    root, some = sweep.root.absolute(), names[:MOST_NAMED]
    train = ("submit", root, FLAG) if sweep.slurm is not None else ("unit", "run", root, *some, FLAG)
    others = f" and {counted(len(names) - len(some), 'other')}" if len(names) > len(some) else ""
    which = f"{', '.join(some)}{others}" if names else "the merged folder"
    of = f"files of {which} are damaged"
    return (
        f"{of}: {why.partition('; ')[0]}; train again what is lost with: {calling.line(*train)}; then: "
        + calling.line("merge", root)
    )
