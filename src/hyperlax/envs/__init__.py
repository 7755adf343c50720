"""Environments by name: `<framework>.<environment>`, or your own by file or module."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from hyperlax.envs.base import AbstractEnv, ActionSpace, Box, Discrete, Timestep, describe, problem
from hyperlax.registry import Registry, build, built_in, escaped, load_attribute, location, nearest

FRAMEWORKS: dict[str, str] = {
    "gymnax": "hyperlax.envs.gymnax:GymnaxEnv",
    "brax": "hyperlax.envs.brax:BraxEnv",
}
"""Framework → the class that adapts it, imported when first used."""

ENVS: Registry[Any] = built_in.ENVS
"""Other environments by name: classes, or functions that return an environment."""

_NAME = re.compile(r"(?P<name>(?:.*?\.py(?=[:\[]|$))?[^\[]*)(?P<options>\[.*)?", re.DOTALL)
"""A file's own path may hold brackets; options are those behind it."""
_COMMA = re.compile(r",(?![^()\[\]]*[)\]])")
"""A comma between two options, not one inside the parentheses of a tuple."""

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
    "ENVS",
    "FRAMEWORKS",
    "REFERENCE_SCORES",
    "AbstractEnv",
    "ActionSpace",
    "Box",
    "Discrete",
    "Timestep",
    "checked",
    "describe",
    "load",
    "named",
    "names",
    "options",
    "trusted",
    "with_options",
]


def with_options(name: str, options: Mapping[str, Any]) -> str:
    """The full name of an environment with options: `brax.ant[backend=mjx]`."""
    return f"{name}[{','.join(f'{k}={v}' for k, v in sorted(options.items()))}]" if options else name


def load(full_name: str) -> AbstractEnv:
    """Load an environment by name: `gymnax.pendulum`, `brax.ant[backend=mjx]`, `my.py:MyEnv[gravity=9.8]`.

    Your own class takes options as its constructor's parameters, converted to their types: `size=(3,4)` where
    that is a tuple, `wind=none` where it may be None. Raises `ValueError` naming the nearest known
    environment.
    """
    name, options = _split(full_name)
    return _made(name, _maker(name), options)


def trusted(full_name: str, instead: str) -> AbstractEnv:
    """Load an environment named in a data file: one of a framework, or of an installed package.

    Raises `ValueError` for any other name, whatever else this program has imported; `instead` says
    what to do.
    """
    name, options = _split(full_name)
    of_framework = _adapted(name) and name not in ENVS
    return _made(name, _maker(name) if of_framework else ENVS.trusted(name, instead), options)


def _made(name: str, maker: Callable[..., Any], options: Mapping[str, Any]) -> AbstractEnv:
    env = build(name, maker, options)
    if not isinstance(env, AbstractEnv):
        raise ValueError(
            f"{name} returns an object of {type(env).__name__}, which is not an environment (AbstractEnv)"
        )
    return checked(env, name)


def checked(env: AbstractEnv, name: str) -> AbstractEnv:
    """Return `env` if agents can work with what it declares; else raise `ValueError`, calling it `name`."""
    if found := problem(env):
        raise ValueError(f"no agent can act in {name}: {found}")
    return env


def _split(full_name: str) -> tuple[str, dict[str, str]]:
    """Split the name of an environment into the name without options, and the options."""
    match = _NAME.fullmatch(full_name)
    assert match is not None
    name, inside, shown = match["name"], match["options"] or "", escaped(full_name)
    if inside and not inside.endswith("]"):
        raise ValueError(
            f'environment "{shown}": a name with options ends with a bracket, "{escaped(name)}[…]"'
        )
    pairs = [pair.partition("=") for pair in _COMMA.split(inside[1:-1]) if pair]
    if wrong := ["".join(pair) for pair in pairs if not (pair[0] and pair[2])]:
        raise ValueError(
            f'environment "{shown}": options of an environment are written as in '
            f'"brax.ant[backend=mjx]", several values of one as in "size=(3,4)", got {wrong[0]!r}'
        )
    found = {key: value for key, _, value in pairs}
    if len(found) < len(pairs):
        raise ValueError(f'environment "{shown}": an option is given twice')
    return name, found


def names() -> list[str]:
    """The short names of all frameworks, and those that installed packages bring."""
    from hyperlax.envs.brax import DEFAULT_BACKENDS
    from hyperlax.envs.gymnax import SHORT_NAMES

    return [*(f"gymnax.{n}" for n in SHORT_NAMES), *(f"brax.{n}" for n in DEFAULT_BACKENDS), *ENVS]


def named(full_name: str) -> bool:
    """Whether `full_name`, with or without options, names an environment of a framework or a registered one.

    The framework may still not have it.
    """
    name = full_name.partition("[")[0]
    return _adapted(name) or name in ENVS


def options(full_name: str) -> dict[str, Any]:
    """The options that an environment takes, `--set env.<option>=…`, with their defaults."""
    parameters = inspect.signature(_maker(_split(full_name)[0])).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: "needed" if p.default is p.empty else p.default for p in parameters if p.kind in kinds}


def taken(name: str) -> str | None:
    """Say what else goes by the name of a registered environment: all names of a framework are its own."""
    framework, _, rest = name.partition(".")
    return f"{FRAMEWORKS[framework]} of hyperlax, whose names begin so," if _adapted(name) and rest else None


def _adapted(name: str) -> bool:
    """Whether it is an environment of a framework."""
    framework, dot, _ = name.partition(".")
    return bool(dot) and framework in FRAMEWORKS and location(name) is None


def _maker(name: str) -> Callable[..., Any]:
    """The function that makes the environment called `name` from its options."""
    framework, _, rest = name.partition(".")
    if name in ENVS or location(name) is not None:
        return ENVS.resolve(name)
    if _adapted(name):
        return partial(load_attribute(FRAMEWORKS[framework]), rest)
    known = [*names(), *(f"{f}.{rest}" for f in FRAMEWORKS)]
    raise ValueError(
        f'unknown environment "{escaped(name)}"{nearest(name, known)}\n'
        f"environments are named <framework>.<name> (frameworks: {', '.join(FRAMEWORKS)}), and your own "
        "file.py:Name or package.module:Name; `hyperlax list` shows them"
    )
