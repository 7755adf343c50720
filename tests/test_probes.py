"""Every algorithm learns what it should on environments with known answers."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import jax.random as jr
import probes
import pytest
from lanes import LOW_EFFORT

from hyperlax.agents import AGENTS
from hyperlax.experiments.recipes import Recipe, network_fields
from hyperlax.hyperparams import assign
from hyperlax.learning.rollout import evaluate
from hyperlax.networks import NETWORKS
from hyperlax.programs import train

CYCLES = {"ppo": 120, "dqn": 400, "sac": 400}
SMALL = {
    "mlp": {"width": 16, "depth": 1},
    "tmlp": {"bond_dim": 4, "mpo_layers": 1, "shape": "32=2^5", "activation": "tanh"},
    "drpqc": {"layers": 2, "stacks": 1},
}
OFF_POLICY = {
    "num_envs": 8,
    "rollout_length": 4,
    "warmup_rollout_length": 20,
    "update_to_data": 0.0,
    "epochs": 4,
    "batch_size": 64,
    "buffer_size": 4000,
    "gamma": 0.5,
    "tau": 0.1,
    "max_grad_norm": 10.0,
    "normalize_observations": False,
}
SETTINGS = {
    "ppo": {
        "num_envs": 32,
        "rollout_length": 10,
        "epochs": 4,
        "num_minibatches": 2,
        "actor_lr": 5e-3,
        "critic_lr": 5e-3,
        "gamma": 0.5,
        "gae_lambda": 0.9,
        "ent_coef": 0.0,
        "max_grad_norm": 10.0,
        "clip_eps": 0.3,
        "normalize_observations": False,
    },
    "dqn": {**OFF_POLICY, "critic_lr": 5e-3, "epsilon_decay": 0.5},
    "sac": {
        **OFF_POLICY,
        "q_lr": 5e-3,
        "actor_lr": 5e-3,
        "alpha_lr": 5e-3,
        "init_alpha": 0.05,
        "autotune": False,
    },
}
STEP = {"tmlp": 2e-3}
"""Step size of every network where 5e-3 is too large: 256 features reach the head."""


def _pair(algorithm: str, network: str):
    """Every algorithm with MLPs, PPO with tensor networks; the rest, slow to compile, in the long tests."""
    marks = () if network == "mlp" or (algorithm, network) == ("ppo", "tmlp") else pytest.mark.slow
    return pytest.param(algorithm, network, id=f"{algorithm}_{network}", marks=marks)


PAIRS = [_pair(a, n) for a in AGENTS for n in NETWORKS]


@cache
def trained(algorithm: str, network: str, probe: type):
    """The agent after training on the probe, and its greedy return."""
    env = probe()
    nets = {f"{n}.{k}": v for n in network_fields(AGENTS[algorithm]) for k, v in SMALL[network].items()}
    settings = {k: STEP.get(network, v) if k.endswith("_lr") else v for k, v in SETTINGS[algorithm].items()}
    hp = assign(Recipe(algorithm, network).hyperparams(), {**settings, **nets})
    caps = hp.capacities([hp.sizes()], [1], env)

    def run(hp, key):
        state = train.start(hp, env, caps, jnp.int32(10**6), key=key, init_key=key)
        state = train.segment(state, env, caps, jnp.int32(CYCLES[algorithm]))
        returns, _ = evaluate(state.agent, env, 16, jnp.bool_(True), key=jr.key(3))
        return state.agent, returns

    key = jnp.asarray([0, 5], jnp.uint32)
    return jax.jit(run, compiler_options=LOW_EFFORT)(jax.tree.map(jnp.asarray, hp), key)


def value(agent, obs: float) -> float:
    """What the agent expects from acting as well as it can."""
    seen = jnp.asarray([obs])
    if hasattr(agent, "critics"):
        policy = agent.actor(seen)
        return float(agent.critics(seen, policy.action(policy.mode())).min())
    return float(jnp.max(agent.critic(seen)))


@pytest.mark.parametrize(("algorithm", "network"), PAIRS)
def test_values_are_the_known_ones(algorithm, network):
    """Constant and observed rewards, discounting over two steps."""
    gamma = SETTINGS[algorithm]["gamma"]
    assert value(trained(algorithm, network, probes.ConstantReward)[0], 0.0) == pytest.approx(1.0, abs=0.1)
    observed = trained(algorithm, network, probes.ObservedReward)[0]
    assert [value(observed, o) for o in (-1.0, 1.0)] == pytest.approx([-1.0, 1.0], abs=0.1)
    two = trained(algorithm, network, probes.TwoSteps)[0]
    assert [value(two, t) for t in (0.0, 1.0)] == pytest.approx([gamma, 1.0], abs=0.1)


@pytest.mark.parametrize(("algorithm", "network"), PAIRS)
def test_truncation_bootstraps_and_termination_does_not(algorithm, network):
    """A time limit is not the end of the task; the end of the task is."""
    gamma = SETTINGS[algorithm]["gamma"]
    assert value(trained(algorithm, network, probes.Truncated)[0], 0.0) == pytest.approx(
        1 / (1 - gamma), abs=0.1
    )
    ended = trained(algorithm, network, probes.Terminated)[0]
    expected = [(1 - gamma ** (5 - t)) / (1 - gamma) for t in range(5)]
    assert [value(ended, t / 5) for t in range(5)] == pytest.approx(expected, abs=0.15)


@pytest.mark.parametrize(("algorithm", "network"), PAIRS)
@pytest.mark.parametrize(
    ("probe", "best", "slack"),
    [(probes.ActionReward, 1.0, 0.0), (probes.MatchReward, 1.0, 0.0), (probes.Quadratic, 0.0, 0.02)],
)
def test_the_policy_finds_the_best_action(algorithm, network, probe, best, slack):
    """Rewards that depend on the action, on both, and a continuous optimum."""
    if AGENTS[algorithm].supports(probe().action_space) is not None:
        pytest.skip(f"{algorithm} cannot act here")
    returns = trained(algorithm, network, probe)[1]
    assert float(returns[0].min()) >= best - slack
