"""Stopping a run by SIGINT or SIGTERM, with its state saved."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from hyperlax.run.display import Display

Waited = TypeVar("Waited")


class Interrupted(Exception):
    """Raised by a run that a signal has stopped, after its state was saved to its folder, if it has one."""

    def __init__(self, signum: int, folder: Path | None):
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum, self.folder = signum, folder


@runtime_checkable
class Stoppable(Protocol):
    """A run that can be asked to stop; `stop` is the number of the signal that did, or None."""

    stop: int | None

    @property
    def progress(self) -> Display:
        """The display that shows the run to the user."""
        ...

    @property
    def folder(self) -> Path | None:
        """The folder where the state is saved; None if nothing is written."""
        ...

    def save(self) -> None:
        """Save the state, if there is a folder."""
        ...


def wait(future: Future[Waited], runner: Stoppable) -> Waited:
    """Return the result of `future`; if a signal comes first, save the run and raise `Interrupted`."""
    while True:
        try:
            return future.result(timeout=0.2)
        except TimeoutError:
            if runner.stop is not None:
                runner.save()
                raise Interrupted(runner.stop, runner.folder) from None


class signals_of:
    """Context in which SIGINT and SIGTERM ask the runner to save and stop; a second one stops at once."""

    def __init__(self, runner: Stoppable):
        self.runner, self.previous = runner, {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, frame: Any) -> None:
        """Ask the runner to stop; raise `KeyboardInterrupt` if it was asked before."""
        if self.runner.stop is not None:
            raise KeyboardInterrupt
        self.runner.stop = number
        self.runner.progress.stopping()

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
