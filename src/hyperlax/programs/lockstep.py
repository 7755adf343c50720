"""Planning for accelerators, on which the lanes of a program run in lockstep, kernel after kernel."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from hyperlax.agents import costs
from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.envs.base import AbstractEnv
from hyperlax.lanes.sizes import Sizes

KERNEL_SECONDS = 3e-6
"""Seconds from the start of one small kernel to that of the next, which depends on it."""
LONGER = 1.05
"""A program may take this many times as long as its longest lane alone, so as to need fewer slots."""


def cycle_seconds(
    hp: AbstractAgentHyperparams, caps: Sizes, env: AbstractEnv, lanes: int, rate: float
) -> float:
    """Predict the seconds of a cycle of a program with `caps` that trains `lanes` lanes.

    `rate` is the speed of the accelerator in operations per second.
    """
    operations = lanes * costs.cycle_operations(caps, hp.arithmetic(caps, env))
    return KERNEL_SECONDS * costs.cycle_chain(caps, hp.chain(caps, env)) + operations / rate


def kernels_per_second(
    hp: AbstractAgentHyperparams, caps: Sizes, env: AbstractEnv, lanes: int, rate: float
) -> float:
    """Predict the speed of a program, in the unit of `Program.work`; arguments as in `cycle_seconds`."""
    return costs.cycle_chain(caps, hp.chain(caps, env)) / cycle_seconds(hp, caps, env, lanes, rate)


def makespan(cycles: Sequence[int], slots: int) -> int:
    """The cycles until all lanes are done, when a free slot takes the longest lane that is left.

    `cycles` are those of each lane. This is list scheduling by longest processing time (Graham 1969).
    """
    ends = [0] * min(slots, len(cycles))
    for length in sorted(cycles, reverse=True):
        heapq.heapreplace(ends, ends[0] + length)
    return max(ends)


def slots_for(cycles: Sequence[int]) -> int:
    """The fewest slots with which lanes of so many `cycles` take hardly longer than the longest of them."""
    longest = max(cycles)
    fewest, most = -(-sum(cycles) // max(round(LONGER * longest), 1)), len(cycles)
    return next(n for n in range(max(fewest, 1), most + 1) if makespan(cycles, n) <= LONGER * longest)


def useful_share(own: Sequence[float], cycles: Sequence[int], slots: int, padded: float) -> float:
    """The share of the kernels of all slots that a lane needs.

    `own` are the kernels of a cycle of each lane alone, and `padded` those of a cycle of the program.
    """
    needed = sum(kernels * count for kernels, count in zip(own, cycles, strict=True))
    return needed / (padded * slots * makespan(cycles, slots))
