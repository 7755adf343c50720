"""The saved states of a run: which files belong together, which state is the newest, which are intact.

A checkpoint is a commit: its header lists every file that belongs to it, with length and digest. Every
attempt to run an experiment writes only files with its own number in their names, so that nobody ever
changes a file that another process relies on. While a run is open, the newest checkpoint is the truth; once
it is complete, the manifest is, which then lists the files itself.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import polars as pl

from hyperlax.hyperparams.parquet import TooLarge, read_parquet
from hyperlax.storage.checkpoint import read_header_of
from hyperlax.storage.claims import noted
from hyperlax.storage.integrity import Damaged, Digest, beginning_problem, problem, verified
from hyperlax.storage.memory import host_memory
from hyperlax.storage.results import SCHEMAS, empty

CHECKPOINT = Path("checkpoint") / "state.bin"
"""The checkpoint of a complete run; those of a run that goes on have numbers (`state_name`)."""
GROWING = ("curves", "episodes", "timeline", "lineage", "system")
"""Tables to which parts are added while the sweep runs; the others are written again at every commit."""
OF_PROCESSES = ("timeline", "system")
"""Growing tables whose rows say how processes ran; what is lost of them cannot be measured again."""
REPLACED = ("lanes", "samples", "trials")
"""Tables that are written again at every commit; `samples` only if samples are added during the run."""
MEND = "--resume --retrain-damaged"
"""The flags with which a command trains again what the damaged files of its folder held."""
NONE_LEFT = "no other checkpoint is left"
ELSEWHERE = "train again, in another folder"
START_AGAIN = f"it cannot be made again from the other files: {ELSEWHERE}"
OUTCOMES = ("best_recipe.py", "best_params.json", "pareto_front.json")
"""What a search writes from its trials whenever it ends."""

_COPY = "--resume restores it from its copy, if there is one"
_POLICY = re.compile(r"lane-(\d+)\.policy")
_STATE = re.compile(r"state-(\d+)-(\d+)\.bin")
_OLD_PART = re.compile(r"([a-z]+)-(\d+)\.parquet")


@dataclass(frozen=True)
class Commit:
    """A saved state of the run in `folder`, with the names of its files relative to that.

    - `name`: the checkpoint; empty for hand-made folders, which have none.
    - `place`: the attempt and the number of the commit in it, by which commits are ordered; (0, 0) if it is
      the state of a complete run.
    - `header`: the header of the checkpoint.
    - `tables`: table → its files, in the order of their rows.
    - `files`: file → length and digest; empty for folders of older versions, which do not have them.
    - `grown`: the same for the beginning of files that only grow.
    """

    folder: Path
    name: str
    place: tuple[int, int]
    header: Mapping[str, Any]
    tables: Mapping[str, Sequence[str]]
    files: Mapping[str, Digest] = field(default_factory=dict)
    grown: Mapping[str, Digest] = field(default_factory=dict)

    def content(self, name: str) -> bytes:
        """The contents of one of the files; raises `Damaged` if they are not what was written."""
        try:
            return verified(self.folder / name, self.files.get(name))
        except FileNotFoundError:
            raise Damaged(self.folder / name, "is missing") from None

    def frame(self, name: str) -> pl.DataFrame:
        """The table in one of the files; raises `Damaged` if it is not what was written."""
        return parquet(self.content(name), self.folder / name)

    def table(self, table: str) -> pl.DataFrame:
        """All rows of a table; columns that an older version did not have are null."""
        frames = [self.frame(name) for name in self.tables.get(table, ())]
        start = [empty(table)] if table in SCHEMAS else []
        return pl.concat([*start, *frames], how="diagonal") if start or frames else pl.DataFrame()

    def problems(self) -> Iterator[Damaged]:
        """What is wrong with the files of the commit, one error for each that is not intact."""
        for expected, look in ((self.files, problem), (self.grown, beginning_problem)):
            for name, digest in expected.items():
                try:
                    what = look((self.folder / name).read_bytes(), digest)
                except FileNotFoundError:
                    what = "is missing"
                if what is not None:
                    yield Damaged(self.folder / name, what)

    @property
    def env_steps(self) -> int:
        """Environment steps of all lanes together."""
        return sum(int(lane.get("env_steps") or 0) for lane in self.header.get("lanes", ()))


def parquet(content: bytes, path: Path) -> pl.DataFrame:
    """Read a table from the contents of the file `path`; raises `Damaged` if they are none."""
    try:
        return read_parquet(content, lambda: host_memory().left // 2)
    except TooLarge as error:
        raise Damaged(path, str(error)) from None
    except ValueError as error:
        raise Damaged(path, f"is damaged: it is not a table ({error})") from None


def state_name(attempt: int, number: int) -> str:
    """The checkpoint that is commit `number` of an attempt."""
    return f"checkpoint/state-{attempt:06d}-{number:06d}.bin"


def part_name(table: str, attempt: int, number: int) -> str:
    """The file that commit `number` of an attempt adds to a table."""
    return f"parts/{table}-{attempt:06d}-{number:06d}.parquet"


def own_files(folder: Path) -> dict[Path, int]:
    """The parts, numbered checkpoints and policies in a folder, with the number of the inode of each.

    A file that has been replaced has another inode.
    """
    patterns = ("parts/*-*.parquet", "checkpoint/state-*.bin", "policies/lane-*.policy")
    paths = [path for pattern in patterns for path in folder.glob(pattern)]
    return {path: path.stat().st_ino for path in paths if path.exists()}


def attempt_of(name: str) -> int:
    """The number of the attempt that a checkpoint or part belongs to, by its name; 0 in older versions."""
    found = re.fullmatch(r".*-(\d+)-\d+\.(?:bin|parquet)", name)
    return int(found.group(1)) if found else 0


def saved(folder: Path) -> list[tuple[int, int]]:
    """The places of the commits in a folder, newest first, intact or not."""
    inside = folder / CHECKPOINT.parent
    found = [_STATE.fullmatch(name) for name in (os.listdir(inside) if inside.is_dir() else ())]
    return sorted(((int(m.group(1)), int(m.group(2))) for m in found if m), reverse=True)


def announced(folder: Path) -> list[tuple[int, int]]:
    """The places of `saved`, and before them that of a newer commit that a claim tells of, if it was lost."""
    told = _noted(folder)  # before looking, because a commit is noted when it is there
    places = saved(folder)
    return [told, *places] if told > max(places, default=(0, 0)) else places


def opened(folder: Path, place: tuple[int, int]) -> Commit:
    """Read the header of a commit; raises `Damaged` if it is not intact."""
    name = state_name(*place)
    header = _header(folder / name)
    try:
        own = header["commit"]
        tables = {table: [_inside(n) for n in names] for table, names in own["tables"].items()}
        files, grown = digests(own["files"]), digests(own["grown"])
        found = Commit(folder, name, place, header, tables, files, grown)
        if (own["attempt"], own["number"]) != place or found.env_steps < 0:
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Damaged(folder / name, "is damaged: its header does not describe a commit") from None
    return found


def newest(folder: Path, manifest: Mapping[str, Any]) -> Commit | None:
    """The state that the tables of an experiment are read from; None if nothing has been saved yet.

    Raises `Damaged`, with the way out, if that state has lost its checkpoint.
    """
    if manifest.get("complete"):
        return complete(folder, manifest)
    places = announced(folder)
    if not places:
        return None if "files" in manifest else older(folder)
    try:
        return opened(folder, places[0])
    except Damaged as error:
        raise Damaged(error.file, error.what, way_out(folder, places[1:])) from None


def way_out(folder: Path, places: Sequence[tuple[int, int]]) -> str:
    """Say what to do after the loss of a commit, in view of the `places` of the others."""
    for commit in intact(folder, places):
        return f"--resume continues from the checkpoint before, at {commit.env_steps:,} env steps"
    return f"{NONE_LEFT}: {ELSEWHERE}"


def remedy(path: Path) -> str:
    """Say what to do about a damaged file of a run that is complete, or of samples that do not change."""
    if replaced(path):
        return "the command that made the folder writes it again with --resume"
    if (lane := lane_of(path)) is not None:
        return f"the agent of lane {lane} is lost: {MEND} trains that lane again"
    if path.stem.partition("-")[0] in OF_PROCESSES:
        return f"{MEND} goes on without it: what it says of earlier work cannot be measured again"
    if mendable(path):
        return f"{MEND} trains every lane again whose results were in it"
    if path.name == CHECKPOINT.name:
        return f"results can still be read and drawn; to go on from them {ELSEWHERE}"
    if path.suffix == ".journal":
        return "restore it from a backup, or search again, in another folder"
    return START_AGAIN


def mendable(path: Path) -> bool:
    """Whether what was in a damaged file can be had again by training lanes again, or done without."""
    return lane_of(path) is not None or path.stem.partition("-")[0] in GROWING


def lane_of(path: PurePath) -> int | None:
    """The lane whose agent is in this file; None for other files."""
    found = _POLICY.fullmatch(path.name)
    return int(found.group(1)) if found else None


def replaced(path: Path) -> bool:
    """Whether a file is written again by every command that resumes the run."""
    return path.stem.partition("-")[0] in REPLACED or path.name in OUTCOMES


def rewritten(path: Path) -> bool:
    """Whether a file of a run that is not complete is written again by its next commit.

    Those of trials are not among them: they are written from the study of the search.
    """
    return replaced(path) and path.stem.partition("-")[0] != "trials"


def intact(folder: Path, places: Sequence[tuple[int, int]]) -> Iterator[Commit]:
    """The commits at `places` whose files are all as they were written, in that order."""
    for place in places:
        try:
            commit = opened(folder, place)
        except Damaged:
            continue
        if not any(commit.problems()):
            yield commit


def complete(folder: Path, manifest: Mapping[str, Any]) -> Commit:
    """The state of a complete run, whose files the manifest lists."""
    try:
        files, grown = digests(manifest["files"]), digests(manifest.get("grown", {}))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Damaged(folder / "manifest.json", "is damaged: it has no valid list of files", _COPY) from None
    tables = {t: [f"{t}.parquet"] for t in (*GROWING, *REPLACED) if f"{t}.parquet" in files}
    return Commit(folder, CHECKPOINT.as_posix(), (0, 0), {}, tables, files, grown)


def older(folder: Path) -> Commit | None:
    """The state in a folder that an older version wrote, without digests; None if it has no tables.

    There, the parts that belong to the checkpoint are those up to a number in its header, and a merged table
    holds those up to a number in its own.
    """
    path = folder / CHECKPOINT
    header = _header(path) if path.exists() else {}
    last = header.get("parts")
    tables: dict[str, list[str]] = {}
    for table in (*GROWING, *REPLACED):
        whole, merged = folder / f"{table}.parquet", 0
        if whole.exists():
            merged = _merged(whole)
            if last is None or merged <= last:
                tables[table] = [whole.name]
        names = sorted((folder / "parts").glob(f"{table}-*.parquet"), key=_old_part)
        numbered = [
            f"parts/{p.name}"
            for p in names
            if merged < _old_part(p) and (last is None or _old_part(p) <= last)
        ]
        if numbered or table in tables:
            tables[table] = [*tables.get(table, ()), *numbered]
    return Commit(folder, CHECKPOINT.as_posix() if header else "", (0, 0), header, tables) if tables else None


def _noted(folder: Path) -> tuple[int, int]:
    """The place of the newest commit that a claim tells of; (0, 0) if none does."""
    told = {attempt: claim.get("commits") for attempt, claim in noted(folder / CHECKPOINT.parent).items()}
    return max(((a, n) for a, n in told.items() if isinstance(n, int)), default=(0, 0))


def _header(path: Path) -> dict[str, Any]:
    try:
        return read_header_of(path)
    except FileNotFoundError:
        raise Damaged(path, "is missing") from None
    except ValueError as error:
        raise Damaged(path, str(error).removeprefix(f"{path} ")) from None


def digests(entries: Mapping[str, Any]) -> dict[str, Digest]:
    """The digests in a header or manifest, where they are pairs; raises `ValueError` for anything else."""
    found = {_inside(name): Digest(*pair) for name, pair in entries.items()}
    if not all(type(d.length) is int and isinstance(d.sha256, str) for d in found.values()):
        raise ValueError("a digest is a length and a text")
    return found


def _inside(name: str) -> str:
    """`name`, which must be that of a file in the folder; raises `ValueError` for any other."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{name} is not inside of the folder")
    return name


def _merged(whole: Path) -> int:
    """The number of the last part that a merged table of an older version holds."""
    try:
        return int(pl.read_parquet_metadata(io.BytesIO(whole.read_bytes())).get("parts", 0))
    except (Exception, pl.exceptions.PanicException) as error:
        raise Damaged(whole, f"is damaged: it is not a table ({str(error).splitlines()[0][:200]})") from None


def _old_part(path: Path) -> int:
    """The number of a part of an older version; -1 for files that are none."""
    found = _OLD_PART.fullmatch(path.name)
    return int(found.group(2)) if found else -1
