"""Facts about this machine and its software: versions, processor, cores and memory."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from hyperlax.experiments.memory import host_memory

PACKAGES = ("hyperlax", "jax", "jaxlib", "equinox", "optax", "gymnax", "brax", "pennylane", "numpy", "scipy")
"""The packages whose versions the manifest records."""


def set_up_jax() -> None:
    """Give JAX one CPU device per usable core; without effect if JAX has been initialised already.

    Raises `ValueError` if JAX computes in 64 bits, which no part of hyperlax is made for.
    """
    if jax.config.read("jax_enable_x64"):
        raise ValueError("hyperlax computes in 32 bits: unset JAX_ENABLE_X64, or set jax_enable_x64 to False")
    try:
        jax.config.update("jax_num_cpu_devices", usable_cores())
    except RuntimeError:
        return


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
    """Processor, memory and devices of this machine, without anything that identifies its owner."""
    devices = jax.devices()
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": processor(),
        "cores": usable_cores(),
        "memory_gb": round(host_memory().total / 2**30, 1),
        "platform": devices[0].platform,
        "device": devices[0].device_kind,
        "devices": len(devices),
    }


def git_commit() -> str | None:
    """The commit of the checkout that hyperlax runs from; None if it was installed without one."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def processor() -> str:
    """The name of the processor model."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()
