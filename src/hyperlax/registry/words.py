"""Words that people type: the nearest known one, and text turned into the values it stands for."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

KINDS: dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str}
"""Types that text is converted to, by the name that an annotation gives them."""


def nearest(name: Any, known: Iterable[str]) -> str:
    """`; did you mean "x"?` for the known name closest to `name`, or nothing."""
    candidates = list(known)
    match = difflib.get_close_matches(str(name), candidates, n=1, cutoff=0.5)
    match = match or [other for other in candidates if other.lower() == str(name).lower()]
    return f'; did you mean "{match[0]}"?' if match else ""


def convert(name: str, value: Any, kind: type) -> Any:
    """`value`, or the text of one, as a `kind`; raises `ValueError` naming what it is for."""
    if not isinstance(value, str) or kind is str:
        if kind is int and isinstance(value, float) and not value.is_integer():
            raise ValueError(f"{name} needs an integer, got {value!r}")
        return kind(value)
    text = value.strip().lower()
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError(f"{name} needs true or false, got {value!r}")
        return text == "true"
    try:
        number = float(text)
    except ValueError:
        wanted = "a number" if kind is float else "an integer"
        raise ValueError(f"{name} needs {wanted}, got {value!r}") from None
    if kind is float:
        return number
    if not number.is_integer():
        raise ValueError(f"{name} needs an integer, got {value!r}")
    return int(number)


def build(what: str, make: Callable[..., Any], options: Mapping[str, Any], prefix: str = "") -> Any:
    """`make(**options)`, where options may be text: they become what the parameters of `make` are.

    A parameter's type is that of its default value, else its annotation. `what` is how messages call the
    thing that is made, and `prefix` is put before its options there. Raises `ValueError` for an option that
    `make` does not take (with the nearest that it does), that it needs, or that cannot be converted.
    """
    parameters = inspect.signature(make).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = {n: p for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    typed = {}
    for name, value in options.items():
        if name not in known and not takes_any:
            full, others = f"{prefix}{name}", [f"{prefix}{n}" for n in known]
            has = f"it has {', '.join(others)}" if others else "it has none"
            raise ValueError(f'{what} has no option "{full}"{nearest(full, others) or f"; {has}"}')
        kind = _kind(known[name]) if name in known else None
        typed[name] = value if kind is None else convert(f"{prefix}{name}", value, kind)
    if missing := [n for n, p in known.items() if p.default is p.empty and n not in typed]:
        raise ValueError(f"{what} needs the option {prefix}{missing[0]}")
    return make(**typed)


def _kind(parameter: inspect.Parameter) -> type | None:
    """The type that text for `parameter` is converted to; None to leave it as it is."""
    if type(parameter.default) in KINDS.values():
        return type(parameter.default)
    annotation = parameter.annotation
    return KINDS.get(annotation if isinstance(annotation, str) else getattr(annotation, "__name__", ""))
