"""Atomic writing of files, the folders of experiments, and the location of the cache."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path

from hyperlax import leaving
from hyperlax.registry import short_name
from hyperlax.storage.patience import waiting_for_room

LONGEST_NAME = 200
"""Bytes of the name of a folder that is called after what the user has typed; disks take 255 or less."""


@waiting_for_room
def write_atomically(path: Path, content: bytes | str) -> Path:
    """Write `content` so that a reader, or a crash, finds either the old file or the new one; return `path`.

    A temporary file in the same folder is written, synced to disk and renamed. Missing parent folders are
    created. Waits for room on a full disk where that is wanted (`patience.patient`).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file, leaving.unfinished(temporary):
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
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
