"""The command that searches with Optuna."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from hyperlax.commands.ending import conclude, stopped
from hyperlax.commands.flags import Common, Names, assignments, folder_of, limited
from hyperlax.commands.launch import display, end_logging, start_jax


def optuna_hp_search(
    *,
    common: Common = Common(),  # noqa: B008
    study_name: str = "hyperlax_optuna_study",
    storage: str | None = None,
    n_trials: Annotated[int, limited("n_trials")] = 100,
    objective_names: Names = None,
    objective_directions: Names = None,
    sampler: str = "tpe",
    pruner: str = "none",
    optuna_study_batch_size: Annotated[int | None, limited("trials_at_once")] = None,
    runner_hparam_batch_size: Annotated[int | None, limited("lanes_at_once")] = None,
    save_optuna_plots: bool = True,
) -> int:
    """Search the space with Optuna: each trial is trained with all its seeds, a new one starts when one ends.

    Parameters
    ----------
    study_name
        What the study is called in the storage.
    storage
        An Optuna URL (postgresql://..., sqlite:///...) or a journal file. Processes with the same storage and
        study name, each with an --output-root of its own, work on one study; --resume joins it.
        [default: study.journal in the experiment's folder]
    n_trials
        Trials in all, also after --resume and over all processes.
    objective_names
        What to optimise; several make a Pareto front. Any metric of the report. [default: --metric]
    objective_directions
        maximize or minimize, one for all or one for each. [default: what is better]
    sampler
        tpe, nsgaii, random, qmc, cmaes or gp.
    pruner
        none, median, hyperband or asha: whether trials that do badly stop early.
    optuna_study_batch_size
        Trials in training at a time. [default: what the machine has use for]
    runner_hparam_batch_size
        Most lanes in training at once, as --hparam-batch-size.
    save_optuna_plots
        Also write the pictures of the search as files.
    """
    if runner_hparam_batch_size is not None:
        if common.hparam_batch_size is not None:
            raise ValueError("--runner-hparam-batch-size and --hparam-batch-size are the same; give one")
        common = replace(common, hparam_batch_size=runner_hparam_batch_size)
    start_jax(common.device)
    from hyperlax import searches

    spec = searches.prepare(
        common.algo_and_network_config,
        common.env_config,
        n_trials=n_trials,
        objective_names=objective_names or ([common.metric] if common.metric else []),
        objective_directions=objective_directions or [],
        sampler=sampler,
        pruner=pruner,
        trials_at_once=optuna_study_batch_size,
        study_name=study_name,
        storage=storage,
        set=assignments(common.set_ or []),
        run_length_modifier=common.run_length_modifier or "default",
        **common.settings(),
    )
    folder = folder_of("optuna-hp-search", common)
    how = common.execution(folder=folder, resume=common.resume or common.resume_from is not None)
    searches.check(spec, how)
    return _search(spec, how, folder, common, save_optuna_plots)


def _search(spec: Any, how: Any, folder: Path, common: Common, pictures: bool) -> int:
    """Runs and reports; the exit code."""
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
    if pictures:
        from hyperlax.report import export_charts
        from hyperlax.report.charts.search import SEARCH_CHARTS

        export_charts(results, folder / "charts", ["svg"], charts=SEARCH_CHARTS)
    return conclude(results, folder, _found(results, spec, folder))


def _found(results: Any, spec: Any, folder: Path) -> list[str]:
    """The best trial, its hyperparameters, where they are, and what to do with them."""
    from hyperlax.searches import outcome

    wanted = spec.schedule.search.objectives
    front = outcome.best(results.trials, wanted)
    if not front:
        return ["no trial was trained to its end: there is no best one"]
    recipe = folder / "best_recipe.py"
    name = f"{recipe}:trial_{front[0]}" if len(wanted) > 1 else str(recipe)
    protocol = " --protocol published" if spec.settings.protocol == "published" else ""
    return [
        outcome.best_words(results.trials, wanted),
        outcome.chosen_words(results.trials, front[0], wanted),
        f"recipe: {recipe}",
        f"next: hyperlax run-single-hp --algo-and-network-config {shlex.quote(name)} "
        f"--env-config {shlex.quote(spec.env_name)}{protocol} --seed {spec.settings.seed + 1}"
        "  (the best again, with fresh seeds)",
    ]
