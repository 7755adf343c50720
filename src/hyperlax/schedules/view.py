"""What a schedule sees of the run whose lanes it decides about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.experiments.execution import Execution
from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.samples import Lane
from hyperlax.programs.plan import Program
from hyperlax.programs.train import TrainState
from hyperlax.storage.store import Store


@runtime_checkable
class Tables(Protocol):
    """Where a run's measurements go."""

    @property
    def store(self) -> Store | None:
        """The experiment's folder; None where nothing is written."""
        ...

    def add(self, table: str, rows: list[dict[str, Any]]) -> None:
        """Appends rows to a table of `storage.results.SCHEMAS`."""
        ...


@runtime_checkable
class SearchDisplay(Protocol):
    """Where a search says how far it has come."""

    def searched(self, over: int, total: int, best: str) -> None:
        """Says that `over` of `total` trials have ended, and what is best so far, in words."""
        ...


@runtime_checkable
class RunnerView(Protocol):
    """What a schedule sees of a runner, and may ask of it between segments."""

    @property
    def experiment(self) -> Experiment[Any]:
        """What is being run."""
        ...

    @property
    def how(self) -> Execution:
        """How it is run."""
        ...

    @property
    def programs(self) -> Sequence[Program]:
        """The programs; a lane's `program` is a position here."""
        ...

    @property
    def lanes(self) -> Sequence[Lane]:
        """Every lane there is so far; its `lane` is its position here."""
        ...

    @property
    def parked(self) -> Mapping[int, TrainState]:
        """Lane → its state as host arrays, for every lane that has begun, is not over and is in no slot."""
        ...

    @property
    def last_return(self) -> Mapping[int, float]:
        """Lane → its latest headline return."""
        ...

    @property
    def recorder(self) -> Tables:
        """Where measurements go."""
        ...

    @property
    def progress(self) -> SearchDisplay:
        """What shows the run to the user."""
        ...

    def now(self) -> float:
        """Seconds since the experiment began, interruptions not counted."""
        ...

    def tree(self, lane: Lane) -> AbstractAgentHyperparams:
        """The hyperparameters the lane trains with."""
        ...

    def admit(self, row: Mapping[str, Any]) -> list[Lane]:
        """Adds a sample and queues its lanes; raises `ValueError` for a sample that cannot be trained."""
        ...

    def replace(self, lane: Lane, state: TrainState) -> None:
        """Gives a parked lane another state (host arrays), in which it goes on with the counts it has."""
        ...

    def end(self, lane: Lane, status: str) -> None:
        """Ends a lane, wherever it is: in a slot, waiting, or not yet begun."""
        ...
