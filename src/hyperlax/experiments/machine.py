"""Facts about this machine and its software: versions, processor, cores and memory."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from hyperlax.storage.memory import host_memory

PACKAGES = ("hyperlax", "jax", "jaxlib", "equinox", "optax", "gymnax", "brax", "pennylane", "numpy", "scipy")
"""The packages whose versions the manifest records."""

_SEEDS = "equal seeds would no longer give equal results"
SETTINGS: dict[str, tuple[tuple[Any, ...], str]] = {
    "jax_enable_x64": ((False,), "hyperlax computes in 32 bits"),
    "jax_default_prng_impl": (("threefry2x32",), _SEEDS),
    "jax_threefry_partitionable": ((True,), _SEEDS),
    "jax_random_seed_offset": ((0,), _SEEDS),
    "jax_debug_nans": ((False,), "hyperlax marks what is missing by NaN, and ends lanes that diverge itself"),
    "jax_disable_jit": ((False,), "hyperlax compiles whole experiments"),
    **{
        f"jax_transfer_guard{way}": (("allow", "log", "log_explicit"), "hyperlax moves data between devices")
        for way in ("", "_host_to_device", "_device_to_device", "_device_to_host")
    },
}
"""Setting of JAX → the values with which hyperlax works, its default first, and why not with others."""

COMMIT = Path(__file__).parents[1] / "COMMIT"
"""The file of a built package that holds the commit it was built from."""


def set_up_jax() -> None:
    """Give JAX one CPU device per usable core, unless `JAX_NUM_CPU_DEVICES` or the program has said how many.

    What runs on a CPU runs in the thread that has called it: a queue would let one core work at a time.
    Without effect if JAX has been initialised already.
    Raises `ValueError` if hyperlax does not work with a setting of JAX (`SETTINGS`).
    """
    check_settings()
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if jax.config.values["jax_num_cpu_devices"] > 0:
        return
    try:
        jax.config.update("jax_num_cpu_devices", usable_cores())
    except RuntimeError:
        return


def check_settings() -> None:
    """Raise `ValueError` if hyperlax does not work with a setting of JAX in this thread (`SETTINGS`).

    Settings that are unset, or that this version of JAX does not know, are right.
    """
    for name, (right, reason) in SETTINGS.items():
        found = getattr(jax.config, name, None)
        if found not in (*right, None):
            fix = f"unset {name.upper()}, or set {name} to {right[0]!r}"
            raise ValueError(f"{reason}: {fix} (it is {found!r})")


def usable_cores() -> int:
    """The number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def versions() -> dict[str, str]:
    """Package → version, for Python and for every one of `PACKAGES` that is installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Processor, memory and devices of this machine, without anything that identifies its owner.

    With the precision of matrix products, if JAX is not to choose it: on GPUs it changes results.
    """
    devices, precision = jax.devices(), getattr(jax.config, "jax_default_matmul_precision", None)
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": processor(),
        "cores": usable_cores(),
        "memory_gb": round(host_memory().total / 2**30, 1),
        "platform": devices[0].platform,
        "device": devices[0].device_kind,
        "devices": len(devices),
        **({"matmul_precision": precision} if precision else {}),
    }


def instruction_set() -> str:
    """The target of compiled programs: the model of the GPU, or the model and instruction set of the CPU.

    Two machines of one processor model may differ, when one of them is virtual and hides some instructions.
    """
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    digest = hashlib.sha256(f"{processor()} {_cpuinfo('flags') or _cpuinfo('Features')}".encode()).hexdigest()
    return f"{platform.machine()} {digest[:8]}"


def git_commit() -> str | None:
    """The commit of this code; None if it is neither recorded nor that of a checkout.

    A package that was built with a file `COMMIT`, as for container images, records it there. In a checkout,
    git is asked; a package that is merely installed below some other checkout does not belong to it.
    """
    if COMMIT.is_file():
        return COMMIT.read_text("utf-8").strip() or None
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD", "--show-prefix"],
            cwd=COMMIT.parent,
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    commit, _, prefix = answer.stdout.strip().partition("\n")
    return commit if answer.returncode == 0 and prefix == "src/hyperlax/" else None


def processor() -> str:
    """The name of the processor model."""
    return _cpuinfo("model name") or platform.processor()


def _cpuinfo(entry: str) -> str:
    """What Linux says of the first processor under `entry`; empty on other systems."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith(entry):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return ""
