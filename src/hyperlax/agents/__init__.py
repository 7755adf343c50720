"""The algorithms, each an agent with its hyperparameters, and the table of their names."""

from __future__ import annotations

from hyperlax.agents.base import AbstractAgent, AbstractAgentHyperparams, NetworkUse
from hyperlax.agents.defaults import OffPolicyDefaults, OnPolicyDefaults
from hyperlax.agents.dqn import DQN, DQNHyperparams
from hyperlax.agents.off_policy import AbstractOffPolicyAgent
from hyperlax.agents.on_policy import AbstractOnPolicyAgent, Sample
from hyperlax.agents.ppo import PPO, PPOHyperparams
from hyperlax.agents.sac import SAC, SACHyperparams
from hyperlax.registry import Registry, built_in

AGENTS: Registry[type[AbstractAgentHyperparams]] = built_in.AGENTS
"""Algorithm → the hyperparameters that describe and build its agent."""

__all__ = [
    "AGENTS",
    "DQN",
    "PPO",
    "SAC",
    "AbstractAgent",
    "AbstractAgentHyperparams",
    "AbstractOffPolicyAgent",
    "AbstractOnPolicyAgent",
    "DQNHyperparams",
    "NetworkUse",
    "OffPolicyDefaults",
    "OnPolicyDefaults",
    "PPOHyperparams",
    "SACHyperparams",
    "Sample",
]
