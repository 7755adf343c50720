"""Running a suite: every cell is an experiment in a folder of its own, and each can be resumed."""

from __future__ import annotations

import dataclasses
import datetime
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from hyperlax import leaving
from hyperlax.experiments.execution import Execution
from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.machine import git_commit, versions
from hyperlax.programs.plan import Machine, Program, plan
from hyperlax.registry import short_name
from hyperlax.report import write_report
from hyperlax.run.advice import advice, all_lost
from hyperlax.run.display import Display
from hyperlax.run.signals import Interrupted
from hyperlax.storage import store
from hyperlax.storage.checking import check
from hyperlax.storage.claims import Claim, Superseded
from hyperlax.storage.files import clear_temporary
from hyperlax.storage.integrity import Damaged, create_json, read_json, write_json
from hyperlax.storage.manifest import misfit
from hyperlax.storage.patience import patient
from hyperlax.storage.places import writable
from hyperlax.storage.repairing import BENCHMARK, CLAIMS
from hyperlax.storage.results import Results
from hyperlax.storage.shareable import shareable, shareable_command
from hyperlax.studies.prediction import Prediction, Predictor
from hyperlax.studies.suites import MODES, Cell, Suite, cells, prepare

log = logging.getLogger("hyperlax")

STATUSES = ("waiting", "done", "failed", "skipped")
"""The states of a cell; an interrupted cell stays waiting."""
FILE = BENCHMARK
_KINDS = {
    "identity": {"suite": {}, "settings": {}},
    "cells": {"*": {"status": str, "reason": (str, type(None)), "seconds": (int, float)}},
    "command": [str],
}
"""The entries of the record that are read again."""
WAY_OUT = "remove it: --resume then finds in the folders of the cells what is done"


class Benchmark:
    """A run of a suite in a folder, where `benchmark.json` records the state of every cell."""

    def __init__(
        self,
        suite: Suite,
        folder: Path,
        name: str,
        resume: bool,
        metric: str | None = None,
        **settings: Any,
    ):
        """Prepare all cells of `suite` without creating anything; `settings` apply to every cell.

        `metric` is the headline metric of the reports, and what searches optimise (None: the protocol's).

        Raises `ValueError` for an invalid suite or setting, when no cell can be run, when `folder` holds
        another benchmark or other files, and when `resume` does not agree with what the folder holds.
        """
        self.suite, self.folder, self.settings = suite, writable(folder), settings
        folder = self.folder
        self.cells = cells(suite)
        stored, begun = _read(folder), False
        about = {"suite": dataclasses.asdict(suite), "settings": settings}
        identity = shareable(json.loads(json.dumps(about)))
        if stored is None:
            begun = any(store.holds(folder / cell.path) for cell in self.cells)
            if resume and not (begun or (folder.exists() and store.nothing_begun(folder))):
                raise ValueError(f"nothing to resume: {folder} holds no benchmark")
            if not resume and begun:
                raise ValueError(
                    f"{folder} holds cells of this benchmark, but not its {FILE}; --resume makes it again"
                )
            if not resume and not store.nothing_begun(folder):
                raise ValueError(f"{folder} is not empty; choose another --output-root")
        elif differing := _difference(shareable(stored["identity"]), identity):
            raise ValueError(f"{folder} holds another benchmark:\n  " + "\n  ".join(differing))
        elif not resume:
            raise ValueError(f"{folder} already holds this benchmark; continue it with --resume")
        elif unknown := [c.name for c in self.cells if "status" not in stored["cells"].get(str(c.path), {})]:
            raise Damaged(folder / FILE, f"is damaged: it does not say how far {unknown[0]} is", WAY_OUT)
        self.specs = {c: prepare(suite, c, metric, **settings) for c in self.cells if c.skipped is None}
        if not self.specs:
            reasons = "\n  ".join(f"{c.name}: {c.skipped}" for c in self.cells)
            raise ValueError(f"no cell can be run:\n  {reasons}")
        self.record = stored or {
            "schema": 1,
            "name": name,
            "identity": identity,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            "git_commit": git_commit(),
            "cells": {
                str(c.path): {"status": "skipped" if c.skipped else "waiting", "reason": c.skipped}
                for c in self.cells
            },
        }
        self._fresh, self._claim = stored is None and not resume, None
        self._unbegun = stored is None and not begun
        self._plans: dict[bool, dict[Cell, list[Program]]] = {}

    @patient()
    def run(
        self,
        how: Execution,
        show: Callable[[Cell, Path], Display],
        command: Sequence[str] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Run the cells that are not done; returns the record of every cell by its folder.

        `show` makes the progress display of a cell from the cell and its folder. A cell that fails is
        recorded with its error and the next one is run; an interruption (`Interrupted`) ends the run.
        `command` is the command line to record; that of a process which continues the run is not.
        """
        if self._unbegun and command is not None:
            self.record["command"] = shareable_command(command)
        self._take()
        leaving.from_now_on(leaving.RESUMABLE)
        try:
            self._run(how, show, self.record.get("command", command))
        finally:
            self._claim = None
        return self.record["cells"]

    def _run(
        self, how: Execution, show: Callable[[Cell, Path], Display], command: Sequence[str] | None
    ) -> None:
        for cell in self.cells:
            entry = self.record["cells"][str(cell.path)]
            folder = self.folder / cell.path
            if entry["status"] == "skipped" or (entry["status"] == "done" and not _again(folder, how)):
                continue
            folder.mkdir(parents=True, exist_ok=True)
            shown = show(cell, folder)
            began = time.monotonic()
            own = replace(self._execution(cell, how), folder=folder)
            own = replace(own, resume=store.holds(folder))
            try:
                programs = self.programs(how.group_by_sizes)[cell]
                results = MODES[cell.mode].run(self.specs[cell], own, shown, command, programs)
            except (Interrupted, Superseded):
                raise
            except Exception as error:  # a user's environment may raise anything
                log.exception("%s failed", cell.name)
                entry |= {"status": "failed", "reason": shareable(f"{type(error).__name__}: {error}")}
            else:
                write_report(results, folder / store.REPORT)
                reason = _shortfall(results)
                entry |= {"status": "failed" if reason else "done", "reason": reason}
            finally:
                shown.close()
                entry["seconds"] = round(entry.get("seconds", 0) + time.monotonic() - began, 1)
                self._write()
        assert self._claim is not None
        self._claim.remove(own=True)

    def programs(self, group_by_sizes: bool = False) -> dict[Cell, list[Program]]:
        """The planned programs of every cell that can be run; cells of one kind share programs."""
        if group_by_sizes not in self._plans:
            machine = Machine.planned(jax.local_devices()[0].platform)
            self._plans[group_by_sizes] = plan_together(self.specs, machine, group_by_sizes)
        return self._plans[group_by_sizes]

    def plan(self, group_by_sizes: bool = False, predictor: Predictor | None = None) -> list[dict[str, Any]]:
        """Table rows with the lanes and programs of every cell, or the reason why it is skipped.

        A `predictor`, as `predict` returns it, adds predicted times.
        """
        predicted = predictor.all() if predictor else {}
        rows = []
        begun = any(self._state(c) not in ("waiting", "skipped") for c in self.cells)
        for cell in self.cells:
            row = {**self._names(cell), **({"state": self._state(cell)} if begun else {})}
            if cell.skipped is not None:
                rows.append({**row, "why": f"skipped: {cell.skipped}"})
                continue
            settings, programs = self.specs[cell].settings, self.programs(group_by_sizes)[cell]
            samples = self.specs[cell].records.values()
            lanes = (len(samples) or self.suite.samples) * settings.seeds
            row |= {"lanes": lanes, "programs": len(programs)}
            if predictor is None:
                steps = sum(s.steps for s in samples) * settings.seeds
                row["env steps"] = steps or lanes * settings.total_timesteps
            found = predicted.get(cell)
            row |= found.words() if isinstance(found, Prediction) else {"why": found} if found else {}
            rows.append(row)
        return rows

    def predict(self, how: Execution) -> Predictor:
        """Predict the time of the cells that are not done, from a few short programs that are run here."""
        plans = self.programs(how.group_by_sizes)
        left = [c for c in self.specs if self._state(c) != "done"]
        return Predictor(
            {c: (self.specs[c], plans[c], self._execution(c, how), self._share_left(c)) for c in left}
        )

    def outcome(self) -> list[dict[str, Any]]:
        """Table rows with the state of every cell, its seconds and why it failed or was skipped."""
        rows = []
        for cell in self.cells:
            entry = self.record["cells"][str(cell.path)]
            row = {**self._names(cell), "state": entry["status"], "seconds": entry.get("seconds")}
            rows.append({**row, "why": entry["reason"] and f"{entry['status']}: {entry['reason']}"})
        return rows

    def results(self) -> list[Results]:
        """The results of all cells that have been started, finished or not."""
        folders = [self.folder / c.path for c in self.cells]
        return [store.read(f) for f in folders if store.holds(f)]

    def _state(self, cell: Cell) -> str:
        return self.record["cells"][str(cell.path)]["status"]

    def _execution(self, cell: Cell, how: Execution) -> Execution:
        return replace(how, sequential=MODES[cell.mode].sequential)

    def _share_left(self, cell: Cell) -> float:
        """The share of the cell's environment steps that is still to be trained, between 0 and 1."""
        folder, spec = self.folder / cell.path, self.specs[cell]
        if store.read_manifest(folder) is None:
            return 1.0
        lanes, total = store.read(folder).lanes, spec.settings.total_timesteps
        over = lanes["status"].is_in(["done", "diverged", "pruned"])
        if lanes.is_empty():
            return 1.0
        done = sum(total if o else min(s, total) for o, s in zip(over, lanes["env_steps"], strict=True))
        return 1 - done / (total * max(len(lanes), 1))

    def _names(self, cell: Cell) -> dict[str, Any]:
        """Names of the cell for a table; the recipe's folder and the mode only where cells differ by them."""
        short = {name: short_name(name).rpartition(".")[2] for name in self.suite.algos}
        distinct = len(set(short.values())) == len(short)
        recipe = short[cell.recipe] if distinct else cell.recipe
        mode = {"mode": cell.mode} if len(self.suite.modes) > 1 else {}
        return {"recipe": recipe, "environment": cell.env, **mode}

    def _take(self) -> None:
        """Claim the folder, so that other processes that run this benchmark leave.

        Raises `ValueError` if another one has started it at the same moment.
        """
        if self._fresh and not create_json(self.folder / FILE, self.record):
            raise ValueError(f"another process has just started a benchmark in {self.folder}; wait for it")
        self._claim = Claim(self.folder / CLAIMS, self.folder)
        self._write()
        self._claim.remove(own=False)
        clear_temporary(self.folder)

    def _write(self) -> None:
        """Write the record; raise `Superseded` if another process has taken over."""
        assert self._claim is not None
        self._claim.check()
        write_json(self.folder / FILE, self.record)


def _again(folder: Path, how: Execution) -> bool:
    """Whether a cell that is done has damaged files that are to be trained again."""
    return how.retrain_damaged and any(entry.problems for entry in check(folder))


def _shortfall(results: Results) -> str | None:
    """What is missing from the results of a cell, and why: lanes that failed, or all of them; or None."""
    if all_lost(results):
        return "; ".join(advice(results))
    failed = results.lanes.filter(results.lanes["status"] == "failed")["lane"].to_list()
    return f"lanes {', '.join(map(str, failed))} failed" if failed else None


def plan_together(
    specs: Mapping[Cell, Experiment], machine: Machine, group_by_sizes: bool
) -> dict[Cell, list[Program]]:
    """Plan the programs of all cells, those of one algorithm, network, environment and length together.

    Cells that are planned together run the same programs, so a process compiles each of them only once. The
    `useful_share` of a program is then computed over all of these cells. Up to rounding, what a lane learns
    does not depend on the plan.
    """
    kinds: dict[Any, dict[str, list[Cell]]] = {}
    for cell, spec in specs.items():
        s = spec.settings
        kind = (cell.env, jax.tree.structure(spec.base), s.total_timesteps, s.seeds, spec.schedule.grows)
        kind += (s.eval_episodes, s.measurement, s.evaluation_keys, cell if spec.schedule.grows else None)
        kinds.setdefault(kind, {}).setdefault(cell.recipe, []).append(cell)
    plans: dict[Cell, list[Program]] = {}
    for recipes in kinds.values():
        firsts = [specs[members[0]] for members in recipes.values()]
        own = [spec.schedule.trees_to_plan(spec) for spec in firsts]
        env, s = firsts[0].env, firsts[0].settings
        most = machine.most(firsts[0].schedule.grows) * len(own)
        trees = [tree for trees in own for tree in trees]
        shared = plan(trees, env, s.total_timesteps, s.seeds, machine, most, group_by_sizes)
        first = 0
        for members, trees in zip(recipes.values(), own, strict=True):
            parts = [_part(p, first, len(trees)) for p in shared]
            plans |= {cell: [p for p in parts if p.samples] for cell in members}
            first += len(trees)
    return plans


def _part(program: Program, first: int, count: int) -> Program:
    """`program` restricted to the samples first … first + count - 1, which are renumbered from 0."""
    return replace(program, samples=tuple(i - first for i in program.samples if first <= i < first + count))


def _difference(stored: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """Describe the differences between two identities; a field unknown to `stored` has its default value."""
    defaults = {
        f.name: json.loads(json.dumps(f.default_factory() if callable(f.default_factory) else f.default))
        for f in dataclasses.fields(Suite)
        if f.name not in ("algos", "envs")
    }
    theirs = {**defaults, **stored["suite"], **stored["settings"]}
    ours = {**asked["suite"], **asked["settings"]}
    return [
        f"{k}: {theirs.get(k)!r} in the folder, {ours.get(k)!r} asked for"
        for k in sorted({*theirs, *ours})
        if theirs.get(k) != ours.get(k)
    ]


def _read(folder: Path) -> dict[str, Any] | None:
    """The record of the benchmark in `folder`; None if there is none. Raises `Damaged` with the way out."""
    try:
        record = read_json(folder / FILE, WAY_OUT)
    except (FileNotFoundError, NotADirectoryError):
        return None
    wrong = misfit(record, _KINDS)
    if not wrong and not (
        "cells" in record and _KINDS["identity"].keys() <= record.get("identity", {}).keys()
    ):
        wrong = "is damaged: it does not say which cells there are"
    if wrong:
        raise Damaged(folder / FILE, wrong, WAY_OUT)
    return record
