"""Runners that train nothing: what lanes are evaluated to is given, so schedules can be driven fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.experiments.execution import Execution
from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.samples import Lane
from hyperlax.programs.plan import Program
from hyperlax.programs.train import TrainState
from hyperlax.run.display import Display
from hyperlax.run.recording import Recorder
from hyperlax.schedules import Schedule, Verdict


class StillRunner:
    """All that a schedule sees of a runner (`schedules.RunnerView`), with lanes that stay where they are."""

    def __init__(self, experiment: Any, schedule: Any, lanes: list[Lane]):
        self.experiment, self.schedule, self.lanes = experiment, schedule, lanes
        self.how, self.progress, self.recorder = Execution(), Display(), Recorder(None)
        self.programs: list[Program] = []
        self.parked: dict[int, TrainState] = {}
        self.last_return: dict[int, float] = {}
        self.clock = 0.0

    def now(self) -> float:
        return self.clock

    def tree(self, lane: Lane) -> AbstractAgentHyperparams:
        return self.experiment.records[lane.sample].tree

    def admit(self, row: Mapping[str, Any]) -> list[Lane]:
        lanes = self.experiment.lanes([self.experiment.add(row)])
        self.lanes.extend(lanes)
        return lanes

    def replace(self, lane: Lane, state: TrainState) -> None:
        self.parked[lane.lane] = state

    def end(self, lane: Lane, status: str) -> None:
        lane.status = status
        self.schedule.ended(self, lane)


class FakeRunner(StillRunner):
    """Calls a schedule as `runner.Runner` does, `slots` lanes at a time, one milestone per segment.

    `value(sample row, seed, env steps)` is a lane's evaluation; None means that it diverges there.
    """

    def __init__(
        self, spec: Experiment[Schedule], value: Callable[[dict, int, int], float | None], slots: int = 2
    ):
        super().__init__(spec, spec.schedule, [])
        self.value, self.slots, self.settings = value, slots, spec.settings
        self.busy: list[Lane] = []
        self.occupied: list[int] = []

    def end(self, lane: Lane, status: str) -> None:
        self.busy = [other for other in self.busy if other is not lane]
        super().end(lane, status)

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
            row = self.experiment.records[lane.sample].row
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
