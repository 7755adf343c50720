"""The interface of displays, which show the progress of a run."""

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
    """A display that shows nothing, and the base class of those that do.

    A run calls the methods below in about this order; a subclass overrides the ones it needs.
    """

    def planned(self, spec: Experiment, programs: Sequence[Program], machine: Machine, resumed: bool) -> None:
        """Show the plan, before anything is compiled."""

    def compiling(self, number: int, count: int) -> None:
        """Show that the run waits for the compilation of program `number` (from 0) of `count`."""

    def compiled(self, number: int, compiled: Compiled) -> None:
        """Show that program `number` (from 0) has been compiled and starts to run."""

    def halved(self, needed_mb: float, limit_mb: float, lanes: int) -> None:
        """Show that a program needs too much memory and is compiled for fewer `lanes` at once instead.

        Threads that compile call this, too."""

    def update(self, lanes: Sequence[Lane], seconds: float) -> None:
        """Show the state of all lanes after a segment, `seconds` after the experiment began."""

    def evaluated(self, lane: Lane, score: float) -> None:
        """Show that a lane was evaluated; `score` is its headline return."""

    def searched(self, over: int, total: int, best: str) -> None:
        """Show that `over` of `total` trials of a search have ended; `best` describes the best so far."""

    def diverged(self, lane: Lane, hyperparams: AbstractAgentHyperparams) -> None:
        """Show that a lane has diverged, with its hyperparameters."""

    def failed(self, number: int, error: Exception) -> None:
        """Show that program `number` (from 0) could not be run, so that its lanes have failed."""

    def stopping(self) -> None:
        """Show that a signal has asked the run to stop, which it does at the end of the segment.

        May be called from another thread than the other methods.
        """

    def close(self) -> None:
        """Clean up; called at the end of a run, also after an error."""
