"""Code and shell commands that a planned sweep names, and whether this user has agreed to run them.

`sweep.json` is data, which anybody may have written. By itself it may name registered things only. Code in
files and modules, and text for the shell or Slurm, runs only if this user planned the sweep or trusts it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hyperlax.cluster.sweep import FILE, Sweep
from hyperlax.registry import location
from hyperlax.storage.files import cache_folder

OF_THE_SHELL = ("container", "bind", "setup", "sbatch_arg")
"""Options for Slurm that decide which commands run, and not only with which resources."""


def named(sweep: Sweep) -> list[str]:
    """The code and the text for the shell that a sweep names."""
    said = [sweep.asked, *([c.arguments, c.scheduler] for c in sweep.cells)]
    studies = dict.fromkeys(str(c.arguments["storage"]) for c in sweep.cells if c.arguments.get("storage"))
    code = dict.fromkeys(text for text in _texts(said) if location(text.partition("[")[0]) is not None)
    asked = sweep.slurm or {}
    return [
        *(text for text in code if text not in studies),
        *(f"--storage {url}" for url in studies),
        *(f"--{k.replace('_', '-')} {asked[k]}" for k in OF_THE_SHELL if asked.get(k)),
    ]


def remember(sweep: Sweep) -> None:
    """Record that this user planned the sweep, or trusts it, with its file as it is now."""
    if (place := _place(sweep.root)) is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()


def check(sweep: Sweep, trusted: bool = False) -> None:
    """Raise `ValueError` if a sweep names code that this user has neither planned nor `trusted`."""
    if trusted:
        return remember(sweep)
    place = _place(sweep.root)
    if (place is None or not place.exists()) and (found := named(sweep)):
        raise ValueError(
            f"{sweep.root / FILE} was not planned by you, as far as is known here, and would run "
            f"{', '.join(found)}; if you trust it, add --trust"
        )
    return None


def _texts(value: Any) -> Iterator[str]:
    """All texts inside of nested lists and mappings, their keys left out."""
    if isinstance(value, str):
        yield from (part for part in value.split("+") if part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)


def _place(root: Path) -> Path | None:
    """The file that records this user's trust in the sweep in `root`; None where nothing can be stored."""
    cache = cache_folder()
    if cache is None:
        return None
    return cache / "planned" / hashlib.sha256((root / FILE).read_bytes()).hexdigest()
