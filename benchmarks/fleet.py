"""A sweep of many units on a scheduler and a cluster that are made up, with all that may happen to them.

    benchmarks/fleet.py [--units 100000] [--slots 10000] [--folder FOLDER]

The code that claims, submits, looks and joins tables is hyperlax's own, on real files; only Slurm's commands
and the training are stand-ins. In every step of time a task may be killed, preempted, or cut off: then its
node is believed dead, its task is queued again, and the old process goes on beside the new one. Some nodes
are slow, the clocks of all are wrong by up to an hour, and the queue takes no more tasks than twice the slots
or one array. At the end every unit must be there once, as an undisturbed process leaves it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from hyperlax.cluster import merging, records, slurm, state, submitting
from hyperlax.cluster.sweep import Cell, Sweep, Unit
from hyperlax.storage import claims
from hyperlax.storage.integrity import read_json, write_json
from hyperlax.storage.results import Results

STEPS = 4
"""Checkpoints of a unit."""
ARRAY = 1001
HAZARDS = {"killed": 0.01, "preempted": 0.03, "cut off": 0.01}
"""What may happen to a task in one step of time, and how probable it is."""
SLOW, SLOWNESS = 0.05, 8
"""The share of tasks on slow nodes, and how many steps of time these need for one."""
HOUR = 3600


def planned(root: Path, units: int) -> Sweep:
    """A sweep of `units` units of one lane each, in one cell."""
    cell = Cell("cell", "batched", {}, None, {}, {}, [])
    cut = tuple(Unit(f"c000-p0-{i:06d}", 0, (i,), 1, STEPS, 3600.0) for i in range(units))
    return Sweep(root, "fleet", {}, "gpu", {}, (cell,), cut, slurm={"time": "8:00:00"})


def digest(unit: str, steps: int) -> str:
    """What `steps` steps of training make of a unit: a chain, which a step lost or done twice would break."""
    value = unit
    for step in range(steps):
        value = hashlib.sha256(f"{value} {step}".encode()).hexdigest()
    return value


class Process:
    """A process that trains a unit as real ones do: it claims, looks before it saves, and notes the end."""

    def __init__(self, sweep: Sweep, unit: Unit, slowness: int):
        self.sweep, self.unit, self.slowness, self.waited = sweep, unit, slowness, 0
        self.folder = sweep.folder(unit) / "checkpoint"
        self.claim = claims.Claim(self.folder, sweep.folder(unit))
        found = [read_json(path) for path in self.folder.glob("state-*.json")]
        newest = max(found, key=lambda s: s["steps"], default={"steps": 0, "value": unit.name})
        self.steps, self.value = int(newest["steps"]), str(newest["value"])

    def step(self) -> bool:
        """Train for one step of time; whether the unit is done. Raises `Superseded`."""
        self.waited += 1
        if self.waited % self.slowness:
            return False
        self.value = hashlib.sha256(f"{self.value} {self.steps}".encode()).hexdigest()
        self.steps += 1
        self.claim.check()
        saved = {"steps": self.steps, "value": self.value}
        write_json(self.folder / f"state-{self.claim.attempt}.json", saved)
        self.claim.note(env_steps=self.steps)
        if self.steps < STEPS:
            return False
        records.note_done(self.sweep, self.unit, {"lanes": 1, "failed_lanes": 0, "env_steps": STEPS, **saved})
        return True


@dataclass
class Fleet:
    """The scheduler, its nodes and their bad luck."""

    sweep: Sweep
    slots: int
    chance: random.Random
    tasks: dict[tuple[str, int], str] = field(default_factory=dict)
    names: dict[tuple[str, int], str] = field(default_factory=dict)
    running: dict[tuple[str, int], Process] = field(default_factory=dict)
    ghosts: list[Process] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def asked(self, *command: str, environment: Any = None) -> str:
        """Answer as Slurm's commands do."""
        self.counts[command[0]] += 1
        if command[0] == "squeue":
            lines = (
                f"{job}|{i}|{what}|{'n1' if what == 'RUNNING' else ''}||job.sh"
                for (job, i), what in self.tasks.items()
            )
            return "\n".join(lines)
        if command[0] == "scontrol":
            return f"MaxArraySize = {ARRAY}"
        listed = Path(command[-1]).parent / Path(command[-1]).name.replace("job", "units").replace(
            ".sh", ".txt"
        )
        units = listed.read_text().split()
        if len(self.tasks) + len(units) > max(2 * self.slots, ARRAY):
            raise slurm.Refused("sbatch: error: job submit limit reached")
        if twice := set(units) & {self.names[task] for task in self.tasks}:
            raise AssertionError(f"{len(twice)} units were sent twice, {min(twice)} first")
        job = str(1 + self.counts["jobs"])
        self.counts["jobs"] += 1
        for i, name in enumerate(units):
            self.tasks[job, i], self.names[job, i] = "PENDING", name
        return job

    def start(self) -> None:
        """Give free slots to waiting tasks."""
        waiting = [task for task, what in self.tasks.items() if what == "PENDING"]
        for task in waiting[: self.slots - len(self.running)]:
            unit = self.sweep.unit(self.names[task])
            if records.is_done(self.sweep, unit):
                del self.tasks[task]
                continue
            slowness = SLOWNESS if self.chance.random() < SLOW else 1
            self.running[task] = Process(self.sweep, unit, slowness)
            self.tasks[task] = "RUNNING"
            self.counts["started"] += 1

    def advance(self) -> None:
        """One step of time for every process, and whatever happens to it."""
        for ghost in list(self.ghosts):
            self._train(ghost, lambda g=ghost: self.ghosts.remove(g))
        for task, process in list(self.running.items()):
            luck = self.chance.random()
            for hazard, share in HAZARDS.items():
                luck -= share
                if luck < 0:
                    self._strike(hazard, task)
                    break
            else:
                self._train(process, lambda t=task: self._leave(t))

    def _strike(self, hazard: str, task: tuple[str, int]) -> None:
        self.counts[hazard] += 1
        process = self.running.pop(task)
        if hazard == "killed":
            del self.tasks[task]
        else:
            self.tasks[task] = "PENDING"
        if hazard == "cut off":
            self.ghosts.append(process)

    def _train(self, process: Process, leave: Any) -> None:
        try:
            if process.step():
                leave()
        except claims.Superseded:
            self.counts["superseded"] += 1
            leave()

    def _leave(self, task: tuple[str, int]) -> None:
        del self.running[task], self.tasks[task]


def skewed(chance: random.Random) -> dict[str, Any]:
    """What a process says of itself whose clock is wrong."""
    started = time.time() + chance.uniform(-HOUR, HOUR)
    return {"host": f"n{chance.randrange(10**4)}", "pid": 1, "boot": None, "job": None, "started": started}


def joined(sweep: Sweep) -> pl.DataFrame:
    """The table of lanes that `merge` makes of what the units have left."""
    parts: dict[Unit, Results] = {}
    empty = pl.DataFrame({"lane": pl.Series([], dtype=pl.Int64)})
    tables = ("samples", "curves", "episodes", "lineage", "timeline", "system", "trials")
    for unit in sweep.units:
        found = records.outcome(sweep, unit) or {}
        lanes = pl.DataFrame(
            {"lane": [unit.samples[0] if unit.samples else 0], "value": [found.get("value")]}
        )
        parts[unit] = Results(manifest={}, lanes=lanes, folder=None, **dict.fromkeys(tables, empty))
    return merging.tables(parts)["lanes"]


def run(root: Path, units: int, slots: int, seed: int = 0) -> dict[str, Any]:
    """Train `units` units on `slots` slots; return what happened. `AssertionError` if anything is lost."""
    chance = random.Random(seed)
    sweep = planned(root, units)
    fleet = Fleet(sweep, slots, chance)
    begin, times, looks = time.perf_counter(), 0, []
    real = slurm._asked, claims._process
    slurm._asked, claims._process = fleet.asked, lambda: skewed(chance)
    try:
        while True:
            if not times % (2 * STEPS):
                start = time.perf_counter()
                look = state.look(sweep)
                looks.append(time.perf_counter() - start)
                if look.exit_code == state.ALL_DONE:
                    break
                fleet.counts["queue full"] += submitting.submit(sweep).left > 0
            fleet.start()
            fleet.advance()
            times += 1
    finally:
        slurm._asked, claims._process = real
    table = joined(sweep)
    assert table["lane"].to_list() == list(range(units)), "lanes are missing, or there twice"
    wrong = [u.name for u, v in zip(sweep.units, table["value"], strict=True) if v != digest(u.name, STEPS)]
    assert not wrong, f"{len(wrong)} units are not what an undisturbed process leaves, {wrong[0]} first"
    return {
        "units": units,
        "slots": slots,
        "steps of time": times,
        **fleet.counts,
        "files": sum(1 for _ in root.rglob("*")),
        "seconds of the longest status": round(max(looks), 2),
        "seconds": round(time.perf_counter() - begin, 1),
    }


def main() -> None:
    """Print and save what happened, as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--units", type=int, default=100_000)
    parser.add_argument("--slots", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="where a temporary folder is made, e.g. /dev/shm")
    given = parser.parse_args()
    from common import save

    with tempfile.TemporaryDirectory(dir=given.folder) as root:
        found = run(Path(root), given.units, given.slots)
    print(json.dumps(found, indent=2))
    print(save("fleet", found))


if __name__ == "__main__":
    main()
