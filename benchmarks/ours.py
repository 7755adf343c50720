"""Throughput of this package for `throughput.py`: complete trainings by `hyperlax.sweep`, compiled before.

    python benchmarks/ours.py --algorithm ppo --env gymnax.cartpole --lanes 1 --steps 1000000

The timing covers what a user waits for once programs are compiled: planning, the host loop, every training
step and the recording of metrics. As for the peers, there is no evaluation.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import jax

import hyperlax


def _networks(activation: str, *names: str) -> dict[str, object]:
    net = {"width": 64, "depth": 2, "layer_norm": False, "activation": activation}
    return {f"{name}.{k}": v for name in names for k, v in net.items()}


SHAPES: dict[str, dict[str, object]] = {
    "ppo": {
        "num_envs": 64,
        "rollout_length": 128,
        "epochs": 4,
        "num_minibatches": 4,
        "actor_lr": 1e-3,
        "critic_lr": 1e-3,
        **_networks("tanh", "actor", "critic"),
    },
    "dqn": {
        "num_envs": 10,
        "rollout_length": 1,
        "epochs": 5,
        "batch_size": 100,
        "buffer_size": 50_000,
        "warmup_rollout_length": 100,
        "critic_lr": 1e-3,
        "epsilon_decay": 0.1,
        "decay_learning_rates": False,
        **_networks("silu", "critic"),
    },
    "sac": {
        "num_envs": 1,
        "rollout_length": 1,
        "epochs": 1,
        "batch_size": 256,
        "buffer_size": 10_000,
        "warmup_rollout_length": 1000,
        "tau": 0.005,
        "target_entropy_scale": 1.0,
        "init_alpha": 1.0,
        **_networks("relu", "actor", "critic"),
    },
}
"""Algorithm → hyperparameters that give the shapes of `peers.py`."""


def settings(algorithm: str, buffer_size: int | None = None) -> dict[str, object]:
    """What to set for the recipe of `algorithm` with MLPs; `buffer_size` instead of the shape's if given."""
    shapes = {"normalize_observations": False, **SHAPES[algorithm]}
    if algorithm != "ppo":
        shapes["update_to_data"] = 0.0
    if buffer_size:
        shapes["buffer_size"] = buffer_size
    return shapes


def train(
    algorithm: str, env: str, lanes: int, steps: int, buffer_size: int | None = None, evaluations: int = 0
) -> hyperlax.Results:
    """Train one sample with `lanes` seeds for `steps` environment steps each."""
    return hyperlax.sweep(
        f"{algorithm}_mlp",
        env,
        set=settings(algorithm, buffer_size),
        seeds=lanes,
        total_timesteps=steps,
        evaluations=evaluations,
    )


def reached(algorithm: str, env: str, lanes: int, steps: int, buffer_size: int | None) -> float:
    """The mean return of the training episodes in the last tenth of a run, which is not timed."""
    curves = train(algorithm, env, lanes, steps, buffer_size, evaluations=10).curves
    own = curves.filter(curves["metric"] == "train/return")
    return float(own.filter(own["env_steps"] == own["env_steps"].max())["value"].to_numpy().mean())


def measure(
    algorithm: str, env: str, lanes: int, steps: int, runs: int, buffer_size: int | None
) -> dict[str, object]:
    """Compile, then time `runs` complete trainings."""
    first = train(algorithm, env, lanes, steps, buffer_size)
    compile_seconds = first.manifest["timings"]["compile_seconds"]
    rates, training_rates = [], []
    for _ in range(runs):
        began = time.perf_counter()
        results = train(algorithm, env, lanes, steps, buffer_size)
        seconds = time.perf_counter() - began
        taken = int(results.lanes["env_steps"].sum())
        rates.append(taken / seconds)
        training = results.timeline.filter(results.timeline["phase"] == "train")
        training_rates.append(taken / float((training["end"] - training["start"]).sum()))
    return {
        "peer": "hyperlax",
        "algorithm": algorithm,
        "env": env,
        "lanes": lanes,
        "steps": steps,
        "trace_compile_seconds": compile_seconds,
        "env_steps_per_second": {"best": max(rates), "median": statistics.median(rates), "runs": rates},
        "training_only": {"best": max(training_rates), "median": statistics.median(training_rates)},
        "return_reached": reached(algorithm, env, lanes, steps, buffer_size),
        "jax": jax.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--algorithm", default="ppo", choices=tuple(SHAPES))
    parser.add_argument("--env", default="gymnax.cartpole")
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--buffer-size", type=int)
    arguments = parser.parse_args()
    print(json.dumps(measure(**vars(arguments))))


if __name__ == "__main__":
    main()
