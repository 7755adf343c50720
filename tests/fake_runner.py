"""A runner that trains nothing: what lanes are evaluated to is given, so schedules can be driven fast."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

from hyperlax.experiments.execution import Execution
from hyperlax.experiments.experiment import Experiment, Lane
from hyperlax.run.terminal import Silent
from hyperlax.schedules import Verdict


class FakeRunner:
    """Calls a schedule as `runner.Runner` does, `slots` lanes at a time, one milestone per segment.

    `value(sample row, seed, env steps)` is a lane's evaluation; None means that it diverges there.
    """

    def __init__(self, spec: Experiment, value: Callable[[dict, int, int], float | None], slots: int = 2):
        self.experiment, self.value, self.slots = spec, value, slots
        self.schedule, self.settings, self.how = spec.schedule, spec.settings, Execution()
        self.programs = [None]
        self.progress, self.recorder = Silent(), SimpleNamespace(store=None)
        self.lanes: list[Lane] = []
        self.last_return: dict[int, float] = {}
        self.clock = 0.0
        self.busy: list[Lane] = []
        self.occupied: list[int] = []

    def now(self) -> float:
        return self.clock

    def admit(self, row) -> list[Lane]:
        lanes = self.experiment.lanes([self.experiment.add(row)])
        self.lanes.extend(lanes)
        return lanes

    def prune(self, lane: Lane) -> None:
        lane.status = "pruned"
        self.busy = [other for other in self.busy if other is not lane]
        self.schedule.ended(self, lane)

    def run(self, segments: int = 10_000) -> None:
        """Until nothing is left to train, or for so many segments."""
        self.schedule.begin(self)
        for _ in range(segments):
            self.schedule.refill(self)
            self._fill()
            if not self.busy:
                return
            self._segment()

    def checkpoint(self) -> dict:
        """What `Runner.save` keeps."""
        lanes = [Lane(**vars(lane)) for lane in self.lanes]
        return {
            "rows": [dict(r) for r in self.experiment.rows],
            "lanes": lanes,
            "last_return": dict(self.last_return),
            "schedule": self.schedule.state(),
        }

    def restore(self, header: dict) -> None:
        for row in header["rows"]:
            self.admit(row)
        self.lanes[:] = header["lanes"]
        for lane in self.lanes:
            lane.status = "queued" if lane.status == "running" else lane.status
        self.last_return = dict(header["last_return"])
        self.schedule.restore(header["schedule"])

    def _fill(self) -> None:
        waiting = [o for o in self.lanes if not o.over and o.status != "paused" and o not in self.busy]
        waiting.sort(key=lambda lane: (lane.env_steps == 0, self.schedule.order(lane, 0.0)))
        for lane in waiting[: self.slots - len(self.busy)]:
            lane.status = "running"
            self.busy.append(lane)
        self.occupied.append(len(self.busy))

    def _segment(self) -> None:
        marks, total = self.settings.milestones(), self.settings.total_timesteps
        self.clock += 1.0
        due = list(self.busy)
        for lane in due:
            lane.env_steps = next(m for m in marks if m > lane.env_steps)
        verdicts = {}
        for lane in due:
            row = self.experiment.rows[self.experiment.sample_ids.index(lane.sample)]
            measured = self.value(row, lane.seed, lane.env_steps)
            if measured is None:
                lane.diverged_at = lane.env_steps
                continue
            self.last_return[lane.lane] = measured
            if lane.env_steps < total:
                verdicts[lane.lane] = self.schedule.judge(self, lane, measured)
        for lane in due:
            verdict = verdicts.get(lane.lane, Verdict.GO_ON)
            if lane.diverged_at is not None:
                lane.status = "diverged"
            elif lane.env_steps >= total:
                lane.status = "done"
            elif verdict is not Verdict.GO_ON:
                lane.status = {Verdict.PRUNE: "pruned", Verdict.PAUSE: "paused"}[verdict]
            if lane.over or lane.status == "paused":
                self.busy.remove(lane)
            if lane.over:
                self.schedule.ended(self, lane)
