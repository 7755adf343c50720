"""The interface through which a schedule sees and controls a run."""

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
    """The tables that a run records its measurements in."""

    @property
    def store(self) -> Store | None:
        """The store in the folder of the experiment; None if nothing is written."""
        ...

    def add(self, table: str, rows: list[dict[str, Any]]) -> None:
        """Append rows to a table of `storage.results.SCHEMAS`."""
        ...


@runtime_checkable
class SearchDisplay(Protocol):
    """A display that can show the progress of a search."""

    def searched(self, over: int, total: int, best: str) -> None:
        """Show that `over` of `total` trials have ended; `best` describes the best so far."""
        ...


@runtime_checkable
class RunnerView(Protocol):
    """The part of a runner that a schedule may use, between segments."""

    @property
    def experiment(self) -> Experiment[Any]:
        """The experiment that is run."""
        ...

    @property
    def how(self) -> Execution:
        """The options that it is run with."""
        ...

    @property
    def programs(self) -> Sequence[Program]:
        """The programs; the `program` of a lane is a position here."""
        ...

    @property
    def lanes(self) -> Sequence[Lane]:
        """Every lane there is so far, by number; where processes share an experiment, some are lacking."""
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
        """The tables that measurements are recorded in."""
        ...

    @property
    def progress(self) -> SearchDisplay:
        """The display that shows the run to the user."""
        ...

    def now(self) -> float:
        """Seconds since the experiment began, not counting interruptions."""
        ...

    def tree(self, lane: Lane) -> AbstractAgentHyperparams:
        """The current hyperparameters of the lane."""
        ...

    def admit(self, row: Mapping[str, Any]) -> list[Lane]:
        """Add a sample, queue its lanes and return them; raise `ValueError` if it cannot be trained."""
        ...

    def replace(self, lane: Lane, state: TrainState) -> None:
        """Give a parked lane another state (host arrays); its counts, apart from env steps, go on."""
        ...

    def end(self, lane: Lane, status: str) -> None:
        """End a lane, whether it is in a slot, waiting, or not yet started."""
        ...
