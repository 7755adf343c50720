"""Policies as plain arrays, which need no more than NumPy; what is written of them to files."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from hyperlax.agents.base import AbstractAgent
from hyperlax.envs.base import AbstractEnv, Box
from hyperlax.learning.normalise import STD_RANGE
from hyperlax.networks.models import AbstractModel
from hyperlax.networks.plain import PlainLayer
from hyperlax.networks.stock import StockNetwork
from hyperlax.policies import reference
from hyperlax.registry import nearest

FORMAT = 1
TOLERANCE = 1e-3
"""How far the outputs of plain layers may be from those of the network, as a share of the largest."""
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
    """The agent, as it is evaluated, in plain arrays.

    Raises `ValueError` where its network has none, and where they compute something else than it does.
    """
    model, normaliser = agent.for_evaluation().chooser()
    layers = tuple(model.body.plain())
    if not layers or not all(isinstance(layer, PlainLayer) for layer in layers):
        raise ValueError(f"plain of {_named(model)} must return one or more objects of PlainLayer")
    mean, std = np.zeros(env.obs_size, np.float32), np.ones(env.obs_size, np.float32)
    if normaliser is not None:
        mean, variance = np.asarray(normaliser.mean), np.asarray(normaliser.variance)
        std = np.clip(np.sqrt(np.maximum(variance, 0)), STD_RANGE[0], STD_RANGE[1])
    width = layers[-1].bias.size
    head = PlainLayer(np.asarray(model.layer.weight)[:, :width], np.asarray(model.layer.bias))
    space, low, high = env.action_space, None, None
    if isinstance(space, Box):
        low, high = (np.asarray(bound, np.float32) for bound in (space.low, space.high))
    found = PlainPolicy(mean, std, layers, head, low, high)
    _check(found, model, env.obs_size)
    return found


def _check(policy: PlainPolicy, model: AbstractModel, obs_size: int) -> None:
    """Raise `ValueError` unless the layers compute what the network does, for a few random inputs."""
    x = np.random.default_rng(0).normal(size=(16, obs_size)).astype(np.float32)
    wanted = np.asarray(jax.vmap(lambda x: model.layer(model.body(x)))(x))
    if unknown := {layer.activation for layer in policy.layers} - {*reference.ACTIVATIONS}:
        raise ValueError(
            f"plain of {_named(model)} names the activation {min(unknown)!r}"
            f"{nearest(min(unknown), reference.ACTIVATIONS)}; known: {', '.join(reference.ACTIVATIONS)}"
        )
    same = policy._replace(mean=np.zeros(obs_size, np.float32), std=np.ones(obs_size, np.float32))
    try:
        got = reference.outputs({**arrays(same), "about": about(same, {})}, x)
    except ValueError as error:
        raise ValueError(f"the layers that plain of {_named(model)} returns do not fit: {error}") from error
    scale = np.abs(wanted).max()
    if np.isfinite(scale) and (
        got.shape != wanted.shape or not np.allclose(got, wanted, rtol=TOLERANCE, atol=TOLERANCE * scale)
    ):
        raise ValueError(
            f"the layers that plain of {_named(model)} returns compute something else than the network: "
            f"{_first(got)} in place of {_first(wanted)}; a weight has the shape [out, in]"
        )


def _first(outputs: np.ndarray) -> str:
    """The first outputs, in words."""
    return ", ".join(f"{x:.4g}" for x in outputs.reshape(-1)[:3])


def _named(model: AbstractModel) -> str:
    """The class that says what dense layers the network of `model` has."""
    body: Any = model.body
    return type(body.hp if isinstance(body, StockNetwork) else body).__name__


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
    file = io.BytesIO()
    told = np.array(json.dumps(about(policy, header)))
    np.savez(file, allow_pickle=False, about=told, **arrays(policy))
    return file.getvalue()


def arrays(policy: PlainPolicy) -> dict[str, Any]:
    """The arrays of a file by name."""
    found: dict[str, Any] = {"obs_mean": policy.mean, "obs_std": policy.std}
    for i, layer in enumerate(policy.layers):
        named = {"weight": layer.weight, "bias": layer.bias, "scale": layer.scale, "shift": layer.shift}
        found |= {f"layer{i}.{name}": x for name, x in named.items() if x is not None}
    found |= {"head.weight": policy.head.weight, "head.bias": policy.head.bias}
    if policy.low is not None and policy.high is not None:
        found |= {"low": policy.low, "high": policy.high}
    return found
