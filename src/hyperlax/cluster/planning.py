"""Planning a sweep for many processes from the arguments of a command."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hyperlax.cluster import splitting, sweep
from hyperlax.cluster.sweep import Cell, Sweep
from hyperlax.experiments.experiment import Experiment
from hyperlax.programs.plan import Machine, Program, plan
from hyperlax.storage.places import writable
from hyperlax.storage.shareable import shareable_command
from hyperlax.studies.benchmark import plan_together
from hyperlax.studies.suites import MODES, Suite, cells, prepare

LEAST_SECONDS = 20.0
"""Predicted seconds below which cutting a unit further does not pay for processes on this machine."""
TRIALS_PER_PROCESS = 8
"""Fewest trials for each process of a shared search, so that it can learn from earlier ones."""
UNITS_PER_TASK = 4
"""Units per process on this machine: several, so that no process idles long while the last ones run."""


def of_suite(
    suite: Suite,
    root: Path,
    name: str,
    settings: Mapping[str, Any],
    command: list[str],
    platform: str,
    execution: Mapping[str, Any],
    group_by_sizes: bool = False,
    wanted: int | None = None,
    tasks: int | None = None,
    slurm: dict[str, Any] | None = None,
) -> Sweep:
    """Plan the cells of a suite that can be run, exactly as one process would.

    `wanted` is the number of units per cell, `tasks` that of processes on this machine, if they are to run
    here, and `slurm` what they ask of a cluster otherwise.
    """
    possible = [c for c in cells(suite) if c.skipped is None]
    if not possible:
        raise ValueError("no cell can be run: " + "; ".join(f"{c.name}: {c.skipped}" for c in cells(suite)))
    specs = {c: prepare(suite, c, execution.get("metric"), **settings) for c in possible}
    plans = plan_together(specs, Machine.planned(platform), group_by_sizes)
    built = [
        _cell(specs[c], plans[c], str(c.path), c.mode, {"recipe": c.recipe, "env": c.env}, None, command)
        for c in possible
    ]
    parts = [(specs[c], plans[c], MODES[c.mode].sequential) for c in possible]
    asked = asked_of_suite(suite, settings, group_by_sizes)
    return _sweep(root, name, asked, platform, execution, built, parts, wanted, tasks, slurm)


def of_experiment(
    spec: Experiment,
    root: Path,
    path: Path,
    given: Mapping[str, Any],
    scheduler: tuple[str, dict[str, Any]] | None,
    command: list[str],
    platform: str,
    execution: Mapping[str, Any],
    group_by_sizes: bool = False,
    sequential: bool = False,
    wanted: int | None = None,
    tasks: int | None = None,
    slurm: dict[str, Any] | None = None,
) -> Sweep:
    """Plan a single experiment, which `sweeps.prepare` has made from the arguments `given`."""
    programs = _programs(spec, spec.trees, platform, group_by_sizes)
    plain = dict(given)
    if given.get("samples") is not None:
        # The rows of the experiment are ablated already, and `num_samples` counted them before that.
        plain |= {"samples": spec.rows, "ablate": None, "num_samples": None}
    mode = "sequential" if sequential else "batched"
    cell = _cell(spec, programs, str(path), mode, plain, scheduler, command)
    asked = asked_of_experiment(spec, group_by_sizes, sequential)
    parts = [(spec, programs, sequential)]
    return _sweep(root, spec.recipe_name, asked, platform, execution, [cell], parts, wanted, tasks, slurm)


def of_search(
    spec: Experiment,
    root: Path,
    given: Mapping[str, Any],
    command: list[str],
    platform: str,
    execution: Mapping[str, Any],
    group_by_sizes: bool = False,
    wanted: int | None = None,
    tasks: int | None = None,
    slurm: dict[str, Any] | None = None,
) -> Sweep:
    """Plan a search, which `searches.prepare` has made from the arguments `given`.

    `wanted` processes share its study, by default `tasks`, or as many as have about an hour to train each.
    """
    programs = _programs(spec, spec.schedule.trees_to_plan(spec), platform, group_by_sizes)
    cell = _cell(spec, programs, ".", "optuna", given, None, command)
    asked = asked_of_search(spec, group_by_sizes, given)
    if wanted is None and tasks is None:
        (whole,) = splitting.split(0, spec, programs, Machine.of(platform, 1))
        most = spec.schedule.expected // TRIALS_PER_PROCESS
        wanted = max(1, min(most, round(whole.seconds / splitting.UNIT_SECONDS)))
    parts = [(spec, programs, False)]
    wanted = wanted or tasks
    return _sweep(root, spec.recipe_name, asked, platform, execution, [cell], parts, wanted, tasks, slurm)


def _programs(spec: Experiment, trees: Sequence[Any], platform: str, group_by_sizes: bool) -> list[Program]:
    """The programs for an experiment of samples like `trees`."""
    s, machine = spec.settings, Machine.planned(platform)
    most = 1 if spec.schedule.one_program else machine.most(spec.schedule.grows)
    varying = spec.recipe.search_space() if spec.schedule.one_program or spec.schedule.grows else ()
    return plan(trees, spec.env, s.total_timesteps, s.seeds, machine, most, group_by_sizes, varying)


def asked_of_search(spec: Experiment, group_by_sizes: bool, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that determine the plan of a search."""
    more = {name: given[name] for name in ("n_trials", "storage")}
    return {**asked_of_experiment(spec, group_by_sizes, False), **more}


def asked_of_suite(suite: Suite, settings: Mapping[str, Any], group_by_sizes: bool) -> dict[str, Any]:
    """The arguments that determine the plan of a suite."""
    return {"suite": asdict(suite), "settings": dict(settings), "group_by_sizes": group_by_sizes}


def asked_of_experiment(spec: Experiment, group_by_sizes: bool, sequential: bool) -> dict[str, Any]:
    """The arguments that determine the plan of a single experiment."""
    return {"experiment": spec.identity(), "group_by_sizes": group_by_sizes, "sequential": sequential}


def _cell(
    spec: Experiment,
    programs: list[Program],
    path: str,
    mode: str,
    given: Mapping[str, Any],
    scheduler: tuple[str, dict[str, Any]] | None,
    command: list[str],
) -> Cell:
    plain = json.loads(json.dumps(dict(given)))
    if not splitting.is_whole(spec, MODES[mode].sequential):
        programs = [replace(p, lanes_per_device=_mapped(p, spec)) for p in programs]
    described = json.loads(json.dumps([p.describe() for p in programs]))
    manifest = {**spec.manifest(command), "command": shareable_command(command)}
    return Cell(path, mode, plain, scheduler, spec.identity(), manifest, described)


def _mapped(program: Program, spec: Experiment) -> int:
    """The lanes to map together on a device: one on a CPU, elsewhere as many as one device would train."""
    if program.lanes_per_device or not program.accelerator:
        return program.lanes_per_device or 1
    lanes = len(program.samples) * spec.settings.seeds
    return min(program.slots or lanes, lanes)


def _sweep(
    root: Path,
    name: str,
    asked: Mapping[str, Any],
    platform: str,
    execution: Mapping[str, Any],
    built: list[Cell],
    parts: list[tuple[Experiment, list[Program], bool]],
    wanted: int | None,
    tasks: int | None,
    slurm: dict[str, Any] | None,
) -> Sweep:
    """Cut the cells into units: enough to keep the processes of this machine busy, or by predicted length."""
    machine = Machine.of(platform, 1)
    cut = lambda seconds: [  # noqa: E731
        unit
        for n, (spec, programs, sequential) in enumerate(parts)
        for unit in splitting.split(n, spec, programs, machine, sequential, wanted, seconds)
    ]
    seconds = splitting.UNIT_SECONDS
    if tasks is not None:
        total = sum(unit.seconds for unit in cut(float("inf")))
        seconds = max(LEAST_SECONDS, total / (tasks * UNITS_PER_TASK))
    units = sorted(cut(seconds), key=lambda u: -u.seconds) if tasks is not None else cut(seconds)
    plain = json.loads(json.dumps(dict(asked), default=str))
    return Sweep(writable(root), name, plain, platform, dict(execution), tuple(built), tuple(units), slurm)


def continued(found: Sweep, asked: Mapping[str, Any]) -> Sweep:
    """The sweep that a folder already holds; raises `ValueError` if it was planned from other arguments."""
    if differing := sweep.difference(found.asked, asked):
        raise ValueError(f"{found.root} holds another sweep:\n  " + "\n  ".join(differing))
    return found
