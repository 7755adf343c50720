"""Benchmark suites: which recipes run on which environments, and for how long."""

from hyperlax.suites import Suite

STUDY = "benchmarked.01_static_qmc_sampling_S64"
PUBLISHED_ENVS = (
    "gymnax.cartpole",
    "gymnax.acrobot",
    "gymnax.pendulum",
    "gymnax.reacher",
    "brax.inverted_double_pendulum",
)
PUBLISHED = Suite(
    algos=tuple(f"{STUDY}.{a}_{n}" for a in ("dqn", "ppo", "sac") for n in ("mlp", "tmlp", "drpqc")),
    envs=PUBLISHED_ENVS,
    samples=64,
    run_length="long",
)
"""The published benchmark: 64 samples of nine families, 5e6 steps and 4 seeds each, SAC on discrete too."""

SUITES = {
    "ppo_mlp_vs_drpqc": Suite(("ppo_mlp", "ppo_drpqc"), ("gymnax.cartpole", "gymnax.pendulum")),
    "ppo_families": Suite(("ppo_mlp", "ppo_tmlp", "ppo_drpqc"), ("gymnax.cartpole", "gymnax.pendulum")),
    "published": PUBLISHED,
}
