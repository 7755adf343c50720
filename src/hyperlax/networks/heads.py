"""Output layers that turn features into policies or values, and the distributions over actions."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from hyperlax.envs.base import ActionSpace, Discrete
from hyperlax.networks.base import AbstractNetwork, Linear

MIN_STD = 1e-3


class AbstractPolicy(eqx.Module):
    """A distribution over the actions in one state.

    Methods take and return actions in their *raw* form: the category, or the normal variable before it is
    squashed. The log-probability of a squashed action computed from it is exact even at the bounds.
    """

    @abstractmethod
    def action(self, raw: Array) -> Array:
        """The action of the environment that belongs to `raw`."""

    @abstractmethod
    def sample(self, *, key: PRNGKeyArray) -> tuple[Array, Float[Array, " act"]]:
        """Draw a raw action, and independent standard normal noise for `entropy` (empty if that is exact)."""

    @abstractmethod
    def mode(self) -> Array:
        """The raw action that the policy takes when it acts deterministically."""

    @abstractmethod
    def log_prob(self, raw: Array) -> Float[Array, ""]:
        """The logarithm of the density (or, for categories, of the probability) of `action(raw)`."""

    @abstractmethod
    def entropy(self, noise: Float[Array, " act"]) -> Float[Array, ""]:
        """The entropy, exact or estimated from the standard normal `noise`; differentiable in either case."""


@final
class Categorical(AbstractPolicy):
    """A categorical distribution over `Discrete` actions, from logits."""

    log_probs: Float[Array, " actions"]

    def __init__(self, logits: Float[Array, " actions"]):
        self.log_probs = jax.nn.log_softmax(logits)

    def action(self, raw: Int[Array, ""]) -> Int[Array, ""]:
        return raw

    def sample(self, *, key: PRNGKeyArray) -> tuple[Int[Array, ""], Float[Array, " act"]]:
        cumulative = jnp.cumsum(jnp.exp(self.log_probs))[:-1]
        return jnp.sum(jr.uniform(key) >= cumulative, dtype=jnp.int32), jnp.zeros(0)

    def mode(self) -> Int[Array, ""]:
        return jnp.argmax(self.log_probs).astype(jnp.int32)

    def log_prob(self, raw: Int[Array, ""]) -> Float[Array, ""]:
        chosen = jnp.arange(self.log_probs.shape[0]) == raw
        return jnp.sum(jnp.where(chosen, self.log_probs, 0))

    def entropy(self, noise: Float[Array, " act"]) -> Float[Array, ""]:
        return -jnp.sum(jnp.exp(self.log_probs) * self.log_probs)


@final
class TanhNormal(AbstractPolicy):
    """A normal distribution with state-dependent scale, squashed by tanh into the bounds of a `Box`.

    In every dimension, action = centre + half · tanh(u) with u ~ N(loc, std) and half the half width of the
    bounds. By change of variables, log p(a) = Σ log N(u) − log half − log(1 − tanh² u) (Haarnoja et al. 2018,
    appendix C), where log(1 − tanh² u) = 2 (log 2 − u − softplus(−2u)) is exact for large |u|, too.
    """

    loc: Float[Array, " act"]
    std: Float[Array, " act"]
    low: Float[Array, " act"]
    high: Float[Array, " act"]

    @property
    def _half(self) -> Float[Array, " act"]:
        """Half the distance between the bounds, per dimension."""
        return (self.high - self.low) / 2

    def action(self, raw: Float[Array, " act"]) -> Float[Array, " act"]:
        return self.low + self._half * (1 + jnp.tanh(raw))

    def sample(self, *, key: PRNGKeyArray) -> tuple[Float[Array, " act"], Float[Array, " act"]]:
        noise = jr.normal(key, (2, *self.loc.shape))
        return self.loc + self.std * noise[0], noise[1]

    def mode(self) -> Float[Array, " act"]:
        return self.loc

    def raw(self, action: Float[Array, " act"]) -> Float[Array, " act"]:
        """The raw action that belongs to `action`, which must lie strictly inside the bounds."""
        return jnp.arctanh((action - self.low) / self._half - 1)

    def log_prob(self, raw: Float[Array, " act"]) -> Float[Array, ""]:
        z = (raw - self.loc) / self.std
        normal = -0.5 * z**2 - jnp.log(self.std) - 0.5 * math.log(2 * math.pi)
        return jnp.sum(normal - self._log_slope(raw))

    def entropy(self, noise: Float[Array, " act"]) -> Float[Array, ""]:
        base = 0.5 + 0.5 * math.log(2 * math.pi) + jnp.log(self.std)
        return jnp.sum(base + self._log_slope(self.loc + self.std * noise))

    def _log_slope(self, raw: Float[Array, " act"]) -> Float[Array, " act"]:
        """The logarithm of d action / d raw, per dimension."""
        return jnp.log(self._half) + 2 * (math.log(2) - raw - jax.nn.softplus(-2 * raw))


def policy_outputs(space: ActionSpace) -> int:
    """How many numbers describe a policy over the actions of `space`: logits, or locations and spreads."""
    return space.n if isinstance(space, Discrete) else 2 * space.shape[0]


@final
class PolicyHead(eqx.Module):
    """Output layer that turns features into a distribution over the actions of a space.

    For a `Box`, location and spread come from one matrix product.
    """

    action_space: ActionSpace
    layer: Linear

    def __init__(self, space: ActionSpace, body: AbstractNetwork, *, key: PRNGKeyArray):
        self.action_space = space
        outputs = (space.n,) if isinstance(space, Discrete) else space.shape * 2
        layers = [
            Linear(body.out_size, n, body.out_cap, n, 0.01, body.batch_last, key=k)
            for n, k in zip(outputs, jr.split(key, len(outputs)), strict=True)
        ]
        self.layer = jax.tree.map(lambda *parts: jnp.concatenate(parts), *layers)

    def __call__(self, features: Float[Array, " in"]) -> Categorical | TanhNormal:
        if isinstance(self.action_space, Discrete):
            return Categorical(self.layer(features))
        loc, spread = jnp.split(self.layer(features), 2)
        low, high = jnp.asarray(self.action_space.low), jnp.asarray(self.action_space.high)
        return TanhNormal(loc, jax.nn.softplus(spread) + MIN_STD, low, high)


@final
class Actor(eqx.Module):
    """A policy, consisting of a network and a policy head."""

    body: AbstractNetwork
    head: PolicyHead

    def __init__(self, body: AbstractNetwork, space: ActionSpace, *, key: PRNGKeyArray):
        self.body = body
        self.head = PolicyHead(space, body, key=key)

    def __call__(self, obs: Float[Array, " obs"]) -> Categorical | TanhNormal:
        return self.head(self.body(obs))


@final
class Critic(eqx.Module):
    """A state-value function, consisting of a network and a scalar head (orthogonal weights of gain 1)."""

    body: AbstractNetwork
    head: Linear

    def __init__(self, body: AbstractNetwork, *, key: PRNGKeyArray):
        self.body = body
        self.head = Linear(body.out_size, 1, body.out_cap, 1, 1.0, body.batch_last, key=key)

    def __call__(self, obs: Float[Array, " obs"]) -> Float[Array, ""]:
        return self.head(self.body(obs))[0]


@final
class ActionValues(eqx.Module):
    """The values of all discrete actions: a network and one output per action (orthogonal, gain 1)."""

    body: AbstractNetwork
    head: Linear

    def __init__(self, body: AbstractNetwork, actions: int, *, key: PRNGKeyArray):
        self.body = body
        self.head = Linear(body.out_size, actions, body.out_cap, actions, 1.0, body.batch_last, key=key)

    def __call__(self, obs: Float[Array, " obs"]) -> Float[Array, " actions"]:
        return self.head(self.body(obs))
