"""Measures this package on a GPU: one command, tables and `benchmarks/out/gpu.json`.

    python benchmarks/gpu.py [--only NAME ...] [--purejaxrl PATH --rejax PATH --peer-python PYTHON]
        [--algorithms NAME ...] [--lanes N ...] [--cells PATTERN ...] [--seconds S] [--resume] [--rehearse]

Before: `pip install -c constraints.txt -e ".[cuda12]"` in the checkout (`cuda13`; or without `-c` for a newer
jax); with `-e`, so that results name the commit. One GPU is used, the first that CUDA_VISIBLE_DEVICES names.

- lanes: complete trainings of equal lanes after compilation, of this package and of its peers one after the
  other (shapes and rules in `peers.py`): PPO on CartPole, SAC on Pendulum, DQN on CartPole, in env steps per
  second. "wall" is the whole call, "training" its training segments alone; "ratio" is "hyperlax wall" over
  the rate of the faster peer.
- circuit: value and gradient of a circuit, by wires, layers and batch, as in `circuit.py`, by the paths of
  `networks/circuit_paths.py`. "call_ms" is a call from Python, which takes a part of a millisecond itself;
  "loop_ms" one of 100 in a loop on the device.
- kernels: what the executables launch, as `kernels.py` counts without a GPU.
- cells: cells of the published benchmark by short runs, extrapolated to all env steps (`cells.py`): hours of
  training, seconds of compilation, ms of a lockstep cycle, and the share of lanes that does not wait.
- prediction: what is predicted for every cell of the benchmark, compilation included, and their sum.

Every measurement but the programs of a cell is a process of its own, as a process keeps most of the GPU's
memory. Results are written after each, and stay when another NAME is measured later on the same commit and
GPU; with `--resume`, what has been measured there without an error is not measured again. A cell of many
programs can take a quarter of an hour, and the prediction more, which is one measurement. Peers, clones of
luchris429/purejaxrl and keraJLi/rejax, need a Python with their requirements and jax for the GPU.
`--rehearse` runs everything at tiny sizes on the CPU, to test this file; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product, takewhile
from pathlib import Path
from typing import Any

from common import OUT, context, save, table
from peers import PEERS, measure_peer, run_pinned, streamed
from throughput import CASES, OURS, measure_ours, ratio

HERE = Path(__file__).resolve()
LANES = {"ppo": (1, 16, 128, 512), "sac": (1, 64, 256), "dqn": (1, 64, 256)}
COUNTED_LANES = (1, 128)
CIRCUITS = (
    *(("4,5,2", 256), ("8,10,2", 64), ("8,10,2", 256), ("8,10,2", 4096), ("8,10,2", 65536)),
    ("11,15,3", 256),
)
"""Sizes as in `circuit.py` (features, layers, stacks), and batches."""
PREDICTED = ("compilation", "training", "evaluation")
"""The parts of a predicted time."""
RAW = "raw"
"""The entry of a row with what its measurements have returned, which is stored and not shown."""
NO_FAILURE = (None, "not installed", "not measured")
"""What an error says where nothing has failed."""
CELLS = ("ppo_mlp on gymnax.cartpole", "ppo_drpqc on gymnax.cartpole", "sac_drpqc on gymnax.pendulum")
KEYS = {
    "lanes": ("algorithm", "lanes"),
    "circuit": ("features, layers, stacks", "batch", "path"),
    "kernels": ("algorithm", "lanes"),
    "cells": ("cell",),
    "prediction": (),
}
"""What is measured → the columns that say what a row is of."""
NAMES = tuple(KEYS)


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

    def __init__(self, arguments: argparse.Namespace, earlier: Mapping[str, list[dict[str, Any]]]):
        self.arguments = arguments
        self.earlier = earlier if arguments.resume else {}
        self.sizes = REHEARSAL if arguments.rehearse else WHOLE
        self.platform = "cpu" if arguments.rehearse else "cuda,cpu"

    def lanes(self) -> Iterator[dict[str, Any]]:
        """Env steps per second of equal lanes, all together, and the ratio to the faster peer."""
        for algorithm, counts in self.sizes.lanes.items():
            env, steps = CASES[algorithm][0][0], self.sizes.steps[algorithm]
            if algorithm not in self.arguments.algorithms:
                continue
            for lanes in self.arguments.lanes or counts:
                if measured := self._measured("lanes", algorithm=algorithm, lanes=lanes):
                    yield from measured
                    continue
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
                failed = [name for name, result in found.items() if result.get("error") not in NO_FAILURE]
                yield row | {RAW: found} | ({"error": ", ".join(failed)} if failed else {})

    def circuit(self) -> Iterator[dict[str, Any]]:
        """Milliseconds of value and gradient of circuits."""
        paths = ("grouped",) if self.arguments.rehearse else ("grouped", "fused")
        for (size, batch), path in product(self.sizes.circuits, paths):
            key = {"features, layers, stacks": size, "batch": batch, "path": path}
            measured = self._measured("circuit", **key)
            yield from measured or [{**key, **self._child("circuit", size, str(batch), path)}]

    def kernels(self) -> Iterator[dict[str, Any]]:
        """The kernels of the executables."""
        for algorithm in self.sizes.lanes:
            for lanes in self.sizes.counted_lanes:
                key = {"algorithm": algorithm, "lanes": lanes}
                measured = self._measured("kernels", **key)
                yield from measured or [{**key, **self._child("kernels", algorithm, str(lanes))}]

    def cells(self) -> Iterator[dict[str, Any]]:
        """The cells of the published benchmark, one row per program and one for the cell."""
        seconds = str(self.arguments.seconds or self.sizes.seconds)
        chosen = self._run_cells("--list", "--cells", *self.arguments.cells)
        if "error" in chosen:
            yield {"cell": ", ".join(self.arguments.cells), "program": "all", **chosen}
        for name in chosen.get("names", ()):
            if measured := self._measured("cells", cell=name):
                yield from measured
                continue
            begun = self._begun(name)
            yield from begun
            programs, measured = len(begun), json.dumps([row[RAW] for row in begun])
            command = self._command("--cells", name, "--seconds", seconds, "--measured", measured)
            for found in streamed(command, self.platform):
                if "program" in found:
                    programs += 1
                    yield _cell_row(found["program"], f"{programs}") | {RAW: found["program"]}
                elif "cells" in found:
                    yield from (_cell_row(cell, "all") for cell in found["cells"])
                else:
                    yield {"cell": name, "program": "all", **found}

    def prediction(self) -> Iterator[dict[str, Any]]:
        """The predicted hours of every cell, and their sum."""
        if measured := self._measured("prediction"):
            yield from measured
            return
        found = self._run_cells("--predict")
        cells = found.get("cells", [found])
        known = [cell["seconds"] / 3600 for cell in cells if cell.get("seconds") is not None]
        for cell in cells:
            row: dict[str, Any] = {"cell": cell.get("cell", "")}
            row["planned shares"] = ", ".join(f"{share:.2f}" for share in cell.get("planned_shares", ()))
            row |= {f"{name} s": cell[name] for name in PREDICTED if name in cell}
            row["hours"] = "" if cell.get("seconds") is None else cell["seconds"] / 3600
            yield row | {k: cell[k] for k in ("within", "error") if k in cell}
        lacking = len(cells) - len(known)
        yield {"cell": f"all but {lacking}" if lacking else "all", "hours": sum(known)}

    def _measured(self, name: str, **key: Any) -> list[dict[str, Any]]:
        """The rows of an earlier process that have this key, to be kept; none if one of them has an error."""
        rows = [r for r in self.earlier.get(name, ()) if all(r.get(k) == v for k, v in key.items())]
        ended = name != "cells" or any(row.get("program") == "all" for row in rows)
        new = [f"{peer} wall" for peer in PEERS if getattr(self.arguments, peer)]
        lacking = any(row.get(name) == "not installed" for row in rows for name in new)
        return rows if ended and not lacking and not any("error" in row for row in rows) else []

    def _begun(self, cell: str) -> list[dict[str, Any]]:
        """The rows of the first programs of a cell that an earlier process has measured without an error."""
        rows = [r for r in self.earlier.get("cells", ()) if r.get("cell") == cell and r["program"] != "all"]
        return list(takewhile(lambda row: RAW in row and "error" not in row, rows))

    def _command(self, *flags: str) -> list[str]:
        """The command of `cells.py` with `flags`."""
        command = [sys.executable, str(HERE.with_name("cells.py")), *flags]
        return command + (["--rehearse"] if self.arguments.rehearse else [])

    def _run_cells(self, *flags: str) -> dict[str, Any]:
        """What `cells.py` prints last, or an object that holds the error."""
        return run_pinned(self._command(*flags), None, {}, self.platform)

    def _child(self, *words: str) -> dict[str, Any]:
        """What this file prints in a process of its own, for the function and arguments in `words`."""
        return run_pinned([sys.executable, str(HERE), "--child", *words], None, {}, self.platform)


def _median(result: dict[str, Any], what: str = "env_steps_per_second") -> Any:
    """The median rate of a measurement, or why there is none."""
    return result[what]["median"] if what in result else result.get("error", "")


def _cell_row(found: dict[str, Any], program: str) -> dict[str, Any]:
    """A row for a cell or one of its programs; what is measured only for programs is empty for a cell."""
    seconds = found["seconds"]
    why = {"error": found["error"]} if "error" in found else {}
    return why | {
        "cell": found["cell"],
        "program": program,
        "lanes": found["lanes"],
        "slots": found.get("slots", ""),
        "planned share": found.get("planned_share", ""),
        "busy share": found.get("busy_share", ""),
        "ms per cycle": found.get("ms_per_cycle", ""),
        "ms per gradient step": found.get("ms_per_gradient_step", ""),
        "compile s": found["compile_seconds"] + found.get("trace_seconds", 0),
        "measured s": found.get("measured_seconds", ""),
        "cycles": found.get("cycles", ""),
        "evaluations": found.get("evaluations", ""),
        "hours": found.get("error", "not all lanes moved") if seconds is None else seconds / 3600,
    }


# The functions below run in processes of their own.


def facts() -> dict[str, Any]:
    """Machine, versions, commit and date, and what NVIDIA's driver says of its GPUs."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True) if shutil.which(query[0]) else None
    said = found.stdout.splitlines() if found is not None and found.returncode == 0 else []
    return {**context(), "gpus": said}


def circuit(size: str, batch: str, path: str) -> dict[str, Any]:
    """Value and gradient of a circuit by one of the paths of `networks/circuit_paths.py`."""
    os.environ["HYPERLAX_CIRCUIT"] = path
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
    parser.add_argument("--algorithms", nargs="+", default=list(LANES), choices=tuple(LANES))
    parser.add_argument("--lanes", nargs="+", type=int, help="numbers of equal lanes, instead of the usual")
    parser.add_argument("--cells", nargs="+", default=list(CELLS), metavar="PATTERN")
    parser.add_argument("--resume", action="store_true", help="keep what has been measured without an error")
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
    _check_peers(parser, arguments)
    if not arguments.rehearse:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # peers use one GPU, and so does this
    about = Bench(arguments, {})._child("facts")
    _check_machine(parser, about, arguments.rehearse)
    path = arguments.out or OUT / "gpu.json"
    earlier = _earlier(path, about)
    bench, rows = Bench(arguments, earlier), dict(earlier)
    for name in arguments.only:
        kept, new = bench.earlier.get(name, []), []
        for row in getattr(bench, name)():
            new.append(row)
            kept = [r for r in kept if any(r.get(key) != row.get(key) for key in KEYS[name])]
            rows[name] = kept + new
            print(name, _shown(row), file=sys.stderr, flush=True)
            save("gpu", rows, arguments.out, about)
        shown = rows.setdefault(name, [])
        columns = dict.fromkeys(key for row in shown for key in _shown(row))
        table([{key: row.get(key, "") for key in columns} for row in shown], name, width=200)
    print(path)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """The columns of a row that tables have."""
    return {key: value for key, value in row.items() if key not in (RAW, "stderr")}


def _check_peers(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse peers that are given and cannot be measured."""
    given = {peer: getattr(arguments, peer) for peer in PEERS if getattr(arguments, peer)}
    if given and not arguments.peer_python:
        parser.error(
            f"--{next(iter(given))} needs --peer-python, a Python with the requirements of the peers"
        )
    for peer, path in given.items():
        if not Path(path).is_dir():
            parser.error(f"--{peer}: {path} is no folder")


def _check_machine(parser: argparse.ArgumentParser, about: dict[str, Any], rehearse: bool) -> None:
    """Refuse a Python that cannot measure, and a machine without a GPU, or with several that are visible."""
    machine = about.get("machine")
    if machine is None and "initialize backend" not in about["error"]:
        parser.exit(1, f"this Python cannot measure: {about['error']}\n")
    if machine is None and shutil.which("nvidia-smi"):
        print(about["error"], file=sys.stderr)
    if machine is None or machine.get("platform") not in (("cpu",) if rehearse else ("gpu", "cuda")):
        parser.exit(1, "jax finds no NVIDIA GPU here; --rehearse runs this on the CPU, at tiny sizes\n")
    if not rehearse and machine["devices"] != 1:
        parser.exit(
            1, f"{machine['devices']} GPUs are visible, and peers use one: set CUDA_VISIBLE_DEVICES=0\n"
        )


def _earlier(path: Path, about: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The rows that another process has written for the same commit, versions and GPUs; none otherwise."""
    if not path.exists():
        return {}
    stored = json.loads(path.read_text())
    same = all(stored.get(key) == about.get(key) for key in ("git_commit", "versions", "gpus"))
    return stored["results"] if same else {}


if __name__ == "__main__":
    main()
