"""One experiment's folder: written so that killing the process at any instant leaves it readable."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from hyperlax.storage.files import write_atomically
from hyperlax.storage.results import SCHEMAS, Results, empty

MANIFEST = "manifest.json"
CHECKPOINT = Path("checkpoint") / "state.bin"
CONFIRMATION = "confirmation"
"""Where an experiment's folder keeps its confirmation, an experiment of its own."""
GROWING = ("curves", "episodes", "timeline", "lineage", "system")
"""Tables appended part by part while the sweep runs; `lanes` is small and rewritten whole."""


class Store:
    """Writes one experiment: `manifest.json`, samples, lanes, and parts of the growing tables.

    Rows wait in memory until `flush`, which is called together with a checkpoint: what is on disk and the
    state to continue from always belong together, so work that is redone after a crash is recorded once.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.parts = 0
        self._waiting: dict[str, list[dict[str, Any]]] = {name: [] for name in GROWING}

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        write_atomically(self.folder / MANIFEST, json.dumps(manifest, indent=1, default=str) + "\n")

    def write_frame(self, frame: pl.DataFrame, name: str, **metadata: str) -> None:
        """`frame` as `<name>.parquet`."""
        buffer = io.BytesIO()
        frame.write_parquet(buffer, metadata=metadata or None)
        write_atomically(self.folder / f"{name}.parquet", buffer.getvalue())

    def write_samples(self, samples: pl.DataFrame) -> None:
        self.write_frame(samples, "samples")
        write_atomically(self.folder / "samples.csv", samples.write_csv())

    def append(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        self._waiting[table].extend(dict(row) for row in rows)

    def flush(self, lanes: pl.DataFrame) -> None:
        """Makes everything appended so far durable, as the next part of each table."""
        self.parts += 1
        for table, rows in self._waiting.items():
            if rows:
                self.write_frame(pl.DataFrame(rows, schema=SCHEMAS[table]), f"parts/{table}-{self.parts:06d}")
                rows.clear()
        self.write_frame(lanes, "lanes")

    def discard_after(self, parts: int) -> None:
        """Removes parts written after the checkpoint that counts `parts`: their work is done again."""
        for path in (self.folder / "parts").glob("*.parquet"):
            if _part(path) > parts:
                path.unlink()
        for table in GROWING:
            if _merged_parts(self.folder, table) > parts:
                (self.folder / f"{table}.parquet").unlink()
        self.parts = parts

    def forget(self, lanes: Sequence[int]) -> None:
        """Removes what was measured of `lanes`, which begin anew."""
        for table in ("curves", "episodes"):
            whole = self.folder / f"{table}.parquet"
            for path in [*([whole] if whole.exists() else []), *_parts(self.folder, table)]:
                frame = pl.read_parquet(path)
                kept = frame.filter(~pl.col("lane").is_in(list(lanes)))
                if len(kept) < len(frame):
                    name = path.relative_to(self.folder).with_suffix("")
                    merged = {"parts": str(_merged_parts(self.folder, table))} if path == whole else {}
                    self.write_frame(kept, str(name), **merged)

    def merge(self) -> None:
        """Joins the parts of each growing table into one file; interrupted at any point, nothing is lost.

        The file notes the last part it holds, so parts that are still there, or come later, count once.
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
    """The manifest of the experiment in `folder`, None when there is none."""
    path = folder / MANIFEST
    return json.loads(path.read_text()) if path.exists() else None


def read(folder: str | Path) -> Results:
    """The results in `folder`, also of an experiment that is still running or was killed.

    Raises `FileNotFoundError` when the folder holds no experiment.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest is None:
        raise FileNotFoundError(f"{folder} holds no experiment: it has no {MANIFEST}")
    tables: dict[str, Any] = {name: _table(folder, name) for name in SCHEMAS}
    if read_manifest(folder / CONFIRMATION) is not None:
        tables["confirmation"] = read(folder / CONFIRMATION)
    if (folder / "trials.parquet").exists():
        tables["trials"] = pl.read_parquet(folder / "trials.parquet")
    return Results(manifest, pl.read_parquet(folder / "samples.parquet"), folder=folder, **tables)


def find(root: str | Path) -> list[Path]:
    """The folders at or below `root` that hold an experiment; a confirmation is part of its experiment's.

    Raises `ValueError` when there is none.
    """
    root = Path(root)
    found = sorted(path.parent for path in root.rglob(MANIFEST))
    if not found:
        raise ValueError(f"no experiment found in {root}")
    return [f for f in found if f == root or f.name != CONFIRMATION or f.parent not in found]


def _table(folder: Path, name: str) -> pl.DataFrame:
    """What has been merged into one file, and the parts that have not; null where a column is missing."""
    whole, merged = folder / f"{name}.parquet", _merged_parts(folder, name)
    parts = _parts(folder, name)
    files = [whole] * whole.exists() + [p for p in parts if _part(p) > merged]
    return pl.concat([empty(name), *(pl.read_parquet(f) for f in files)], how="diagonal")


def _parts(folder: Path, table: str) -> list[Path]:
    """The parts of `table` that have not been deleted, in order."""
    return sorted((folder / "parts").glob(f"{table}-*.parquet"), key=_part)


def _merged_parts(folder: Path, table: str) -> int:
    """The last part that the file of `table` holds; 0 when there is no such file."""
    whole = folder / f"{table}.parquet"
    return int(pl.read_parquet_metadata(whole).get("parts", 0)) if whole.exists() else 0


def _part(path: Path) -> int:
    match = re.search(r"-(\d+)$", path.stem)
    return int(match.group(1)) if match else -1
