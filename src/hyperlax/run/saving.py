"""The checkpoint of a run: writing it regularly, and reading it to continue the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from hyperlax.experiments.memory import device_memory
from hyperlax.experiments.samples import Lane
from hyperlax.programs.compiled import state_like
from hyperlax.programs.stored import stored_plan
from hyperlax.programs.train import TrainState
from hyperlax.run.again import Outcome
from hyperlax.run.best import policy_name
from hyperlax.run.replaced import Replaced
from hyperlax.run.roster import Roster
from hyperlax.schedules import Schedule
from hyperlax.schedules.base import saved_state
from hyperlax.storage.checkpoint import unpack
from hyperlax.storage.store import Store

_NEEDED = ("elapsed", "lanes", "states", "replaced", "best", "programs", "rows", "schedule", "last_return")
"""What the header of every checkpoint holds."""
_UNSEATED: dict[str, Any] = {"clock": 0.0, "programs": []}
"""The seating in checkpoints of older versions, which did not store it: all lanes wait."""
SAVING_SHARE = 0.1
"""The share of the time of a run that checkpoints may take, as far as `LONGEST_PAUSE` allows it."""
LONGEST_PAUSE = 600.0
"""Seconds between checkpoints beyond which a slow disk does not put the next one off."""


@dataclasses.dataclass
class Pace:
    """When the next checkpoint is due: `seconds` after the last one, and later where writing one takes long.

    Without the latter, a run whose checkpoints take longer than `seconds` to write would do little else. With
    `seconds` of zero a checkpoint is always due. All times are in seconds.

    - `ended`: when the last one had been written; at first, when the run began.
    - `took`: how long that took.
    - `began`: when one was begun that is still being written, while the run goes on; None if there is none.
    """

    seconds: float
    ended: float
    took: float = 0.0
    began: float | None = None

    @property
    def pause(self) -> float:
        """The seconds from the end of one checkpoint to the next one."""
        longest = max(self.seconds, LONGEST_PAUSE) if self.seconds else 0.0
        return min(max(self.seconds, self.took * (1 / SAVING_SHARE - 1)), longest)

    def due(self, now: float, written: bool = True) -> bool:
        """Whether a checkpoint is due at the time `now`; never before the last one is `written`."""
        if self.began is not None and written:
            self.saved(self.began, now)
        return written and now - self.ended > self.pause

    def saved(self, began: float, now: float, written: bool = True) -> None:
        """A checkpoint was begun at the time `began`, and is `written`, or will be."""
        if written:
            self.ended, self.took, self.began = now, now - began, None
        else:
            self.began = began


class Saved(NamedTuple):
    """The contents of a checkpoint beside the lanes and the schedule.

    - `elapsed`: seconds that the run had taken.
    - `best`: (score, lane) of the saved policies.
    - `seating`: the clock of the run, and for each program that runs the lanes in its slots (`run.slots`).
    - `again`: the lanes whose results were lost and that are trained again when the run is over, with how
      they had ended (None: they have not yet).
    """

    elapsed: float
    best: list[tuple[float, int]]
    seating: dict[str, Any]
    again: Mapping[int, Outcome | None]


def save(
    store: Store,
    roster: Roster,
    running: Mapping[int, TrainState],
    schedule: Schedule,
    extra: Saved,
    behind: bool = False,
) -> None:
    """Commit the state of the run to its folder: checkpoint, tables and policies, which fit together.

    `running`: lane → its state as host arrays, for the lanes in slots. With `behind`, a large checkpoint is
    written while the run goes on. Raises `Superseded` if another process has taken over the folder.
    """
    states = {**roster.parked, **running}
    for table, frame in schedule.tables().items():
        store.put(table, frame)
    if schedule.grows:
        store.put("samples", roster.experiment.samples)
    store.put("lanes", roster.frame())
    header = {
        "elapsed": extra.elapsed,
        "lanes": [dataclasses.asdict(lane) for lane in roster.lanes],
        "states": list(states),
        "replaced": {lane: roster.replaced[lane].counts() for lane in states if lane in roster.replaced},
        "best": extra.best,
        "seating": extra.seating,
        "programs": [p.describe() for p in roster.programs],
        "rows": roster.experiment.rows if schedule.grows else None,
        "schedule": saved_state(schedule),
        "last_return": roster.last_return,
    }
    if extra.again:
        header["again"] = {n: None if o is None else o.described() for n, o in extra.again.items()}
    policies = [policy_name(lane) for _, lane in extra.best]
    store.commit(list(states.values()), header, policies, schedule.files(), behind)


def restore(store: Store, roster: Roster, schedule: Schedule, mend: bool = False) -> Saved | None:
    """Load the checkpoint in the folder of the store into roster and schedule; None if there is none yet.

    With `mend`, lanes whose results were in files that are damaged now are to be trained again. Raises
    `ValueError` for a checkpoint that is damaged or was written for another plan of programs.
    """
    if (found := store.restore(mend)) is None:
        return None
    header = found.header
    if lacking := [name for name in _NEEDED if name not in header]:
        raise ValueError(
            f"{store.folder / 'checkpoint'} is not a checkpoint of a run: it lacks {lacking[0]!r}"
        )
    own = roster.experiment
    programs = stored_plan(header["programs"], {}, own.base, own.env, device_memory())
    if [p.key for p in programs[: len(roster.programs)]] != [p.key for p in roster.programs]:
        raise ValueError("the checkpoint was written for another plan of programs; it cannot be continued")
    roster.programs[:] = programs
    roster.enter([roster.experiment.add(row) for row in header["rows"] or []])
    roster.lanes = [Lane(**lane) for lane in header["lanes"]]
    lanes = [roster.lane(number) for number in header["states"]]
    env = roster.experiment.env
    likes = [state_like(roster.sample(lane).tree, env, roster.programs[lane.program].caps) for lane in lanes]
    states = unpack(found.data, likes, str(store.folder / "checkpoint"))
    roster.parked = dict(zip(header["states"], states, strict=True))
    for number, counts in header["replaced"].items():
        roster.replaced[int(number)] = Replaced(roster.parked[int(number)].agent.hp, *counts)
    roster.last_return = {int(k): v for k, v in header["last_return"].items()}
    schedule.restore(header["schedule"])
    again = {int(n): None if o is None else Outcome.of(o) for n, o in header.get("again", {}).items()}
    gone = _start_over(roster, schedule, found.lost, again)
    if schedule.describe() is None:  # a schedule that decides has already dealt with failed lanes
        gone |= {*roster.try_again()}
    for number, outcome in again.items():
        if outcome is not None:  # until its turn comes it is over, however far it has come again
            roster.lane(number).status = outcome.lane.status
    store.forget(gone, [policy_name(lane) for lane in gone])
    best = [(float(score), int(lane)) for score, lane in header["best"]]
    best = [entry for entry in best if entry[1] not in found.lost | gone]
    return Saved(header["elapsed"], best, header.get("seating", _UNSEATED), again)


def _start_over(
    roster: Roster, schedule: Schedule, lost: frozenset[int], again: dict[int, Outcome | None]
) -> set[int]:
    """Let the lanes whose results are `lost` be trained again; return those that have started over at once.

    These are lanes that depend on one another, and in a plain sweep those that have not ended anyway. The
    others are added to `again`.
    """
    gone = schedule.start_over(roster.lanes, lost) if lost else set()
    if not gone:
        for number in sorted(lost):
            lane = roster.lane(number)
            if number in again:
                roster.parked.pop(number, None)
            elif schedule.describe() is None and lane.status not in ("done", "diverged", "pruned"):
                gone.add(number)
            else:
                again[number] = None
    for number in gone:
        roster.restart(roster.lane(number))
    return gone
