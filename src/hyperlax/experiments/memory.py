"""The memory of devices, as far as this process may use it."""

from __future__ import annotations

from typing import Any

import jax

from hyperlax.storage.memory import host_memory


def device_memory() -> int:
    """The memory of one device in bytes, free or in use."""
    stats = jax.devices()[0].memory_stats() or {}
    return int(stats["bytes_limit"]) if "bytes_limit" in stats else host_memory().total


def free_memory(device: Any) -> int:
    """The free bytes of `device`; those of a CPU are the host's, and belong to all devices of the process."""
    if device.platform == "cpu":
        return host_memory().left
    stats = device.memory_stats() or {}
    return int(stats.get("bytes_limit", 2**34) - stats.get("bytes_in_use", 0))


def spare_memory(device: Any) -> int:
    """The free bytes of an accelerator; none of a CPU, where what is copied is on the host already."""
    return 0 if device.platform == "cpu" else free_memory(device)
