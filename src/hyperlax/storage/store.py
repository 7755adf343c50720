"""The folder of one experiment, written so that it stays readable whenever the process is killed."""

from __future__ import annotations

import errno
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from hyperlax.storage.files import write_atomically
from hyperlax.storage.places import as_typed, resolved
from hyperlax.storage.results import SCHEMAS, Results, empty
from hyperlax.typecheck import public

MANIFEST = "manifest.json"
CHECKPOINT = Path("checkpoint") / "state.bin"
CONFIRMATION = "confirmation"
"""Name of the subfolder for the confirmation of an experiment, which is an experiment itself."""
GROWING = ("curves", "episodes", "timeline", "lineage", "system")
"""Tables to which parts are added while the sweep runs; the small table `lanes` is rewritten instead."""


class Store:
    """Writer of one experiment's folder: `manifest.json`, samples, lanes, and parts of the growing tables.

    Appended rows are kept in memory until `flush`, which is called together with saving a checkpoint. The
    rows on disk therefore always match the checkpoint, and work that is repeated after a crash is recorded
    only once.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.parts = 0
        self._waiting: dict[str, list[dict[str, Any]]] = {name: [] for name in GROWING}

    def check(self) -> None:
        """Raise `FileNotFoundError` if the folder is not there any more, before a part of it is made anew."""
        if not (self.folder / MANIFEST).exists():
            raise FileNotFoundError(
                errno.ENOENT,
                "was removed or moved while the experiment ran; nothing more is saved",
                str(self.folder),
            )

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        write_atomically(self.folder / MANIFEST, json.dumps(manifest, indent=1, default=str) + "\n")

    def write_frame(self, frame: pl.DataFrame, name: str, **metadata: str) -> None:
        """Write `frame` as `<name>.parquet` below the folder, with `metadata` in the header of the file."""
        buffer = io.BytesIO()
        frame.write_parquet(buffer, metadata=metadata or None)
        write_atomically(self.folder / f"{name}.parquet", buffer.getvalue())

    def write_samples(self, samples: pl.DataFrame) -> None:
        self.write_frame(samples, "samples")
        write_atomically(self.folder / "samples.csv", samples.write_csv())

    def append(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        self._waiting[table].extend(dict(row) for row in rows)

    def flush(self, lanes: pl.DataFrame) -> None:
        """Write the rows appended since the last call as the next part of each table, and replace `lanes`."""
        self.parts += 1
        for table, rows in self._waiting.items():
            if rows:
                self.write_frame(pl.DataFrame(rows, schema=SCHEMAS[table]), f"parts/{table}-{self.parts:06d}")
                rows.clear()
        self.write_frame(lanes, "lanes")

    def discard_after(self, parts: int) -> None:
        """Remove every part after number `parts`, the last one included in the checkpoint."""
        for path in (self.folder / "parts").glob("*.parquet"):
            if _part(path) > parts:
                path.unlink()
        for table in GROWING:
            if _merged_parts(self.folder, table) > parts:
                (self.folder / f"{table}.parquet").unlink()
        self.parts = parts

    def forget(self, lanes: Sequence[int]) -> None:
        """Remove the curves and episodes of `lanes`, which start over from their first step."""
        for table in ("curves", "episodes"):
            whole = self.folder / f"{table}.parquet"
            for path in [*([whole] if whole.exists() else []), *_parts(self.folder, table)]:
                frame = pl.read_parquet(path, glob=False)
                kept = frame.filter(~pl.col("lane").is_in(list(lanes)))
                if len(kept) < len(frame):
                    name = path.relative_to(self.folder).with_suffix("")
                    merged = {"parts": str(_merged_parts(self.folder, table))} if path == whole else {}
                    self.write_frame(kept, str(name), **merged)

    def merge(self) -> None:
        """Join the parts of each growing table into one file; safe to interrupt at any point.

        The file stores the number of the last part it contains, so that parts that are still there are not
        read twice and later parts are added to it.
        """
        for table in GROWING:
            parts = _parts(self.folder, table)
            if parts and _part(parts[-1]) > _merged_parts(self.folder, table):
                self.write_frame(_table(self.folder, table), table, parts=str(_part(parts[-1])))
            for part in parts:
                part.unlink()
        parts_folder = self.folder / "parts"
        if parts_folder.exists() and not any(parts_folder.iterdir()):
            parts_folder.rmdir()


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of the experiment in `folder`, or None when the folder holds no experiment."""
    path = folder / MANIFEST
    return json.loads(path.read_text()) if path.exists() else None


@public
def read(folder: str | Path) -> Results:
    """Read the results in `folder`, even if the experiment is still running or was killed.

    Raises `FileNotFoundError` when the folder holds no experiment.
    """
    folder = resolved(folder, "folder")
    manifest = read_manifest(folder)
    if manifest is None:
        raise FileNotFoundError(f"{folder} holds no experiment: it has no {MANIFEST}")
    tables: dict[str, Any] = {name: _table(folder, name) for name in SCHEMAS}
    if read_manifest(folder / CONFIRMATION) is not None:
        tables["confirmation"] = read(folder / CONFIRMATION)
    if (folder / "trials.parquet").exists():
        tables["trials"] = pl.read_parquet(folder / "trials.parquet", glob=False)
    return Results(manifest, pl.read_parquet(folder / "samples.parquet", glob=False), folder=folder, **tables)


def find(root: str | Path) -> list[Path]:
    """The folders at or below `root` that hold an experiment, in order of their paths.

    Confirmations are left out, because they are read together with their experiments. Raises `ValueError`
    when there is no experiment.
    """
    root = as_typed(root, "folder")
    found = sorted(path.parent for path in root.rglob(MANIFEST))
    if not found:
        raise ValueError(f"no experiment found in {root}")
    return [f for f in found if f == root or f.name != CONFIRMATION or f.parent not in found]


def _table(folder: Path, name: str) -> pl.DataFrame:
    """All rows of table `name`: the merged file and the parts not merged yet; missing columns become null."""
    whole, merged = folder / f"{name}.parquet", _merged_parts(folder, name)
    parts = _parts(folder, name)
    files = [whole] * whole.exists() + [p for p in parts if _part(p) > merged]
    return pl.concat([empty(name), *(pl.read_parquet(f, glob=False) for f in files)], how="diagonal")


def _parts(folder: Path, table: str) -> list[Path]:
    """The files in `parts/` that belong to `table`, in the order in which they were written."""
    return sorted((folder / "parts").glob(f"{table}-*.parquet"), key=_part)


def _merged_parts(folder: Path, table: str) -> int:
    """The number of the last part contained in the merged file of `table`; 0 when there is no such file."""
    whole = folder / f"{table}.parquet"
    return int(pl.read_parquet_metadata(whole).get("parts", 0)) if whole.exists() else 0


def _part(path: Path) -> int:
    """The number of the part in `path`, from its name `<table>-<number>.parquet`; -1 for other names."""
    match = re.search(r"-(\d+)$", path.stem)
    return int(match.group(1)) if match else -1
