"""Atomic writing of files, the folders of experiments, and the location of the cache."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hyperlax import leaving
from hyperlax.registry import short_name

LONGEST_NAME = 200
"""Bytes of the name of a folder that is called after what the user has typed; disks take 255 or less."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk, or the user's share of one, without room."""
TRY_SECONDS, SAY_SECONDS = 2.0, 60.0
"""Seconds between two attempts to write to a full disk, and between two lines that say so."""
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


def write_atomically(path: Path, content: bytes | str) -> Path:
    """Write `content` so that a reader, or a crash, finds either the old file or the new one; return `path`.

    A temporary file in the same folder is written, synced to disk and renamed. Missing parent folders are
    created. Waits for room on a full disk where that is wanted (`patient`).
    """
    said = float("-inf")
    while True:
        try:
            return _write(path, content)
        except OSError as error:
            if (
                error.filename is None and error.errno is not None
            ):  # as for all that goes wrong once a file is open
                error.filename = str(path)
            if error.errno not in FULL or not _patient:
                raise
            if time.monotonic() - said > SAY_SECONDS:
                said = time.monotonic()
                print(_no_room(path.parent, error), file=sys.stderr)
            with leaving.moment("what was saved before is whole, make room and continue with --resume"):
                time.sleep(TRY_SECONDS)
            try:
                _patient[-1]()
            except BaseException:
                _patient.clear()  # nothing that is written on the way out waits either
                raise


def _no_room(folder: Path, error: OSError) -> str:
    return (
        f"{folder}: {(error.strerror or 'no room').lower()}; waiting for room. "
        "Make some, or stop this process and continue later with --resume"
    )


def _write(path: Path, content: bytes | str) -> Path:
    """`write_atomically`, once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    with leaving.unfinished(temporary):
        try:
            with open(temporary, "xb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return path


def experiment_path(recipe: str, env: str) -> Path:
    """The folder of an experiment below the output root: `<recipe>/<environment>`, safe as file names.

    A pair `<algorithm>+<network>` is called as its recipe is, without the files that they are in; an
    environment of a file is called as that and its class.
    """
    pair = recipe.partition("+")
    named = f"{short_name(pair[0])}_{short_name(pair[2])}" if pair[1] else Path(recipe).name
    folder = re.sub(r"[^A-Za-z0-9_.-]+", "_", named)
    head, bracket, options = env.partition("[")
    inside = re.sub(r"[^A-Za-z0-9_.=,\]+-]+", "_", options)
    return Path(_component(folder)) / _component(f"{Path(head).name.replace(':', '.')}{bracket}{inside}")


def _component(name: str) -> str:
    """`name` as that of one folder: never one that leads elsewhere; one that is too long ends in a digest."""
    if not name.strip("."):
        return f"_{name}"
    if len(os.fsencode(name)) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:12]
    start = os.fsencode(name)[: LONGEST_NAME - 13].decode(errors="ignore")
    return f"{start}-{digest}"


def cache_folder() -> Path | None:
    """The folder of files that can be regenerated, such as compiled programs; None when caching is off.

    The environment variable `HYPERLAX_CACHE_DIR` chooses another folder, or turns caching off when empty.
    """
    chosen = os.environ.get("HYPERLAX_CACHE_DIR")
    if chosen is not None:
        return Path(chosen) if chosen else None
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hyperlax"
