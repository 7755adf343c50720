"""Numbers of things, lists and durations, in words."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, thing: str) -> str:
    """Return "1 lane", "2 lanes"."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def duration(seconds: float, decimals: int = 0) -> str:
    """Return a duration in its two largest units: "12 s", "3 min 5 s", "2 h 5 min".

    Below a minute the seconds have so many `decimals`.
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.{decimals}f} s"


def listed(names: Sequence[str]) -> str:
    """Return "a", "a and b", "a, b and c"."""
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0]
