"""Episodes of a trained agent in an environment, recorded step by step."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from hyperlax.agents.base import AbstractAgent
from hyperlax.envs.base import AbstractEnv, started, stepped
from hyperlax.lanes.masking import select
from hyperlax.policies.showing import PICTURED, SUFFIXES, shown
from hyperlax.storage.files import write_output
from hyperlax.storage.memory import host_memory
from hyperlax.storage.places import resolved
from hyperlax.typecheck import public

SEGMENT = 256
"""Steps between two looks at whether all episodes have ended."""
_ARRAYS = ("returns", "lengths", "terminated", "obs", "actions", "rewards")
"""What a file of arrays holds of episodes."""


@dataclass(frozen=True, eq=False, repr=False)
class Rollout:
    """Episodes of one policy in one environment.

    The arrays of steps are as long as the longest episode; what lies beyond the end of a shorter one is zero.

    - `returns`: the undiscounted sum of the rewards of each episode.
    - `lengths`: the number of steps of each episode.
    - `terminated`: whether the task ended an episode, rather than its time limit.
    - `obs`: the observation before each step.
    - `actions`, `rewards`: what was done in each step, and earned.
    - `states`: the states of the environment, one before each step and one after the last, if they were asked
      for; else None.
    """

    env: AbstractEnv
    returns: Float[np.ndarray, " episodes"]
    lengths: Int[np.ndarray, " episodes"]
    terminated: Bool[np.ndarray, " episodes"]
    obs: Float[np.ndarray, "episodes steps obs"]
    actions: np.ndarray
    rewards: Float[np.ndarray, "episodes steps"]
    states: Any = field(default=None)

    def __repr__(self) -> str:
        return "Rollout: " + ", ".join(self.words())

    def words(self) -> list[str]:
        """What happened, in a few words for each: returns, lengths, and how the episodes ended."""
        episodes, ended = len(self.returns), int(self.terminated.sum())
        mean, length = self.returns.mean(), self.lengths.mean()
        count = "1 episode" if episodes == 1 else f"{episodes:,} episodes"
        spread = (
            ""
            if episodes == 1
            else f" (from {self.returns.min():.4g} to {self.returns.max():.4g}, "
            f"median {np.median(self.returns):.4g})"
        )
        return [
            f"return {mean:.4g}{' on average' if episodes > 1 else ''} over {count}{spread}",
            f"{length:,.4g} steps{' each on average' if episodes > 1 else ''}",
            f"{ended:,} ended by the task, {episodes - ended:,} by the time limit",
        ]

    def episode(self, number: int) -> list[Any]:
        """The states of one episode in order, as the environment has them, with NumPy arrays for leaves.

        Raises `ValueError` if the states were not recorded, or if there is no such episode.
        """
        if self.states is None:
            raise ValueError("the states were not recorded; ask for them with rollout(..., states=True)")
        if not 0 <= number < len(self.returns):
            raise ValueError(f"there are episodes 0 to {len(self.returns) - 1}, and no {number}")
        return [
            jax.tree.map(lambda x, t=t: x[number, t], self.states) for t in range(self.lengths[number] + 1)
        ]

    @public
    def save(self, path: str | Path, episode: int = 0) -> Path:
        """Write an animation of an episode (.gif), a sheet of its pictures (.png), or brax's viewer (.html).

        For these three the states must have been recorded. A name that ends in .npz holds the arrays of all
        episodes. Returns the path. Raises `ValueError` for other names, for an environment that has no
        pictures, and if Pillow, which animations and sheets need, is not installed.
        """
        file = resolved(path)
        if file.suffix in PICTURED:
            states = self.episode(episode)
            try:
                content = shown(file.suffix, self.env, states, self.rewards[episode])
            except ValueError as error:
                raise ValueError(f"{path} cannot be drawn: {error}") from error
            return write_output(file, content)
        if file.suffix not in SUFFIXES:
            raise ValueError(f"{path} must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        compressed = io.BytesIO()
        np.savez_compressed(compressed, allow_pickle=False, **arrays)
        return write_output(file, compressed.getvalue())


def joined(env: AbstractEnv, episodes: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, bool]]) -> Rollout:
    """A `Rollout` of episodes that were played one after the other, each given by what happened in it."""
    lengths = np.asarray([len(rewards) for _, _, rewards, _ in episodes])
    longest = int(lengths.max())

    def padded(arrays: Sequence[np.ndarray]) -> np.ndarray:
        out = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), arrays[0].dtype)
        for row, array in zip(out, arrays, strict=True):
            row[: len(array)] = array
        return out

    *steps, ended = zip(*episodes, strict=True)
    obs, actions, rewards = (padded(arrays) for arrays in steps)
    return Rollout(env, rewards.sum(1, dtype=np.float64), lengths, np.asarray(ended), obs, actions, rewards)


def rollout(
    agent: AbstractAgent, env: AbstractEnv, episodes: int, key: PRNGKeyArray, explore: bool, states: bool
) -> Rollout:
    """Record `episodes` episodes, which run side by side; each has a random key of its own.

    The actions are sampled if `explore` is true, and the best otherwise. With `states` those of the
    environment are kept. Raises `ValueError` if the steps cannot fit into the memory of this machine.
    """
    keys, agent = jr.split(key, episodes), agent.for_evaluation()
    carry = _reset(env, keys)
    first = jax.tree.map(lambda x: _on_host(x)[:, None], carry[0]) if states else None
    step = partial(_steps, env, agent, keys, jnp.bool_(explore), states)
    recorded = eqx.filter_eval_shape(step, carry, np.int32(0))[1]
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(recorded))
    parts, time = [], 0
    while time < env.max_episode_steps and not bool(jnp.all(carry[2])):
        if size * (len(parts) + 2) > host_memory().left:  # joining the parts takes as much as they do
            raise ValueError(
                f"the memory of this machine holds no more than {time:,} steps of {episodes:,} episodes; "
                "ask for fewer" + " or not for their states" * states
            )
        carry, recorded = step(carry, np.int32(time))
        parts.append(jax.tree.map(_on_host, recorded))
        time += SEGMENT
    whole: Any = jax.tree.map(lambda *xs: np.concatenate(xs, axis=1), *parts)
    obs, actions, rewards, alive, terminated, later = whole
    lengths = alive.sum(1)
    longest = int(lengths.max())
    obs, actions, rewards = (_cut(x, alive, longest) for x in (obs, actions, rewards))
    if states:
        later = jax.tree.map(lambda a, b: np.concatenate([a, b[:, :longest]], axis=1), first, later)
    returns = rewards.sum(1, dtype=np.float64)
    return Rollout(env, returns, lengths, (terminated & alive).any(1), obs, actions, rewards, later)


@eqx.filter_jit
def _reset(env: AbstractEnv, keys: Key[Array, " episodes"]) -> Any:
    """The beginning of every episode: state, observation, and whether it has ended."""
    state, obs = jax.vmap(lambda key: started(env, key=jr.fold_in(key, 0)))(keys)
    return state, obs, jnp.zeros(keys.shape[0], bool)


@eqx.filter_jit
def _steps(
    env: AbstractEnv,
    agent: AbstractAgent,
    keys: Key[Array, " episodes"],
    explore: Bool[Array, ""],
    states: bool,
    carry: Any,
    begun: Any,
) -> tuple[Any, Any]:
    """Take `SEGMENT` steps, after `begun` others, in every episode that has not ended; what is recorded."""

    def one(carry: Any, key: PRNGKeyArray, time: Int[Array, ""]) -> tuple[Any, Any]:
        state, obs, done = carry
        acting, moving = jr.split(jr.fold_in(key, 1 + time))
        action = agent.act(obs, key=acting, explore=explore)[0]
        after, seen = stepped(env, state, action, key=moving)
        alive = ~done & (time < env.max_episode_steps)
        recorded = obs, action, seen.reward, alive, seen.terminated, after if states else None
        after, obs = select(alive, (after, seen.obs), (state, obs))
        return (after, obs, done | seen.terminated | seen.truncated), recorded

    def all_of_them(carry: Any, time: Int[Array, ""]) -> tuple[Any, Any]:
        return jax.vmap(lambda carry, key: one(carry, key, time))(carry, keys)

    times = begun + jnp.arange(SEGMENT, dtype=jnp.int32)
    carry, recorded = jax.lax.scan(all_of_them, carry, times)
    return carry, jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), recorded)


def _on_host(x: Array) -> np.ndarray:
    """`x` as an array of NumPy; random keys as their data."""
    return np.asarray(jr.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)


def _cut(x: np.ndarray, alive: Bool[np.ndarray, "episodes steps"], longest: int) -> np.ndarray:
    """`x` up to the end of the longest episode, and zero beyond the end of each."""
    mask = alive.reshape(alive.shape + (1,) * (x.ndim - 2))
    return np.where(mask, x, np.zeros((), x.dtype))[:, :longest]
