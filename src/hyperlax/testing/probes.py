"""Probes: environments of a few steps whose values and best actions are known (after Jones 2021).

Two properties of an algorithm show within seconds on them: what it expects is what there is to be had, and
it finds the best action. All probes are one class that differs in its leaves, so that an agent learns all of
them as lanes of one program.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from hyperlax.envs.base import AbstractEnv, ActionSpace, Box, Discrete, Timestep

SIGNS = Discrete(2)
"""Action 1 counts as +1, action 0 as −1."""
INTERVAL = Box((-1.0,), (1.0,))
LONGEST = 5
"""Steps of the longest probe."""


@final
class Probe(AbstractEnv):
    """An episode of a few steps in which a sign, +1 or −1, is drawn at the start.

    - `length`: steps of an episode. `truncates`: it is ended by a time limit, and not by the task.
    - `sees`: the observation is this combination of the sign and of the steps taken.
    - `pays`: the reward is this combination of one, the sign, whether it is the last step, the action, the
      action times the sign, and the negative squared distance of the action from half the sign.
    """

    length: Int[Array, ""]
    truncates: Bool[Array, ""]
    sees: Float[Array, " 2"]
    pays: Float[Array, " 6"]
    action_space: ActionSpace
    obs_size: int = eqx.field(static=True)
    max_episode_steps: int = eqx.field(static=True)

    def __init__(
        self,
        space: ActionSpace,
        pays: Sequence[float],
        sees: Sequence[float],
        length: int = 1,
        truncates: bool = False,
    ):
        self.action_space = space
        self.pays, self.sees = jnp.asarray(pays, jnp.float32), jnp.asarray(sees, jnp.float32)
        self.length, self.truncates = jnp.asarray(length, jnp.int32), jnp.asarray(truncates)
        self.obs_size, self.max_episode_steps = 1, LONGEST

    def reset(self, *, key: PRNGKeyArray) -> tuple[Any, Float[Array, " obs"]]:
        state = (jnp.zeros((), jnp.int32), jr.rademacher(key, (), jnp.float32))
        return state, self.observation(*state)

    def step(self, state: Any, action: Array, *, key: PRNGKeyArray) -> tuple[Any, Timestep]:
        time, sign = state[0] + 1, state[1]
        over = time >= self.length
        chosen = 2.0 * action.astype(jnp.float32) - 1.0 if action.ndim == 0 else action[0]
        terms = [jnp.ones(()), sign, jnp.where(over, 1.0, 0.0), chosen, chosen * sign]
        reward = self.pays @ jnp.stack([*terms, -((chosen - sign / 2) ** 2)])
        seen = self.observation(time, sign)
        return (time, sign), Timestep(seen, reward, over & ~self.truncates, over & self.truncates)

    def observation(self, time: Int[Array, ""], sign: Float[Array, ""]) -> Float[Array, " obs"]:
        """What is seen after `time` steps."""
        return (self.sees @ jnp.stack([sign, time.astype(jnp.float32)]))[None]


class Known(NamedTuple):
    """A probe and what is known of it.

    `values` are pairs of an observation and the powers of γ whose sum is its value, each with a factor;
    `best` is the return of the best policy and `slack` by how much a good one may fall short of it. None
    where the policy or the values are not what the probe is about.
    """

    probe: Probe
    values: tuple[tuple[float, tuple[float, ...]], ...] = ()
    endless: bool = False
    best: float | None = None
    slack: float = 0.0

    def expected(self, gamma: float) -> list[tuple[float, float]]:
        """Pairs of an observation and its value at discount `gamma`."""
        if self.endless:
            return [(obs, 1 / (1 - gamma)) for obs, _ in self.values]
        return [(obs, sum(f * gamma**i for i, f in enumerate(rewards))) for obs, rewards in self.values]


_ONE, _SIGN, _LAST, _ACTION, _MATCH, _NEAR = ([float(i == j) for j in range(6)] for i in range(6))
_NOTHING, _THE_SIGN = (0.0, 0.0), (1.0, 0.0)


def value_probes(space: ActionSpace) -> dict[str, Known]:
    """The probes whose values are known whatever the agent does in `space`, by what they are about."""

    def known(
        pays: list[float], sees: tuple[float, float], length: int, truncates: bool, *values: Any
    ) -> Known:
        return Known(Probe(space, pays, sees, length, truncates), values, endless=truncates)

    after = [(float(t), (1.0,) * (3 - t)) for t in range(3)]
    return {
        "a constant reward": known(_ONE, _NOTHING, 1, False, (0.0, (1.0,))),
        "a reward that is observed": known(_SIGN, _THE_SIGN, 1, False, (-1.0, (-1.0,)), (1.0, (1.0,))),
        "a reward in the second step": known(_LAST, (0.0, 1.0), 2, False, (0.0, (0.0, 1.0)), (1.0, (1.0,))),
        "a time limit, which is not the end": known(_ONE, _NOTHING, 5, True, (0.0, ())),
        "the end after three steps": known(_ONE, (0.0, 1.0), 3, False, *after),
    }


def policy_probes(space: ActionSpace) -> dict[str, Known]:
    """The probes whose best action in `space` is known, by what they are about."""

    def known(pays: list[float], sees: tuple[float, float], best: float, slack: float) -> Known:
        return Known(Probe(space, pays, sees), best=best, slack=slack)

    if isinstance(space, Discrete):
        return {
            "an action that pays": known(_ACTION, _NOTHING, 1.0, 0.0),
            "an action that must match what is seen": known(_MATCH, _THE_SIGN, 1.0, 0.0),
        }
    return {"an action that must come near half of what is seen": known(_NEAR, _THE_SIGN, 0.0, 0.02)}
