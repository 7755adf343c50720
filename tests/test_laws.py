"""The laws, over everything in the registries, with sizes and architectures drawn at random."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from hyperlax import envs
from hyperlax.agents import AGENTS
from hyperlax.envs.base import describe
from hyperlax.experiments.recipes import Recipe
from hyperlax.hyperparams import fields
from hyperlax.networks import NETWORKS
from hyperlax.testing import check_laws, check_network
from hyperlax.testing.agents import ENVS

EVERY_TIME = {("ppo", "gymnax.cartpole"), ("dqn", "gymnax.cartpole"), ("sac", "gymnax.pendulum")}
"""Algorithms and environments whose laws are tested every time, with MLPs; the others are in the long tests.
What is true of other networks and not of an MLP is tested every time for the network alone."""


def _case(algorithm: str, network: str, env: str):
    short = network == "mlp" and (algorithm, env) in EVERY_TIME
    alone = 1 if short else 2 if network != "mlp" else 4  # each compiles a program
    marks = () if short else pytest.mark.slow
    return pytest.param(algorithm, network, env, alone, id=f"{algorithm}_{network}-{env}", marks=marks)


CASES = [
    _case(algorithm, network, env)
    for algorithm in AGENTS
    for network in NETWORKS
    for env in ENVS
    if AGENTS[algorithm].supports(envs.load(env).action_space) is None
]
CASES += [
    pytest.param(a, "mlp", "brax.inverted_pendulum", 2, id=f"{a}_mlp-brax", marks=pytest.mark.slow)
    for a in ("ppo", "sac")
]
LONGER = [
    pytest.param(a, "mlp", env, 2 if a == "sac" else 4, id=f"{a}_mlp-{env}-more", marks=pytest.mark.slow)
    for a, env in sorted(EVERY_TIME)
]
"""What is tested every time, with more lanes trained alone. The third one of SAC ends while it warms up."""


@pytest.mark.parametrize(("algorithm", "network", "env", "alone"), [*CASES, *LONGER])
def test_lanes_keep_the_laws(algorithm, network, env, alone):
    """Alone = together, in any order; resume; one program."""
    check_laws(algorithm, network, [env], alone=alone)


ACCELERATED = [
    pytest.param(
        *case.values[:3],
        id=case.id,
        marks=() if case.id == "ppo_mlp-gymnax.cartpole" else pytest.mark.slow,
    )
    for case in CASES
]


@pytest.mark.parametrize(("algorithm", "network", "env"), ACCELERATED)
def test_lanes_keep_the_laws_in_programs_for_accelerators(algorithm, network, env, monkeypatch):
    """Whatever is in memory that is taken and not filled, which is zeros where a CPU runs such a program."""
    monkeypatch.setattr(jax.lax, "empty", lambda shape, dtype: jnp.full(shape, jnp.nan, dtype))
    check_laws(algorithm, network, [env], alone=1, accelerator=True)


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("network", NETWORKS)
def test_networks_are_what_agents_count_on(network, count):
    """Each sample compiles a program of its own sizes."""
    check_network(network, count=count)


def test_every_agent_says_what_it_cannot_do():
    """An algorithm either supports a space or explains itself."""
    for algorithm in AGENTS.values():
        for name in ENVS:
            space = envs.load(name).action_space
            answer = algorithm.supports(space)
            assert answer is None or len(answer) > 20, describe(space)


def test_every_hyperparameter_has_a_docstring_and_a_valid_default():
    """What the command line and the report show exists for every field."""
    for algorithm in AGENTS:
        for network in NETWORKS:
            tree = Recipe(algorithm, network).hyperparams()
            for field in fields(tree):
                assert field.doc
                assert field.decode(field.encode(field.default)) == pytest.approx(field.default)
                if field.space is not None:
                    drawn = field.space.ppf(0.3)
                    assert field.space.contains(drawn)
                    field.encode(drawn)
            assert dataclasses.is_dataclass(tree)
