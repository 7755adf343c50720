"""Shared set-up: two CPU devices, strict dtypes, runtime type checks, quick compilation into a cache."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from packaging.version import Version

os.environ["HYPERLAX_TYPECHECK"] = "1"
os.environ["HYPERLAX_CACHE_DIR"] = str(Path(__file__).parents[1] / ".jax_cache")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("POLARS_MAX_THREADS", "1")  # two processes share two cores
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Half of the time of the short tests is compilation, which takes half as long without optimisation. The long
# tests run with `XLA_FLAGS` empty, on the code that users run.
# The passes named here, most of which move or simplify loops, take a sixth of what is left of compilation;
# compiling a program in parts, for threads, takes a fifth longer in all.
# XLA from 0.11 on aborts when it is given `xla_cpu_use_fusion_emitters`.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    " --xla_disable_hlo_passes=simplify-while-loops,small-while-loop-hoisting,"
    "while-loop-invariant-code-motion,while-loop-constant-sinking,cpu-parallel-task-assigner,"
    "tree_reduction_rewriter,reshape-mover"
    + " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    * (Version(version("jaxlib")) < Version("0.11")),
)

import jax
import psutil
import pytest

from hyperlax.commands.launch import compilation_cache

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_cpu_enable_async_dispatch", False)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_persistent_cache_enable_xla_caches", "none")  # as `launch` does on a CPU
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
# Where the command line keeps them: what is compiled here is there for the processes that tests start.
jax.config.update("jax_compilation_cache_dir", str(compilation_cache()))

gc.set_threshold(50_000, 20, 50)  # what is traced are millions of long-lived objects, seldom in cycles


MOST_MEMORY, MOST_GROWTH = 2.5 * 2**30, 1.0 * 2**30
"""Bytes that a process may hold before it forgets what it has traced and compiled, and bytes by which it may
grow after that before it forgets again: not all of the memory is given back."""

_most = MOST_MEMORY  # that this process may hold now


LONGEST = "test_snapshots"
"""The file whose tests take longest in all: it comes first, so that no worker is left with it in the end."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest file; the others keep their order."""
    items.sort(key=lambda item: item.path.stem != LONGEST)


def pytest_collection_finish() -> None:
    """Take what is imported out of garbage collection, whose passes over it took a tenth of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def bounded_memory() -> Iterator[None]:
    """Keep what the tests of a file have traced for the next ones, out of garbage collection, while it fits.

    With millions of such objects, passes over them would take half of the time.
    """
    global _most
    yield
    forget = _held() > _most
    if forget:
        gc.unfreeze()
        jax.clear_caches()
    gc.collect()
    gc.freeze()
    if forget:
        _most = max(MOST_MEMORY, _held() + MOST_GROWTH)


def _held() -> int:
    """The bytes that this process holds in memory."""
    return psutil.Process().memory_info().rss
