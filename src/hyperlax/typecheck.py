"""Checks of types and shapes in constructors of modules and in public functions.

These checks are always on: a constructor is called once per agent or sample, and nothing is checked inside a
compiled program. With `HYPERLAX_TYPECHECK=1`, every function of the package is checked as well
(`registry/checked.py`).
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import sys
import typing
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax
import numpy as np
from beartype import BeartypeConf
from beartype.door import is_bearable
from jaxtyping import jaxtyped

from hyperlax.registry import nearest

P = ParamSpec("P")
R = TypeVar("R")
_NUMBERS = BeartypeConf(is_pep484_tower=True)  # an int is a float


def public(function: Callable[P, R]) -> Callable[P, R]:
    """Make `function` check its arguments, and raise `TypeError` for one that it does not accept.

    It refuses unknown keywords, with the nearest known one, and arguments that are not of the annotated type.
    NumPy scalars are converted, and so are floats without a fraction if an int is expected. Signature and
    documentation stay those of `function`.
    """
    signature = inspect.signature(function)
    known = list(signature.parameters)

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in known:
                hint = nearest(name, known) or f"; it has {', '.join(known)}"
                raise TypeError(f'{function.__name__}() has no parameter "{name}"{hint}')
        bound = signature.bind(*args, **kwargs)
        hints = _parameter_hints(function)
        for name, value in bound.arguments.items():
            bound.arguments[name] = _argument(function.__name__, name, value, hints.get(name, Any))
        return function(*bound.args, **bound.kwargs)

    return checked


@cache
def _parameter_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The resolved annotations of the parameters of `function`, by name."""
    return typing.get_type_hints(function, include_extras=True)


def _argument(function: str, name: str, value: Any, hint: Any) -> Any:
    """`value`, converted if necessary; raises `TypeError` if it is not of type `hint`."""
    value = value.item() if isinstance(value, np.generic) else value
    as_number = isinstance(value, bool) and bool not in (hint, *typing.get_args(hint))
    if is_bearable(value, hint, conf=_NUMBERS) and not (as_number and not is_bearable("", hint)):
        return value
    if isinstance(value, float) and value.is_integer() and is_bearable(int(value), hint):
        return int(value)
    raise TypeError(f"{function}() parameter {name} is {_shown(value)}; it must be {_spelled(hint)}")


def check_fields(module: Any) -> None:
    """Raise `TypeError` for the first field of a dataclass that is not of the annotated type or shape.

    The name of a dimension stands for the same length in all fields. A NumPy array is accepted in place of a
    JAX array of its shape and dtype, because hyperparameters on the host are NumPy arrays.
    """
    with jaxtyped("context"):
        for name, (hint, on_host) in _hints(type(module)).items():
            value = getattr(module, name, None)
            if not is_bearable(value, on_host if isinstance(value, np.ndarray | np.generic) else hint):
                raise TypeError(
                    f"{type(module).__name__}.{name} is {_shown(value)}; it must be {_spelled(hint)}"
                )


@cache
def _hints(kind: type) -> dict[str, tuple[Any, Any]]:
    """Name → annotation of a field of `kind`, for JAX and for NumPy arrays.

    Annotations that cannot be resolved, because they refer to a name inside a function, are left out.
    """
    found: dict[str, tuple[Any, Any]] = {}
    for field in dataclasses.fields(kind):
        owner = next(c for c in kind.__mro__ if field.name in inspect.get_annotations(c))
        alone = SimpleNamespace(__annotations__={field.name: inspect.get_annotations(owner)[field.name]})
        names = {**vars(sys.modules[owner.__module__]), **vars(owner)}
        try:
            hint = typing.get_type_hints(alone, names, include_extras=True)[field.name]
        except NameError:
            continue
        if hint is not Any and typing.get_origin(hint) not in (eqx.AbstractVar, eqx.AbstractClassVar):
            arrays = getattr(hint, "array_type", None) is jax.Array
            found[field.name] = hint, hint.dtype[np.ndarray, hint.dim_str] if arrays else hint
    return found


def _shown(value: Any) -> str:
    """Describe a value for an error message; an array by dtype and shape."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None:
        return f"{value!r}"[:80]
    return f"an array of {dtype} of shape {tuple(shape)}"


def _spelled(hint: Any) -> str:
    """Spell an annotation as in the source."""
    if getattr(hint, "array_type", None) is jax.Array:
        return f"{hint.dtype.__name__}[Array, {hint.dim_str!r}]"
    return hint.__name__ if isinstance(hint, type) else re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", repr(hint))
