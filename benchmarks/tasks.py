"""How much more work several tasks on this machine do in a second than one: units on one core each.

    benchmarks/tasks.py [--tasks 1 2 4] [--steps 400000] [--rounds 2]

Every task is a process with one device on its share of the cores; one task is given a single core. All
train the same sweep of eight lanes, whose program is compiled before. Wall seconds are of the whole command:
planning, starting the processes, training, merging and the report. The seconds that processes spend on a core
tell what the division costs even where other work keeps the cores busy.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common

SAMPLES, LANES = 8, 8
WORDS = (
    "sweep-hp-samples --algo-and-network-config ppo_mlp_no_network_search --env-config gymnax.pendulum "
    f"--run-length-modifier quick --num-samples {SAMPLES} --seeds 1 --device cpu"
)


def train(root: Path, tasks: int, steps: int, cores: Sequence[int]) -> dict[str, Any]:
    """Train the sweep by so many tasks on `cores`; return what was done and what it took."""
    import hyperlax

    more = ["--tasks", str(tasks), "--units", str(max(4, tasks)), "--total-timesteps", str(steps)]
    command = [sys.executable, "-m", "hyperlax", *WORDS.split(), *more, "--output-root", str(root)]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environ = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
    with common.pinned(cores):
        done = subprocess.run(command, env=environ, capture_output=True, text=True)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{tasks} tasks ended with {done.returncode}: {done.stderr[-2000:]}")
    (folder,) = root.glob("*/*")
    results = hyperlax.read(folder)
    trained = int(results.lanes["env_steps"].sum())
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    units = results.manifest["units"]
    return {
        "tasks": tasks,
        "cores": len(cores),
        "env steps": trained,
        "wall s": round(seconds, 1),
        "steps/s": round(trained / seconds),
        "core s": round(busy, 1),
        "steps/core s": round(trained / busy),
        "s in units": round(sum(unit["wall_seconds"] for unit in units), 1),
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    """Print and save a row for every number of tasks, the best of several rounds by wall time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--steps", type=int, default=400_000, help="env steps of every lane")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    cores = common.usable_cores()
    rows = []
    with tempfile.TemporaryDirectory() as root:
        train(Path(root) / "warm", 1, 4000, cores)
        for n in range(given.rounds):
            for tasks in given.tasks:
                rows.append(train(Path(root) / f"{n}-{tasks}", tasks, given.steps, cores[:tasks]))
    best = [min((r for r in rows if r["tasks"] == t), key=lambda r: r["wall s"]) for t in given.tasks]
    for alone in [row["steps/s"] for row in best if row["tasks"] == 1]:
        for row in best:
            row["against one"] = round(row["steps/s"] / alone, 2)
    common.table(best, f"{LANES} lanes on {len(cores)} cores")
    print(common.save("tasks", {"rounds": rows, "best": best}))


if __name__ == "__main__":
    main()
