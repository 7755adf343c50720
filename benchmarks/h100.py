"""Compiles programs for an NVIDIA H100 on a machine that need not have one.

XLA compiles for a device that it is told about instead of one that it finds, so that the result can be read
but not run: nothing is timed, and choices that XLA makes by timing are made by rules instead. Needs the
compiler for CUDA, `pip install ".[kernels]"` in the checkout, of the version of jax.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from functools import cache
from typing import Any

H100 = """
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
runtime_version { major: 12 minor: 9 }
dnn_version_info { major: 9 minor: 10 }
gpu_device_info {
  name: "NVIDIA H100 80GB HBM3"
  device_vendor: "NVIDIA Corporation"
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  l2_cache_size: 52428800
  memory_bandwidth: 3352320000000
  pcie_bandwidth: 34359738368
  device_memory_size: 84942979072
  device_address_bits: 64
  ecc_enabled: true
  runtime_version: "12.9.0"
  compile_time_toolkit_version: "12.9.0"
  driver_version: "13.0.0"
  dnn_version: "9.10.0"
}
"""
"""An H100 SXM as XLA describes devices (`GpuTargetConfigProto`): NVIDIA's data sheet, and CUDA 12.9."""


def missing() -> str | None:
    """Why programs cannot be compiled here, with the remedy; None if they can."""
    if sys.platform != "linux":
        return "the compiler for CUDA exists for Linux only"
    if not any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)):
        return 'the compiler for CUDA is not installed: pip install ".[kernels]"'
    return None


@cache
def devices(count: int = 1) -> tuple[Any, ...]:
    """`count` H100s to compile for, on one host. Raises `RuntimeError` where that is impossible.

    The first call comes before anything else uses JAX, which from then on runs on the CPU: without a driver,
    the CUDA plugin can compile, but has no devices of its own.
    """
    if reason := missing():
        raise RuntimeError(reason)
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # the check asks the driver for its version
    import jax
    from jax.experimental import topologies

    jax.config.update("jax_platforms", "cpu")

    slices, hosts = 1, 1
    shape = f"{slices}x{hosts}x{count}"
    found = topologies.get_topology_desc(platform="cuda", target_config=H100, topology=shape)
    return tuple(found.devices)


def compiled(function: Any, *arguments: Any) -> Any:
    """`function`, jitted or not, compiled for one H100 as a `jax.stages.Compiled`.

    Of `arguments`, trees of arrays or of `jax.ShapeDtypeStruct`, only shapes and dtypes matter.
    """
    import jax

    (device,) = devices()
    place = jax.sharding.SingleDeviceSharding(device)

    def spec(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)

    jitted = function if hasattr(function, "lower") else jax.jit(function)
    traced = jitted.trace(*jax.tree.map(spec, arguments))
    with jax.default_device(device):  # what is written in Pallas asks it for the architecture
        lowered = traced.lower()
    return lowered.compile()
