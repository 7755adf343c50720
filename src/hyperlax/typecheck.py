"""Types and shapes checked where users meet them: constructors of modules, and public functions.

Always on: a constructor is called once per agent or sample, and nothing is checked inside a compiled program.
`HYPERLAX_TYPECHECK=1` checks every function of the package as well.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import typing
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np
from beartype import BeartypeConf, beartype
from beartype.door import is_bearable
from jaxtyping import jaxtyped

F = TypeVar("F", bound=Callable[..., Any])


def checked(function: F) -> F:
    """`function`, which raises `TypeError` for an argument that is not of the annotated type or shape."""
    strict = beartype(conf=BeartypeConf(violation_type=TypeError))
    return typing.cast(F, jaxtyped(function, typechecker=strict))


def check_fields(module: Any) -> None:
    """Raise `TypeError` for the first field of a dataclass that is not of the annotated type or shape.

    Names of dimensions mean the same length in all fields. A NumPy array may stand for a jax array of its
    shape and dtype: that is what hyperparameters are on the host.
    """
    with jaxtyped("context"):
        for name, (hint, on_host) in _hints(type(module)).items():
            value = getattr(module, name, None)
            if not is_bearable(value, on_host if isinstance(value, np.ndarray | np.generic) else hint):
                raise TypeError(
                    f"{type(module).__name__}.{name} is {_shown(value)}; it must be {_named(hint)}"
                )


@cache
def _hints(kind: type) -> dict[str, tuple[Any, Any]]:
    """The annotations of the fields of `kind`, for a jax and for a NumPy array.

    Those that cannot be resolved, because they name something inside a function, are left out.
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
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None:
        return f"{value!r}"[:80]
    return f"an array of {dtype} of shape {tuple(shape)}"


def _named(hint: Any) -> str:
    if getattr(hint, "array_type", None) is jax.Array:
        return f"{hint.dtype.__name__}[Array, {hint.dim_str!r}]"
    return hint.__name__ if isinstance(hint, type) else repr(hint).replace("typing.", "")
