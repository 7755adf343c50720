"""Verifying folders: whether every file of an experiment, or of all those below a folder, is intact."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hyperlax.storage import commits, reading
from hyperlax.storage.checkpoint import check_body
from hyperlax.storage.claims import claims
from hyperlax.storage.files import temporary_files
from hyperlax.storage.integrity import Damaged, read_json
from hyperlax.storage.places import as_typed
from hyperlax.storage.repairing import BENCHMARK, repairing
from hyperlax.storage.store import DAMAGED
from hyperlax.storage.wording import counted
from hyperlax.typecheck import public

JOURNAL = "study.journal"


@dataclass(frozen=True)
class Checked:
    """What was found in the folder of one experiment or benchmark.

    - `state`: complete, unfinished (a run that goes on or was killed), nothing begun, older version, or
      damaged.
    - `files`: the number of files that were compared with what was written to them.
    - `problems`: a line for every file that is not intact: what is wrong, and the way out.
    - `notes`: what is in the folder but does no harm, such as files of a process that was killed.
    - `command`: what to type to have right again what can be, or to continue; empty if nothing is damaged.
    """

    folder: Path
    state: str
    files: int
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    command: str = ""


@public
def check(folder: str | Path) -> list[Checked]:
    """Verify the experiment in `folder`, or the benchmark and all experiments below it.

    Reads every file, and changes none. Raises `FileNotFoundError` if there is nothing to verify.
    """
    root = as_typed(folder, "folder")
    found = [_benchmark(path.parent) for path in sorted(root.rglob(BENCHMARK))]
    for experiment in reading.below(root):
        found.append(_experiment(experiment))
        if reading.holds(experiment / reading.CONFIRMATION):
            found.append(_experiment(experiment / reading.CONFIRMATION))
    if not found:
        why = reading.unmerged(root)
        raise FileNotFoundError(f"nothing to check: {root} holds no experiment and no benchmark{why}")
    return found


def _benchmark(folder: Path) -> Checked:
    """Verify the record of a benchmark."""
    try:
        cells = recorded_cells(folder)
    except Damaged as error:
        return Checked(folder, "damaged", 1, (str(error),))
    left = sum(cell["status"] in ("waiting", "failed") for cell in cells.values())
    return Checked(folder, "unfinished" if left else "complete", 1, (), _left_over(folder, True))


def recorded_cells(folder: Path) -> dict[str, dict[str, Any]]:
    """Read how far the cells of the benchmark in `folder` are, by their folders below it.

    Raises `Damaged`, with the way out, for a record that does not say that.
    """
    file, way_out = folder / BENCHMARK, "remove it: --resume finds what is done in the cells"
    cells = read_json(file, way_out).get("cells") or {}
    if not isinstance(cells, dict) or not all(_inside(n) and _has_status(c) for n, c in cells.items()):
        raise Damaged(file, "is damaged: it does not say how far each cell is", way_out)
    return cells


def _inside(name: str) -> bool:
    """Whether the name of a folder leads nowhere but below another one."""
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def _has_status(cell: Any) -> bool:
    """Whether the entry of a cell in the record of a benchmark says how far it is."""
    return isinstance(cell, dict) and isinstance(cell.get("status"), str)


def _experiment(folder: Path) -> Checked:
    """Verify the files of an experiment."""
    try:
        manifest = reading.read_manifest(folder) or {}
        commit = commits.newest(folder, manifest)
    except ValueError as error:
        command = repairing(folder, _either_manifest(folder), (str(error),))
        return Checked(folder, "damaged", 1, (str(error),), command=command)
    complete = bool(manifest.get("complete"))
    problems = [*_copy(folder)] if "files" in manifest else []
    notes = _left_over(folder, complete)
    if "files" not in manifest:
        problems += _older(folder)
        state = "damaged" if problems else "nothing begun" if commit is None else "older version"
        return Checked(folder, state, 1, tuple(problems), notes)
    if commit is None:
        begun = commits.Commit(folder, "", (0, 0), {}, {}, commits.digests(manifest["files"]))
        problems += [f"{d}; {commits.remedy(d.file)}" for d in begun.problems() if d.file.exists()]
        state = "damaged" if problems else "nothing begun"
        return Checked(folder, state, 1 + len(manifest["files"]), tuple(problems), notes)
    for damage in commit.problems():
        way_out = commits.remedy(damage.file) if complete else reading.way_out(folder, commit, damage)
        problems.append(f"{damage}; {way_out}")
    problems += [
        f"{e}; the one after it is intact, --resume goes on from there" for e in _spare(folder, commit)
    ]
    problems += [*_body(folder, commit), *_study(folder, manifest)]
    state = "damaged" if problems else "complete" if complete else "unfinished"
    command = repairing(folder, manifest, problems)
    return Checked(folder, state, 2 + len(commit.files) + len(commit.grown), tuple(problems), notes, command)


def _either_manifest(folder: Path) -> dict[str, Any]:
    """The manifest or its copy, whichever can be read; empty if neither can."""
    for name in (reading.MANIFEST, reading.COPY):
        try:
            return read_json(folder / name)
        except (FileNotFoundError, Damaged):
            continue
    return {}


def _copy(folder: Path) -> Iterator[str]:
    """Verify the copy of the manifest."""
    way_out = f"copy {reading.MANIFEST} there"
    try:
        read_json(folder / reading.COPY, way_out)
    except FileNotFoundError:
        yield f"{folder / reading.COPY} is missing; {way_out}"
    except Damaged as error:
        yield str(error)


def _body(folder: Path, commit: commits.Commit) -> Iterator[str]:
    """Verify the checkpoint itself, whose header alone is known to be intact."""
    path = folder / commit.name
    if commit.name in commit.files:  # verified with the other files
        return
    try:
        check_body(path.read_bytes(), str(path))
    except (ValueError, FileNotFoundError) as error:
        others = [p for p in commits.saved(folder) if p != commit.place]
        yield f"{error}; {commits.way_out(folder, others)}"


def _spare(folder: Path, commit: commits.Commit) -> Iterator[ValueError]:
    """Verify the commit before the newest."""
    attempt, number = commit.place
    before = [p for p in commits.saved(folder) if p < commit.place][:1]
    if number > 1 and (attempt, number - 1) not in before:
        yield Damaged(folder / commits.state_name(attempt, number - 1), "is missing")
    for place in before:
        try:
            spare = commits.opened(folder, place)
            path = folder / spare.name
            check_body(path.read_bytes(), str(path))
        except ValueError as error:
            yield error
        else:
            known = {**commit.files, **commit.grown}
            yield from (d for d in spare.problems() if d.file.relative_to(folder).as_posix() not in known)


def _study(folder: Path, manifest: dict[str, Any]) -> Iterator[str]:
    """Verify the study of a search as far as it is a file: every line of a journal, the pages of SQLite."""
    path = folder / JOURNAL
    if path.exists():
        for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
            try:
                json.loads(line)
            except ValueError:
                if line.endswith(b"\n"):
                    yield f"{path} is damaged in line {number}; restore it from a backup, or search again"
    url = str((manifest.get("search") or {}).get("storage") or "")
    database = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:///") and database.is_file():
        try:
            with sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True) as connection:
                said = connection.execute("pragma integrity_check").fetchone()[0]
        except sqlite3.Error as error:
            said = str(error)
        if said != "ok":
            yield f"{database} is damaged: {said.splitlines()[0]}; restore it from a backup, or search again"


def _older(folder: Path) -> list[str]:
    """Read what an older version wrote, which has no digests."""
    try:
        reading.read(folder)
        if (path := folder / commits.CHECKPOINT).exists():
            check_body(path.read_bytes(), str(path))
        for path in sorted(folder.glob("policies/*.policy")):
            check_body(path.read_bytes(), str(path))
    except (ValueError, FileNotFoundError) as error:
        return [str(error)]
    return []


def _left_over(folder: Path, complete: bool) -> tuple[str, ...]:
    """Say what a process that was killed has left."""
    files = [
        p for p in temporary_files(folder) if p.parent in (folder, folder / "parts", folder / "checkpoint")
    ]
    if complete:
        files += [p for pattern in ("parts/*", "checkpoint/state-*.bin") for p in folder.glob(pattern)]
        files += [path for _, path in claims(folder / "checkpoint")]
    number = counted(len(files), "file")
    said = [f"{number} of a process that was killed, which --resume removes"] if files else []
    if (aside := folder / DAMAGED).is_dir():
        number = counted(len(list(aside.iterdir())), "damaged file")
        said.append(f"{number} in {DAMAGED}/, which nothing needs any more")
    return tuple(said)
