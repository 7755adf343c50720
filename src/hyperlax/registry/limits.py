"""The range of every count, size and seed, for the command line and for Python alike.

A hyperparameter that is an integer is a leaf of 32 bits: from 1 (or what its field says) to `LARGEST_LEAF`,
or to its entry here. What a machine can hold and finish in time is predicted from all sizes together
(`experiments.feasible`); the ranges here hold on every machine.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hyperlax.registry.words import integer

LARGEST_LEAF = 2**31 - 1
"""The largest integer hyperparameter, and the largest count that a lane keeps on its device."""
MOST_LANES = 1_000_000
"""The largest number of lanes of an experiment, samples times seeds."""


class Range(NamedTuple):
    """The integers from `least` to `most`; `why` is the reason for `most`, if it is not plain."""

    least: int
    most: int
    why: str = ""

    def refusal(self, value: int) -> str | None:
        """The bound that `value` violates, and why, in words; None if it is in the range."""
        if value < self.least:
            return f"at least {self.least:,}"
        if value > self.most:
            return f"at most {self.most:,}" + (f" ({self.why})" if self.why else "")
        return None


_COUNTED = "env steps are counted in 32 bits; train longer in several runs"
_UNROLLED = "each layer is compiled on its own"

LIMITS: dict[str, Range] = {
    # settings
    "total_timesteps": Range(1, LARGEST_LEAF, _COUNTED),
    "evaluations": Range(0, 100_000),
    "eval_episodes": Range(1, 1_000_000),
    "seeds": Range(1, 100_000),
    "seed": Range(0, 2**63 - 1, "seeds have 63 bits"),
    "eval_shots": Range(0, 100_000_000, "use 0 for exact expectations"),
    # samples and searches
    "num_samples": Range(1, 100_000),
    "samples": Range(1, 100_000),
    "sample": Range(0, 2**32 - 1, "random keys are made from 32 bits of it"),
    "n_trials": Range(1, 100_000),
    "at_once": Range(0, 100_000),
    "trials_at_once": Range(1, 100_000),
    "best": Range(1, 100_000),
    # schedules
    "scheduler.minimum": Range(0, LARGEST_LEAF),
    "scheduler.interval": Range(1, 100_000),
    # execution
    "lanes_at_once": Range(1, MOST_LANES),
    "lanes_per_device": Range(1, MOST_LANES),
    "memory_limit": Range(1, 2**63 - 1),
    # circuits before training
    "draws": Range(1, 1_000_000),
    # reports
    "top_n": Range(1, 100_000),
    "top_k": Range(0, 100_000),
    "max_workers": Range(1, 1_000),
    "bins": Range(2, 10, "more groups cannot be told apart in one figure"),
    # hyperparameters that shape programs
    "batch_size": Range(1, 2**24, "the random numbers of a batch are drawn at once"),
    "depth": Range(1, 1_000, _UNROLLED),
    "mpo_layers": Range(1, 1_000, _UNROLLED),
    "bond_dim": Range(1, 4_096),
    "layers": Range(1, 100_000),
    "stacks": Range(1, 1_000, "memory doubles with every wire"),
}
"""Name → its range."""


def within(name: str, value: Any, shown: str | None = None) -> int:
    """`value`, or the text of one, as an integer in the range of `name`; messages call it `shown`.

    Raises `ValueError` for anything but an integer and for one that is outside of the range.
    """
    shown = shown or name
    number = integer(shown, value)
    if bound := LIMITS[name].refusal(number):
        raise ValueError(f"{shown} must be {bound}, got {value if isinstance(value, str) else number}")
    return number


def refuse_lanes(samples: int, seeds: int) -> None:
    """Raise `ValueError` if `samples` with so many `seeds` each are more lanes than can be trained."""
    if samples * seeds > MOST_LANES:
        raise ValueError(
            f"{samples:,} samples × {seeds:,} seeds are {samples * seeds:,} lanes, but at most "
            f"{MOST_LANES:,} can be trained in one experiment: ask for fewer samples or seeds"
        )
