"""How many env steps a lane trains when a number of them is asked for: whole cycles, and hardly more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST_OVER = 100
"""A lane may end so far above the steps asked for: one part in this many of them, so at most 1 %."""


def cycle_steps(sizes: Mapping[str, Any]) -> int:
    """The env steps of one cycle of a lane of `sizes`: a rollout in each of its environments."""
    return sizes["num_envs"] * sizes["rollout_length"]


def within_reach(steps: Any, total: Any) -> Any:
    """Whether env steps, a number or a column, are at most 1 % above `total`, a number or several."""
    return MOST_OVER * (steps - total) <= total


def steps_of(total: int, cycle: int, start: int = 0, reaching: bool = False) -> int:
    """The env steps after which a lane ends that is to train `total`, in cycles of `cycle` env steps.

    The lane has trained `start` of them. It ends with the first cycle that reaches `total`, if that is at
    most 1 % above it or if `reaching`, and otherwise with the cycle before. The result is `start` where no
    further cycle fits.
    """
    above = start + -(-max(total - start, 0) // cycle) * cycle
    if reaching or above == start or within_reach(above, total):
        return above
    return above - cycle


def cycles_of(total: int, sizes: Mapping[str, Any]) -> int:
    """The cycles that a new lane of `sizes` trains when `total` env steps are asked for."""
    cycle = cycle_steps(sizes)
    return steps_of(total, cycle) // cycle
