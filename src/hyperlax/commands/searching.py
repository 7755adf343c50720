"""The command that searches with Optuna."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_args

from hyperlax.commands.ending import conclude, stopped
from hyperlax.commands.flags import Common, Metric, Names, Ranges, assignments, folder_of, limited, spaces
from hyperlax.commands.launch import display, end_logging, start_jax
from hyperlax.commands.spread import Spread, spread_out
from hyperlax.storage import calling


def optuna_hp_search(
    *,
    common: Common = Common(),  # noqa: B008
    spread: Spread = Spread(),  # noqa: B008
    dry_run: bool = False,
    study_name: str = "hyperlax_optuna_study",
    storage: str | None = None,
    range_: Ranges = None,
    n_trials: Annotated[int, limited("n_trials")] = 100,
    objective_names: Names = None,
    objective_directions: Names = None,
    sampler: str = "tpe",
    pruner: str = "none",
    optuna_study_batch_size: Annotated[int | None, limited("trials_at_once")] = None,
    runner_hparam_batch_size: Annotated[int | None, limited("lanes_at_once")] = None,
    save_optuna_plots: bool = True,
) -> int:
    """Search the space with Optuna: each trial is trained with all its seeds; when one ends, another starts.

    With --tasks N or --executor slurm, N processes or --units N tasks share the study. Which of them draws
    which trial then depends on timing, so that another run finds other trials.

    Parameters
    ----------
    dry_run
        With --tasks or --executor slurm: only say what would be run, and print the script.
    study_name
        Name of the study in the storage.
    storage
        An Optuna URL (postgresql://..., sqlite:///...) or a journal file. Processes with the same storage and
        study name, each with an --output-root of its own, work on one study; --resume joins it.
        [default: study.journal in the experiment's folder]
    n_trials
        Trials in all, also after --resume and over all processes.
    objective_names
        Metrics of the report to optimise; several give a Pareto front. [default: --metric]
    objective_directions
        maximize or minimize, one for all or one for each. [default: the usual direction of each metric]
    sampler
        tpe, nsgaii, random, qmc, cmaes or gp.
    pruner
        none, median, hyperband or asha: whether trials that do badly stop early.
    optuna_study_batch_size
        Trials in training at a time. [default: what suits the machine]
    runner_hparam_batch_size
        Largest number of lanes in training at once, as --hparam-batch-size.
    save_optuna_plots
        Also write the charts of the search as files.
    """
    if runner_hparam_batch_size is not None:
        if common.hparam_batch_size is not None:
            raise ValueError("--runner-hparam-batch-size and --hparam-batch-size are the same; give one")
        common = replace(common, hparam_batch_size=runner_hparam_batch_size)
    folder = folder_of("optuna-hp-search", common)
    divided = spread.asked(folder)
    if dry_run and not divided:
        raise ValueError("--dry-run shows how --tasks or --executor slurm divides the work; give one of them")
    start_jax("cpu" if spread.executor == "slurm" else common.device)
    from hyperlax import searches

    given = {
        "recipe": common.algo_and_network_config,
        "env": common.env_config,
        "n_trials": n_trials,
        "objective_names": objective_names or ([common.metric] if common.metric else []),
        "objective_directions": objective_directions or [],
        "sampler": sampler,
        "pruner": pruner,
        "trials_at_once": optuna_study_batch_size,
        "study_name": study_name,
        "storage": _for_all(storage) if divided else storage,
        "ranges": spaces(range_),
        "set": assignments(common.set_ or []),
        "run_length_modifier": common.run_length_modifier or "default",
        **common.settings(),
    }
    spec = searches.prepare(**given)
    if divided:
        code = _divided(spec, folder, given, common, spread, dry_run)
        if code is not None:
            return code
        from hyperlax.storage import store

        return _concluded(store.read(folder), spec, folder, common, save_optuna_plots)
    how = common.execution(folder=folder, resume=common.resume or common.resume_from is not None)
    searches.check(spec, how)
    return _search(spec, how, folder, common, save_optuna_plots)


def _search(spec: Any, how: Any, folder: Path, common: Common, pictures: bool) -> int:
    """Run the search and write its report; return the exit code."""
    from hyperlax import searches
    from hyperlax.run.signals import Interrupted

    shown = display(folder, common.log_level, common.save_logs)
    try:
        results = searches.run(spec, how, shown, command=["hyperlax", *sys.argv[1:]])
    except Interrupted as why:
        shown.close()
        return stopped(why)
    finally:
        shown.close()
        end_logging()
    return _concluded(results, spec, folder, common, pictures)


def _for_all(storage: str | None) -> str | None:
    """The storage to record in the plan that all processes read; raises `ValueError` for a password."""
    from hyperlax.searches import studies

    if storage is None:
        return None
    if studies.public(storage) != storage:
        raise ValueError(
            f"{studies.public(storage)} has a password, which would be written to sweep.json: leave it out, "
            "and put it into ~/.pgpass or PGPASSWORD, where the tasks find it"
        )
    return storage if "://" in storage else str(Path(storage).expanduser().absolute())


def _divided(
    spec: Any, folder: Path, given: dict[str, Any], common: Common, spread: Spread, dry_run: bool
) -> int | None:
    """Let processes share the study; return the exit code, or None if all is trained and merged."""
    from hyperlax import searches
    from hyperlax.cluster import planning, sweep

    resume = common.resume or common.resume_from is not None
    group = common.group_by_structural_hparams
    if sweep.read(folder) is None:
        searches.check(spec, common.execution(folder=folder, resume=resume))
    return spread_out(
        spread,
        folder,
        resume,
        dry_run,
        lambda: planning.asked_of_search(spec, group, given),
        lambda: planning.of_search(spec, folder, given, **spread.plan(common)),
        common.retrain_damaged,
    )


def _concluded(results: Any, spec: Any, folder: Path, common: Common, pictures: bool) -> int:
    """Draw the charts and write the report; return the exit code."""
    if pictures:
        from hyperlax.report import export_charts
        from hyperlax.report.charts.search import SEARCH_CHARTS

        export_charts(results, folder / "charts", ["svg"], charts=SEARCH_CHARTS)
    return conclude(results, folder, _found(results, spec, folder, common))


def _found(results: Any, spec: Any, folder: Path, common: Common) -> list[str]:
    """Sentences about the best trial: its hyperparameters, where they are stored, and how to use them."""
    from hyperlax.searches import outcome

    wanted = spec.schedule.search.objectives
    front = outcome.best(results.trials, wanted)
    if not front:
        return ["no trial was trained to its end: there is no best one"]
    recipe = folder.absolute() / "best_recipe.py"
    name = f"{recipe}:trial_{front[0]}" if len(wanted) > 1 else str(recipe)
    return [
        outcome.best_words(results.trials, wanted),
        outcome.chosen_words(results.trials, front[0], wanted),
        f"recipe: {recipe}",
        f"next: {calling.here('run-single-hp', *_again(name, spec, common))}",
    ]


def _again(name: str, spec: Any, common: Common) -> list[str]:
    """The flags that train the recipe called `name` as the trials of a search were, from fresh seeds."""
    objectives = [objective.name for objective in spec.schedule.search.objectives]
    metric = common.metric or (objectives[0] if objectives[0] in get_args(Metric) else None)
    values = {
        "run-length-modifier": common.run_length_modifier,
        "total-timesteps": common.total_timesteps,
        "seeds": common.seeds,
        "seed": spec.settings.seed + 1,
        "protocol": common.protocol,
        "metric": metric if len(objectives) == 1 else common.metric,
        "device": None if common.device == "auto" else common.device,
        "output-root": common.output_root,
    }
    flags = ["--algo-and-network-config", name, "--env-config", common.env_config]
    for flag, value in values.items():
        flags += [] if value is None else [f"--{flag}", str(value)]
    flags += [word for assigned in common.set_ or [] for word in ("--set", assigned)]
    return flags + ["--eval-at-start"] * common.eval_at_start
