"""The measurements of `run.py` that need a process of their own; each prints one JSON line.

python benchmarks/suite.py cores 2
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import jax
import numpy as np

BENCHMARKED = "benchmarked.01_static_qmc_sampling_S64.ppo_mlp"


def cores(devices: str) -> dict[str, Any]:
    """Env steps per second of eight equal lanes on so many devices."""
    from ours import train

    jax.config.update("jax_num_cpu_devices", int(devices))
    train("ppo", "gymnax.cartpole", 8, 300_000)
    rates = []
    for _ in range(3):
        began = time.perf_counter()
        results = train("ppo", "gymnax.cartpole", 8, 300_000)
        rates.append(int(results.lanes["env_steps"].sum()) / (time.perf_counter() - began))
    return {"devices": int(devices), "env_steps_per_second": float(np.median(rates)), "runs": rates}


def compile_benchmarked() -> dict[str, Any]:
    """Programs and compilation time for the 64 published samples on CartPole."""
    from hyperlax import sweeps
    from hyperlax.plan import Machine, plan
    from hyperlax.programs import compile_program

    jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    spec = sweeps.prepare(BENCHMARKED, "gymnax.cartpole", num_samples=64, total_timesteps=1_000_000)
    devices = jax.local_devices()
    programs = plan(spec.trees, spec.env, 1_000_000, spec.settings.seeds, Machine.of("cpu", len(devices)))
    began = time.perf_counter()
    for program in programs:
        compile_program(program, spec.trees[0], spec.env, 16, len(devices), devices)
    return {
        "programs": len(programs),
        "trace_and_compile_seconds": time.perf_counter() - began,
        "useful_share": [p.useful_share for p in programs],
    }


def heterogeneous(steps: str) -> dict[str, Any]:
    """16 published samples together, and each alone with a program of its own sizes, compilation apart."""
    import hyperlax
    from hyperlax import plan, sweeps

    plan.WORTH_OPTIMISING = 0.0  # what is compiled in a hurry runs slowly alone, and would flatter the ratio
    jax.config.update("jax_num_cpu_devices", 1)
    arguments: dict[str, Any] = {
        "recipe": BENCHMARKED,
        "env": "gymnax.cartpole",
        "total_timesteps": int(steps),
        "seeds": 1,
        "evaluations": 0,
    }

    def seconds(**samples: Any) -> tuple[float, hyperlax.Results]:
        """Wall time of a second run, when everything is compiled."""
        hyperlax.sweep(**arguments, **samples)
        began = time.perf_counter()
        results = hyperlax.sweep(**arguments, **samples)
        return time.perf_counter() - began, results

    together, results = seconds(num_samples=16)
    rows = sweeps.prepare(**arguments, num_samples=16).rows
    alone = [seconds(samples=[{**row, "sample": i}])[0] for i, row in enumerate(rows)]
    return {
        "together_seconds": together,
        "sum_alone_seconds": sum(alone),
        "ratio": together / sum(alone),
        "programs": len(results.manifest["plan"]),
        **_useful_gradient_work(results),
    }


def _useful_gradient_work(results: Any) -> dict[str, float]:
    """Share of the gradient arithmetic that belongs to real samples and real units (no overheads counted)."""
    from hyperlax import envs
    from hyperlax.agents import costs
    from hyperlax.hyperparams import assign
    from hyperlax.recipes import resolve

    base = resolve(BENCHMARKED).hyperparams()
    env = envs.load("gymnax.cartpole")
    useful = performed = 0.0
    for entry in results.manifest["plan"]:
        for i in entry["samples"]:
            row = {k: v for k, v in results.samples.row(i, named=True).items() if k != "sample"}
            sizes = assign(base, row).sizes()  # pyright: ignore[reportAttributeAccessIssue]
            cycles = results.lanes["env_steps"][i] / (sizes["num_envs"] * sizes["rollout_length"])
            chunk = costs.chunk_for(sizes["minibatch"], entry["caps"]["minibatch_chunks"])
            steps = cycles * sizes["gradient_steps"]
            done = -(-sizes["minibatch"] // chunk) * chunk
            useful += steps * sizes["minibatch"] * base.arithmetic(sizes, env).gradient
            performed += steps * done * base.arithmetic(entry["caps"], env).gradient
    return {"useful_gradient_share": useful / performed}


def memory() -> dict[str, Any]:
    """A lane's state against parameters, optimiser, environments and rollout counted by hand."""
    from hyperlax import sweeps
    from hyperlax.plan import Machine, plan
    from hyperlax.programs import compile_program, state_like

    spec = sweeps.prepare(
        "ppo_mlp", "gymnax.cartpole", set={"num_envs": 64, "rollout_length": 128, "num_minibatches": 4}
    )
    program = plan(spec.trees, spec.env, 1_000_000, 1, Machine.of("cpu", 1))[0]
    compiled = compile_program(program, spec.trees[0], spec.env, 16, 1, jax.local_devices()[:1])
    like = state_like(spec.trees[0], spec.env, program.caps)
    state = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(like))
    weights, obs, envs, rows = spec.trees[0].parameter_count(spec.env), 4, 64, 64 * 128
    environments = envs * 4 * (5 + obs + 2)
    rollout = rows * (4 * (3 * obs + 3) + 2)
    by_hand = 3 * 4 * weights + environments
    analysis = compiled.train.memory_analysis()  # pyright: ignore[reportFunctionMemberAccess]
    return {
        "state_bytes": state,
        "state_by_hand": by_hand,
        "state_ratio": state / by_hand,
        "rollout_by_hand": rollout,
        "xla_state_and_scratch": compiled.bytes_per_lane,
        "xla_scratch": int(analysis.temp_size_in_bytes),
        "whole_ratio": compiled.bytes_per_lane / (by_hand + rollout),
    }


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
