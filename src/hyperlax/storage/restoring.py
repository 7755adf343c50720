"""The state that a run continues from: the newest intact one, or what is left of a damaged one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from hyperlax.storage import commits
from hyperlax.storage.checkpoint import check_body
from hyperlax.storage.commits import Commit
from hyperlax.storage.integrity import Damaged

LANE_TABLES = ("curves", "episodes")
"""Growing tables whose rows all belong to a lane that writes them as it trains."""


@dataclass(frozen=True)
class Restored:
    """A state to continue from.

    - `commit`: the state, without the files that are damaged.
    - `data`: the contents of its checkpoint, and `header` their header.
    - `notes`: what was damaged, and what is done about it.
    - `damaged`: the files that are not what was written to them, or are gone; without those that are written
      again anyway.
    - `lost`: the lanes of which some results were in these files.
    """

    commit: Commit
    data: bytes
    header: dict[str, Any]
    notes: tuple[str, ...] = ()
    damaged: tuple[Path, ...] = ()
    lost: frozenset[int] = frozenset()


def restored(folder: Path, record: Mapping[str, Any], mend: bool) -> Restored | None:
    """The state to continue from, for the folder of a run with the manifest `record`; None if there is none.

    If no state is intact, it is the newest with an intact checkpoint, without what is damaged, with `mend` or
    if that is only what the next commit writes again. Otherwise raises `ValueError` with the way out.
    """
    if record.get("complete"):
        return _of_complete(folder, record, mend)
    if "files" in record or commits.saved(folder):
        return _of_open(folder, mend)
    commit = commits.older(folder)
    return None if commit is None or not commit.name else _loaded(commit)


def lost_lanes(commit: Commit, damaged: Iterable[Path], lanes: Iterable[int]) -> frozenset[int]:
    """The lanes that have to be trained again where files of a commit are `damaged`.

    `lanes` are all that have begun. Which rows a part of a table held is told by the part of the other table
    that was written with it, as every evaluation of a lane adds to both.
    """
    names = {path.relative_to(commit.folder).as_posix() for path in damaged}
    everyone, lost = frozenset(lanes), set[int]()
    for name in names:
        table, _, place = PurePosixPath(name).stem.partition("-")
        if (lane := commits.lane_of(PurePosixPath(name))) is not None:
            lost.add(lane)
        elif table == "lineage":
            lost |= everyone
        elif table in LANE_TABLES:
            other = next(t for t in LANE_TABLES if t != table)
            beside = f"parts/{other}-{place}.parquet"
            told = bool(place) and beside in commit.files and beside not in names
            lost |= set(commit.frame(beside)["lane"].unique()) if told else everyone
    return frozenset(lost) & everyone


def begun(header: Mapping[str, Any]) -> list[int]:
    """The lanes that have been trained by the time of the checkpoint with this header."""
    lanes = header.get("lanes", ())
    return [lane["lane"] for lane in lanes if lane.get("env_steps") or lane.get("seconds")]


def none_left(commit: Commit, damaged: Iterable[Path]) -> str:
    """Say what to do about damaged files of the only commit that could be continued from."""
    lost = in_words(lost_lanes(commit, damaged, begun(commit.header)))
    return f"{commits.NONE_LEFT}: with {commits.MEND} {lost} trained again"


def _of_complete(folder: Path, record: Mapping[str, Any], mend: bool) -> Restored:
    """The state of a complete run."""
    commit = commits.complete(folder, record)
    problems = list(commit.problems())
    unable = [p for p in problems if not (mend and commits.mendable(p.file)) and not commits.replaced(p.file)]
    if unable:
        raise Damaged(unable[0].file, unable[0].what, commits.remedy(unable[0].file))
    return _mended(_loaded(commit), problems)


def _of_open(folder: Path, mend: bool) -> Restored | None:
    """The newest state that is intact, of a run that is not complete."""
    damage: ValueError | None = None
    torn: list[tuple[Restored, list[Damaged]]] = []
    for place in commits.announced(folder):
        try:
            found = _loaded(commits.opened(folder, place))
        except ValueError as error:
            damage = damage or error
            continue
        problems = list(found.commit.problems())
        if not problems:
            where = f"at {found.commit.env_steps:,} env steps"
            note = f"{damage}; going on from the checkpoint before, {where}"
            return replace(found, notes=(note,) if damage is not None else ())
        torn.append((found, problems))
        damage = damage or problems[0]
    for found, problems in torn:
        unable = [p for p in problems if not (commits.mendable(p.file) or commits.replaced(p.file))]
        lasting = [p for p in problems if not commits.rewritten(p.file)]
        if unable:
            damage = unable[0]
        elif mend or not lasting:
            return _mended(found, problems)
        else:
            raise Damaged(lasting[0].file, lasting[0].what, none_left(found.commit, _files(lasting)))
    if damage is not None:
        raise ValueError(f"{damage}; {commits.NONE_LEFT}: {commits.ELSEWHERE}")
    return None


def _files(problems: Iterable[Damaged]) -> list[Path]:
    return [problem.file for problem in problems]


def _loaded(commit: Commit) -> Restored:
    """A state with the contents of its checkpoint; raises `ValueError` if these are not intact."""
    path = commit.folder / commit.name
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise Damaged(path, "is missing", commits.remedy(path)) from None
    return Restored(commit, data, check_body(data, str(path)))


def _mended(found: Restored, problems: Sequence[Damaged]) -> Restored:
    """A state without the files that have `problems`, and with the lanes that are lost with them."""
    commit, damaged = found.commit, _files(problems)
    lost = lost_lanes(commit, damaged, begun(found.header))
    gone = {path.relative_to(commit.folder).as_posix() for path in damaged}
    tables = {t: [n for n in names if n not in gone] for t, names in commit.tables.items()}
    files = {name: digest for name, digest in commit.files.items() if name not in gone}
    notes = [f"{p}; {_done_about(p.file, lost)}" for p in problems]
    return replace(
        found,
        commit=replace(commit, tables={t: n for t, n in tables.items() if n}, files=files),
        notes=tuple(notes),
        damaged=tuple(path for path in damaged if not commits.replaced(path)),
        lost=lost,
    )


def _done_about(path: Path, lost: Collection[int]) -> str:
    """Say what is done about a damaged file, where the lanes `lost` are trained again."""
    if commits.replaced(path):
        return "it is written again"
    if path.stem.partition("-")[0] in commits.OF_PROCESSES:
        return "what it said of earlier work is lost"
    return f"{in_words(lost)} trained again"


def in_words(lanes: Collection[int]) -> str:
    """Some lanes as the subject of a sentence, with its verb: `lanes 0 to 5 and 7 are`."""
    spans: list[list[int]] = []
    for lane in sorted(lanes):
        if spans and lane == spans[-1][-1] + 1:
            spans[-1] = [spans[-1][0], lane]
        else:
            spans.append([lane])
    words = [" to ".join(map(str, span)) for span in spans]
    if len(lanes) < 2:
        return f"lane {words[0]} is" if words else "nothing is"
    return f"lanes {' and '.join(filter(None, [', '.join(words[:-1]), words[-1]]))} are"
