"""Spaces that are given by their ends or values, such as `actor_lr=1e-4,1e-2`, in place of a recipe's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hyperlax.experiments.recipes import Recipe
from hyperlax.hyperparams import Choice, Field, Integers, LogUniform, Space, Uniform, fields
from hyperlax.hyperparams.spaces import Joint
from hyperlax.registry import nearest

SCALES = ("log", "linear")
"""Words that may follow the ends of a range of real numbers."""


def ranged(
    recipe: Recipe,
    ranges: Mapping[str, Any],
    fixed: Mapping[str, Any],
    ablate: Mapping[str, Sequence[Any]] | None,
    search_only: Sequence[str] | None,
) -> dict[str, Space]:
    """Return the space of every hyperparameter in `ranges`, by dotted path.

    A range is text (`1e-4,1e-2`, `0.9,0.999,linear`, `tanh,relu`), the same as a sequence, or a `Space`.
    Its scale is that of the recipe's space, or else of the one that the hyperparameter declares: log, linear
    or integers. The values of a choice, and more than two of anything, are those to choose from. Raises
    `ValueError` for an unknown hyperparameter, one that is also `fixed` or in `ablate`, one that
    `search_only` leaves out, and values that it cannot have.
    """
    known = {f.path: f for f in fields(recipe.hyperparams())}
    usual = recipe.search_space()
    found = {}
    for path, given in ranges.items():
        if path not in known:
            raise ValueError(f'no range for the unknown hyperparameter "{path}"{nearest(path, known)}')
        if path in fixed:
            raise ValueError(f"{path} has a range and is set to {fixed[path]!r} at the same time")
        if path in (ablate or {}):
            raise ValueError(f"{path} has a range and is ablated at the same time")
        if search_only and path not in search_only:
            raise ValueError(f"{path} has a range but is not searched; add it to search_only: {path}")
        own = usual.get(path) or known[path].space
        found[path] = given if isinstance(given, Space) else _space(known[path], given, own)
    return found


def _space(field: Field, given: str | Sequence[Any], usual: Space | None) -> Space:
    """The space of one hyperparameter; `usual` is the one whose scale it has."""
    parts = [part.strip() for part in given.split(",")] if isinstance(given, str) else list(given)
    scale = parts.pop() if parts and parts[-1] in SCALES else None
    words = ",".join(map(str, parts))
    chosen = field.labels or field.kind is bool
    if chosen and scale:
        raise ValueError(f"{field.path} is one of {field.range}, which have no {scale} scale; leave it out")
    if chosen or (scale is None and (isinstance(usual, Choice | Joint) or len(parts) > 2)):
        values = dict.fromkeys(_value(field, part) for part in parts)
        if len(values) < 2:
            raise ValueError(
                f"{field.path} is chosen from values: give two or more, separated by commas, got {words}"
                + ("" if chosen else f"; a range of numbers is {field.path}=LOW,HIGH,linear")
            )
        return Choice(*values)
    if len(parts) != 2:
        raise ValueError(f"a range has two ends, {field.path}=LOW,HIGH, got {words or 'nothing'}")
    low, high = (_value(field, part) for part in parts)
    if not low < high:
        raise ValueError(f"a range goes from its lower to its higher end, got {field.path}={words}")
    if field.kind is int:
        if scale == "log":
            raise ValueError(
                f"{field.path} is an integer, and drawn evenly; leave out log, or list its values"
            )
        return Integers(low, high)
    if scale == "log" or (scale is None and usual is not None and usual.log):
        if low <= 0:
            raise ValueError(
                f"{field.path} is drawn on a log scale, which needs a lower end above zero; got {words}. "
                f"{field.path}={words},linear draws it evenly"
            )
        return LogUniform(low, high)
    return Uniform(low, high)


def _value(field: Field, text: Any) -> Any:
    """A value in full precision, once it is one that the hyperparameter can have; raises `ValueError`."""
    value = field.decode(field.encode(text))
    return float(text) if field.kind is float else value
