"""Rollouts: stepping many environments side by side, and resetting those that end."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol, TypeVar, final, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from hyperlax.envs.base import AbstractEnv, started, stepped
from hyperlax.lanes.constants import accelerated, constant, folded
from hyperlax.lanes.masking import (
    lane_cond,
    lane_loop,
    lane_loop_with_scratch,
    lane_rows,
    leading,
    row_keys,
    while_active,
)
from hyperlax.learning.apart import with_weights, without_weights
from hyperlax.learning.packing import Packing
from hyperlax.networks.base import equations, prepared, with_networks_of

RESETS_AT_ONCE = 4
"""Number of environments that are reset together if resetting is costly."""
STEPS_AT_ONCE = 4
"""Steps that a program for accelerators takes in one iteration of its loop, if they are short."""
SHORT_STEP = 1000
"""The most equations of the jaxpr of a short step; of longer ones, copies would take long to compile."""


@runtime_checkable
class Acting(Protocol):
    """The part of the interface of agents that a rollout uses (`hyperlax.agents.base.AbstractAgent`)."""

    def act(self, obs: Any, *, key: PRNGKeyArray, explore: Any) -> tuple[Array, PyTree]: ...

    def observe(self, obs: Any, valid: Any) -> Any: ...

    def observes_late(self) -> bool: ...

    def for_evaluation(self) -> Any: ...


A = TypeVar("A", bound=Acting)
T = TypeVar("T")


@final
class Trajectory(eqx.Module):
    """A rollout. Rows and environments that the lane does not use are undefined and must be masked.

    - `aux`: what `act` of the agent returned beside the actions.
    - `next_obs`: the observation that each step led to, never the first one of the next episode.
    - `terminated`, `truncated`: whether the step ended the episode, in itself or by the time limit.
    - `last_obs`: the current observations of the environments, after the rollout.
    - `rows`: how many rows the lane uses: its rollout length, or zero if it is finished while others go on.
    - `last`: whether the training budget is spent with this rollout.
    """

    aux: PyTree[Float[Array, "rollout envs ..."] | Int[Array, "rollout envs ..."]]
    obs: Float[Array, "rollout envs obs"]
    next_obs: Float[Array, "rollout envs obs"]
    reward: Float[Array, "rollout envs"]
    terminated: Bool[Array, "rollout envs"]
    truncated: Bool[Array, "rollout envs"]
    last_obs: Float[Array, "envs obs"]
    rows: Int[Array, ""]
    last: Bool[Array, ""] = eqx.field(default_factory=lambda: constant(False))


@final
class Envs(eqx.Module):
    """The environments of a lane in blocks: block b holds environments b·size … (b+1)·size − 1.

    `episode_return` and `episode_length` are those of the current episode so far.
    """

    state: PyTree
    obs: Float[Array, "blocks size obs"]
    episode_return: Float[Array, "blocks size"]
    episode_length: Int[Array, "blocks size"]

    def __init__(self, env: AbstractEnv, blocks: int, size: int, *, key: PRNGKeyArray):
        keys = row_keys(key, blocks * size).reshape(blocks, size)
        self.state, self.obs = jax.vmap(jax.vmap(lambda k: started(env, key=k)))(keys)
        self.episode_return = jnp.zeros((blocks, size))
        self.episode_length = jnp.zeros((blocks, size), jnp.int32)


@final
class Finished(eqx.Module):
    """The number of finished training episodes, and the sums of their returns and lengths."""

    episodes: Float[Array, ""]
    returns: Float[Array, ""]
    lengths: Float[Array, ""]

    def __init__(self):
        self.episodes = self.returns = self.lengths = jnp.zeros(())


def collect(
    agent: A,
    env: AbstractEnv,
    envs: Envs,
    num_envs: Int[Array, ""],
    rollout_length: Int[Array, ""],
    rollout_cap: int,
    time_limit_terminates: Bool[Array, ""],
    active: Bool[Array, ""] | None = None,
    *,
    key: PRNGKeyArray,
) -> tuple[A, Envs, Trajectory, Finished]:
    """Let the agent act for `rollout_length` steps in `num_envs` environments.

    A lane that is not `active` has a trajectory without used rows. Returns the agent (which has observed),
    the environments, the trajectory with `rollout_cap` allocated rows, and the sums over the episodes that
    ended. On a CPU the cost depends on the blocks and rows in use, on an accelerator on the allocated ones.
    Every step of every environment has a key of its own, so that the random numbers do not depend on
    capacities.
    """
    active = constant(True) if active is None else active
    blocks, size = envs.obs.shape[:2]
    valid = folded(lambda _, x: x.reshape(blocks, size), leading(num_envs, blocks * size))
    env_keys = row_keys(key, blocks * size).reshape(blocks, size)
    count, rows = while_active(active, rollout_length), jnp.where(active, rollout_length, 0)
    if accelerated() and blocks == 1:
        agent, here, out, done = _collect_at_once(
            agent, env, _block(envs), valid[0], env_keys[0], count, rollout_cap, time_limit_terminates
        )
        envs = jax.tree.map(lambda x: x[None], here)
        return agent, envs, Trajectory(last_obs=here.obs, rows=rows, **out), done
    block_count = jnp.minimum((num_envs + size - 1) // size, blocks)

    def one_block(t: Any, b: Any, agent: Acting, envs: Envs, out: Any, done: Finished) -> tuple:
        here = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, b, 0, keepdims=False), envs)
        here_keys = jax.lax.dynamic_index_in_dim(env_keys, b, 0, keepdims=False)
        after, row, ended = _step_block(agent, env, here, _step_keys(here_keys, t), time_limit_terminates)
        envs = jax.tree.map(lambda x, y: jax.lax.dynamic_update_index_in_dim(x, y, b, 0), envs, after)
        out = jax.tree.map(lambda x, y: x.at[t, b].set(y), out, row)
        use = valid[b] & ended
        done = jax.tree.map(
            lambda total, x: total + jnp.sum(jnp.where(use, x, 0)), done, _finished(here, row["reward"])
        )
        return envs, out, done

    def one_step(t: Any, carry: tuple, out: Any) -> tuple:
        agent, envs, done = carry
        agent = agent.observe(envs.obs.reshape(blocks * size, -1), valid.reshape(-1))
        if blocks == 1:
            envs, out, done = one_block(t, 0, agent, envs, out, done)
        else:
            (envs, done), out = lane_loop_with_scratch(
                block_count,
                lambda b, c, o: (lambda e, o, d: ((e, d), o))(*one_block(t, b, agent, c[0], o, c[1])),
                (envs, done),
                out,
            )
        return (agent, envs, done), out

    row = jax.eval_shape(
        lambda: _step_block(agent, env, _block(envs), _step_keys(env_keys[0], 0), time_limit_terminates)[1]
    )
    out = jax.tree.map(lambda x: jnp.zeros((rollout_cap, blocks, *x.shape), x.dtype), row)
    (agent, envs, done), out = lane_loop_with_scratch(count, one_step, (agent, envs, Finished()), out)
    flat = jax.tree.map(lambda x: x.reshape(rollout_cap, blocks * size, *x.shape[3:]), out)
    last_obs = envs.obs.reshape(blocks * size, -1)
    return agent, envs, Trajectory(last_obs=last_obs, rows=rows, **flat), done


def _collect_at_once(
    agent: A,
    env: AbstractEnv,
    envs: Envs,
    valid: Bool[Array, " size"],
    env_keys: Any,
    steps: Int[Array, ""],
    rollout_cap: int,
    time_limit_terminates: Bool[Array, ""],
) -> tuple[A, Envs, dict[str, Any], Finished]:
    """Collect as `collect` does, in a single block of environments and with few kernels per step.

    What a step records is one row of a packed table, and episodes are counted per environment.
    """
    size = valid.shape[0]
    late = agent.observes_late()
    keys = jax.vmap(lambda t: _step_keys(env_keys, t))(jnp.arange(rollout_cap))

    acting = prepared(agent)
    observing = _observing(acting, envs.obs, valid, late)
    moving, still = eqx.partition(acting, observing)

    def recorded(t: Any, agent: Acting, envs: Envs) -> tuple[Envs, Any, Bool[Array, " size"]]:
        return _step_block(agent, env, envs, keys[t], time_limit_terminates)

    traced, row = jax.make_jaxpr(lambda: recorded(0, agent, envs)[1], return_shape=True)()
    rows = Packing(row, axes=1)
    at_once = steps_at_once(traced.jaxpr)
    weights, left = without_weights(still) if rollout_cap > at_once else ([], still)  # else there is no loop
    begun = envs, jax.tree.map(lambda x: jnp.zeros((size, *x.shape)), Finished())
    states = Packing(begun, axes=1)

    def one_step(
        t: Int[Array, ""], carry: tuple, weights: list[Array]
    ) -> tuple[tuple, Float[Array, "size columns"]]:
        moving, state = carry
        agent = eqx.combine(moving, with_weights(weights, left))
        envs, done = states.unpack(state)
        if not late:
            agent = agent.observe(envs.obs, valid)
            moving = _replaced(agent, observing)
        after, row, ended = recorded(t, agent, envs)
        use = valid & ended
        ends = _finished(envs, row["reward"])
        done = jax.tree.map(lambda total, x: total + jnp.where(use, x, 0), done, ends)
        return (moving, states.pack((after, done))), rows.pack(row)

    like = jax.ShapeDtypeStruct((rollout_cap, size, rows.columns), jnp.float32)
    first = (moving, states.pack(begun))
    (moving, state), table = lane_rows(steps, one_step, first, like, at_once, weights)
    agent = with_networks_of(eqx.combine(moving, still), agent)
    out, (envs, done) = rows.unpack(table), states.unpack(state)
    if late:
        used = leading(steps, rollout_cap)[:, None] & valid[None]
        agent = agent.observe(out["obs"].reshape(rollout_cap * size, -1), used.reshape(-1))
    sums, structure = jax.tree.flatten(done)
    return agent, envs, out, jax.tree.unflatten(structure, list(jnp.sum(jnp.stack(sums, axis=1), axis=0)))


def _observing(agent: A, obs: Float[Array, "size obs"], valid: Bool[Array, " size"], late: bool) -> A:
    """Which leaves of `agent` its `observe` replaces in every step; none, if it observes late.

    The others stay out of the loop over steps, so that constants among them stay known.
    """
    after = agent if late else agent.observe(obs, valid)
    return jax.tree.map(lambda new, old: new is not old, after, agent)


def _replaced(agent: A, observing: A) -> A:
    """The leaves of `agent` that are `observing`; its models may have other leaves besides."""
    return jax.tree.map(lambda own, x: x if own else None, observing, agent, is_leaf=lambda own: own is None)


def _block(envs: Envs) -> Envs:
    """The first block of `envs`, without the axis of blocks."""
    return jax.tree.map(lambda x: x[0], envs)


def _step_keys(env_keys: Any, t: Any) -> Any:
    """The keys of step `t` for every environment, [size, 3]: to act, to step and to reset."""
    return jax.vmap(lambda k: jr.split(jr.fold_in(k, t), 3))(env_keys)


def _step_block(
    agent: Acting, env: AbstractEnv, here: Any, keys: Any, time_limit_terminates: Any
) -> tuple[Any, dict[str, Any], Bool[Array, " size"]]:
    """Step one block of environments: the block afterwards, the row to store, and which episodes ended."""
    act = jax.vmap(lambda obs, k: agent.act(obs, key=k, explore=constant(True)))
    action, aux = act(here.obs, keys[:, 0])
    state, seen = jax.vmap(lambda s, a, k: stepped(env, s, a, key=k))(here.state, action, keys[:, 1])
    ended = seen.terminated | seen.truncated

    reset = partial(_reset_ended if env.costly_reset else _reset_all, env, ended, keys[:, 2])
    if accelerated() and not env.costly_reset:
        state, obs = reset((state, seen.obs))
    else:
        state, obs = lane_cond(jnp.any(ended), reset, lambda old: old, (state, seen.obs), costly=True)
    after = eqx.tree_at(
        lambda e: (e.state, e.obs, e.episode_return, e.episode_length),
        here,
        (
            state,
            obs,
            jnp.where(ended, 0, here.episode_return + seen.reward),
            jnp.where(ended, 0, here.episode_length + 1),
        ),
    )
    row = {
        "aux": aux,
        "obs": here.obs,
        "next_obs": seen.obs,
        "reward": seen.reward,
        "terminated": seen.terminated | (seen.truncated & time_limit_terminates),
        "truncated": seen.truncated & ~time_limit_terminates,
    }
    return after, row, ended


def _reset_all(env: AbstractEnv, ended: Bool[Array, " size"], keys: Any, old: tuple) -> tuple:
    """Start new episodes where `ended`, computing a reset for every environment."""
    fresh = jax.vmap(lambda k: started(env, key=k))(keys)
    return jax.tree.map(lambda f, s: jnp.where(_like(ended, s), f, s), fresh, old)


def _reset_ended(env: AbstractEnv, ended: Bool[Array, " size"], keys: Any, old: tuple) -> tuple:
    """Start new episodes where `ended`, computing resets for a few environments at a time."""
    size = ended.shape[0]
    group = min(size, RESETS_AT_ONCE)
    ended_first = jnp.argsort(~ended, stable=True)
    count = jnp.sum(ended, dtype=jnp.int32)

    def reset_group(i: Any, carry: tuple) -> tuple:
        position = i * group + jnp.arange(group)
        where = ended_first[jnp.minimum(position, size - 1)]
        fresh = jax.vmap(lambda k: started(env, key=k))(keys[where])
        target = jnp.where(position < count, where, size + jnp.arange(group))  # beyond the end: dropped
        put = lambda s, f: s.at[target].set(f, mode="drop", unique_indices=True)  # noqa: E731
        return jax.tree.map(put, carry, fresh)

    return lane_loop((count + group - 1) // group, reset_group, old)


def _finished(here: Envs, reward: Float[Array, " size"]) -> Any:
    """The contribution of each environment to `Finished` if its episode ends with this step."""
    return eqx.tree_at(
        lambda f: (f.episodes, f.returns, f.lengths),
        Finished(),
        (jnp.ones_like(reward), here.episode_return + reward, (here.episode_length + 1).astype(reward.dtype)),
    )


def _like(mask: Bool[Array, " size"], x: Array) -> Bool[Array, "..."]:
    """`mask` with trailing axes of length one, so that it broadcasts against `x`."""
    return mask.reshape(mask.shape + (1,) * (x.ndim - 1))


def steps_at_once(step: Any) -> int:
    """How many steps, of which `step` is the jaxpr, a program for accelerators takes in an iteration."""
    return STEPS_AT_ONCE if equations(step) <= SHORT_STEP else 1
