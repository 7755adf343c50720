"""Standard streams that never make a command fail: closed, on a full disk, or without a reader."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any


def keep_open() -> None:
    """Make standard streams last as long as the process; call it before anything is opened or printed.

    A closed stream is connected to the null device, so that no file opened later takes its number. A stream
    that can no longer be written to is abandoned, with one line on standard error unless its reader has just
    left, as `head` does. Characters that the encoding lacks are replaced.
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
    """Writes to a file descriptor until the first error, and discards everything after it."""

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
