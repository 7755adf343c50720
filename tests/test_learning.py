"""Tuned recipes solve real environments; minutes long, so behind `make test-all`."""

from __future__ import annotations

import numpy as np
import pytest

import hyperlax
from hyperlax.statistics import iqm

TARGETS = [
    ("gymnax.cartpole", "tuned.cartpole_ppo_mlp", 300_000, 495.0),
    ("gymnax.cartpole", "tuned.cartpole_dqn_mlp", 300_000, 475.0),
    ("gymnax.cartpole", "tuned.cartpole_sac_mlp", 300_000, 450.0),
    ("gymnax.acrobot", "tuned.acrobot_ppo_mlp", 500_000, -85.0),
    ("gymnax.acrobot", "tuned.acrobot_dqn_mlp", 500_000, -95.0),
    ("gymnax.pendulum", "tuned.pendulum_ppo_mlp", 1_000_000, -170.0),
    ("gymnax.pendulum", "tuned.pendulum_sac_mlp", 60_000, -155.0),
]


@pytest.mark.slow
@pytest.mark.parametrize(("env", "recipe", "steps", "reach"), TARGETS)
def test_tuned_recipes_reach_their_scores(env, recipe, steps, reach):
    """Interquartile mean over five fresh seeds of the last evaluation, deterministic actions."""
    results = hyperlax.sweep(recipe, env, seeds=5, seed=7, total_timesteps=steps, eval_episodes=32)
    returns = results.curves.filter(results.curves["metric"] == "return").sort("env_steps")
    last = returns.group_by("lane").last()["value"].to_numpy()
    assert len(last) == 5
    assert float(iqm(np.asarray(last))) >= reach
