"""The command line: parses, calls the Python API, prints. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from cyclopts import App, Parameter
from cyclopts.validators import Number

from hyperlax.files import experiment_path
from hyperlax.launch import display, end_logging, start_jax

USAGE, FAILED, INTERRUPTED, OUT_OF_TIME = 2, 1, 130, 75

app = App(
    name="hyperlax",
    help="Many reinforcement learning experiments in one compiled program.",
    help_epilogue="Recipes and environments: hyperlax list. Exit codes: 0 done, 1 some lanes failed, "
    "2 usage, 75 out of time and 130 interrupted, both with the state saved.",
    version_flags=["--version"],
    help_format="plaintext",
)

Positive = Annotated[int, Parameter(validator=Number(gte=1))]


@Parameter(name="*")
@dataclass
class Running:
    """Flags that everything that trains has."""

    run_length_modifier: str | None = None
    "quick, default, long, runtime_benchmark, or a number of environment steps. [default: default]"
    output_root: Path | None = None
    "Experiments go to <output-root>/<recipe>/<environment>, a benchmark to <output-root>.\
 [default: ./results/<command>]"
    seed: int | None = None
    "Seeds the sampler and training. [default: 42]"
    seeds: Positive | None = None
    "Lanes per sample. [default: what the run length says]"
    total_timesteps: Positive | None = None
    "Environment steps per lane. [default: what the run length says]"
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None
    "path=value: fixes a hyperparameter or training setting; repeatable."
    protocol: Literal["corrected", "published"] | None = None
    "The right way, or exactly as the published results were made. [default: corrected]"
    device: Literal["auto", "cpu", "gpu"] = "auto"
    "Where to run."
    eval_at_start: bool = False
    "Also evaluate before training."
    save_policies: Literal["best", "all", "none"] = "best"
    "Which trained policies to keep."
    hparam_batch_size: Positive | None = None
    "Most lanes in training at once. [default: what the machine has use and memory for]"
    group_by_structural_hparams: bool = False
    "One program for every distinct set of sizes: no padding, more compilation."
    resume: bool = False
    "Continue the experiment in the output folder."
    resume_from: Path | None = None
    "Continue the experiment in this folder."
    checkpoint_seconds: Annotated[float, Parameter(validator=Number(gte=0))] = 30.0
    "At most this much work is lost when the process is killed."
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    "What the terminal shows."
    save_logs: bool = True
    "Write hyperlax.log into the experiment's folder."

    def settings(self) -> dict[str, Any]:
        """What is given for every experiment, beside its recipe, environment and run length."""
        return {
            "seed": self.seed,
            "seeds": self.seeds,
            "total_timesteps": self.total_timesteps,
            "protocol": self.protocol,
            "eval_at_start": self.eval_at_start or None,
        }

    def execution(self, **more: Any) -> Any:
        """How to run it."""
        from hyperlax.execution import Execution

        return Execution(
            lanes_at_once=self.hparam_batch_size,
            group_by_sizes=self.group_by_structural_hparams,
            save_policies=self.save_policies,
            checkpoint_seconds=self.checkpoint_seconds,
            **more,
        )


@Parameter(name="*")
@dataclass
class Common(Running):
    """Flags that every command that trains one experiment has."""

    algo_and_network_config: str = "ppo_mlp"
    "Recipe: <algorithm>_<network>, a dotted name under configs/, or file.py:name."
    env_config: str = "gymnax.pendulum"
    "Environment: <framework>.<name>."


SamplingMethod = Literal["qmc_sobol", "random", "latin_hypercube", "halton", "grid"]
ExperimentType = Literal["independent_samples", "sobol_matrices_A_B_AB"]
Scheduler = Literal["none", "asha", "pbt"]


@app.command
def run_single_hp(*, common: Common = Common()) -> int:  # noqa: B008
    """Train one experiment with the recipe's default hyperparameters."""
    return _train("run-single-hp", common, {})


@app.command
def sweep_hp_samples(
    *,
    common: Common = Common(),  # noqa: B008
    num_samples: Positive = 8,
    sampling_method: SamplingMethod = "qmc_sobol",
    load_hyperparams: Path | None = None,
    experiment_type: ExperimentType = "independent_samples",
    omit_ab: bool = False,
    sequential: bool = False,
    scheduler: Scheduler = "none",
    confirm: Positive | None = None,
    confirm_seeds: Positive | None = None,
) -> int:
    """Draw hyperparameter samples and train all of them, with all their seeds, as lanes of few programs.

    Parameters
    ----------
    num_samples
        Samples to draw.
    sampling_method
        How to draw them.
    load_hyperparams
        Train the samples in this csv, json or parquet file instead of drawing any.
    experiment_type
        Independent samples, or the matrices of a variance-based sensitivity analysis, whose indices the
        report then shows.
    omit_ab
        Draw the matrices A and B only, from which no indices follow.
    sequential
        One lane at a time, for comparison: the same numbers, slower.
    scheduler
        Train all to the end, stop those that fall behind (asha: asynchronous successive halving), or let the
        worst go on from copies of the best with other hyperparameters (pbt: population-based training).
        Options: --set scheduler.reduction_factor=3 and minimum for asha; interval, quantile, factor and
        resample for pbt.
    confirm
        Train this many of the best samples again, from fresh seeds, when the sweep is done: what they score
        without the luck of being chosen. With --resume also for a sweep that is done already.
    confirm_seeds
        Lanes per confirmed sample. [default: as many as the sweep]
    """
    design = {
        "num_samples": num_samples,
        "sampling_method": sampling_method,
        "experiment_type": experiment_type,
        "omit_ab": omit_ab,
        "samples": load_hyperparams,
    }
    return _train("sweep-hp-samples", common, design, sequential, scheduler, (confirm, confirm_seeds))


@app.command
def inspect_circuit(
    *,
    algo_and_network_config: str = "ppo_drpqc",
    env_config: str = "gymnax.pendulum",
    network: str = "actor",
    layers: Annotated[list[Positive] | None, Parameter(consume_multiple=True, negative="")] = None,
    stacks: Annotated[list[Positive] | None, Parameter(consume_multiple=True, negative="")] = None,
    draws: Positive = 200,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    output_file: Path | None = None,
    diagram_file: Path | None = None,
    seed: int = 42,
) -> int:
    """What a circuit is before training: diagram, gates, gradient variance, entanglement, expressibility.

    Parameters
    ----------
    network
        Which of the algorithm's networks: actor or critic.
    layers
        Depths to compare. [default: 1 5 10 15]
    stacks
        Copies of the encoding wires to compare. [default: 1 2 3]
    draws
        Random initial weights and observations to measure over.
    set_
        path=value: fixes a hyperparameter; repeatable.
    output_file
        Also write the table (.csv) or the chart (.png, .svg, .pdf).
    diagram_file
        Also write a drawing of the smallest circuit (.svg, .png, .pdf).
    """
    from hyperlax import inspection

    _new_file("--output-file", output_file, ".csv", ".png", ".svg", ".pdf")
    _new_file("--diagram-file", diagram_file, ".svg", ".png", ".pdf")
    table, diagram, drawing = inspection.of_recipe(
        algo_and_network_config,
        env_config,
        network,
        layers or [1, 5, 10, 15],
        stacks or [1, 2, 3],
        draws,
        _assignments(set_ or []),
        seed,
    )
    print(diagram)
    inspection.show(table)
    if output_file is not None:
        inspection.save(table, output_file, f"{algo_and_network_config} {network} on {env_config}")
        print(f"written to {output_file}")
    if diagram_file is not None:
        inspection.save_diagram(drawing, diagram_file)
        print(f"written to {diagram_file}")
    return 0


@app.command
def generate_hp_samples(
    *,
    algo_and_network_config: str = "ppo_mlp",
    num_samples: Positive = 256,
    output_file: Path = Path("hyperparam_samples.csv"),
    sampling_method: SamplingMethod = "qmc_sobol",
    experiment_type: ExperimentType = "independent_samples",
    omit_ab: bool = False,
    seed: int = 42,
) -> int:
    """Write hyperparameter samples to a csv, json or parquet file; trains nothing."""
    import polars as pl

    from hyperlax import samplers
    from hyperlax.recipes import resolve

    _new_file("--output-file", output_file, ".csv", ".json", ".parquet")
    space = resolve(algo_and_network_config).search_space()
    if experiment_type == "sobol_matrices_A_B_AB":
        rows = samplers.saltelli(space, num_samples, seed, omit_ab)
    else:
        rows = samplers.design(space, num_samples, sampling_method, seed)
    frame = pl.DataFrame([{"sample": i, **row} for i, row in enumerate(rows)], infer_schema_length=None)
    output_file.parent.mkdir(parents=True, exist_ok=True)
    {".csv": frame.write_csv, ".json": frame.write_json, ".parquet": frame.write_parquet}[output_file.suffix](
        output_file
    )
    print(f"{len(rows)} samples of {len(frame.columns) - 1} columns written to {output_file}")
    return 0


@app.command
def run_benchmark(
    *,
    running: Running = Running(),  # noqa: B008
    base_config: str = "ppo_mlp_vs_drpqc",
    benchmark_name: str | None = None,
    algos: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    envs: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    sweep_modes: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    num_samples_per_run: Positive | None = None,
    sampling_method: SamplingMethod | None = None,
    dry_run: bool = False,
) -> int:
    """Train every recipe on every environment, each pair an experiment of its own, and compare them.

    Parameters
    ----------
    base_config
        Suite: a name in configs/suites.py, or file.py:name. What is given here wins over what it says.
    benchmark_name
        What the benchmark is called. [default: the suite's name]
    algos
        Recipes, as --algo-and-network-config of the other commands.
    envs
        Environments. Pairs that cannot be are listed and skipped.
    sweep_modes
        batched: as many lanes at once as the machine has use for; sequential: one by one, for comparison;
        optuna: a search instead of samples.
    num_samples_per_run
        Samples of every recipe's space, or trials of a search.
    sampling_method
        How to draw them.
    dry_run
        Only say what would be run, and predict how long that takes from a short calibration.
    """
    from hyperlax import suites

    if running.resume_from is not None:
        running.resume, running.output_root = True, running.resume_from
    given = {
        "algos": algos and tuple(algos),
        "envs": envs and tuple(envs),
        "modes": sweep_modes and tuple(sweep_modes),
        "samples": num_samples_per_run,
        "sampling": sampling_method,
        "run_length": running.run_length_modifier,
    }
    suite = suites.find(base_config)
    changes = {k: v for k, v in given.items() if v is not None}
    flags = [k for k, v in running.settings().items() if v is not None]
    suite = suite.changed(changes, _assignments(running.set_ or []), flags)
    name = benchmark_name or (base_config if not changes else "benchmark")
    folder = running.output_root or Path("results") / "run-benchmark" / name
    start_jax(running.device)
    return _benchmark(running, suite, folder, name, dry_run)


def _benchmark(running: Running, suite: Any, folder: Path, name: str, dry_run: bool) -> int:
    """Runs or only shows a suite; the exit code says whether cells have failed."""
    from rich.console import Console

    from hyperlax.benchmark import Benchmark
    from hyperlax.runner import Interrupted
    from hyperlax.terminal import cells_table

    console = Console(highlight=False)
    benchmark = Benchmark(suite, folder, name, running.resume, **running.settings())
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
    except Interrupted as stopped:
        return _stopped(stopped)
    finally:
        end_logging()
    console.print(cells_table(benchmark.outcome()))
    found = benchmark.results()
    if len(found) > 1:
        from hyperlax.report import write_comparison

        print(f"comparison: {write_comparison(found, folder / 'comparison.html')}")
    failed = {path: cell["reason"] for path, cell in ended.items() if cell["status"] == "failed"}
    for path, reason in failed.items():
        print(f"{path} failed: {reason}; log: {folder / path / 'hyperlax.log'}", file=sys.stderr)
    return FAILED if failed else 0


@app.command
def plot_benchmark(
    *,
    results_dir_to_plot: Path,
    format: Annotated[str, Parameter(name="--format")] = "html",
    top_n: Positive = 5,
    slice_metric: str = "peak_return",
    combined_only: bool = False,
    include_additional_info_in_titles: bool = False,
    max_workers: Positive = 1,
    compare: Path | None = None,
) -> int:
    """Write the report (and images) of every experiment in a folder, finished or still running.

    Parameters
    ----------
    results_dir_to_plot
        An experiment's folder, or any folder above some. Several experiments are also compared, in
        comparison.html.
    format
        What to write, separated by commas: html, png, svg, pdf.
    top_n
        How many of the best samples of an experiment are drawn together.
    slice_metric
        What slices and parallel coordinates show of a sample: a column of the report's table of samples.
    combined_only
        Only the comparison, no reports of single experiments.
    include_additional_info_in_titles
        Titles of images name the experiment, its samples, seeds, budget and protocol.
    max_workers
        Processes that draw experiments at the same time.
    compare
        Published results to compare with: a table with one row per cell (env, algo, network, samples,
        best_peak, ...), a summary with one row per sample (<env>_<algo>-<network>_summary.csv), or a folder
        of such files.
    """
    formats = [f.strip() for f in format.split(",")]
    if wrong := [f for f in formats if f not in ("html", "png", "svg", "pdf")]:
        raise ValueError(f"--format knows html, png, svg and pdf; got {', '.join(wrong)}")
    from hyperlax import store

    folders = store.find(results_dir_to_plot)
    from hyperlax import report
    from hyperlax.report import batch

    options = report.Options(top_n, slice_metric, include_additional_info_in_titles)
    published = report.read_published(compare) if compare is not None else None
    found, failed = batch.readable(folders)
    experiments = list(found.values())
    together = len(experiments) > 1 or published is not None
    if published is not None:
        report.check_published(experiments, published)
    if not combined_only:
        for folder, written, problem in batch.draw_all(found, formats, options, max_workers):
            for path in written:
                print(path)
            if problem:
                failed[folder] = problem
    if together and experiments:
        if "html" in formats:
            page = results_dir_to_plot / "comparison.html"
            print(report.write_comparison(experiments, page, top_n, published))
        if images := [f for f in formats if f != "html"]:
            charts = results_dir_to_plot / "charts"
            drawn = report.export_comparison(experiments, charts, images, options, published)
            print(*drawn, sep="\n")
    for folder, problem in failed.items():
        print(f"{folder} {problem}", file=sys.stderr)
    return FAILED if failed else 0


@app.command
def export(
    *,
    results_dir: Path,
    to: Literal["tensorboard", "wandb", "mlflow"],
    top_k: Annotated[int, Parameter(validator=Number(gte=0))] = 5,
    destination: str | None = None,
) -> int:
    """Write experiments for a tracker: a run for each, finished or running, and for its best samples.

    Parameters
    ----------
    results_dir
        An experiment's folder, or any folder above some.
    to
        Which tracker. They come with pip install "hyperlax[trackers]".
    top_k
        How many of the best samples of an experiment get a run of their own.
    destination
        A new folder; for mlflow also an address. [default: <results-dir>/<tracker>]
    """
    from hyperlax.exporters import export as write

    print(f"written; see it with: {write(results_dir, to, destination, top_k)}")
    return 0


@app.command(name="list")
def list_names() -> int:
    """Recipes and environments that can be named."""
    from hyperlax import envs, recipes

    print("recipes")
    for name in recipes.names():
        print(f"  {name}")
    print("environments (every gymnax id works as well; brax also with --set env.backend=...)")
    for name in envs.names():
        print(f"  {name}")
    return 0


def main(argv: list[str] | None = None) -> None:
    """Entry point of `hyperlax` and `python -m hyperlax`; exits with the codes of the module's help."""
    tokens = _booleans(sys.argv[1:] if argv is None else argv)
    try:
        code = app(tokens, exit_on_error=True, result_action="return_value")
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = USAGE
    except SystemExit as error:
        code = USAGE if error.code == 1 else error.code
    if code in (INTERRUPTED, OUT_OF_TIME):
        _leave(code)
    sys.exit(code or 0)


def _leave(code: int) -> NoReturn:
    """Exits without waiting for a compilation that may still run in another thread; everything is saved."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _booleans(tokens: list[str]) -> list[str]:
    """`--flag True` as `--flag=True`, which is how it has always been typed."""
    joined: list[str] = []
    for token in tokens:
        if token.lower() in ("true", "false") and joined and re.fullmatch(r"--[a-z][a-z-]*", joined[-1]):
            joined[-1] += f"={token}"
        else:
            joined.append(token)
    return joined


def _train(
    command: str,
    common: Common,
    design: dict[str, Any],
    sequential: bool = False,
    scheduler: Scheduler = "none",
    confirm: tuple[int | None, int | None] = (None, None),
) -> int:
    """Prepares, runs, confirms, reports; returns the exit code."""
    start_jax(common.device)
    from hyperlax import confirmation, sweeps
    from hyperlax.runner import Interrupted

    assigned = _assignments(common.set_ or [])
    schedule = _schedule(scheduler, assigned)
    spec = sweeps.prepare(
        common.algo_and_network_config,
        common.env_config,
        **design,
        schedule=schedule,
        set=assigned,
        run_length_modifier=common.run_length_modifier or "default",
        **common.settings(),
    )
    resume = common.resume or common.resume_from is not None
    folder = _folder(command, common)
    how = common.execution(folder=folder, resume=resume, sequential=sequential)
    sweeps.check(spec, how)
    wanted = confirmation.request(spec, folder, *confirm)
    shown = display(folder, common.log_level, common.save_logs)
    # What draws the report takes a second to import, while XLA compiles without the interpreter.
    threading.Thread(target=importlib.import_module, args=("hyperlax.report",), daemon=True).start()
    try:
        results = sweeps.run(spec, how, shown, command=["hyperlax", *sys.argv[1:]])
        if wanted is not None:
            shown.close()
            results = _confirm(results, wanted, how, common)
    except Interrupted as stopped:
        shown.close()
        return _stopped(stopped)
    finally:
        shown.close()
        end_logging()
    return _conclude(results, folder)


def _schedule(name: Scheduler, assigned: dict[str, str]) -> Any:
    """The schedule with its options, which are taken out of `assigned`; None to train all to the end."""
    given = {k: assigned.pop(k) for k in list(assigned) if k.startswith("scheduler.")}
    if name == "none":
        if given:
            raise ValueError(
                f"--set {next(iter(given))} is for sweep-hp-samples with --scheduler asha or pbt"
            )
        return None
    from hyperlax import schedules

    return schedules.load(name, {k.removeprefix("scheduler."): v for k, v in given.items()})


def _confirm(results: Any, wanted: tuple[int, int], how: Any, common: Common) -> Any:
    """The results with their confirmation. Their report is there first, should this be interrupted."""
    from hyperlax import confirmation, store
    from hyperlax.report import write_report

    write_report(results, results.folder / "report.html")
    if not confirmation.chosen(results, wanted[0]):
        print("nothing to confirm: no sample has an evaluation", file=sys.stderr)
        return results
    shown = display(results.folder / store.CONFIRMATION, common.log_level, common.save_logs)
    try:
        command = ["hyperlax", *sys.argv[1:]]
        return confirmation.confirm(results, *wanted, execution=how, progress=shown, command=command)
    finally:
        shown.close()


def _stopped(why: Any) -> int:
    """Says how to go on; the exit code of an interrupted run."""
    import signal

    print(f"{why}; state saved, continue with --resume", file=sys.stderr)
    return INTERRUPTED if why.signum == signal.SIGINT else OUT_OF_TIME


def _conclude(results: Any, folder: Path, more: Sequence[str] = ()) -> int:
    """Writes the report, prints the leaderboard and `more`, and says what to do next."""
    from rich.console import Console

    from hyperlax.report import leaderboard, selection_bias, write_report
    from hyperlax.report.lineage import explored
    from hyperlax.terminal import best_words, confirmed_table, leaderboard_table

    console = Console(highlight=False)
    with console.status("writing the report"):
        report = write_report(results, folder / "report.html")
        board = leaderboard(results)
    if board["peak_return"].count():
        console.print(leaderboard_table(board, results.samples.height))
        if not more and (best := best_words(board, results.samples)):
            console.print(best)
            if explored(results):
                console.print("(its values at the start: the report shows how they changed)", style="dim")
    if (confirmed := results.confirmation) is not None:
        write_report(confirmed, confirmed.folder / "report.html")
        console.print(confirmed_table(selection_bias(results)))
    lanes = results.lanes["status"]
    counts = {s: int((lanes == s).sum()) for s in ("done", "diverged", "pruned", "failed")}
    console.print(
        ", ".join(f"{n} {s}" for s, n in counts.items() if n)
        + f" in {results.manifest['timings']['wall_seconds']:.1f} s"
    )
    if counts["diverged"] == len(lanes):
        console.print("every lane diverged: try smaller learning rates (--set actor_lr=1e-4)", style="yellow")
    for line in more:
        console.print(line, soft_wrap=True)
    console.print(f"report: {report}", soft_wrap=True)
    console.print(
        f"next: hyperlax plot-benchmark --results-dir-to-plot {folder} --format png  (the charts as images)",
        soft_wrap=True,
    )
    parts = [results, confirmed] if confirmed is not None else [results]
    return FAILED if sum(_failures(part) for part in parts) else 0


def _failures(results: Any) -> int:
    """How many lanes have failed; prints why."""
    for lane, error in results.manifest["timings"]["errors"].items():
        of = " of the confirmation" if results.manifest.get("confirms") else ""
        print(f"lane {lane}{of} failed: {error}", file=sys.stderr)
    return int((results.lanes["status"] == "failed").sum())


def _new_file(flag: str, path: Path | None, *suffixes: str) -> None:
    """Raises `ValueError` for a file that exists, or of a kind that cannot be written."""
    if path is None:
        return
    if path.suffix not in suffixes:
        raise ValueError(f"{flag} {path} must end in {', '.join(suffixes[:-1])} or {suffixes[-1]}")
    if path.exists():
        raise ValueError(f"{path} exists; remove it or choose another {flag}")


def _assignments(pairs: list[str]) -> dict[str, str]:
    assigned = {}
    for pair in pairs:
        path, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not path:
            raise ValueError(f"--set needs path=value, got {pair!r}")
        if path in assigned:
            raise ValueError(f"--set {path} is given twice: {assigned[path]!r} and {value!r}")
        assigned[path] = value
    return assigned


def _folder(command: str, common: Common) -> Path:
    root = common.resume_from or common.output_root or Path("results") / command
    if (root / "manifest.json").exists():
        return root
    if common.resume_from is not None and not root.is_dir():
        raise FileNotFoundError(f"nothing to resume: {root} does not exist")
    return root / experiment_path(common.algo_and_network_config, common.env_config)


importlib.import_module("hyperlax.cli_search")
"""Adds its command to `app`."""
