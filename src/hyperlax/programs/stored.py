"""Capacities that were read from a file, checked before anything is built from them."""

from __future__ import annotations

from typing import Any

from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.envs.base import AbstractEnv
from hyperlax.hyperparams import assign, fields
from hyperlax.lanes.sizes import Extent, from_json, nested

LARGEST = 2**31 - 1
"""The largest length or count that an array index of a program holds."""
_BYTES_PER_WEIGHT = 4


def stored_capacities(
    stored: Any, hp: AbstractAgentHyperparams, env: AbstractEnv, most_bytes: int, memory: int
) -> dict[str, Any]:
    """The capacities that `sizes.to_json` wrote, for agents such as that of the sample `hp` on `env`.

    Nothing is built: costs are counted by formula. Raises `ValueError` if they are no capacities, do not hold
    the sample, need more than `most_bytes` for the weights of its networks, or describe a network that cannot
    run in `memory` bytes.
    """
    if not isinstance(stored, dict):
        raise ValueError(f"capacities are an object, got {str(stored)[:40]!r}")
    caps = from_json(stored)
    for name, cap in caps.items():
        lengths = cap if isinstance(cap, tuple) else [cap] if isinstance(cap, Extent) else []
        if wrong := [n for n in lengths if not 0 <= n <= LARGEST]:
            raise ValueError(f"the capacity {name} is {str(wrong[0])[:20]}, and must be from 0 to {LARGEST}")
    for name, size in hp.sizes().items():
        if type(caps.get(name)) is not type(size):
            raise ValueError(f"the capacity {name} is missing, or is of another kind than {size!r}")
        if not size.fits(caps[name]):
            raise ValueError(f"the capacity {name} is {caps[name]!r}, which does not hold {size!r}")
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
    return caps
