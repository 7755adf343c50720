"""Numbers of things, lists, durations and notes, in words."""

from __future__ import annotations

import re
from collections.abc import Sequence

MOST_SAMPLES = 8
"""The largest number of samples, or runs of consecutive ones, that a note names."""
_OF_SAMPLES = re.compile(r"samples? (?P<runs>[\d–, ]*\d)(?: and (?P<more>[\d,]+) more)?: ")


def counted(number: int, thing: str) -> str:
    """Return "1 lane", "2 lanes"."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def noted(notes: list[str], sample: int, problem: str) -> None:
    """Add to `notes` that a `sample` has a `problem`, in the note of other samples with the same, if any.

    A note names `MOST_SAMPLES` runs of samples at most, and counts the others: "samples 0–2, 5: ...".
    """
    for place, note in enumerate(notes):
        if note.endswith(f": {problem}") and (found := _OF_SAMPLES.match(note)) is not None:
            runs, more = found["runs"].split(", "), int((found["more"] or "0").replace(",", ""))
            first, _, last = runs[-1].partition("–")
            if not more and int(last or first) == sample - 1:
                runs[-1] = f"{first}–{sample}"
            elif len(runs) < MOST_SAMPLES and not more:
                runs.append(str(sample))
            else:
                more += 1
            others = f" and {more:,} more" if more else ""
            notes[place] = f"samples {', '.join(runs)}{others}: {problem}"
            return
    notes.append(f"sample {sample}: {problem}")


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
