"""The laws, over everything in the registries, with sizes and architectures drawn at random."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lanes import alone, corner, random_sample, together

from hyperlax import envs
from hyperlax.agents import AGENTS
from hyperlax.agents.off_policy import AbstractOffPolicyAgent
from hyperlax.envs.base import describe
from hyperlax.experiments.recipes import Recipe
from hyperlax.hyperparams import assign, trainable
from hyperlax.networks import NETWORKS

ENVS = ("gymnax.cartpole", "gymnax.pendulum")

EVERY_TIME = {("ppo", "gymnax.cartpole"): NETWORKS, ("dqn", "gymnax.cartpole"): ["mlp"]}
EVERY_TIME |= {("sac", "gymnax.pendulum"): ["mlp"]}
"""Networks that are tested every time; the others are in the long tests."""


def _case(algorithm: str, network: str, env: str):
    marks = () if network in EVERY_TIME.get((algorithm, env), ()) else pytest.mark.slow
    return pytest.param(algorithm, network, env, id=f"{algorithm}_{network}-{env}", marks=marks)


CASES = [
    _case(algorithm, network, env)
    for algorithm in AGENTS
    for network in NETWORKS
    for env in ENVS
    if AGENTS[algorithm].supports(envs.load(env).action_space) is None
]
CASES += [
    pytest.param(a, "mlp", "brax.inverted_pendulum", id=f"{a}_mlp-brax", marks=pytest.mark.slow)
    for a in ("ppo", "sac")
]
LANES, CYCLES = 4, 2


def _lanes(algorithm: str, network: str, env_name: str):
    env = envs.load(env_name)
    rng = np.random.default_rng([LANES, len(env_name)])
    base = Recipe(algorithm, network).hyperparams()
    hps = [assign(base, random_sample(base, rng)) for _ in range(LANES)]
    keys = jnp.asarray([[7, i] for i in range(LANES)], jnp.uint32)
    return env, hps, keys


def _weights(agent):
    """Weights and statistics by path; flat vectors (moments, targets) follow from the weights' course."""
    leaves = jax.tree_util.tree_flatten_with_path(eqx.filter(agent, trainable(agent)))[0]
    flat = (".optimiser", ".target")
    return [(path, x) for path, x in leaves if not jax.tree_util.keystr(path).startswith(flat)]


def _same_replay(one, lane):
    """The transitions held are the same, where the agent has a replay."""
    if isinstance(one, AbstractOffPolicyAgent):
        exact, shared = (a.experience.replay for a in (one, lane))
        assert int(exact.added) == int(shared.added) > 0
        held = int(exact.size)
        table, padded = (np.asarray(r.table.value) for r in (exact, shared))
        np.testing.assert_allclose(padded[:held], table[:held], atol=2e-6)
        assert not padded[int(exact.capacity) :].any()


@pytest.mark.parametrize(("algorithm", "network", "env_name"), CASES)
def test_alone_equals_together(algorithm, network, env_name):
    """Every lane learns among others of other sizes what it learns by itself, and padding stays zero."""
    env, hps, keys = _lanes(algorithm, network, env_name)
    both = together(hps, env, keys, [CYCLES, CYCLES + 1, CYCLES, CYCLES + 2])
    alone_too = hps if network == "mlp" else hps[:2]  # each compiles a program of its own
    for i, hp in enumerate(alone_too):
        cycles = [CYCLES, CYCLES + 1, CYCLES, CYCLES + 2][i]
        one = alone(hp, env, keys[i], cycles)
        lane = jax.tree.map(lambda x, i=i: x[i], both)
        assert (int(one.env_steps), int(one.gradient_steps)) == (
            int(lane.env_steps),
            int(lane.gradient_steps),
        )
        padded = {jax.tree_util.keystr(p): x for p, x in _weights(lane.agent)}
        moved = 0.0
        for path, exact in _weights(one.agent):
            inside, rest = corner(padded.pop(jax.tree_util.keystr(path)), exact)
            np.testing.assert_allclose(
                inside, exact, atol=2e-6, err_msg=f"lane {i}{jax.tree_util.keystr(path)}"
            )
            assert not rest.any(), f"lane {i}: padding of {jax.tree_util.keystr(path)} is not zero"
            moved = max(moved, float(np.abs(exact).max()))
        assert moved > 0
        for path, extra in padded.items():
            assert not np.asarray(extra).any() or "scale" in path, f"lane {i}: {path} is used by nobody"
        _same_replay(one.agent, lane.agent)
        for name, value in one.metrics.items():
            np.testing.assert_allclose(
                lane.metrics[name], value, rtol=2e-4, atol=1e-5, err_msg=f"lane {i} {name}"
            )


@pytest.mark.parametrize(("algorithm", "network", "env_name"), CASES[:1])
def test_order_and_neighbours_do_not_matter(algorithm, network, env_name):
    """The same lanes in reverse order learn the same."""
    env, hps, keys = _lanes(algorithm, network, env_name)
    forth = together(hps, env, keys, [CYCLES] * LANES)
    back = together(hps[::-1], env, keys[::-1], [CYCLES] * LANES)
    for a, b in zip(jax.tree.leaves(forth.agent), jax.tree.leaves(back.agent), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b)[::-1], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(("algorithm", "network", "env_name"), CASES)
def test_hyperparameter_values_do_not_change_the_program(algorithm, network, env_name):
    """Lanes of equal capacities trace to the same program, whatever their values."""
    env, hps, keys = _lanes(algorithm, network, env_name)
    from hyperlax.programs import train

    base = hps[0]
    caps = base.capacities([base.sizes()], [1], env)
    other = assign(
        base, {k: 0.5 * float(getattr(base, k)) for k in ("gamma", "actor_lr") if hasattr(base, k)}
    )
    traces = []

    @jax.jit
    def run(hp, key):
        traces.append(1)
        return train.start(hp, env, caps, jnp.int32(100), key=key, init_key=key).agent

    for hp in (base, other):
        run(jax.tree.map(jnp.asarray, hp), keys[0])
    assert len(traces) == 1


def test_every_agent_says_what_it_cannot_do():
    """An algorithm either supports a space or explains itself."""
    for algorithm in AGENTS.values():
        for name in ENVS:
            space = envs.load(name).action_space
            answer = algorithm.supports(space)
            assert answer is None or len(answer) > 20, describe(space)


def test_every_hyperparameter_has_a_docstring_and_a_valid_default():
    """What the command line and the report show exists for every field."""
    from hyperlax.hyperparams import fields

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
