"""Predicting how long experiments take, from measured short programs and the planner's work estimates."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from hyperlax.agents import costs
from hyperlax.experiments.execution import Execution
from hyperlax.experiments.experiment import Experiment
from hyperlax.hyperparams import stack
from hyperlax.programs import lockstep
from hyperlax.programs.budget import cycle_steps
from hyperlax.programs.compiled import Compiled, identity
from hyperlax.programs.orders import blank_orders
from hyperlax.programs.plan import Machine, Program, plan
from hyperlax.run.compiling import Compiler
from hyperlax.run.display import Display
from hyperlax.storage.wording import counted

CALIBRATION_SECONDS = 30.0
"""Time limit for measuring: once it is exceeded, no further program is measured."""
RUN_SECONDS = 1.0
"""Approximate time for which a measured program is run."""
LOW_COMPILES_FASTER, LOW_RUNS_SLOWER = 4.0, 6.0
"""Ratios of compilation time and of run time between fully and little optimised programs."""
CELL_SECONDS = 4.0
"""Time that an experiment takes for anything but its programs: starting, saving, writing the report."""
BORROWED = "~"
"""What marks a prediction from the rates of other cells in a table."""
MEASURED_WITHIN, BORROWED_WITHIN = 2.0, 4.0
"""Factors that bound the error of most predictions, from a cell's own rates and from other cells' rates."""

Work = tuple[Experiment, list[Program], Execution, float]
"""A cell to predict: the experiment, its programs, how it is run, and the share of its env steps left."""


@dataclass(frozen=True)
class Rates:
    """Measured speeds.

    - `compilation`: seconds per unit of compilation (`costs.compilation`).
    - `work`: operations of training per second and device; on an accelerator, whose lanes run in lockstep,
      seconds of training as predicted from counts of kernels (`programs.lockstep`), per second.
    - `evaluation`: seconds that one step of the evaluation episodes takes per lane of a device.
    """

    compilation: float
    work: float
    evaluation: float

    @staticmethod
    def mean(rates: list[Rates]) -> Rates:
        """The geometric mean of each speed over `rates`."""
        middle = lambda name: math.exp(np.mean([math.log(getattr(r, name)) for r in rates]))  # noqa: E731
        return Rates(middle("compilation"), middle("work"), middle("evaluation"))


@dataclass(frozen=True)
class Prediction:
    """Predicted seconds of a cell by phase; most true values lie within a factor of `within` of them."""

    compilation: float
    training: float
    evaluation: float
    within: float

    @property
    def seconds(self) -> float:
        return CELL_SECONDS + self.compilation + self.training + self.evaluation

    def words(self) -> dict[str, str]:
        """Columns of a table row; `BORROWED` marks a prediction from the rates of other cells."""
        sign = f"{BORROWED} " if self.within == BORROWED_WITHIN else ""
        return {
            "compile": duration(self.compilation),
            "train": duration(self.training),
            "evaluate": duration(self.evaluation),
            "predicted": sign + duration(self.seconds),
        }


_rates: dict[_Kind, Rates] = {}
"""The rates measured in this process so far."""


class Predictor:
    """Predictions for cells that run one after the other in this process, starting with nothing compiled.

    Measures programs of as many kinds of cells as `CALIBRATION_SECONDS` allows: first those that bring a new
    network, algorithm or environment, then those with the least work. A cell of a kind that was not measured
    takes the mean of the measured rates that are closest to it: those of its network if there are any, and
    among these those of its mode, framework and algorithm.
    """

    def __init__(self, cells: Mapping[Any, Work]):
        began = time.perf_counter()
        self.cells, self.errors = cells, {}
        self.known = {cell: _kind(work) for cell, work in cells.items()}
        self._work = {cell: _training_work(work) for cell, work in cells.items()}
        self.measured = 0
        waiting = list(cells)
        while waiting and (self.measured == 0 or time.perf_counter() - began < CALIBRATION_SECONDS):
            best = max(waiting, key=self._priority)
            waiting.remove(best)
            if (kind := self.known[best]) in _rates:
                continue
            try:
                _rates[kind] = calibrate(*cells[best][:3])
                self.measured += 1
            except (MemoryError, RuntimeError) as error:
                self.errors[best] = f"cannot be measured: {error}"
        self.seconds = time.perf_counter() - began

    def _priority(self, cell: Any) -> tuple[int, float]:
        """Sort key: how many of network, algorithm and environment are new, then the least work."""
        kind = self.known[cell]
        unknown = [
            getattr(kind, n) not in {getattr(k, n) for k in _rates} for n in ("network", "family", "env")
        ]
        return sum(unknown), -self._work[cell]

    def all(self) -> dict[Any, Prediction | str]:
        """The prediction of every cell, or the reason why there is none.

        The compilation of a shared program counts for the first cell that needs it.
        """
        compiled: set[Hashable] = set()
        out: dict[Any, Prediction | str] = {}
        for cell, work in self.cells.items():
            if cell in self.errors:
                out[cell] = self.errors[cell]
                continue
            rates, within = self._rates_of(cell)
            out[cell] = predict(work, rates, within, compiled)
        return out

    def summary(self) -> str:
        """A sentence with the total time, its likely range and how it was measured."""
        found = [p for p in self.all().values() if isinstance(p, Prediction)]
        total, low, high = (
            duration(sum(f(p) for p in found))
            for f in (
                lambda p: p.seconds,
                lambda p: p.seconds / p.within,
                lambda p: p.seconds * p.within,
            )
        )
        return (
            f"predicted: roughly {total} in total, between {low} and {high}, on this machine under its "
            "current load and with nothing compiled before "
            f"({counted(self.measured, 'short program')} measured in {duration(self.seconds)})"
        )

    def _rates_of(self, cell: Any) -> tuple[Rates, float]:
        """The rates to predict `cell` with, and the factor that bounds the error of most predictions."""
        kind = self.known[cell]
        if kind in _rates:
            return _rates[kind], MEASURED_WITHIN
        alike = [(k, r) for k, r in _rates.items() if k.network == kind.network] or [*_rates.items()]
        for name in ("alone", "framework", "family"):
            alike = [(k, r) for k, r in alike if getattr(k, name) == getattr(kind, name)] or alike
        return Rates.mean([r for _, r in alike]), BORROWED_WITHIN


def duration(seconds: float | int) -> str:
    """`seconds` rounded to two digits, with a suitable unit."""
    for unit, size, most in (("s", 1, 100), ("min", 60, 100), ("h", 3600, 48), ("days", 86400, math.inf)):
        if (amount := seconds / size) < most:
            return f"{amount:.1f} {unit}" if 0 < amount < 9.95 else f"{amount:.0f} {unit}"
    raise ValueError(f"not a duration: {seconds}")


def predict(work: Work, rates: Rates, within: float, compiled: set[Hashable]) -> Prediction:
    """Predict the time of one cell; programs that it is the first to need are added to `compiled`."""
    spec, programs, how, left = work
    devices = jax.local_devices()
    compiling = 0.0
    for program in programs:
        key = (identity(program, spec.base, spec.env_name, spec.env, spec.settings), _alone(how))
        if left > 0 and key not in compiled:
            compiled.add(key)
            faster = LOW_COMPILES_FASTER if _hardly_optimised(program) else 1
            units = costs.compilation(program.caps, spec.env, program.accelerator)
            compiling += rates.compilation * units / faster
    lanes = sum(len(p.samples) for p in programs) * spec.settings.seeds
    busy = 1 if how.sequential else min(len(devices), max(lanes, 1))
    training_on = 1 if any(p.accelerator for p in programs) else busy  # lockstep reckons with all devices
    slower = lambda p: LOW_RUNS_SLOWER if _hardly_optimised(p) else 1.0  # noqa: E731
    training = sum(slower(p) * _program_work(spec, p, how) for p in programs)
    s, longest = spec.settings, spec.env.max_episode_steps
    marks = len(s.milestones())
    steps = (marks + bool(marks) * s.fresh_repeats(longest)) * longest
    watched = sum(slower(p) * len(p.samples) for p in programs) * spec.settings.seeds * steps
    return Prediction(
        compiling,
        left * training / rates.work / training_on,
        left * watched * rates.evaluation / busy,
        within,
    )


def calibrate(spec: Experiment, programs: list[Program], how: Execution) -> Rates:
    """Measure the rates of a cell: compile and briefly run a program for one typical sample.

    The sample is the one of median work in the cell's program with the most work. Raises `RuntimeError` when
    its lanes diverge at once.
    """
    heaviest = max(programs, key=lambda p: _program_work(spec, p, how))
    trees = spec.trees or spec.schedule.trees_to_plan(spec)
    members = sorted(heaviest.samples or range(len(trees)), key=lambda i: _sample_work(spec, trees[i]))
    tree = trees[members[len(members) // 2]]
    devices = jax.local_devices()
    machine = Machine.of(devices[0].platform, len(devices))
    (alone,) = plan([tree], spec.env, spec.settings.total_timesteps, spec.settings.seeds, machine)
    alone = replace(alone, samples=heaviest.samples, effort=heaviest.effort)
    with _compiled_anew():
        compiler = Compiler(spec, devices, [alone], replace(how, folder=None, resume=False), Display())
        compiler.cache = {}
        compiled = compiler(0)
    slower, faster = (LOW_RUNS_SLOWER, LOW_COMPILES_FASTER) if _hardly_optimised(alone) else (1.0, 1.0)
    seconds = (compiled.trace_seconds + compiled.compile_seconds) * faster
    work, evaluation = _run(compiled, spec, tree, alone)
    units = costs.compilation(alone.caps, spec.env, alone.accelerator)
    return Rates(seconds / units, work * slower, evaluation / slower)


def _run(compiled: Compiled, spec: Experiment, tree: Any, program: Program) -> tuple[float, float]:
    """Run `compiled`; returns `Rates.work` and `Rates.evaluation` as measured."""
    slots, used = compiled.slots, len(compiled.copies)
    orders = replace(blank_orders(tree, slots), hp=stack([tree] * slots), fresh=np.ones(slots, bool))
    orders.key[:, 1] = orders.init_key[:, 1] = np.arange(slots)
    orders.total_steps[:] = spec.settings.total_timesteps
    state = compiled.start(compiled.empty_state(), orders)
    parts = program.iterations(tree)
    if program.accelerator:
        cycle = parts * _lockstep_seconds(spec, program, tree, compiled.per_device)
    else:
        cycle = compiled.per_device * program.work(tree, spec.env)
    cycles, rate, trained = 1, 0.0, lambda: int(compiled.read(state, lambda s: s.cycles).sum())
    while True:
        warm = int(compiled.read(state, lambda s: s.gradient_steps).sum()) > 0
        before, began = trained(), time.perf_counter()
        state = jax.block_until_ready(compiled.train(state, np.full(slots, parts * cycles, np.int32)))
        taken = time.perf_counter() - began
        done = trained() - before
        rate = done / slots * cycle / taken if done else rate
        if not done or (warm and taken >= RUN_SECONDS / 2):
            break
        if warm:  # cycles before the first gradient step are too cheap to extrapolate from
            cycles *= int(np.clip(RUN_SECONDS / max(taken, 1e-3), 1, 16))
    if not rate:
        raise RuntimeError("its lanes diverge immediately")
    began, every = time.perf_counter(), np.ones(slots, bool)
    state, _, lengths, _ = compiled.evaluate(state, every, every)
    watched = time.perf_counter() - began
    return rate, watched * used / slots / max(int(lengths.max()), 1)


@contextmanager
def _compiled_anew() -> Iterator[None]:
    """Disable the persistent compilation cache, so that the measured compilation time is the full one."""
    from jax.experimental.compilation_cache import compilation_cache

    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


class _Kind(NamedTuple):
    """The properties of a cell on which its rates depend; cells of one kind have the same rates."""

    family: Any
    network: frozenset[str]
    env: str
    framework: str
    alone: bool
    lanes_at_once: int | None


def _kind(work: Work) -> _Kind:
    spec, _, how, _ = work
    network = frozenset(name.partition(".")[2] for name in spec.base.sizes() if "." in name)
    framework = spec.env_name.partition(".")[0]
    family = jax.tree.structure(spec.base)
    return _Kind(family, network, spec.env_name, framework, _alone(how), how.lanes_at_once)


def _alone(how: Execution) -> bool:
    """Whether lanes run one at a time in programs of a single lane; on a CPU all modes share programs."""
    return how.sequential and jax.local_devices()[0].platform != "cpu"


def _hardly_optimised(program: Program) -> bool:
    """Whether a program is compiled faster into slower code, for which only CPUs have options."""
    return program.effort == "low" and not program.accelerator


def _training_work(work: Work) -> float:
    """The work of training all lanes of a cell."""
    spec, programs, how, _ = work
    return sum(_program_work(spec, p, how) for p in programs)


def _program_work(spec: Experiment, program: Program, how: Execution) -> float:
    """The work of training all lanes of a program, in the unit of `Rates.work`."""
    trees = spec.trees or spec.schedule.trees_to_plan(spec)
    sizes = [trees[i].sizes() for i in program.samples]
    cycles = [spec.settings.last_step(cycle_steps(s)) // cycle_steps(s) for s in sizes]
    if program.accelerator:
        taken = [n * costs.iterations(size, program.caps) for n, size in zip(cycles, sizes, strict=True)]
        lanes = [n for n in taken for _ in range(spec.settings.seeds)]
        most = 1 if how.sequential else how.lanes_at_once or len(lanes)
        slots = min(program.slots or len(lanes), most)
        devices, rate = len(jax.local_devices()), Machine.planned("gpu").rate
        return sum(lockstep.training_seconds(trees[0], program.caps, spec.env, lanes, slots, devices, rate))
    arithmetic = trees[0].arithmetic(program.caps, spec.env)
    costs_of = [costs.cycle_work(s, program.caps, arithmetic)[0] for s in sizes]
    return spec.settings.seeds * sum(n * cost for n, cost in zip(cycles, costs_of, strict=True))


def _lockstep_seconds(spec: Experiment, program: Program, tree: Any, lanes: int) -> float:
    """Seconds of an iteration of so many `lanes` on one accelerator, as the planner predicts them."""
    machine = Machine.planned("gpu")
    return sum(lockstep.iteration_seconds(tree, program.caps, spec.env, lanes, machine.rate))


def _sample_work(spec: Experiment, tree: Any) -> float:
    """Operations of one training cycle of the sample `tree` in a program of its own sizes."""
    sizes = tree.sizes()
    return tree.work(sizes, tree.capacities([sizes], [1], spec.env), spec.env)[0]
