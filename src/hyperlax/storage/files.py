"""Atomic writing of files, the folders of experiments, and the location of the cache."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from hyperlax import leaving
from hyperlax.registry import short_name


def write_atomically(path: Path, content: bytes | str) -> Path:
    """Write `content` so that a reader, or a crash, finds either the old file or the new one; return `path`.

    A temporary file in the same folder is written, synced to disk and renamed. Missing parent folders are
    created.
    """
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
    return Path(folder) / f"{Path(head).name.replace(':', '.')}{bracket}{inside}"


def cache_folder() -> Path | None:
    """The folder of files that can be regenerated, such as compiled programs; None when caching is off.

    The environment variable `HYPERLAX_CACHE_DIR` chooses another folder, or turns caching off when empty.
    """
    chosen = os.environ.get("HYPERLAX_CACHE_DIR")
    if chosen is not None:
        return Path(chosen) if chosen else None
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hyperlax"
