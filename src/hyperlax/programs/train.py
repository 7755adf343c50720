"""The training loop of one lane, as pure functions that work inside any `jit` or `vmap`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

from hyperlax.agents.base import AbstractAgent, AbstractAgentHyperparams
from hyperlax.envs.base import AbstractEnv
from hyperlax.hyperparams import AbstractHyperparams, trainable
from hyperlax.lanes.constants import accelerated, constant
from hyperlax.lanes.masking import Unfrozen, batched, lane_while
from hyperlax.lanes.sizes import Sizes
from hyperlax.lanes.threefry import unrolled_key
from hyperlax.learning.packing import Packing
from hyperlax.learning.rollout import Envs, Finished, collect
from hyperlax.programs.shared import NOTHING, Shared

T = TypeVar("T")
NEVER = -1
"""The value of `TrainState.diverged_at` for a lane that has not diverged."""
OF_EPISODES = ("return", "length")
"""Metrics of the training episodes, which `read_metrics` adds to those of the agent."""


@final
class TrainState(eqx.Module):
    """The complete state of a lane, from which training can be continued.

    - `metrics`, `metric_steps`: sums of the metrics over the gradient steps since they were last read, and
      the number of those steps.
    - `finished`: sums over the training episodes that ended since then.
    - `diverged_at`: the env step after which a weight was not finite; `NEVER` while all are.
    """

    agent: AbstractAgent
    envs: Envs
    key: UInt32[Array, " 2"]
    total_steps: Int[Array, ""]
    env_steps: Int[Array, ""]
    gradient_steps: Int[Array, ""]
    cycles: Int[Array, ""]
    metrics: dict[str, Float[Array, ""]]
    metric_steps: Int[Array, ""]
    finished: Finished
    diverged_at: Int[Array, ""]


def start(
    hp: AbstractAgentHyperparams,
    env: AbstractEnv,
    caps: Sizes,
    total_steps: Int[Array, ""],
    *,
    key: UInt32[Array, " 2"],
    init_key: UInt32[Array, " 2"],
) -> TrainState:
    """The state of a new lane of `hp`; `init_key` draws the initial weights, and `key` everything else."""
    return begin(hp.agent(env, caps, key=jr.wrap_key_data(init_key)), env, caps, total_steps, key=key)


def begin(
    agent: AbstractAgent,
    env: AbstractEnv,
    caps: Sizes,
    total_steps: Int[Array, ""],
    *,
    key: UInt32[Array, " 2"],
) -> TrainState:
    """The state of a new lane of `agent`, which is to be trained for `total_steps` env steps."""
    envs = Envs(env, caps["env_blocks"], caps["env_block"], key=jr.fold_in(jr.wrap_key_data(key), 0))
    zero = jnp.zeros((), jnp.int32)
    never = jnp.full((), NEVER, jnp.int32)
    metrics = dict.fromkeys(_metrics(agent), jnp.zeros(()))
    return TrainState(agent, envs, key, total_steps, zero, zero, zero, metrics, zero, Finished(), never)


def _metrics(agent: AbstractAgent) -> tuple[str, ...]:
    """The names of the metrics of `agent`; raises `ValueError` for one that has two meanings."""
    names = agent.metric_names
    if taken := [n for i, n in enumerate(names) if n in OF_EPISODES or n in names[:i]]:
        known = ", ".join(dict.fromkeys([*OF_EPISODES, *names]))
        raise ValueError(
            f'{type(agent).__name__} has a metric "{taken[0]}" beside one of the same name; these are taken: '
            f"{known}"
        )
    return names


def segment(
    state: TrainState,
    env: AbstractEnv,
    caps: Sizes,
    cycles: Int[Array, ""],
    shared: Shared = NOTHING,
) -> TrainState:
    """Train for `cycles` more cycles, or until the lane diverges; `shared` leaves are constants."""
    last = state.cycles + cycles

    def more(state: TrainState) -> Array:
        return (state.cycles < last) & (state.diverged_at == NEVER)

    def cycle(state: TrainState) -> TrainState:
        active = more(state) if batched() or not accelerated() else constant(True)
        return shared.remove(_cycle(shared.insert(state), env, caps, active), state)

    if not accelerated():
        return lane_while(more, cycle, state)
    pack, unpack = _packed(state)
    return unpack(lane_while(lambda x: more(unpack(x)), lambda x: pack(cycle(unpack(x))), pack(state)))


def _packed(like: TrainState) -> tuple[Callable[[TrainState], Any], Callable[[Any], TrainState]]:
    """Two functions that pack a state of the structure of `like`, and unpack it.

    Between cycles, an accelerator then handles one array instead of some fifty. Large buffers and
    hyperparameters, which do not change, stay apart.
    """
    split = lambda tree: eqx.partition(tree, _apart, is_leaf=_apart)  # noqa: E731
    packing = Packing(split(like)[1], axes=0)

    def pack(state: TrainState) -> Any:
        apart, changing = split(state)
        return packing.pack(changing), apart

    return pack, lambda packed: eqx.combine(packed[1], packing.unpack(packed[0]), is_leaf=_apart)


def _apart(node: Any) -> bool:
    return isinstance(node, (Unfrozen, AbstractHyperparams))


def _cycle(state: TrainState, env: AbstractEnv, caps: Sizes, active: Array) -> TrainState:
    """Run one cycle: collect a rollout and learn from it.

    The loop discards what a lane that is not `active` computes, except for its `Unfrozen` buffers, which it
    must not write to.
    """
    hp: Any = state.agent.hp
    keys = jr.split(jr.fold_in(unrolled_key(state.key), state.cycles + 1))
    counted = state.agent.spends_budget()
    agent, envs, trajectory, finished = collect(
        state.agent,
        env,
        state.envs,
        hp.num_envs,
        hp.rollout_length,
        caps["rollout_length"],
        hp.chosen("time_limit", "termination"),
        active,
        key=keys[0],
    )
    progress = state.env_steps.astype(jnp.float32) / state.total_steps.astype(jnp.float32)
    env_steps = state.env_steps + jnp.where(counted, hp.num_envs * hp.rollout_length, 0)
    trajectory = eqx.tree_at(lambda t: t.last, trajectory, env_steps >= state.total_steps)
    agent, metrics = agent.learn(trajectory, progress, key=keys[1])
    agent = agent.advanced(env_steps.astype(jnp.float32) / state.total_steps.astype(jnp.float32))
    steps = agent.gradient_steps()
    weight = steps.astype(jnp.float32)
    return TrainState(
        agent=agent,
        envs=envs,
        key=state.key,
        total_steps=state.total_steps,
        env_steps=env_steps,
        gradient_steps=state.gradient_steps + steps,
        cycles=state.cycles + 1,
        metrics=_added(state.metrics, {name: weight * metrics[name] for name in state.metrics}),
        metric_steps=state.metric_steps + steps,
        finished=_added(state.finished, finished),
        diverged_at=jnp.where(_all_finite(agent), jnp.int32(NEVER), env_steps),
    )


def _added(totals: T, new: T) -> T:
    """The sums of the scalars of two trees, on accelerators all in one kernel."""
    if not accelerated():
        return jax.tree.map(jnp.add, totals, new)
    leaves, structure = jax.tree.flatten(totals)
    return jax.tree.unflatten(structure, list(jnp.stack(leaves) + jnp.stack(jax.tree.leaves(new))))


def _all_finite(agent: AbstractAgent) -> Array:
    """Whether every weight is finite.

    The state of the optimiser need not be checked: a moment that is not finite spoils its weight in the same
    step. A number minus itself is zero only if it is finite; this takes a third of the time of `isfinite`.
    """
    models = eqx.tree_at(lambda a: a.optimiser, agent, None)
    weights = ravel_pytree(eqx.filter(models, trainable(models)))[0]
    return jnp.sum(weights - weights) == 0


def evaluation_key(key: UInt32[Array, " 2"], env_steps: Int[Array, ""]) -> PRNGKeyArray:
    """The key of the evaluation after `env_steps` of the lane with the raw key `key`.

    Streams are numbered below fold_in(key, 1), whose streams 0 and 1 the first cycle has taken to act and to
    learn; evaluations after so few env steps are therefore numbered from the other end.
    """
    number = env_steps.astype(jnp.uint32)
    number = jnp.where(number < 2, jnp.uint32(2**32 - 1) - number, number)
    return jr.fold_in(jr.fold_in(jr.wrap_key_data(key), 1), number)


def read_metrics(state: TrainState) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """Reset the sums of the metrics; return the new state and the means (NaN if there are none)."""
    steps = state.metric_steps
    means = {
        name: jnp.where(steps > 0, total / jnp.maximum(steps, 1).astype(jnp.float32), jnp.nan)
        for name, total in state.metrics.items()
    }
    ended = state.finished.episodes
    means["return"] = jnp.where(ended > 0, state.finished.returns / jnp.maximum(ended, 1), jnp.nan)
    means["length"] = jnp.where(ended > 0, state.finished.lengths / jnp.maximum(ended, 1), jnp.nan)
    cleared = eqx.tree_at(
        lambda s: (s.metrics, s.metric_steps, s.finished),
        state,
        (jax.tree.map(jnp.zeros_like, state.metrics), jnp.zeros((), jnp.int32), Finished()),
    )
    return cleared, means
