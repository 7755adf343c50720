"""Policy files: saving trained agents, and loading them to act."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from hyperlax import envs
from hyperlax.agents import AGENTS
from hyperlax.agents.base import AbstractAgent, AbstractAgentHyperparams
from hyperlax.envs.base import AbstractEnv
from hyperlax.experiments.recipes import Recipe, defaults
from hyperlax.hyperparams import assign, declared, values
from hyperlax.lanes.sizes import from_json, to_json
from hyperlax.networks import NETWORKS
from hyperlax.networks.base import AbstractNetworkHyperparams
from hyperlax.storage.checkpoint import pack, read_header, unpack
from hyperlax.storage.files import write_atomically
from hyperlax.typecheck import public


@dataclass(frozen=True)
class Policy:
    """A trained agent that is ready to act, its environment, and the header of its file."""

    agent: AbstractAgent
    env: AbstractEnv
    header: dict[str, Any]

    def act(self, obs: Float[ArrayLike, " obs"], *, key: PRNGKeyArray | None = None) -> np.ndarray:
        """Return the best action for one observation; with a `key`, a sampled one.

        Raises `ValueError` if the observation does not have the shape that the environment returns.
        """
        obs = jnp.asarray(np.asarray(obs), jnp.float32)
        if obs.shape != (self.env.obs_size,):
            raise ValueError(
                f"{self.header['env']} observes {self.env.obs_size} numbers, got shape {obs.shape}"
            )
        explore = jnp.bool_(key is not None)
        return np.asarray(_act(self.agent, obs, jr.key(0) if key is None else key, explore))


@eqx.filter_jit
def _act(agent: AbstractAgent, obs: Array, key: PRNGKeyArray, explore: Array) -> Array:
    return agent.for_evaluation().act(obs, key=key, explore=explore)[0]


def save(
    path: Path, agent: AbstractAgent, recipe: Recipe, env_name: str, caps: Mapping[str, Any], **about: Any
) -> None:
    """Write one agent (host arrays without an axis of lanes) with everything needed to build it again.

    `about` holds further entries of the header, JSON-ready.
    """
    header = {
        "algorithm": recipe.algorithm,
        "network": recipe.network,
        "env": env_name,
        "hyperparams": values(agent.hp),
        "caps": to_json(caps),
        **about,
    }
    write_atomically(path, pack(agent.for_acting(), **header))


@public
def load(
    path: str | Path,
    *,
    env: AbstractEnv | str | None = None,
    algorithm: type[AbstractAgentHyperparams] | str | None = None,
    network: type[AbstractNetworkHyperparams] | str | None = None,
) -> Policy:
    """Load the policy saved at `path`.

    A file never decides which code is imported: its environment, algorithm and network are found by name only
    if they are registered, or if this program has already used that name. Otherwise they are given here, as
    objects or by name:

    - `env`: the environment; `MyEnv()`, `"my.py:MyEnv[gravity=9.8]"`.
    - `algorithm`: the class of the algorithm's hyperparameters; `A2CHyperparams`, `"a2c.py:A2C"`.
    - `network`: the class of the networks' hyperparameters; `ResidualMLPHyperparams`, `"my.py:ResidualMLP"`.

    Raises `FileNotFoundError` if there is no file, and `ValueError` if it is damaged or from another version,
    or refers to something that is neither registered nor given. Hyperparameters of the algorithm that did not
    exist when it was saved have their defaults.
    """
    data = Path(path).read_bytes()
    header = read_header(data, str(path))
    where = f"{path} asks for it; give your own to hyperlax.load"
    kinds = (
        AGENTS.given(algorithm, header["algorithm"], f"{where}, algorithm=..."),
        NETWORKS.given(network, header["network"], f"{where}, network=..."),
    )
    if env is None:
        env = envs.trusted(header["env"], f"{where}, env=...")
    elif isinstance(env, str):
        env = envs.load(env)
    else:
        env = envs.checked(env, type(env).__name__)
    hp = assign(defaults(*kinds), header["hyperparams"])
    caps = from_json(header["caps"])
    hp = jax.tree.map(jnp.asarray, hp)
    like = eqx.filter_eval_shape(lambda h: h.agent(env, caps, key=jr.key(0)).for_acting(), hp)
    later = [name for name in declared(type(hp)) if name not in header["hyperparams"]]
    stored = eqx.tree_at(lambda a: [getattr(a.hp, name) for name in later], like, [None] * len(later))
    agent = eqx.combine(unpack(data, stored, str(path)), eqx.tree_at(lambda a: a.hp, like, hp))
    return Policy(jax.tree.map(jnp.asarray, agent), env, header)
