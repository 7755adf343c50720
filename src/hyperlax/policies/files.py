"""Policy files: saving trained agents, and loading them to act."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from hyperlax import envs
from hyperlax.agents import AGENTS
from hyperlax.agents.base import AbstractAgent, AbstractAgentHyperparams
from hyperlax.envs.base import AbstractEnv
from hyperlax.experiments.memory import device_memory
from hyperlax.experiments.recipes import Recipe, defaults
from hyperlax.hyperparams import AbstractHyperparams, assign, declared, values
from hyperlax.lanes.sizes import to_json
from hyperlax.networks import NETWORKS
from hyperlax.networks.base import AbstractNetworkHyperparams
from hyperlax.policies.policy import Policy
from hyperlax.programs.stored import stored_capacities
from hyperlax.storage.checkpoint import pack, read_header, read_header_of, unpack
from hyperlax.storage.files import write_atomically
from hyperlax.storage.places import resolved
from hyperlax.storage.shareable import without_folders
from hyperlax.typecheck import public

_ENTRIES: dict[str, type] = {"algorithm": str, "network": str, "env": str, "hyperparams": dict, "caps": dict}
"""What the header of a policy must hold, and of which type."""


def save(
    path: Path, agent: AbstractAgent, recipe: Recipe, env_name: str, caps: Mapping[str, Any], **about: Any
) -> None:
    """Write one agent (host arrays without an axis of lanes) with everything needed to build it again.

    `about` holds further entries of the header, JSON-ready.
    """
    header = {
        "algorithm": without_folders(recipe.algorithm),
        "network": without_folders(recipe.network),
        "env": without_folders(env_name),
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
    """Load the policy saved at `path`, or the best one in the folder of an experiment.

    A file never decides which code runs: its environment, algorithm and network are found by name only if
    they are registered. Otherwise they are given here, as objects or by name:

    - `env`: the environment; `MyEnv()`, `"my.py:MyEnv[gravity=9.8]"`.
    - `algorithm`: the class of the algorithm's hyperparameters; `A2CHyperparams`, `"a2c.py:A2C"`.
    - `network`: the class of the networks' hyperparameters; `ResidualMLPHyperparams`, `"my.py:ResidualMLP"`.

    Nor does a file decide how much is allocated: what its header describes is compared with its length first.

    Raises `FileNotFoundError` if there is no file, and `ValueError`, which names the file, if it is damaged,
    no policy or from another version, or refers to something that is neither registered nor given.
    Hyperparameters of the algorithm that did not exist when it was saved have their defaults.
    """
    path = chosen(resolved(path))
    data = path.read_bytes()
    # what is wrong with a choice of the caller is not a fault of the file
    if env is not None:
        env = envs.load(env) if isinstance(env, str) else envs.checked(env, type(env).__name__)
    algorithm = None if algorithm is None else AGENTS.given(algorithm, "algorithm", "")
    network = None if network is None else NETWORKS.given(network, "network", "")
    with _naming(path):
        return _loaded(path, data, env, algorithm, network)


def _loaded(
    path: Path,
    data: bytes,
    env: AbstractEnv | None,
    algorithm: type[AbstractAgentHyperparams] | None,
    network: type[AbstractNetworkHyperparams] | None,
) -> Policy:
    """The policy in the contents of a file; raises `ValueError` if it is none."""
    header = _entries(read_header(data, str(path)), str(path))
    where = f"{path} asks for it; give your own to hyperlax.load"
    kinds = (
        AGENTS.given(algorithm, header["algorithm"], f"{where}, algorithm=..., or with --algorithm"),
        NETWORKS.given(network, header["network"], f"{where}, network=..., or with --network"),
    )
    if env is None:
        env = envs.trusted(header["env"], f"{where}, env=..., or with --env-config")
    hp = assign(defaults(*kinds), header["hyperparams"])
    like = _like(hp, env, stored_capacities(header["caps"], hp, env, len(data), device_memory()))
    later = [name for name in declared(type(hp)) if name not in header["hyperparams"]]
    stored = eqx.tree_at(lambda a: [getattr(a.hp, name) for name in later], like, [None] * len(later))
    if (needed := _bytes(stored)) > len(data):
        raise ValueError(
            f"its header describes an agent of {needed:,} bytes, but the file has only {len(data):,}"
        )
    given = eqx.tree_at(lambda a: a.hp, like, jax.tree.map(jnp.asarray, hp))
    agent = eqx.combine(unpack(data, stored, str(path)), given)
    _check_hyperparams(agent, hp)
    return Policy(jax.tree.map(jnp.asarray, agent), env, header)


def chosen(path: Path) -> Path:
    """`path` itself, or the policy with the best score in the folder of an experiment.

    Raises `ValueError` for a folder that holds no policies, or policies that do not tell what they scored.
    """
    if not path.is_dir():
        return path
    found = sorted(path.glob("policies/*.policy"))
    if not found:
        below = sorted({file.parent.parent for file in path.rglob("policies/*.policy")})
        hint = f"; name one of the folders with some below it, such as {below[0]}" if below else ""
        raise ValueError(f"{path} holds no policies{hint}")
    scores = {file: read_header_of(file).get("score") for file in found}
    known = {file: score for file, score in scores.items() if isinstance(score, float)}
    if not known:
        raise ValueError(f"no policy in {path} tells what it scored; name one, such as {found[0]}")
    return max(known, key=known.__getitem__)


def _entries(header: Any, source: str) -> dict[str, Any]:
    """The header of a policy; raises `ValueError` unless it holds all of `_ENTRIES`."""
    for name, kind in _ENTRIES.items():
        if not isinstance(header, dict) or not isinstance(header.get(name), kind):
            wanted = "text" if kind is str else "an object"
            raise ValueError(f'{source} is not a policy: the entry "{name}" of its header must be {wanted}')
    return header


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Add the name of the file, and a way out, to the message of any `ValueError` that lacks them."""
    try:
        yield
    except ValueError as error:
        said = str(error) if str(path) in str(error) else f"{path} cannot be loaded: {error}"
        raise ValueError(said if "; " in said else f"{said}; take another copy of the file") from error


def _like(hp: AbstractAgentHyperparams, env: AbstractEnv, caps: Mapping[str, Any]) -> AbstractAgent:
    """The shapes and dtypes of the agent in the file of a policy.

    Raises `ValueError` if no such agent can be built, whatever stands against it: `caps` may be anything.
    """
    arrays = jax.tree.map(jnp.asarray, hp)
    try:
        return eqx.filter_eval_shape(lambda h: h.agent(env, caps, key=jr.key(0)).for_acting(), arrays)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"no agent can be built as it is described ({type(error).__name__}: {reason})"
        ) from error


def _bytes(tree: Any) -> int:
    return sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))


def _check_hyperparams(agent: AbstractAgent, hp: AbstractAgentHyperparams) -> None:
    """Raise `ValueError` unless the hyperparameters among the arrays of an agent are those of the header.

    They bound loops, and what was checked of the header must hold for them as well. Networks have copies of
    theirs, which keep what a schedule has changed in the agent's; of these the sizes are compared.
    """
    nets = [(type(net), net.sizes()) for net in hp.nested_networks().values()]
    leaves = jax.tree.leaves(agent, is_leaf=lambda node: isinstance(node, AbstractHyperparams))
    copies = [node for node in leaves if isinstance(node, AbstractNetworkHyperparams)]
    if _bits(agent.hp) != _bits(hp) or any((type(net), net.sizes()) not in nets for net in copies):
        raise ValueError("the hyperparameters in its header and among its arrays differ")


def _bits(tree: Any) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]
