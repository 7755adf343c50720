"""XLA options that programs are compiled with, and how they are traced."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

_OWN_CORE = {
    "xla_cpu_multi_thread_eigen": False,
    "xla_cpu_enable_concurrency_optimized_scheduler": False,
    "xla_disable_hlo_passes": "cpu-parallel-task-assigner",
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
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
two devices were no faster than one), and nothing within a program is worth running concurrently. XLA's
parallel task assigner would cut loops into a part per core, and YNNPACK adds up in another order with one
thread than with several: without both, and with the products of `networks.layout`, bits do not depend on the
number of cores, and eight lanes of PPO on two cores take 0.92 of the time (jaxlib 0.10.2). YNNPACK keeps
single matrix products; without it PPO takes twice the time. Its fusions of these with what follows make PPO
with MLPs 4-9 % slower in `full` programs. A single lane in a `low` one would take 0.6 of the time, but
YNNPACK's maximum of NaN and a number is the number, which could hide that lanes diverge (jaxlib 0.10.2 and
0.12.0.1). `low` compiles four times faster into slower code, for programs that hardly run.
"""
VECTOR_WIDTH = "xla_cpu_prefer_vector_width"
"""The XLA option for the length of vectors in CPU programs, in bits.

It is 512 in `full` programs that have no function which is wrong in such vectors (`vectors.py`), and else
256, whatever the environment variable XLA_FLAGS asks for. On an AMD EPYC with AVX-512, training PPO with MLPs
takes 0.89 of the time in 512 bits, and DQN 0.8-0.85.
"""

GPU_LOOPS = {
    "xla_gpu_enable_command_buffer": (
        "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CONDITIONAL,WHILE,DYNAMIC_SLICE_FUSION"
    ),
}
"""XLA options for a GPU program whose loops have known trip counts, which then become CUDA graphs.

On an H100 (jax 0.11.2), training one lane of an earlier program with constant sizes took 0.68 s instead of
0.74 s with this option; with loops of unknown trip counts it took 2.8 s instead of 1.0 s.
"""


@cache
def compiler_options(
    effort: str, platform: str, known_loops: bool = False, wide_vectors: bool = False
) -> dict[str, Any]:
    """The XLA options for a compilation effort that this version of XLA accepts.

    `known_loops` says that the loops of the program have known trip counts, `wide_vectors` that XLA computes
    all of its functions right in vectors of 512 bits.
    """
    options: dict[str, Any] = {}
    if platform == "cpu":
        options = {**CPU_OPTIONS[effort], VECTOR_WIDTH: 512 if wide_vectors else 256}
    elif platform in ("gpu", "cuda") and known_loops:
        options = GPU_LOOPS
    return {k: v for k, v in options.items() if _known(k, v)}


def _known(option: str, value: Any) -> bool:
    """Whether XLA accepts an option and its value; their names change between its versions."""
    probe = jax.jit(lambda x: x).lower(jax.ShapeDtypeStruct((), jnp.float32))
    try:
        probe.compile(compiler_options={option: value})
    except jax.errors.JaxRuntimeError as error:
        if any(text in str(error) for text in ("No such compile option", "not a valid enum value")):
            return False
        raise
    return True


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Stop Python's garbage collection, which takes an eighth of the time of tracing, in the `with` block."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
