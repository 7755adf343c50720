"""The shape of an execution: what the bits of a result depend on beside the experiment and its plan."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import jax

from hyperlax.experiments.machine import instruction_set, processor


def shape() -> dict[str, str]:
    """The platform, the kind of device and the compiler of this process, JSON-ready.

    A lane learns the same, bit for bit, in all processes of one shape; between two shapes, the same only up
    to rounding. The number of devices is not part of it. What else decides, the capacities and the lanes that
    are mapped together, belongs to the plan (`programs.plan.Program`).
    """
    device = jax.local_devices()[0]
    kind = f"{processor()} ({instruction_set()})" if device.platform == "cpu" else device.device_kind
    return {"platform": device.platform, "device": kind, "jaxlib": version("jaxlib")}


def shape_difference(stored: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Describe the differences between two shapes, one per line; `stored` is empty in older folders."""
    return [
        f"{name}: began on {stored[name]}, this is {here.get(name)}"
        for name in stored
        if stored[name] != here.get(name)
    ]
