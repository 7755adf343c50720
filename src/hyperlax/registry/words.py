"""Text that users type: suggestions for unknown names, and conversion to values."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple, get_origin

from hyperlax.registry.foreign import explained, place
from hyperlax.registry.spellings import alike

KINDS: dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str}
"""Types that text is converted to, by the name that an annotation gives them."""
LONGEST_NUMBER = 64
"""The largest number of digits of an integer that anything here could mean."""
_ROW = re.compile(r"(?P<make>tuple|Tuple|list|List)(?:\[(?P<inside>.*)\])?")
_BETWEEN = r",(?![^()\[\]]*[)\]])"
"""A comma that stands inside no brackets."""
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

    A parameter's type is its annotation, else that of its default. A tuple or a list is written `(3,4)`, and
    `None`, where that is allowed beside numbers, `none`. `what` is how messages call the thing that is made,
    and `prefix` is put before its options there. Raises `ValueError` for an option that `make` does not take
    (with the nearest that it does), that it needs, or that cannot be converted, and for any error of a user's
    own `make`.
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
        typed[name] = _typed(f"{prefix}{name}", value, known[name]) if name in known else value
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


def _typed(name: str, value: Any, parameter: inspect.Parameter) -> Any:
    """`value`, or the text of one, as the type of a parameter; as it is where that is not known."""
    kind, row = _kind(parameter), _row(parameter)
    allowed = parameter.default is None or "None" in _alternatives(parameter.annotation)
    if allowed and (row or kind in (bool, int, float)) and str(value).strip().lower() == "none":
        return None
    if row is not None:
        return row.converted(name, value)
    return value if kind is None else convert(name, value, kind)


def _kind(parameter: inspect.Parameter) -> type | None:
    """The type that text for `parameter` is converted to; None to leave it as it is."""
    kinds = {KINDS.get(name) for name in _alternatives(parameter.annotation) if name != "None"}
    if len(kinds) == 1 and kinds != {None}:
        return kinds.pop()
    return type(parameter.default) if type(parameter.default) in KINDS.values() else None


class _Row(NamedTuple):
    """A tuple or a list: what makes it, and the types of its elements, or of each if it is `repeated`."""

    make: type
    kinds: list[type | None]
    repeated: bool

    def converted(self, name: str, value: Any) -> Any:
        """The text `(3,4)`, or the elements themselves, converted; raises `ValueError` naming what for."""
        items = value
        if isinstance(value, str):
            inside = re.sub(r"^\((.*)\)$|^\[(.*)\]$", r"\1\2", value.strip())
            items = [item.strip() for item in inside.removesuffix(",").split(",")] if inside else []
        count = len(items) if isinstance(items, list | tuple) else -1
        if count != len(self.kinds) and not (self.repeated and count >= 0):
            many = "values" if self.repeated else f"{len(self.kinds)} values"
            raise ValueError(f"{name} needs {many} in parentheses, such as (1,2), got {_short(value)}")
        kinds = self.kinds * count if self.repeated else self.kinds
        return self.make(x if k is None else convert(name, x, k) for x, k in zip(items, kinds, strict=True))


def _row(parameter: inspect.Parameter) -> _Row | None:
    """The tuple or list that text for `parameter` is converted to; None if it is neither."""
    names = [name for name in _alternatives(parameter.annotation) if name != "None"]
    match = _ROW.fullmatch(names[0]) if len(names) == 1 else None
    default = parameter.default
    if match is None and not (parameter.annotation is parameter.empty and type(default) in (list, tuple)):
        return None
    make = {"list": list, "tuple": tuple}.get(match["make"].lower() if match else "", type(default))
    inside = [part.strip() for part in match["inside"].split(",")] if match and match["inside"] else []
    if not inside:
        kinds = {type(x) for x in default} if isinstance(default, list | tuple) else set()
        return _Row(make, [kinds.pop() if len(kinds) == 1 and kinds <= {*KINDS.values()} else None], True)
    repeated = make is list or inside[-1] == "..."
    return _Row(make, [KINDS.get(name) for name in inside if name != "..."], repeated)


def _alternatives(annotation: Any) -> list[str]:
    """The names of the types that `annotation`, which may be text, allows."""
    if not isinstance(annotation, str):
        plain_type = isinstance(annotation, type) and get_origin(annotation) is None
        annotation = annotation.__name__ if plain_type else repr(annotation)
    inside = re.sub(r"\b(?:typing|collections\.abc|builtins)\.|\s", "", annotation)
    inside = re.sub(r"^Optional\[(.*)\]$", r"\1|None", inside)
    inside = re.sub(r"^Union\[(.*)\]$", lambda m: re.sub(_BETWEEN, "|", m[1]), inside)
    return ["None" if name == "NoneType" else name for name in inside.split("|")]
