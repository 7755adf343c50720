"""XLA options that programs are compiled with."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

_OWN_CORE = {
    "xla_cpu_multi_thread_eigen": False,
    "xla_cpu_enable_concurrency_optimized_scheduler": False,
}
CPU_OPTIONS = {
    "full": _OWN_CORE,
    "low": {
        **_OWN_CORE,
        "xla_backend_optimization_level": 0,
        "xla_cpu_use_fusion_emitters": False,
    },
}
"""Compilation effort → XLA options for CPUs.

Every core is a device of its own, so matrix products must not use the threads of other cores (when they did,
two devices were no faster than one), and nothing within a program is worth running concurrently. `low`
compiles four times faster into slower code, for programs that hardly run. Wider vectors than LLVM's default
(`xla_cpu_prefer_vector_width`) would give 5-10 % more throughput, but wrong arctangents (jaxlib 0.10.2).
"""


@cache
def compiler_options(effort: str, platform: str) -> dict[str, Any]:
    """The XLA options for a compilation effort that this version of XLA accepts."""
    return {k: v for k, v in CPU_OPTIONS[effort].items() if platform == "cpu" and _known(k, v)}


def _known(option: str, value: Any) -> bool:
    """Whether XLA accepts an option; the names change between its versions."""
    probe = jax.jit(lambda x: x).lower(jax.ShapeDtypeStruct((), jnp.float32))
    try:
        probe.compile(compiler_options={option: value})
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" in str(error):
            return False
        raise
    return True
