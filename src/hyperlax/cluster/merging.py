"""Merging units into the folder of their cell: tables and policies as from one process, bit for bit."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl

from hyperlax.cluster import mending, records, shared
from hyperlax.cluster.sweep import Sweep, Unit
from hyperlax.run.best import BEST_POLICIES, policy_name, preference
from hyperlax.storage import commits, store
from hyperlax.storage.checkpoint import read_header_of
from hyperlax.storage.claims import Claim
from hyperlax.storage.files import clear_temporary, write_atomically
from hyperlax.storage.integrity import Damaged
from hyperlax.storage.reading import UNITS
from hyperlax.storage.results import Results
from hyperlax.storage.store import Store

ONE_PER_LANE = ("lanes", "curves", "episodes", "lineage")
"""Tables whose rows belong to lanes."""
OF_PROCESSES = ("timeline", "system")
"""Tables whose rows belong to the process that trained a unit, which a further column names."""
MERGED = "merged"
"""The name of the folder of a unit while it is removed."""


def mergeable(sweep: Sweep, cell: int) -> bool:
    """Whether all units of a cell are trained, but merging them has not finished."""
    return _is_trained(sweep, cell) and not is_merged(sweep, cell)


def builds(sweep: Sweep) -> bool:
    """Whether merging builds an experiment again, with the code that it names: that of a shared search."""
    searched = {unit.cell for unit in sweep.units if unit.worker is not None}
    return any(not is_merged(sweep, cell) for cell in searched)


def merge_all(sweep: Sweep, told: Callable[[Path], object] = lambda _: None) -> None:
    """Merge every cell whose units are all trained; `told` is called with the folder of each.

    Once all cells are merged, files left behind by killed processes are removed. Damaged cells are reported
    by a `ValueError` after all others have been merged.
    """
    damaged = []
    for number in range(len(sweep.cells)):
        if mergeable(sweep, number):
            try:
                folder = merge(sweep, number)
            except ValueError as error:
                damaged.append(str(error))
            else:
                told(folder)
    if damaged:
        raise ValueError("\n".join(damaged))
    if all(is_merged(sweep, number) for number in range(len(sweep.cells))):
        for unit in sweep.units:
            shutil.rmtree(sweep.records(unit) / MERGED, ignore_errors=True)
        for claims in (sweep.root / UNITS).glob("merging-*"):
            shutil.rmtree(claims, ignore_errors=True)
        clear_temporary(sweep.root)


def is_merged(sweep: Sweep, cell: int) -> bool:
    """Whether the folder of a cell holds the results of all its units, and no unit is mending it."""
    first = sweep.units_of(cell)[0]
    if not first.whole and sweep.folder(first).exists():
        return False
    return records.is_whole(sweep, cell) and _is_trained(sweep, cell)


def _is_trained(sweep: Sweep, cell: int) -> bool:
    """Whether all units of a cell are trained."""
    return all(records.is_done(sweep, unit) for unit in sweep.units_of(cell))


def merge(sweep: Sweep, cell: int) -> Path:
    """Write the folder of a cell from the folders of its units, verify it, remove those, and return it.

    Merging may be interrupted at any moment and repeated: the folders of the units stay until that of the
    cell is complete. The folder of the first unit is removed last, by a single rename, which marks the end.
    Raises `ValueError` if a unit is not trained or its files are damaged, with the command that retrains what
    was in them, and `Superseded` if another process has begun to merge the same cell.
    """
    target, units = sweep.root / sweep.cells[cell].path, sweep.units_of(cell)
    if waiting := [unit.name for unit in units if not records.is_done(sweep, unit)]:
        raise ValueError(
            f"{target} cannot be merged yet: {len(waiting)} units are not trained, {waiting[0]} first"
        )
    parts = [unit for unit in units if not unit.whole]
    claim = Claim(sweep.root / UNITS / f"merging-c{cell:03d}", target)
    try:
        removing = records.is_whole(sweep, cell) and not all(sweep.folder(unit).exists() for unit in parts)
        if parts and not removing:
            mending.refuse(sweep, cell)
            _write(sweep, cell, target, {unit: store.read(sweep.folder(unit)) for unit in parts})
        mending.refuse_merged(sweep, cell)
        for unit in reversed(parts):
            claim.check()
            if unit is parts[0] and (study := sweep.study(cell)) is not None:
                study.unlink(missing_ok=True)
            _remove(sweep, unit)
    except (OSError, ValueError):
        claim.check()  # what is missing may be what the other process has removed
        raise
    finally:
        claim.remove(own=True)
    return target


def _remove(sweep: Sweep, unit: Unit) -> None:
    """Remove the folder of a unit, renaming it first so that no process sees it half removed."""
    over = sweep.records(unit) / MERGED
    shutil.rmtree(over, ignore_errors=True)
    with suppress(FileNotFoundError):  # it is removed already
        sweep.folder(unit).rename(over)
    shutil.rmtree(over, ignore_errors=True)


def _write(sweep: Sweep, cell: int, target: Path, parts: Mapping[Unit, Results]) -> None:
    """Write the folder of a cell, and remove an earlier report from it."""
    (target / store.REPORT).unlink(missing_ok=True)
    headers = {unit: _header(sweep.folder(unit)) for unit in parts}
    searched = any(unit.worker is not None for unit in parts)
    if searched:
        parts, headers = shared.one_plan(parts, headers, len(sweep.cells[cell].programs))
    manifest, samples = _manifest(sweep, cell, parts, headers), _samples(parts)
    keeper = Store(target)
    if store.holds(target):
        keeper.take(None if searched else samples)
    else:
        keeper.begin(manifest, None if searched else samples)
    for table, frame in tables(parts).items():
        if frame.height or table == "lanes":
            keeper.put(table, frame)
    files = shared.put(sweep, cell, keeper, samples, parts) if searched else shared.Files()
    found = [(float(score), int(lane)) for header in headers.values() for score, lane in header["best"]]
    kept = sorted(found, key=preference)
    if sweep.execution.get("save_policies", "best") == "best":
        kept = kept[-BEST_POLICIES:]
    _copy_policies(sweep, target, headers, [lane for _, lane in kept])
    keeper.commit([], _joined(headers, kept), [policy_name(lane) for _, lane in kept], files.grown)
    keeper.complete(manifest)
    keeper.list_files(files.listed)


def _samples(parts: Mapping[Unit, Results]) -> pl.DataFrame:
    """The samples of all units together, in the order in which they were drawn."""
    if any(unit.worker is not None for unit in parts):
        drawn = [results.samples for results in parts.values()]
        return pl.concat(drawn, how="diagonal_relaxed").sort("sample")
    placed = [
        results.samples.with_columns(_place=pl.Series(sorted(unit.samples or ()), dtype=pl.Int64))
        for unit, results in parts.items()
    ]
    return pl.concat(placed, how="vertical_relaxed").sort("_place").drop("_place")


def tables(parts: Mapping[Unit, Results]) -> dict[str, pl.DataFrame]:
    """The tables of all units together, in order of the lanes."""
    joined = {
        name: pl.concat([getattr(results, name) for results in parts.values()]).sort(
            "lane", maintain_order=True
        )
        for name in ONE_PER_LANE
    }
    for name in OF_PROCESSES:
        named = [getattr(r, name).with_columns(unit=pl.lit(unit.name)) for unit, r in parts.items()]
        joined[name] = pl.concat(named)
    return joined


def _header(folder: Path) -> dict[str, Any]:
    """The header of the checkpoint of a unit that is trained."""
    try:
        return read_header_of(folder / commits.CHECKPOINT)
    except FileNotFoundError:
        raise Damaged(folder / commits.CHECKPOINT, "is missing", commits.START_AGAIN) from None


def _joined(headers: Mapping[Unit, dict[str, Any]], kept: Sequence[tuple[float, int]]) -> dict[str, Any]:
    """The header of the checkpoint of the cell, which holds no states: all lanes are over."""
    first = next(iter(headers.values()))
    samples: dict[int, set[int]] = {}
    for header in headers.values():
        for number, program in enumerate(header["programs"]):
            samples.setdefault(number, set()).update(program["samples"])
    programs = [
        {**p, **_shape_of(headers, n), "samples": sorted(samples[n])} for n, p in enumerate(first["programs"])
    ]
    return {
        "elapsed": sum(h["elapsed"] for h in headers.values()),
        "lanes": sorted(
            (lane for h in headers.values() for lane in h["lanes"]), key=lambda lane: lane["lane"]
        ),
        "states": [],
        "replaced": {},
        "best": list(kept),
        "seating": {"clock": 0.0, "programs": []},
        "programs": programs,
        "rows": first["rows"],
        "schedule": first["schedule"],
        "last_return": {lane: value for h in headers.values() for lane, value in h["last_return"].items()},
    }


def _shape_of(headers: Mapping[Unit, dict[str, Any]], program: int) -> dict[str, int]:
    """How a program was executed, by the units that have run it."""
    found = [header["programs"][program].get("lanes_per_device", 0) for header in headers.values()]
    return {"lanes_per_device": max(found, default=0)}


def _copy_policies(
    sweep: Sweep, target: Path, headers: Mapping[Unit, dict[str, Any]], lanes: Sequence[int]
) -> None:
    """Copy the policies of `lanes`, each from the unit that has trained it."""
    owner = {int(lane): unit for unit, header in headers.items() for _, lane in header["best"]}
    for lane in lanes:
        name = policy_name(lane)
        write_atomically(target / name, (sweep.folder(owner[lane]) / name).read_bytes())


def _manifest(
    sweep: Sweep, cell: int, parts: Mapping[Unit, Results], headers: Mapping[Unit, dict[str, Any]]
) -> dict[str, Any]:
    """The manifest of the cell: the planned one, and what the units say of their execution."""
    timings = {unit: results.manifest["timings"] for unit, results in parts.items()}
    shapes: list[Any] = []
    for results in parts.values():
        shapes += [s for s in results.manifest.get("shapes", ()) if s not in shapes]
    planned, used = sweep.cells[cell].programs, next(iter(headers.values()))["programs"]
    plan = [
        {"program": n, **about, **_shape_of(headers, n)}
        for n, about in enumerate([*planned, *used[len(planned) :]])
    ]
    joined = lambda name: {k: v for t in timings.values() for k, v in t[name].items()}  # noqa: E731
    metric = sweep.execution.get("metric")
    return {
        **sweep.cells[cell].manifest,
        **({} if metric is None else {"metric": metric}),
        "plan": plan,
        "shapes": shapes,
        "timings": {
            "wall_seconds": round(sum(t["wall_seconds"] for t in timings.values()), 3),
            "compile_seconds": round(sum(t["compile_seconds"] for t in timings.values()), 3),
            "programs": [{**entry, "unit": u.name} for u, t in timings.items() for entry in t["programs"]],
            "errors": joined("errors"),
            "causes": joined("causes"),
        },
        "units": [
            {"unit": u.name, "lanes": u.lanes, "wall_seconds": t["wall_seconds"]} for u, t in timings.items()
        ],
    }
