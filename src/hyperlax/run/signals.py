"""Runs that are asked to stop: by SIGINT or SIGTERM, with their state saved."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from hyperlax.run.runner import Runner

Waited = TypeVar("Waited")


class Interrupted(Exception):
    """The run was asked to stop; its state is saved when it has a folder."""

    def __init__(self, signum: int, folder: Path | None):
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum, self.folder = signum, folder


def wait(future: Future[Waited], runner: Runner) -> Waited:
    """What `future` brings; a signal meanwhile stops the run, with what was done before saved."""
    while True:
        try:
            return future.result(timeout=0.2)
        except TimeoutError:
            if runner.stop is not None:
                runner.save()
                folder = runner.recorder.store.folder if runner.recorder.store else None
                raise Interrupted(runner.stop, folder) from None


class signals_of:
    """While active, SIGINT and SIGTERM ask the runner to save and stop; a second one stops at once."""

    def __init__(self, runner: Runner):
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
