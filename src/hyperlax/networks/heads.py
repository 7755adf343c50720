"""The distributions over actions, and the output layer that turns features into one."""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import reduce
from itertools import accumulate
from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from hyperlax.envs.base import ActionSpace, Discrete
from hyperlax.lanes.constants import constant
from hyperlax.lanes.masking import lane_cond
from hyperlax.networks.base import AbstractNetwork
from hyperlax.networks.few import few, largest, total
from hyperlax.networks.linear import Linear

MIN_STD = 1e-3
EDGE = 1e-3
"""Distance from a bound, in units of the action, within which `log_prob` may average the density."""


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

    def averaging(self, on: Bool[Array, ""]) -> AbstractPolicy:
        """This policy, with densities averaged close to the bounds of continuous actions where `on` holds."""
        return self

    @abstractmethod
    def entropy(self, noise: Float[Array, " act"]) -> Float[Array, ""]:
        """The entropy, exact or estimated from the standard normal `noise`; differentiable in either case."""


@final
class Categorical(AbstractPolicy):
    """A categorical distribution over `Discrete` actions, from logits."""

    logits: Float[Array, " actions"]
    log_probs: Float[Array, " actions"]

    def __init__(self, logits: Float[Array, " actions"]):
        self.logits, self.log_probs = logits, _log_softmax(logits)

    def action(self, raw: Int[Array, ""]) -> Int[Array, ""]:
        return raw

    def sample(self, *, key: PRNGKeyArray) -> tuple[Int[Array, ""], Float[Array, " act"]]:
        probs = jnp.exp(self.log_probs)
        if few(probs):
            cumulative = jnp.stack(list(accumulate(probs[i] for i in range(len(probs)))))[:-1]
        else:
            cumulative = jnp.cumsum(probs)[:-1]
        return total((jr.uniform(key) >= cumulative).astype(jnp.int32)), jnp.zeros(0)

    def mode(self) -> Int[Array, ""]:
        return largest(self.log_probs)

    def log_prob(self, raw: Int[Array, ""]) -> Float[Array, ""]:
        chosen = jnp.arange(self.log_probs.shape[0]) == raw
        if few(self.logits):
            return _chosen_of_few(self.logits, chosen)
        return jnp.sum(jnp.where(chosen, self.log_probs, 0))

    def entropy(self, noise: Float[Array, " act"]) -> Float[Array, ""]:
        if few(self.logits):
            return _entropy_of_few(self.logits)
        return -jnp.sum(jnp.exp(self.log_probs) * self.log_probs)


def _log_softmax(logits: Float[Array, " n"]) -> Float[Array, " n"]:
    return _log_softmax_of_few(logits) if few(logits) else jax.nn.log_softmax(logits)


@jax.custom_vjp
def _log_softmax_of_few(logits: Float[Array, " n"]) -> Float[Array, " n"]:
    """The logarithm of the softmax, whose gradient has no reduction either."""
    shifted = logits - reduce(jnp.maximum, (logits[i] for i in range(logits.shape[0])))
    return shifted - jnp.log(total(jnp.exp(shifted)))


def _log_softmax_forward(logits: Array) -> tuple[Array, Array]:
    log_probs = _log_softmax_of_few(logits)
    return log_probs, log_probs


def _log_softmax_backward(log_probs: Array, cotangent: Array) -> tuple[Array]:
    return (cotangent - jnp.exp(log_probs) * total(cotangent),)


_log_softmax_of_few.defvjp(_log_softmax_forward, _log_softmax_backward)


@jax.custom_vjp
def _chosen_of_few(logits: Float[Array, " n"], chosen: Bool[Array, " n"]) -> Float[Array, ""]:
    """The logarithm of the chosen probability; its gradient, chosen − p, adds up no cotangents."""
    return total(jnp.where(chosen, _log_softmax_of_few(logits), 0))


def _chosen_forward(logits: Array, chosen: Array) -> tuple[Array, tuple[Array, Array]]:
    return _chosen_of_few(logits, chosen), (logits, chosen)


def _chosen_backward(kept: tuple[Array, Array], cotangent: Array) -> tuple[Array, np.ndarray]:
    logits, chosen = kept
    slope = chosen.astype(logits.dtype) - jnp.exp(_log_softmax_of_few(logits))
    return cotangent * slope, np.zeros(chosen.shape, jax.dtypes.float0)


_chosen_of_few.defvjp(_chosen_forward, _chosen_backward)


@jax.custom_vjp
def _entropy_of_few(logits: Float[Array, " n"]) -> Float[Array, ""]:
    """The entropy H of the softmax; its gradient, −p (log p + H), adds up no cotangents."""
    log_probs = _log_softmax_of_few(logits)
    return -total(jnp.exp(log_probs) * log_probs)


def _entropy_forward(logits: Array) -> tuple[Array, Array]:
    return _entropy_of_few(logits), logits


def _entropy_backward(logits: Array, cotangent: Array) -> tuple[Array]:
    log_probs = _log_softmax_of_few(logits)
    return (-cotangent * jnp.exp(log_probs) * (log_probs + _entropy_of_few(logits)),)


_entropy_of_few.defvjp(_entropy_forward, _entropy_backward)


@final
class TanhNormal(AbstractPolicy):
    """A normal distribution with state-dependent scale, squashed by tanh into the bounds of a `Box`.

    In every dimension, action = centre + half · tanh(u) with u ~ N(loc, std) and half the half width of the
    bounds. By change of variables, log p(a) = Σ log N(u) − log half − log(1 − tanh² u) (Haarnoja et al. 2018,
    appendix C), where log(1 − tanh² u) = 2 (log 2 − u − softplus(−2u)) is exact for large |u|, too.

    With `averaged`, the actions of a dimension within `EDGE` of a bound share one density, the probability of
    all of them divided by `EDGE`, as in hyperlax v0.1. That is finite where the exact density is not.
    """

    loc: Float[Array, " act"]
    std: Float[Array, " act"]
    low: Float[Array, " act"]
    high: Float[Array, " act"]
    averaged: Bool[Array, ""] = eqx.field(default_factory=lambda: constant(False))

    @property
    def _half(self) -> Float[Array, " act"]:
        """Half the distance between the bounds, per dimension."""
        return (self.high - self.low) / 2

    def within(self, low: Float[Array, " act"], high: Float[Array, " act"]) -> TanhNormal:
        """The distribution of the same raw actions, squashed into other bounds."""
        return TanhNormal(self.loc, self.std, low, high, self.averaged)

    def averaging(self, on: Bool[Array, ""]) -> TanhNormal:
        return TanhNormal(self.loc, self.std, self.low, self.high, on)

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
        exact = normal - self._log_slope(raw)
        edged = lambda raw, exact: self._edged(raw, exact)  # noqa: E731
        return jnp.sum(lane_cond(self.averaged, edged, lambda _, exact: exact, raw, exact))

    def _edged(self, raw: Float[Array, " act"], exact: Float[Array, " act"]) -> Float[Array, " act"]:
        """The log-density per dimension, which is `exact` except for actions within `EDGE` of a bound."""
        share = jnp.minimum(EDGE / self._half, 1)  # arctanh(1 - share), for small shares, too:
        edge = 0.5 * (jnp.log(2 - share) - jnp.log(share))
        below = jax.scipy.special.log_ndtr((-edge - self.loc) / self.std) - math.log(EDGE)
        above = jax.scipy.special.log_ndtr((self.loc - edge) / self.std) - math.log(EDGE)
        return jnp.where(raw <= -edge, below, jnp.where(raw >= edge, above, exact))

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
        return self.policy(self.layer(features))

    def policy(self, outputs: Float[Array, " out"]) -> Categorical | TanhNormal:
        """The distribution that the outputs of `layer` describe."""
        if isinstance(self.action_space, Discrete):
            return Categorical(outputs)
        loc, spread = jnp.split(outputs, 2)
        low, high = jnp.asarray(self.action_space.low), jnp.asarray(self.action_space.high)
        return TanhNormal(loc, jax.nn.softplus(spread) + MIN_STD, low, high)
