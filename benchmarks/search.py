"""Wall time, including compilation, of a search with trials in batches and of the same trials one by one.

    python benchmarks/search.py [--trials 64] [--recipe ppo_mlp] [--env gymnax.pendulum]

Every way runs in a process of its own without a persistent compilation cache, with run length `quick` and the
sampler `random`, so that all of them train the same hyperparameters with the same seeds. Timing starts when
the experiment is prepared and ends when the last trial is told; imports are not counted.

- batches: a search with as many trials at a time as the machine can use; measured first and last.
- in turn: the same search with one lane at a time, in the programs planned for all trials.
- alone: every trial is an experiment of its own that compiles its own program, as in separate processes; the
  programs that jax and hyperlax keep in memory are cleared before each trial.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from common import save, table


def batches(recipe: str, env: str, trials: int) -> dict[str, Any]:
    return _searched(recipe, env, trials)


def in_turn(recipe: str, env: str, trials: int) -> dict[str, Any]:
    from hyperlax import Execution

    return _searched(recipe, env, trials, execution=Execution(lanes_at_once=1), trials_at_once=1)


def alone(recipe: str, env: str, trials: int) -> dict[str, Any]:
    import jax

    import hyperlax
    from hyperlax import searches
    from hyperlax.hyperparams.samplers import OptunaSampler
    from hyperlax.run import compiling

    began = time.perf_counter()
    spec: Any = searches.prepare(recipe, env, sampler="random", run_length_modifier="quick")
    sampler = OptunaSampler(spec.schedule.space, 42, algorithm="random")
    seconds = 0.0
    for _ in range(trials):
        compiling._compiled.clear()
        jax.clear_caches()
        sampler, samples = sampler.ask(1)
        results = hyperlax.sweep(recipe, env, samples=samples, run_length_modifier="quick")
        returns = results.curves.filter(metric="return")["value"]
        sampler = sampler.tell([float(returns.to_numpy().max())])
        seconds += results.manifest["timings"]["compile_seconds"]
    return {"seconds": time.perf_counter() - began, "compile_seconds": seconds, "programs": trials}


def _searched(recipe: str, env: str, trials: int, **how: Any) -> dict[str, Any]:
    import hyperlax

    began = time.perf_counter()
    results = hyperlax.search(
        recipe, env, n_trials=trials, sampler="random", run_length_modifier="quick", **how
    )
    timings = results.manifest["timings"]
    assert len(results.trials) == trials
    return {
        "seconds": time.perf_counter() - began,
        "compile_seconds": timings["compile_seconds"],
        "programs": len(timings["programs"]),
    }


WAYS: dict[str, Callable[[str, str, int], dict[str, Any]]] = {
    "batches": batches,
    "in turn": in_turn,
    "alone": alone,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--recipe", default="ppo_mlp")
    parser.add_argument("--env", default="gymnax.pendulum")
    parser.add_argument("--way", choices=WAYS)
    given = parser.parse_args()
    if given.way:
        print(json.dumps(WAYS[given.way](given.recipe, given.env, given.trials)))
        return
    rows = []
    for way in ("batches", "in turn", "alone", "batches"):
        flags = ["--way", way, "--trials", str(given.trials), "--recipe", given.recipe, "--env", given.env]
        done = subprocess.run([sys.executable, __file__, *flags], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
        rows.append({"way": way, **json.loads(done.stdout.splitlines()[-1])})
        print(rows[-1], flush=True)
    batched = max(row["seconds"] for row in rows if row["way"] == "batches")
    for row in rows:
        row["times the slower batches"] = row["seconds"] / batched
    table(rows, f"{given.trials} quick trials of {given.recipe} on {given.env} (alone: >= 4)")
    print(save("search", rows))


if __name__ == "__main__":
    main()
