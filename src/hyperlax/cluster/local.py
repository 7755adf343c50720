"""Several processes on this machine, one for each GPU or group of cores, which train the units of a sweep."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from hyperlax import leaving
from hyperlax.cluster import sharing
from hyperlax.experiments.machine import usable_cores

STOPPED = (leaving.INTERRUPTED, leaving.OUT_OF_TIME)
"""Exit codes of a process that was asked to stop."""


class Workers:
    """Trains units in `tasks` processes, each of which trains one unit after another.

    Every process has its share of the cores, or of one of the `gpus`. `told` is called with the name and the
    exit code of every unit that has ended. A signal is passed on to the processes, which save and exit.
    """

    def __init__(
        self, root: Path, tasks: int, gpus: int = 0, told: Callable[[str, int], None] = lambda *_: None
    ):
        self.root, self.tasks, self.gpus, self.told = root, tasks, gpus, told
        self.waiting: deque[str] = deque()
        self.codes: dict[str, int] = {}
        self.processes: dict[int, subprocess.Popen[str]] = {}
        self.asked: int | None = None
        self.environment: dict[str, str] = {}
        self._lock = threading.Lock()

    def run(self, names: Sequence[str]) -> int | None:
        """Train the units called `names`; returns the number of the signal that has stopped them, or None.

        `codes` then has the exit code of every unit that was begun; 0 for those that are trained.
        """
        self.waiting.extend(names)
        threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(self.tasks)]
        own = sharing.of_user()
        together = -(-self.tasks // self.gpus) if self.gpus else 1
        with sharing.side_by_side(together, own) as found, leaving.moment(None, self._stop):
            self.environment = {**own, **found, **sharing.memory_of(together, own)}
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return self.asked

    def _stop(self, number: int) -> None:
        """Pass a signal on to the processes, and begin no further units."""
        self.asked = self.asked or number
        self.waiting.clear()
        for process in list(self.processes.values()):
            if process.poll() is None:
                process.send_signal(number)

    def _work(self, task: int) -> None:
        """Give units to one process until none is left; a process that exits with its unit is replaced."""
        while self.waiting and self.asked is None:
            process = self._started(task)
            assert process.stdin is not None
            assert process.stdout is not None
            while self.asked is None and (name := self._next()) is not None:
                process.stdin.write(f"{name}\n")
                process.stdin.flush()
                if not (answer := process.stdout.readline()):
                    code = process.wait()
                    if code not in STOPPED or self.asked is None:
                        self._over(name, code)
                    break
                self._over(name, int(answer.split()[-1]))
            process.stdin.close()
            process.wait()

    def _next(self) -> str | None:
        with self._lock:
            return self.waiting.popleft() if self.waiting else None

    def _over(self, name: str, code: int) -> None:
        with self._lock:
            self.codes[name] = code
            self.told(name, code)

    def _started(self, task: int) -> subprocess.Popen[str]:
        """Start a process for one GPU or group of cores; it inherits the cores of the calling thread."""
        if hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(os.getpid()))
            os.sched_setaffinity(0, cores[task % len(cores) :: self.tasks])
        process = subprocess.Popen(
            [sys.executable, "-m", "hyperlax", "unit", "run", str(self.root), "--from-stdin", "--trust"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._own(task),
            start_new_session=True,
        )
        self.processes[task] = process
        if self.asked is not None:
            process.send_signal(self.asked)
        return process

    def _own(self, task: int) -> dict[str, str]:
        """The environment of a process: it sees one of the GPUs."""
        environment = dict(self.environment)
        if self.gpus:
            given = [g for g in environment.get(sharing.VISIBLE, "").split(",") if g]
            visible = given or [str(number) for number in range(self.gpus)]
            environment[sharing.VISIBLE] = visible[task % len(visible)]
        return environment


def suitable_tasks(gpus: int) -> int:
    """The number of processes that suits this machine: some for each GPU, or one for each core."""
    cores = usable_cores()
    return gpus * sharing.processes_per_gpu(gpus, cores) if gpus else cores
