"""Networks by name."""

from __future__ import annotations

from hyperlax.networks.base import AbstractNetwork, AbstractNetworkHyperparams
from hyperlax.networks.heads import Categorical, PolicyHead, TanhNormal
from hyperlax.networks.linear import Linear
from hyperlax.networks.mlp import MLP, MLPHyperparams
from hyperlax.networks.models import ActionValues, Actor, Critic, jointly
from hyperlax.networks.pqc import PQC, PQCHyperparams
from hyperlax.networks.stock import AbstractStockHyperparams
from hyperlax.networks.tensor import TensorMLP, TensorMLPHyperparams
from hyperlax.registry import Registry, built_in

NETWORKS: Registry[type[AbstractNetworkHyperparams]] = built_in.NETWORKS
"""Network → the hyperparameters that describe and build it."""

__all__ = [
    "MLP",
    "NETWORKS",
    "PQC",
    "AbstractNetwork",
    "AbstractNetworkHyperparams",
    "AbstractStockHyperparams",
    "ActionValues",
    "Actor",
    "Categorical",
    "Critic",
    "Linear",
    "MLPHyperparams",
    "PQCHyperparams",
    "PolicyHead",
    "TanhNormal",
    "TensorMLP",
    "TensorMLPHyperparams",
    "jointly",
]
