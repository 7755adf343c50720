"""Compiling the programs of a run, with as many slots as the memory of the machine holds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice
from typing import Any

from hyperlax.experiments.execution import Execution
from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.foreign import changeable
from hyperlax.experiments.machine import usable_cores
from hyperlax.experiments.memory import free_memory
from hyperlax.programs.compiled import Compiled, compile_program, identity
from hyperlax.programs.plan import Program
from hyperlax.run.advice import SIZES
from hyperlax.run.display import Display
from hyperlax.schedules import Schedule

MEMORY_SHARE = 0.8
"""The share of the free memory that a program may use."""

MOST_AT_A_TIME = 8
"""The largest number of programs that are compiled at a time."""

CORES_EACH = 2
"""Cores for every program that is compiled: XLA uses several threads."""

TOGETHER = "HYPERLAX_PROCESSES_PER_GPU"
"""The variable with the number of processes that share a GPU, and so its memory."""

_compiled: dict[Any, Compiled] = {}
"""The programs that this process has compiled, by identity, slots and devices.

Those with classes of a notebook are compiled anew in every run: what these refer to may have changed.
"""


def _fewer() -> str:
    """Advice about other processes on the same GPU, which precedes all other advice."""
    number = os.environ.get(TOGETHER)
    return f"give fewer --tasks, of which {number} share this GPU, or " if number else ""


def at_a_time(programs: Sequence[Program]) -> int:
    """How many programs to compile at a time, beside one that runs.

    On a CPU all cores train. For accelerators there are more programs, and the cores of the host are idle.
    """
    if not any(program.accelerator for program in programs):
        return 1
    return max(1, min(MOST_AT_A_TIME, usable_cores() // CORES_EACH))


class Compiler:
    """Compiles programs with as many slots as suit the machine and its memory.

    Called with the number of a program. What a program was compiled with before, in this run or in the one
    that it continues, stays: the lanes that are mapped together, and in a search the lanes at a time. Raises
    `MemoryError` if they do not fit, or otherwise if not even one lane does.
    """

    def __init__(
        self,
        spec: Experiment[Schedule],
        devices: list[Any],
        programs: list[Program],
        how: Execution,
        progress: Display,
    ):
        self.spec, self.programs, self.progress = spec, programs, progress
        self.most = how.lanes_at_once
        self.per_device = 1 if how.sequential else how.lanes_per_device
        self.devices = devices[: max(1, min(len(devices), self.most or len(devices)))]
        self.limit, self.free = how.memory_limit, free_memory(devices[0])
        self.cache = {} if changeable(spec.base, spec.env) else _compiled
        self.seconds = 0.0
        self.memory: dict[int, int] = {}
        self.report: list[dict[str, Any]] = []

    def __call__(self, number: int) -> Compiled:
        program, devices, per_device = self.programs[number], *self._shape(self.programs[number])
        while True:
            compiled, limit = self._compile(program, devices, per_device), self._limit(devices)
            if compiled.bytes_per_lane * per_device <= limit:
                break
            needed = compiled.bytes_per_lane * per_device / 2**20
            if per_device > 1 and not program.lanes_per_device:
                per_device //= 2
            elif not program.copies and self._limit(fewer := devices[: -(-len(devices) // 2)]) > limit:
                devices = fewer
            else:
                begun = f"{per_device} lanes at once, with which this run began, need"
                many = begun if program.lanes_per_device else "one lane needs"
                used = f"{limit / 2**20:.0f} MB may be used"
                raise MemoryError(f"{many} {needed:.0f} MB, {used}: {_fewer()}{SIZES}")
            self.progress.halved(needed, limit / 2**20, per_device * len(devices))
        self.memory[number] = compiled.bytes_per_lane
        self.report.append(
            {
                "program": number,
                "slots": compiled.slots,
                "trace_seconds": round(compiled.trace_seconds, 3),
                "compile_seconds": round(compiled.compile_seconds, 3),
            }
        )
        return compiled

    def _limit(self, devices: Sequence[Any]) -> int:
        """The bytes that a program may use on each of its devices, as given or a share of what is free.

        The devices of a CPU share the memory of the host, so that each has more of it where they are fewer;
        every accelerator has its own.
        """
        if self.limit is not None:
            return self.limit
        sharing = len({*devices}) if devices[0].platform == "cpu" else 1
        return int(MEMORY_SHARE * self.free / sharing)

    def _shape(self, program: Program) -> tuple[list[Any], int]:
        """The device of every copy of a program, and how many lanes to map together on each."""
        spec = self.spec
        if program.copies:
            return list(islice(cycle(self.devices), program.copies)), program.lanes_per_device
        lanes = (spec.schedule.at_once or len(program.samples)) * spec.settings.seeds
        lanes = max(1, min(lanes, self.most or lanes))
        if program.lanes_per_device:
            return self.devices[: -(-lanes // program.lanes_per_device)], program.lanes_per_device
        devices = self.devices[:lanes]
        fitting = -(-lanes // len(devices))
        wanted = -(-program.slots // len(devices)) or fitting
        preferred = self.per_device or (wanted if program.accelerator else 1)
        return devices, min(preferred, fitting)

    def _compile(self, program: Program, devices: list[Any], per_device: int) -> Compiled:
        """Compile a program with `per_device` slots on each device, unless this process already has."""
        spec, slots = self.spec, per_device * len(devices)
        hp = spec.base
        s = spec.settings
        key = (identity(program, hp, spec.env_name, spec.env, s), slots, tuple(devices))
        if key in self.cache:
            return replace(self.cache[key], trace_seconds=0.0, compile_seconds=0.0)
        fixed_keys = s.evaluation_keys == "fixed"
        compiled = compile_program(
            program, hp, spec.env, s.eval_episodes, slots, devices, s.measurement, fixed_keys
        )
        self.seconds += compiled.trace_seconds + compiled.compile_seconds
        self.cache[key] = compiled
        return compiled
