"""Measurement of CPU, memory and GPU use during a run."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

import psutil

EVERY_SECONDS = 2.0
"""Shortest time between two measurements, in seconds."""


class Monitor:
    """Measures CPU and memory use of this process, and use of its first GPU, at most every two seconds.

    That is the first in `CUDA_VISIBLE_DEVICES`, if that is set. A number there counts the GPUs as CUDA does,
    and nvidia-smi as they are plugged in; where GPUs are unequal, set `CUDA_DEVICE_ORDER=PCI_BUS_ID`.
    """

    def __init__(self):
        self.process = psutil.Process()
        self.process.cpu_percent()
        self.last = float("-inf")
        self.nvidia = shutil.which("nvidia-smi")
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        self.gpu = None if visible is None else visible.split(",")[0].strip()

    def sample(self, seconds: float, recorder: Any) -> None:
        """Measure, and append a row to the table `system` of `recorder`, if that is due.

        `seconds` is the time since the experiment began.
        """
        if seconds - self.last < EVERY_SECONDS:
            return
        self.last = seconds
        gpu, gpu_memory = self._gpu()
        row = {
            "seconds": seconds,
            "cpu_percent": self.process.cpu_percent(),
            "memory_mb": self.process.memory_info().rss / 2**20,
            "gpu_percent": gpu,
            "gpu_memory_mb": gpu_memory,
        }
        recorder.add("system", [row])

    def _gpu(self) -> tuple[float | None, float | None]:
        """Use (percent) and used memory (MB) of the first visible NVIDIA GPU; None where there is none."""
        if self.nvidia is None or self.gpu == "":
            return None, None
        query = [self.nvidia, "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
        query += [] if self.gpu is None else [f"--id={self.gpu}"]
        try:
            answer = subprocess.run(query, capture_output=True, text=True, timeout=5)
            used, memory = answer.stdout.splitlines()[0].split(",")
            return float(used), float(memory)
        except (OSError, subprocess.TimeoutExpired, IndexError, ValueError):
            return None, None
