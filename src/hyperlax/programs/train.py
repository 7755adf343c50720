"""The training loop of one lane, as pure functions that work inside any `jit` or `vmap`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, UInt32

from hyperlax.agents.base import AbstractAgent, AbstractAgentHyperparams, AbstractPartwiseAgent, Metrics
from hyperlax.envs.base import AbstractEnv
from hyperlax.hyperparams import AbstractHyperparams, trainable
from hyperlax.lanes.constants import accelerated, constant, folded, tracing_for_accelerator
from hyperlax.lanes.masking import Unfrozen, batched, lane_while, select
from hyperlax.lanes.sizes import Sizes
from hyperlax.lanes.threefry import unrolled_key
from hyperlax.learning.packing import Packing
from hyperlax.learning.rollout import Envs, Finished, Trajectory, collect
from hyperlax.learning.samples import Samples
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
    - `learning`: what is under way of a cycle whose gradient steps are taken in parts; None in a program
      that takes whole cycles.
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
    learning: Any = None


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
    learning = None
    if _in_parts(caps):
        with tracing_for_accelerator():  # the others have whole cycles
            learning = partwise(agent).no_learning(env, caps)
    return TrainState(
        agent, envs, key, total_steps, zero, zero, zero, metrics, zero, Finished(), never, learning
    )


def _in_parts(caps: Sizes) -> bool:
    """Whether a program with `caps` takes the gradient steps of a cycle in parts."""
    return "steps_per_part" in caps


def partwise(agent: AbstractAgent) -> AbstractPartwiseAgent:
    """`agent` by its type; raises `TypeError` if it cannot learn in parts as its hyperparameters say."""
    kind = type(agent)
    defining = [next((c for c in kind.__mro__ if name in vars(c)), None) for name in ("learn", "learn_part")]
    if isinstance(agent, AbstractPartwiseAgent) and defining[0] is defining[1]:
        return agent
    raise TypeError(
        f"{kind.__name__} has a learn of its own, of which no parts are known: write "
        "learns_in_parts: ClassVar[bool] = False in the class of its hyperparameters"
    )


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
    iterations: Int[Array, ""],
    shared: Shared = NOTHING,
) -> TrainState:
    """Train for so many more iterations, or until the lane diverges; `shared` leaves are constants.

    An iteration is a cycle, or in a program that takes them in parts, one part of it.
    """
    last = _iterations(state, caps) + iterations
    iterate = _iteration if _in_parts(caps) else _cycle

    def more(state: TrainState) -> Array:
        return (_iterations(state, caps) < last) & (state.diverged_at == NEVER)

    def once(state: TrainState) -> TrainState:
        active = more(state) if batched() or not accelerated() else constant(True)
        return shared.remove(iterate(shared.insert(state), env, caps, active), state)

    if not accelerated():
        return lane_while(more, once, state)
    pack, unpack = _packed(state)
    return unpack(lane_while(lambda x: more(unpack(x)), lambda x: pack(once(unpack(x))), pack(state)))


def _iterations(state: TrainState, caps: Sizes) -> Int[Array, ""]:
    """The iterations of the lane so far."""
    if not _in_parts(caps):
        return state.cycles
    return state.cycles * parts(state.agent, caps) + state.learning.part


def parts(agent: AbstractAgent, caps: Sizes) -> Int[Array, ""]:
    """The parts of a cycle of `agent` in a program with `caps`: the iterations that it takes."""
    if not _in_parts(caps):
        return constant(np.int32(1))
    return folded(lambda _, steps: -(-steps // caps["steps_per_part"]), agent.gradient_steps())


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
    return isinstance(node, (Unfrozen, AbstractHyperparams, Samples))


def _cycle(state: TrainState, env: AbstractEnv, caps: Sizes, active: Array) -> TrainState:
    """Run one cycle: collect a rollout and learn from it.

    The loop discards what a lane that is not `active` computes, except for its `Unfrozen` buffers, which it
    must not write to.
    """
    keys = _keys(state)
    rollout = _collected(state, env, caps, active, keys)
    agent, metrics = rollout.agent.learn(rollout.trajectory, rollout.progress, key=keys[1])
    return _completed(state, agent, rollout.envs, metrics, rollout.env_steps, rollout.finished)


def _iteration(state: TrainState, env: AbstractEnv, caps: Sizes, active: Array) -> TrainState:
    """Run one iteration: collect a rollout if a cycle begins, and take one part of its gradient steps.

    Lanes are at different parts of their cycles. All compute a rollout, and those in the middle of a cycle
    discard it; where cycles are taken in parts, rollouts are short beside them.
    """
    keys = _keys(state)
    rollout = _collected(state, env, caps, active, keys)
    begun = partwise(rollout.agent).begin_learning(rollout.trajectory, rollout.progress, key=keys[1])
    new = rollout.agent, rollout.envs, _added(state.finished, rollout.finished), begun
    begun = eqx.tree_at(lambda s: (s.agent, s.envs, s.finished, s.learning), state, new)
    state = select(state.learning.part == 0, begun, state)
    agent, under_way = partwise(state.agent).learn_part(state.learning, caps["steps_per_part"])
    state = eqx.tree_at(lambda s: (s.agent, s.learning), state, (agent, under_way))
    agent, metrics = agent.end_learning(under_way)
    completed = _completed(state, agent, state.envs, metrics, rollout.env_steps)
    completed = eqx.tree_at(lambda s: s.learning.part, completed, jnp.zeros_like(under_way.part))
    return select(under_way.part >= parts(agent, caps), completed, state)


def _keys(state: TrainState) -> Key[Array, " 2"]:
    """The keys of the current cycle: to act, and to learn."""
    return jr.split(jr.fold_in(unrolled_key(state.key), state.cycles + 1))


class Rollout(NamedTuple):
    """What a cycle begins with.

    - `agent`, `envs`: after the rollout.
    - `finished`: the sums over the episodes that ended in it.
    - `progress`: the share of the training budget that was spent before it.
    - `env_steps`: those of the lane after the cycle.
    """

    agent: AbstractAgent
    envs: Envs
    trajectory: Trajectory
    finished: Finished
    progress: Float[Array, ""]
    env_steps: Int[Array, ""]


def _collected(
    state: TrainState, env: AbstractEnv, caps: Sizes, active: Array, keys: Key[Array, " 2"]
) -> Rollout:
    """Collect the rollout of the current cycle, which has the `keys` of `_keys`."""
    hp: Any = state.agent.hp
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
    return Rollout(agent, envs, trajectory, finished, progress, env_steps)


def _completed(
    state: TrainState,
    agent: AbstractAgent,
    envs: Envs,
    metrics: Metrics,
    env_steps: Int[Array, ""],
    finished: Finished | None = None,
) -> TrainState:
    """The state at the end of a cycle, in which `agent` has learned; `finished` is to be added."""
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
        finished=state.finished if finished is None else _added(state.finished, finished),
        diverged_at=jnp.where(_all_finite(agent), jnp.int32(NEVER), env_steps),
        learning=state.learning,
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
