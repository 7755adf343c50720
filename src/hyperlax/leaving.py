"""How a process exits on a signal, from its first line to its last.

A thread of its own answers signals, because the main thread may be inside XLA or an import for minutes. What
the answer is depends on the moment (`moment`): most of the time everything worth keeping is on disk, and the
process says so and leaves at once; a run in training is told instead, and leaves by itself when it has saved.

Imports nothing but light modules of the standard library: it is the first that a command imports.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import NoReturn

INTERRUPTED, OUT_OF_TIME = 130, 75
"""Exit codes: stopped by SIGINT, and by any other signal; a scheduler starts the job of the latter again."""
SUPERSEDED = 76
"""The exit code of a process whose folder another process has taken over."""
SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
]
"""The signals that ask a process to leave."""
ECHO_SECONDS = 0.25
"""Containers deliver a signal twice within milliseconds: no second Ctrl-C of a person comes that soon."""
NOTHING_BEGUN = "nothing was begun"
RESUMABLE = "state saved, continue with --resume"
"""The message for a run whose state is saved in its folder."""
FAREWELL_SECONDS = 15.0
"""How long a run that has saved may take to leave by itself."""


def exit_code(number: int) -> int:
    """The exit code of a process that the signal `number` has stopped."""
    return INTERRUPTED if number == signal.SIGINT else OUT_OF_TIME


def heard_signals() -> list[int]:
    """The signals to listen to: all of `SIGNALS`, but not SIGHUP under `nohup`, which wants it ignored."""
    hangup = getattr(signal, "SIGHUP", None)
    return [n for n in SIGNALS if n != hangup or signal.getsignal(n) is not signal.SIG_IGN]


@dataclass
class Moment:
    """What a signal means while something is done.

    - `words`: what is said when the process leaves, such as how to go on; None while it must not leave.
    - `told`: called with the number of the first signal, in the thread that answers signals, or in the one
      that enters this moment if the signal came before; it must not wait for anything.
    - `patience`: seconds until the process leaves, from then or from when this moment began if that is later.
    """

    words: str | None
    told: Callable[[int], None] | None = None
    patience: float = 0.0
    began: float = field(default_factory=lambda: time.monotonic())


_lock = threading.RLock()
_moments = [Moment(NOTHING_BEGUN)]
_unfinished: set[str] = set()


@contextmanager
def moment(
    words: str | None, told: Callable[[int], None] | None = None, patience: float = 0.0
) -> Iterator[None]:
    """Context in which signals mean what `Moment` describes; where signals are not listened to, no effect."""
    entry = Moment(words, told, patience)
    with _lock:
        _moments.append(entry)
        if told is not None and _watch is not None and _watch.asked is not None:
            told(_watch.asked)
    try:
        yield
    finally:
        with _lock:
            _moments.remove(entry)


def from_now_on(words: str | None) -> None:
    """Set what is said when the process leaves, outside of any `moment`.

    With None it does not leave: all is done, and it is about to end by itself.
    """
    _moments[0].words = words


def words_now() -> str:
    """What the innermost moment that has words says."""
    return next((m.words for m in reversed(_moments) if m.words is not None), "all is done")


@contextmanager
def unfinished(*paths: str | os.PathLike[str]) -> Iterator[None]:
    """Context in which files and folders are written that must not stay behind when the process leaves."""
    names = {os.fspath(path) for path in paths}
    with _lock:
        _unfinished.update(names)
    try:
        yield
    finally:
        _unfinished.difference_update(names)


class Watch:
    """Decides what becomes of a signal; `asked` is the number of the first one, None before."""

    def __init__(self) -> None:
        self.asked: int | None = None
        self.since = 0.0
        self.interrupted: float | None = None
        self.answered: float | None = None

    def hear(self, number: int) -> None:
        """Answer a signal. All but the first are ignored, apart from a second SIGINT, which ends it all."""
        now = time.monotonic()
        with _lock:
            first = self.asked is None
            if first:
                self.asked, self.since = number, now
            elif number == signal.SIGINT and self.interrupted and now - self.interrupted > ECHO_SECONDS:
                leave(INTERRUPTED, f"stopped at once by a second SIGINT; {words_now()}")
            if number == signal.SIGINT and self.interrupted is None:
                self.interrupted = now
            for current in _moments if first else []:
                if current.told is not None:
                    current.told(number)

    def remaining(self) -> float | None:
        """Leave if it is time to; otherwise return the seconds until then, None without a signal."""
        with _lock:
            if self.asked is None:
                return None
            current = _moments[-1]
            words, end = current.words, max(self.since, current.began) + current.patience
            if self.answered is not None:
                words, end = words or words_now(), self.answered + FAREWELL_SECONDS
            if words is None:
                return 1.0
            if (left := end - time.monotonic()) <= 0:
                leave(exit_code(self.asked), f"stopped by {signal.Signals(self.asked).name}; {words}")
            return min(left, 1.0)


_watch: Watch | None = None


def watching() -> bool:
    """Whether a thread of this process answers signals."""
    return _watch is not None


def answered() -> None:
    """Note that the main thread has seen the signal, and will leave by itself."""
    if _watch is not None:
        _watch.answered = time.monotonic()


@contextmanager
def watched(to_the_end: bool = False) -> Iterator[None]:
    """Context in which signals are answered, if this is the main thread; handlers are restored after it.

    With `to_the_end` they are not: from then on signals are ignored, as the interpreter only has to end.
    """
    global _watch
    if _watch is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    from_now_on(NOTHING_BEGUN)
    _watch = Watch()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    former = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    handlers = {number: signal.signal(number, _heard) for number in heard_signals()}
    threading.Thread(target=_listen, args=(reader, _watch), daemon=True, name="signals").start()
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_IGN if to_the_end else handler or signal.SIG_DFL)
        signal.set_wakeup_fd(former)
        os.close(writer)
        _watch = None


def _heard(number: int, frame: object) -> None:
    """Do nothing: Python has written the number into the pipe when the signal came."""


def _listen(reader: int, watch: Watch) -> None:
    """Answer every signal whose number comes through the pipe `reader`, until that is closed."""
    numbers = set(SIGNALS)
    while True:
        if not select.select([reader], [], [], watch.remaining())[0]:
            continue
        if not (received := os.read(reader, 64)):
            os.close(reader)
            return
        for number in received:
            if number in numbers:
                watch.hear(number)


def leave(code: int, line: str) -> NoReturn:
    """End the process now, from any thread, with `line` on standard error and nothing unfinished on disk."""
    _clear_away()
    _end_children()
    with suppress(OSError):
        if os.isatty(1):
            os.write(1, b"\x1b[?25h")  # a progress bar hides the cursor
    with suppress(OSError):
        os.write(2, f"{line}\n".encode())
    os._exit(code)


def as_worker() -> None:
    """Let this process, which works for another, leave with that one only, and clear away what it writes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both
    signal.signal(signal.SIGTERM, lambda *_: (_clear_away(), os._exit(OUT_OF_TIME)))


def _clear_away() -> None:
    """Remove unfinished files and folders, and let no other be begun."""
    _lock.acquire()  # for good
    for path in list(_unfinished):
        if os.path.isdir(path):
            import shutil

            shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            os.unlink(path)


def _end_children() -> None:
    """End the worker processes of this one, which nobody would tell otherwise."""
    if (processes := sys.modules.get("multiprocessing.process")) is not None:
        for child in processes.active_children():
            with suppress(OSError):
                child.terminate()
