"""Preparing the results of processes that share a search for merging, as if one process had trained them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import polars as pl

from hyperlax.cluster.sweep import Sweep, Unit
from hyperlax.storage.files import write_atomically
from hyperlax.storage.results import Results
from hyperlax.storage.store import Store


@dataclass(frozen=True)
class Files:
    """The names of the files of a search in its folder: those that only grow, and those made at the end."""

    grown: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()


Parts = Mapping[Unit, Results]
Headers = Mapping[Unit, dict[str, Any]]


def one_plan(parts: Parts, headers: Headers, planned: int) -> tuple[Parts, Headers]:
    """Return the results and checkpoint headers of all units, renumbered to one list of programs and samples.

    All processes begin with the same `planned` programs, and each may add some for trials that fit none of
    them. In the folder of a unit the place of a sample is its number; here it becomes its place among all.
    """
    rows = sorted((row for h in headers.values() for row in h["rows"] or ()), key=lambda row: row["sample"])
    place = {row["sample"]: n for n, row in enumerate(rows)}
    programs = [dict(p) for p in next(iter(headers.values()))["programs"][:planned]]
    numbers: dict[Unit, list[int]] = {}
    for unit, header in headers.items():
        added = header["programs"][planned:]
        numbers[unit] = [*range(planned), *range(len(programs), len(programs) + len(added))]
        programs += added
    ours = {unit: _renumbered(results, numbers[unit]) for unit, results in parts.items()}
    theirs = {}
    for unit, header in headers.items():
        own = dict(zip(numbers[unit], header["programs"], strict=True))
        listed = [{**own.get(n, p), "samples": _placed(own.get(n), place)} for n, p in enumerate(programs)]
        lanes = [{**lane, "program": numbers[unit][lane["program"]]} for lane in header["lanes"]]
        theirs[unit] = {**header, "rows": rows, "programs": listed, "lanes": lanes}
    return ours, theirs


def put(sweep: Sweep, cell: int, keeper: Store, samples: pl.DataFrame, parts: Parts) -> Files:
    """Put samples, trials and the best recipe of a search in the folder of its cell, with its journal."""
    from hyperlax.searches import OptunaSearch, outcome, studies

    spec = sweep.spec(cell)
    plan = cast(OptunaSearch, spec.schedule).search
    trials = max((r.trials for r in parts.values()), key=lambda t: t["state"].is_in(outcome.ENDED).sum())
    keeper.put("samples", samples)
    keeper.put("trials", trials)
    outcome.write(keeper.folder, trials, plan.objectives, spec.recipe, spec.base)
    listed = tuple(name for name in outcome.FILES if (keeper.folder / name).exists())
    if (study := sweep.study(cell)) is None:
        return Files((), listed)
    write_atomically(keeper.folder / studies.JOURNAL, study.read_bytes())
    return Files((studies.JOURNAL,), listed)


def _placed(program: Mapping[str, Any] | None, place: Mapping[int, int]) -> list[int]:
    """The places of the samples that a unit has trained in a program; None is one that it does not have."""
    return [] if program is None else [place[number] for number in program["samples"]]


def _renumbered(results: Results, numbers: list[int]) -> Results:
    """The results of a unit, with other numbers of programs."""
    if numbers == list(range(len(numbers))):
        return results
    new = dict(enumerate(numbers))
    frames = {
        name: getattr(results, name).with_columns(pl.col("program").replace(new))
        for name in ("lanes", "timeline")
    }
    timings = dict(results.manifest["timings"])
    timings["programs"] = [{**entry, "program": new[entry["program"]]} for entry in timings["programs"]]
    return replace(results, manifest={**results.manifest, "timings": timings}, **frames)
