"""Measure a peer at the shapes of this project's throughput benchmark, in its own Python.

The peers are not dependencies and none of their code is here: give the path of a checkout and the Python
of a virtual environment with its requirements. A peer that is missing is reported as "not installed".

    python benchmarks/peers.py --purejaxrl PATH --rejax PATH --peer-python PYTHON --env gymnax.cartpole

All measurements have these shapes; on a CPU they run on one core:

- PPO: 64 environments × 128 steps per cycle, 4 epochs of 4 minibatches, networks of 2 × 64 tanh units.
- DQN: 10 environments, 5 gradient steps on 100 transitions per step of all, a buffer of 50k transitions.
- SAC: 1 environment, 1 gradient step on 256 transitions per step, a buffer of 10k transitions.
- The networks of DQN and SAC are 2 × 64, as in rejax (purejaxrl has no DQN or SAC at these shapes).

This script sets everything in which a peer's defaults differ from these shapes, in the peer's favour where
there is a choice: there is no evaluation inside the timed region, and environments return an empty info
dictionary. Observations and rewards are normalised only where that is the peer's own default (purejaxrl on
continuous actions).
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import pinned, usable_cores

PEERS = ("purejaxrl", "rejax")
ENVIRONMENTS = {"gymnax.cartpole": "CartPole-v1", "gymnax.pendulum": "Pendulum-v1"}
NUM_ENVS, NUM_STEPS, EPOCHS, MINIBATCHES, WIDTH = 64, 128, 4, 4, 64
CYCLES = {"ppo": NUM_ENVS * NUM_STEPS, "dqn": 10, "sac": 1}
LEARNING_RATE = 1e-3
LAST_CORE = usable_cores()[-1]
TIME_LIMIT = 3600


def run_pinned(
    command: list[str], core: int | None, label: dict[str, Any], platform: str = "cpu"
) -> dict[str, Any]:
    """Run `command` on one core and on JAX' `platform`; on all cores if `core` is None.

    Returns the JSON object that it prints last, or `label` with an "error".
    """
    environ = environment(platform)
    try:
        with pinned(None if core is None else [core]):
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT, env=environ)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {**label, "error": f"{type(error).__name__}: {error}"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        return {**label, **failure(done.returncode, done.stderr)}
    return json.loads(lines[-1])


def streamed(command: list[str], platform: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects that `command` prints, each as soon as it is there; with "error" if it fails."""
    with tempfile.TemporaryFile("w+") as said:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, text=True, env=environment(platform)
        ) as process:
            assert process.stdout is not None
            yield from (json.loads(line) for line in process.stdout if line.startswith("{"))
        if process.returncode:
            said.seek(0)
            yield failure(process.returncode, said.read())


def environment(platform: str) -> dict[str, str]:
    """The environment of a process on JAX' `platform`; what it compiles comes from no cache."""
    return {**os.environ, "JAX_PLATFORMS": platform, "JAX_ENABLE_COMPILATION_CACHE": "false"}


def failure(code: int, stderr: str) -> dict[str, Any]:
    """Why a process has ended, in one line under "error", and the last lines that it wrote."""
    said = stderr.strip().splitlines() or ["no output"]
    error = next((line for line in reversed(said) if "Error: " in line), None)
    why = error if error and code >= 0 else f"exit code {code}: {error or said[-1]}"
    return {"error": why, "stderr": said[-20:]}


def measure_peer(
    peer: str,
    path: str | None,
    python: str | None,
    algorithm: str = "ppo",
    env: str = "gymnax.cartpole",
    lanes: int = 1,
    steps: int = 1_000_000,
    runs: int = 3,
    core: int | None = None,
    buffer_size: int | None = None,
    platform: str = "cpu",
) -> dict[str, Any]:
    """Train `peer` in a subprocess and return its measurement, or why there is none under "error"."""
    label = {"peer": peer, "algorithm": algorithm, "env": env, "lanes": lanes}
    if peer == "purejaxrl" and algorithm != "ppo":
        return {**label, "error": "not measured"}
    if not path or not Path(path).is_dir() or not python:
        return {**label, "error": "not installed"}
    command = [python, str(Path(__file__).resolve()), "--child", peer, f"--{peer}", path, "--env", env]
    command += ["--algorithm", algorithm, "--lanes", str(lanes), "--steps", str(steps), "--runs", str(runs)]
    command += ["--buffer-size", str(buffer_size)] if buffer_size else []
    return run_pinned(command, core, label, platform)


# The functions below run in the peer's Python.


def plain_env(name: str, action_scale: float = 1.0) -> tuple[Any, Any]:
    """A gymnax environment with the five-value `step` the peers expect, whichever gymnax is installed."""
    import gymnax
    import jax.numpy as jnp

    inner: Any
    inner, params = gymnax.make(name)

    class PlainEnv:
        """Delegates to gymnax; actions are multiplied by `action_scale`, the info dictionary is empty."""

        default_params = params

        def __getattr__(self, attribute: str) -> Any:
            return getattr(inner, attribute)

        def __deepcopy__(self, memo: dict[int, Any]) -> PlainEnv:
            return self

        def reset(self, key: Any, params: Any = None) -> Any:
            return inner.reset(key, params or self.default_params)

        def step(self, key: Any, state: Any, action: Any, params: Any = None) -> Any:
            if action_scale != 1.0:
                action = action * action_scale
            out = inner.step(key, state, action, params or self.default_params)
            obs, state, reward, done = out[:4]
            if len(out) == 6:  # gymnax 1: terminated and truncated apart
                done = jnp.logical_or(done, out[4])
            return obs, state, reward, done, {}

        def observation_space(self, params: Any = None) -> Any:
            return inner.observation_space(params or self.default_params)

        def action_space(self, params: Any = None) -> Any:
            return inner.action_space(params or self.default_params)

    return PlainEnv(), params


def stand_in(name: str, **attributes: Any) -> None:
    """Register an empty module for an import the peer makes but the benchmark does not use."""
    if name in sys.modules:
        return
    module = types.ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module


def with_width(nn: Any, width: int) -> Any:
    """`flax.linen` as a namespace whose hidden `Dense` layers have `width` units (256 is the peer's own)."""

    def dense(features: Any, *args: Any, **kwargs: Any) -> Any:
        return nn.Dense(width if features == 256 else features, *args, **kwargs)

    return types.SimpleNamespace(**{**vars(nn), "Dense": dense})


def build_purejaxrl(path: str, env: str, steps: int) -> tuple[Any, Any]:
    """The functions key → output and output → return reached, of purejaxrl."""
    stand_in("navix")
    stand_in("brax", envs=None)
    for name in ("brax.envs", "brax.envs.wrappers"):
        stand_in(name)
    stand_in("brax.envs.wrappers.training", EpisodeWrapper=None, AutoResetWrapper=None)
    sys.path.insert(0, str(Path(path) / "purejaxrl"))
    if env == "gymnax.pendulum":
        peer = importlib.import_module("ppo_continuous_action")
        # The peer clips actions to [-1, 1].
        made, _ = plain_env(ENVIRONMENTS[env], action_scale=2.0)
        vars(peer).update(BraxGymnaxWrapper=lambda name: made, nn=with_width(vars(peer)["nn"], WIDTH))
    else:
        peer = importlib.import_module("ppo")
        vars(peer)["gymnax"] = types.SimpleNamespace(make=plain_env)
    config = {
        "LR": LEARNING_RATE,
        "NUM_ENVS": NUM_ENVS,
        "NUM_STEPS": NUM_STEPS,
        "TOTAL_TIMESTEPS": steps,
        "UPDATE_EPOCHS": EPOCHS,
        "NUM_MINIBATCHES": MINIBATCHES,
        "GAMMA": 0.99,
        "GAE_LAMBDA": 0.95,
        "CLIP_EPS": 0.2,
        "ENT_COEF": 0.01 if env == "gymnax.cartpole" else 0.0,
        "VF_COEF": 0.5,
        "MAX_GRAD_NORM": 0.5,
        "ACTIVATION": "tanh",
        "ENV_NAME": ENVIRONMENTS[env],
        "ANNEAL_LR": False,
        "NORMALIZE_ENV": env == "gymnax.pendulum",
        "DEBUG": False,
    }
    train: Any = vars(peer)["make_train"](config)
    return train, lambda out, keys: out["metrics"]["returned_episode_returns"][:, -5:].mean()


def build_rejax(path: str, algorithm: str, env: str, steps: int, buffer_size: int | None) -> tuple[Any, Any]:
    """The functions key → output and output → return reached, of rejax."""
    import jax

    sys.path.insert(0, str(Path(path) / "src"))
    made, params = plain_env(ENVIRONMENTS[env])
    shapes = {
        "ppo": {
            "num_envs": NUM_ENVS,
            "num_steps": NUM_STEPS,
            "num_epochs": EPOCHS,
            "num_minibatches": MINIBATCHES,
            "max_grad_norm": 0.5,
            "gae_lambda": 0.95,
            "ent_coef": 0.01 if env == "gymnax.cartpole" else 0.0,
            "agent_kwargs": {"activation": "tanh", "hidden_layer_sizes": (WIDTH, WIDTH)},
        },
        "dqn": {
            "num_envs": 10,
            "num_epochs": 5,
            "batch_size": 100,
            "buffer_size": 50_000,
            "fill_buffer": 1000,
        },
        "sac": {
            "num_envs": 1,
            "num_epochs": 1,
            "batch_size": 256,
            "buffer_size": 10_000,
            "fill_buffer": 1000,
        },
    }
    if buffer_size:
        shapes[algorithm]["buffer_size"] = buffer_size
    algorithm_class = vars(importlib.import_module("rejax"))[algorithm.upper()]
    peer = algorithm_class.create(
        env=made,
        env_params=params,
        total_timesteps=steps,
        eval_freq=steps,
        skip_initial_evaluation=True,
        learning_rate=LEARNING_RATE,
        gamma=0.99,
        **shapes[algorithm],
    )
    evaluate = peer.eval_callback
    quiet = peer.replace(eval_callback=lambda algorithm, state, key: ())

    def reached(out: Any, keys: Any) -> Any:
        return jax.vmap(lambda state, key: evaluate(quiet, state, key)[1])(out[0], keys).mean()

    return lambda key: quiet.train(key), reached


def timed(train: Any, reached: Any, lanes: int, steps: int, runs: int) -> dict[str, Any]:
    """Compile `train` over `lanes` keys, then time `runs` complete trainings, each from different keys."""
    import jax
    import jax.numpy as jnp

    def lead(x: Any) -> Any:
        return jnp.asarray(x)[None]

    function = jax.vmap(train) if lanes > 1 else lambda keys: jax.tree.map(lead, train(keys[0]))
    keys = jax.random.split(jax.random.PRNGKey(0), (runs, lanes))
    start = time.perf_counter()
    compiled = jax.jit(function).lower(keys[0]).compile()
    trace_compile = time.perf_counter() - start
    jax.block_until_ready(compiled(keys[0]))  # not timed: a first run is slower, and ours has had one
    rates, returns = [], []
    for run_keys in keys:
        start = time.perf_counter()
        out = jax.block_until_ready(compiled(run_keys))
        rates.append(lanes * steps / (time.perf_counter() - start))
        returns.append(float(jax.jit(reached)(out, run_keys)))
        del out  # before the next run takes as much memory
    return {
        "trace_compile_seconds": round(trace_compile, 3),
        "env_steps_per_second": {
            "best": round(max(rates)),
            "median": round(statistics.median(rates)),
            "runs": [round(rate) for rate in rates],
        },
        "return_reached": round(statistics.mean(returns), 2),
    }


def child(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one peer in this process."""
    cycle = CYCLES[arguments.algorithm]
    steps = max(arguments.steps // cycle, 1) * cycle
    if arguments.child == "purejaxrl":
        train, reached = build_purejaxrl(arguments.purejaxrl, arguments.env, steps)
    else:
        train, reached = build_rejax(
            arguments.rejax, arguments.algorithm, arguments.env, steps, arguments.buffer_size
        )
    result = timed(train, reached, arguments.lanes, steps, arguments.runs)
    head = {
        "peer": arguments.child,
        "algorithm": arguments.algorithm,
        "env": arguments.env,
        "lanes": arguments.lanes,
        "steps": steps,
    }
    return {**head, **result, **{name: importlib.metadata.version(name) for name in ("jax", "gymnax")}}


def main() -> None:
    """Print one JSON object per measurement."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for peer in PEERS:
        parser.add_argument(f"--{peer}", default=os.environ.get(peer.upper()), help=f"checkout of {peer}")
    parser.add_argument("--peer-python", default=os.environ.get("PEER_PYTHON"), help="Python of the peers")
    parser.add_argument("--algorithm", default="ppo", choices=tuple(CYCLES))
    parser.add_argument("--env", default="gymnax.cartpole", choices=tuple(ENVIRONMENTS))
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1_000_000, help="environment steps per lane")
    parser.add_argument("--runs", type=int, default=3, help="timed runs after compilation")
    parser.add_argument("--buffer-size", type=int, help="transitions kept, instead of the shape's")
    parser.add_argument("--core", type=int, default=LAST_CORE, help="the core to run on")
    parser.add_argument("--child", choices=PEERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(child(arguments)))
        return
    for peer in PEERS:
        path = getattr(arguments, peer)
        shape = (
            arguments.algorithm,
            arguments.env,
            arguments.lanes,
            arguments.steps,
            arguments.runs,
            arguments.core,
            arguments.buffer_size,
        )
        print(json.dumps(measure_peer(peer, path, arguments.peer_python, *shape)))


if __name__ == "__main__":
    main()
