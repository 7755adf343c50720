"""What an environment is: one episode at a time, no auto-reset, termination and truncation kept apart."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int

from hyperlax.typecheck import check_fields


@final
class Discrete(eqx.Module):
    """Actions 0 … n-1."""

    n: int = eqx.field(static=True)

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    def uniform(self, *, key: Any) -> Int[Array, ""]:
        """An action drawn uniformly."""
        return jr.randint(key, (), 0, self.n)


@final
class Box(eqx.Module):
    """Real action vectors with bounds per dimension."""

    low: tuple[float, ...] = eqx.field(static=True)
    high: tuple[float, ...] = eqx.field(static=True)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.low),)

    def uniform(self, *, key: Any) -> Float[Array, " act"]:
        """An action drawn uniformly."""
        return jr.uniform(key, self.shape, minval=jnp.asarray(self.low), maxval=jnp.asarray(self.high))


ActionSpace = Discrete | Box


@final
class Timestep(eqx.Module):
    """What one step returns; `terminated` ends the task, `truncated` only the episode's time."""

    obs: Float[Array, " obs"]
    reward: Float[Array, ""]
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]


class AbstractEnv(eqx.Module):
    """One environment. `state` is any PyTree of arrays; every method acts on a single episode.

    - `costly_reset`: a reset costs enough to be computed only for the episodes that ended.
    - `step_work`: what a step costs, in floating-point operations a core would have done meanwhile, random
      numbers and bookkeeping included. `compilation`: what it adds to the compilation of a program, in units
      of one with an environment of a few lines. Both only decide which lanes share a program.
    """

    costly_reset: ClassVar[bool] = False
    step_work: ClassVar[float] = 3e4
    compilation: ClassVar[float] = 0.0

    obs_size: eqx.AbstractVar[int]
    action_space: eqx.AbstractVar[ActionSpace]
    max_episode_steps: eqx.AbstractVar[int]

    def __check_init__(self):
        check_fields(self)

    @abstractmethod
    def reset(self, *, key: Any) -> tuple[Any, Float[Array, " obs"]]:
        """The first state and observation of a new episode."""

    @abstractmethod
    def step(self, state: Any, action: Array, *, key: Any) -> tuple[Any, Timestep]:
        """The next state and what was seen; never resets."""


def describe(space: ActionSpace) -> str:
    """The action space in words, for error messages."""
    if isinstance(space, Discrete):
        return f"{space.n} discrete actions"
    return f"a {len(space.low)}-dimensional box of actions"


@contextmanager
def standard_promotion() -> Iterator[None]:
    """Other libraries mix dtypes and ranks freely; strictness stops at their door."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
