"""Storages for the studies of Optuna: databases, journal files and memory."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import optuna
from optuna import storages
from optuna.storages import journal

Append: TypeAlias = Callable[[Path, bytes, journal.JournalFileOpenLock], None]
"""Appends lines to a journal, or nothing, while it holds a lock."""
_PIECE = 2**16
"""Bytes that are read at a time when the end of the last whole line is looked for."""
_SECRETS = re.compile(r"([?&](?:password|passwd|pwd|sslpassword)=)[^&#]*", re.IGNORECASE)


def storage(
    url: str | None, own: Path | None, waiting: Callable[[Append], Append] = lambda append: append
) -> storages.BaseStorage:
    """Open the storage at an Optuna URL or in a journal file; by default the journal `own`, or memory.

    `waiting` makes what writes to a journal wait for room on a full disk.
    Raises `ValueError` if the storage cannot be reached or its driver is missing.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if url is None:
        return storages.InMemoryStorage() if own is None else _journal(own, _Unlocked(str(own)), waiting)
    if "://" not in url:
        if url.endswith((".db", ".sqlite", ".sqlite3")):
            raise ValueError(f"for SQLite write --storage sqlite:///{url}; a plain path is a journal file")
        return _journal(Path(url), journal.JournalFileOpenLock(url), waiting)
    try:
        if url.startswith("redis"):
            return storages.JournalStorage(_Redis(url))
        return _database(url)
    except ImportError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f'the driver for {public(url)} is missing: pip install ".[search]" in the checkout of '
            f"hyperlax brings that for PostgreSQL ({reason})"
        ) from None
    except Exception as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ValueError(f"the storage {public(url)} cannot be used: {reason}") from None


class _Redis(journal.JournalRedisBackend):
    """The journal in a Redis server without its snapshots, which are pickles and could run anything.

    Without them the journal is read from its beginning.
    """

    def load_snapshot(self) -> bytes | None:
        return None

    def save_snapshot(self, snapshot: bytes) -> None:
        pass


def _database(url: str) -> storages.BaseStorage:
    """Open a database, trying again if another process creates its tables at the same time."""
    for attempt in range(4):
        try:
            return storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
        except Exception as error:
            from sqlalchemy.exc import IntegrityError, ProgrammingError

            raced = isinstance(error, IntegrityError | ProgrammingError) or "already exists" in str(error)
            if not raced or attempt == 3:
                raise
        time.sleep(0.5 * (attempt + 1))
    raise AssertionError("unreachable")


def close(where: storages.BaseStorage | None) -> None:
    """Close the connections to a database; without effect for other storages."""
    if isinstance(where, storages.RDBStorage):
        where.remove_session()
        where.engine.dispose()


class _Unlocked(journal.JournalFileOpenLock):
    """The lock of a journal that only one process uses, which a killed process cannot leave behind."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        """Nothing has been locked."""


class _Journal(journal.JournalFileBackend):
    """A journal file in which every record is whole, also where a process was killed or the disk was full.

    Behind half a record, that of another process could not be read either: the study would be lost.
    """

    def __init__(self, path: Path, lock: journal.JournalFileOpenLock, append: Append):
        super().__init__(str(path), lock_obj=lock)
        self.path, self.lock, self.append = path, lock, append

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(f"{json.dumps(log, separators=(',', ':'))}\n" for log in logs)
        self.append(self.path, lines.encode(), self.lock)


def _append(path: Path, content: bytes, lock: journal.JournalFileOpenLock) -> None:
    """Append whole lines to a journal, or nothing, behind the last whole one."""
    lock.acquire()
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            _cut(handle)
            _write(handle, content)
        finally:
            os.close(handle)
    finally:
        lock.release()


def _write(handle: int, content: bytes) -> None:
    """Append to an open file, synced to disk; if that fails, it is as long again as before."""
    before, written = os.fstat(handle).st_size, 0
    try:
        while written < len(content):
            written += os.write(handle, content[written:])
        os.fsync(handle)
    except BaseException:
        if os.fstat(handle).st_size == before + written:  # else this process was believed dead meanwhile
            os.ftruncate(handle, before)
        raise


def _cut(handle: int) -> None:
    """Remove an incomplete last line, which a killed process may have left, from an open file."""
    size = os.fstat(handle).st_size
    at, end = size, 0  # the end of what is still to be searched, and of the last whole line in a piece of it
    while at and not end:
        start = max(0, at - (1 if at == size else _PIECE))
        end = os.pread(handle, at - start, start).rfind(b"\n") + 1
        at = start
    if at + end < size:
        os.ftruncate(handle, at + end)


def _journal(
    path: Path, lock: journal.JournalFileOpenLock, waiting: Callable[[Append], Append]
) -> storages.BaseStorage:
    """Open a journal file, after removing an incomplete last line.

    Raises `ValueError` for a file that is not a journal of Optuna, or a damaged one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not _ends_in_a_line(path):
        _append(path, b"", lock)
    try:
        return storages.JournalStorage(_Journal(path, lock, waiting(_append)))
    except Exception as error:  # whatever the lines of a damaged journal lead to
        what = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"{path} is damaged: no study of Optuna ({type(error).__name__}: {what}); restore it from "
            "a backup, or search again in another folder"
        ) from None


def _ends_in_a_line(path: Path) -> bool:
    """Whether the last line of a file is complete."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        return file.read(1) in (b"", b"\n")


def public(url: str) -> str:
    """`url` without its passwords, before the host or in the query."""
    url = _SECRETS.sub(r"\1***", url)
    scheme, separator, rest = url.partition("://")
    credentials, at, place = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    return f"{scheme}{separator}{user}{':***' if colon else ''}{at}{place}" if at else url
