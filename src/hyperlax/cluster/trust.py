"""Code and shell commands that a planned sweep names, and whether this user has agreed to run them.

`sweep.json` is data, which anybody may have written. By itself it may name registered things only. Code in
files and modules, and text for the shell or Slurm, runs only if this user planned the sweep or trusts it.
The same goes for databases, which are only connected to then.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hyperlax.cluster.sweep import Sweep
from hyperlax.registry import location
from hyperlax.storage.files import cache_folder
from hyperlax.storage.places import PLAN

OF_THE_SHELL = ("container", "bind", "setup", "sbatch_arg")
"""Options for Slurm that decide which commands run, and not only with which resources."""
_OF_A_FILE = re.compile(r"\.py\s*(?:[:+\[]|$)")
"""What the name of anything in a Python file holds, whatever stands before and behind it."""


def named(sweep: Sweep) -> list[str]:
    """The code, the databases and the text for the shell that a sweep names."""
    said = [sweep.asked, sweep.execution, *([c.mode, c.arguments, c.scheduler] for c in sweep.cells)]
    texts, storages = list(_texts(said)), list(dict.fromkeys(_storages(said)))
    asked = sweep.slurm or {}
    return [
        *dict.fromkeys(text for text in texts if text not in storages and _is_code(text)),
        *(f"--storage {url}" for url in storages),
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
            f"{sweep.root / PLAN} was not planned by you, as far as is known here, and would run "
            f"{', '.join(found)}; if you trust it, add --trust"
        )
    return None


def _is_code(text: str) -> bool:
    """Whether a text may name a thing in a file or a module: alone, in a pair, or with options behind it."""
    pair = text.partition("+")
    parts = [part.strip() for whole in (text, pair[0], pair[2]) for part in (whole, whole.partition("[")[0])]
    return bool(_OF_A_FILE.search(text)) or any(location(part) is not None for part in parts)


def _texts(value: Any) -> Iterator[str]:
    """All texts inside of nested lists and mappings, their keys left out."""
    if isinstance(value, str):
        yield value
    for part in _inside(value):
        yield from _texts(part)


def _storages(value: Any) -> Iterator[str]:
    """All addresses of databases and journals, which are called `storage`, inside of lists and mappings."""
    if isinstance(value, dict) and value.get("storage"):
        yield str(value["storage"])
    for part in _inside(value):
        yield from _storages(part)


def _inside(value: Any) -> Iterable[Any]:
    """What a list or a mapping holds; nothing for other values."""
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _place(root: Path) -> Path | None:
    """The file that records this user's trust in the sweep in `root`; None where nothing can be stored."""
    cache = cache_folder()
    if cache is None:
        return None
    return cache / "planned" / hashlib.sha256((root / PLAN).read_bytes()).hexdigest()
