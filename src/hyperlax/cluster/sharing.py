"""Several processes on one GPU, which share its memory and run their kernels at the same time.

Programs of small networks are a chain of kernels that hardly use a GPU, and JAX gives every device of a
process a single stream: only another process can use the rest. Processes take turns on a GPU, unless the
multi-process service (MPS) runs that comes with NVIDIA's driver: then their kernels run side by side. Every
process trains whole programs, as one process would. Neither the gain in speed nor equality bit by bit has
been measured on a GPU.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hyperlax.run.compiling import TOGETHER

CONTROL = "nvidia-cuda-mps-control"
"""The program that starts and stops MPS."""
PIPES = "CUDA_MPS_PIPE_DIRECTORY"
"""The variable with the folder by which processes find MPS."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The variable with the GPUs that a process sees: numbers, or names such as `GPU-8932f937` and `MIG-…`."""
FRACTION, PREALLOCATE = "XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_PREALLOCATE"
"""Environment variables for the share of a GPU's memory that a process takes, and whether at once."""
ALL = 0.9
"""The share of a GPU's memory that all its processes take together; CUDA itself needs some for each."""
CORES_PER_PROCESS = 2
"""Cores that a process keeps busy: one computes in Python and one launches kernels."""
MOST_PROCESSES = 8
"""The largest number of processes that share a GPU by default."""
SECONDS = 30
"""How long `CONTROL` may take to answer."""


def processes_per_gpu(gpus: int, cores: int, environment: Mapping[str, str] = os.environ) -> int:
    """How many processes suit a GPU of a machine: more than one only if MPS can run."""
    if PIPES not in environment and shutil.which(CONTROL) is None:
        return 1
    return max(1, min(MOST_PROCESSES, cores // (CORES_PER_PROCESS * gpus)))


def take_little() -> None:
    """Keep this process, which only counts GPUs and plans, from reserving the memory of its GPU.

    Has no effect once JAX has been initialised, or if the user has set these variables.
    """
    if PREALLOCATE not in os.environ:
        os.environ[PREALLOCATE] = _LITTLE
        _said.add(PREALLOCATE)


def of_user() -> dict[str, str]:
    """The environment of this process without the variables that `take_little` has set."""
    return {name: value for name, value in os.environ.items() if name not in _said}


_LITTLE = "false"
_said: set[str] = set()


def memory_of(processes: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Environment variables that give each of the `processes` on a GPU an equal part of its memory.

    Their number is among them. Variables about memory that the user has set in `environment` stay.
    """
    if processes < 2:
        return {}
    number = {TOGETHER: str(processes)}
    if FRACTION in environment or PREALLOCATE in environment:
        return number
    return {**number, FRACTION: f"{ALL / processes:.3f}"}


@contextmanager
def side_by_side(processes: int, environment: Mapping[str, str] = os.environ) -> Iterator[dict[str, str]]:
    """Start MPS for the `with` block if `processes` share a GPU; yield the variables by which they find it.

    An MPS that is already running, according to `PIPES`, is used. Where MPS is not installed, a line says so
    and the processes take turns. Raises `ValueError` if it does not start. If it does not stop, a line says
    so: what was trained meanwhile is whole.
    """
    if processes < 2 or PIPES in environment:
        yield {}
        return
    if shutil.which(CONTROL) is None:
        print(f"{processes} processes take turns on a GPU: {CONTROL}, which runs them together, is not here")
        yield {}
        return
    # A service that does not stop may still write there while the folder is removed.
    with tempfile.TemporaryDirectory(prefix="hyperlax-mps-", ignore_cleanup_errors=True) as folder:
        found = {PIPES: folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        if why := _failure(["-d"], {**_seeing_all(environment), **found}):
            raise ValueError(f"{CONTROL} does not start: {why}; give no more --tasks than GPUs")
        try:
            yield found
        finally:
            if why := _failure([], {**environment, **found}, "quit\n"):
                print(f"{CONTROL} does not stop: {why}; end its process yourself", file=sys.stderr)


def _seeing_all(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment`, without the GPUs that it selects by number.

    A service counts those that it sees itself: of GPU 3 alone, its processes would have to ask for GPU 0.
    """
    chosen = [gpu.strip() for gpu in environment.get(VISIBLE, "").split(",")]
    numbered = all(gpu.isdecimal() for gpu in chosen)
    return {name: value for name, value in environment.items() if name != VISIBLE or not numbered}


def _failure(arguments: list[str], environment: Mapping[str, str], said: str = "") -> str:
    """Call `CONTROL`; return why it failed, or nothing if it did not."""
    try:
        done = subprocess.run(
            [CONTROL, *arguments],
            env=dict(environment),
            input=said,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"it has not answered within {SECONDS} s"
    if not done.returncode:
        return ""
    log = Path(environment[PIPES]) / "control.log"
    why = done.stderr or done.stdout or (log.read_text("utf-8", "replace") if log.exists() else "")
    return (why.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
