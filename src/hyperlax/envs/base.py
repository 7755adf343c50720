"""The interface of environments: single episodes, no auto-reset, termination distinct from truncation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from hyperlax.envs.scenes import Scene
from hyperlax.typecheck import check_fields


@final
class Discrete(eqx.Module):
    """The action space of the integers 0 … n-1."""

    n: int = eqx.field(static=True)

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    def uniform(self, *, key: PRNGKeyArray) -> Int[Array, ""]:
        """Draw an action uniformly."""
        return jr.randint(key, (), 0, self.n)


@final
class Box(eqx.Module):
    """The action space of real vectors with a lower and an upper bound per dimension."""

    low: tuple[float, ...] = eqx.field(static=True)
    high: tuple[float, ...] = eqx.field(static=True)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.low),)

    def centred(self, action: Float[Array, " act"]) -> Float[Array, " act"]:
        """`action` in units in which the bounds are -1 and 1."""
        low, high = jnp.asarray(self.low), jnp.asarray(self.high)
        return 2 * ((action - low) / (high - low)) - 1

    def uniform(self, *, key: PRNGKeyArray) -> Float[Array, " act"]:
        """Draw an action uniformly."""
        return jr.uniform(key, self.shape, minval=jnp.asarray(self.low), maxval=jnp.asarray(self.high))


ActionSpace = Discrete | Box


@final
class Timestep(eqx.Module):
    """The outcome of one step; `terminated` ends the episode by the task, `truncated` by the time limit."""

    obs: Float[Array, " obs"]
    reward: Float[Array, ""]
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]


class AbstractEnv(eqx.Module):
    """An environment. Its state is any PyTree of arrays, and every method acts on a single episode.

    - `obs_size`: the length of an observation, which is a float32 vector.
    - `action_space`: a `Discrete` or a `Box`.
    - `max_episode_steps`: the time limit, in steps; a step that reaches it is `truncated`.
    - `costly_reset`: whether a reset is so expensive that it should be computed only when an episode ends.
    - `step_work`: the cost of one step including random numbers and bookkeeping, as the number of
      floating-point operations that a core performs in the same time.
    - `compilation`: the compilation time that the environment adds to a program for a CPU, in units of the
      compilation time of a program whose environment is a few lines long; a share of it counts for
      accelerators (`costs.ENV_COMPILATION`).
    - `step_kernels`: the kernels that an accelerator runs for one step, beyond those of such an environment.

    `step_work`, `compilation` and `step_kernels` are estimates that decide only which lanes share a program
    and what time is predicted.
    """

    costly_reset: ClassVar[bool] = False
    step_work: ClassVar[float] = 3e4
    compilation: ClassVar[float] = 0.0
    step_kernels: ClassVar[float] = 0.0

    obs_size: eqx.AbstractVar[int]
    action_space: eqx.AbstractVar[ActionSpace]
    max_episode_steps: eqx.AbstractVar[int]

    def __check_init__(self):
        check_fields(self)

    @abstractmethod
    def reset(self, *, key: PRNGKeyArray) -> tuple[Any, Float[Array, " obs"]]:
        """Start a new episode; returns its first state and observation."""

    @abstractmethod
    def step(self, state: Any, action: Array, *, key: PRNGKeyArray) -> tuple[Any, Timestep]:
        """Take one step; returns the next state and its timestep. Never resets."""

    def scene(self, state: Any) -> Scene | None:
        """The picture of a `state` (its leaves NumPy arrays), for animations; None if there is none."""
        return None

    def viewer(self, states: Sequence[Any]) -> str | None:
        """An HTML page with an interactive view of `states`, one per step; None if there is none."""
        return None


def started(env: AbstractEnv, *, key: PRNGKeyArray) -> tuple[Any, Float[Array, " obs"]]:
    """Start an episode of `env`; an observation of integers or flags becomes one of float32."""
    state, obs = env.reset(key=key)
    return state, jnp.asarray(obs, jnp.float32)


def stepped(env: AbstractEnv, state: Any, action: Array, *, key: PRNGKeyArray) -> tuple[Any, Timestep]:
    """Take one step of `env`; what it returns has the types of a `Timestep`, whatever those of the class are.

    Means and advantages computed in integers would be rounded without a word.
    """
    state, seen = env.step(state, action, key=key)
    obs, reward = (jnp.asarray(x, jnp.float32) for x in (seen.obs, seen.reward))
    terminated, truncated = (jnp.asarray(x, jnp.bool_) for x in (seen.terminated, seen.truncated))
    return state, Timestep(obs, reward, terminated, truncated)


def problem(env: AbstractEnv) -> str | None:
    """Say what in the declarations of `env` no agent can work with, naming the dimension; None if nothing."""
    for name in ("obs_size", "max_episode_steps"):
        value = getattr(env, name)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
            return f"{name} is {value!r}; it must be a whole number from 1 to {2**31 - 1:,}"
    space = env.action_space
    if isinstance(space, Discrete):
        n = space.n
        if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n < 2**31:
            return f"its action space is Discrete({n!r}); the number of actions must be an int, at least 1"
        return None
    if not isinstance(space, Box):
        return f"its action space is {space!r}; it must be a Box or a Discrete"
    return _problem_of_bounds(space)


def _problem_of_bounds(space: Box) -> str | None:
    """Say which dimension of `space` has bounds that are infinite, empty or reversed; None if none has."""
    try:
        low, high = (np.asarray(bound, np.float64) for bound in (space.low, space.high))
    except (TypeError, ValueError):
        low = high = np.zeros(())
    given = isinstance(space.low, tuple) and isinstance(space.high, tuple)
    if not given or low.ndim != 1 or low.shape != high.shape or not low.size:
        return (
            f"its action space has the bounds {space.low!r} and {space.high!r}; both must be tuples, "
            "with one number per dimension"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        width = high.astype(np.float32) - low.astype(np.float32)
    for dimension, (least, most) in enumerate(zip(low, high, strict=True)):
        if not np.isfinite([least, most]).all():
            why = "bounds of actions must be finite; clip or squash inside the environment"
        elif least > most:
            why = "they are reversed"
        elif least == most:
            why = "there is nothing to choose; leave the dimension out"
        elif not 0 < width[dimension] < np.inf:
            why = "float32 cannot tell the actions between them apart; rescale inside the environment"
        else:
            continue
        return f"dimension {dimension} of its actions has the bounds {least:g} and {most:g}: {why}"
    return None


def describe(space: ActionSpace) -> str:
    """The action space in words, for error messages."""
    if isinstance(space, Discrete):
        return f"{space.n} discrete actions"
    return f"a {len(space.low)}-dimensional box of actions"


@contextmanager
def standard_promotion() -> Iterator[None]:
    """Allow implicit promotion of dtypes and ranks in the `with` block, for libraries that rely on it."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
