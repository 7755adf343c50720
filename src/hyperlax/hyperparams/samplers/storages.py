"""Storages for the studies of Optuna: databases, journal files and memory."""

from __future__ import annotations

import time
from pathlib import Path

import optuna
from optuna import storages
from optuna.storages import journal


def storage(url: str | None, own: Path | None) -> storages.BaseStorage:
    """Open the storage at an Optuna URL or in a journal file; by default the journal `own`, or memory.

    Raises `ValueError` if the storage cannot be reached or its driver is missing.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if url is None:
        return storages.InMemoryStorage() if own is None else _journal(own, _Unlocked(str(own)))
    if "://" not in url:
        if url.endswith((".db", ".sqlite", ".sqlite3")):
            raise ValueError(f"for SQLite write --storage sqlite:///{url}; a plain path is a journal file")
        return _journal(Path(url), journal.JournalFileOpenLock(url))
    try:
        if url.startswith("redis"):
            return storages.JournalStorage(_Redis(url))
        return _database(url)
    except ImportError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f'the driver for {public(url)} is missing: pip install "hyperlax[search]" brings that for '
            f"PostgreSQL ({reason})"
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


def _journal(path: Path, lock: journal.JournalFileOpenLock) -> storages.BaseStorage:
    """Open a journal file, after removing an incomplete last line, which a killed process may have left.

    Raises `ValueError` for a file that is not a journal of Optuna, or a damaged one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not _ends_in_a_line(path):
        lock.acquire()
        try:
            data = path.read_bytes()
            with path.open("r+b") as file:
                file.truncate(data.rfind(b"\n") + 1)
        finally:
            lock.release()
    try:
        return storages.JournalStorage(journal.JournalFileBackend(str(path), lock_obj=lock))
    except Exception as error:  # whatever the lines of a damaged journal lead to
        what = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"{path} is damaged: no study of Optuna ({type(error).__name__}: {what}); restore it from "
            "a backup, or search again in another folder"
        ) from None


def _ends_in_a_line(path: Path) -> bool:
    """Whether the last line of a file is complete."""
    data = path.read_bytes()
    return not data or data.endswith(b"\n")


def public(url: str) -> str:
    """`url` without its password."""
    scheme, separator, rest = url.partition("://")
    credentials, at, place = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    return f"{scheme}{separator}{user}{':***' if colon else ''}{at}{place}" if at else url
