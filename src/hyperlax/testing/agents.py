"""`check_agent`: the four laws, for any algorithm."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hyperlax import envs as environments
from hyperlax.agents import AGENTS
from hyperlax.agents.base import AbstractAgent, AbstractAgentHyperparams
from hyperlax.envs.base import AbstractEnv, describe
from hyperlax.experiments.recipes import network_fields
from hyperlax.hyperparams import assign, nearest
from hyperlax.networks import NETWORKS
from hyperlax.networks.base import AbstractNetworkHyperparams
from hyperlax.testing import laws
from hyperlax.testing.lanes import Lanes
from hyperlax.testing.learning import SEEDS, Value, cycles_for, learns, settings_for, state_value
from hyperlax.testing.samples import draw

ENVS = ("gymnax.cartpole", "gymnax.pendulum")
PROBE_NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"width": 16, "depth": 1},
    "tmlp": {"bond_dim": 4, "mpo_layers": 1, "shape": "32=2^5", "activation": "tanh"},
    "drpqc": {"layers": 2, "stacks": 1},
}
"""Hyperparameters of networks large enough for probes; other networks keep their defaults."""


def check_agent(
    agent: Any,
    network: Any = "mlp",
    envs: Sequence[str | AbstractEnv] = ENVS,
    *,
    lanes: int = 4,
    alone: int = 2,
    samples: Sequence[Mapping[str, Any]] = (),
    probe_settings: Mapping[str, Any] | None = None,
    probe_cycles: int | None = None,
    value: Value | None = state_value,
    seed: int = 7,
) -> None:
    """Check the four laws for an algorithm: alone = together, resume, one program, it learns.

    Lanes of random samples, drawn from the fields of the class, are trained for a few cycles in each of
    `envs` that the algorithm supports; then it is to solve the probes. Each environment takes a program of
    all lanes and one for each lane that is trained alone; probes take one program for discrete and one for
    continuous actions.

    - `agent`: the agent's class, that of its hyperparameters, or a registered name.
    - `network`: a class of network hyperparameters or a registered name, for all networks of the agent.
    - `lanes`: how many are trained together. `alone`: how many of them also alone.
    - `samples`: hyperparameters by dotted path for the lanes to take in turn, where not every combination of
      values makes sense; what they leave out is drawn.
    - `probe_settings`, `probe_cycles`: other hyperparameters and training length for the probes.
    - `value`: what the agent expects to get from an observation on, `value(agent, obs)`; by default its
      `critic`. None: it does not say, and only what it does is checked.

    Raises `AssertionError` naming law, lane and leaf where the algorithm breaks a law, and `TypeError` for
    anything that is not an algorithm.
    """
    kind, net = hyperparameters_of(agent), network_of(network)
    check_laws(kind, net, envs, lanes=lanes, alone=alone, samples=samples, seed=seed)
    check_learning(kind, net, settings=probe_settings, cycles=probe_cycles, value=value)


def check_laws(
    agent: Any,
    network: Any = "mlp",
    envs: Sequence[str | AbstractEnv] = ENVS,
    *,
    lanes: int = 4,
    alone: int = 2,
    samples: Sequence[Mapping[str, Any]] = (),
    seed: int = 7,
    accelerator: bool = False,
) -> None:
    """Check the first three laws: alone = together, resume, one program (see `check_agent`).

    With `accelerator`, they are checked for the programs that an accelerator would run, on any device.
    """
    kind, net = hyperparameters_of(agent), network_of(network)
    supported = [env for env in map(_environment, envs) if kind.supports(env.action_space) is None]
    if not supported:
        spaces = ", ".join(describe(_environment(env).action_space) for env in envs)
        raise TypeError(
            f"{kind.__name__} supports none of the action spaces {spaces}; give others as envs=[...]"
        )
    for env in supported:
        held = drawn_lanes(kind, net, env, lanes, samples, seed, accelerator)
        laws.resumes(held)
        laws.compiles_once(held)
        laws.neighbours_do_not_matter(held)
        laws.alone_equals_together(held, alone)


def check_learning(
    agent: Any,
    network: Any = "mlp",
    *,
    settings: Mapping[str, Any] | None = None,
    cycles: int | None = None,
    value: Value | None = state_value,
    seeds: int = SEEDS,
    first_seed: int = 5,
) -> None:
    """Check the fourth law, that the algorithm solves the probes (see `check_agent`)."""
    kind, net = hyperparameters_of(agent), network_of(network)
    base = with_network(kind, net)
    small = next(
        (PROBE_NETWORKS[name] for name, cls in NETWORKS.items() if cls is net and name in PROBE_NETWORKS), {}
    )
    given = {f"{field}.{k}": v for field in network_fields(kind) for k, v in small.items()}
    hp = assign(base, settings_for(base, {**given, **(settings or {})}))
    learns(hp, cycles or cycles_for(hp), value, seeds=seeds, first_seed=first_seed)


def drawn_lanes(
    kind: type[AbstractAgentHyperparams],
    net: type[AbstractNetworkHyperparams],
    env: AbstractEnv,
    count: int,
    samples: Sequence[Mapping[str, Any]] = (),
    seed: int = 7,
    accelerator: bool = False,
) -> Lanes:
    """`count` lanes of random samples of an algorithm in `env`, and as many others for the same program."""
    rng = np.random.default_rng([seed, count, env.obs_size])
    cost = lambda hp: hp.parameter_count(env)  # noqa: E731
    hps = draw(with_network(kind, net), 2 * count, rng, cost, samples)
    return Lanes(env, hps[:count], hps[count:], seed, accelerator)


def with_network(
    kind: type[AbstractAgentHyperparams], net: type[AbstractNetworkHyperparams]
) -> AbstractAgentHyperparams:
    """The defaults of an algorithm all of whose networks are `net`."""
    build: Any = kind
    return build(**{name: net() for name in network_fields(kind)})


def hyperparameters_of(agent: Any) -> type[AbstractAgentHyperparams]:
    """The class of hyperparameters that is meant by an agent's class, by itself, or by a registered name.

    Raises `TypeError` for what is none, saying what was given and what is wanted.
    """
    if isinstance(agent, str):
        if agent not in AGENTS:
            known = f"known: {', '.join(AGENTS)}"
            raise TypeError(f'unknown algorithm "{agent}"{nearest(agent, AGENTS, known)}')
        return AGENTS[agent]
    kind = agent if isinstance(agent, type) else type(agent)
    if issubclass(kind, AbstractAgent):
        kind = _declared_by(kind)
    return concrete(
        kind, AbstractAgentHyperparams, "check_agent", "an algorithm's hyperparameters or its agent"
    )


def network_of(network: Any) -> type[AbstractNetworkHyperparams]:
    """The class of network hyperparameters that is meant by itself or by a registered name."""
    if isinstance(network, str):
        if network not in NETWORKS:
            known = f"known: {', '.join(NETWORKS)}"
            raise TypeError(f'unknown network "{network}"{nearest(network, NETWORKS, known)}')
        return NETWORKS[network]
    kind = network if isinstance(network, type) else type(network)
    return concrete(kind, AbstractNetworkHyperparams, "check_network", "a network's hyperparameters")


def _declared_by(agent: type[AbstractAgent]) -> type:
    """The hyperparameters of an agent's class: what its base is parametrised with, or the type of `hp`."""
    for base in agent.__mro__:
        for generic in getattr(base, "__orig_bases__", ()):
            for argument in typing.get_args(generic):
                if isinstance(argument, type) and issubclass(argument, AbstractAgentHyperparams):
                    return argument
    try:
        found = typing.get_type_hints(agent).get("hp")
    except (NameError, TypeError):
        found = None
    if isinstance(found, type) and issubclass(found, AbstractAgentHyperparams):
        return found
    raise TypeError(
        f"{agent.__name__} does not say what its hyperparameters are; give their class to check_agent, or "
        f"derive the agent from AbstractOnPolicyAgent[...] with that class in the brackets"
    )


def concrete(kind: type, base: type, check: str, wanted: str) -> Any:
    """`kind`, a subclass of `base` that can be built; raises `TypeError` saying what it lacks for that."""
    if not issubclass(kind, base):
        raise TypeError(
            f"{check} takes the class of {wanted}, a subclass of {base.__name__}; got {kind.__name__}"
        )
    abstract = sorted(getattr(kind, "__abstractmethods__", ()))
    if inspect.isabstract(kind) or abstract:
        raise TypeError(f"{kind.__name__} is abstract: it does not define {', '.join(abstract)}")
    try:
        kind()
    except TypeError as error:
        raise TypeError(f"{kind.__name__} cannot be built with its defaults: {error}") from error
    return kind


def _environment(env: str | AbstractEnv) -> AbstractEnv:
    return environments.load(env) if isinstance(env, str) else env
