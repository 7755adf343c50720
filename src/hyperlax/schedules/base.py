"""Schedules, which decide what happens to the lanes of an experiment while it runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np
import polars as pl

from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.samples import Lane
from hyperlax.experiments.settings import Settings
from hyperlax.schedules.view import RunnerView


class Verdict(Enum):
    """The decision about a lane after an evaluation: train on, stop for good, or wait to be released."""

    GO_ON = "go on"
    PRUNE = "prune"
    PAUSE = "pause"

    @staticmethod
    def checked(verdict: Any, schedule: Schedule, method: str) -> Verdict:
        """`verdict`, which a method of `schedule` has returned; raises `ValueError` if it is none."""
        if isinstance(verdict, Verdict):
            return verdict
        known = ", ".join(f"Verdict.{v.name}" for v in Verdict)
        raise ValueError(f"{type(schedule).__name__}.{method} returns {verdict!r}; it must return {known}")


class Schedule:
    """The schedule of a plain sweep, and the base class of all others.

    It trains every lane to its end, in an order that keeps all slots busy. A subclass overrides the decisions
    that it makes differently. The runner calls all methods from its own thread, between segments. Whatever
    has to survive an interruption is returned by `state` and passed to `restore`.

    - `grows`: whether samples are added while the experiment runs. Programs then take turns instead of
      following one another, and the experiment is identified by `describe()` instead of by its samples.
    - `at_once`: the number of samples in training at a time; 0 if the samples are known from the start.
    - `one_program`: whether lanes share a program whenever their shapes allow it, at any cost of padding.
    - `started_first`: whether lanes that have started go before new ones; both groups are sorted by `order`.
    """

    grows: bool = False
    at_once: int = 0
    one_program: bool = False
    started_first: bool = True

    def check(self, experiment: Experiment) -> None:
        """Raise `ValueError` with the fix if it cannot run the experiment; may add to the notes."""

    @property
    def expected(self) -> int:
        """The number of samples there will be in the end; 0 if they are known from the start."""
        return 0

    def trees_to_plan(self, experiment: Experiment) -> Sequence[AbstractAgentHyperparams]:
        """The samples that programs are planned for: those of the experiment, or likely future ones."""
        return experiment.trees

    def describe(self) -> dict[str, Any] | None:
        """The parameters that influence results, JSON-ready, for the experiment's identity; None if none."""
        return None

    def manifest(self) -> dict[str, Any]:
        """Further entries of the manifest of the experiment, JSON-ready."""
        return {}

    def begin(self, runner: RunnerView) -> None:
        """Prepare; called before the first segment of a new or resumed run."""

    def refill(self, runner: RunnerView) -> None:
        """Admit samples (`runner.admit`) and release paused lanes; called before every segment."""

    def judge(self, runner: RunnerView, lane: Lane, value: float) -> Verdict:
        """Decide about a lane that is not over, after an evaluation with the headline return `value`."""
        return Verdict.GO_ON

    def lost(self, runner: RunnerView, lane: Lane) -> Verdict:
        """Decide about a diverged lane: PAUSE if it will get another state, PRUNE to end it."""
        return Verdict.PRUNE

    def ended(self, runner: RunnerView, lane: Lane) -> None:
        """Note that a lane has ended: done, diverged, pruned or failed."""

    def order(self, lane: Lane, work_left: float) -> float:
        """A sort key for queued lanes, smallest first; by default the most work left comes first.

        `work_left` is the predicted work until the end of the lane, in the unit of `Program.work`. Long lanes
        that start late would otherwise run alone at the end.
        """
        return -work_left

    def state(self) -> dict[str, Any]:
        """The state of the schedule, JSON-ready, which is stored with every checkpoint."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""

    def start_over(self, lanes: Sequence[Lane], lost: Collection[int]) -> set[int]:
        """Forget the lanes that have to start over because the results of the lanes `lost` are gone.

        Returns the numbers of these lanes: `lost`, and all lanes that share a copied state with them. A
        schedule that never copies states, the default, forgets nothing and returns no lane: each of `lost` is
        then retrained alone, and ends as it had ended.
        """
        return set()

    def tables(self) -> dict[str, pl.DataFrame]:
        """The schedule's own tables, stored with every checkpoint, by name."""
        return {}

    def files(self) -> Sequence[str]:
        """Names of the schedule's own append-only files in the folder, to be checked on resume."""
        return ()


def saved_state(schedule: Schedule) -> dict[str, Any]:
    """What `schedule.state()` returns, with the numbers and arrays of NumPy and JAX as those of Python.

    Raises `ValueError` naming the class for what JSON cannot hold.
    """
    name = type(schedule).__name__

    def plain(value: Any, path: str) -> Any:
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str | int):
                    raise ValueError(f"{name}.state() returns the key {key!r} at {path}; keys are text")
            return {key: plain(inner, f"{path}[{key!r}]") for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner, f"{path}[{i}]") for i, inner in enumerate(value)]
        if value is None or isinstance(value, bool | int | float | str):
            return value.item() if isinstance(value, np.generic) else value
        if hasattr(value, "dtype") and hasattr(value, "tolist"):
            return value.tolist()
        raise ValueError(
            f"{name}.state() returns an object of {type(value).__name__} at {path}, which JSON cannot hold; "
            "return numbers, text, lists and dicts, and make the rest of them in restore()"
        )

    found = schedule.state()
    if not isinstance(found, Mapping):
        raise ValueError(f"{name}.state() returns {found!r}; it must return a dict")
    return plain(found, "state")


def decisions(settings: Settings) -> list[int]:
    """The env steps of evaluations at which lanes can be judged: neither at the start nor at the end."""
    return [mark for mark in settings.milestones() if 0 < mark < settings.total_timesteps]


def refuse_designs(experiment: Experiment, because: str) -> None:
    """Raise `ValueError` if the samples are those of a sensitivity analysis or an ablation.

    `because` says why.
    """
    designs = {"matrix": ("a sensitivity analysis", "--experiment-type"), "pair": ("an ablation", "--ablate")}
    for column, (name, flag) in designs.items():
        if any(column in row for row in experiment.rows):
            raise ValueError(
                f"{name} needs every sample trained to its end with its own hyperparameters, and "
                f"{because}: leave out --scheduler, or {flag}"
            )
