"""Reading the folders of experiments, running, killed or complete, and never silently wrong."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from hyperlax.storage import calling, commits
from hyperlax.storage.commits import Commit
from hyperlax.storage.files import is_temporary
from hyperlax.storage.integrity import Damaged, Digest, read_json, verified
from hyperlax.storage.manifest import misfit
from hyperlax.storage.places import as_typed
from hyperlax.storage.restoring import none_left
from hyperlax.storage.results import SCHEMAS, Results, empty
from hyperlax.typecheck import public

log = logging.getLogger("hyperlax")

MANIFEST = "manifest.json"
COPY = Path("checkpoint") / "manifest-copy.json"
"""A second copy of the manifest, from which `--resume` restores a damaged one."""
UNITS = ".units"
"""The folder in that of a sweep with one subfolder for each unit."""
CONFIRMATION = "confirmation"
"""Name of the subfolder for the confirmation of an experiment, which is an experiment itself."""

_START_UP = re.compile(
    r"hyperlax\.log|(checkpoint|\.claims)/claim-\d+\.json|sweep\.json|(\.units|submissions|logs)/.*"
)
"""Files left by a process that was killed before it had begun anything, or that has only planned a sweep."""
_TRIES, _PAUSE = 5, 0.05
"""How often to read a folder whose files change meanwhile, and seconds between."""


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of the experiment in `folder`, or None when the folder holds no experiment.

    Raises `Damaged` when the manifest is not as it was written, or has been lost.
    """
    copy = folder / COPY
    restore = f"--resume restores it from {COPY}" if copy.exists() else "restore it from a backup"
    try:
        manifest = read_json(folder / MANIFEST, restore)
    except FileNotFoundError:
        if copy.exists() or commits.saved(folder):
            raise Damaged(folder / MANIFEST, "is missing", restore) from None
        return None
    except (NotADirectoryError, IsADirectoryError):
        return None
    if (wrong := misfit(manifest)) is not None:
        raise Damaged(folder / MANIFEST, wrong, restore)
    return manifest


def holds(folder: Path) -> bool:
    """Whether a folder holds an experiment, even if it has lost its manifest."""
    return (folder / MANIFEST).exists() or (folder / COPY).exists() or bool(commits.saved(folder))


def unbegun(folder: Path) -> bool:
    """Whether an experiment was killed before it had written its samples or a checkpoint."""
    manifest = read_manifest(folder) or {}
    waits = "files" in manifest and not manifest.get("complete") and not commits.announced(folder)
    return waits and not (folder / "samples.parquet").exists()


def recovered_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of the experiment in `folder`, from its copy if it is damaged, which is announced."""
    try:
        return read_manifest(folder)
    except Damaged as error:
        if not (folder / COPY).exists():
            raise
        way_out = f"{MANIFEST} {error.what} as well: restore one from a backup"
        copy = read_json(folder / COPY, way_out)
        if (wrong := misfit(copy)) is not None:
            raise Damaged(folder / COPY, wrong, way_out) from None
        log.warning("%s %s; going on with its copy", error.file, error.what)
        return copy


def nothing_begun(folder: Path) -> bool:
    """Whether a folder holds nothing but what a process killed at its start leaves behind."""
    if not folder.is_dir():
        return not folder.exists()
    files = (path for path in folder.rglob("*") if not path.is_dir())
    return all(
        _START_UP.fullmatch(path.relative_to(folder).as_posix()) or is_temporary(path) for path in files
    )


@public
def read(folder: str | Path) -> Results:
    """Read the results in `folder`, even if the experiment is still running or was killed.

    The tables are those of the newest checkpoint; they are empty if there is none yet.

    Raises `FileNotFoundError` when the folder holds no experiment, and `ValueError` when a file is damaged or
    missing, with the file and the way out.
    """
    folder = as_typed(folder, "folder")
    seen = None
    for _ in range(_TRIES):
        before, seen = seen, _version(folder)
        try:
            return _read(folder)
        except Damaged:
            if seen == before:  # it was not a writer that has just replaced the file
                raise
            time.sleep(_PAUSE)
    return _read(folder)


def intact_manifest(folder: Path) -> bool:
    """Whether the folder has a manifest that can be read."""
    try:
        return read_manifest(folder) is not None
    except Damaged:
        return False


def read_samples(folder: Path, manifest: Mapping[str, Any]) -> pl.DataFrame:
    """The samples of the experiment with this manifest, without its other tables; raises as `read` does."""
    return _samples(folder, manifest, commits.newest(folder, manifest))


def find(root: str | Path) -> list[Path]:
    """The folders at or below `root` that hold an experiment, in order of their paths.

    Confirmations are left out, because they are read together with their experiments, and so are hidden
    folders, in which the units of a sweep are until they are merged. A folder that has lost
    its manifest counts, so that nobody overlooks it. Raises `ValueError` when there is no experiment.
    """
    root = as_typed(root, "folder")
    if not (found := below(root)):
        raise ValueError(f"no experiment found in {root}{unmerged(root)}")
    return found


def below(root: Path) -> list[Path]:
    """The folders that `find` finds; none if there is no experiment."""
    found = {f for f in _experiments(root) if not any(p.startswith(".") for p in f.relative_to(root).parts)}
    return sorted(f for f in found if f == root or f.name != CONFIRMATION or f.parent not in found)


def unmerged(root: Path) -> str:
    """The end of a message that says which sweep below `root` has units to merge; empty if none has."""
    places = (parent for folder in _experiments(root) for parent in folder.relative_to(root).parents)
    sweeps = sorted((root / place).parent for place in places if place.name == UNITS)
    if not sweeps:
        return ""
    merge = calling.line("merge", sweeps[0].absolute())
    return f": the units of {sweeps[0]} are not merged yet; once they are trained, merge them with: {merge}"


def _experiments(root: Path) -> set[Path]:
    """All folders at or below `root` that hold an experiment, hidden ones too."""
    return {path.parent for path in root.rglob(MANIFEST)} | {p.parent.parent for p in root.rglob(COPY.name)}


def _read(folder: Path) -> Results:
    manifest = read_manifest(folder)
    if manifest is None:
        raise FileNotFoundError(f"{folder} holds no experiment: it has no {MANIFEST}")
    commit = commits.newest(folder, manifest)
    # First what a run that goes on removes after two more commits: the others have many parts, which stay.
    samples, tables = _samples(folder, manifest, commit), dict[str, Any]()
    if commit is not None and "trials" in commit.tables:
        tables["trials"] = _table(folder, commit, "trials")
    for name in sorted(SCHEMAS, key=commits.GROWING.__contains__):
        tables[name] = _table(folder, commit, name)
    if holds(confirmation := folder / CONFIRMATION):
        tables["confirmation"] = read(confirmation)
    return Results(manifest, samples, folder=folder, **tables)


def _table(folder: Path, commit: Commit | None, name: str) -> pl.DataFrame:
    """All rows of a table; raises `Damaged` with the way out."""
    if commit is None:
        return empty(name)
    try:
        return commit.table(name)
    except Damaged as error:
        raise Damaged(error.file, error.what, way_out(folder, commit, error)) from None


def way_out(folder: Path, commit: Commit, error: Damaged) -> str:
    """Say what to do about a damaged file of a commit."""
    if commit.place == (0, 0):  # an older version, which lists no files, is not mended
        return commits.remedy(error.file) if commit.files else commits.START_AGAIN
    others = [place for place in commits.saved(folder) if place != commit.place]
    if not any(commits.intact(folder, others)):
        if commits.rewritten(error.file):
            return commits.remedy(error.file)
        if commits.mendable(error.file):
            return none_left(commit, [error.file])
    return commits.way_out(folder, others)


def _samples(folder: Path, manifest: Mapping[str, Any], commit: Commit | None) -> pl.DataFrame:
    """The table of samples; empty if the process was killed before it was written."""
    if commit is not None and "samples" in commit.tables:
        return _table(folder, commit, "samples")
    path, listed = folder / "samples.parquet", manifest.get("files", {}).get("samples.parquet")
    remedy = commits.remedy(path)
    try:
        return commits.parquet(verified(path, None if listed is None else Digest(*listed), remedy), path)
    except FileNotFoundError:
        if commit is not None:
            raise Damaged(path, "is missing", remedy) from None
        return pl.DataFrame(schema={"sample": pl.Int64})


def _version(folder: Path) -> tuple[Any, ...]:
    """A value that changes when a writer replaces files of the folder."""
    try:
        manifest = (folder / MANIFEST).read_bytes()
    except OSError:
        manifest = b""
    return manifest, commits.saved(folder)[:1]
