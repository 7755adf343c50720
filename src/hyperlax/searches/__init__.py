"""Searches with Optuna: trials are trained as lanes of few programs; when one ends, another is asked for."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import polars as pl

from hyperlax import sweeps
from hyperlax.experiments import experiment as experiments
from hyperlax.experiments.execution import Execution
from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.given import layered
from hyperlax.experiments.machine import set_up_jax
from hyperlax.experiments.recipes import Recipe, resolve
from hyperlax.experiments.settings import Settings, run_length
from hyperlax.programs.plan import Program
from hyperlax.registry.limits import within
from hyperlax.run.display import Display
from hyperlax.run.signals import Interrupted
from hyperlax.run.terminal import shown
from hyperlax.searches import outcome, studies
from hyperlax.searches.objectives import objectives, usual
from hyperlax.searches.schedule import OptunaSearch, Search
from hyperlax.storage import store
from hyperlax.storage.results import Results
from hyperlax.storage.store import Store
from hyperlax.typecheck import public

__all__ = ["OptunaSearch", "Search", "check", "objectives", "prepare", "run", "search"]


@public
def search(
    recipe: str | Recipe = "ppo_mlp",
    env: str = "gymnax.pendulum",
    *,
    n_trials: int = 100,
    objective_names: Sequence[str] = (),
    objective_directions: Sequence[str] = (),
    sampler: str = "tpe",
    pruner: str = "none",
    trials_at_once: int | None = None,
    study_name: str = studies.NAME,
    storage: str | None = None,
    ranges: Mapping[str, Any] | None = None,
    set: Mapping[str, Any] | None = None,
    run_length_modifier: str | int = "default",
    total_timesteps: int | None = None,
    evaluations: int | None = None,
    eval_episodes: int | None = None,
    seeds: int | None = None,
    seed: int | None = None,
    protocol: str | None = None,
    evaluation: str | None = None,
    evaluation_keys: str | None = None,
    last_cycle: str | None = None,
    initial_weights: str | None = None,
    eval_at_start: bool | None = None,
    eval_shots: int | None = None,
    eval_depolarizing: float | None = None,
    execution: Execution | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    progress: Display | bool | None = None,
) -> Results:
    """Search the recipe's space with Optuna and return what was measured; `Results.trials` are its trials.

    The search.

    - `n_trials`: in all, over every process of the study and every time it is resumed.
    - `objective_names`: of `searches.objectives.KNOWN`; several make a Pareto front. By default the headline
      metric: `final`, or `peak_of_mean` in the published protocol. `objective_directions`:
      maximize or minimize, one for each or one for all; by default what is better.
    - `sampler`: tpe, nsgaii, random, qmc, cmaes or gp. `pruner`: none, median, hyperband or asha.
    - `trials_at_once`: trials in training at a time, by default what the machine has use for.
    - `storage`: an Optuna URL or a journal file; processes with the same one and the same `study_name` work
      on one study, each in a folder of its own. By default a journal in the folder.

    Its experiment, as in `hyperlax.sweep`.

    - `recipe`, `env`: what is trained. `ranges`: spaces in place of the recipe's. `set`: what is the same for
      all trials. `run_length_modifier`: for how long.
    - `total_timesteps`: environment steps of every lane. `evaluations`: how often it is evaluated, each time
      in `eval_episodes` episodes. `seeds`: lanes per sample.
    - `seed`: of the sampler and of training.
    - `protocol`: `corrected`, or `published` to train and evaluate as the published results were made.
    - `evaluation`: whether the headline return is of `deterministic` or `sampled` actions.
    - `evaluation_keys`: whether every evaluation of a lane draws `fresh` episodes, or `fixed` ones again.
    - `last_cycle`: whether lanes end at most 1 % above `total_timesteps` (`bounded`), or with the first cycle
      that is `reaching` them.
    - `initial_weights`: drawn `per_lane`, or `shared` by the lanes of one architecture.
    - `eval_at_start`: whether lanes are also evaluated before they train.
    - `eval_shots`, `eval_depolarizing`: how evaluation measures circuits: with so many shots (0: exactly),
      and with Pauli errors of this probability.
    - `execution`, `folder`, `resume`, `progress`: how it is run.

    The best hyperparameters are in the folder, as a recipe. Raises `ValueError` for bad input before anything
    is created, `Interrupted` after SIGINT, SIGTERM, SIGHUP, SIGUSR1 or SIGUSR2 with the state saved.
    """
    # first, while the parameters are all that there is
    described = {k: v for k, v in locals().items() if k not in sweeps.RUNNING}
    how = (execution or Execution()).at(folder, resume)
    spec = prepare(**described)
    with shown(progress) as display:
        return run(spec, how, display)


@public
def prepare(
    recipe: str | Recipe,
    env: str,
    *,
    n_trials: int = 100,
    objective_names: Sequence[str] = (),
    objective_directions: Sequence[str] = (),
    sampler: str = "tpe",
    pruner: str = "none",
    trials_at_once: int | None = None,
    study_name: str = studies.NAME,
    storage: str | None = None,
    ranges: Mapping[str, Any] | None = None,
    set: Mapping[str, Any] | None = None,
    run_length_modifier: str | int = "default",
    total_timesteps: int | None = None,
    evaluations: int | None = None,
    eval_episodes: int | None = None,
    seeds: int | None = None,
    seed: int | None = None,
    protocol: str | None = None,
    evaluation: str | None = None,
    evaluation_keys: str | None = None,
    last_cycle: str | None = None,
    initial_weights: str | None = None,
    eval_at_start: bool | None = None,
    eval_shots: int | None = None,
    eval_depolarizing: float | None = None,
) -> Experiment:
    """The experiment of a search, checked, before anything is created or run.

    The parameters are those of `search`.
    """
    given = locals()
    described = {
        k: given[k] for k in ("ranges", "set", "run_length_modifier", *Settings.__dataclass_fields__)
    }
    set_up_jax()
    found = resolve(recipe) if isinstance(recipe, str) else recipe
    own = {} if protocol is None else {"protocol": protocol}
    asked = layered(found, run_length(run_length_modifier), set or {}, own)
    names = objective_names or usual(asked.get("protocol"))
    plan = Search(
        n_trials=n_trials,
        objectives=objectives(names, objective_directions),
        sampler=sampler,
        pruner=pruner,
        at_once=0 if trials_at_once is None else within("trials_at_once", trials_at_once),
        study_name=study_name,
        storage=storage,
    )
    schedule = OptunaSearch(plan)
    spec = sweeps.prepare(recipe, env, schedule=schedule, **described)
    schedule.attach(spec)
    return spec


def check(spec: Experiment, how: Execution) -> Execution:
    """Check that the search can run, and return how to run it.

    With `storage`, `resume` also joins a study that other processes work on, or have left. Raises
    `ValueError` for a folder or a study that is not to be touched, and a storage that cannot be used.
    """
    schedule = cast(OptunaSearch, spec.schedule)
    plan = schedule.search
    stored = store.recovered_manifest(Path(how.folder)) if how.folder is not None else None
    joins = plan.storage is not None and how.resume and stored is None
    if joins:
        how = replace(how, resume=False)
    sweeps.check(spec, how)
    if plan.storage is not None:
        schedule.storage = schedule.storage or studies.storage(plan.storage, None)
        checkpoints = (Path(how.folder or "") / store.CHECKPOINT).parent.glob("*.bin")
        begun = stored is not None and any(checkpoints)
        _check_study(schedule, spec, how.resume, joins, begun)
    schedule.owner = stored["search"]["owner"] if stored else schedule.owner or uuid.uuid4().hex[:12]
    return how


def _check_study(schedule: OptunaSearch, spec: Experiment, resumes: bool, joins: bool, begun: bool) -> None:
    """Raise `ValueError` unless the study fits the search, which has `begun` if there is a checkpoint."""
    name, where = schedule.search.study_name, studies.public(schedule.search.storage or "")
    assert schedule.storage is not None
    if not studies.exists(schedule.storage, name):
        if begun:
            raise ValueError(f"{where} holds no study {name}, which this folder belongs to")
        return
    stored = studies.stored_identity(schedule.storage, name)
    differing = experiments.difference(stored, spec.identity())
    own = resumes and studies.is_blank(schedule.storage, name)  # the folder tells of it
    if differing and not own:
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
    """Run a prepared search; `command` and `programs` as for `sweeps.run`."""
    how, schedule = check(spec, how or Execution()), cast(OptunaSearch, spec.schedule)
    said = list(sys.argv if command is None else command)
    if url := schedule.search.storage:
        said = [part.replace(url, studies.public(url)) for part in said]
    folder = None if how.folder is None else Path(how.folder)
    try:
        results = sweeps.run(spec, how, progress, said, programs)
    except Interrupted:
        if schedule.shared is not None and folder is not None:
            _write(spec, schedule, folder, schedule.tables()["trials"])
        raise
    else:
        trials = schedule.tables()["trials"] if folder is None else results.trials
        if folder is not None:
            Store(folder).list_files(_write(spec, schedule, folder, trials))
        return replace(results, trials=trials)
    finally:
        studies.close(schedule.storage)


def _write(spec: Experiment, schedule: OptunaSearch, folder: Path, trials: pl.DataFrame) -> list[str]:
    """Write the best trials of the table `trials` to the folder; return the names of the files."""
    outcome.write(folder, trials, schedule.search.objectives, spec.recipe, spec.base)
    return [name for name in outcome.FILES if (folder / name).exists()]
