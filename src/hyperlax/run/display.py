"""The calls that every display of a run answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a display is made before jax is imported
    from hyperlax.agents.base import AbstractAgentHyperparams
    from hyperlax.experiments.experiment import Experiment
    from hyperlax.experiments.samples import Lane
    from hyperlax.programs.compiled import Compiled
    from hyperlax.programs.plan import Machine, Program


class Display:
    """The calls that a run makes of its display, in the order it makes them; this one shows nothing."""

    def planned(self, spec: Experiment, programs: Sequence[Program], machine: Machine, resumed: bool) -> None:
        """The plan is made; nothing has been compiled."""

    def compiling(self, number: int, count: int) -> None:
        """Program `number` of `count` is waited for."""

    def compiled(self, number: int, compiled: Compiled) -> None:
        """Program `number` starts to run."""

    def halved(self, needed_mb: float, limit_mb: float, lanes: int) -> None:
        """Fewer lanes run at once, because of memory."""

    def update(self, lanes: Sequence[Lane], seconds: float) -> None:
        """A segment has run."""

    def evaluated(self, lane: Lane, score: float) -> None:
        """A lane was evaluated."""

    def searched(self, over: int, total: int, best: str) -> None:
        """A trial of a search has ended; `over` of `total` have, and what is best so far in words."""

    def diverged(self, lane: Lane, hyperparams: AbstractAgentHyperparams) -> None:
        """A lane has diverged."""

    def failed(self, number: int, error: Exception) -> None:
        """A program could not be run; its lanes are lost."""

    def stopping(self) -> None:
        """A signal has asked the run to stop; it goes on until the segment that is running ends."""

    def close(self) -> None:
        """The run is over, in whatever way."""
