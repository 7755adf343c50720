"""Benchmark suites, whose cells are the combinations of recipes, environments and modes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hyperlax import envs, sweeps
from hyperlax.experiments.execution import Execution
from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.recipes import configs_folder, resolve
from hyperlax.hyperparams.samplers import sampler_class
from hyperlax.programs.plan import Program
from hyperlax.registry import Registry, built_in, load_file, location, nearest
from hyperlax.registry.limits import within
from hyperlax.run.display import Display
from hyperlax.storage.files import experiment_path
from hyperlax.storage.results import Results


@dataclass(frozen=True)
class Rule:
    """An exception for those cells of a suite whose recipe and environment match.

    - `algo`, `env`: patterns of names, in which `*` stands for any characters.
    - `settings`: settings and hyperparameters as given to `--set`. They override those of the suite, and
      those of later rules override those of earlier ones.
    - `skip`: the reason why matching cells are not run; None to run them.
    """

    algo: str = "*"
    env: str = "*"
    settings: dict[str, Any] = field(default_factory=dict)
    skip: str | None = None

    def matches(self, algo: str, env: str) -> bool:
        return _fits(algo, self.algo) and _fits(env, self.env)


def _fits(name: str, pattern: str) -> bool:
    """Whether `name` is as `pattern` says; brackets are those of options, `brax.ant[backend=mjx]`."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL) is not None


@dataclass(frozen=True)
class Suite:
    """The experiments of a benchmark, one cell for every combination of recipe, environment and mode.

    - `algos`, `envs`, `modes`: names of recipes, of environments, and of modes in `MODES`.
    - `samples`: how many samples to draw from the space of every recipe; `sampling` names the method.
    - `run_length`: the length of the experiments, as given to `--run-length-modifier`.
    - `settings`: settings and hyperparameters for all cells, as given to `--set`.
    - `rules`: exceptions for some of the cells.

    Raises `ValueError` for empty or repeated names, unknown modes and less than one sample.
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
            if isinstance(given, str):
                raise ValueError(f"{name} must be a tuple of names, got {given!r}")
            if not given:
                raise ValueError(f"a benchmark needs at least one name in {name}")
            if twice := sorted({x for x in given if given.count(x) > 1}):
                raise ValueError(f"{twice[0]} is named twice in {name}")
        if wrong := [m for m in self.modes if m not in MODES]:
            known = f"known: {', '.join(MODES)}"
            raise ValueError(f"unknown sweep mode {wrong[0]}{nearest(wrong[0], MODES, known)}")
        object.__setattr__(self, "samples", within("samples", self.samples))
        sampler_class(self.sampling)

    def changed(
        self, changes: Mapping[str, Any], settings: Mapping[str, Any], given_otherwise: Iterable[str]
    ) -> Suite:
        """The suite with the fields in `changes` replaced and `settings` added.

        `settings` override those of the suite and of its rules. The settings named in `given_otherwise` come
        from flags of their own, and are therefore removed from the suite and its rules.
        """
        dropped = {*settings, *given_otherwise}
        keep = lambda old: {k: v for k, v in old.items() if k not in dropped}  # noqa: E731
        rules = tuple(dataclasses.replace(r, settings=keep(r.settings)) for r in self.rules)
        return dataclasses.replace(
            self, **{"rules": rules, "settings": {**keep(self.settings), **settings}, **changes}
        )


@dataclass(frozen=True)
class Cell:
    """One experiment of a suite; `skipped` is the reason why it is not run, or None when it is."""

    recipe: str
    env: str
    mode: str
    skipped: str | None = None

    @property
    def name(self) -> str:
        return f"{self.recipe} on {self.env}, {self.mode}"

    @property
    def path(self) -> Path:
        """The folder of the cell, relative to the folder of the benchmark."""
        return self.mode / experiment_path(self.recipe, self.env)


def _prepare_sweep(suite: Suite, recipe: str, env: str, **arguments: Any) -> Experiment:
    """A sweep over the samples that the suite draws."""
    return sweeps.prepare(recipe, env, num_samples=suite.samples, sampling_method=suite.sampling, **arguments)


def _run_sweep(
    spec: Experiment,
    how: Execution,
    progress: Display,
    command: Sequence[str] | None,
    programs: list[Program],
) -> Results:
    return sweeps.run(spec, how, progress, command, programs)


def _prepare_search(suite: Suite, recipe: str, env: str, **arguments: Any) -> Experiment:
    """A search with as many trials as other modes have samples."""
    from hyperlax import searches  # imported late, because importing Optuna takes a second

    return searches.prepare(recipe, env, n_trials=suite.samples, **arguments)


def _run_search(
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
    """A way to run the cells of a suite.

    - `prepare`: makes the experiment of a cell from suite, recipe, environment and settings.
    - `run`: runs it with the programs that were planned for it together with those of other cells.
    - `sequential`: whether lanes are trained one at a time, as in `Execution`.
    - `searches`: whether it optimises what `prepare` is then given as `objective_names`.
    """

    prepare: Callable[..., Experiment] = _prepare_sweep
    run: Callable[[Experiment, Execution, Display, Sequence[str] | None, list[Program]], Results] = _run_sweep
    sequential: bool = False
    searches: bool = False


MODES = {
    "batched": Mode(),
    "sequential": Mode(sequential=True),
    "optuna": Mode(_prepare_search, _run_search, searches=True),
}


SUITES: Registry[Suite] = built_in.SUITES
"""Suites that installed packages bring."""


def restored(about: Mapping[str, Any]) -> Suite:
    """The suite whose fields were written to JSON."""
    names = {name: tuple(about[name]) for name in ("algos", "envs", "modes")}
    return Suite(**{**about, **names, "rules": tuple(Rule(**rule) for rule in about["rules"])})


def find(name: str) -> Suite:
    """The suite called `name`: in `configs/suites.py`, of a package, or in a user's file, `file.py:name`.

    The file holds it in its dictionary `SUITES`, or as an object; with a single suite, `:name` may be left
    out. Raises `ValueError` when the file does not exist or holds no such suite.
    """
    shipped: dict[str, Suite] = load_file(configs_folder() / "suites.py").SUITES
    if name in shipped and name not in SUITES:
        return shipped[name]
    if name in SUITES or location(name) is not None:
        return SUITES.resolve(name)
    known = f"known: {', '.join(names())}"
    raise ValueError(f'unknown suite "{name}"{nearest(name, names(), known)}')


def taken(name: str) -> str | None:
    """Say what else goes by the name of a suite that a package brings; None if nothing does."""
    shipped = load_file(configs_folder() / "suites.py").SUITES
    return "configs/suites.py of hyperlax" if name in shipped else None


def names() -> list[str]:
    """Every suite that has a name of its own."""
    return list(dict.fromkeys([*load_file(configs_folder() / "suites.py").SUITES, *SUITES]))


def cells(suite: Suite) -> list[Cell]:
    """All cells of `suite`; those that are impossible or excluded by a rule have the reason in `skipped`.

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


def prepare(suite: Suite, cell: Cell, metric: str | None = None, **given: Any) -> Experiment:
    """Build and check the experiment of a cell; `given` holds further settings of the experiment.

    `metric` is the headline metric of its reports, which a search optimises (None: that of its protocol).

    Raises `ValueError`, naming the cell, for invalid settings or hyperparameters.
    """
    settings, mode = dict(suite.settings), MODES[cell.mode]
    for rule in suite.rules:
        if rule.matches(cell.recipe, cell.env):
            settings |= rule.settings
    if mode.searches and metric is not None:
        given["objective_names"] = [metric]
    try:
        return mode.prepare(
            suite, cell.recipe, cell.env, run_length_modifier=suite.run_length, set=settings, **given
        )
    except ValueError as error:
        raise ValueError(f"{cell.name}: {error}") from None
