"""Runs that are asked to stop: by SIGINT or SIGTERM, with their state saved."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from hyperlax.run.display import Display

Waited = TypeVar("Waited")


class Interrupted(Exception):
    """The run was asked to stop; its state is saved when it has a folder."""

    def __init__(self, signum: int, folder: Path | None):
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum, self.folder = signum, folder


@runtime_checkable
class Stoppable(Protocol):
    """A run that can be asked to stop; `stop` is the signal that has asked for it, if one has."""

    stop: int | None

    @property
    def progress(self) -> Display:
        """What shows the run to the user."""
        ...

    @property
    def folder(self) -> Path | None:
        """Where its state is saved; None where nothing is written."""
        ...

    def save(self) -> None:
        """Saves the state, if there is a folder."""
        ...


def wait(future: Future[Waited], runner: Stoppable) -> Waited:
    """What `future` brings; a signal meanwhile stops the run, with what was done before saved."""
    while True:
        try:
            return future.result(timeout=0.2)
        except TimeoutError:
            if runner.stop is not None:
                runner.save()
                raise Interrupted(runner.stop, runner.folder) from None


class signals_of:
    """While active, SIGINT and SIGTERM ask the runner to save and stop; a second one stops at once."""

    def __init__(self, runner: Stoppable):
        self.runner, self.previous = runner, {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._asked)

    def _asked(self, number: int, frame: Any) -> None:
        if self.runner.stop is not None:
            raise KeyboardInterrupt
        self.runner.stop = number
        self.runner.progress.stopping()

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
