"""Benchmark suites: algorithms × environments × modes, each pair an experiment of its own folder."""

from __future__ import annotations

import dataclasses
import datetime
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from hyperlax import envs, store, sweeps
from hyperlax.execution import Execution
from hyperlax.experiment import Experiment, git_commit, versions
from hyperlax.files import experiment_path, write_atomically
from hyperlax.hyperparams import nearest
from hyperlax.plan import Machine, plan
from hyperlax.recipes import configs_folder, load_file, resolve
from hyperlax.report import write_report
from hyperlax.results import Results
from hyperlax.terminal import Silent

MODES = ("batched", "sequential")
STATUSES = ("waiting", "done", "failed", "skipped")
"""What may become of a cell; one that is interrupted stays waiting."""
FILE = "benchmark.json"


@dataclass(frozen=True)
class Suite:
    """What a benchmark runs.

    - `algos`: recipes; `envs`: environments; `modes`: of `MODES`. Every combination is a cell.
    - `samples` of every recipe's space, drawn by `sampling`.
    - `run_length` as `--run-length-modifier`; `settings` as `--set`.
    """

    algos: tuple[str, ...]
    envs: tuple[str, ...]
    modes: tuple[str, ...] = ("batched",)
    samples: int = 16
    sampling: str = "qmc_sobol"
    run_length: str = "default"
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        for name in ("algos", "envs", "modes"):
            given = getattr(self, name)
            if not given:
                raise ValueError(f"a benchmark needs at least one of {name}")
            if twice := sorted({x for x in given if given.count(x) > 1}):
                raise ValueError(f"{twice[0]} is named twice in {name}")
        if wrong := [m for m in self.modes if m not in MODES]:
            raise ValueError(
                f"unknown sweep mode {wrong[0]}{nearest(wrong[0], MODES)}; known: {', '.join(MODES)}"
            )
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1, got {self.samples}")


@dataclass(frozen=True)
class Cell:
    """One experiment of a suite, and why it cannot be one (`skipped`) where it cannot."""

    recipe: str
    env: str
    mode: str
    skipped: str | None = None

    @property
    def name(self) -> str:
        return f"{self.recipe} on {self.env}, {self.mode}"

    @property
    def path(self) -> Path:
        """Its folder, below the benchmark's."""
        return self.mode / experiment_path(self.recipe, self.env)


def find(name: str) -> Suite:
    """The suite called `name` in `configs/suites.py`, or `path/to/file.py:name` of one's own (`SUITES`)."""
    file, _, key = name.partition(":") if ".py" in name else ("", "", name)
    path = Path(file) if file else configs_folder() / "suites.py"
    if not path.is_file():
        raise ValueError(f"suite file {path} does not exist")
    known = load_file(path, "SUITES", "hyperlax.Suite")
    if not key and len(known) == 1:
        return next(iter(known.values()))
    if key not in known:
        raise ValueError(f'unknown suite "{key}"{nearest(key, known)}; known: {", ".join(known)}')
    return known[key]


def cells(suite: Suite) -> list[Cell]:
    """Every combination, those marked that cannot be. Raises `ValueError` for unknown names."""
    loaded = {name: envs.load(name) for name in suite.envs}
    recipes = {name: resolve(name) for name in suite.algos}
    return [
        Cell(name, env, mode, recipe.hyperparams().supports(loaded[env].action_space))
        for mode in suite.modes
        for name, recipe in recipes.items()
        for env in suite.envs
    ]


def prepare(suite: Suite, cell: Cell, **settings: Any) -> Experiment:
    """The experiment of a cell, checked; `ValueError` names the cell."""
    try:
        return sweeps.prepare(
            cell.recipe,
            cell.env,
            num_samples=suite.samples,
            sampling_method=suite.sampling,
            run_length_modifier=suite.run_length,
            set=suite.settings,
            **settings,
        )
    except ValueError as error:
        raise ValueError(f"{cell.name}: {error}") from None


class Benchmark:
    """A suite being run in a folder: what has become of every cell is in `benchmark.json`."""

    def __init__(self, suite: Suite, folder: Path, name: str, resume: bool, **settings: Any):
        """Raises `ValueError`, before anything is created, for what cannot be and for a folder in use."""
        self.suite, self.folder, self.settings = suite, folder, settings
        self.cells = cells(suite)
        self.specs = {c: prepare(suite, c, **settings) for c in self.cells if c.skipped is None}
        if not self.specs:
            reasons = "\n  ".join(f"{c.name}: {c.skipped}" for c in self.cells)
            raise ValueError(f"no cell can be run:\n  {reasons}")
        stored = _read(folder / FILE)
        identity = json.loads(json.dumps({"suite": dataclasses.asdict(suite), "settings": settings}))
        if stored is None:
            if resume:
                raise ValueError(f"nothing to resume: {folder} holds no benchmark")
            if folder.exists() and any(folder.iterdir()):
                raise ValueError(f"{folder} is not empty; choose another --output-root")
        elif stored["identity"] != identity:
            theirs, ours = (json.dumps(x, sort_keys=True) for x in (stored["identity"], identity))
            raise ValueError(f"{folder} holds another benchmark:\n  there {theirs}\n  asked {ours}")
        elif not resume:
            raise ValueError(f"{folder} already holds this benchmark; continue it with --resume")
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

    def run(
        self,
        how: Execution,
        show: Callable[[Cell, Path], Silent],
        command: Sequence[str] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Runs the cells that are not done and returns what has become of each, by folder.

        A cell that fails is recorded with its error and does not stop the others; an interruption does.
        """
        self._write()
        for cell in self.cells:
            entry = self.record["cells"][str(cell.path)]
            if entry["status"] in ("done", "skipped"):
                continue
            folder = self.folder / cell.path
            folder.mkdir(parents=True, exist_ok=True)
            shown = show(cell, folder)
            began = time.monotonic()
            own = dataclasses.replace(
                how,
                folder=folder,
                sequential=cell.mode == "sequential",
                resume=store.read_manifest(folder) is not None,
            )
            try:
                results = sweeps.run(self.specs[cell], own, shown, command)
            except (ValueError, RuntimeError, OSError, MemoryError) as error:
                entry |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
            else:
                write_report(results, folder / "report.html")
                failed = results.lanes.filter(results.lanes["status"] == "failed")["lane"].to_list()
                entry |= {"status": "failed" if failed else "done"}
                entry |= {"reason": f"lanes {', '.join(map(str, failed))} failed" if failed else None}
            finally:
                shown.close()
                entry["seconds"] = round(entry.get("seconds", 0) + time.monotonic() - began, 1)
                self._write()
        return self.record["cells"]

    def plan(self, group_by_sizes: bool = False) -> list[dict[str, Any]]:
        """What every cell takes, or why it is skipped: for a table."""
        devices = jax.local_devices()
        machine = Machine.of(devices[0].platform, len(devices))
        rows = []
        for cell in self.cells:
            row = {**self._names(cell), "state": self.record["cells"][str(cell.path)]["status"]}
            if cell.skipped is not None:
                rows.append({**row, "why": cell.skipped})
                continue
            spec = self.specs[cell]
            s, trees = spec.settings, spec.trees
            programs = plan(
                trees, spec.env, s.total_timesteps, s.seeds, machine, group_by_sizes=group_by_sizes
            )
            lanes = len(trees) * s.seeds
            sizes = {"lanes": lanes, "programs": len(programs), "env steps": lanes * s.total_timesteps}
            rows.append({**row, **sizes})
        return rows

    def outcome(self) -> list[dict[str, Any]]:
        """What has become of every cell: for a table."""
        rows = []
        for cell in self.cells:
            entry = self.record["cells"][str(cell.path)]
            row = {**self._names(cell), "state": entry["status"], "seconds": entry.get("seconds")}
            rows.append({**row, "why": entry["reason"]})
        return rows

    def _names(self, cell: Cell) -> dict[str, Any]:
        """The cell in words; folders of recipes and the mode only where they tell cells apart."""
        short = {name.rpartition(".")[2] for name in self.suite.algos}
        recipe = cell.recipe.rpartition(".")[2] if len(short) == len(self.suite.algos) else cell.recipe
        mode = {"mode": cell.mode} if len(self.suite.modes) > 1 else {}
        return {"recipe": recipe, "environment": cell.env, **mode}

    def results(self) -> list[Results]:
        """Of every cell that has any."""
        folders = [self.folder / c.path for c in self.cells]
        return [store.read(f) for f in folders if store.read_manifest(f) is not None]

    def _write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / FILE, json.dumps(self.record, indent=1) + "\n")


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None
