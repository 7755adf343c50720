"""`check_env`: the properties that rollouts rely on, for any environment."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from hyperlax import envs as environments
from hyperlax.envs.base import AbstractEnv, Box, Discrete, Timestep
from hyperlax.lanes.compilation import compiler_options
from hyperlax.lanes.keys import refuse_typed_keys

BEYOND = 2
"""Steps taken after the time limit."""


def check_env(env: Any, *, episodes: int = 8, longest: int = 2_000, seed: int = 7) -> None:
    """Check an environment: its declarations, shapes and types, time limit, and the absence of auto-reset.

    `episodes` are played side by side with random actions within bounds, the bounds themselves included,
    until `max_episode_steps` and on, or for `longest` steps where the limit is further away.

    - Observations have `obs_size` numbers; rewards are finite; dtypes never change, no type is weak.
    - An episode is over, `terminated` or `truncated` but never both, when `max_episode_steps` have passed.
    - A step after the end does not begin a new episode.
    - `reset` and `step` can be mapped and looped over, and depend on their arguments and the key alone.

    `env` is an environment, its class (built without arguments), or a name. Raises `AssertionError` for what
    breaks these, and `TypeError` for anything that is not an environment.
    """
    env = environment_of(env)
    name = type(env).__name__
    _check_declarations(name, env)
    keys = jr.key(seed)
    state, obs = _traced(f"{name}.reset", lambda key: env.reset(key=key), keys)
    _check_array(f"{name}.reset: the observation", obs, (env.obs_size,), jnp.float32)
    _check_state(f"{name}.reset", state)
    for action in _actions(env, keys)[:1]:
        after, seen = _traced(f"{name}.step", lambda *x: env.step(*x[:2], key=x[2]), state, action, keys)
        _check_step(name, env, state, after, seen)
    steps = min(env.max_episode_steps + BEYOND, longest)
    _check_episodes(name, env, _played(env, episodes, steps, seed), steps)


def environment_of(env: Any) -> AbstractEnv:
    """The environment meant by itself, by its class, or by a name; raises `TypeError` for what is none."""
    if isinstance(env, str):
        return environments.load(env)
    kind = env if isinstance(env, type) else type(env)
    if not issubclass(kind, AbstractEnv):
        raise TypeError(f"check_env takes an environment, a subclass of AbstractEnv; got {kind.__name__}")
    if inspect.isabstract(kind):
        lacking = ", ".join(sorted(kind.__abstractmethods__))
        raise TypeError(f"{kind.__name__} is abstract: it does not define {lacking}")
    try:
        return env() if isinstance(env, type) else env
    except TypeError as error:
        raise TypeError(
            f"{kind.__name__} cannot be built without arguments; give an instance: {error}"
        ) from error


def _check_declarations(name: str, env: AbstractEnv) -> None:
    for field in ("obs_size", "max_episode_steps"):
        value = getattr(env, field)
        assert isinstance(value, int), f"{name}.{field} is a positive int, got {value!r}"
        assert value > 0, f"{name}.{field} is a positive int, got {value!r}"
    space = env.action_space
    assert isinstance(space, (Box, Discrete)), f"{name}.action_space is a Box or a Discrete, got {space!r}"
    if isinstance(space, Discrete):
        assert space.n > 0, f"{name}.action_space has {space.n} actions"
        return
    assert len(space.low) == len(space.high) > 0, f"{name}.action_space has bounds of different lengths"
    for low, high in zip(space.low, space.high, strict=True):
        ordered = bool(np.isfinite([low, high]).all()) and low < high
        assert ordered, (
            f"{name}.action_space has the bounds {low:g}, {high:g}; they must be finite, in this order"
        )


def _traced(where: str, function: Any, *arguments: Any) -> Any:
    """The shapes that `function` returns, which must be the same each time it is traced, values included."""
    try:
        anew = [lambda *x: function(*x) for _ in range(2)]  # a trace of the same function would be remembered
        first, second = (jax.make_jaxpr(f, return_shape=True)(*arguments) for f in anew)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        raise AssertionError(
            f"{where} cannot be traced: it takes a Python decision on an array, where jnp.where or "
            f"jax.lax.cond is needed ({str(error).splitlines()[0]})"
        ) from error
    programs = [
        (str(traced.jaxpr), *(x.tobytes() for x in _numbers(traced))) for traced, _ in (first, second)
    ]
    assert programs[0] == programs[1], (
        f"{where} computes something else each time it is traced: randomness comes from the key alone, "
        "and nothing from outside its arguments may change"
    )
    shapes = first[1]
    weak = [aval.weak_type for aval in first[0].out_avals]
    leaves, structure = jax.tree.flatten(shapes)
    typed = [jax.ShapeDtypeStruct(x.shape, x.dtype, weak_type=w) for x, w in zip(leaves, weak, strict=True)]
    return jax.tree.unflatten(structure, typed)


def _numbers(closed: Any) -> list[np.ndarray]:
    """The constants of a jaxpr, keys as their data."""
    arrays = [jnp.asarray(constant) for constant in closed.consts]
    keys = [jnp.issubdtype(x.dtype, jax.dtypes.prng_key) for x in arrays]
    return [np.asarray(jr.key_data(x) if key else x) for x, key in zip(arrays, keys, strict=True)]


def _check_array(where: str, found: Any, shape: tuple[int, ...], dtype: Any) -> None:
    given = getattr(found, "shape", None), getattr(found, "dtype", None)
    assert given == (shape, jnp.dtype(dtype)), (
        f"{where} is {jnp.dtype(dtype).name} of shape {shape}, got {given[1]} of shape {given[0]}"
    )


def _check_state(where: str, state: Any) -> None:
    try:
        refuse_typed_keys(f"{where}: the state", state)
    except ValueError as error:
        raise AssertionError(str(error)) from None
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        assert not leaf.weak_type, (
            f"{where}: the state{jax.tree_util.keystr(path)} is weakly typed, so that a loop cannot "
            f"carry it; give it a dtype, as in jnp.zeros((), jnp.{leaf.dtype})"
        )


def _check_step(name: str, env: AbstractEnv, before: Any, after: Any, seen: Any) -> None:
    assert isinstance(seen, Timestep), f"{name}.step returns (state, Timestep), got {type(seen).__name__}"
    _check_array(f"{name}.step: the observation", seen.obs, (env.obs_size,), jnp.float32)
    _check_array(f"{name}.step: the reward", seen.reward, (), jnp.float32)
    for flag in ("terminated", "truncated"):
        _check_array(f"{name}.step: {flag}", getattr(seen, flag), (), jnp.bool_)
    one, other = jax.tree.structure(before), jax.tree.structure(after)
    assert one == other, f"{name}: reset makes a state {one}, step makes {other}"
    named = jax.tree_util.tree_flatten_with_path(before)[0]
    for (path, x), y in zip(named, jax.tree.leaves(after), strict=True):
        assert (x.shape, x.dtype, y.weak_type) == (y.shape, y.dtype, False), (
            f"{name}: the state{jax.tree_util.keystr(path)} is {x.dtype} of shape {x.shape} after reset and "
            f"{'weakly typed ' * y.weak_type}{y.dtype} of shape {y.shape} after a step"
        )


def _actions(env: AbstractEnv, key: Any) -> list[Any]:
    """A random action, and those at the bounds."""
    space = env.action_space
    if isinstance(space, Discrete):
        return [space.uniform(key=key), *(jnp.asarray(a, jnp.int32) for a in (0, space.n - 1))]
    return [space.uniform(key=key), *(jnp.asarray(bound, jnp.float32) for bound in (space.low, space.high))]


def _played(env: AbstractEnv, episodes: int, steps: int, seed: int) -> dict[str, np.ndarray]:
    """What is seen in `episodes` × `steps` steps, taken whether an episode is over or not."""

    def play(key: Any) -> Any:
        start, key = jr.split(key)

        def step(carry: tuple[Any, Any], i: Any) -> Any:
            state, over = carry
            keys = jr.split(jr.fold_in(key, i), 3)
            options = jax.tree.map(lambda *a: jnp.stack(a), *_actions(env, keys[0]))
            action = options[jr.randint(keys[1], (), 0, 6) % 5 % 3]
            after, seen = env.step(state, action, key=keys[2])
            returned = jnp.bool_(False)
            for key_of_reset in (keys[2], *jr.split(keys[2])):
                returned |= _same(after, env.reset(key=key_of_reset)[0])
            return (after, over | seen.terminated | seen.truncated), (seen, returned)

        first, obs = env.reset(key=start)
        _, (seen, returned) = jax.lax.scan(step, (first, jnp.bool_(False)), jnp.arange(steps))
        return {
            "first": obs,
            "obs": seen.obs,
            "reward": seen.reward,
            "terminated": seen.terminated,
            "truncated": seen.truncated,
            "begun again": returned,
        }

    low = compiler_options("low", jax.default_backend())
    run = jax.jit(jax.vmap(play), compiler_options=low)
    return jax.tree.map(np.asarray, run(jr.split(jr.key(seed), episodes)))


def _same(one: Any, other: Any) -> Any:
    """Whether two states are equal in every number."""
    equal = [
        jnp.all(jnp.equal(x, y)) for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    ]
    return jnp.all(jnp.stack(equal)) if equal else jnp.bool_(False)


def _check_episodes(name: str, env: AbstractEnv, seen: dict[str, np.ndarray], steps: int) -> None:
    terminated, truncated = seen["terminated"], seen["truncated"]
    over = terminated | truncated
    assert np.isfinite(seen["first"]).all(), f"{name}.reset: an observation is not finite"
    for episode in range(len(over)):
        ended = np.flatnonzero(over[episode])
        length = ended[0] + 1 if len(ended) else steps
        where = f"{name}, episode {episode} of random actions"
        for what in ("reward", "obs"):
            wrong = np.flatnonzero(~np.isfinite(seen[what][episode, :length]).reshape(length, -1).all(1))
            assert not len(wrong), (
                f"{where}: {what} is not finite in step {wrong[0] + 1 if len(wrong) else 0}"
            )
        both = terminated[episode, :length] & truncated[episode, :length]
        assert not both.any(), (
            f"{where}: step {length} is both terminated and truncated; what ends the task is not cut by time"
        )
        limit = env.max_episode_steps
        assert len(ended) or steps < limit, (
            f"{where} goes on after max_episode_steps ({limit}): return truncated when it is reached"
        )
        assert length <= limit, f"{where} ends after {length} steps, max_episode_steps is {limit}"
        if len(ended) and length < steps:
            again = seen["begun again"][episode, length - 1] or (
                truncated[episode, length - 1] and not over[episode, length]
            )
            assert not again, (
                f"{where}: the step that ends it begins a new one; rollouts reset, step must not"
            )
