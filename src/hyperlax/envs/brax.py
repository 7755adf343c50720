"""Adapter for brax environments."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from functools import cache
from io import StringIO
from typing import Any, ClassVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from hyperlax.envs.base import AbstractEnv, ActionSpace, Box, Timestep, standard_promotion
from hyperlax.envs.brax_scenes import scene
from hyperlax.envs.rows import RowFunction
from hyperlax.envs.scenes import Scene
from hyperlax.hyperparams import nearest

EPISODE_LENGTH = 1000
BACKENDS = ("positional", "generalized", "spring", "mjx")
DEFAULT_BACKENDS = {
    "ant": "positional",
    "halfcheetah": "positional",
    "hopper": "positional",
    "humanoid": "positional",
    "humanoidstandup": "positional",
    "inverted_pendulum": "positional",
    "inverted_double_pendulum": "positional",
    "pusher": "positional",
    "reacher": "positional",
    "swimmer": "generalized",
    "walker2d": "positional",
}
"""Environment → physics backend used by default, as in the published benchmark."""


@final
class BraxState(eqx.Module):
    """A brax state, and the number of steps since the episode began."""

    state: Any
    time: Int[Array, ""]


@final
class BraxEnv(AbstractEnv):
    """A brax environment with actions in [-1, 1] and a time limit of `EPISODE_LENGTH` steps.

    Raises `ValueError` for an unknown name or backend, and for a backend that cannot simulate the
    environment.
    """

    costly_reset: ClassVar[bool] = True
    step_work: ClassVar[float] = 2e6
    compilation: ClassVar[float] = 4.0
    step_kernels: ClassVar[float] = 330.0  # counted for the inverted double pendulum, without resets

    obs_size: int = eqx.field(static=True)
    action_space: ActionSpace
    max_episode_steps: int = eqx.field(static=True)
    backend: str = eqx.field(static=True)
    _name: str = eqx.field(static=True)
    _env: Any = eqx.field(static=True)

    def __init__(self, name: str, backend: str | None = None):
        if name not in DEFAULT_BACKENDS:
            known = [f"brax.{n}" for n in DEFAULT_BACKENDS]
            raise ValueError(
                f'unknown environment "brax.{name}"{nearest(f"brax.{name}", known)}\n'
                f"known: {', '.join(known)}; `hyperlax list` shows them"
            )
        self._name = name
        self.backend = backend or DEFAULT_BACKENDS[name]
        if self.backend not in BACKENDS:
            raise ValueError(
                f"the backend of brax must be one of {', '.join(BACKENDS)}; got {backend!r}"
                f"{nearest(backend, BACKENDS)}"
            )
        try:
            self._env = _simulator(name, self.backend)
        except ValueError as error:
            raise ValueError(
                f"brax.{name} cannot be simulated with {self.backend} ({error}); "
                f"use its default, {DEFAULT_BACKENDS[name]}"
            ) from error
        # Its own `observation_size` resets it step by step, by some hundred programs of one operation.
        self.obs_size = jax.eval_shape(_reset(self._env), jr.key(0)).obs.shape[-1]
        size = int(self._env.action_size)
        self.action_space = Box((-1.0,) * size, (1.0,) * size)
        self.max_episode_steps = EPISODE_LENGTH

    def reset(self, *, key: PRNGKeyArray) -> tuple[BraxState, Float[Array, " obs"]]:
        state = _reset(self._env)(key)
        return BraxState(state, jnp.zeros((), jnp.int32)), jnp.asarray(state.obs, jnp.float32)

    def step(self, state: BraxState, action: Array, *, key: PRNGKeyArray) -> tuple[BraxState, Timestep]:
        after = _step(self._env)(state.state, action)
        time = state.time + 1
        terminated = after.done > 0
        truncated = (time >= self.max_episode_steps) & ~terminated
        seen = Timestep(jnp.asarray(after.obs, jnp.float32), after.reward, terminated, truncated)
        return BraxState(after, time), seen

    def scene(self, state: BraxState) -> Scene:
        return scene(self._env.sys, self._name, float(self._env.dt), state.state.pipeline_state)

    def viewer(self, states: Sequence[BraxState]) -> str:
        """A page with brax's viewer of `states`, which loads its scripts from the internet."""
        import brax.io.html

        return brax.io.html.render(self._env.sys, [state.state.pipeline_state for state in states])


@cache
def _simulator(name: str, backend: str) -> Any:
    """The environment of brax: always the same object, so that its physics is recorded once in a process."""
    with redirect_stdout(StringIO()), quietly():  # brax prints which optional packages it lacks
        import brax.envs
        import brax.fluid

        brax.fluid.jp = _NumPy()
        return brax.envs.get_environment(name, backend=backend)


@cache
def _reset(simulator: Any) -> RowFunction:
    """A state of brax at the beginning of an episode, all arrays of definite dtypes, from a key."""

    def reset(key: PRNGKeyArray) -> Any:
        with quietly(), single_precision():
            state = simulator.reset(key)
            return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), state)

    return RowFunction(reset)


@cache
def _step(simulator: Any) -> RowFunction:
    """The state of brax after a step, with the shapes and dtypes of that before, from it and an action."""

    def step(before: Any, action: Array) -> Any:
        given = jax.tree.map(lambda x: x, before)  # a copy, because brax modifies the containers it is given
        with quietly(), single_precision():
            after = simulator.step(given, action)
            like = lambda new, old: jnp.asarray(new, old.dtype).reshape(old.shape)  # noqa: E731
            return jax.tree.map(like, after, before)

    return RowFunction(step)


def single_precision() -> AbstractContextManager[Any]:
    """Let physics be the same on GPUs, which by default round the factors of matrix products to ten bits."""
    return jax.default_matmul_precision("highest")


class _NumPy:
    """`jax.numpy` with the older names of the bounds of `clip`, which `brax.fluid` (brax 0.14) still uses."""

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)

    @staticmethod
    def clip(x: Any, a_min: Any = None, a_max: Any = None) -> Any:
        return jnp.clip(x, a_min, a_max)


@contextmanager
def quietly() -> Iterator[None]:
    """Silence the warnings of brax and mujoco, and allow the implicit type promotions that brax relies on.

    Standard output is not redirected, because another thread may be drawing progress at the same time.
    """
    with warnings.catch_warnings(), standard_promotion():
        warnings.simplefilter("ignore")
        import mujoco

        bindings: Any = mujoco
        bindings.set_mju_user_warning(lambda message: None)  # the default writes MUJOCO_LOG.TXT
        try:
            yield
        finally:
            bindings.set_mju_user_warning(None)
