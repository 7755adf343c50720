"""The measurements of `run.py` that need a process of their own; each of them prints one line of JSON.

For example, `python benchmarks/suite.py cores 2` measures training on two devices.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import equinox as eqx
import jax
import numpy as np

BENCHMARKED = "benchmarked.01_static_qmc_sampling_S64.ppo_mlp"


def cores(devices: str) -> dict[str, Any]:
    """Environment steps per second of eight equal lanes on `devices` CPU devices."""
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
    """The number of programs and their compilation time for the 64 published samples on CartPole."""
    from hyperlax import sweeps
    from hyperlax.experiments.machine import usable_cores
    from hyperlax.programs.compiled import compile_program
    from hyperlax.programs.plan import Machine, plan

    jax.config.update("jax_num_cpu_devices", usable_cores())
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
    """Time of 16 published samples trained together, and one by one in programs of their own sizes."""
    import hyperlax
    from hyperlax import sweeps
    from hyperlax.programs import plan

    plan.WORTH_OPTIMISING = 0.0  # little optimised programs run slowly alone and would improve the ratio
    jax.config.update("jax_num_cpu_devices", 1)
    arguments: dict[str, Any] = {
        "recipe": BENCHMARKED,
        "env": "gymnax.cartpole",
        "total_timesteps": int(steps),
        "seeds": 1,
        "evaluations": 0,
    }

    def seconds(**samples: Any) -> tuple[float, hyperlax.Results]:
        """The wall time and results of a second run, in which everything is compiled."""
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
    """The share of the gradient arithmetic that is not spent on padding; overheads are not counted."""
    from hyperlax import envs
    from hyperlax.agents import costs
    from hyperlax.experiments.recipes import resolve
    from hyperlax.hyperparams import assign

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


def replay() -> dict[str, Any]:
    """Compile times and times per cycle of DQN and SAC with full buffers of 30k and of 1M transitions."""
    import jax.numpy as jnp
    from ours import SHAPES

    from hyperlax import envs
    from hyperlax.experiments.recipes import resolve
    from hyperlax.hyperparams import assign
    from hyperlax.lanes.compilation import compiler_options
    from hyperlax.programs import train

    found: dict[str, Any] = {}
    options = compiler_options("full", "cpu")
    for algorithm, name in (("dqn", "gymnax.cartpole"), ("sac", "gymnax.pendulum")):
        env, runs = envs.load(name), {}
        for capacity in (30_000, 1_000_000):
            shapes = {**SHAPES[algorithm], "update_to_data": 0.0, "buffer_size": capacity}
            hp = assign(resolve(f"{algorithm}_mlp").hyperparams(), shapes)
            caps = hp.capacities([hp.sizes()], [1], env)

            def begin(hp: Any, key: Any, env: Any = env, caps: Any = caps) -> Any:
                state = train.start(hp, env, caps, jnp.int32(10**9), key=key, init_key=key)
                return eqx.tree_at(lambda s: s.agent.experience.replay.added, state, jnp.int32(10**6))

            def advance(state: Any, cycles: Any, env: Any = env, caps: Any = caps) -> Any:
                return train.segment(state, env, caps, cycles)

            state = jax.jit(begin)(jax.tree.map(jnp.asarray, hp), jnp.zeros(2, jnp.uint32))
            began = time.perf_counter()
            lowered = jax.jit(advance, donate_argnums=0).lower(state, jnp.int32(1))
            compiled = lowered.compile(compiler_options=options)
            found[f"{algorithm}_train_compile_seconds"] = time.perf_counter() - began
            runs[capacity] = [compiled, compiled(state, jnp.int32(200)), []]
        for _ in range(7):
            for run in runs.values():
                began = time.perf_counter()
                run[1] = jax.block_until_ready(run[0](run[1], jnp.int32(500)))
                run[2].append((time.perf_counter() - began) / 500)
        small, large = (min(run[2]) for run in runs.values())
        found |= {f"{algorithm}_cycle_us_30k": small * 1e6, f"{algorithm}_cycle_us_1M": large * 1e6}
        found[f"{algorithm}_ratio"] = large / small
    return found


def brax(environments: str) -> dict[str, Any]:
    """Time per step, with resets, of brax's inverted double pendulum by the adapter and by brax itself."""
    import jax.numpy as jnp
    import jax.random as jr
    from brax import envs as theirs
    from random_agent import RandomAgent

    from hyperlax import envs
    from hyperlax.envs.brax import DEFAULT_BACKENDS
    from hyperlax.lanes.compilation import compiler_options
    from hyperlax.learning.rollout import Envs, collect

    n, steps, name = int(environments), 100, "inverted_double_pendulum"
    env, backend = envs.load(f"brax.{name}"), DEFAULT_BACKENDS[name]
    options = compiler_options("full", "cpu")
    agent = RandomAgent(env.action_space)

    def ours(outside: Any, key: Any) -> Any:
        count, length = jnp.int32(n), jnp.int32(steps)
        _, outside, seen, _ = collect(agent, env, outside, count, length, steps, jnp.bool_(False), key=key)
        return outside, (seen.obs, seen.reward)

    other = theirs.create(name, backend=backend, auto_reset=True, batch_size=n, episode_length=1000)

    def brax_own(state: Any, key: Any) -> Any:
        def step(state: Any, key: Any) -> Any:
            state = other.step(state, jr.uniform(key, (n, 1), minval=-1, maxval=1))
            return state, (state.obs, state.reward, state.done)

        return jax.lax.scan(step, state, jr.split(key, steps))

    states = [jax.jit(lambda k: Envs(env, 1, n, key=k))(jr.key(0)), jax.jit(other.reset)(jr.key(0))]
    programs = [
        jax.jit(f, donate_argnums=0).lower(state, jr.key(0)).compile(compiler_options=options)
        for f, state in zip((ours, brax_own), states, strict=True)
    ]
    times: list[list[float]] = [[], []]
    for turn in range(8):
        for i, program in enumerate(programs):
            began = time.perf_counter()
            states[i], _ = jax.block_until_ready(program(states[i], jr.key(turn)))
            times[i].append((time.perf_counter() - began) / n / steps)
    mine, brax_time = (min(t) for t in times)
    return {
        "envs": n,
        "us_per_step": mine * 1e6,
        "brax_us_per_step": brax_time * 1e6,
        "ratio": mine / brax_time,
    }


def memory() -> dict[str, Any]:
    """Memory of a lane, and the same counted by hand from parameters, optimiser, environments and rollout."""
    from hyperlax import sweeps
    from hyperlax.programs.compiled import compile_program, state_like
    from hyperlax.programs.plan import Machine, plan

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
    analysis = compiled.copies[0].train.memory_analysis()  # pyright: ignore[reportFunctionMemberAccess]
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
