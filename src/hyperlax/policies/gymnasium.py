"""Policies in environments of gymnasium."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray

from hyperlax.envs.base import AbstractEnv, ActionSpace, Box, Discrete
from hyperlax.lanes.keys import seeded
from hyperlax.policies.optional import needed
from hyperlax.policies.rollouts import Rollout, joined
from hyperlax.registry.limits import within
from hyperlax.typecheck import public


@runtime_checkable
class Acting(Protocol):
    """The part of `Policy` that acts."""

    @property
    def env(self) -> AbstractEnv: ...

    def act(self, obs: Any, *, key: PRNGKeyArray | None = None) -> Any: ...


@dataclass(frozen=True, eq=False)
class GymnasiumPolicy:
    """A policy that acts in an environment of gymnasium, in that environment's own form.

    Discrete actions start where its space does. Others are scaled from the bounds that the policy was trained
    with to those of its space, and have its shape and type.
    """

    policy: Acting
    env: Any

    def act(self, obs: Any, *, key: PRNGKeyArray | None = None) -> Any:
        """The best action for an observation of the environment; with a `key`, a sampled one."""
        action = np.asarray(self.policy.act(np.asarray(obs, np.float32).reshape(-1), key=key))
        space, own = self.env.action_space, self.policy.env.action_space
        if isinstance(own, Discrete):
            return space.dtype.type(action + space.start)
        low, high = np.asarray(own.low), np.asarray(own.high)
        share = (action - low) / (high - low)
        scaled = space.low.reshape(-1) + share * (space.high - space.low).reshape(-1)
        return np.clip(scaled.astype(space.dtype).reshape(space.shape), space.low, space.high)

    @public
    def evaluate(self, episodes: int = 10, *, seed: int = 0, evaluation: str = "deterministic") -> Rollout:
        """Play episodes one after the other, as `Policy.rollout` does; states are not recorded.

        An episode lasts until the environment ends it: give one without an end gymnasium's `TimeLimit`.

        `seed` seeds the environment once, before the first episode, and the sampled actions.
        """
        if evaluation not in ("deterministic", "sampled"):
            raise ValueError(f"evaluation must be deterministic or sampled, got {evaluation!r}")
        key = seeded(seed) if evaluation == "sampled" else None
        played = []
        for number in range(within("eval_episodes", episodes, "episodes")):
            obs, _ = self.env.reset(seed=int(seed) if number == 0 else None)
            of_episode = None if key is None else jr.fold_in(key, number)
            played.append(self._episode(obs, of_episode))
        return joined(self.policy.env, played)

    def _episode(self, obs: Any, key: PRNGKeyArray | None) -> Any:
        """One episode: what was observed, done and earned in each step, and whether the task ended it."""
        seen, done, earned, terminated, truncated = [], [], [], False, False
        while not (terminated or truncated):
            action = self.act(obs, key=None if key is None else jr.fold_in(key, len(seen)))
            seen.append(np.asarray(obs, np.float32).reshape(-1))
            done.append(np.asarray(action))
            obs, reward, terminated, truncated, _ = self.env.step(action)
            earned.append(float(reward))
        return np.stack(seen), np.stack(done), np.asarray(earned, np.float32), bool(terminated)


def adapted(policy: Acting, env: Any) -> GymnasiumPolicy:
    """The policy in `env`, an environment of gymnasium or the id of one.

    Raises `ValueError` if gymnasium is not installed, for an id that it does not know, and for spaces in
    which the policy cannot act.
    """
    gymnasium = needed("gymnasium", "gymnasium")
    if isinstance(env, str):
        try:
            env = gymnasium.make(env)
        except (gymnasium.error.Error, ImportError) as error:
            raise ValueError(f"gymnasium cannot make {env}: {_first_line(error)}") from error
    if not isinstance(env, gymnasium.Env):
        raise ValueError(f"an environment of gymnasium or its id is needed, got {type(env).__name__}")
    own, spaces = policy.env, gymnasium.spaces
    seen, acted = env.observation_space, env.action_space
    if not isinstance(seen, spaces.Box) or int(np.prod(seen.shape)) != own.obs_size:
        raise ValueError(f"the policy was trained on observations of {own.obs_size} numbers, not of {seen}")
    if not _fits(own.action_space, acted, spaces):
        raise ValueError(
            f"the policy was trained with the actions {own.action_space}; it cannot act in {acted}: their "
            "number must be the same, and bounds finite (gymnasium.wrappers.RescaleAction)"
        )
    return GymnasiumPolicy(policy, env)


def _fits(own: ActionSpace, acted: Any, spaces: Any) -> bool:
    """Whether actions of `own` can be turned into those of gymnasium's space `acted`."""
    if isinstance(own, Discrete):
        return isinstance(acted, spaces.Discrete) and int(acted.n) == own.n
    return (
        isinstance(own, Box)
        and isinstance(acted, spaces.Box)
        and int(np.prod(acted.shape)) == len(own.low)
        and bool(np.isfinite(acted.low).all() and np.isfinite(acted.high).all())
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
