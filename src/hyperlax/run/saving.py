"""The checkpoint of a run: writing it regularly, and reading it to continue the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from hyperlax.experiments.machine import device_memory
from hyperlax.experiments.samples import Lane
from hyperlax.programs.compiled import state_like
from hyperlax.programs.stored import stored_plan
from hyperlax.programs.train import TrainState
from hyperlax.run.replaced import Replaced
from hyperlax.run.roster import Roster
from hyperlax.schedules import Schedule
from hyperlax.storage.checkpoint import pack, read_header, unpack
from hyperlax.storage.files import write_atomically
from hyperlax.storage.store import CHECKPOINT, Store


class Saved(NamedTuple):
    """The contents of a checkpoint beside the lanes and the schedule.

    - `elapsed`: seconds that the run had taken.
    - `best`: (score, lane) of the saved policies.
    """

    elapsed: float
    best: list[tuple[float, int]]


def save(
    store: Store, roster: Roster, running: Mapping[int, TrainState], schedule: Schedule, extra: Saved
) -> None:
    """Flush the tables and replace the checkpoint, which always match each other.

    `running`: lane → its state as host arrays, for the lanes in slots.
    """
    states = {**roster.parked, **running}
    if schedule.grows and roster.experiment.records:
        store.write_samples(roster.experiment.samples)
    store.flush(roster.frame())
    header = {
        "parts": store.parts,
        "elapsed": extra.elapsed,
        "lanes": [dataclasses.asdict(lane) for lane in roster.lanes],
        "states": list(states),
        "replaced": {lane: roster.replaced[lane].counts() for lane in states if lane in roster.replaced},
        "best": extra.best,
        "programs": [p.describe() for p in roster.programs],
        "rows": roster.experiment.rows if schedule.grows else None,
        "schedule": schedule.state(),
        "last_return": roster.last_return,
    }
    write_atomically(store.folder / CHECKPOINT, pack(list(states.values()), **header))


def restore(store: Store, roster: Roster, schedule: Schedule) -> Saved | None:
    """Load the checkpoint in the folder of the store into roster and schedule; None if there is none yet.

    Raises `ValueError` for a checkpoint that is damaged or was written for another plan of programs.
    """
    if not (store.folder / CHECKPOINT).exists():
        store.discard_after(0)
        return None
    data = (store.folder / CHECKPOINT).read_bytes()
    header = read_header(data)
    own = roster.experiment
    programs = stored_plan(header["programs"], (), own.base, own.env, device_memory())
    if [p.key for p in programs[: len(roster.programs)]] != [p.key for p in roster.programs]:
        raise ValueError("the checkpoint was written for another plan of programs; it cannot be continued")
    roster.programs[:] = programs
    roster.enter([roster.experiment.add(row) for row in header["rows"] or []])
    roster.lanes = [Lane(**lane) for lane in header["lanes"]]
    lanes = [roster.lanes[number] for number in header["states"]]
    env = roster.experiment.env
    likes = [state_like(roster.sample(lane).tree, env, roster.programs[lane.program].caps) for lane in lanes]
    states = unpack(data, likes, str(CHECKPOINT))
    roster.parked = dict(zip(header["states"], states, strict=True))
    for number, counts in header["replaced"].items():
        roster.replaced[int(number)] = Replaced(roster.parked[int(number)].agent.hp, *counts)
    roster.last_return = {int(k): v for k, v in header["last_return"].items()}
    schedule.restore(header["schedule"])
    store.discard_after(header["parts"])
    if schedule.describe() is None:  # a schedule that decides has already dealt with failed lanes
        store.forget(roster.try_again())
    return Saved(header["elapsed"], [(float(score), int(lane)) for score, lane in header["best"]])
