"""hyperlax: many reinforcement learning experiments in one compiled program."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if os.environ.get("HYPERLAX_TYPECHECK") == "1":
    from jaxtyping import install_import_hook

    install_import_hook("hyperlax", "beartype.beartype")

_HOMES = {
    "sweep": "sweeps",
    "prepare": "sweeps",
    "confirm": "confirmation",
    "search": "searches",
    "Execution": "execution",
    "Recipe": "recipes",
    "Results": "results",
    "Settings": "settings",
    "Suite": "suites",
    "Interrupted": "stopping",
    "export": "exporters",
    "load": "policies",
    "Policy": "policies",
    "read": "store",
    "Uniform": "spaces",
    "LogUniform": "spaces",
    "Integers": "spaces",
    "Choice": "spaces",
    "Joint": "spaces",
}
"""Public name → the module it lives in, imported when first used: `import hyperlax` starts no jax."""

__all__ = [
    "Choice",
    "Execution",
    "Integers",
    "Interrupted",
    "Joint",
    "LogUniform",
    "Policy",
    "Recipe",
    "Results",
    "Settings",
    "Suite",
    "Uniform",
    "confirm",
    "export",
    "load",
    "prepare",
    "read",
    "schedules",
    "search",
    "sweep",
    "__version__",
]

if TYPE_CHECKING:
    from hyperlax import schedules
    from hyperlax.confirmation import confirm
    from hyperlax.execution import Execution
    from hyperlax.exporters import export
    from hyperlax.policies import Policy, load
    from hyperlax.recipes import Recipe
    from hyperlax.results import Results
    from hyperlax.searches import search
    from hyperlax.settings import Settings
    from hyperlax.spaces import Choice, Integers, Joint, LogUniform, Uniform
    from hyperlax.stopping import Interrupted
    from hyperlax.store import read
    from hyperlax.suites import Suite
    from hyperlax.sweeps import prepare, sweep


def __getattr__(name: str) -> Any:
    if name == "schedules":
        return importlib.import_module("hyperlax.schedules")
    if name in _HOMES:
        return getattr(importlib.import_module(f"hyperlax.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'hyperlax' has no attribute {name!r}")
