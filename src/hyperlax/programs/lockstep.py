"""Planning for accelerators, on which the lanes of a program run in lockstep, kernel after kernel."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from hyperlax.agents import costs
from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.envs.base import AbstractEnv
from hyperlax.lanes.sizes import Extent, Sizes

KERNEL_SECONDS = 3e-6
"""Seconds from the start of one small kernel to that of the next, which depends on it."""
LONGER = 1.05
"""A program may take this many times as long as its longest lane alone, so as to need fewer slots."""
FEWEST_STEPS = 8
"""The fewest gradient steps of a part of a cycle."""
LONGEST_ITERATION = 1.0
"""Seconds that an iteration is to last at most, so that signals are answered soon."""


class Seconds(NamedTuple):
    """Predicted seconds of a program: kernels that wait for one another, and arithmetic.

    Of programs that run on a device at the same time, each in a process of its own, the waiting overlaps and
    the arithmetic adds up.
    """

    waiting: float
    computing: float

    def times(self, iterations: int) -> Seconds:
        """Those of so many iterations."""
        return Seconds(iterations * self.waiting, iterations * self.computing)

    def shared(self, at_once: int) -> float:
        """The seconds that the device takes for it beside other programs, `at_once` of them at a time."""
        return self.waiting / at_once + self.computing


def at_once(programs: Sequence[Seconds], processes: int) -> float:
    """The least seconds of `programs` on one device, in so many `processes` that take one after the other."""
    longest = max((sum(program) for program in programs), default=0.0)
    waiting, computing = sum(p.waiting for p in programs), sum(p.computing for p in programs)
    return max(longest, waiting / processes + computing)


def iteration_seconds(
    hp: AbstractAgentHyperparams, caps: Sizes, env: AbstractEnv, lanes: int, rate: float
) -> Seconds:
    """Predict the seconds of an iteration of a program with `caps` that trains `lanes` lanes.

    An iteration is a cycle, or a part of it. `rate` is the speed of the accelerator in operations per second.
    """
    once = costs.one_iteration(caps)
    operations = lanes * costs.cycle_operations(once, hp.arithmetic(caps, env))
    return Seconds(KERNEL_SECONDS * costs.cycle_chain(once, hp.chain(caps, env)), operations / rate)


def kernels_per_second(
    hp: AbstractAgentHyperparams, caps: Sizes, env: AbstractEnv, lanes: int, rate: float
) -> float:
    """Predict the speed of a program, in the unit of `Program.work`; arguments as in `iteration_seconds`."""
    kernels = costs.cycle_chain(costs.one_iteration(caps), hp.chain(caps, env))
    return kernels / sum(iteration_seconds(hp, caps, env, lanes, rate))


def makespan(iterations: Sequence[int], slots: int) -> int:
    """The iterations until all lanes are done, when a free slot takes the longest lane that is left.

    `iterations` are those of each lane. This is list scheduling by longest processing time (Graham 1969).
    """
    ends = [0] * min(slots, len(iterations))
    for length in sorted(iterations, reverse=True):
        heapq.heapreplace(ends, ends[0] + length)
    return max(ends)


def training_seconds(
    hp: AbstractAgentHyperparams,
    caps: Sizes,
    env: AbstractEnv,
    iterations: Sequence[int],
    slots: int,
    devices: int,
    rate: float,
) -> Seconds:
    """Predict the seconds in which a program trains lanes of so many `iterations` in `slots` on `devices`."""
    once = iteration_seconds(hp, caps, env, -(-slots // devices), rate)
    return once.times(makespan(iterations, slots))


def slots_for(iterations: Sequence[int]) -> int:
    """The fewest slots with which lanes of so many `iterations` take hardly longer than the longest one."""
    most = LONGER * max(iterations)
    fewest = -(-sum(iterations) // max(round(most), 1))
    return next(n for n in range(max(fewest, 1), len(iterations) + 1) if makespan(iterations, n) <= most)


def useful_share(needed: float, iterations: Sequence[int], slots: int, padded: float) -> float:
    """The share of the steps of all slots that a lane needs, weighted by their kernels.

    `needed` are the kernels of the steps of all lanes, and `padded` those of an iteration of the program.
    """
    return min(needed / (padded * slots * makespan(iterations, slots)), 1.0)


class Parts(NamedTuple):
    """Into what a program divides the cycles of its lanes, and what follows from that.

    - `steps`: the gradient steps of a part; None if cycles are whole.
    - `slots`: the lanes to train at a time.
    - `seconds`: predicted for all lanes.
    - `iteration`: predicted for one iteration.
    """

    steps: int | None
    slots: int
    seconds: Seconds
    iteration: Seconds

    def caps(self, caps: Sizes) -> dict[str, Any]:
        """`caps` of a program that is divided in this way."""
        return dict(caps) if self.steps is None else {**caps, "steps_per_part": Extent(self.steps)}


def parts(
    hp: AbstractAgentHyperparams,
    caps: Sizes,
    env: AbstractEnv,
    lanes: Sequence[tuple[Sizes, int]],
    devices: int,
    rate: float,
    at_once: int,
) -> Parts:
    """Divide the cycles of `lanes`, given by sizes and number of cycles, so that a program is fastest.

    Lanes whose cycles hold few gradient steps then need not wait for those whose cycles hold many; but each
    part takes the time of a rollout. No iteration is to last longer than `LONGEST_ITERATION` seconds. The
    other arguments are those of `training_seconds` and `Seconds.shared`.
    """
    found = []
    for steps in _divisions(hp, caps):
        divided = caps if steps is None else {**caps, "steps_per_part": steps}
        iterations = [cycles * costs.iterations(sizes, divided) for sizes, cycles in lanes]
        slots = slots_for(iterations)
        once = iteration_seconds(hp, divided, env, -(-slots // devices), rate)
        found.append(Parts(steps, slots, once.times(makespan(iterations, slots)), once))
    return min(found, key=lambda p: (max(sum(p.iteration), LONGEST_ITERATION), p.seconds.shared(at_once)))


def _divisions(hp: AbstractAgentHyperparams, caps: Sizes) -> Iterator[int | None]:
    """The gradient steps of a part to choose from: those of the largest cycle halved again and again."""
    yield None
    steps = caps["gradient_steps"]
    while hp.learns_in_parts and steps >= 2 * FEWEST_STEPS:
        steps = -(-steps // 2)
        yield steps
