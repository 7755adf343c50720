"""The folder of one experiment, written so that it stays readable whenever the process is killed."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from hyperlax import leaving
from hyperlax.storage import commits
from hyperlax.storage.behind import Unsettled, write_states
from hyperlax.storage.checkpoint import with_header
from hyperlax.storage.claims import Claim
from hyperlax.storage.commits import CHECKPOINT, GROWING, Commit, own_files, part_name, state_name
from hyperlax.storage.files import clear_temporary, write_atomically
from hyperlax.storage.integrity import Digest, create_json, write_json
from hyperlax.storage.reading import (
    CONFIRMATION,
    COPY,
    MANIFEST,
    find,
    holds,
    intact_manifest,
    nothing_begun,
    read,
    read_manifest,
    read_samples,
    recovered_manifest,
)
from hyperlax.storage.restoring import LANE_TABLES, Restored, restored
from hyperlax.storage.results import SCHEMAS, parquet, sample_files

__all__ = [
    "CHECKPOINT",
    "CONFIRMATION",
    "GROWING",
    "MANIFEST",
    "REPORT",
    "Store",
    "find",
    "holds",
    "nothing_begun",
    "read",
    "read_manifest",
    "read_samples",
    "recovered_manifest",
]

REPORT = "report.html"
"""The name of the report in the folder of an experiment."""

_OWN = ("complete", "files", "grown")
"""Entries of the manifest that the store makes: whether the run is complete, and what is in the folder."""
DAMAGED = "damaged"
"""The subfolder for damaged files whose contents have been trained again."""


class Store:
    """Writer of one experiment's folder: `manifest.json`, samples, checkpoints, and the tables of the run.

    Rows and tables are kept in memory until `commit`, which writes them together with a checkpoint that
    lists them. What is on disk therefore always fits together, and work that is repeated after a crash is
    recorded only once. The last two commits are kept. `complete` replaces all of this with one file per
    table, listed in the manifest. Until then a process owns the folder by its claim (`claims.py`); `commit`
    and `complete` raise `Superseded` when another process has taken over.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.claim: Claim | None = None
        self.record: dict[str, Any] = {}
        self.notes: list[str] = []
        self.last: Commit | None = None
        self.spare: Commit | None = None
        self._waiting: dict[str, list[dict[str, Any]]] = {name: [] for name in GROWING}
        self._next: dict[str, pl.DataFrame] = {}
        self._start: dict[str, pl.DataFrame] = {}
        self._aside: list[Path] = []
        self._unsettled: Unsettled | None = None

    # Beginning

    def begin(self, manifest: Mapping[str, Any], samples: pl.DataFrame | None) -> None:
        """Start a new experiment in the folder; of several processes that do so at once, one succeeds.

        `samples`: the table of samples, unless these are added during the run.
        Raises `ValueError` if an experiment has been started there.
        """
        contents = {} if samples is None else sample_files(samples)
        self.record = {"complete": False, "files": {n: Digest.of(c) for n, c in contents.items()}}
        if not create_json(self.folder / MANIFEST, {**manifest, **self.record}):
            raise ValueError(
                f"another process has just started an experiment in {self.folder}; wait for it, or choose "
                "another folder"
            )
        write_json(self.folder / COPY, {**manifest, **self.record})
        self.take()
        for name, content in contents.items():
            write_atomically(self.folder / name, content)

    def take(self, samples: pl.DataFrame | None = None) -> None:
        """Claim the folder, which holds an experiment: from now on other processes that write to it leave.

        `samples`, unless they are added during the run, are written where they are not intact.
        """
        used = max((attempt for attempt, _ in commits.saved(self.folder)), default=0)
        parts = (commits.attempt_of(p.name) for p in (self.folder / "parts").glob("*.parquet"))
        self.claim = Claim(self.folder / CHECKPOINT.parent, self.folder, max([used, *parts]))
        leaving.from_now_on(leaving.RESUMABLE)
        if not self.record:
            stored = recovered_manifest(self.folder) or {}
            self.record = {k: stored[k] for k in _OWN if k in stored}
            if "files" in self.record:
                self.record["files"] = {n: Digest(*d) for n, d in self.record["files"].items()}
            if not intact_manifest(self.folder):
                write_json(self.folder / MANIFEST, stored)
        if samples is not None:
            self.write_samples(samples)

    def withdraw(self) -> None:
        """Give up the claim, having committed nothing."""
        if self.claim is not None:
            self.claim.path.unlink(missing_ok=True)
            self.claim = None

    def own(self) -> None:
        """Raise `Superseded` if another process has claimed the folder since `take`.

        Raises `FileNotFoundError` if what has been saved there is gone, before a part of it is made anew.
        """
        if self.claim is not None:
            if not (self.folder / MANIFEST).exists():
                raise _removed(self.folder)
            self.claim.check()
            parts = [self.folder / name for name in (self.last.files if self.last is not None else ())]
            lost = next((path for path in parts if not path.exists()), None)
            if lost is not None and self.claim.path.exists():
                raise _removed(lost)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace the manifest and its copy."""
        self.own()
        content = {**{k: v for k, v in manifest.items() if k not in _OWN}, **self.record}
        if self.claim is not None:
            write_json(self.folder / COPY, content)
        write_json(self.folder / MANIFEST, content)

    def write_frame(self, frame: pl.DataFrame, name: str) -> None:
        """Write `frame` as `<name>.parquet` below the folder."""
        write_atomically(self.folder / f"{name}.parquet", parquet(frame))

    def write_samples(self, samples: pl.DataFrame) -> None:
        """Write the table of samples, in both formats, where it is not intact."""
        listed = self.record.get("files", {})
        for name, content in sample_files(samples).items():
            path, right = self.folder / name, listed.get(name, Digest.of(content))
            if path.exists() and Digest.of(path.read_bytes()) == right:
                continue
            write_atomically(path, content)
            if right != Digest.of(content):  # written by another version of polars
                listed[name] = Digest.of(content)
                self.write_manifest(recovered_manifest(self.folder) or {})

    # Continuing

    def restore(self, mend: bool = False) -> Restored | None:
        """Return the state from which to go on, which is the newest that is intact, or None.

        With `mend` it may be what is left of a damaged one (`restoring.restored`). `notes` then say what was
        damaged, and the first commit moves these files to the subfolder `damaged`.
        Raises `ValueError` if there is none to go on from.
        """
        found = restored(self.folder, self.record, mend)
        if found is None:
            return None
        self.last, self._aside = found.commit, list(found.damaged)
        self.notes += found.notes
        if self.last.place == (0, 0) or found.damaged:  # tables that are written again in one piece
            self._start = {t: self.last.table(t) for t in GROWING if t in self.last.tables}
        return found

    @property
    def mending(self) -> bool:
        """Whether the next commit is the first after damage."""
        return bool(self._aside)

    def forget(self, lanes: Collection[int], policies: Sequence[str] = ()) -> None:
        """Leave the rows of `lanes`, which start over, and their `policies` out of the next commit."""
        self.settle()
        if self.last is None or not lanes:
            return
        for table in (*LANE_TABLES, "lineage"):
            frame = self._start[table] if table in self._start else self.last.table(table)
            if frame.height:
                self._start[table] = frame.filter(~pl.col("lane").is_in(list(lanes)))
        files = {name: digest for name, digest in self.last.files.items() if name not in policies}
        self.last = replace(self.last, files=files)

    # Recording

    def append(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows to one of the growing tables."""
        self._waiting[table].extend(dict(row) for row in rows)

    def put(self, table: str, frame: pl.DataFrame) -> None:
        """Replace one of the tables that do not grow: lanes, samples (if they are added) or trials."""
        self.settle()
        self._next[table] = frame

    def commit(
        self,
        states: Any,
        header: Mapping[str, Any],
        policies: Sequence[str] = (),
        grown: Sequence[str] = (),
        behind: bool = False,
    ) -> None:
        """Write what has been added since the last commit, then a checkpoint to which it belongs.

        - `states`, `header`: what to continue from, as for `checkpoint.pack`.
        - `policies`: the names of the files of agents that belong to it; others are removed.
        - `grown`: the names of files that are only added to, whose present contents belong to it.
        - `behind`: return before a large checkpoint is written; it counts from `settle` on.
        """
        assert self.claim is not None, "only the owner of a folder commits to it"
        self.settle()
        self.own()
        attempt = self.claim.attempt
        number = 1 + (self.last.place[1] if self.last is not None and self.last.place[0] == attempt else 0)
        tables, files = self._parts(attempt, number)
        known = self.last.files if self.last is not None else {}
        for name in policies:
            files[name] = known.get(name) or Digest.of((self.folder / name).read_bytes())
        if "samples" not in tables:
            files |= _constant(self.record)
        lengths = {name: Digest.of((self.folder / name).read_bytes()) for name in grown}
        own = {"attempt": attempt, "number": number, "tables": tables, "files": files, "grown": lengths}
        name = state_name(attempt, number)
        new = Commit(self.folder, name, (attempt, number), {**header}, tables, files, lengths)
        rows, present = {t: len(waiting) for t, waiting in self._waiting.items()}, own_files(self.folder)
        written = write_states(self.folder / name, states, {**header, "commit": own}, behind)
        self._unsettled = Unsettled(new, rows, present, written, late=not written.done())
        self.settle(wait=not behind)

    def settle(self, wait: bool = True) -> bool:
        """Let the commit count that is being written, if there is one; without `wait`, if it is written.

        Returns whether none is being written. Raises what writing it has raised; its rows then wait again.
        """
        if (new := self._unsettled) is None or not (wait or new.written.done()):
            return new is None
        assert self.claim is not None
        try:
            new.written.result()
        finally:  # a second Ctrl-C ends the waiting, not the writing
            self._unsettled = None if new.written.done() else new
        if new.late:
            self.own()
        self.last, self.spare = new.commit, None if self._aside else self.last
        self._start, self._next = {}, {}
        for table, count in new.rows.items():
            del self._waiting[table][:count]
        self.claim.note(commits=self.last.place[1], env_steps=self.last.env_steps)
        if self.record.get("complete") or "complete" not in self.record:
            self._reopen()
        self._set_aside()
        self._clean(new.present)
        return True

    def _set_aside(self) -> None:
        """Move damaged files, which nothing refers to any more, to the subfolder `damaged`."""
        for path in (p for p in self._aside if p.exists()):
            target = self.folder / DAMAGED / path.name
            target.parent.mkdir(exist_ok=True)
            os.replace(path, target)
        self._aside = []

    def _parts(self, attempt: int, number: int) -> tuple[dict[str, list[str]], dict[str, Digest]]:
        """Write the parts of the next commit; return the files of every table, and their digests."""
        before = self.last if self.last is not None and self.last.place != (0, 0) else None
        tables = {t: list(n) for t, n in before.tables.items()} if before is not None else {}
        files = dict(before.files) if before is not None else {}
        fresh = dict(self._next)
        for table, rows in self._waiting.items():
            new = [pl.DataFrame(rows, schema=SCHEMAS[table])] if rows else []
            if table in self._start:
                fresh[table] = pl.concat([self._start[table], *new], how="diagonal")
                tables.pop(table, None)
            elif new:
                fresh[table] = new[0]
        for table, frame in fresh.items():
            content, name = parquet(frame), part_name(table, attempt, number)
            write_atomically(self.folder / name, content)
            files[name] = Digest.of(content)
            tables[table] = [*(tables.get(table, []) if table in GROWING else []), name]
        used = {name for names in tables.values() for name in names}
        return tables, {name: digest for name, digest in files.items() if name in used}

    def _reopen(self) -> None:
        """Say in the manifest that the run goes on: from now on its commits are what counts."""
        manifest = recovered_manifest(self.folder) or {}
        assert self.last is not None
        self.record = {
            "complete": False,
            "files": {} if "samples" in self.last.tables else _constant(self.record),
        }
        self.write_manifest(manifest)

    def _clean(self, present: Mapping[Path, int]) -> None:
        """Remove those of the files `present` that belong to neither of the last two commits.

        Files that have been replaced since stay (`own_files`), and so do those of later attempts.
        """
        assert self.claim is not None
        kept = [c for c in (self.last, self.spare) if c is not None]
        names = {
            name for c in kept for name in (c.name, *c.files, *(n for t in c.tables.values() for n in t))
        }
        for path, _ in sorted(present.items() & own_files(self.folder).items()):
            name = path.relative_to(self.folder).as_posix()
            if name not in names and commits.attempt_of(name) <= self.claim.attempt:
                path.unlink(missing_ok=True)
        self.claim.remove(own=False)
        if self.last is not None and self.last.place[1] == 1:
            clear_temporary(self.folder)

    # Ending

    def complete(self, manifest: dict[str, Any]) -> None:
        """Replace the parts and commits by one file per table and a manifest that lists all of them.

        The order makes it safe to interrupt: until the manifest is written the last commit counts, and after
        it the manifest; only then are the parts and commits removed. `manifest` gets the list.
        """
        assert self.claim is not None
        self.settle()
        assert self.last is not None, "what is complete has been committed"
        last, contents = self.last, {}
        for table in last.tables:
            frame = last.table(table)
            if table in (*LANE_TABLES, "lineage"):  # in an order that does not depend on interruptions
                frame = frame.sort("lane", maintain_order=True)
            contents |= sample_files(frame) if table == "samples" else {f"{table}.parquet": parquet(frame)}
        state = (self.folder / last.name).read_bytes()
        contents[CHECKPOINT.as_posix()] = with_header(
            state, {name: value for name, value in last.header.items() if name != "commit"}
        )
        for name, content in contents.items():
            self.own()
            write_atomically(self.folder / name, content)
        files = {n: d for n, d in last.files.items() if not n.startswith("parts/")}
        files |= {name: Digest.of(content) for name, content in contents.items()}
        self.record = {"complete": True, "files": files, "grown": dict(last.grown)}
        self.write_manifest(manifest)
        manifest |= self.record
        self.last = self.spare = None
        if not self.claim.superseded():
            self._clear()

    def _clear(self) -> None:
        """Remove what the manifest of a complete run does not list: commits, parts and claims, in order."""
        assert self.claim is not None
        files, attempt = self.record["files"], self.claim.attempt
        rubbish = [p for p in own_files(self.folder) if p.relative_to(self.folder).as_posix() not in files]
        for path in sorted(rubbish, key=lambda p: (p.suffix != ".bin", p.name)):
            if commits.attempt_of(path.name) <= attempt:
                path.unlink(missing_ok=True)
        for table in GROWING:
            if f"{table}.parquet" not in files:
                (self.folder / f"{table}.parquet").unlink(missing_ok=True)
        clear_temporary(self.folder)
        for name in ("parts", "policies"):
            if (self.folder / name).is_dir() and not any((self.folder / name).iterdir()):
                (self.folder / name).rmdir()
        self.claim.remove(own=True)

    def list_files(self, names: Sequence[str]) -> None:
        """Add files that were made from a complete run to the list in its manifest."""
        manifest = recovered_manifest(self.folder) or {}
        if not manifest.get("complete"):
            return
        added = {name: Digest.of((self.folder / name).read_bytes()) for name in names}
        manifest["files"] = {**manifest["files"], **added}
        write_json(self.folder / COPY, manifest)
        write_json(self.folder / MANIFEST, manifest)


def _removed(path: Path) -> FileNotFoundError:
    why = "was removed or moved while the experiment ran; nothing more is saved"
    return FileNotFoundError(errno.ENOENT, why, str(path))


def _constant(record: Mapping[str, Any]) -> dict[str, Digest]:
    """The listed files of samples, which do not change during a run that adds none."""
    return {n: d for n, d in record.get("files", {}).items() if n.startswith("samples.")}
