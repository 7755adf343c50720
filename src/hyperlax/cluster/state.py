"""The state of a sweep, from its files, then from the queue; clocks of two machines are never compared."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hyperlax.cluster import merging, records, slurm, submitting
from hyperlax.cluster.sweep import Sweep, Unit
from hyperlax.storage import calling
from hyperlax.storage.claims import alive

STATES = ("done", "running", "waiting", "lost", "failed")
"""The states of a unit; it is lost if the process that began it has ended and no task will continue it."""
ALL_DONE, SOME_FAILED, WORK_LEFT = 0, 1, 3
"""Exit codes of `hyperlax status`."""


@dataclass(frozen=True)
class UnitState:
    """The state of one unit: the env steps that are saved, who trains it, and why it has failed.

    `held` is the task that Slurm will not start until it is released.
    """

    unit: Unit
    state: str
    env_steps: int
    by: str = ""
    why: str = ""
    held: str = ""


@dataclass(frozen=True)
class Look:
    """The states of all units at one moment; `asked` is whether the queue of the cluster was known."""

    sweep: Sweep
    units: tuple[UnitState, ...]
    asked: bool
    merged: tuple[bool, ...]

    def count(self, state: str) -> int:
        """The number of units in a state."""
        return sum(u.state == state for u in self.units)

    @property
    def exit_code(self) -> int:
        """`ALL_DONE`, `SOME_FAILED` or `WORK_LEFT`."""
        if self.count("failed"):
            return SOME_FAILED
        return ALL_DONE if self.count("done") == len(self.units) else WORK_LEFT

    def rows(self) -> list[dict[str, Any]]:
        """A row for each cell: how many units are in which state, and the share of env steps trained."""
        found, by_cell = [], defaultdict(list)
        for u in self.units:
            by_cell[u.unit.cell].append(u)
        for number, cell in enumerate(self.sweep.cells):
            own = by_cell[number]
            counts = Counter(u.state for u in own)
            steps, total = sum(u.env_steps for u in own), sum(u.unit.env_steps for u in own)
            runs = [u.by for u in own if u.state == "running" and u.by]
            alone = f"{cell.manifest.get('recipe')} on {cell.manifest.get('env')}"
            name = alone if cell.path == "." else cell.path
            row: dict[str, Any] = {"cell": name, "units": len(own)}
            row |= {state: counts[state] for state in STATES}
            row |= {"env steps": f"{100 * min(1.0, steps / max(1, total)):.0f} %"}
            row |= {"left": _left(own), "by": ", ".join(runs[:2]) + (", …" if len(runs) > 2 else "")}
            found.append({**row, "merged": self.merged[number]})
        return found

    def notes(self) -> list[str]:
        """Sentences about the results that their reader should know."""
        found = []
        for number, cell in enumerate(self.sweep.cells):
            own, name = self.sweep.units_of(number), self.sweep.name if cell.path == "." else cell.path
            if own[0].worker is not None:
                found.append(
                    f"{len(own)} processes share the study of {name}: which of them draws which trial "
                    "depends on who is first, so another run finds other trials"
                )
        return found

    def next_command(self) -> str:
        """The command to type next."""
        root = self.sweep.root.absolute()
        train = ("submit", root) if self.sweep.slurm is not None else ("unit", "run", root)
        if self.exit_code == ALL_DONE:
            if not all(self.merged):
                return calling.line("merge", root)
            return calling.line("plot-benchmark", "--results-dir-to-plot", root)
        if self.count("failed") and not self.count("running") + self.count("waiting"):
            return calling.line(*train, "--retry-failed")
        if held := [u.held for u in self.units if u.held]:
            return f"scontrol release {' '.join(held[: records.MOST_NAMED])}"
        sent = {u.unit.name for u in self.units if u.by}
        if any(u.state in ("lost", "waiting") and u.unit.name not in sent for u in self.units):
            return calling.line(*train)
        return calling.line("status", root, "--watch")


def look(sweep: Sweep, before: Look | None = None) -> Look:
    """Look at all units; comparing with `before`, an earlier look, shows which of them make progress."""
    tasks = slurm.queue() if sweep.slurm is not None else []
    sent = submitting.live(sweep, tasks or [])
    earlier = {u.unit.name: u.env_steps for u in before.units} if before is not None else {}
    units = tuple(_state(sweep, unit, sent, tasks is not None, earlier) for unit in sweep.units)
    merged = tuple(merging.is_merged(sweep, number) for number in range(len(sweep.cells)))
    return Look(sweep, units, tasks is not None, merged)


def _state(
    sweep: Sweep, unit: Unit, sent: dict[str, slurm.Task], asked: bool, earlier: dict[str, int]
) -> UnitState:
    """The state of a unit."""
    if (done := records.outcome(sweep, unit)) is not None:
        if failed := records.failed_lanes(sweep, unit):
            return UnitState(unit, "failed", unit.env_steps, why=f"{failed} of {done['lanes']} lanes failed")
        return UnitState(unit, "done", unit.env_steps)
    steps = records.env_steps(sweep, unit)
    task = sent.get(unit.name)
    if (why := records.failure(sweep, unit)) is not None:
        return UnitState(unit, "failed", steps, why=why)
    if task is not None:
        name = f"{task.job}_{task.index}"
        where = "held" if task.held else task.node
        by, state = f"{name} {where}".strip(), "running" if task.runs else "waiting"
        return UnitState(unit, state, steps, by, held=name if task.held else "")
    if not records.begun(sweep, unit):
        return UnitState(unit, "waiting", steps)
    claim = records.newest_claim(sweep, unit)
    who = f"process {claim.get('pid')} on {claim.get('host')}" if claim else ""
    if alive(claim) or (not asked and steps > earlier.get(unit.name, steps)):
        return UnitState(unit, "running", steps, who)
    return UnitState(unit, "lost", steps)


def _left(units: Sequence[UnitState]) -> str:
    """The predicted device hours of what is not trained."""
    left = sum(u.unit.seconds * (1 - min(1.0, u.env_steps / max(1, u.unit.env_steps))) for u in units)
    if not left:
        return ""
    return f"~{left / 3600:.1f} h" if left > 3600 else f"~{max(1, round(left / 60))} min"
