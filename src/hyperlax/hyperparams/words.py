"""Search spaces in words, for tables that people read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hyperlax.hyperparams.spaces import Choice, Integers, Joint, LogUniform, Space, Uniform


def shown(value: Any) -> str:
    """A value of a hyperparameter as it can be typed: `0.0003`, `true`, or `tanh`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def extent(space: Space) -> str:
    """The values of a space: `1e-05 to 0.001`, or `16, 32, 64`."""
    if isinstance(space, Uniform | LogUniform | Integers):
        return f"{shown(space.low)} to {shown(space.high)}"
    if isinstance(space, Choice):
        return _listed(space.values)
    if isinstance(space, Joint):
        choices = "; ".join(_listed(choice) for choice in space.choices)
        return f"together {', '.join(space.paths)}: {choices}"
    return ", ".join(f"{name} {shown(value)}" for name, value in space.describe().items() if name != "type")


def scale(space: Space) -> str:
    """How the values of a space are spread: `linear`, `log`, `integers`, `choice` or what it calls itself."""
    if isinstance(space, Joint | Choice):
        return "choice"
    if isinstance(space, Integers):
        return "integers"
    if isinstance(space, Uniform | LogUniform):
        return "log" if space.log else "linear"
    return str(space.describe().get("type", type(space).__name__))


def varies(space: Space) -> bool:
    """Whether a space has more than one value."""
    if isinstance(space, Choice):
        return len(set(space.values)) > 1
    if isinstance(space, Joint):
        return len(set(space.choices)) > 1
    return not isinstance(space, Integers) or space.low < space.high


def _listed(values: Sequence[Any]) -> str:
    """Values separated by commas; of a long run of integers only the first and the last."""
    whole = all(isinstance(v, int) and not isinstance(v, bool) for v in values)
    if whole and len(values) > 4 and list(values) == list(range(values[0], values[-1] + 1)):
        return f"{values[0]}, {values[1]}, … {values[-1]}"
    return ", ".join(shown(value) for value in values)
