"""The Python entry point: draws samples, plans programs, trains every lane, returns what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import polars as pl

from hyperlax import envs
from hyperlax.experiments import experiment as experiments
from hyperlax.experiments.execution import Execution
from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.given import layered, sample_rows, split
from hyperlax.experiments.machine import set_up_jax
from hyperlax.experiments.memory import device_memory
from hyperlax.experiments.ranges import ranged
from hyperlax.experiments.recipes import Recipe, resolve
from hyperlax.experiments.settings import Settings, run_length
from hyperlax.experiments.shape import shape, shape_difference
from hyperlax.hyperparams import assign, fields, samplers
from hyperlax.hyperparams.design import ablated
from hyperlax.programs.plan import Machine, Program, plan
from hyperlax.programs.stored import stored_plan
from hyperlax.registry import sources
from hyperlax.run.compiling import Compiler
from hyperlax.run.display import Display
from hyperlax.run.recording import Recorder
from hyperlax.run.runner import Runner
from hyperlax.run.terminal import shown
from hyperlax.schedules import Schedule
from hyperlax.schedules.base import saved_state
from hyperlax.storage import patience, places, store
from hyperlax.storage.claims import Superseded
from hyperlax.storage.results import SCHEMAS, Results
from hyperlax.storage.shareable import shareable
from hyperlax.storage.store import Store
from hyperlax.typecheck import public

RUNNING = ("execution", "folder", "resume", "progress")
"""Parameters of `sweep` and `search` that say how to run an experiment; all others describe it."""


@public
def prepare(
    recipe: str | Recipe,
    env: str,
    *,
    num_samples: int | None = None,
    sampling_method: samplers.Method = "qmc_sobol",
    experiment_type: str = samplers.INDEPENDENT,
    omit_ab: bool = False,
    samples: Any = None,
    search_only: Sequence[str] | None = None,
    ablate: Mapping[str, Sequence[Any]] | None = None,
    ranges: Mapping[str, Any] | None = None,
    set: Mapping[str, Any] | None = None,
    run_length_modifier: str | int = "default",
    schedule: Schedule | None = None,
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
) -> Experiment[Schedule]:
    """The experiment that `sweep` would run with these parameters, checked, before anything is created.

    `sweep` describes them. Raises `ValueError`, with the fix, for bad input.
    """
    settings = {k: v for k, v in locals().items() if k in Settings.__dataclass_fields__}
    set_up_jax()
    name = recipe if isinstance(recipe, str) else recipe.name
    found = resolve(recipe) if isinstance(recipe, str) else recipe
    known = {f.path: f for f in fields(found.hyperparams())}
    fixed, changes, options = split(set or {}, known)
    env = envs.with_options(env, options)
    length = run_length(run_length_modifier)
    given = {k: v for k, v in settings.items() if v is not None}
    if twice := sorted(changes.keys() & given.keys()):
        raise ValueError(
            f"{twice[0]} is given twice: --set {twice[0]}={changes[twice[0]]} and {given[twice[0]]}"
        )
    asked = layered(found, length, changes, given)
    prescribed = found.published_recipe(env).space if asked.get("protocol") == "published" else {}
    if ranges and samples is not None:
        raise ValueError(
            "a range is for samples that are drawn; those that are given are trained as they are"
        )
    spaces = ranged(found, ranges or {}, fixed, ablate, search_only)
    if run_length_modifier == "quick" and samples is None:
        found = found.quick_recipe()
    found = found.with_space({**prescribed, **spaces})
    if search_only and samples is not None:
        raise ValueError(
            "search_only is for samples that are drawn; those that are given are trained as they are"
        )
    found = found.searching(search_only) if search_only else found
    chosen = Settings().updated(asked)
    assign(found.hyperparams(), fixed)
    rows: list[dict[str, Any]] = []
    if schedule is None or not schedule.grows:
        how = (num_samples, sampling_method, experiment_type, omit_ab, samples)
        rows = sample_rows(found, known, fixed, chosen, *how, {"ranges": ranges, "search_only": search_only})
        rows = ablated(rows, ablate, known, fixed) if ablate else rows
    return experiments.build(name, found, env, chosen, rows, fixed, schedule or Schedule())


@public
def sweep(
    recipe: str | Recipe = "ppo_mlp",
    env: str = "gymnax.pendulum",
    *,
    num_samples: int | None = None,
    sampling_method: samplers.Method = "qmc_sobol",
    experiment_type: str = samplers.INDEPENDENT,
    omit_ab: bool = False,
    samples: Any = None,
    search_only: Sequence[str] | None = None,
    ablate: Mapping[str, Sequence[Any]] | None = None,
    ranges: Mapping[str, Any] | None = None,
    set: Mapping[str, Any] | None = None,
    run_length_modifier: str | int = "default",
    schedule: Schedule | None = None,
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
    """Train every sample with every seed as a lane, in as few programs as is worthwhile; return the results.

    What is trained. Without `num_samples` or `samples` it is the recipe's defaults, as a single sample.

    - `recipe`: a name (`ppo_mlp`, `ppo+my.py:ResidualMLP`, a dotted name, `file.py:name`) or a `Recipe`.
    - `env`: the name of an environment (`gymnax.pendulum`, `my.py:MyEnv[gravity=9.8]`).
    - `num_samples`: how many samples of the recipe's space to draw.
    - `sampling_method`: how to draw them: a name in `hyperlax.hyperparams.samplers.METHODS`, `file.py:Name`,
      a class derived from `AbstractSampler`, or such a sampler with a space of its own.
    - `experiment_type`: `independent_samples`, or `sobol_matrices_A_B_AB` for a sensitivity analysis; with
      `omit_ab` only the matrices A and B.
    - `samples`: the samples themselves, as a table, a list of dicts or a csv, json or parquet file; `quick`
      does not make their networks and batches small.
    - `search_only`: the hyperparameters to search, all others as they are by default.
    - `ablate`: dotted path → values to compare. Every sample is trained with each of them and the same random
      keys, so that the report and `hyperlax.plot.differences` can pair lanes by sample and seed.
    - `ranges`: dotted path → the ends of its space, on its usual scale: `{"actor_lr": (1e-4, 1e-2)}`, or
      `(1e-4, 1e-2, "linear")`; of a choice the values; or a space such as `LogUniform(1e-4, 1e-2)`. It is
      searched even if the recipe fixes it.
    - `set`: values that are the same for all samples, by dotted path; also settings, and `env.<option>`.
    - `run_length_modifier`: `quick`, `default`, `long`, `runtime_benchmark`, or a number of env steps.
    - `schedule`: what stops or changes lanes while they train, such as `hyperlax.schedules.ASHA()`.

    Its settings. Those that are None follow from the run length (see `Settings`).

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

    How it is run.

    - `execution`: how to run it; `folder` and `resume` are its most used fields, given directly.
    - `progress`: True shows a bar and the best lanes so far, or lines where there is no terminal; nothing by
      default. A display of your own is a subclass of `hyperlax.run.display.Display`.

    Raises `ValueError` for bad input before anything is created, `Interrupted` after SIGINT, SIGTERM,
    SIGHUP, SIGUSR1 or SIGUSR2 with the state saved.
    """
    # first, while the parameters are all that there is
    described = {k: v for k, v in locals().items() if k not in RUNNING}
    how = (execution or Execution()).at(folder, resume)
    spec = prepare(**described)
    with shown(progress) as display:
        return run(spec, how, display)


@patience.patient()
def run(
    spec: Experiment[Schedule],
    how: Execution | None = None,
    progress: Display | None = None,
    command: Sequence[str] | None = None,
    programs: Sequence[Program] | None = None,
) -> Results:
    """Run a prepared experiment; `command` is what the manifest says it was started with.

    `programs`: a plan made together with other experiments', instead of one of its own.
    """
    how, progress = how or Execution(), progress or Display()
    target = check(spec, how)
    devices = jax.local_devices()
    machine = Machine.of(devices[0].platform, len(devices))
    manifest = spec.manifest(command)
    saved_state(spec.schedule)  # what cannot be saved is refused before anything is created
    # Without `resume` nothing is taken over: a process that has begun since the check owns the folder.
    stored = store.recovered_manifest(target) if target is not None and how.resume else None
    if stored is not None:
        trees = {} if spec.schedule.grows else {s.place: s.tree for s in spec.records.values()}
        programs = stored_plan(stored.get("plan"), trees, spec.base, spec.env, device_memory())
        manifest = {
            **stored,
            **shareable(spec.schedule.manifest()),
            "resumed": [*stored.get("resumed", []), manifest["created"]],
        }
        manifest["shapes"] = _shapes(stored, how)
        manifest |= _with_code(stored, spec)
    else:
        programs = list(programs or ())
        programs = programs or _plan(spec, spec.schedule.trees_to_plan(spec), how.group_by_sizes)
    if spec.schedule.grows:
        programs = [replace(p, samples=()) for p in programs]
    if stored is None:
        manifest |= {"plan": _described(programs), "shapes": [shape()]}
    if how.metric is not None:
        manifest["metric"] = how.metric
    keeper = _owned(target, manifest, spec, stored is None) if target is not None else None
    compiler = Compiler(spec, devices, programs, how, progress)
    single = lambda tree: _plan(spec, [tree], False)[0]  # noqa: E731
    runner = Runner(spec, programs, compiler, Recorder(keeper), progress, how, single)
    try:
        resumed = runner.restore()
    except ValueError:
        if keeper is not None:
            keeper.withdraw()
        raise
    spec.notes[:0] = keeper.notes if keeper is not None else []
    progress.planned(spec, programs, machine, resumed)
    try:
        runner.run()
    except Superseded:
        raise
    except BaseException as error:
        _note_timings(manifest, runner, compiler)
        if keeper is not None:
            keeper.write_manifest(manifest)
        if isinstance(error, ValueError):
            raise RuntimeError(f"the run failed: {error}") from error
        raise
    _note_timings(manifest, runner, compiler)
    if keeper is None:
        rows = runner.recorder.rows
        frames: dict[str, Any] = {k: pl.DataFrame(v, schema=SCHEMAS[k]) for k, v in rows.items()}
        return Results(manifest, spec.samples, lanes=runner.roster.frame(), **frames)
    keeper.complete(manifest)
    return store.read(keeper.folder)


def _owned(target: Path, manifest: Mapping[str, Any], spec: Experiment[Schedule], fresh: bool) -> Store:
    """The store in the folder `target`, which this process owns from now on, with manifest and samples."""
    keeper, samples = Store(target), None if spec.schedule.grows else spec.samples
    if fresh:
        keeper.begin(manifest, samples)
    else:
        keeper.take(samples)
    return keeper


def _plan(spec: Experiment[Schedule], trees: Sequence[Any], group_by_sizes: bool) -> list[Program]:
    """Plan programs for the hyperparameters `trees`, as `programs.plan` does."""
    s, machine = spec.settings, Machine.planned(jax.local_devices()[0].platform)
    most = 1 if spec.schedule.one_program else machine.most(spec.schedule.grows)
    changing = spec.schedule.grows or spec.schedule.one_program
    varying = spec.recipe.search_space() if changing else ()
    return plan(trees, spec.env, s.total_timesteps, s.seeds, machine, most, group_by_sizes, varying)


def _shapes(stored: Mapping[str, Any], how: Execution) -> list[dict[str, str]]:
    """The shapes that a run has been executed in, the present one included if there is something to train."""
    before, here = list(stored.get("shapes", [])), shape()
    return before if here in before or not _trains(stored, how) else [*before, here]


def _with_code(stored: Mapping[str, Any], spec: Experiment[Schedule]) -> dict[str, Any]:
    """Entries of the manifest of a run that is continued with changed code: its digests, and a note."""
    identity, code = dict(stored.get("identity", {})), spec.identity().get(experiments.CODE)
    if not (files := sources.changed(identity.get(experiments.CODE), code)):
        return {}
    note = f"{', '.join(files)} changed while this was trained: it was continued with {sources.ANY_CODE}=1"
    identity[experiments.CODE] = code
    return {"identity": identity, "notes": [*stored.get("notes", []), note]}


def _trains(stored: Mapping[str, Any], how: Execution) -> bool:
    """Whether the stored experiment may have lanes left to train."""
    return not stored.get("complete") or how.retrain_damaged


def _described(programs: Sequence[Program]) -> list[dict[str, Any]]:
    """The entries of the manifest for a plan, JSON-ready."""
    return [{"program": i, **p.describe()} for i, p in enumerate(programs)]


def _note_timings(manifest: dict[str, Any], runner: Runner, compiler: Compiler) -> None:
    """Add durations, errors, causes of loss and the measured memory of programs to the manifest.

    What was noted before the run was continued stays; of errors those of lanes that are still failed.
    """
    before = manifest.get("timings", {})
    failed = {str(lane.lane) for lane in runner.lanes if lane.status == "failed"}
    errors = {lane: error for lane, error in before.get("errors", {}).items() if lane in failed}
    manifest["timings"] = {
        "wall_seconds": round(runner.now(), 3),
        "compile_seconds": round(compiler.seconds + before.get("compile_seconds", 0), 3),
        "programs": [*before.get("programs", []), *compiler.report],
        "errors": {**errors, **{str(k): shareable(v) for k, v in runner.errors.items()}},
        "causes": {str(lane.lane): lane.cause for lane in runner.lanes if lane.cause},
    }
    measured = {e["program"]: e["memory_mb_per_lane"] for e in manifest["plan"] if "memory_mb_per_lane" in e}
    measured |= {number: round(size / 2**20, 3) for number, size in compiler.memory.items()}
    manifest["plan"] = [
        {**entry, "memory_mb_per_lane": measured[entry["program"]]} if entry["program"] in measured else entry
        for entry in _described(runner.programs)
    ]


def check(spec: Experiment[Schedule], how: Execution) -> Path | None:
    """Return the folder to write to; raise `ValueError` if the experiment cannot be run so, or not there."""
    if how.group_by_sizes and spec.schedule.one_program:
        raise ValueError(
            "lanes copy one another only within a program, and --group-by-structural-hparams asks for many; "
            "leave it out"
        )
    target = check_folder(spec, how.folder, how.resume)
    stored = store.recovered_manifest(target) if target is not None else None
    if stored is not None and _trains(stored, how) and not how.any_device:
        before = stored.get("shapes", [])
        if before and (differing := shape_difference(before[-1], shape())):
            raise ValueError(
                f"{target} cannot be continued here bit for bit:\n  "
                + "\n  ".join(differing)
                + "\ncontinue it where it began, or with --any-device, whose results are equal up to rounding"
            )
    return target


def check_folder(spec: Experiment[Schedule], folder: str | Path | None, resume: bool) -> Path | None:
    """Return the folder to write to; raise `ValueError` if it holds something not to be overwritten."""
    if folder is None:
        return None
    target = places.writable(folder)
    stored = store.recovered_manifest(target) if resume else store.read_manifest(target)
    if stored is None:
        if not store.nothing_begun(target):
            raise ValueError(f"{target} is not empty and holds no experiment; choose another --output-root")
        if resume and not target.exists():
            raise ValueError(f"nothing to resume: {target} holds no experiment")
        return target
    differing = experiments.difference(stored.get("identity", {}), spec.identity())
    if differing and not spec.schedule.grows:
        differing += experiments.sample_difference(store.read_samples(target, stored), spec.samples)
    if differing:
        action = "cannot be resumed with other settings" if resume else "already holds another experiment"
        raise ValueError(f"{target} {action}:\n  " + "\n  ".join(differing))
    if not resume:
        raise ValueError(
            f"{target} already holds this experiment; continue it with --resume, or choose another folder"
        )
    return target
