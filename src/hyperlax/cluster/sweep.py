"""A sweep for many processes: its experiments, how each is planned, and the units into which they are cut.

`sweep.json` is written once, before anything is trained. Every process builds its experiment from it again,
checks that it is the same one, and trains it by the stored plan. So it does not show in the results which
process trained which lane.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from hyperlax import schedules, sweeps
from hyperlax.experiments import experiment as experiments
from hyperlax.experiments.execution import Execution
from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.machine import git_commit, versions
from hyperlax.experiments.shape import shape, shape_difference
from hyperlax.programs.plan import Program
from hyperlax.registry import sources
from hyperlax.storage.integrity import Damaged, create_json, read_json
from hyperlax.storage.places import PLAN
from hyperlax.storage.reading import UNITS
from hyperlax.studies import suites
from hyperlax.studies.suites import MODES

SHAPE = Path(UNITS) / "shape.json"
"""The kind of device and the compiler of the first unit that began; all others must have the same."""
FORMAT = 1


@dataclass(frozen=True)
class Cell:
    """An experiment of a sweep.

    - `path`: its folder, relative to that of the sweep.
    - `mode`: how it is run (`studies.suites.MODES`).
    - `arguments`: its recipe and environment, and if it is of no suite all other arguments of
      `sweeps.prepare`, JSON-ready.
    - `scheduler`: the name and the options of its schedule; None to train every lane to its end.
    - `identity`: what `Experiment.identity` was when the sweep was planned.
    - `manifest`: the manifest that its folder gets.
    - `programs`: its plan, as `Program.describe` describes it.
    """

    path: str
    mode: str
    arguments: dict[str, Any]
    scheduler: tuple[str, dict[str, Any]] | None
    identity: dict[str, Any]
    manifest: dict[str, Any]
    programs: list[dict[str, Any]]

    def plan(self) -> list[Program]:
        """The programs that all of its samples were planned for."""
        return [Program.restored(about) for about in self.programs]

    @property
    def sequential(self) -> bool:
        """Whether its lanes train one at a time."""
        return MODES[self.mode].sequential


@dataclass(frozen=True)
class Unit:
    """The work of one process at a time: some samples of one program of a cell, with all their seeds.

    - `name`: the name of its folder.
    - `cell`: the number of the cell.
    - `samples`: the places of its samples; None for the whole cell, if its lanes depend on one another.
    - `worker`: which of the processes it is that share the study of a search; None for other units.
    - `lanes`, `env_steps`: how much there is to train.
    - `seconds`: the predicted time on one device, at least.
    """

    name: str
    cell: int
    samples: tuple[int, ...] | None
    lanes: int
    env_steps: int
    seconds: float
    worker: int | None = None

    @property
    def whole(self) -> bool:
        """Whether it trains its whole cell, in the folder of the cell."""
        return self.samples is None and self.worker is None


@dataclass(frozen=True)
class Sweep:
    """A planned sweep in the folder `root`.

    - `asked`: the arguments it was planned from, to compare with those given later.
    - `platform`: cpu or gpu.
    - `execution`: fields of `Execution` that hold for all units.
    - `cells`, `units`: what there is to train, and how it is divided.
    - `slurm`: the resources that its tasks request (`slurm.Options`); None if it runs on one machine.
    """

    root: Path
    name: str
    asked: dict[str, Any]
    platform: str
    execution: dict[str, Any]
    cells: tuple[Cell, ...]
    units: tuple[Unit, ...]
    slurm: dict[str, Any] | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def _by_cell(self) -> dict[int, list[Unit]]:
        found: dict[int, list[Unit]] = {}
        for unit in self.units:
            found.setdefault(unit.cell, []).append(unit)
        return found

    @cached_property
    def _by_name(self) -> dict[str, Unit]:
        return {unit.name: unit for unit in self.units}

    def unit(self, name: str) -> Unit:
        """The unit called `name`; raises `ValueError` if there is none."""
        if name not in self._by_name:
            raise ValueError(
                f"{self.root} has no unit {name}; hyperlax status {self.root} --units shows them"
            )
        return self._by_name[name]

    def units_of(self, cell: int) -> list[Unit]:
        """The units of a cell."""
        return list(self._by_cell.get(cell, ()))

    def study(self, cell: int) -> Path | None:
        """The journal of the study that the units of a cell share; None if there is none here."""
        shared = any(unit.worker is not None for unit in self.units_of(cell))
        if not shared or self.cells[cell].arguments.get("storage"):
            return None
        return self.root / UNITS / f"c{cell:03d}.journal"

    def spec(self, number: int, merged: bool = False) -> Experiment:
        """Build the experiment of a cell again; raise `ValueError` if it differs from the planned one.

        A search that several processes share uses their common study, unless their units are `merged`.
        """
        cell, study = self.cells[number], None if merged else self.study(number)
        own = {} if study is None else {"storage": str(study)}
        if "suite" in self.asked:
            suite, of = suites.restored(self.asked["suite"]), suites.Cell(**cell.arguments, mode=cell.mode)
            metric, settings = self.execution.get("metric"), self.asked["settings"]
            spec = suites.prepare(suite, of, metric, **settings, **own)
        elif cell.mode == "optuna":
            spec = _search({**cell.arguments, **own})
        else:
            schedule = schedules.load(*cell.scheduler) if cell.scheduler else None
            spec = sweeps.prepare(**cell.arguments, schedule=schedule)
        if differing := experiments.difference(cell.identity, spec.identity()):
            raise ValueError(
                f"{cell.path} is another experiment here than when it was planned, because of other code, "
                "files or versions:\n  " + "\n  ".join(differing)
            )
        return spec

    def records(self, unit: Unit) -> Path:
        """The folder with the records of a unit."""
        return self.root / UNITS / unit.name

    def folder(self, unit: Unit) -> Path:
        """The folder of the experiment that a unit trains; that of the cell itself if it trains all of it."""
        return self.root / self.cells[unit.cell].path if unit.whole else self.records(unit) / "run"

    def how(self, **more: Any) -> Execution:
        """How to run a unit."""
        return Execution(**self.execution, **more)

    def write(self) -> None:
        """Write the sweep; raise `ValueError` if another process has just done so."""
        content = {
            "format": FORMAT,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            "git_commit": git_commit(),
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in _NOT_STORED},
            "cells": [dataclasses.asdict(cell) for cell in self.cells],
            "units": [dataclasses.asdict(unit) for unit in self.units],
        }
        if not create_json(self.root / PLAN, content):
            raise ValueError(
                f"another process has just planned a sweep in {self.root}; continue it with --resume"
            )

    def check_device(self) -> None:
        """Raise `ValueError` unless this process has the same shape as the first process of the sweep."""
        here = shape()
        if create_json(self.root / SHAPE, here) or self.execution.get("any_device"):
            return
        if differing := shape_difference(read_json(self.root / SHAPE), here):
            raise ValueError(
                f"the units of {self.root} would not be bit for bit equal here:\n  "
                + "\n  ".join(differing)
                + "\nsend them to equal devices only, with --constraint; or plan with --any-device"
            )


def _search(arguments: Mapping[str, Any]) -> Experiment:
    """The experiment of a search."""
    from hyperlax import searches  # imported late, because importing Optuna takes a second

    return searches.prepare(**arguments)


_NOT_STORED = ("root", "about", "cells", "units")


def read(root: Path) -> Sweep | None:
    """The sweep that was planned in the folder `root`; None if there is none.

    Raises `Damaged` if its file is not as it was written.
    """
    way_out = f"restore it from a backup: without it the units in {root / UNITS} cannot be continued"
    try:
        content = read_json(root / PLAN, way_out)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        if content["format"] != FORMAT:
            raise ValueError(f"{root / PLAN} has format {content['format']}, this version reads {FORMAT}")
        cells = tuple(
            Cell(**{**_known(Cell, about), "scheduler": _pair(about["scheduler"])})
            for about in content["cells"]
        )
        units = tuple(
            Unit(**{**_known(Unit, about), "samples": _places(about["samples"])})
            for about in content["units"]
        )
        stored = {name: content[name] for name in ("name", "asked", "platform", "execution", "slurm")}
        if outside := [n for n in (*(c.path for c in cells), *(u.name for u in units)) if not _is_below(n)]:
            raise Damaged(root / PLAN, f"is damaged: {outside[0]!r} is not a folder in it", way_out)
    except KeyError as error:
        raise Damaged(root / PLAN, f"is damaged: {error} is missing", way_out) from None
    except (TypeError, AttributeError) as error:
        raise Damaged(root / PLAN, f"is damaged: {error}", way_out) from None
    about = {name: content.get(name) for name in ("created", "versions", "git_commit")}
    return Sweep(root, cells=cells, units=units, about=about, **stored)


def needed(root: Path) -> Sweep:
    """The sweep in the folder `root`; raises `FileNotFoundError`, with the fix, if there is none."""
    if (found := read(root)) is None:
        raise FileNotFoundError(
            f"{root} holds no {PLAN}: plan units with --executor local --tasks N, or --executor slurm"
        )
    return found


def difference(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Describe how the arguments given now differ from those a sweep was planned from, one per line."""
    asked = json.loads(json.dumps(asked, default=str))
    code = [(given.get("experiment") or {}).get(experiments.CODE) for given in (stored, asked)]
    stored, asked = _without_code(stored), _without_code(asked)
    differing = [
        f"{k}: {stored.get(k)!r} in the folder, {asked.get(k)!r} asked for"
        for k in sorted({*stored, *asked})
        if stored.get(k) != asked.get(k)
    ]
    return differing + sources.refusal(*code)


def _without_code(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a sweep without the digests of code, which are compared one by one."""
    described = given.get("experiment")
    if not described:
        return dict(given)
    return {**given, "experiment": {k: v for k, v in described.items() if k != experiments.CODE}}


def _is_below(name: str) -> bool:
    """Whether the relative path `name` stays inside the folder that it starts from."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _known(kind: type[Cell] | type[Unit], about: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a cell or unit; raises `KeyError` if one is missing, `TypeError` if one is unknown."""
    names = {f.name: f.default is dataclasses.MISSING for f in dataclasses.fields(kind)}
    if missing := [name for name, needed in names.items() if needed and name not in about]:
        raise KeyError(missing[0])
    if unknown := sorted(about.keys() - names.keys()):
        raise TypeError(
            f"it has {unknown[0]!r} in a {kind.__name__.lower()}, which this version does not know"
        )
    return dict(about)


def _pair(value: Any) -> tuple[str, dict[str, Any]] | None:
    return None if value is None else (value[0], value[1])


def _places(value: Any) -> tuple[int, ...] | None:
    return None if value is None else tuple(value)
