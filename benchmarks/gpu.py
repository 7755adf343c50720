"""Measures this package on a GPU: one command, tables and `benchmarks/out/gpu.json`.

    python benchmarks/gpu.py [--only NAME ...] [--purejaxrl PATH --rejax PATH --peer-python PYTHON]
        [--cells PATTERN ...] [--seconds S] [--rehearse]

- lanes: complete trainings of equal lanes after compilation, of this package and of its peers one after the
  other (shapes and rules in `peers.py`): PPO on CartPole, SAC on Pendulum, DQN on CartPole, in env steps per
  second. "wall" is the whole call, "training" its training segments alone.
- circuit: value and gradient of a circuit, by wires, layers and batch, as in `circuit.py`.
- kernels: what the executables launch, as `kernels.py` counts without a GPU.
- cells: cells of the published benchmark by short runs, extrapolated to all env steps (`cells.py`): seconds
  of the cell, of compilation, of a lockstep cycle, and the share of the lanes that does not wait for others.
- prediction: what is predicted for every cell of the benchmark, and their sum.

Every measurement is a process of its own, as a process keeps most of the GPU's memory. Results are written
after each. Peers need a Python with their requirements and jax for the GPU. `--rehearse` runs everything at
tiny sizes on the CPU, to test this file; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import OUT, context, save, table
from peers import PEERS, measure_peer, run_pinned
from throughput import CASES, OURS, measure_ours, ratio

HERE = Path(__file__).resolve()
LANES = {"ppo": (1, 16, 128, 512), "sac": (1, 64, 256), "dqn": (1, 64, 256)}
COUNTED_LANES = (1, 128)
CIRCUITS = (
    *(("4,5,2", 256), ("8,10,2", 64), ("8,10,2", 256), ("8,10,2", 4096), ("8,10,2", 65536)),
    ("11,15,3", 256),
)
"""Sizes as in `circuit.py` (features, layers, stacks), and batches."""
CELLS = ("ppo_mlp on gymnax.cartpole", "ppo_drpqc on gymnax.cartpole", "sac_drpqc on gymnax.pendulum")
NAMES = ("lanes", "circuit", "kernels", "cells", "prediction")


@dataclass(frozen=True)
class Sizes:
    """What is measured: lanes by algorithm, env steps per lane, runs, circuits, seconds per program."""

    lanes: dict[str, tuple[int, ...]]
    steps: dict[str, int]
    runs: int
    counted_lanes: tuple[int, ...]
    circuits: tuple[tuple[str, int], ...]
    seconds: float


WHOLE = Sizes(LANES, {k: steps for k, (_, steps) in CASES.items()}, 2, COUNTED_LANES, CIRCUITS, 20.0)
REHEARSAL = Sizes(
    dict.fromkeys(LANES, (2,)),
    {"ppo": 8192, "sac": 1010, "dqn": 1100},
    1,
    (2,),
    (("4,2,1", 8),),
    1.0,
)


class Bench:
    """The measurements, as rows of tables; `platform` is where JAX runs."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        self.sizes = REHEARSAL if arguments.rehearse else WHOLE
        self.platform = "cpu" if arguments.rehearse else "cuda,cpu"

    def lanes(self) -> Iterator[dict[str, Any]]:
        """Env steps per second of equal lanes, all together, and the ratio to the faster peer."""
        for algorithm, counts in self.sizes.lanes.items():
            env, steps = CASES[algorithm][0][0], self.sizes.steps[algorithm]
            for lanes in counts:
                shape = (algorithm, env, lanes, steps, self.sizes.runs, None, None, self.platform)
                found = {OURS: measure_ours(*shape)}
                for peer in PEERS:
                    path, python = getattr(self.arguments, peer), self.arguments.peer_python
                    found[peer] = measure_peer(peer, path, python, *shape)
                over = ratio(found)
                row: dict[str, Any] = {"algorithm": algorithm, "env": env, "lanes": lanes}
                row |= {f"{name} wall": _median(result) for name, result in found.items()}
                row["hyperlax training"] = _median(found[OURS], "training_only")
                row["ratio"] = f"{over['median']:.2f} × {over['faster_peer']}" if over else ""
                row["compile s"] = found[OURS].get("trace_compile_seconds", "")
                yield row

    def circuit(self) -> Iterator[dict[str, Any]]:
        """Milliseconds of value and gradient of circuits."""
        for size, batch in self.sizes.circuits:
            found = self._child("circuit", size, str(batch))
            yield {"features, layers, stacks": size, "batch": batch, **found}

    def kernels(self) -> Iterator[dict[str, Any]]:
        """The kernels of the executables."""
        for algorithm in self.sizes.lanes:
            for lanes in self.sizes.counted_lanes:
                found = self._child("kernels", algorithm, str(lanes))
                yield {"algorithm": algorithm, "lanes": lanes, **found}

    def cells(self) -> Iterator[dict[str, Any]]:
        """The cells of the published benchmark, one row per program and one for the cell."""
        seconds = self.arguments.seconds or self.sizes.seconds
        for pattern in self.arguments.cells:
            for cell in self._cells("--cells", pattern, "--seconds", str(seconds)):
                if "error" in cell:
                    yield {"cell": pattern, "error": cell["error"]}
                    continue
                yield _cell_row(cell, "all")
                yield from (_cell_row({"cell": "", **p}, f"{i + 1}") for i, p in enumerate(cell["programs"]))

    def prediction(self) -> Iterator[dict[str, Any]]:
        """The predicted hours of every cell, and their sum."""
        total = 0.0
        for cell in self._cells("--predict"):
            hours = (cell.get("seconds") or 0) / 3600
            total += hours
            shares = ", ".join(f"{share:.2f}" for share in cell.get("planned_shares", ()))
            why = {"error": cell["error"]} if "error" in cell else {}
            yield {"cell": cell.get("cell", ""), "planned shares": shares, "hours": hours, **why}
        yield {"cell": "all", "planned shares": "", "hours": total}

    def _cells(self, *flags: str) -> list[dict[str, Any]]:
        """The cells that `cells.py` reports, or one that holds the error."""
        command = [sys.executable, str(HERE.with_name("cells.py")), *flags]
        command += ["--rehearse"] if self.arguments.rehearse else []
        found = run_pinned(command, None, {}, self.platform)
        return found.get("cells", [found])

    def _child(self, *words: str) -> dict[str, Any]:
        """What this file prints in a process of its own, for the function and arguments in `words`."""
        return run_pinned([sys.executable, str(HERE), "--child", *words], None, {}, self.platform)


def _median(result: dict[str, Any], what: str = "env_steps_per_second") -> Any:
    """The median rate of a measurement, or why there is none."""
    return result[what]["median"] if what in result else result.get("error", "")


def _cell_row(found: dict[str, Any], program: str) -> dict[str, Any]:
    """A row for a cell or one of its programs; what is measured only for programs is empty for a cell."""
    seconds = found["seconds"]
    return {
        "cell": found["cell"],
        "program": program,
        "lanes": found["lanes"],
        "slots": found.get("slots", ""),
        "planned share": found.get("planned_share", ""),
        "busy share": found.get("busy_share", ""),
        "ms per cycle": found.get("ms_per_cycle", ""),
        "ms per gradient step": found.get("ms_per_gradient_step", ""),
        "compile s": found["compile_seconds"] + found.get("trace_seconds", 0),
        "hours": "not all lanes moved" if seconds is None else seconds / 3600,
    }


# The functions below run in processes of their own.


def facts() -> dict[str, Any]:
    """Machine, versions, commit and date, and what NVIDIA's driver says of its GPUs."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True) if shutil.which(query[0]) else None
    said = found.stdout.splitlines() if found is not None and found.returncode == 0 else []
    return {**context(), "gpus": said}


def circuit(size: str, batch: str) -> dict[str, Any]:
    """Value and gradient of a circuit."""
    from circuit import measure

    return measure("hyperlax", size, int(batch), gradient=True)


def kernels(algorithm: str, lanes: str) -> dict[str, Any]:
    """The kernels of an executable for the first device here."""
    import hlo
    import jax
    from kernels import Counted, training

    device = jax.devices()[0]
    texts = training(algorithm, int(lanes), device.platform, [device])
    found = {name: hlo.count(text) for name, text in texts.items()}
    row = Counted(OURS, algorithm, int(lanes), "", found["train"], found["evaluate"]).row()
    return {name: value for name, value in row.items() if name not in ("who", "planned")}


CHILDREN: dict[str, Callable[..., dict[str, Any]]] = {"facts": facts, "circuit": circuit, "kernels": kernels}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(NAMES), choices=NAMES)
    for peer in PEERS:
        parser.add_argument(f"--{peer}", default=os.environ.get(peer.upper()), help=f"checkout of {peer}")
    parser.add_argument("--peer-python", default=os.environ.get("PEER_PYTHON"), help="Python of the peers")
    parser.add_argument("--cells", nargs="+", default=list(CELLS), metavar="PATTERN")
    parser.add_argument("--seconds", type=float, help="of every short run of a program")
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--out", type=Path, help="JSON file to write instead")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, *words = arguments.child
        print(json.dumps(CHILDREN[name](*words), default=str))
        return
    arguments.cells = ["*"] if arguments.rehearse else arguments.cells
    bench = Bench(arguments)
    about = bench._child("facts")
    if about.get("machine", {}).get("platform") != ("cpu" if arguments.rehearse else "gpu"):
        parser.exit(1, "jax finds no NVIDIA GPU here; --rehearse runs this on the CPU, at tiny sizes\n")
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in arguments.only:
        rows[name] = []
        for row in getattr(bench, name)():
            rows[name].append(row)
            print(name, row, file=sys.stderr, flush=True)
            save("gpu", rows, arguments.out, about)
        columns = dict.fromkeys(key for row in rows[name] for key in row)
        table([{key: row.get(key, "") for key in columns} for row in rows[name]], name, width=160)
    print(arguments.out or OUT / "gpu.json")


if __name__ == "__main__":
    main()
