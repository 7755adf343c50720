"""Removing folders, users and hosts of this machine from text that is meant to be shared."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_FOLDERS = re.compile(r"(?<![\w./~-])~?/(?:[^\s/'\"=:,]+/)+")
_ADDRESS = re.compile(r"\b(?!https?:)([a-z][a-z0-9+.-]*)://[^\s'\"/]*(?:[^\s'\"]*/)?([^\s'\"/]*)")
"""The address of a database or of a file: its scheme and what follows the last slash."""


def without_folders(value: str) -> str:
    """Shorten absolute paths in `value` to their last component: `/home/me/results/run` becomes `…/run`.

    The addresses of databases keep their scheme and last component.
    """
    if "/" not in value:
        return value
    return _FOLDERS.sub("…/", _ADDRESS.sub(r"\1://…/\2", value) if "://" in value else value)


def shareable(value: Any) -> Any:
    """`value`, which is JSON-ready, with `without_folders` applied to every text in it."""
    if isinstance(value, str):
        return without_folders(value)
    if isinstance(value, Mapping):
        return {key: shareable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [shareable(entry) for entry in value]
    return value


def shareable_command(command: Sequence[str]) -> list[str]:
    """A command line that can be passed on: absolute paths below the current folder become relative to it.

    Others are shortened to their last component, and so is the program itself.
    """
    return [Path(word).name if place == 0 else _argument(word) for place, word in enumerate(command)]


def _argument(word: str) -> str:
    flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    path = Path(value)
    if not path.is_absolute() and not value.startswith("~/"):
        return f"{flag}{equals}{without_folders(value)}"
    if path.is_relative_to(here := Path.cwd()):
        return f"{flag}{equals}{path.relative_to(here)}"
    return f"{flag}{equals}…/{path.name}"
