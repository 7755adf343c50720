"""Algorithms by name."""

from __future__ import annotations

from hyperlax.agents.base import AbstractAgent, AbstractAgentHyperparams
from hyperlax.agents.ppo import PPO, PPOHyperparams

AGENTS: dict[str, type[AbstractAgentHyperparams]] = {"ppo": PPOHyperparams}
"""Algorithm name → the hyperparameters that describe and build its agent."""

__all__ = ["AGENTS", "PPO", "AbstractAgent", "AbstractAgentHyperparams", "PPOHyperparams"]
