"""Commands that train one experiment."""

from __future__ import annotations

import importlib
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from hyperlax.commands.ending import conclude, stopped
from hyperlax.commands.flags import (
    Common,
    Names,
    Place,
    Ranges,
    Scheduler,
    assignments,
    folder_of,
    limited,
    spaces,
)
from hyperlax.commands.launch import display, end_logging, start_jax
from hyperlax.commands.spread import Spread, spread_out
from hyperlax.registry.built_in import SCHEDULES


def run_single_hp(*, common: Common = Common()) -> int:  # noqa: B008
    """Train one experiment with the recipe's default hyperparameters."""
    return train("run-single-hp", common, {})


def sweep_hp_samples(
    *,
    common: Common = Common(),  # noqa: B008
    spread: Spread = Spread(),  # noqa: B008
    dry_run: bool = False,
    num_samples: Annotated[int | None, limited("num_samples")] = None,
    sampling_method: str = "qmc_sobol",
    load_hyperparams: Place | None = None,
    search_only: Names = None,
    range_: Ranges = None,
    ablate: Annotated[list[str] | None, Parameter(negative="")] = None,
    experiment_type: str = "independent_samples",
    omit_ab: bool = False,
    sequential: bool = False,
    scheduler: Scheduler = "none",
    confirm: Annotated[int | None, limited("best")] = None,
    confirm_seeds: Annotated[int | None, limited("seeds")] = None,
) -> int:
    """Draw hyperparameter samples and train all of them, with all their seeds, as lanes of few programs.

    Parameters
    ----------
    dry_run
        With --tasks or --executor slurm: only say what would be run, and print the script.
    num_samples
        Samples to draw. [default: 8]
    sampling_method
        How to draw them: a sampling method that `hyperlax list` shows.
    load_hyperparams
        Train the samples in this csv, json or parquet file, as they are, instead of drawing any; the run
        length quick then makes no networks small.
    search_only
        Hyperparameters to search, such as critic_lr; all others keep their defaults.
    ablate
        path=value,value: trains every sample with each of these values, all else equal, random keys too; the
        report shows the differences in pairs. Repeatable; every combination is trained.
    experiment_type
        independent_samples, or sobol_matrices_A_B_AB: the matrices of a variance-based sensitivity analysis,
        whose indices the report then shows.
    omit_ab
        Draw the matrices A and B only, from which no indices follow.
    sequential
        Train one lane at a time, for comparison: the same numbers, slower.
    scheduler
        Train all to the end, stop those that fall behind (asha: asynchronous successive halving), or let the
        worst go on from copies of the best with other hyperparameters (pbt: population-based training).
        Options are given as --set scheduler.OPTION=VALUE: reduction_factor and minimum for asha; interval,
        quantile, factor and resample for pbt. Or a schedule of your own, file.py:Name.
    confirm
        Train this many of the best samples again, from fresh seeds, when the sweep is done: what they score
        without the luck of being chosen. With --resume also for a sweep that is done already.
    confirm_seeds
        Lanes per confirmed sample. [default: as many as the sweep]
    """
    from hyperlax.hyperparams.design import parsed

    design = {
        "num_samples": 8 if num_samples is None and load_hyperparams is None else num_samples,
        "sampling_method": sampling_method,
        "experiment_type": experiment_type,
        "omit_ab": omit_ab,
        "samples": load_hyperparams,
        "search_only": search_only,
        "ranges": spaces(range_),
        "ablate": parsed(ablate) if ablate else None,
    }
    how = (confirm, confirm_seeds)
    if sequential and common.hparam_batch_size is not None:
        print("--hparam-batch-size has no effect: --sequential trains one lane at a time", file=sys.stderr)
    return train("sweep-hp-samples", common, design, sequential, scheduler, how, spread, dry_run)


def train(
    command: str,
    common: Common,
    design: dict[str, Any],
    sequential: bool = False,
    scheduler: Scheduler = "none",
    confirm: tuple[int | None, int | None] = (None, None),
    spread: Spread | None = None,
    dry_run: bool = False,
) -> int:
    """Prepare, run, confirm and report; return the exit code."""
    divided = spread is not None and spread.asked(folder_of(command, common))
    if dry_run and not divided:
        raise ValueError("--dry-run shows how --tasks or --executor slurm divides the work; give one of them")
    start_jax("cpu" if spread is not None and spread.executor == "slurm" else common.device)
    from hyperlax import sweeps
    from hyperlax.run.signals import Interrupted
    from hyperlax.studies import confirmation

    assigned = assignments(common.set_ or [])
    options = {k: assigned.pop(k) for k in list(assigned) if k.startswith("scheduler.")}
    given = {
        "recipe": common.algo_and_network_config,
        "env": common.env_config,
        **design,
        "set": assigned,
        "run_length_modifier": common.run_length_modifier or "default",
        **common.settings(),
    }
    spec = sweeps.prepare(**given, schedule=_schedule(scheduler, options))
    resume = common.resume or common.resume_from is not None
    folder = folder_of(command, common)
    how = common.execution(folder=folder, resume=resume, sequential=sequential)
    sweeps.check(spec, how)
    if divided:
        assert spread is not None
        code = _divided(spec, folder, given, (scheduler, options), sequential, common, spread, dry_run)
        if code is not None:
            return code
        how = common.execution(folder=folder, resume=True, sequential=sequential)
    wanted = confirmation.request(spec, folder, *confirm)
    shown = display(folder, common.log_level, common.save_logs)
    # What draws the report takes a second to import, while XLA compiles without the interpreter.
    threading.Thread(target=importlib.import_module, args=("hyperlax.report",), daemon=True).start()
    try:
        results = sweeps.run(spec, how, shown, command=["hyperlax", *sys.argv[1:]])
        if wanted is not None:
            shown.close()
            results = _confirm(results, wanted, how, common, spec)
    except Interrupted as why:
        shown.close()
        return stopped(why)
    finally:
        shown.close()
        end_logging()
    return conclude(results, folder)


def _divided(
    spec: Any,
    folder: Path,
    given: dict[str, Any],
    scheduler: tuple[str, dict[str, str]],
    sequential: bool,
    common: Common,
    spread: Spread,
    dry_run: bool,
) -> int | None:
    """Let processes share the work; return the exit code, or None if all is trained and merged."""
    from hyperlax.cluster import planning

    resume = common.resume or common.resume_from is not None
    group = common.group_by_structural_hparams
    name, options = scheduler
    named = None if name == "none" else (name, {k.removeprefix("scheduler."): v for k, v in options.items()})
    return spread_out(
        spread,
        folder,
        resume,
        dry_run,
        lambda: planning.asked_of_experiment(spec, group, sequential),
        lambda: planning.of_experiment(
            spec, folder, Path("."), given, named, sequential=sequential, **spread.plan(common)
        ),
        common.retrain_damaged,
    )


def _schedule(name: Scheduler, given: dict[str, str]) -> Any:
    """The schedule with the options that are `given` for it; None to train all to the end."""
    if name == "none":
        if given:
            raise ValueError(
                f"--set {next(iter(given))} is for sweep-hp-samples with --scheduler {' or '.join(SCHEDULES)}"
            )
        return None
    from hyperlax import schedules

    return schedules.load(name, {k.removeprefix("scheduler."): v for k, v in given.items()})


def _confirm(results: Any, wanted: tuple[int, int], how: Any, common: Common, spec: Any) -> Any:
    """The results with their confirmation; their report is written before, in case this is interrupted."""
    from hyperlax.report import write_report
    from hyperlax.storage import store
    from hyperlax.studies import confirmation

    write_report(results, results.folder / store.REPORT)
    if not confirmation.best_samples(results, wanted[0]):
        print("nothing to confirm: no sample has an evaluation", file=sys.stderr)
        return results
    shown = display(results.folder / store.CONFIRMATION, common.log_level, common.save_logs)
    try:
        command = ["hyperlax", *sys.argv[1:]]
        named = {"algorithm": spec.recipe.algorithm, "network": spec.recipe.network, "env": spec.env_name}
        return confirmation.confirm(results, *wanted, **named, execution=how, progress=shown, command=command)
    finally:
        shown.close()
