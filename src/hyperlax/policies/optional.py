"""Packages that hyperlax does without until what they are for is asked for."""

from __future__ import annotations

import importlib
from typing import Any


def needed(module: str, extra: str) -> Any:
    """The module of that name; raises `ValueError` with the way to install it if there is none.

    `extra` is the extra of hyperlax that brings it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            f'{module.partition(".")[0]} is not installed: pip install "hyperlax[{extra}]"'
        ) from error
