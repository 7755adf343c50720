"""A trained agent that is ready to act."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from hyperlax import envs
from hyperlax.agents.base import AbstractAgent
from hyperlax.envs.base import AbstractEnv, ActionSpace
from hyperlax.lanes.keys import seeded
from hyperlax.policies.rollouts import Rollout, rollout
from hyperlax.registry.limits import within
from hyperlax.typecheck import public


@dataclass(frozen=True, eq=False, repr=False)
class Policy:
    """A trained agent, its environment, and the header of its file."""

    agent: AbstractAgent
    env: AbstractEnv
    header: dict[str, Any]

    def act(
        self, obs: Float[ArrayLike, "*batch obs"], *, key: PRNGKeyArray | None = None
    ) -> np.ndarray | Array:
        """Return the best action for an observation, or for each of a batch; with a `key`, sampled ones.

        A batch may have any number of leading axes, which the actions have as well, and each of its
        observations a random number of its own. Inside of `jit`, `vmap` and `scan` the actions are JAX
        arrays, elsewhere arrays of NumPy. Raises `ValueError` if the last axis of `obs` is not as long as the
        observations of the environment.
        """
        obs = jnp.asarray(obs, jnp.float32)
        if obs.shape[-1:] != (self.env.obs_size,):
            raise ValueError(
                f"{self.header['env']} observes {self.env.obs_size} numbers, got shape {obs.shape}"
            )
        explore = jnp.bool_(key is not None)
        action = _act(self.agent, obs, jr.key(0) if key is None else key, explore)
        return action if isinstance(action, jax.core.Tracer) else np.asarray(action)

    @public
    def rollout(
        self,
        env: AbstractEnv | str | None = None,
        episodes: int = 10,
        *,
        seed: int = 0,
        evaluation: str = "deterministic",
        states: bool = False,
    ) -> Rollout:
        """Record episodes, in the environment of the policy or in another one of the same spaces.

        - `env`: the environment, by name or itself.
        - `seed`: of everything random in the episodes, 0 to 2^63 - 1.
        - `evaluation`: `deterministic` for the best actions, `sampled` for sampled ones.
        - `states`: whether to keep the states of the environment, which pictures are drawn from.

        Raises `ValueError` for an environment of other observations or actions, and for episodes that the
        memory of this machine cannot hold.
        """
        if evaluation not in ("deterministic", "sampled"):
            raise ValueError(f"evaluation must be deterministic or sampled, got {evaluation!r}")
        chosen = envs.load(env) if isinstance(env, str) else self.env if env is None else env
        self._check_spaces(chosen.obs_size, chosen.action_space)
        count, key = within("eval_episodes", episodes, "episodes"), seeded(seed)
        return rollout(self.agent, chosen, count, key, evaluation == "sampled", states)

    def _check_spaces(self, obs_size: int, space: ActionSpace) -> None:
        """Raise `ValueError` unless an environment has the observations and actions that were learned."""
        own = self.env
        if obs_size != own.obs_size:
            raise ValueError(
                f"the policy was trained on observations of {own.obs_size} numbers, not {obs_size}"
            )
        if space != own.action_space:
            raise ValueError(
                f"the policy was trained with the actions {own.action_space}, and these are {space}"
            )

    def __repr__(self) -> str:
        about = self.header
        steps = f" after {about['env_steps']:,} env steps" if "env_steps" in about else ""
        return f"Policy({about['algorithm']} with {about['network']} on {about['env']}{steps})"


@eqx.filter_jit
def _act(agent: AbstractAgent, obs: Float[Array, "*batch obs"], key: PRNGKeyArray, explore: Array) -> Array:
    """The actions for `obs`, of shape [*batch, *action]."""
    evaluated = agent.for_evaluation()
    act = lambda obs, key: evaluated.act(obs, key=key, explore=explore)[0]  # noqa: E731
    if obs.ndim == 1:
        return act(obs, key)
    rows = obs.reshape(-1, obs.shape[-1])
    actions = jax.vmap(act)(rows, jr.split(key, rows.shape[0]))
    return actions.reshape(*obs.shape[:-1], *actions.shape[1:])
