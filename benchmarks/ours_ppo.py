"""This package's side of `ppo_throughput.py`: whole trainings through `hyperlax.sweep`, compiled beforehand.

    python benchmarks/ours_ppo.py --env gymnax.cartpole --lanes 1 --steps 1000000

What is timed is what a user waits for once programs are compiled: planning, the host loop, every training
step and the recording of metrics; no evaluation, like the peers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import jax

import hyperlax

SHAPES = {
    "num_envs": 64,
    "rollout_length": 128,
    "epochs": 4,
    "num_minibatches": 4,
    "actor_lr": 1e-3,
    "critic_lr": 1e-3,
    "normalize_observations": False,
    "actor.width": 64,
    "actor.depth": 2,
    "actor.layer_norm": False,
    "actor.activation": "tanh",
    "critic.width": 64,
    "critic.depth": 2,
    "critic.layer_norm": False,
    "critic.activation": "tanh",
}


def train(env: str, lanes: int, steps: int, evaluations: int = 0) -> hyperlax.Results:
    """`lanes` seeds of one sample, `steps` each."""
    return hyperlax.sweep(
        "ppo_mlp", env, set=SHAPES, seeds=lanes, total_timesteps=steps, evaluations=evaluations
    )


def reached(env: str, lanes: int, steps: int) -> float:
    """Mean return of the training episodes in the last tenth of a run, outside the timing."""
    curves = train(env, lanes, steps, evaluations=10).curves
    last = curves.filter((curves["metric"] == "train/return") & (curves["env_steps"] >= steps))
    return float(last["value"].to_numpy().mean())


def measure(env: str, lanes: int, steps: int, runs: int) -> dict[str, object]:
    """Compiles, then times `runs` whole trainings."""
    first = train(env, lanes, steps)
    compile_seconds = first.manifest["timings"]["compile_seconds"]
    rates = []
    for _ in range(runs):
        began = time.perf_counter()
        results = train(env, lanes, steps)
        taken = int(results.lanes["env_steps"].sum())
        rates.append(taken / (time.perf_counter() - began))
    return {
        "peer": "hyperlax",
        "env": env,
        "lanes": lanes,
        "steps": steps,
        "trace_compile_seconds": compile_seconds,
        "env_steps_per_second": {"best": max(rates), "median": statistics.median(rates), "runs": rates},
        "return_reached": reached(env, lanes, steps),
        "jax": jax.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default="gymnax.cartpole")
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=1)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.env, arguments.lanes, arguments.steps, arguments.runs)))


if __name__ == "__main__":
    main()
