"""Writing a file so that a reader, or a crash, sees the old one or the new one; and where caches are."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: bytes | str) -> Path:
    """Temporary file beside `path`, fsync, rename, fsync of the folder; parent folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
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
    """The folder of an experiment below the output root: `<recipe>/<environment>`, safe as file names."""
    return Path(re.sub(r"[^A-Za-z0-9_.-]+", "_", Path(recipe).name)) / env.replace(":", ".")


def cache_folder() -> Path | None:
    """Where what can be made again is kept; `HYPERLAX_CACHE_DIR` moves it, and turns it off when empty."""
    chosen = os.environ.get("HYPERLAX_CACHE_DIR")
    if chosen is not None:
        return Path(chosen) if chosen else None
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hyperlax"
