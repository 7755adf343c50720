"""Paths that users give for output: resolved once, and checked before anything is created."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

PLAN = "sweep.json"
"""The file in the folder of a sweep, search or benchmark whose units many processes train."""
LONGEST_INSIDE = 120
"""Bytes that the paths of files inside an experiment's folder, temporary ones included, may add to it."""


def resolved(path: str | os.PathLike[str], what: str = "path") -> Path:
    """The path as given, with `~` expanded and absolute; links and patterns in it stay what they are.

    Raises `ValueError`, which calls it `what`, for a path that cannot be one on any disk.
    """
    text = os.fspath(path)
    if not text:
        raise ValueError(f"the {what} is empty; give one, or . for the current folder")
    if "\0" in text:
        raise ValueError(f"the {what} {text!r} has a null character in it; leave that out")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the {what} {text!a} is not valid UTF-8; rename it, or choose another") from None
    if not text.startswith("~"):  # ./~ is a folder of that name, which Path would shorten to ~
        return Path(Path.cwd(), text)
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        user = Path(text).parts[0]
        raise ValueError(
            f"the {what} {text}: there is no user {user}; for a folder of that name write ./{user}"
        ) from None


def as_typed(path: str | os.PathLike[str], what: str = "path") -> Path:
    """The path as it is to be shown: relative if it was, unless it would be taken for another one then.

    Raises `ValueError` as `resolved` does.
    """
    place, typed = resolved(path, what), Path(path)
    return place if str(typed).startswith("~") else typed


def check_writable(folder: Path, flag: str = "--output-root") -> None:
    """Raise `ValueError`, with the path and the fix, unless the folder exists or can be created, and written.

    Creates nothing. `folder` is absolute.
    """
    choose = f"choose another {flag}"
    try:
        nearest = _nearest(folder)
        limits = [(name, os.pathconf(nearest, name)) for name in ("PC_NAME_MAX", "PC_PATH_MAX")]
    except OSError as error:
        raise ValueError(
            f"{error.filename or folder}: {(error.strerror or 'error').lower()}; {choose}"
        ) from None
    (_, longest_name), (_, longest_path) = limits
    for part in folder.parts:
        if len(os.fsencode(part)) > longest_name:
            raise ValueError(
                f"{part[:40]}… is a name of {len(os.fsencode(part))} bytes, the disk of {nearest} takes "
                f"{longest_name}; {choose}"
            )
    if (length := len(os.fsencode(folder)) + LONGEST_INSIDE) > longest_path:
        raise ValueError(
            f"{str(folder)[:40]}… is a path of {length - LONGEST_INSIDE} bytes; paths may have "
            f"{longest_path}, of which files inside need {LONGEST_INSIDE}; {choose}"
        )
    if not nearest.is_dir():
        raise ValueError(f"{nearest} is a file, where a folder is needed; remove it, or {choose}")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{nearest} cannot be written: {_why(nearest)}; {choose}")


def writable(folder: str | os.PathLike[str]) -> Path:
    """`as_typed`, checked by `check_writable`."""
    check_writable(resolved(folder, "folder"))
    return as_typed(folder, "folder")


def _nearest(path: Path) -> Path:
    """The path itself if there is something, otherwise the first of its parents where there is.

    Raises `OSError` for links that lead nowhere or in a circle, and for folders that may not be looked into.
    """
    for place in (path, *path.parents):
        try:
            place.stat()
        except FileNotFoundError:
            if place.is_symlink():
                raise FileNotFoundError(errno.ENOENT, "a link that leads nowhere", str(place)) from None
        except NotADirectoryError:
            pass  # a file further up, which is found there
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
        else:
            return place
    return Path(path.anchor)


def _why(folder: Path) -> str:
    """Why a folder cannot be written."""
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return "the disk is read-only"
    return f"no permission (mode {stat.filemode(folder.stat().st_mode)})"
