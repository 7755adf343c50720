"""Text that users type: suggestions for unknown names, and conversion to values."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from types import UnionType
from typing import Any, Union, get_args, get_origin

from hyperlax.registry.foreign import explained, place
from hyperlax.registry.spellings import alike

KINDS: dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str}
"""Types that text is converted to, by the name that an annotation gives them."""
LONGEST_NUMBER = 64
"""The largest number of digits of an integer that anything here could mean."""
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False, 1: True, 0: False}


def escaped(text: str) -> str:
    """Return `text` in one line, with escapes for control characters: a file of data may hold any."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def nearest(name: Any, known: Iterable[str], more: str = "") -> str:
    """`; did you mean "x" or "y"?` for the known names that `name` may stand for, or nothing.

    `more` is what the message says next: a sentence of its own after a question, else after a semicolon.
    """
    found = [f'"{other}"' for other in alike(str(name), known)]
    asked = f"; did you mean {' or '.join(found)}?" if found else ""
    return f"{asked} {more[0].upper()}{more[1:]}" if asked and more else f"; {more}" if more else asked


def plain(value: Any) -> Any:
    """The Python value of a NumPy scalar or of an array without dimensions; anything else as it is."""
    scalar = getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None))
    return value.item() if scalar else value


def integer(name: str, value: Any) -> int:
    """`value`, or the text of one, as an integer, exactly.

    `100000`, `1e5`, `100_000`, a float without a fraction and NumPy's integers are integers; a bool is none.
    Raises `ValueError` naming what it is for.
    """
    value = plain(value)
    number: Decimal | None = None
    if isinstance(value, str) and len(value) <= LONGEST_NUMBER:
        try:
            number = Decimal(value.strip())
        except InvalidOperation:
            number = None
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        number = Decimal(value)
    if number is None or not number.is_finite() or number != number.to_integral_value():
        raise ValueError(f"{name} needs an integer, got {_short(value)}")
    if number.adjusted() > LONGEST_NUMBER:
        raise ValueError(f"{name} is an integer beyond all bounds, got {_short(value)}")
    return int(number)


def boolean(name: str, value: Any) -> bool:
    """`value`, or the text of one, as true or false, for which 1 and 0 stand, too.

    Raises `ValueError` naming what it is for.
    """
    value = plain(value)
    key = value.strip().lower() if isinstance(value, str) else value
    if isinstance(key, (bool, int, float, str)) and key in _BOOLEANS:
        return _BOOLEANS[key]
    raise ValueError(f"{name} needs true or false, got {_short(value)}")


def real(name: str, value: Any) -> float:
    """`value`, or the text of one, as a float; NaN and bools are none.

    Raises `ValueError` naming what it is for.
    """
    value, number = plain(value), None
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            number = float(value)
    if number is None or number != number:
        raise ValueError(f"{name} needs a number, got {_short(value)}")
    return number


def vanishes(text: str) -> bool:
    """Whether the text of a number is read as zero although it is none, such as `1e-400`."""
    with contextlib.suppress(ValueError):
        return float(text) == 0 and re.match(r"[^eE]*[1-9]", text) is not None
    return False


def convert(name: str, value: Any, kind: type) -> Any:
    """`value`, or the text of one, as a `kind`; raises `ValueError` naming what it is for."""
    converters: dict[type, Callable[[str, Any], Any]] = {bool: boolean, int: integer, float: real}
    return converters[kind](name, value) if kind in converters else kind(value)


def _short(value: Any) -> str:
    """`value` for a message, on one line and not longer than that."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def build(what: str, make: Callable[..., Any], options: Mapping[str, Any], prefix: str = "") -> Any:
    """`make(**options)`, where options may be text: they become what the parameters of `make` are.

    A parameter's type is its annotation, to which `None` may be added, else that of its default. `what` is
    how messages call the thing that is made, and `prefix` is put before its options there. Raises
    `ValueError` for an option that `make` does not take (with the nearest that it does), that it needs, or
    that cannot be converted, and for any error of a user's own `make`.
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
    try:
        return make(**typed)
    except ValueError:
        raise
    except Exception as error:
        if place(error) is None:
            raise
        raise ValueError(f"{what} cannot be built: {explained(error)}") from error


def _kind(parameter: inspect.Parameter) -> type | None:
    """The type that text for `parameter` is converted to; None to leave it as it is."""
    kinds = {KINDS.get(name) for name in _alternatives(parameter.annotation)}
    if len(kinds) == 1 and kinds != {None}:
        return kinds.pop()
    return type(parameter.default) if type(parameter.default) in KINDS.values() else None


def _alternatives(annotation: Any) -> list[str]:
    """The names of the types that `annotation`, which may be text, allows beside `None`."""
    if isinstance(annotation, str):
        inside = re.sub(r"^(?:typing\.)?Optional\[(.*)\]$", r"\1", annotation.strip())
        names = [part.strip() for part in inside.split("|")]
    else:
        several = get_origin(annotation) in (Union, UnionType)
        names = [getattr(x, "__name__", "") for x in (get_args(annotation) if several else (annotation,))]
    return [name for name in names if name not in ("None", "NoneType")]
