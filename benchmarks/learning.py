"""Returns that the defaults and the tuned recipes reach with seeds that none of them was chosen with.

    python benchmarks/learning.py [--only cartpole_ppo_mlp ...] [--seeds 10] [--keep FOLDER]

The score of a seed is the mean return of its last evaluation, in 32 episodes with deterministic actions. The
report holds the interquartile mean over seeds, its 95 % interval (`hyperlax.statistics.iqm_over_runs`), and
the score of every seed. Every target is written as soon as it is measured. With `--keep` its training is
stored, and what an interruption left unfinished is continued by the same command.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import save, table

import hyperlax
from hyperlax.statistics import iqm_over_runs

FRESH_SEED = 2026
"""A seed with which no recipe was found, except for targets that name another one."""


@dataclass(frozen=True)
class Target:
    """The return that a recipe must reach on an environment within a number of environment steps."""

    env: str
    recipe: str
    steps: int
    reach: float
    seed: int = FRESH_SEED

    @property
    def name(self) -> str:
        return self.recipe.removeprefix("tuned.")


TARGETS = (
    Target("gymnax.cartpole", "ppo_mlp", 300_000, 475.0),
    Target("gymnax.cartpole", "dqn_mlp", 300_000, 475.0),
    Target("gymnax.cartpole", "sac_mlp", 300_000, 475.0),
    Target("gymnax.cartpole", "tuned.cartpole_ppo_mlp", 300_000, 495.0),
    Target("gymnax.cartpole", "tuned.cartpole_dqn_mlp", 300_000, 475.0),
    Target("gymnax.cartpole", "tuned.cartpole_sac_mlp", 300_000, 450.0),
    Target("gymnax.acrobot", "tuned.acrobot_ppo_mlp", 500_000, -85.0),
    Target("gymnax.acrobot", "tuned.acrobot_dqn_mlp", 500_000, -95.0),
    Target("gymnax.pendulum", "tuned.pendulum_ppo_mlp", 1_000_000, -170.0),
    Target("gymnax.pendulum", "tuned.pendulum_sac_mlp", 60_000, -155.0),
    Target("gymnax.cartpole", "tuned.cartpole_ppo_drpqc", 500_000, 475.0),
    Target("gymnax.pendulum", "tuned.pendulum_ppo_drpqc", 2_000_000, -200.0),
    Target("gymnax.pendulum", "tuned.pendulum_sac_drpqc", 100_000, -300.0),
    Target("gymnax.pendulum", "tuned.pendulum_sac_tmlp", 60_000, -180.0),
    Target("gymnax.reacher", "tuned.reacher_ppo_mlp", 5_000_000, 69.0),
    Target("brax.inverted_double_pendulum", "tuned.inverted_double_pendulum_ppo_mlp", 1_500_000, 9000.0),
    Target("brax.inverted_double_pendulum", "tuned.inverted_double_pendulum_sac_mlp", 400_000, 9000.0, 2027),
)


def measure(target: Target, seeds: int, keep: Path | None = None) -> dict[str, Any]:
    """Train the recipe of `target`, below the folder `keep`, and summarise every seed's last evaluation."""
    folder = None if keep is None else keep / target.name
    results = hyperlax.sweep(
        target.recipe,
        target.env,
        seeds=seeds,
        seed=target.seed,
        total_timesteps=target.steps,
        evaluations=5,
        eval_episodes=32,
        folder=folder,
        resume=folder is not None and folder.exists(),
        progress=True,
    )
    returns = results.curves.filter(results.curves["metric"] == "return").sort("env_steps")
    last = returns.group_by("lane", maintain_order=True).last().sort("lane")["value"].to_numpy()
    estimate = iqm_over_runs(np.asarray(last)[None, :, None])
    return {
        "env": target.env,
        "recipe": target.recipe,
        "steps": target.steps,
        "reach": target.reach,
        "iqm": float(estimate.value.item()),
        "low": None if np.isnan(estimate.low.item()) else float(estimate.low.item()),
        "high": None if np.isnan(estimate.high.item()) else float(estimate.high.item()),
        "reached": bool(estimate.value.item() >= target.reach),
        "seeds": [round(float(x), 1) for x in last],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    names = [t.name for t in TARGETS]
    parser.add_argument("--only", nargs="*", default=names, choices=names)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for target in TARGETS:
        if target.name in arguments.only:
            rows.append(measure(target, arguments.seeds, arguments.keep))
            print(save("learning", rows))
    table(rows, "learning: interquartile mean of the last evaluation")


if __name__ == "__main__":
    main()
