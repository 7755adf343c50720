"""hyperlax: many reinforcement learning experiments in one compiled program."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from hyperlax.registry.moved import MOVED, Moved

__version__ = "0.2.0"

sys.meta_path.append(Moved(MOVED))

if os.environ.get("HYPERLAX_TYPECHECK") == "1":
    from hyperlax.registry import checked

    checked.install("hyperlax")

_HOMES = {
    "sweep": "sweeps",
    "prepare": "sweeps",
    "confirm": "studies.confirmation",
    "describe": "experiments.description",
    "search": "searches",
    "Execution": "experiments.execution",
    "Recipe": "experiments.recipes",
    "Results": "storage.results",
    "Settings": "experiments.settings",
    "Suite": "studies.suites",
    "Interrupted": "run.signals",
    "export": "exporters",
    "load": "policies",
    "Policy": "policies",
    "Experiments": "storage.collection",
    "read": "storage.collection",
    "check": "storage.checking",
    "Superseded": "storage.claims",
    "Uniform": "hyperparams.spaces",
    "LogUniform": "hyperparams.spaces",
    "Integers": "hyperparams.spaces",
    "Choice": "hyperparams.spaces",
    "Joint": "hyperparams.spaces",
    "Space": "hyperparams.spaces",
    "AbstractAgent": "agents.base",
    "AbstractAgentHyperparams": "agents.base",
    "AbstractEnv": "envs.base",
    "AbstractNetwork": "networks.base",
    "AbstractNetworkHyperparams": "networks.base",
    "AbstractSampler": "hyperparams.samplers.base",
    "AbstractStockHyperparams": "networks.stock",
}
"""Public name → the module it lives in, imported when first used: `import hyperlax` starts no jax."""

__all__ = [
    "AbstractAgent",
    "AbstractAgentHyperparams",
    "AbstractEnv",
    "AbstractNetwork",
    "AbstractNetworkHyperparams",
    "AbstractSampler",
    "AbstractStockHyperparams",
    "Choice",
    "Execution",
    "Experiments",
    "Integers",
    "Interrupted",
    "Joint",
    "LogUniform",
    "Policy",
    "Recipe",
    "Results",
    "Settings",
    "Space",
    "Suite",
    "Superseded",
    "Uniform",
    "check",
    "confirm",
    "describe",
    "export",
    "load",
    "plot",
    "prepare",
    "read",
    "schedules",
    "search",
    "statistics",
    "sweep",
    "testing",
    "__version__",
]

if TYPE_CHECKING:
    from hyperlax import schedules, statistics, testing
    from hyperlax.agents.base import AbstractAgent, AbstractAgentHyperparams
    from hyperlax.envs.base import AbstractEnv
    from hyperlax.experiments.description import describe
    from hyperlax.experiments.execution import Execution
    from hyperlax.experiments.recipes import Recipe
    from hyperlax.experiments.settings import Settings
    from hyperlax.exporters import export
    from hyperlax.hyperparams.samplers.base import AbstractSampler
    from hyperlax.hyperparams.spaces import Choice, Integers, Joint, LogUniform, Space, Uniform
    from hyperlax.networks.base import AbstractNetwork, AbstractNetworkHyperparams
    from hyperlax.networks.stock import AbstractStockHyperparams
    from hyperlax.policies import Policy, load
    from hyperlax.report import plot
    from hyperlax.run.signals import Interrupted
    from hyperlax.searches import search
    from hyperlax.storage.checking import check
    from hyperlax.storage.claims import Superseded
    from hyperlax.storage.collection import Experiments, read
    from hyperlax.storage.results import Results
    from hyperlax.studies.confirmation import confirm
    from hyperlax.studies.suites import Suite
    from hyperlax.sweeps import prepare, sweep


def __getattr__(name: str) -> Any:
    if name in ("plot", "schedules", "statistics", "testing"):
        return importlib.import_module(f"hyperlax.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"hyperlax.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'hyperlax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
