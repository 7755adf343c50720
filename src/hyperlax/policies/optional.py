"""Optional packages, imported only when a feature that needs them is used."""

from __future__ import annotations

import importlib
from typing import Any


def needed(module: str, extra: str) -> Any:
    """Import a module; raise `ValueError` with the way to install it if it is missing.

    `extra` is the extra of hyperlax that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            f"{module.partition('.')[0]} is not installed: "
            f'pip install ".[{extra}]" in the checkout of hyperlax'
        ) from error
