"""Where in a user's own code an error comes from, and the error in one line."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from types import TracebackType

_LIBRARIES = (
    "hyperlax",
    "jax",
    "jaxlib",
    "equinox",
    "jaxtyping",
    "beartype",
    "numpy",
    "optax",
    "polars",
    "optuna",
    "gymnax",
    "brax",
    "mujoco",
    "cyclopts",
)
_LONGEST = 600
"""Characters of an error's text from which the rest is left out."""


def place(error: BaseException) -> str | None:
    """The innermost function of a user's own in the traceback: name, file and line; None if there is none."""
    found = _frames(error.__traceback__)
    if not found:
        return None
    name, file, line = found[-1]
    return f"{name} ({file}, line {line})"


def explained(error: BaseException) -> str:
    """The error in one line: where in a user's own code it was raised, its type and its first paragraph."""
    words = " ".join(str(error).partition("\n---")[0].partition("\n\n")[0].split())
    words = f"{words[:_LONGEST]} …" if len(words) > _LONGEST else words
    said = f"{type(error).__name__}: {words}" if words else type(error).__name__
    where = place(error)
    return f"{where}: {said}" if where else said


def _frames(trace: TracebackType | None) -> list[tuple[str, str, int]]:
    """The frames of a traceback that belong to no library: function, file and line."""
    libraries = [file for name in _LIBRARIES if (file := getattr(sys.modules.get(name), "__file__", None))]
    folders = [f"{Path(f).parent}/" for file in libraries for f in (file, Path(file).resolve())]
    standard = sysconfig.get_path("stdlib") + "/"
    found = []
    while trace is not None:
        code, file = trace.tb_frame.f_code, trace.tb_frame.f_code.co_filename
        own = not file.startswith(("<", *folders))
        if own and not (file.startswith(standard) and "site-packages" not in file) and not _launcher(file):
            name = getattr(code, "co_qualname", code.co_name).replace("<locals>.", "")
            found.append((name, file, trace.tb_lineno))
        trace = trace.tb_next
    return found


def _launcher(file: str) -> bool:
    """Whether it is the script that runs the command line, or a test runner."""
    return Path(file).name == "hyperlax" or any(part in file for part in ("/_pytest/", "/pluggy/"))
