"""Benchmark suites: algorithms × environments × modes, each combination a cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hyperlax import envs, sweeps
from hyperlax.experiments.execution import Execution
from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.recipes import configs_folder, load_file, resolve
from hyperlax.hyperparams import nearest
from hyperlax.hyperparams.samplers import sampler_class
from hyperlax.programs.plan import Program
from hyperlax.run.display import Display
from hyperlax.storage.files import experiment_path
from hyperlax.storage.results import Results


@dataclass(frozen=True)
class Rule:
    """What is special about some cells of a suite: those whose recipe and environment match.

    - `algo`, `env`: patterns with `*` for any characters.
    - `settings`: as `--set`; they win over the suite's, and those of later rules over earlier ones.
    - `skip`: why these cells are not to be run.
    """

    algo: str = "*"
    env: str = "*"
    settings: dict[str, Any] = field(default_factory=dict)
    skip: str | None = None

    def matches(self, algo: str, env: str) -> bool:
        return fnmatchcase(algo, self.algo) and fnmatchcase(env, self.env)


@dataclass(frozen=True)
class Suite:
    """What a benchmark runs.

    - `algos`: recipes; `envs`: environments; `modes`: of `MODES`. Every combination is a cell.
    - `samples` of every recipe's space, drawn by `sampling`.
    - `run_length` as `--run-length-modifier`; `settings` as `--set`, for all cells.
    - `rules`: what is special about some of them.
    """

    algos: tuple[str, ...]
    envs: tuple[str, ...]
    modes: tuple[str, ...] = ("batched",)
    samples: int = 16
    sampling: str = "qmc_sobol"
    run_length: str = "default"
    settings: dict[str, Any] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()

    def __post_init__(self):
        for name in ("algos", "envs", "modes"):
            given = getattr(self, name)
            if isinstance(given, str) or not given:
                raise ValueError(f"a benchmark needs at least one of {name}, as a tuple of names")
            if twice := sorted({x for x in given if given.count(x) > 1}):
                raise ValueError(f"{twice[0]} is named twice in {name}")
        if wrong := [m for m in self.modes if m not in MODES]:
            raise ValueError(
                f"unknown sweep mode {wrong[0]}{nearest(wrong[0], MODES)}; known: {', '.join(MODES)}"
            )
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1, got {self.samples}")
        sampler_class(self.sampling)

    def changed(
        self, changes: Mapping[str, Any], settings: Mapping[str, Any], given_otherwise: Iterable[str]
    ) -> Suite:
        """The suite with other fields and further settings, which win over its own and its rules'.

        So do those that are `given_otherwise`, by flags of their own.
        """
        dropped = {*settings, *given_otherwise}
        keep = lambda old: {k: v for k, v in old.items() if k not in dropped}  # noqa: E731
        rules = tuple(dataclasses.replace(r, settings=keep(r.settings)) for r in self.rules)
        return dataclasses.replace(
            self, **{"rules": rules, "settings": {**keep(self.settings), **settings}, **changes}
        )


@dataclass(frozen=True)
class Cell:
    """One experiment of a suite, and why it is not one (`skipped`) where it is none."""

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


def _drawn(suite: Suite, recipe: str, env: str, **arguments: Any) -> Experiment:
    """The samples of a suite."""
    return sweeps.prepare(recipe, env, num_samples=suite.samples, sampling_method=suite.sampling, **arguments)


def _run(
    spec: Experiment,
    how: Execution,
    progress: Display,
    command: Sequence[str] | None,
    programs: list[Program],
) -> Results:
    return sweeps.run(spec, how, progress, command, programs)


def _searched(suite: Suite, recipe: str, env: str, **arguments: Any) -> Experiment:
    """A search of as many trials as other modes have samples."""
    from hyperlax import searches  # Optuna takes a second to import

    return searches.prepare(recipe, env, n_trials=suite.samples, **arguments)


def _search(
    spec: Experiment,
    how: Execution,
    progress: Display,
    command: Sequence[str] | None,
    programs: list[Program],
) -> Results:
    from hyperlax import searches

    return searches.run(spec, how, progress, command, programs)


@dataclass(frozen=True)
class Mode:
    """How the experiment of a cell is prepared (from suite, recipe, environment and settings) and run.

    `sequential` is that of `Execution`; `programs` are planned for it together with those of other cells.
    """

    prepare: Callable[..., Experiment] = _drawn
    run: Callable[[Experiment, Execution, Display, Sequence[str] | None, list[Program]], Results] = _run
    sequential: bool = False


MODES = {"batched": Mode(), "sequential": Mode(sequential=True), "optuna": Mode(_searched, _search)}


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
    """Every combination, those marked that cannot be or are not wanted.

    Raises `ValueError` for unknown names, and for recipes whose folders would be the same.
    """
    loaded = {name: envs.load(name) for name in suite.envs}
    recipes = {name: resolve(name) for name in suite.algos}
    found = []
    for mode in suite.modes:
        for name, recipe in recipes.items():
            for env in suite.envs:
                unwanted = [r.skip for r in suite.rules if r.skip and r.matches(name, env)]
                impossible = recipe.hyperparams().supports(loaded[env].action_space)
                found.append(Cell(name, env, mode, impossible or (unwanted[0] if unwanted else None)))
    owners: dict[Path, Cell] = {}
    for cell in found:
        if (other := owners.setdefault(cell.path, cell)) is not cell:
            raise ValueError(f"{other.name} and {cell.name} would share the folder {cell.path}; rename one")
    return found


def prepare(suite: Suite, cell: Cell, **given: Any) -> Experiment:
    """The experiment of a cell, checked; `ValueError` names the cell."""
    settings = dict(suite.settings)
    for rule in suite.rules:
        if rule.matches(cell.recipe, cell.env):
            settings |= rule.settings
    try:
        return MODES[cell.mode].prepare(
            suite, cell.recipe, cell.env, run_length_modifier=suite.run_length, set=settings, **given
        )
    except ValueError as error:
        raise ValueError(f"{cell.name}: {error}") from None
