"""Retraining lanes whose results were lost with damaged files."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from hyperlax.experiments.samples import Lane
from hyperlax.experiments.settings import Settings
from hyperlax.schedules import RunnerView, Schedule, Verdict

log = logging.getLogger("hyperlax")

_STOPPED = ("pruned", "failed")
"""How a lane ends that training alone would not end."""
_SAME = ("status", "env_steps", "gradient_steps", "parameters", "diverged_at")
"""What a lane that is trained again must have in common with what it was."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a lane had ended: its record, and its latest headline return (None if it had none)."""

    lane: Lane
    last_return: float | None

    def described(self) -> dict[str, Any]:
        """The outcome for the header of a checkpoint, JSON-ready."""
        return {"lane": dataclasses.asdict(self.lane), "last_return": self.last_return}

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Outcome:
        """The outcome that `described` returned."""
        return cls(Lane(**described["lane"]), described["last_return"])

    def measured(self, settings: Settings) -> bool:
        """Whether the lane had ended after an evaluation, so that something of it can be lost."""
        over = self.lane.status in ("done", "diverged")
        return over or any(mark <= self.lane.env_steps for mark in settings.milestones())


def _same(one: float | None, other: float | None) -> bool:
    """Whether two returns are the same; a return that is no number is the same as another such."""
    return one == other or (one is not None and other is not None and math.isnan(one) and math.isnan(other))


class Repetition(Schedule):
    """A schedule that trains lanes again, and ends each of them as it had ended.

    What a lane learns depends on nothing but the lane, as long as it never goes on from the state of another
    one. So no decision is made again: a lane that `before`, the schedule of the run, has stopped is stopped
    after the same evaluation. `outcomes` says how lanes had ended; `differing` are those that end otherwise.
    """

    def __init__(self, before: Schedule, outcomes: Mapping[int, Outcome]):
        self.before, self.outcomes = before, dict(outcomes)
        self.grows = before.grows
        self.differing: list[int] = []

    def describe(self) -> dict[str, Any] | None:
        return self.before.describe()

    def judge(self, runner: RunnerView, lane: Lane, value: float) -> Verdict:
        was, marks = self.outcomes[lane.lane].lane, runner.experiment.settings.milestones()
        following = [mark for mark in marks if lane.env_steps < mark <= was.env_steps]
        return Verdict.PRUNE if was.status in _STOPPED and not following else Verdict.GO_ON

    def ended(self, runner: RunnerView, lane: Lane) -> None:
        outcome = self.outcomes.pop(lane.lane)
        was = outcome.lane
        if was.status in _STOPPED and lane.status == "pruned":
            for field in dataclasses.fields(Lane):
                if field.name != "seconds":
                    setattr(lane, field.name, getattr(was, field.name))
        now = runner.last_return.get(lane.lane)
        if not _same(now, outcome.last_return) or any(getattr(lane, n) != getattr(was, n) for n in _SAME):
            self.differing.append(lane.lane)
            log.warning(
                "lane %d ends otherwise than it had: %s after %s env steps with a last return of %s, not %s "
                "after %s with %s; what depended on it, such as the decisions of a schedule, is as it was",
                *(lane.lane, lane.status, f"{lane.env_steps:,}", now),
                *(was.status, f"{was.env_steps:,}", outcome.last_return),
            )

    def state(self) -> dict[str, Any]:
        return self.before.state()

    def tables(self) -> dict[str, pl.DataFrame]:
        return self.before.tables()

    def files(self) -> Sequence[str]:
        return self.before.files()
