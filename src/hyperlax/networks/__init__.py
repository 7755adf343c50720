"""Networks by name."""

from __future__ import annotations

from hyperlax.networks.base import AbstractNetwork, AbstractNetworkHyperparams, Linear
from hyperlax.networks.heads import ActionValues, Actor, Categorical, Critic, PolicyHead, TanhNormal
from hyperlax.networks.mlp import MLP, MLPHyperparams

NETWORKS: dict[str, type[AbstractNetworkHyperparams]] = {"mlp": MLPHyperparams}
"""Network name → the hyperparameters that describe and build it."""

__all__ = [
    "MLP",
    "NETWORKS",
    "AbstractNetwork",
    "AbstractNetworkHyperparams",
    "ActionValues",
    "Actor",
    "Categorical",
    "Critic",
    "Linear",
    "MLPHyperparams",
    "PolicyHead",
    "TanhNormal",
]
