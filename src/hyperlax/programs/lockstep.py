"""Planning for accelerators, on which the lanes of a program run in lockstep, kernel after kernel."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

from hyperlax.agents import costs
from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.envs.base import AbstractEnv
from hyperlax.lanes.sizes import Sizes

KERNEL_SECONDS = 3e-6
"""Seconds from the start of one small kernel to that of the next, which depends on it."""
LONGER = 1.05
"""A program may take this many times as long as its longest lane alone, so as to need fewer slots."""


class Seconds(NamedTuple):
    """Predicted seconds of a program: kernels that wait for one another, and arithmetic.

    Of programs that run on a device at the same time, each in a process of its own, the waiting overlaps and
    the arithmetic adds up.
    """

    waiting: float
    computing: float

    def times(self, cycles: int) -> Seconds:
        """Those of so many cycles."""
        return Seconds(cycles * self.waiting, cycles * self.computing)


def at_once(programs: Sequence[Seconds], processes: int) -> float:
    """The least seconds of `programs` on one device, in so many `processes` that take one after the other."""
    longest = max((sum(program) for program in programs), default=0.0)
    waiting, computing = sum(p.waiting for p in programs), sum(p.computing for p in programs)
    return max(longest, waiting / processes + computing)


def cycle_seconds(
    hp: AbstractAgentHyperparams, caps: Sizes, env: AbstractEnv, lanes: int, rate: float
) -> Seconds:
    """Predict the seconds of a cycle of a program with `caps` that trains `lanes` lanes.

    `rate` is the speed of the accelerator in operations per second.
    """
    operations = lanes * costs.cycle_operations(caps, hp.arithmetic(caps, env))
    return Seconds(KERNEL_SECONDS * costs.cycle_chain(caps, hp.chain(caps, env)), operations / rate)


def kernels_per_second(
    hp: AbstractAgentHyperparams, caps: Sizes, env: AbstractEnv, lanes: int, rate: float
) -> float:
    """Predict the speed of a program, in the unit of `Program.work`; arguments as in `cycle_seconds`."""
    return costs.cycle_chain(caps, hp.chain(caps, env)) / sum(cycle_seconds(hp, caps, env, lanes, rate))


def makespan(cycles: Sequence[int], slots: int) -> int:
    """The cycles until all lanes are done, when a free slot takes the longest lane that is left.

    `cycles` are those of each lane. This is list scheduling by longest processing time (Graham 1969).
    """
    ends = [0] * min(slots, len(cycles))
    for length in sorted(cycles, reverse=True):
        heapq.heapreplace(ends, ends[0] + length)
    return max(ends)


def training_seconds(
    hp: AbstractAgentHyperparams,
    caps: Sizes,
    env: AbstractEnv,
    cycles: Sequence[int],
    slots: int,
    devices: int,
    rate: float,
) -> Seconds:
    """Predict the seconds in which a program trains lanes of so many `cycles` in `slots` on `devices`."""
    cycle = cycle_seconds(hp, caps, env, -(-slots // devices), rate)
    return cycle.times(makespan(cycles, slots))


def slots_for(cycles: Sequence[int]) -> int:
    """The fewest slots with which lanes of so many `cycles` take hardly longer than the longest of them."""
    longest = max(cycles)
    fewest, most = -(-sum(cycles) // max(round(LONGER * longest), 1)), len(cycles)
    return next(n for n in range(max(fewest, 1), most + 1) if makespan(cycles, n) <= LONGER * longest)


def useful_share(own: Sequence[float], cycles: Sequence[int], slots: int, padded: float) -> float:
    """The share of the steps of all slots that a lane needs, weighted by their kernels.

    `own` are the kernels of the steps in a cycle of each lane, and `padded` those of a cycle of the program.
    """
    needed = sum(kernels * count for kernels, count in zip(own, cycles, strict=True))
    return min(needed / (padded * slots * makespan(cycles, slots)), 1.0)
