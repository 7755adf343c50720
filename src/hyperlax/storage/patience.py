"""Handling of a full disk: a run waits for room, everything else gets the error."""

from __future__ import annotations

import errno
import functools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from hyperlax import leaving

Rest = ParamSpec("Rest")
Written = TypeVar("Written")

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk, or the user's share of one, without room."""
TRY_SECONDS, SAY_SECONDS = 2.0, 60.0
"""Seconds between two attempts to write to a full disk, and between two lines that say so."""
MAKE_ROOM = "what was saved before is whole, make room and continue with --resume"
_patient: list[Callable[[], None]] = []


@contextmanager
def patient(check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Context in which writing to a full disk waits until there is room, and a line a minute says so.

    `check` is called meanwhile, every few seconds, and ends the waiting by an exception of its own.
    """
    _patient.append(check)
    try:
        yield
    finally:
        if _patient:
            _patient.pop()


def waiting_for_room(
    write: Callable[Concatenate[Path, Rest], Written],
) -> Callable[Concatenate[Path, Rest], Written]:
    """`write`, which writes a file or nothing, and tries again where a full disk is waited for (`patient`).

    An `OSError` that it raises names the file.
    """

    @functools.wraps(write)
    def waiting(path: Path, *args: Rest.args, **more: Rest.kwargs) -> Written:
        said = float("-inf")
        while True:
            try:
                return write(path, *args, **more)
            except OSError as error:
                if error.filename is None and error.errno is not None:
                    error.filename = str(path)
                if error.errno not in FULL or not _patient:
                    raise
                if time.monotonic() - said > SAY_SECONDS:
                    said = time.monotonic()
                    print(_no_room(path.parent, error), file=sys.stderr)
            with leaving.moment(MAKE_ROOM):
                time.sleep(TRY_SECONDS)
            try:
                _patient[-1]()
            except BaseException:
                _patient.clear()  # nothing that is written on the way out waits either
                raise

    return waiting


def _no_room(folder: Path, error: OSError) -> str:
    return (
        f"{folder}: {(error.strerror or 'no room').lower()}; waiting for room. "
        "Make some, or stop this process and continue later with --resume"
    )
