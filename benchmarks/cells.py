"""How long the cells of a benchmark suite take here, from short runs of their real programs.

    python benchmarks/cells.py [--suite NAME] [--cells PATTERN ...] [--seconds S] [--predict]
    python benchmarks/cells.py --planned gpu [--tasks N] [--suite NAME] [--cells PATTERN ...]

Every program of a cell is compiled and trains all of its lanes, as a sweep does, for about `--seconds`; then
the run is given up, and the time for all env steps follows from how fast each lane advanced. As lanes that
end leave time to the others, that is an upper bound, up to one cycle of the lane that advanced least
(`cycles`). Evaluations are in it as far as some fell into the run (`evaluations`), that of the final weights
and checkpoints are not. Cells are named like `ppo_mlp on gymnax.cartpole`, and a pattern may hold `*`. With
`--predict` it is instead what `run-benchmark --dry-run` predicts for all cells, and with `--list` their
names. Prints a line of JSON for every program once it is measured, and one in the end.

With `--planned`, nothing runs: it is what the cost model of plans expects of one device of that platform,
which need not be here (`programs/lockstep.py`). Prints a table and writes `benchmarks/out/planned.json`: per
cell its programs, the share of what they launch that is useful, hours in which kernels wait for one another
and hours of arithmetic, and hours of compilation by one core after the other; in the last columns the hours
of the cell in a single process, which compiles several programs at a time while others train, and in
`--tasks` processes on the same device.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import jax
from common import save, table

from hyperlax import sweeps
from hyperlax.agents import costs
from hyperlax.cluster.sharing import MOST_PROCESSES
from hyperlax.experiments.execution import Execution
from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.samples import Lane
from hyperlax.programs import lockstep
from hyperlax.programs.budget import cycles_of
from hyperlax.programs.compiled import Compiled
from hyperlax.programs.plan import Machine, Program, plan
from hyperlax.run.compiling import MOST_AT_A_TIME
from hyperlax.run.display import Display
from hyperlax.studies import suites
from hyperlax.studies.benchmark import Benchmark
from hyperlax.studies.prediction import Prediction
from hyperlax.studies.suites import Cell, Suite

SUITE = "published_corrected"
SECONDS = 20.0
PATIENCE = 5.0
"""Multiple of the intended seconds after which a run is given up although some lanes have not moved."""
REHEARSAL = Suite(("ppo_mlp",), ("gymnax.cartpole",), samples=2, run_length="quick")


class EnoughError(Exception):
    """Raised by `Watch` to give up a run that has been measured."""


class Watch(Display):
    """Measures how far every lane gets in about `seconds`, then raises `EnoughError`.

    Measuring begins after the first segment in which all lanes in training learn, or at half time: cycles of
    a warm-up, without gradient steps, would be too fast.
    """

    def __init__(self, seconds: float):
        self.seconds, self.evaluations = seconds, 0
        self.compiled_at = self.began = self.ended = 0.0
        self.error: str | None = None
        self.running: list[int] = []
        self.program: Compiled | None = None
        self.before: dict[int, tuple[int, int]] = {}
        self.after: dict[int, tuple[int, int]] = {}

    def compiled(self, number: int, compiled: Compiled) -> None:
        self.program, self.compiled_at = compiled, time.perf_counter()

    def evaluated(self, lane: Lane, score: float) -> None:
        self.evaluations += 1

    def failed(self, number: int, error: Exception) -> None:
        self.error = f"{type(error).__name__}: {error}"

    def update(self, lanes: Sequence[Lane], seconds: float) -> None:
        now = time.perf_counter()
        running = [lane for lane in lanes if lane.status == "running"]
        self.running = [lane.lane for lane in running]
        progress = {lane.lane: (lane.env_steps, lane.gradient_steps) for lane in lanes}
        if not self.before:
            if all(lane.gradient_steps for lane in running) or now - self.compiled_at > self.seconds / 2:
                self.before, self.began, self.evaluations = progress, now, 0
            return
        self.after, self.ended = progress, now
        moved = all(lane.env_steps > self.before[lane.lane][0] for lane in running)
        if now - self.compiled_at > self.seconds * (1 if moved else PATIENCE):
            raise EnoughError

    def result(self, total: int, cycle_steps: Sequence[int]) -> dict[str, Any]:
        """What was measured; lanes take `total` env steps, and lane i takes `cycle_steps[i]` in a cycle.

        `seconds`, for all of these steps, is None if the program failed or a lane has not moved.
        """
        found: dict[str, Any] = {"lanes": len(cycle_steps), "seconds": None}
        found |= {"trace_seconds": 0.0, "compile_seconds": 0.0}
        if self.program is not None:
            found |= {
                "slots": self.program.slots,
                "trace_seconds": self.program.trace_seconds,
                "compile_seconds": self.program.compile_seconds,
            }
        if self.error is not None or self.program is None:
            return found | {"error": self.error or "nothing was compiled"}
        seconds = self.ended - self.began
        advanced = [
            (self.after[i][0] - self.before[i][0], self.after[i][1] - self.before[i][1], cycle_steps[i])
            for i in self.after
            if self.after[i][0] > self.before[i][0]
        ]
        unmoved = [i for i in self.running if self.after.get(i, (0,))[0] == self.before.get(i, (0,))[0]]
        if unmoved or not advanced:
            return found | {"unmoved": unmoved}
        taken_cycles = [steps / per_cycle for steps, _, per_cycle in advanced]
        cycles = max(taken_cycles)
        gradients = [taken for _, taken, _ in advanced]
        longest = [seconds * total / steps for steps, _, _ in advanced]
        waves = sum(longest) / len(longest) * len(cycle_steps) / self.program.slots
        return found | {
            "measured_seconds": seconds,
            "evaluations": self.evaluations,
            "cycles": min(taken_cycles),
            "ms_per_cycle": 1e3 * seconds / cycles,
            "ms_per_gradient_step": 1e3 * seconds / max(gradients) if max(gradients) else None,
            "busy_share": sum(gradients) / len(gradients) / max(gradients) if max(gradients) else None,
            "seconds": max(*longest, waves),
        }


def run_program(spec: Experiment, program: Program, suite: Suite, seconds: float) -> dict[str, Any]:
    """Compile a program of the experiment and train its lanes for about `seconds`."""
    rows = [{**spec.rows[i], "sample": spec.records[i].id} for i in program.samples]
    own = sweeps.prepare(
        spec.recipe, spec.env_name, samples=rows, run_length_modifier=suite.run_length, set=suite.settings
    )
    watch = Watch(seconds)
    alone = replace(program, samples=tuple(range(len(rows))))
    with contextlib.suppress(EnoughError):
        sweeps.run(own, Execution(), watch, programs=[alone])
    sizes = [tree.sizes() for tree in own.trees]
    per_cycle = [s["num_envs"] * s["rollout_length"] for s in sizes for _ in range(own.settings.seeds)]
    return {"planned_share": program.useful_share, **watch.result(own.settings.total_timesteps, per_cycle)}


def run_cell(
    suite: Suite, cell: Cell, seconds: float, measured: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Measure all programs of a cell, apart from the first ones if they are `measured`, and sum up what they
    take for all env steps.
    """
    spec = suites.prepare(suite, cell)
    machine, s = Machine.planned(jax.local_devices()[0].platform), spec.settings
    programs = plan(spec.trees, spec.env, s.total_timesteps, s.seeds, machine)
    found = list(measured)
    for program in programs[len(found) :]:
        found.append(run_program(spec, program, suite, seconds))
        print(json.dumps({"program": {"cell": name_of(cell), **found[-1]}}), flush=True)
    whole = [p["seconds"] for p in found]
    return {
        "cell": name_of(cell),
        "lanes": len(spec.trees) * s.seeds,
        "env_steps": s.total_timesteps,
        "programs": found,
        "compile_seconds": sum(p["trace_seconds"] + p["compile_seconds"] for p in found),
        "seconds": None if None in whole else sum(whole),
    }


def predicted(suite: Suite) -> list[dict[str, Any]]:
    """What is predicted for every cell of the suite from short programs that are measured here."""
    with tempfile.TemporaryDirectory() as folder:
        benchmark = Benchmark(suite, Path(folder) / "none", "prediction", False)
        plans, found = benchmark.programs(), benchmark.predict(Execution()).all()
    rows = []
    for cell, prediction in found.items():
        row: dict[str, Any] = {
            "cell": name_of(cell),
            "programs": len(plans[cell]),
            "planned_shares": [p.useful_share for p in plans[cell]],
        }
        if isinstance(prediction, Prediction):
            parts = {k: getattr(prediction, k) for k in ("compilation", "training", "evaluation", "within")}
            rows.append({**row, **parts, "seconds": prediction.seconds})
        else:
            rows.append({**row, "seconds": None, "error": prediction})
    return rows


def planned(suite: Suite, patterns: Sequence[str], platform: str, tasks: int) -> list[dict[str, Any]]:
    """A row for every cell on an accelerator `platform`, and one for all of them."""
    machine, rows, every = Machine.planned(platform), [], []
    for cell in chosen(suite, patterns):
        spec = suites.prepare(suite, cell)
        s = spec.settings
        programs = plan(spec.trees, spec.env, s.total_timesteps, s.seeds, machine)
        found = []
        for program in programs:
            trees = [spec.trees[i] for i in program.samples for _ in range(s.seeds)]
            lanes = [cycles_of(s.total_timesteps, x.sizes()) * program.iterations(x) for x in trees]
            shape = (spec.trees[0], program.caps, spec.env, lanes, program.slots)
            found.append(lockstep.training_seconds(*shape, machine.devices, machine.rate))
        launched = [p.slots * x.waiting for p, x in zip(programs, found, strict=True)]
        useful = sum(n * p.useful_share for n, p in zip(launched, programs, strict=True))
        units = [costs.compilation(p.caps, spec.env, p.accelerator) for p in programs]
        compiling = [machine.compile_seconds * n for n in units]
        every += found
        rows.append(
            {
                "cell": name_of(cell),
                "programs": len(programs),
                "useful share": useful / sum(launched),
                **_hours(found, compiling, tasks),
            }
        )
        print(rows[-1], file=sys.stderr, flush=True)
    together = f"h in {tasks} processes"
    sums: dict[str, float] = {name: sum(row[name] for row in rows) for name in rows[0] if name.endswith(" h")}
    sums["h in one process"] = sum(row["h in one process"] for row in rows)
    sums[together] = sums["compiling h"] / tasks + lockstep.at_once(every, tasks) / 3600
    return [*rows, {"cell": "all", "programs": len(every), "useful share": "", **sums}]


def _hours(programs: Sequence[lockstep.Seconds], compiling: Sequence[float], tasks: int) -> dict[str, float]:
    """Columns of a row: what the programs take, compilation included in the last two.

    A process that trains compiles `MOST_AT_A_TIME` others at the same time, given two cores for each,
    but has to wait for the first.
    """
    waiting, computing = sum(p.waiting for p in programs), sum(p.computing for p in programs)
    alone = max(lockstep.at_once(programs, 1), sum(compiling) / MOST_AT_A_TIME)
    hours = {
        "waiting h": waiting,
        "computing h": computing,
        "compiling h": sum(compiling),
        "h in one process": max(compiling) + alone,
        f"h in {tasks} processes": sum(compiling) / tasks + lockstep.at_once(programs, tasks),
    }
    return {name: seconds / 3600 for name, seconds in hours.items()}


def name_of(cell: Cell) -> str:
    """A short name for a cell: recipe, without the file or study it comes from, and environment."""
    return f"{cell.recipe.rpartition('.')[2]} on {cell.env}"


def chosen(suite: Suite, patterns: Sequence[str]) -> list[Cell]:
    """The cells of the suite that can be run and match a pattern."""
    possible = [cell for cell in suites.cells(suite) if cell.skipped is None]
    return [c for c in possible if any(fnmatchcase(name_of(c), pattern) for pattern in patterns)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--suite", default=SUITE)
    parser.add_argument("--cells", nargs="+", default=["*"], metavar="PATTERN")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--predict", action="store_true")
    parser.add_argument("--planned", choices=("gpu",), help="what the cost model expects, without running")
    parser.add_argument("--tasks", type=int, default=MOST_PROCESSES, help="processes on the device")
    parser.add_argument("--out", type=Path, help="JSON file of --planned to write instead")
    parser.add_argument("--list", action="store_true", help="print the names of the cells")
    parser.add_argument("--measured", type=json.loads, default=[], help=argparse.SUPPRESS)
    parser.add_argument("--rehearse", action="store_true", help="a tiny suite instead")
    arguments = parser.parse_args()
    suite = REHEARSAL if arguments.rehearse else suites.find(arguments.suite)
    names = [name_of(cell) for cell in chosen(suite, arguments.cells)]
    if not names:
        every = ", ".join(name_of(cell) for cell in chosen(suite, ["*"]))
        parser.error(f"no cell is called {' or '.join(arguments.cells)}; there are: {every}")
    if arguments.planned:
        rows = planned(suite, arguments.cells, arguments.planned, arguments.tasks)
        table(rows, f"planned for one {arguments.planned}", width=160)
        print(save("planned", rows, arguments.out))
    elif arguments.list:
        print(json.dumps({"names": names}))
    elif arguments.predict:
        print(json.dumps({"cells": predicted(suite)}))
    else:
        cells = chosen(suite, arguments.cells)
        found = [run_cell(suite, cell, arguments.seconds, arguments.measured) for cell in cells]
        print(json.dumps({"cells": found}))


if __name__ == "__main__":
    main()
