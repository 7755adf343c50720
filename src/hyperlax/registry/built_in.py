"""The built-in names: one line for each, as an installed package declares its own in entry points.

Places are text, so that the command line knows all names and imports nothing. The room that a registry is for
exports it with its type: `hyperlax.agents.AGENTS`.
"""

from __future__ import annotations

from typing import Any

from hyperlax.registry.base import Registry

AGENTS: Registry[Any] = Registry(
    "algorithm",
    "hyperlax.agents",
    {
        "ppo": "hyperlax.agents.ppo:PPOHyperparams",
        "dqn": "hyperlax.agents.dqn:DQNHyperparams",
        "sac": "hyperlax.agents.sac:SACHyperparams",
    },
    "hyperlax.agents.base:AbstractAgentHyperparams",
    suffix="Hyperparams",
)
"""Algorithm → the hyperparameters that describe and build its agent."""

NETWORKS: Registry[Any] = Registry(
    "network",
    "hyperlax.networks",
    {
        "mlp": "hyperlax.networks.mlp:MLPHyperparams",
        "tmlp": "hyperlax.networks.tensor:TensorMLPHyperparams",
        "drpqc": "hyperlax.networks.pqc:PQCHyperparams",
    },
    "hyperlax.networks.base:AbstractNetworkHyperparams",
    suffix="Hyperparams",
)
"""Network → the hyperparameters that describe and build it."""

ENVS: Registry[Any] = Registry(
    "environment",
    "hyperlax.envs",
    {},
    "hyperlax.envs.base:AbstractEnv",
    functions=True,
    taken="hyperlax.envs:taken",
)
"""Environment → its class, or a function that returns one, beside those of adapted frameworks."""

SCHEDULES: Registry[Any] = Registry(
    "scheduler",
    "hyperlax.schedules",
    {"asha": "hyperlax.schedules.asha:ASHA", "pbt": "hyperlax.schedules.pbt:PBT"},
    "hyperlax.schedules.base:Schedule",
)
"""What becomes of lanes while an experiment runs: name → the class of a schedule."""

SAMPLERS: Registry[Any] = Registry(
    "sampling method",
    "hyperlax.samplers",
    {
        "qmc_sobol": "hyperlax.hyperparams.samplers.sobol:Sobol",
        "random": "hyperlax.hyperparams.samplers.random:Random",
        "latin_hypercube": "hyperlax.hyperparams.samplers.latin_hypercube:LatinHypercube",
        "halton": "hyperlax.hyperparams.samplers.halton:Halton",
        "grid": "hyperlax.hyperparams.samplers.grid:Grid",
        "sobol_matrices_A_B_AB": "hyperlax.hyperparams.samplers.saltelli:Saltelli",
        "file": "hyperlax.hyperparams.samplers.samples_file:SamplesFile",
        "optuna": "hyperlax.hyperparams.samplers.optuna:OptunaSampler",
    },
    "hyperlax.hyperparams.samplers.base:AbstractSampler",
)
"""How samples are drawn: name → the class of a sampler."""

EXPORTERS: Registry[Any] = Registry(
    "tracker",
    "hyperlax.exporters",
    {
        "tensorboard": "hyperlax.exporters.tensorboard:write",
        "wandb": "hyperlax.exporters.wandb:write",
        "mlflow": "hyperlax.exporters.mlflow:write",
    },
    functions=True,
)
"""Tracker → what writes runs to a folder and says how to look at them; `mlflow` also takes an address."""

RECIPES: Registry[Any] = Registry(
    "recipe",
    "hyperlax.recipes",
    {},
    "hyperlax.experiments.recipes:Recipe",
    instances=True,
    collection="RECIPES",
    taken="hyperlax.experiments.recipes:taken",
)
"""Recipes that packages bring, beside those that follow from the registries and those in `configs/`."""

SUITES: Registry[Any] = Registry(
    "suite",
    "hyperlax.suites",
    {},
    "hyperlax.studies.suites:Suite",
    instances=True,
    collection="SUITES",
    taken="hyperlax.studies.suites:taken",
)
"""Benchmark suites that packages bring, beside those in `configs/`."""
