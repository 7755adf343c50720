"""Every algorithm learns what it should on environments with known answers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from lanes import quick

from hyperlax.agents import AGENTS
from hyperlax.networks import NETWORKS
from hyperlax.testing import check_env, check_learning
from hyperlax.testing.probes import INTERVAL, SIGNS, policy_probes, value_probes

GAMMA = 0.5
PROBES = {
    f"{name} ({'discrete' if space == SIGNS else 'continuous'})": known
    for space in (SIGNS, INTERVAL)
    for name, known in (value_probes(space) | policy_probes(space)).items()
}


SHORT = [(algorithm, "mlp") for algorithm in AGENTS]
"""Every algorithm with MLPs; other networks are slow to compile, and in the long tests."""


def _case(algorithm: str, network: str, seeds: int):
    marks = () if seeds == 1 else pytest.mark.slow
    return pytest.param(algorithm, network, seeds, id=f"{algorithm}_{network}-{seeds}", marks=marks)


CASES = [_case(*pair, 1) for pair in SHORT] + [_case(a, n, 3) for a in AGENTS for n in NETWORKS]


@pytest.mark.parametrize(("algorithm", "network", "seeds"), CASES)
def test_probes_are_solved(algorithm, network, seeds):
    """Values are the known ones, time limits bootstrap and ends do not, and the best action is found."""
    check_learning(algorithm, network, seeds=seeds)


@pytest.mark.parametrize("name", PROBES)
def test_known_values_are_those_of_episodes(name):
    """What is said of a probe is what its rewards add up to, played by hand."""
    known = PROBES[name]
    probe = known.probe
    step = quick(lambda state, action, key: probe.step(state, action, key=key))
    for sign_key in range(4):
        state, obs = probe.reset(key=jr.key(sign_key))
        seen, rewards, ends = [float(obs[0])], [], []
        for t in range(int(probe.length)):
            best = {"action that pays": 1.0, "match": state[1], "near half": state[1] / 2}
            chosen = next((a for what, a in best.items() if what in name), jnp.float32(1.0))
            discrete = jnp.int32(chosen > 0) if probe.action_space == SIGNS else jnp.asarray([chosen])
            state, after = step(state, discrete, jr.key(t))
            seen.append(float(after.obs[0]))
            rewards.append(float(after.reward))
            ends.append((bool(after.terminated), bool(after.truncated)))
        assert ends == [(False, False)] * (len(ends) - 1) + [(not known.endless, known.endless)]
        expected = dict(known.expected(GAMMA))
        beyond = 1 / (1 - GAMMA) if known.endless else 0.0
        for t, obs in enumerate(seen[:-1] if known.values else []):
            value = (
                sum(GAMMA**i * r for i, r in enumerate(rewards[t:])) + GAMMA ** (len(rewards) - t) * beyond
            )
            assert value == pytest.approx(expected[obs])
        if known.best is not None:
            assert sum(rewards) == pytest.approx(known.best)


@pytest.mark.parametrize("space", [SIGNS, INTERVAL], ids=["discrete", "continuous"])
def test_probes_are_environments(space):
    """They are one class, of which this one has the longest episodes."""
    check_env(value_probes(space)["a time limit, which is not the end"].probe)


def test_other_actions_than_the_best_earn_less():
    for space in (SIGNS, INTERVAL):
        for known in policy_probes(space).values():
            assert known.best is not None
            state, _ = known.probe.reset(key=jr.key(0))
            actions = jnp.arange(2) if space == SIGNS else jnp.linspace(-1, 1, 5)[:, None]
            step = jax.vmap(lambda a, known=known, state=state: known.probe.step(state, a, key=jr.key(1))[1])
            rewards = np.asarray(quick(step)(actions).reward)
            assert rewards.max() == known.best
            assert np.sort(rewards)[-2] < known.best - known.slack
