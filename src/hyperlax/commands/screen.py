"""Standard output and error that never end a command, be they closed, full, or without a reader."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any


def keep_open() -> None:
    """Make standard streams last as long as the process; call it before anything is opened or printed.

    What was closed is connected to nothing, so that no file that is opened later takes its place. What cannot
    be written to any more is given up, with one line on standard error unless the reader has just left, as
    `head` does. Characters that the encoding lacks are replaced.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdout = _stream(1, sys.stdout, "replace")
    sys.stderr = _stream(2, sys.stderr, "backslashreplace")


def _stream(descriptor: int, former: Any, errors: str) -> io.TextIOWrapper:
    """A text stream in place of `former`, which is None if it was closed, with its encoding."""
    raw = _Lasting(descriptor)
    encoding = getattr(former, "encoding", None) or "utf-8"
    line_by_line = descriptor == 2 or raw.isatty() or getattr(former, "write_through", False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, errors, line_buffering=line_by_line, write_through=descriptor == 2
    )


def visible(text: str) -> str:
    """`text` with escape sequences in place of what a terminal would obey, such as control characters."""
    from hyperlax.registry import escaped

    return "\n".join(escaped(line) for line in text.split("\n"))


class _Lasting(io.RawIOBase):
    """Writes to a file descriptor, and nowhere from the first error on."""

    def __init__(self, descriptor: int):
        self.descriptor, self.lost = descriptor, False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.descriptor

    def isatty(self) -> bool:
        return os.isatty(self.descriptor)

    def write(self, data: Any) -> int:
        while not self.lost:
            try:
                return os.write(self.descriptor, data)
            except BlockingIOError:
                select.select([], [self.descriptor], [], 1.0)
            except OSError as error:
                self.lost = True
                if error.errno != errno.EPIPE and self.descriptor == 1:
                    print(f"standard output is lost: {(error.strerror or '').lower()}", file=sys.stderr)
        return len(data)
