"""Experience replay: a ring buffer of transitions inside an allocation of fixed size."""

from __future__ import annotations

import math
from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int32, UInt32

from hyperlax.lanes.masking import Unfrozen
from hyperlax.learning.rollout import Trajectory


@final
class Transition(eqx.Module):
    """One step of one environment; `terminated` is false if only a time limit ended the episode."""

    obs: Float[Array, " obs"]
    next_obs: Float[Array, " obs"]
    action: Array
    reward: Float[Array, ""]
    terminated: Bool[Array, ""]


@final
class Replay(eqx.Module):
    """The last `capacity` transitions, one per row of `table`, which may have more rows.

    The columns are observation, next observation, action, reward and terminated. Adding writes nothing but
    the new rows, and sampling reads nothing but the sampled rows.
    """

    table: Unfrozen
    capacity: Int[Array, ""]
    added: Int32[Array, ""]
    action_like: jax.ShapeDtypeStruct = eqx.field(static=True)

    def __init__(self, capacity: Int[Array, ""], rows: int, obs_size: int, action_like: jax.ShapeDtypeStruct):
        """Allocate `rows` rows and use `capacity` of them; actions have shape and dtype of `action_like`."""
        columns = 2 * obs_size + math.prod(action_like.shape) + 2
        self.table = Unfrozen(jnp.zeros((rows, columns)))
        self.capacity = capacity
        self.added = jnp.zeros((), jnp.int32)
        self.action_like = action_like

    @property
    def size(self) -> Int[Array, ""]:
        """The number of transitions in the buffer."""
        return jnp.minimum(self.added, self.capacity)

    def add(self, trajectory: Trajectory, actions: Array, num_envs: Int[Array, ""]) -> Replay:
        """Add the used rows of `trajectory` with their `actions`, overwriting the oldest transitions."""
        rollout, envs = trajectory.reward.shape
        t, e = jnp.arange(rollout)[:, None], jnp.arange(envs)[None]
        total = trajectory.rows * num_envs
        order = t * num_envs + e
        stored = (t < trajectory.rows) & (e < num_envs) & (order >= total - self.capacity)
        place = (self.added + order) % self.capacity
        rows_cap = self.table.value.shape[0]
        place = jnp.where(stored, place, rows_cap + t * envs + e)  # past the end: dropped, but unique
        flat = lambda x: x.reshape(rollout * envs, -1).astype(jnp.float32)  # noqa: E731
        columns = (trajectory.obs, trajectory.next_obs, actions, trajectory.reward, trajectory.terminated)
        rows = jnp.concatenate([flat(x) for x in columns], axis=1)
        table = self.table.value.at[place.reshape(-1)].set(rows, mode="drop", unique_indices=True)
        return eqx.tree_at(lambda r: (r.table.value, r.added), self, (table, self.added + total))

    def sample(self, words: UInt32[Array, " n"]) -> Transition:
        """Draw one transition per random word, uniformly with replacement; leaves have a leading axis of n.

        The modulo bias of 32-bit words is at most `size` / 2³².
        """
        index = (words % jnp.maximum(self.size, 1).astype(jnp.uint32)).astype(jnp.int32)
        rows = self.table.value.at[index].get(mode="promise_in_bounds")
        return jax.vmap(self._unpack)(rows)

    def _unpack(self, row: Float[Array, " columns"]) -> Transition:
        """The transition in one row of the table."""
        shape = self.action_like.shape
        obs_size = (row.shape[0] - 2 - math.prod(shape)) // 2
        obs, next_obs, action, reward, terminated = jnp.split(
            row, [obs_size, 2 * obs_size, row.shape[0] - 2, row.shape[0] - 1]
        )
        action = action.reshape(shape).astype(self.action_like.dtype)
        return Transition(obs, next_obs, action, reward[0], terminated[0] > 0)
