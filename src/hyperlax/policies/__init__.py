"""Trained agents: their files, episodes with them, and what other programs can use."""

from hyperlax.policies.files import load, save
from hyperlax.policies.policy import Policy

__all__ = ["Policy", "load", "save"]
