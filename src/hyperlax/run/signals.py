"""Stopping a run by a signal, with its state saved."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from hyperlax import leaving

if TYPE_CHECKING:
    from concurrent.futures import Future

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


def interruption(runner: Stoppable) -> Interrupted:
    """The exception of a runner that was asked to stop and has saved; from now on the program leaves."""
    assert runner.stop is not None
    leaving.answered()
    return Interrupted(runner.stop, runner.folder)


def wait(future: Future[Waited], runner: Stoppable) -> Waited:
    """Return the result of `future`; if a signal comes first, save the run and raise `Interrupted`."""
    while True:
        try:
            return future.result(timeout=0.2)
        except TimeoutError:
            if runner.stop is not None:
                runner.save()
                raise interruption(runner) from None
            if future.done():  # it has its result since, or has raised this exception itself
                return future.result()


class signals_of:
    """Context in which signals (`leaving.SIGNALS`) ask the runner to save and stop.

    A second SIGINT stops at once: the command line leaves, other programs get a `KeyboardInterrupt`. Handlers
    of the calling program are restored on exit. A signal that came too late for the runner to see it raises
    `Interrupted` there.
    """

    def __init__(self, runner: Stoppable):
        self.runner, self.previous = runner, {}
        self.interrupted: float | None = None
        self.moment = leaving.moment(None, self._told)

    def __enter__(self) -> None:
        self.moment.__enter__()
        if not leaving.watching() and threading.current_thread() is threading.main_thread():
            for number in leaving.heard_signals():
                self.previous[number] = signal.signal(number, self._handle)

    def _told(self, number: int) -> None:
        """Ask the runner to stop. The display is told by another thread: it may wait for what is locked."""
        if self.runner.stop is None:
            self.runner.stop = number
            threading.Thread(target=self.runner.progress.stopping, daemon=True).start()

    def _handle(self, number: int, frame: Any) -> None:
        """Ask the runner to stop; raise `KeyboardInterrupt` for a second SIGINT."""
        now = time.monotonic()
        if number == signal.SIGINT:
            if self.interrupted is not None and now - self.interrupted > leaving.ECHO_SECONDS:
                raise KeyboardInterrupt
            self.interrupted = self.interrupted or now
        if self.runner.stop is None:
            self.runner.stop = number
            self.runner.progress.stopping()

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler or signal.SIG_DFL)
        self.moment.__exit__(None, None, None)
        if kind is None and self.runner.stop is not None:
            raise interruption(self.runner)
