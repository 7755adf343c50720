"""Policies as plain arrays, which need no more than NumPy; what is written of them to files."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from hyperlax.agents.base import AbstractAgent
from hyperlax.envs.base import AbstractEnv, Box
from hyperlax.learning.normalise import STD_RANGE
from hyperlax.networks.plain import PlainLayer

FORMAT = 1
TOLD = ("algorithm", "network", "env", "env_steps", "score", "definition")
"""Entries of a policy's header that exported files repeat."""


class PlainPolicy(NamedTuple):
    """How the best action is computed.

    The observation minus `mean`, divided by `std`, passes through `layers` and `head`. A
    discrete action is the index of the largest output. In a box, the first half of the outputs, after tanh,
    is scaled to lie between `low` and `high`; the other half stands for the spread of sampled actions.
    """

    mean: Float[np.ndarray, " obs"]
    std: Float[np.ndarray, " obs"]
    layers: tuple[PlainLayer, ...]
    head: PlainLayer
    low: Float[np.ndarray, " act"] | None
    high: Float[np.ndarray, " act"] | None


def plain(agent: AbstractAgent, env: AbstractEnv) -> PlainPolicy:
    """The agent, as it is evaluated, in plain arrays; raises `ValueError` where its network has none."""
    model, normaliser = agent.for_evaluation().chooser()
    layers = model.body.plain()
    mean, std = np.zeros(env.obs_size, np.float32), np.ones(env.obs_size, np.float32)
    if normaliser is not None:
        mean, variance = np.asarray(normaliser.mean), np.asarray(normaliser.variance)
        std = np.clip(np.sqrt(np.maximum(variance, 0)), STD_RANGE[0], STD_RANGE[1])
    width = layers[-1].bias.size
    head = PlainLayer(np.asarray(model.layer.weight)[:, :width], np.asarray(model.layer.bias))
    space, low, high = env.action_space, None, None
    if isinstance(space, Box):
        low, high = (np.asarray(bound, np.float32) for bound in (space.low, space.high))
    return PlainPolicy(mean, std, layers, head, low, high)


def about(policy: PlainPolicy, header: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says of a policy: its format, and where it comes from."""
    return {
        "format": FORMAT,
        "actions": "discrete" if policy.low is None else "box",
        "activations": [layer.activation for layer in policy.layers],
        **{name: header[name] for name in TOLD if name in header},
    }


def npz(policy: PlainPolicy, header: Mapping[str, Any]) -> bytes:
    """A file of NumPy, as `reference` reads it; it holds no pickled objects."""
    arrays = {"about": np.array(json.dumps(about(policy, header)))}
    arrays |= {"obs_mean": policy.mean, "obs_std": policy.std}
    for i, layer in enumerate(policy.layers):
        named = {"weight": layer.weight, "bias": layer.bias, "scale": layer.scale, "shift": layer.shift}
        arrays |= {f"layer{i}.{name}": x for name, x in named.items() if x is not None}
    arrays |= {"head.weight": policy.head.weight, "head.bias": policy.head.bias}
    if policy.low is not None and policy.high is not None:
        arrays |= {"low": policy.low, "high": policy.high}
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()
