"""Run all measurements that take minutes; writes JSON to `benchmarks/out/` and prints tables.

    python benchmarks/run.py [--only NAME ...] [--purejaxrl PATH --rejax PATH --peer-python PYTHON]

Names: help, quickstart, compile, cores, heterogeneous, memory, replay, brax, throughput. Peers are measured
side by side when their sources are given. Learning has a script of its own, `learning.py`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import OUT, child, cli, save, table, temporary_folder, usable_cores, whole_process

NAMES = (
    "help",
    "quickstart",
    "compile",
    "cores",
    "heterogeneous",
    "memory",
    "replay",
    "brax",
    "throughput",
)
QUICKSTART = [
    "sweep-hp-samples",
    "--algo-and-network-config",
    "tuned.first_sweep",
    "--env-config",
    "gymnax.cartpole",
    "--num-samples",
    "4",
    "--output-root",
]


def help_() -> list[dict[str, Any]]:
    """Time of the whole process `hyperlax --help`."""
    times = sorted(whole_process(cli("--help")) for _ in range(5))
    return [{"what": "hyperlax --help", "seconds": times[2], "reach": "<= 0.5"}]


def quickstart() -> list[dict[str, Any]]:
    """Time of the whole process of the quick start, without and with the compilation cache."""
    rows = []
    with temporary_folder() as folder:
        cold = [whole_process(cli(*QUICKSTART, f"{folder}/cold{i}"), HYPERLAX_CACHE_DIR="") for i in range(3)]
        cache = {"HYPERLAX_CACHE_DIR": f"{folder}/cache"}
        whole_process(cli(*QUICKSTART, f"{folder}/fill"), **cache)
        warm = [whole_process(cli(*QUICKSTART, f"{folder}/warm{i}"), **cache) for i in range(3)]
    for what, times, reach in (("cold", cold, "<= 45"), ("with the cache", warm, "<= 30")):
        rows.append({"what": f"quick start, {what}", "seconds": sorted(times)[1], "reach": reach})
    return rows


def compile_() -> list[dict[str, Any]]:
    """Number and compilation time of the programs for the 64 published samples."""
    found = child("compile_benchmarked")
    seconds = found["trace_and_compile_seconds"]
    return [
        {"what": "train programs for 64 published samples", "value": found["programs"], "reach": "<= 8"},
        {"what": "their trace + compile seconds", "value": seconds, "reach": "<= 180"},
    ]


def cores() -> list[dict[str, Any]]:
    """Throughput of eight lanes on one core and on two cores, measured alternately."""
    available = usable_cores()
    one, two = [], []
    for _ in range(2):
        one.append(child("cores", "1", cores=available[:1])["env_steps_per_second"])
        two.append(child("cores", "2", cores=available[:2])["env_steps_per_second"])
    return [
        {"what": "env steps/s, one core", "value": max(one), "reach": ""},
        {"what": "env steps/s, two cores", "value": max(two), "reach": ""},
        {"what": "ratio", "value": max(two) / max(one), "reach": ">= 1.7"},
    ]


def heterogeneous() -> list[dict[str, Any]]:
    """Time of 16 published samples trained together and one by one."""
    found = child("heterogeneous", "200000", cores=usable_cores()[:1])
    reach = {"ratio": "<= 1.3", "useful_gradient_share": ">= 0.7"}
    return [{"what": f"heterogeneous: {k}", "value": v, "reach": reach.get(k, "")} for k, v in found.items()]


def memory() -> list[dict[str, Any]]:
    """Memory of a lane, compared to a count by hand."""
    reach = {"state_ratio": "<= 1.2"}
    return [
        {"what": f"memory: {k}", "value": v, "reach": reach.get(k, "")} for k, v in child("memory").items()
    ]


def replay() -> list[dict[str, Any]]:
    """Time of a gradient step for two capacities of the replay buffer, and compile time of SAC."""
    reach = {"dqn_ratio": "<= 1.1", "sac_ratio": "<= 1.1", "sac_train_compile_seconds": "<= 20"}
    found = child("replay", cores=usable_cores()[:1])
    return [{"what": f"replay: {k}", "value": v, "reach": reach.get(k, "")} for k, v in found.items()]


def brax() -> list[dict[str, Any]]:
    """Time per step of brax's inverted double pendulum through the adapter and in brax itself."""
    rows = []
    for n in (16, 128):
        found = child("brax", str(n), cores=usable_cores()[:1])
        rows.append({**found, "reach": "ratio <= 1.15"})
    return rows


def throughput(arguments: argparse.Namespace) -> None:
    """Run `throughput.py` with the peers whose sources are given."""
    out = str(OUT / "throughput.json")
    command = [sys.executable, str(Path(__file__).with_name("throughput.py")), "--out", out]
    for flag in ("purejaxrl", "rejax", "peer_python"):
        if value := getattr(arguments, flag):
            command += [f"--{flag.replace('_', '-')}", value]
    subprocess.run(command, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=NAMES, default=list(NAMES))
    for flag in ("--purejaxrl", "--rejax", "--peer-python"):
        parser.add_argument(flag)
    arguments = parser.parse_args()
    measures = {
        "help": help_,
        "quickstart": quickstart,
        "compile": compile_,
        "cores": cores,
        "heterogeneous": heterogeneous,
        "memory": memory,
        "replay": replay,
        "brax": brax,
    }
    for name in arguments.only:
        if name == "throughput":
            throughput(arguments)
            continue
        rows = measures[name]()
        table(rows, name)
        print(save(name, rows))


if __name__ == "__main__":
    main()
