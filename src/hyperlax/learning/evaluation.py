"""Evaluation: whole episodes in environments side by side, without exploration and with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from hyperlax.envs.base import AbstractEnv, started, stepped
from hyperlax.lanes.constants import accelerated
from hyperlax.lanes.masking import lane_any, row_keys
from hyperlax.learning.packing import Packing
from hyperlax.learning.rollout import Acting, steps_at_once
from hyperlax.networks.base import AbstractNetwork, prepared
from hyperlax.networks.measurement import EXACT, Measurement

STEPS_UNASKED = 16
"""Steps of an evaluation after which a program for accelerators asks whether all episodes are over."""
MEASURING = 0x5107
"""Folded into a key, so that the measurement of circuits and the actions draw independent numbers."""

Running = tuple[Any, Float[Array, "n obs"], Bool[Array, " n"], Float[Array, " n"], Int[Array, " n"]]
"""Environments, observations, which episodes are over, and their returns and lengths so far."""
Step = Callable[[Running, Any], Running]


def evaluate(
    agent: Acting,
    env: AbstractEnv,
    episodes: int,
    due: Bool[Array, ""],
    measurement: Measurement = EXACT,
    *,
    key: PRNGKeyArray,
) -> tuple[Float[Array, "modes episodes"], Int[Array, "modes episodes"]]:
    """Run whole episodes and return their returns and lengths.

    Row 0 takes the best actions of the policy, row 1 sampled ones. No step is computed for a lane that is not
    `due`. Circuits are measured as `measurement` says, anew in every step. A program for accelerators asks
    only every `STEPS_UNASKED` steps whether all episodes are over: the host waits for the answer.
    """
    agent = agent.for_evaluation()
    agent = prepared(agent) if accelerated() else agent
    n = 2 * episodes
    explore = jnp.arange(n) >= episodes
    keys = row_keys(key, n)
    state, obs = jax.vmap(lambda k: started(env, key=jr.fold_in(k, 0)))(keys)

    def act(obs: Array, key: PRNGKeyArray, explore: Array) -> Array:
        return _measured(agent, measurement, key).act(obs, key=key, explore=explore)[0]

    def drawn(t: Int[Array, ""]) -> Any:
        """The keys of a step, [n, 2]: to act and to step."""
        return jax.vmap(lambda k: jr.split(jr.fold_in(k, t + 1)))(keys)

    def step(carry: Running, both: Any) -> Running:
        state, obs, over, total, length = carry
        action = jax.vmap(act)(obs, both[:, 0], explore)
        state, seen = jax.vmap(lambda s, a, k: stepped(env, s, a, key=k))(state, action, both[:, 1])
        total = total + jnp.where(over, 0, seen.reward)
        length = length + (~over).astype(jnp.int32)
        late = length >= env.max_episode_steps  # whatever the environment says, else it might never end
        return state, seen.obs, over | seen.terminated | seen.truncated | late, total, length

    begun = (state, obs, jnp.full(n, ~due), jnp.zeros(n), jnp.zeros(n, jnp.int32))
    run = _until_all_are_over_at_once if accelerated() else _until_all_are_over
    *_, total, length = run(step, drawn, begun)
    return total.reshape(2, episodes), length.reshape(2, episodes)


def _until_all_are_over(step: Step, drawn: Callable[[Int[Array, ""]], Any], begun: Running) -> Running:
    """Call `step(running, drawn(t))` for t = 0, 1, … until all episodes are over."""

    def once(carry: tuple[Any, Running]) -> tuple[Any, Running]:
        t, running = carry
        return t + 1, step(running, drawn(t))

    return jax.lax.while_loop(lambda carry: _more(carry[1]), once, (jnp.int32(0), begun))[1]


def _until_all_are_over_at_once(
    step: Step, drawn: Callable[[Int[Array, ""]], Any], begun: Running
) -> Running:
    """The same for accelerators, with `STEPS_UNASKED` steps at a time, the state in one packed array."""
    states = Packing(begun, axes=1)
    once = jax.jit(lambda packed, keys: states.pack(step(states.unpack(packed), keys)))  # traced once
    unroll = steps_at_once(jax.make_jaxpr(lambda: once(states.pack(begun), drawn(jnp.int32(0))))().jaxpr)

    def unasked(carry: tuple[Any, Array]) -> tuple[Any, Array]:
        t, packed = carry
        keys = jax.vmap(drawn)(t + jnp.arange(STEPS_UNASKED))
        one = lambda i, packed: once(packed, keys[i])  # noqa: E731
        return t + STEPS_UNASKED, jax.lax.fori_loop(0, STEPS_UNASKED, one, packed, unroll=unroll)

    first = (jnp.int32(0), states.pack(begun))
    return states.unpack(jax.lax.while_loop(lambda c: _more(states.unpack(c[1])), unasked, first)[1])


def _more(running: Running) -> Bool[Array, ""]:
    """Whether any episode of any lane is still running."""
    return lane_any(jnp.any(~running[2]))


def _measured(agent: Acting, how: Measurement, key: PRNGKeyArray) -> Acting:
    """`agent` with all its circuits measured as `how` says; `key` draws the outcomes."""
    if how.exact:
        return agent
    measuring_key = jr.fold_in(key, MEASURING)
    leaves, treedef = jax.tree.flatten(agent, is_leaf=lambda x: isinstance(x, AbstractNetwork))
    networks = [
        x.measured(how, jr.fold_in(measuring_key, i)) if isinstance(x, AbstractNetwork) else x
        for i, x in enumerate(leaves)
    ]
    return jax.tree.unflatten(treedef, networks)
