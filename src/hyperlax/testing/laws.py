"""The laws of lanes: functions that raise `AssertionError` saying which law, which lane, which leaf."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hyperlax.agents.off_policy import AbstractOffPolicyAgent
from hyperlax.hyperparams import stack, trainable
from hyperlax.lanes.sizes import fits
from hyperlax.storage import checkpoint
from hyperlax.testing.lanes import Lanes, as_arrays, lane
from hyperlax.testing.samples import describe

MOVED = 5e-3
"""How far the weights of a leaf may differ between two programs, as a share of how far they have moved."""
NOISE = 5e-2
"""How far a single weight may: Adam's steps do not shrink where a gradient is nothing but rounding."""
ROUNDING = 1e-6
"""How far anything may differ between two programs, as a share of the largest number of its leaf."""
SIMULATED = 2e-6
"""How far transitions may: the rounding of an action is carried on by every later step of the environment."""
FLAT = (".optimiser", ".target")
"""Vectors of all weights, whose order depends on capacities; they follow from the course of the weights."""


def alone_equals_together(lanes: Lanes, count: int) -> None:
    """Check that the first `count` lanes learn the same alone, in programs of their own sizes, and together.

    Weights may differ by rounding, on the scale of how far they have moved; env steps, gradient steps and
    cycles must not; what is padding must stay zero, and what only others use must not move.
    """
    for i in range(count):
        where = f"alone = together, lane {i} ({describe(lanes.hps[i])})"
        start, end = lanes.alone(i)
        together = lane(lanes.began, i), lane(lanes.ended, i)
        for name in ("env_steps", "gradient_steps", "cycles"):
            alone, shared = int(getattr(end, name)), int(getattr(together[1], name))
            assert alone == shared, f"{where}: {alone} {name} alone, {shared} together"
        _same_weights(where, (start.agent, end.agent), (together[0].agent, together[1].agent))
        _same_replay(where, end.agent, together[1].agent)
        _same_metrics(where, end.metrics, together[1].metrics)


def _weights(agent: Any) -> dict[str, np.ndarray]:
    """What training changes, by path; single numbers as arrays of one."""
    leaves = jax.tree_util.tree_flatten_with_path(eqx.filter(agent, trainable(agent)))[0]
    named = {jax.tree_util.keystr(path): np.atleast_1d(x) for path, x in leaves}
    return {path: x for path, x in named.items() if not path.startswith(FLAT)}


def _same_weights(where: str, alone: tuple[Any, Any], together: tuple[Any, Any]) -> None:
    start, end = (_weights(agent) for agent in alone)
    shared_start, shared_end = (_weights(agent) for agent in together)
    assert set(start) <= set(shared_end), f"{where}: {sorted(set(start) - set(shared_end))} exist only alone"
    assert any((end[path] != start[path]).any() for path in start), f"{where}: nothing has been learned"
    for path, exact in end.items():
        inside, padding = corner(shared_end[path], exact)
        close(f"{where}: {path}", inside, exact, exact - start[path])
        assert not padding.any(), f"{where}: the padding of {path} has become {np.abs(padding).max():.3g}"
    for path in set(shared_end) - set(end):
        moved = np.abs(shared_end[path] - shared_start[path]).max(initial=0)
        assert not moved, f"{where}: {path} is used by other lanes only, but has moved by {moved:.3g}"


def _same_replay(where: str, alone: Any, together: Any) -> None:
    """The transitions held are the same, where the agent has a replay."""
    if not isinstance(alone, AbstractOffPolicyAgent):
        return
    exact, shared = (agent.experience.replay for agent in (alone, together))
    assert int(exact.added) == int(shared.added) > 0, f"{where}: replays of different length"
    held, table = int(exact.size), np.asarray(shared.table.value)
    transitions = np.asarray(exact.table.value)[:held]
    close(f"{where}: replay", table[:held], transitions, rounding=SIMULATED)
    assert not table[int(exact.capacity) :].any(), f"{where}: the replay is written beyond its capacity"


def _same_metrics(where: str, alone: Any, together: Any) -> None:
    largest = max((abs(float(x)) for x in alone.values()), default=0.0)
    for name, value in alone.items():
        allowed = 1e-3 * abs(float(value)) + 10 * ROUNDING * max(largest, 1.0)
        far = abs(float(value) - float(together[name]))
        assert far <= allowed, (
            f"{where}: metric {name} is {value:.6g} alone and {together[name]:.6g} together"
        )


def neighbours_do_not_matter(lanes: Lanes) -> None:
    """Check that the lanes in reverse order, all with as many cycles, learn the same."""
    cycles = jnp.full(len(lanes.hps), 2, jnp.int32)
    back = lanes.program.start(as_arrays(stack(lanes.hps[::-1])), jnp.asarray(lanes.keys[::-1]))
    forth, back = (lanes.program.segment(state, cycles) for state in (lanes.began, back))
    for i, hp in enumerate(lanes.hps):
        where = f"alone = together, lane {i} in reverse order ({describe(hp)})"
        agents = lane(forth, i).agent, lane(back, len(lanes.hps) - 1 - i).agent
        start = _weights(lane(lanes.began, i).agent)
        exact, other = map(_weights, agents)
        for path, x in exact.items():
            close(f"{where}: {path}", other[path], x, x - start[path])


def resumes(lanes: Lanes) -> None:
    """Check that lanes saved after some cycles and loaded go on bitwise as if they had not stopped."""
    first = jnp.asarray(np.minimum(lanes.cycles, [1 + i % 2 for i in range(len(lanes.cycles))]))
    halfway = lanes.program.segment(lanes.began, first)
    loaded = as_arrays(checkpoint.unpack(checkpoint.pack(halfway), halfway))
    resumed = lanes.program.segment(loaded, jnp.asarray(lanes.cycles) - first)
    for (path, x), y in zip(
        jax.tree_util.tree_flatten_with_path(lanes.ended)[0], jax.tree.leaves(resumed), strict=True
    ):
        same = _bits(x) == _bits(y)
        for i, hp in enumerate(lanes.hps):
            assert same[i].all(), (
                f"resume, lane {i} ({describe(hp)}): {jax.tree_util.keystr(path)} differs by "
                f"{_distance(x[i], y[i]):.3g} from the lane that was not interrupted"
            )


def _bits(x: Any) -> np.ndarray:
    """The bytes of every number of an array, so that NaN equals itself."""
    array = np.ascontiguousarray(np.asarray(x))
    return array.view(np.uint8).reshape(*array.shape, array.dtype.itemsize)


def _distance(x: Any, y: Any) -> float:
    return float(np.abs(np.asarray(x, np.float64) - np.asarray(y, np.float64)).max(initial=0))


def compiles_once(lanes: Lanes) -> None:
    """Check that lanes with other hyperparameters that fit into the program are started and trained by it."""
    before, after = (jax.tree.structure(hps[0]) for hps in (lanes.hps, lanes.others))
    assert before == after, (
        f"one program: samples of {type(lanes.hps[0]).__name__} differ in more than array leaves, so "
        f"each would need a program of its own; declare it with hp():\n{before}\n{after}"
    )
    for hp in lanes.others:
        assert fits(hp.sizes(), lanes.caps), f"one program: ({describe(hp)}) does not fit into {lanes.caps}"
    cycles = jnp.asarray(lanes.cycles)
    jax.block_until_ready(lanes.ended)
    state = lanes.program.start(as_arrays(stack(lanes.others)), jnp.asarray(lanes.keys))
    ended = lanes.program.segment(state, cycles)
    for name, traces in lanes.program.traces.items():
        assert len(traces) == 1, (
            f"one program: {name} was traced {len(traces)} times for lanes that differ in values only; "
            + _difference(traces[0], traces[-1])
        )
    assert (np.asarray(ended.cycles) == lanes.cycles).all() or (np.asarray(ended.diverged_at) >= 0).any()


def _difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Which leaf has another type or shape in two traces."""
    for path in {**one, **other}:
        if repr(one.get(path)) != repr(other.get(path)) or one.get(path) != other.get(path):
            return f"{path} is {_kind(one.get(path))}, then {_kind(other.get(path))}"
    return "every leaf has the same type and shape, so that static fields or functions must differ"


def _kind(aval: Any) -> str:
    return "missing" if aval is None else aval.str_short() + " (weakly typed)" * aval.weak_type


def corner(padded: np.ndarray, exact: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part of `padded` that `exact` allocates, and `padded` with that part set to zero."""
    inside = tuple(slice(0, n) for n in exact.shape)
    rest = np.array(padded, copy=True)
    rest[inside] = 0
    return np.asarray(padded)[inside], rest


def close(
    where: str,
    found: np.ndarray,
    exact: np.ndarray,
    moved: np.ndarray | None = None,
    rounding: float = ROUNDING,
) -> None:
    """Check that two arrays agree: within rounding, and a small share of what has `moved` them until now."""
    assert found.shape == exact.shape, f"{where}: shape {found.shape} together, {exact.shape} alone"
    assert np.isfinite(np.concatenate([np.ravel(found), np.ravel(exact)])).all(), f"{where} is not finite"
    far = np.abs(np.asarray(found, np.float64) - exact)
    far = np.maximum(far - rounding * np.abs(exact).max(initial=0), 0)
    way = np.zeros(1) if moved is None else np.asarray(moved, np.float64)
    assert far.max(initial=0) <= NOISE * np.abs(way).max(initial=0), (
        f"{where} differs by {far.max():.3g}; it is of the size of {np.abs(exact).max():.3g} and has "
        f"moved by up to {np.abs(way).max(initial=0):.3g}"
    )
    assert np.linalg.norm(far) <= MOVED * np.linalg.norm(way), (
        f"{where} differs by {np.linalg.norm(far):.3g} (root of the sum of squares); it has moved by "
        f"{np.linalg.norm(way):.3g}"
    )
