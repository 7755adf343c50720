"""Throughput of this package, purejaxrl and rejax, measured alternately on one core.

    python benchmarks/throughput.py --purejaxrl PATH --rejax PATH --peer-python PYTHON \\
        --out benchmarks/out/throughput.json

Every measurement is a fresh process pinned to one core, which compiles and then times complete trainings.
The contenders take turns (ours, peer, peer, ours, peer, peer, …), so that a busy machine slows all of them
alike. Shapes and rules of fairness are in `peers.py`; `ours.py` measures this package and prints the same
JSON object.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from itertools import product
from pathlib import Path
from typing import Any

from common import context, save
from peers import LAST_CORE, PEERS, measure_peer, run_pinned

OURS = "hyperlax"
CASES = {
    "ppo": (("gymnax.cartpole", "gymnax.pendulum"), 1_000_000),
    "dqn": (("gymnax.cartpole",), 100_000),
    "sac": (("gymnax.pendulum",), 30_000),
}
"""Algorithm → environments, and number of environment steps per lane."""


def measure_ours(
    algorithm: str,
    env: str,
    lanes: int,
    steps: int,
    runs: int,
    core: int | None,
    buffer_size: int | None,
    platform: str = "cpu",
) -> dict[str, Any]:
    """This package's measurement in a subprocess, pinned to `core` unless that is None."""
    label = {"peer": OURS, "algorithm": algorithm, "env": env, "lanes": lanes}
    script = Path(__file__).resolve().with_name("ours.py")
    if not script.exists():
        return {**label, "error": "not available"}
    command = [sys.executable, str(script), "--algorithm", algorithm, "--env", env, "--lanes", str(lanes)]
    command += ["--steps", str(steps), "--runs", str(runs)]
    return run_pinned(
        command + (["--buffer-size", str(buffer_size)] if buffer_size else []), core, label, platform
    )


def merge(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Merge the rounds of one contender into one result; the first error if no round succeeded."""
    good = [result for result in rounds if "error" not in result]
    if not good:
        return rounds[0]
    rates = [rate for result in good for rate in result["env_steps_per_second"]["runs"]]
    per_round = [result["env_steps_per_second"]["median"] for result in good]
    return {
        **good[0],
        "trace_compile_seconds": min(result["trace_compile_seconds"] for result in good),
        "env_steps_per_second": {"best": max(rates), "median": statistics.median(rates), "runs": rates},
        "median_of_each_round": per_round,
        "return_reached": round(statistics.mean(result["return_reached"] for result in good), 2),
        "rounds": len(good),
        "errors": [result["error"] for result in rounds if "error" in result],
    }


def ratio(results: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """The ratio of our speed to that of the faster peer, by best and by median; None if one is missing."""
    ours = results[OURS].get("env_steps_per_second")
    peers = {name: found["env_steps_per_second"] for name, found in results.items() if name != OURS
             and "env_steps_per_second" in found}  # fmt: skip
    if not ours or not peers:
        return None
    faster = max(peers, key=lambda name: peers[name]["median"])
    return {
        "faster_peer": faster,
        "best": round(ours["best"] / peers[faster]["best"], 3),
        "median": round(ours["median"] / peers[faster]["median"], 3),
    }


def table(comparisons: list[dict[str, Any]]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| algorithm | environment | lanes | who | trace + compile | env steps/s | median | return | ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for comparison in comparisons:
        for name, found in comparison["results"].items():
            start = f"| {comparison['algorithm']} | {comparison['env']} | {comparison['lanes']} | {name} |"
            if "env_steps_per_second" not in found:
                lines.append(f"{start} {found['error']} | | | | |")
                continue
            speed, over = found["env_steps_per_second"], comparison["ratio"]
            last = f"{over['median']:.2f} × {over['faster_peer']}" if over and name == OURS else ""
            lines.append(
                f"{start} {found['trace_compile_seconds']:.1f} s | {speed['best'] / 1e3:.0f}k "
                f"| {speed['median'] / 1e3:.0f}k | {found['return_reached']:.0f} | {last} |"
            )
    return "\n".join(lines)


def compare(arguments: argparse.Namespace, algorithm: str, env: str, lanes: int) -> dict[str, Any]:
    """All contenders on one environment and lane count, taking turns."""
    steps = arguments.steps or CASES[algorithm][1]
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in (OURS, *PEERS)}
    for turn in range(arguments.rounds):
        for name, found in rounds.items():
            if found and found[0].get("error") in ("not installed", "not available", "not measured"):
                continue
            shape = (algorithm, env, lanes, steps, arguments.runs, arguments.core, arguments.buffer_size)
            if name == OURS:
                result = measure_ours(*shape)
            else:
                result = measure_peer(name, getattr(arguments, name), arguments.peer_python, *shape)
            found.append(result)
            speed = result.get("env_steps_per_second", {}).get("best", result.get("error"))
            print(
                f"round {turn + 1}: {algorithm}, {env}, {lanes} lanes, {name}: {speed}",
                file=sys.stderr,
                flush=True,
            )
    results = {name: merge(found) for name, found in rounds.items()}
    return {
        "algorithm": algorithm,
        "env": env,
        "lanes": lanes,
        "steps": steps,
        "buffer_size": arguments.buffer_size,
        "results": results,
        "ratio": ratio(results),
    }


def main() -> None:
    """Measure, print the table, write the JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for peer in PEERS:
        parser.add_argument(f"--{peer}", default=os.environ.get(peer.upper()), help=f"checkout of {peer}")
    parser.add_argument("--peer-python", default=os.environ.get("PEER_PYTHON"), help="Python of the peers")
    parser.add_argument("--algorithms", nargs="+", default=list(CASES), choices=tuple(CASES))
    parser.add_argument("--lanes", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--steps", type=int, help="environment steps per lane")
    parser.add_argument("--runs", type=int, default=1, help="timed runs per process, after compilation")
    parser.add_argument("--rounds", type=int, default=3, help="how often the contenders take turns")
    parser.add_argument("--buffer-size", type=int, help="transitions kept, instead of the shape's (DQN, SAC)")
    parser.add_argument("--core", type=int, default=LAST_CORE, help="the core to run on")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    comparisons: list[dict[str, Any]] = []
    settings = {key: getattr(arguments, key) for key in ("runs", "rounds", "core")}
    about = {**context(), "settings": settings}
    for algorithm, lanes in product(arguments.algorithms, arguments.lanes):
        for env in CASES[algorithm][0]:
            comparisons.append(compare(arguments, algorithm, env, lanes))
            if arguments.out:  # after each, as a run that is cut off has measured something
                save("throughput", comparisons, arguments.out, about)
    print(table(comparisons))


if __name__ == "__main__":
    main()
