"""The command that trains many experiments."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from hyperlax import leaving
from hyperlax.commands.ending import FAILED, stopped
from hyperlax.commands.flags import Names, Running, assignments, check_places, limited
from hyperlax.commands.launch import display, end_logging, start_jax
from hyperlax.commands.spread import Spread, spread_out
from hyperlax.registry import short_name

ROOT = Path("results") / "run-benchmark"
"""The folder of all benchmarks for which no other is given."""
SUITE = "ppo_mlp_vs_drpqc"
"""The suite that is trained if no other is named."""


def run_benchmark(
    *,
    running: Running = Running(),  # noqa: B008
    spread: Spread = Spread(),  # noqa: B008
    base_config: str = SUITE,
    benchmark_name: str | None = None,
    algos: Names = None,
    envs: Names = None,
    sweep_modes: Names = None,
    num_samples_per_run: Annotated[int | None, limited("num_samples")] = None,
    sampling_method: str | None = None,
    dry_run: bool = False,
) -> int:
    """Train every recipe on every environment, each pair an experiment of its own, and compare them.

    Parameters
    ----------
    base_config
        Suite: a name in configs/suites.py, or file.py:name. Flags given here override it.
    benchmark_name
        Name of the benchmark. [default: the suite's name]
    algos
        Recipes, as --algo-and-network-config of the other commands.
    envs
        Environments. Recipes that cannot act in one of them are listed, and these pairs are skipped.
    sweep_modes
        batched: as many lanes at once as the machine can use; sequential: one by one, for comparison;
        optuna: a search instead of samples.
    num_samples_per_run
        Samples of every recipe's space, or trials of a search.
    sampling_method
        How to draw them: a sampling method that `hyperlax list` shows.
    dry_run
        Only say what would be run, and predict how long that takes from a short calibration; with --executor
        slurm, print the script.
    """
    from hyperlax.studies import suites

    check_places(running)
    if running.resume_from is not None:
        running.resume, running.output_root = True, running.resume_from
    given = {
        "algos": None if algos is None else tuple(algos),
        "envs": None if envs is None else tuple(envs),
        "modes": None if sweep_modes is None else tuple(sweep_modes),
        "samples": num_samples_per_run,
        "sampling": sampling_method,
        "run_length": running.run_length_modifier,
    }
    suite = suites.find(base_config)
    changes = {k: v for k, v in given.items() if v is not None}
    flags = [k for k, v in running.settings().items() if v is not None]
    if sampling_method is not None:
        _check_sampling(sweep_modes or suite.modes)
    suite = suite.changed(changes, assignments(running.set_ or []), flags)
    name = named(base_config, benchmark_name, bool(changes))
    folder = running.output_root or ROOT / name
    divided = spread.asked(folder)
    start_jax("cpu" if spread.executor == "slurm" else running.device)
    if divided:
        from hyperlax.cluster import planning

        settings, group = running.settings(), running.group_by_structural_hparams
        code = spread_out(
            spread,
            folder,
            running.resume,
            dry_run,
            lambda: planning.asked_of_suite(suite, settings, group),
            lambda: planning.of_suite(suite, folder, name, settings, **spread.plan(running)),
            running.retrain_damaged,
        )
        if code is not None:
            return code
        running.resume = True
    return _benchmark(running, suite, folder, name, dry_run)


def named(base_config: str, benchmark_name: str | None, changed: bool) -> str:
    """The name of a benchmark, usable as a folder's; `changed`: whether flags replace parts of the suite."""
    return benchmark_name or ("benchmark" if changed else short_name(base_config))


def _check_sampling(modes: Sequence[str]) -> None:
    """Refuse a sampling method that no mode uses, and note the modes that ignore it."""
    drawing = [mode for mode in modes if mode != "optuna"]
    if not drawing:
        raise ValueError(
            "--sampling-method is for samples that are drawn, and in the sweep mode optuna the search "
            "proposes them; leave it out, or add the mode batched"
        )
    if len(drawing) < len(modes):
        print(f"--sampling-method is for {', '.join(drawing)}; in optuna the search proposes samples")


def _benchmark(running: Running, suite: Any, folder: Path, name: str, dry_run: bool) -> int:
    """Run or only show a suite; the exit code says whether cells have failed."""
    from rich.console import Console

    from hyperlax.commands.tables import cells_table
    from hyperlax.run.signals import Interrupted
    from hyperlax.studies.benchmark import Benchmark

    console = Console(highlight=False, markup=False)  # an environment may be called x[speed=2]
    benchmark = Benchmark(suite, folder, name, running.resume, running.metric, **running.settings())
    if dry_run:
        with console.status("planning, and measuring a few short programs"):
            predictor = benchmark.predict(running.execution())
        console.print(cells_table(benchmark.plan(running.group_by_structural_hparams, predictor)))
        console.print(predictor.summary())
        return 0
    console.print(cells_table(benchmark.plan(running.group_by_structural_hparams)))

    def show(cell: Any, at: Path) -> Any:
        console.print(f"\n{cell.name}", style="bold")
        return display(at, running.log_level, running.save_logs)

    try:
        ended = benchmark.run(running.execution(), show, command=["hyperlax", *sys.argv[1:]])
    except Interrupted as why:
        return stopped(why)
    finally:
        end_logging()
    console.print(cells_table(benchmark.outcome()))
    found = benchmark.results()
    if len(found) > 1:
        from hyperlax.report import comparable, write_comparison
        from hyperlax.report.comparison import sentences

        for sentence in sentences(comparable(found)):
            console.print(sentence)
        print(f"comparison: {write_comparison(found, folder / 'comparison.html')}")
    leaving.from_now_on(None)
    failed = {path: cell["reason"] for path, cell in ended.items() if cell["status"] == "failed"}
    for path, reason in failed.items():
        print(f"{path} failed: {reason}; log: {folder / path / 'hyperlax.log'}", file=sys.stderr)
    return FAILED if failed else 0
