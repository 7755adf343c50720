"""Environments by name: `<framework>.<environment>`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from hyperlax.envs.base import AbstractEnv, ActionSpace, Box, Discrete, Timestep, describe
from hyperlax.hyperparams import nearest

FRAMEWORKS: dict[str, str] = {
    "gymnax": "hyperlax.envs.gymnax:GymnaxEnv",
    "brax": "hyperlax.envs.brax:BraxEnv",
}
"""Framework → the class that adapts it, imported when first used."""

REFERENCE_SCORES: dict[str, tuple[float, float]] = {
    "gymnax.cartpole": (22.0, 500.0),
    "gymnax.acrobot": (-499.0, -80.0),
    "gymnax.pendulum": (-1230.0, -150.0),
    "gymnax.mountain_car": (-200.0, -110.0),
    "gymnax.mountain_car_continuous": (-33.0, 93.0),
    "gymnax.reacher": (17.0, 70.0),
    "gymnax.swimmer": (86.0, 350.0),
    "brax.inverted_double_pendulum": (492.0, 9000.0),
}
"""Return of a uniformly random policy and the score at which the task counts as solved, per environment."""

__all__ = [
    "FRAMEWORKS",
    "REFERENCE_SCORES",
    "AbstractEnv",
    "ActionSpace",
    "Box",
    "Discrete",
    "Timestep",
    "describe",
    "load",
    "names",
    "with_options",
]


def with_options(name: str, options: Mapping[str, Any]) -> str:
    """The full name of an environment with options: `brax.ant[backend=mjx]`."""
    return f"{name}[{','.join(f'{k}={v}' for k, v in sorted(options.items()))}]" if options else name


def load(full_name: str) -> AbstractEnv:
    """The environment of that name: `gymnax.pendulum`, `brax.ant[backend=mjx]`, or `package.module:Class`.

    Raises `ValueError` naming the nearest known one.
    """
    name, options = _split(full_name)
    try:
        return _load(name, options)
    except TypeError as error:
        if not options:
            raise
        raise ValueError(f"{name} does not take {', '.join(options)}: {error}") from error


def _split(full_name: str) -> tuple[str, dict[str, str]]:
    """The name of an environment without its options, and those."""
    name, bracket, inside = full_name.partition("[")
    if bracket and not inside.endswith("]"):
        raise ValueError(f'environment "{full_name}": a name with options ends with a bracket, "{name}[…]"')
    pairs = [pair.partition("=") for pair in inside.removesuffix("]").split(",") if pair]
    if wrong := ["".join(pair) for pair in pairs if not (pair[0] and pair[2])]:
        raise ValueError(
            f'environment "{full_name}": options of an environment are written as in '
            f'"brax.ant[backend=mjx]", got {wrong[0]!r}'
        )
    return name, {key: value for key, _, value in pairs}


def names() -> list[str]:
    """The short names of all frameworks."""
    from hyperlax.envs.brax import DEFAULT_BACKENDS
    from hyperlax.envs.gymnax import SHORT_NAMES

    return [*(f"gymnax.{n}" for n in SHORT_NAMES), *(f"brax.{n}" for n in DEFAULT_BACKENDS)]


def _load(name: str, options: dict[str, Any]) -> AbstractEnv:
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(f'environment "{name}" cannot be imported: {error}') from error
        return found(**options)
    framework, dot, rest = name.partition(".")
    if not dot or framework not in FRAMEWORKS:
        known = [*names(), *(f"{f}.{rest}" for f in FRAMEWORKS)]
        near = next((n for n in known if n.endswith(f".{framework}")), name)
        raise ValueError(
            f'unknown environment "{name}"{nearest(near, known)}\n'
            f"environments are named <framework>.<name> (frameworks: {', '.join(FRAMEWORKS)}); "
            "`hyperlax list` shows them"
        )
    module, _, attribute = FRAMEWORKS[framework].partition(":")
    return getattr(importlib.import_module(module), attribute)(rest, **options)
