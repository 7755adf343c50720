"""Atomic writing of files, the folders of experiments, and the location of the cache."""

from __future__ import annotations

import errno
import glob
import hashlib
import logging
import os
import re
import secrets
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from hyperlax import leaving
from hyperlax.registry import short_name
from hyperlax.storage.patience import waiting_for_room

Content = bytes | str | tuple[bytes | bytearray, ...]
"""What a file is filled with; pieces are written one after the other."""

LONGEST_NAME = 200
"""Bytes of the name of a folder that is called after what the user has typed; disks take 255 or less."""
_TRIES = 3
"""How often a file is written whose temporary file is removed meanwhile."""
_TEMPORARY = re.compile(r"\..+\.[A-Za-z0-9_]{8}\.tmp")
"""Names of temporary files; those of older versions have any letters."""


@waiting_for_room
def write_atomically(path: Path, content: Content) -> Path:
    """Write `content` so that a reader, or a crash, finds either the old file or the new one; return `path`.

    A temporary file in the same folder is written, synced to disk and renamed. Missing parent folders are
    created. Waits for room on a full disk where that is wanted (`patience.patient`).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(_TRIES):
        temporary = _written_aside(path, content)
        try:
            os.replace(temporary, path)
            break
        except BaseException as error:
            vanished = isinstance(error, FileNotFoundError) and not os.path.lexists(temporary)
            Path(temporary).unlink(missing_ok=True)
            if not vanished or attempt + 1 == _TRIES:  # another process has cleared it (`clear_temporary`)
                raise
    _sync(path.parent)
    return path


def write_output(path: Path, content: bytes | str) -> Path:
    """Write a file into a folder that is not the program's own, as `write_atomically`; return `path`.

    What earlier processes were writing under the same name when they were killed is removed first. In the
    folders of experiments `clear_temporary` does that when they are resumed.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????.tmp"):
        if is_temporary(left):
            left.unlink(missing_ok=True)
    return write_atomically(path, content)


@waiting_for_room
def create(path: Path, content: bytes | str) -> bool:
    """Write `content` to the new file `path`; return False, and write nothing, if it exists already.

    Of several processes that call this at once, on any machine, exactly one gets True. That does not need
    locks: the complete file is linked to its name, and its number of links tells whether that succeeded,
    even if a network file system has lost its answer. Where there are no links, the name is reserved first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tries = 0
    while True:
        tries += 1
        temporary = _written_aside(path, content)
        try:
            return _linked(temporary, path)
        except FileNotFoundError:
            if os.path.lexists(temporary) or tries == _TRIES:  # else another process has cleared it
                raise
        finally:
            Path(temporary).unlink(missing_ok=True)
            _sync(path.parent)


def _linked(temporary: str, path: Path) -> bool:
    """Give the file `temporary` the name `path`; whether that was free."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return os.stat(temporary).st_nlink == 2
    except OSError as error:
        if os.stat(temporary).st_nlink == 2:
            return True
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            return False
        try:
            os.replace(temporary, path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    return True


def temporary_files(folder: Path) -> list[Path]:
    """The unfinished files in a folder and its subfolders, which a writer that was killed has left."""
    return [path for path in folder.rglob(".*.tmp") if is_temporary(path) and path.is_file()]


def is_temporary(path: Path) -> bool:
    """Whether the name of `path` is that of an unfinished file."""
    return _TEMPORARY.fullmatch(path.name) is not None


def clear_temporary(folder: Path) -> None:
    """Remove `temporary_files`; a process that is just writing one of them writes it again."""
    for path in temporary_files(folder):
        path.unlink(missing_ok=True)


def _written_aside(path: Path, content: Content) -> str:
    """Write `content` to a temporary file beside `path`, synced to disk; return its path."""
    handle, temporary = _temporary(path)
    try:
        with os.fdopen(handle, "wb") as file, leaving.unfinished(temporary):
            for piece in content if isinstance(content, tuple) else (content,):
                file.write(piece.encode() if isinstance(piece, str) else piece)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return temporary


def _temporary(path: Path) -> tuple[int, str]:
    """Create a temporary file beside `path`, with the permissions that the umask leaves; open it."""
    while True:
        temporary = f"{path.parent / f'.{path.name}.{secrets.token_hex(4)}.tmp'}"
        with suppress(FileExistsError):
            return os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666), temporary


def _sync(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
    """The folder of files that can be regenerated, such as compiled programs; None when nothing is kept.

    The environment variable `HYPERLAX_CACHE_DIR` chooses another folder, or turns caching off when empty.
    A folder that cannot be written, such as one below a home that a container does not have, is not used,
    which is said once.
    """
    chosen = os.environ.get("HYPERLAX_CACHE_DIR")
    if chosen == "":
        return None
    below = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = os.path.expanduser(chosen or f"{below}/hyperlax")
    return Path(folder) if _keeps_files(folder) else None


@cache
def _keeps_files(folder: str) -> bool:
    """Whether files can be written to `folder`, which is created; what speaks against it is logged."""
    problem = "its home folder is unknown"
    if not folder.startswith("~"):
        try:
            os.makedirs(folder, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return True
        except OSError as error:
            problem = error.strerror or str(error)
    logging.getLogger("hyperlax").warning(
        "Compiled programs are not kept, because %s cannot be written (%s): set HYPERLAX_CACHE_DIR to a "
        "folder that can, the same one for every task, or leave it empty to keep none.",
        folder,
        problem,
    )
    return False
