"""Counts the kernels that a GPU launches for this package and its peers, on a machine without a GPU.

    python benchmarks/kernels.py [--only NAME ...] [--lanes N ...] [--planned cpu gpu]
        [--purejaxrl PATH --rejax PATH --peer-python PYTHON] [--outline] [--keep FOLDER]

Programs of small networks are as fast on a GPU as they have few kernels, and few loops and branches that the
host has to follow: a loop whose number of iterations is unknown, and a conditional, make it wait for the
device every time. This compiles the programs for an H100 (`h100.py`) and counts both, loop by loop
(`hlo.py`). Prints tables and writes `benchmarks/out/kernels.json`.

- PPO: CartPole, 64 environments × 128 steps, 4 epochs of 4 minibatches, networks of 2 × 64. SAC: Pendulum,
  and DQN: CartPole, at rejax' shapes. All as in `throughput.py`, in one program for a number of equal lanes.
- "published": the largest programs of cells of the published benchmark, whose lanes differ in layer
  normalisation, activations, sizes and numbers of steps; circuits are simulated by kernels of this package.
- The circuit: value and gradient of the sum of all ⟨σz⟩² as in `circuit.py`, for 256 observations.
- Columns: kernels in a cycle beside its loops, and in one iteration of each of its loops, or in an env step
  if an iteration is several of them; "n?" are those in the longest branch of a conditional. "trips?": loops
  in a cycle that iterate an unknown number of times; "branches": conditionals in a cycle; "whole cycle": all
  kernels of a cycle, or of one part of it where cycles are taken in parts, at these shapes.
- "planned": whether the program was planned for a CPU or for a GPU; both are compiled for the H100.
- Peers are counted in `--peer-python` (default: this one), which needs their requirements, the compiler for
  CUDA and this version of jax.

`--outline` also prints every loop, with the kinds of its kernels and the functions that these compute;
`--keep` writes the HLO texts into a folder.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import h100
import hlo
from hlo import ADVANTAGE, CYCLE, ENV_STEP, EPOCH, EVALUATION_STEP, GRADIENT_STEP, VALUES, Region

ENVIRONMENTS = {"ppo": "gymnax.cartpole", "sac": "gymnax.pendulum", "dqn": "gymnax.cartpole"}
CIRCUITS = {"4 wires × 5 layers": "4,5,2", "6 wires × 10 layers": "8,10,2", "12 wires × 15 layers": "11,15,3"}
"""Names of circuits, and their sizes as in `circuit.py`: features, layers, stacks."""
PATHS = ("grouped", "fused")
"""How they are simulated: by kernels of XLA, or by kernels of this package (`networks/circuit_paths.py`)."""
CELLS = (
    "dqn_mlp on gymnax.cartpole",
    "ppo_drpqc on gymnax.cartpole",
    "ppo_drpqc on gymnax.reacher",
    "ppo_mlp on gymnax.cartpole",
    "ppo_tmlp on gymnax.cartpole",
    "sac_mlp on gymnax.pendulum",
)
"""Cells of the published benchmark."""
NAMES = (*ENVIRONMENTS, "published", "circuit")
LANES = (1, 128)
PLANNED = ("cpu", "gpu")
STEPS = 1_000_000
EPISODES = 16
TRIPS: dict[str, dict[str, int]] = {
    "ppo": {ENV_STEP: 128, ADVANTAGE: 128, VALUES: 9, EPOCH: 4, GRADIENT_STEP: 4},
    "sac": {ENV_STEP: 1, GRADIENT_STEP: 1},
    "dqn": {ENV_STEP: 1, GRADIENT_STEP: 5},
}
"""How often the loops of a cycle iterate at these shapes, where the program does not know it."""


@dataclass
class Counted:
    """The kernels of one program: of a training program `evaluation` too, of a circuit `layers`.

    `rollout` is the number of env steps in a cycle of a training program that is not among `TRIPS`.
    """

    who: str
    name: str
    lanes: int
    planned: str
    program: Region
    evaluation: Region | None = None
    layers: int = 0
    rollout: int = 0

    @property
    def trips(self) -> dict[str, int]:
        """How often the loops of a cycle iterate where the program does not know it."""
        return {ENV_STEP: self.rollout} if self.rollout else TRIPS[self.name]

    @property
    def cycle(self) -> Region:
        """The loop over cycles; the whole program where there is none."""
        return self.program.find(CYCLE) or self.program

    def loops(self) -> dict[str, list[Region]]:
        """The loops of a cycle by role; there are several where branches hold one each."""
        found: dict[str, list[Region]] = {}
        for loop in self.cycle.inside():
            found.setdefault(loop.role, []).append(loop)
        return found

    def _steps(self, loop: Region) -> int:
        """How many env steps one iteration of `loop` is, if it is the loop over env steps; otherwise 1."""
        return self.trips[ENV_STEP] // loop.trips if loop.role == ENV_STEP and loop.trips else 1

    def counts(self) -> dict[str, float]:
        """The counts of a training program; those of a loop include the longest branch of each conditional.

        Kernels in a cycle beside its loops, and in one iteration (or env step) of every loop, by role;
        "trips?", the loops that iterate an unknown number of times; "branches", the conditionals; "whole
        cycle", all kernels.
        """
        loops = {
            role: max(sum(_own(x)) / self._steps(x) for x in found) for role, found in self.loops().items()
        }
        if self.evaluation is not None:
            watched = next(x for x in self.evaluation.inside() if x.role == EVALUATION_STEP)
            unasked = [x for x in watched.loops if x.role == EVALUATION_STEP]
            kernels = sum(_own(watched)) + sum(x.total({}) * (x.trips or 1) for x in unasked)
            loops[EVALUATION_STEP] = kernels / (_steps_unasked() if unasked else 1)
        return {
            "beside": sum(_own(self.cycle)),
            **loops,
            "trips?": sum(x.trips is None for x in self.cycle.inside()),
            "branches": self.cycle.branches(),
            "whole cycle": self.cycle.total(self.trips),
        }

    def row(self) -> dict[str, Any]:
        """Its row in the table of training programs."""
        counts, named = self.counts(), (ENV_STEP, ADVANTAGE, EPOCH, GRADIENT_STEP)
        loops = {
            role: " / ".join(_words(x, self._steps(x)) for x in found) for role, found in self.loops().items()
        }
        others = ", ".join(f"{role} {words}" for role, words in loops.items() if role not in named)
        return {
            "who": self.who,
            "lanes": self.lanes,
            "planned": self.planned,
            "beside": _words(self.cycle),
            **{role: loops.get(role, "–") for role in named},
            "other loops": others,
            **{name: counts[name] for name in ("trips?", "branches", "whole cycle")},
            "evaluation": counts.get(EVALUATION_STEP, "–"),
        }

    def circuit_row(self) -> dict[str, Any]:
        """Its row in the table of circuits; "in all" is a lower bound if there are unknown trips."""
        total = self.program.total({})
        return {
            "circuit": self.name,
            "outside loops": self.program.own,
            "whole program": self.program.launches(),
            "trips?": sum(x.trips is None for x in self.program.inside()),
            "branches": self.program.branches(),
            "in all": total,
            "in loops, per layer": round((total - self.program.own) / self.layers, 1),
        }


def _own(region: Region) -> list[int]:
    """The kernels of one iteration without loops inside, then those of the longest branch of conditionals."""
    return [region.own, *(max(b.own for b in branches) for branches in region.conditionals)]


def _steps_unasked() -> int:
    """The steps of an evaluation after which this package asks whether it is over."""
    from hyperlax.learning.evaluation import STEPS_UNASKED

    return STEPS_UNASKED


def _words(region: Region, steps: int = 1) -> str:
    """The numbers of `_own` per step if an iteration is so many, those of branches with a question mark."""
    own, *branches = (f"{n / steps:g}" for n in _own(region))
    return " + ".join([own, *(f"{n}?" for n in branches)])


def training(algorithm: str, lanes: int, planned: str, devices: Sequence[Any]) -> dict[str, str]:
    """The HLO texts of this package's programs: "train" and "evaluate".

    They are planned for the platform `planned`, and compiled for `devices`.
    """
    from ours import settings

    from hyperlax import sweeps
    from hyperlax.programs.compiled import compile_program
    from hyperlax.programs.plan import Machine, plan

    spec = sweeps.prepare(
        f"{algorithm}_mlp",
        ENVIRONMENTS[algorithm],
        set=settings(algorithm),
        seeds=lanes,
        total_timesteps=STEPS,
    )
    (program,) = plan(spec.trees, spec.env, STEPS, lanes, Machine.of(planned, len(devices)))
    compiled: Any = compile_program(program, spec.trees[0], spec.env, EPISODES, lanes, list(devices))
    first = compiled.copies[0]
    return {"train": first.train.as_text(), "evaluate": first.evaluate.as_text()}


def published(name: str, devices: Sequence[Any]) -> tuple[Any, str]:
    """The first program of a cell of the published benchmark as planned for a GPU, and its HLO text."""
    from cells import SUITE, chosen

    from hyperlax.programs.compiled import compile_program
    from hyperlax.programs.plan import Machine, plan
    from hyperlax.studies import suites

    os.environ["HYPERLAX_CIRCUIT"] = "fused"  # as where there is a GPU to check it on
    suite = suites.find(SUITE)
    (cell,) = chosen(suite, [name])
    spec = suites.prepare(suite, cell)
    s = spec.settings
    program = plan(spec.trees, spec.env, s.total_timesteps, s.seeds, Machine.planned("gpu"))[0]
    compiled: Any = compile_program(
        program, spec.trees[0], spec.env, s.eval_episodes, program.slots, list(devices)
    )
    return program, compiled.copies[0].train.as_text()


def circuit(size: str, path: str) -> str:
    """The HLO text of value and gradient of a circuit on one of `PATHS`, for the batch of `circuit.py`."""
    import jax.numpy as jnp
    from circuit import BATCH, hyperlax, inputs, value_and_gradient

    os.environ["HYPERLAX_CIRCUIT"] = path
    features, layers, stacks = map(int, size.split(","))
    function = value_and_gradient(hyperlax(features, layers, stacks))
    arguments = [jnp.asarray(x) for x in inputs(features, layers, stacks, BATCH)]
    return h100.compiled(function, *arguments).as_text()


def peer(name: str, path: str, algorithm: str, lanes: int) -> str:
    """The HLO text of a peer's training; runs in the peer's Python."""
    import jax
    import peers

    steps = max(STEPS // peers.CYCLES[algorithm], 1) * peers.CYCLES[algorithm]
    if name == "purejaxrl":
        train, _ = peers.build_purejaxrl(path, ENVIRONMENTS[algorithm], steps)
    else:
        train, _ = peers.build_rejax(path, algorithm, ENVIRONMENTS[algorithm], steps, None)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.PRNGKey(0), lanes))
    if lanes > 1:
        return h100.compiled(jax.vmap(train), keys).as_text()
    return h100.compiled(train, jax.ShapeDtypeStruct(keys.shape[1:], keys.dtype)).as_text()


def peer_in_its_python(
    name: str, arguments: argparse.Namespace, algorithm: str, lanes: int
) -> tuple[str, str | None]:
    """The HLO text of a peer and None, or the last line of what went wrong."""
    command = [arguments.peer_python, str(Path(__file__).resolve()), "--child", name]
    command += [f"--{name}", getattr(arguments, name), "--only", algorithm, "--lanes", str(lanes)]
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    if done.returncode:
        return "", (done.stderr.strip().splitlines() or ["failed"])[-1]
    return done.stdout, None


class Counter:
    """Compiles and counts what the arguments of the command line ask for."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        self.errors: list[str] = []

    def region(self, title: str, text: str) -> Region:
        """Count `text`, print its outline and keep it, if the arguments say so."""
        region = hlo.count(text)
        if self.arguments.keep:
            self.arguments.keep.mkdir(parents=True, exist_ok=True)
            (self.arguments.keep / f"{title.replace(' ', '-')}.hlo").write_text(text)
        if self.arguments.outline:
            print("\n".join([f"== {title}", *region.lines(sources=True), ""]))
        return region

    def ours(self) -> Iterator[Counted]:
        for algorithm, lanes in self._cases():
            for planned in self.arguments.planned:
                title = f"{algorithm} {lanes} lanes, planned for {planned}"
                print(title, file=sys.stderr, flush=True)
                texts = training(algorithm, lanes, planned, h100.devices())
                found = {k: self.region(f"{title}: {k}", text) for k, text in texts.items()}
                yield Counted("hyperlax", algorithm, lanes, planned, found["train"], found["evaluate"])

    def published(self) -> Iterator[Counted]:
        for name in CELLS if "published" in self.arguments.only else ():
            print(name, file=sys.stderr, flush=True)
            program, text = published(name, h100.devices())
            region, rollout = self.region(name, text), program.caps["rollout_length"]
            yield Counted("hyperlax", name, program.slots, "gpu", region, rollout=rollout)

    def peers(self) -> Iterator[Counted]:
        for name in ("rejax", "purejaxrl"):
            for algorithm, lanes in self._cases() if getattr(self.arguments, name) else ():
                if name == "purejaxrl" and algorithm != "ppo":
                    continue
                title = f"{name} {algorithm} {lanes} lanes"
                print(title, file=sys.stderr, flush=True)
                text, error = peer_in_its_python(name, self.arguments, algorithm, lanes)
                if error:
                    self.errors.append(f"{title}: {error}")
                else:
                    yield Counted(name, algorithm, lanes, "", self.region(title, text))

    def circuits(self) -> Iterator[Counted]:
        for size, path in product(CIRCUITS, PATHS) if "circuit" in self.arguments.only else ():
            name = f"{size}, {path}"
            print(name, file=sys.stderr, flush=True)
            text, layers = circuit(CIRCUITS[size], path), int(CIRCUITS[size].split(",")[1])
            yield Counted("hyperlax", name, 1, "", self.region(name, text), layers=layers)

    def _cases(self) -> list[tuple[str, int]]:
        return [(a, n) for a in ENVIRONMENTS if a in self.arguments.only for n in self.arguments.lanes]


def results(counted: list[Counted], rows: Mapping[str, Any], errors: list[str]) -> dict[str, Any]:
    """What the JSON file holds: the tables, and every loop."""
    programs = [
        {
            **{key: getattr(c, key) for key in ("who", "name", "lanes", "planned")},
            "counts": c.circuit_row() if c.layers else c.counts(),
            "train": c.program.describe(),
            "evaluate": c.evaluation and c.evaluation.describe(),
        }
        for c in counted
    ]
    return {"device": "NVIDIA H100, not present", **rows, "errors": errors, "programs": programs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--lanes", nargs="+", type=int, default=list(LANES))
    parser.add_argument("--planned", nargs="+", default=list(PLANNED), choices=PLANNED)
    parser.add_argument("--purejaxrl", help="checkout of purejaxrl")
    parser.add_argument("--rejax", help="checkout of rejax")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--outline", action="store_true")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--out", type=Path, help="JSON file to write instead")
    parser.add_argument("--child", choices=("purejaxrl", "rejax"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if reason := h100.missing():
        parser.exit(1, f"{reason}\n")
    h100.devices()  # before anything else uses JAX
    if arguments.child:
        (algorithm,), (lanes,) = arguments.only, arguments.lanes
        print(peer(arguments.child, getattr(arguments, arguments.child), algorithm, lanes))
        return
    from common import save, table

    counter = Counter(arguments)
    programs, circuits = [*counter.ours(), *counter.peers()], [*counter.circuits()]
    rows = {a: [x.row() for x in programs if x.name == a] for a in ENVIRONMENTS}
    cells = [*counter.published()]
    rows["published"] = [{"cell": x.name, **x.row()} for x in cells]
    rows["circuit"] = [x.circuit_row() for x in circuits]
    for title, found in rows.items():
        if found:
            table(found, f"{title}: kernels on an H100", width=160)
    for error in counter.errors:
        print(error, file=sys.stderr)
    print(save("kernels", results([*programs, *cells, *circuits], rows, counter.errors), arguments.out))


if __name__ == "__main__":
    main()
