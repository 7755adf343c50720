"""Benchmark suites: which recipes run on which environments, and for how long."""

from dataclasses import replace

from hyperlax.studies.suites import Rule, Suite

STUDY = "benchmarked.01_static_qmc_sampling_S64"
DISCRETE = ("gymnax.cartpole", "gymnax.acrobot")
CONTINUOUS = ("gymnax.pendulum", "gymnax.reacher", "brax.inverted_double_pendulum")


def _study(*names: str) -> tuple[str, ...]:
    return tuple(f"{STUDY}.{name}" for name in names)


PUBLISHED = Suite(
    algos=_study(*(f"{a}_{n}" for a in ("dqn", "ppo", "sac") for n in ("mlp", "tmlp", "drpqc"))),
    envs=(*DISCRETE, *CONTINUOUS),
    samples=64,
    run_length="long",
    settings={"protocol": "published", "seed": 42},
    rules=tuple(
        Rule(algo="*sac_*", env=env, skip="the published benchmark has no SAC on discrete actions")
        for env in DISCRETE
    ),
)
"""The 30 cells of the published benchmark in its protocol: 64 Sobol samples, 5e6 steps, 4 seeds.

The published results of three of them, DQN on CartPole, come from another evaluation schedule.
"""

PUBLISHED_CORRECTED = replace(PUBLISHED, settings={"protocol": "corrected", "seed": 42})
"""The samples of the published benchmark, trained and evaluated in the corrected protocol."""

REPRODUCTION_SMALL = Suite(
    algos=_study("ppo_mlp", "sac_mlp"),
    envs=("gymnax.cartpole", "gymnax.pendulum", "gymnax.reacher"),
    samples=64,
    run_length="long",
    settings={"protocol": "published", "seed": 42},
    rules=(
        *PUBLISHED.rules,
        Rule(algo="*ppo_*", env="gymnax.reacher", skip="two cells of PPO are enough for a workstation"),
    ),
)
"""Two cells of PPO and two of SAC that take the least time, for a workstation.

None is of DQN on CartPole: the published results of those three cells were evaluated more often than the
protocol says (`hyperlax.report.published.other_schedule`), so that their peaks are no reference.
"""

SUITES = {
    "ppo_mlp_vs_drpqc": Suite(("ppo_mlp", "ppo_drpqc"), ("gymnax.cartpole", "gymnax.pendulum")),
    "ppo_families": Suite(("ppo_mlp", "ppo_tmlp", "ppo_drpqc"), ("gymnax.cartpole", "gymnax.pendulum")),
    "published": PUBLISHED,
    "published_corrected": PUBLISHED_CORRECTED,
    "reproduction_small": REPRODUCTION_SMALL,
    "reproduction_small_corrected": replace(REPRODUCTION_SMALL, settings=PUBLISHED_CORRECTED.settings),
}
