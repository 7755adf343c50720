"""Searches with Optuna: trials trained as lanes of few programs, a new one asked when one ends."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import polars as pl

from hyperlax import sweeps
from hyperlax.experiments import experiment as experiments
from hyperlax.experiments.execution import Execution
from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.recipes import Recipe
from hyperlax.programs.plan import Program
from hyperlax.run.display import Display
from hyperlax.run.signals import Interrupted
from hyperlax.run.terminal import shown
from hyperlax.searches import outcome, studies
from hyperlax.searches.objectives import objectives
from hyperlax.searches.schedule import OptunaSearch, Search
from hyperlax.storage import store
from hyperlax.storage.results import Results
from hyperlax.storage.store import Store

__all__ = ["OptunaSearch", "Search", "check", "objectives", "prepare", "run", "search"]


def search(
    recipe: str | Recipe = "ppo_mlp",
    env: str = "gymnax.pendulum",
    *,
    execution: Execution | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    progress: Display | bool | None = None,
    **arguments: Any,
) -> Results:
    """Searches the recipe's space with Optuna and returns what was measured; `Results.trials` are its trials.

    - `recipe`, `env`, `execution`, `folder`, `resume`, `progress`: as in `hyperlax.sweep`.
    - everything else describes the search and its experiment: see `prepare`.

    The best hyperparameters are in the folder, as a recipe. Raises `ValueError` for bad input before anything
    is created, `Interrupted` after SIGINT or SIGTERM with the state saved.
    """
    how = (execution or Execution()).at(folder, resume)
    spec = prepare(recipe, env, **arguments)
    with shown(progress) as display:
        return run(spec, how, display)


def prepare(
    recipe: str | Recipe,
    env: str,
    *,
    n_trials: int = 100,
    objective_names: Sequence[str] = ("peak_performance",),
    objective_directions: Sequence[str] = (),
    sampler: str = "tpe",
    pruner: str = "none",
    trials_at_once: int | None = None,
    study_name: str = studies.NAME,
    storage: str | None = None,
    **arguments: Any,
) -> Experiment:
    """The experiment of a search, checked, before anything is created or run.

    - `n_trials`: in all, over every process of the study and every time it is resumed.
    - `objective_names`: of `searches.objectives.KNOWN`; several make a Pareto front. `objective_directions`:
      maximize or minimize, one for each or one for all; by default what is better.
    - `sampler`: tpe, nsgaii, random, qmc, cmaes or gp. `pruner`: none, median, hyperband or asha.
    - `trials_at_once`: trials in training at a time, by default what the machine has use for.
    - `storage`: an Optuna URL or a journal file; processes with the same one and the same `study_name` work
      on one study, each in a folder of its own. By default a journal in the folder.
    - `arguments`: `set`, `run_length_modifier` and settings, as for `hyperlax.prepare`.
    """
    plan = Search(
        n_trials=n_trials,
        objectives=objectives(objective_names, objective_directions),
        sampler=sampler,
        pruner=pruner,
        at_once=trials_at_once or 0,
        study_name=study_name,
        storage=storage,
    )
    schedule = OptunaSearch(plan)
    spec = sweeps.prepare(recipe, env, schedule=schedule, **arguments)
    schedule.attach(spec)
    return spec


def check(spec: Experiment, how: Execution) -> Execution:
    """How to run the search, once nothing stands against it.

    With `storage`, `resume` also joins a study that other processes work on, or have left. Raises
    `ValueError` for a folder or a study that is not to be touched, and a storage that cannot be used.
    """
    schedule = cast(OptunaSearch, spec.schedule)
    plan = schedule.search
    stored = store.read_manifest(Path(how.folder)) if how.folder is not None else None
    joins = plan.storage is not None and how.resume and stored is None
    if joins:
        how = replace(how, resume=False)
    sweeps.check(spec, how)
    if plan.storage is not None:
        schedule.storage = schedule.storage or studies.storage(plan.storage, None)
        _check_study(schedule, spec, how.resume, joins)
    schedule.owner = stored["search"]["owner"] if stored else uuid.uuid4().hex[:12]
    return how


def _check_study(schedule: OptunaSearch, spec: Experiment, resumes: bool, joins: bool) -> None:
    name, where = schedule.search.study_name, studies.public(schedule.search.storage or "")
    assert schedule.storage is not None
    if not studies.exists(schedule.storage, name):
        if resumes:
            raise ValueError(f"{where} holds no study {name}, which this folder belongs to")
        return
    stored = studies.stored_identity(schedule.storage, name)
    if differing := experiments.difference(stored, spec.identity()):
        what = "\n  ".join(line.replace("in the folder", "in the study") for line in differing)
        raise ValueError(f"the study {name} in {where} is of another experiment:\n  {what}")
    if not (resumes or joins):
        raise ValueError(
            f"the study {name} exists in {where}: work on it with --resume, or choose another --study-name"
        )


def run(
    spec: Experiment,
    how: Execution | None = None,
    progress: Display | None = None,
    command: Sequence[str] | None = None,
    programs: Sequence[Program] | None = None,
) -> Results:
    """Runs a prepared search; `command` and `programs` as for `sweeps.run`."""
    how, schedule = check(spec, how or Execution()), cast(OptunaSearch, spec.schedule)
    said = list(sys.argv if command is None else command)
    if url := schedule.search.storage:
        said = [part.replace(url, studies.public(url)) for part in said]
    folder = None if how.folder is None else Path(how.folder)
    try:
        results = sweeps.run(spec, how, progress, said, programs)
    except Interrupted:
        if schedule.shared is not None:
            _write(spec, schedule, folder)
        raise
    else:
        return replace(results, trials=_write(spec, schedule, folder))
    finally:
        studies.close(schedule.storage)


def _write(spec: Experiment, schedule: OptunaSearch, folder: Path | None) -> pl.DataFrame:
    """The table of trials, written with the best of them where there is a folder."""
    wanted = schedule.search.objectives
    table = outcome.trials_table(schedule.study.study, schedule.space, wanted)
    if folder is not None:
        Store(folder).write_frame(table, "trials")
        outcome.write(folder, table, wanted, spec.recipe, spec.base)
    return table
