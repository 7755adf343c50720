"""What becomes of the lanes of an experiment while it runs, and which come next."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.samples import Lane
from hyperlax.experiments.settings import Settings
from hyperlax.schedules.view import RunnerView


class Verdict(Enum):
    """What a lane does after an evaluation: train on, stop for good, or wait until it is released."""

    GO_ON = "go on"
    PRUNE = "prune"
    PAUSE = "pause"


class Schedule:
    """Trains every lane to its end, in an order that keeps all slots busy: what a plain sweep does.

    Others override what they decide. All calls come from the runner's thread, between segments; what is to
    survive an interruption is returned by `state` and given back to `restore`.

    - `grows`: whether samples are added while it runs; then programs take turns instead of following one
      another, and the experiment is known by `describe()` instead of by its samples.
    - `at_once`: how many samples may be in training at a time; 0 where the samples are known from the start.
    - `one_program`: whether lanes share a program wherever their shapes allow, whatever padding costs.
    - `started_first`: whether lanes that have a state go before those that have not begun; then by `order`.
    """

    grows: bool = False
    at_once: int = 0
    one_program: bool = False
    started_first: bool = True

    def check(self, experiment: Experiment) -> None:
        """Raises `ValueError` with the fix for an experiment it cannot run; may add to its notes."""

    @property
    def expected(self) -> int:
        """How many samples there will be in the end; 0 where they are known from the start."""
        return 0

    def trees_to_plan(self, experiment: Experiment) -> Sequence[AbstractAgentHyperparams]:
        """What programs are planned for: the samples, or likely ones where they are yet to come."""
        return experiment.trees

    def describe(self) -> dict[str, Any] | None:
        """What decides its results, JSON-ready, for the experiment's identity; None where nothing does."""
        return None

    def manifest(self) -> dict[str, Any]:
        """What it adds to the experiment's manifest, JSON-ready."""
        return {}

    def begin(self, runner: RunnerView) -> None:
        """Before the first segment of a run, fresh or resumed."""

    def refill(self, runner: RunnerView) -> None:
        """Before every segment: may admit samples (`runner.admit`) and release paused lanes."""

    def judge(self, runner: RunnerView, lane: Lane, value: float) -> Verdict:
        """After an evaluation of a lane that is not over; `value` is its headline return."""
        return Verdict.GO_ON

    def lost(self, runner: RunnerView, lane: Lane) -> Verdict:
        """A lane has diverged: PAUSE where it will be given another state, PRUNE to end it as diverged."""
        return Verdict.PRUNE

    def ended(self, runner: RunnerView, lane: Lane) -> None:
        """A lane is over: done, diverged, pruned or failed."""

    def order(self, lane: Lane, work_left: float) -> float:
        """Queued lanes of least order come first: those with most work left, so that none ends alone."""
        return -work_left

    def state(self) -> dict[str, Any]:
        """JSON-ready; stored with every checkpoint."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from what `state` returned."""


def decisions(settings: Settings) -> list[int]:
    """Env steps of the evaluations at which something can be decided: neither the start nor the end."""
    return [mark for mark in settings.milestones() if 0 < mark < settings.total_timesteps]


def refuse_designs(experiment: Experiment, because: str) -> None:
    """Raises `ValueError` when the samples are those of a sensitivity analysis."""
    if any("matrix" in row for row in experiment.rows):
        raise ValueError(
            "a sensitivity analysis needs every sample trained to its end with its own hyperparameters, and "
            f"{because}: leave out --scheduler, or --experiment-type"
        )
