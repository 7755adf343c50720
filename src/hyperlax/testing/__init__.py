"""Checks for classes of your own: the laws and the probes that this package's own classes pass.

Every function raises `AssertionError` with what is wrong, and returns None where nothing is. None of them
needs a test framework:

    from hyperlax.testing import check_agent

    def test_a2c_keeps_the_laws():
        check_agent(A2C)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "check_agent": "agents",
    "check_laws": "agents",
    "check_learning": "agents",
    "check_network": "networks",
    "check_env": "envs",
    "check_sampler": "samplers",
    "check_schedule": "schedules",
}
"""Public name → the module it lives in, imported when first used."""

__all__ = [
    "check_agent",
    "check_env",
    "check_laws",
    "check_learning",
    "check_network",
    "check_sampler",
    "check_schedule",
]

if TYPE_CHECKING:
    from hyperlax.testing.agents import check_agent, check_laws, check_learning
    from hyperlax.testing.envs import check_env
    from hyperlax.testing.networks import check_network
    from hyperlax.testing.samplers import check_sampler
    from hyperlax.testing.schedules import check_schedule


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"hyperlax.testing.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'hyperlax.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
