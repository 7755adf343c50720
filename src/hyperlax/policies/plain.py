"""Policies as plain arrays, which need no more than NumPy; what is written of them to files."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key

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
DRAWS = 32
"""How often the agent chooses an action to tell whether chance decides."""
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

    Raises `ValueError` where its network has none, and where they compute something else than the network, or
    choose other actions than the agent.
    """
    agent = agent.for_evaluation()
    model, normaliser = agent.chooser()
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
    with jax.default_matmul_precision("highest"):  # as NumPy multiplies; GPUs would round factors
        _check(found, model, env.obs_size)
        _check_actions(found, agent)
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


def _check_actions(policy: PlainPolicy, agent: AbstractAgent) -> None:
    """Raise `ValueError` unless the policy chooses what the agent does, for a few random observations.

    Of those for which chance decides, as it does with an evaluation epsilon, nothing is said, and nothing of
    an agent that has diverged.
    """
    drawn = np.random.default_rng(1).normal(size=(16, policy.mean.size))
    obs = (policy.mean + policy.std * drawn).astype(np.float32)
    file = {**arrays(policy), "about": about(policy, {})}
    outputs, best = reference.outputs(file, obs), reference.act(file, obs)
    chosen = np.asarray(_actions(agent, jnp.asarray(obs), jr.split(jr.key(0), DRAWS)))
    if not np.isfinite(outputs).all() or not np.isfinite(chosen).all():
        return
    settled = (chosen == chosen[:1]).reshape(DRAWS, len(obs), -1).all((0, 2))
    if chosen.shape[1:] != best.shape:
        wrong = np.full(len(obs), True)
    elif policy.low is None or policy.high is None:
        value = np.take_along_axis(outputs, chosen[0][:, None].astype(int), 1)[:, 0]
        wrong = value < outputs.max(1) - TOLERANCE * np.abs(outputs).max()
    else:
        wrong = (np.abs(chosen[0] - best) > TOLERANCE * (policy.high - policy.low)).any(1)
    if (wrong & settled).any():
        i = int(np.argmax(wrong & settled))
        raise ValueError(
            f"{type(agent).__name__} chooses another action than the layers of its model do: {chosen[0][i]} "
            f"in place of {best[i]}. Files hold the model that chooser() returns, and take its largest "
            "output or scale its outputs by tanh; define chooser() so that the agent does the same, or use "
            "Policy.act"
        )


@eqx.filter_jit
def _actions(agent: AbstractAgent, obs: Float[Array, "batch obs"], keys: Key[Array, " keys"]) -> Array:
    """The actions of `agent` in evaluations, of shape [keys, batch, *action]."""
    act = lambda obs, key: agent.act(obs, key=key, explore=jnp.bool_(False))[0]  # noqa: E731
    return jax.vmap(lambda key: jax.vmap(act, (0, None))(obs, key))(keys)


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
