"""Capacities and plans that were read from a file, checked before anything is built from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.envs.base import AbstractEnv
from hyperlax.hyperparams import assign, fields
from hyperlax.lanes.sizes import Extent, Sizes, from_json, nested
from hyperlax.programs.plan import Program

LARGEST = 2**31 - 1
"""The largest length or count that an array index of a program holds."""
_BYTES_PER_WEIGHT = 4


def stored_capacities(
    stored: Any, hp: AbstractAgentHyperparams, env: AbstractEnv, most_bytes: int, memory: int
) -> dict[str, Any]:
    """The capacities that `sizes.to_json` wrote, for agents such as that of the sample `hp` on `env`.

    Nothing is built: costs are counted by formula. Raises `ValueError` if they are not capacities, do not
    hold the sample, need more than `most_bytes` bytes for the weights of its networks, or describe a network
    that cannot run in `memory` bytes.
    """
    if not isinstance(stored, dict):
        raise ValueError(f"capacities are an object, got {str(stored)[:40]!r}")
    caps = from_json(stored)
    for name, size in hp.sizes().items():
        if type(caps.get(name)) is not type(size):
            raise ValueError(f"the capacity {name} is missing, or is of another kind than {size!r}")
        if not size.fits(caps[name]):
            raise ValueError(f"the capacity {name} is {caps[name]!r}, which does not hold {size!r}")
    check_limits(caps, hp, env, most_bytes, memory)
    return caps


def stored_plan(
    stored: Any,
    samples: Mapping[int, AbstractAgentHyperparams],
    base: AbstractAgentHyperparams,
    env: AbstractEnv,
    memory: int,
) -> list[Program]:
    """The programs that `Program.describe` described, for `samples` by their places.

    `base` are hyperparameters of their kind; without samples only the limits are checked. Raises `ValueError`
    if it is not a plan, or not one for these samples and `memory` bytes.
    """
    try:
        programs = [Program.restored(entry) for entry in stored]
        for program in programs:
            check_limits(program.caps, base, env, memory, memory)
            if "steps_per_part" in program.caps and not (program.accelerator and base.learns_in_parts):
                raise ValueError("it takes cycles in parts, which its agents or its platform do not")
            if program.accelerator and max(program.caps["minibatch_chunks"]) < program.caps["minibatch"]:
                raise ValueError("it cuts minibatches into chunks, which accelerators do not")
            places = program.samples if samples else ()
            if wrong := [p for p in places if not program.holds(samples[p].sizes())]:
                raise ValueError(f"its capacities do not hold the sample at place {wrong[0]}")
        if samples and sorted(p for program in programs for p in program.samples) != sorted(samples):
            raise ValueError("it does not hold every sample once")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"the stored plan of programs cannot be used: {type(error).__name__}: {reason}"
        ) from error
    return programs


def check_limits(
    caps: Sizes, hp: AbstractAgentHyperparams, env: AbstractEnv, most_bytes: int, memory: int
) -> None:
    """Raise `ValueError` for capacities that no machine, or not this one, can allocate.

    The arguments are those of `stored_capacities`.
    """
    for name, cap in caps.items():
        lengths = cap if isinstance(cap, tuple) else [cap] if isinstance(cap, Extent) else []
        if wrong := [n for n in lengths if not 0 <= n <= LARGEST]:
            raise ValueError(f"the capacity {name} is {str(wrong[0])[:20]}, and must be from 0 to {LARGEST}")
    part = caps.get("steps_per_part", Extent(1))
    if not isinstance(part, Extent) or part < 1:
        raise ValueError(f"the capacity steps_per_part is {str(part)[:20]!r}, and must be an integer above 0")
    paths = {f.path for f in fields(hp)}
    full = assign(hp, {k: int(v) for k, v in caps.items() if k in paths and isinstance(v, Extent)})
    if refusal := full.refusal(env, memory):
        raise ValueError(refusal)
    weights = sum(
        use.copies * use.hp.weights(use.inputs, nested(caps, name)) for name, use in hp.networks(env).items()
    )
    if weights * _BYTES_PER_WEIGHT > most_bytes:
        raise ValueError(
            f"its networks have {weights:,} weights, which need {weights * _BYTES_PER_WEIGHT:,} bytes of the "
            f"{most_bytes:,} that there are"
        )
