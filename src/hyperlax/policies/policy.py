"""A trained agent that is ready to act."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from hyperlax import envs
from hyperlax.agents.base import AbstractAgent
from hyperlax.envs.base import AbstractEnv, ActionSpace
from hyperlax.lanes.keys import seeded
from hyperlax.policies import onnx
from hyperlax.policies.gymnasium import GymnasiumPolicy, adapted
from hyperlax.policies.plain import npz, plain
from hyperlax.policies.rollouts import Rollout, rollout
from hyperlax.registry.limits import within
from hyperlax.storage.files import write_output
from hyperlax.storage.places import resolved
from hyperlax.typecheck import public


@dataclass(frozen=True, eq=False, repr=False)
class Policy:
    """A trained agent, its environment, and the header of its file."""

    agent: AbstractAgent
    env: AbstractEnv
    header: dict[str, Any]

    def act(
        self, obs: Float[ArrayLike, "*batch obs"] | Sequence[Any], *, key: PRNGKeyArray | None = None
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
        return action if isinstance(action, Tracer) else np.asarray(action)

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

    def to_gymnasium(self, env: Any) -> GymnasiumPolicy:
        """This policy for an environment of gymnasium, or for the id of one: `act` and `evaluate` there.

        Raises `ValueError` if gymnasium is not installed, and for spaces in which the policy cannot act.
        """
        return adapted(self, env)

    @public
    def export(self, path: str | Path) -> Path:
        """Write the policy for programs without hyperlax: as arrays of NumPy (.npz), or as an ONNX model.

        The arrays are those that `hyperlax.policies.reference` acts with, in plain NumPy; the model maps a
        batch of observations to the best actions. Returns the path. Raises `ValueError` for other names, and
        for networks that are not stacks of dense layers, such as circuits.
        """
        file = resolved(path)
        if file.suffix not in WRITERS:
            raise ValueError(f"{path} must end in {' or '.join(WRITERS)}")
        return write_output(file, WRITERS[file.suffix](plain(self.agent, self.env), self.header))

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

    def words(self) -> list[str]:
        """What the policy is, where it comes from, and what it scored, in a few words for each."""
        about = self.header
        found = [f"{about['algorithm']} with {about['network']} on {about['env']}"]
        known = [(n, about[n]) for n in ("lane", "sample", "seed", "env_steps") if type(about.get(n)) is int]
        if known:
            found.append(", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in known))
        if isinstance(score := about.get("score"), float):
            meaning = f" ({about['definition']})" if isinstance(about.get("definition"), str) else ""
            found.append(f"score {score:.4g}{meaning}")
        return ["".join(c for c in text if c.isprintable()) for text in found]

    def __repr__(self) -> str:
        return f"Policy({', '.join(self.words())})"


WRITERS = {".npz": npz, ".onnx": onnx.model}
"""Suffix → the contents of an exported file."""


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
