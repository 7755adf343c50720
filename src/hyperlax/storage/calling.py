"""Commands to suggest: they call the program as it was called, so that they work in any folder."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

COMMANDS = (
    *("run-single-hp", "sweep-hp-samples", "optuna-hp-search", "run-benchmark", "plot-benchmark", "compare"),
    *(
        "figure",
        "export",
        "export-policy",
        "check",
        "describe",
        "play",
        "status",
        "submit",
        "merge",
        "cancel",
    ),
    *("unit", "inspect-circuit", "generate-hp-samples", "new", "list"),
)
"""The names of all commands."""
_BY_UV = "UV"
"""The environment variable that uv sets for the programs that it runs."""
_COMMAND = re.compile(rf"(?<!-m )(?<![\w./-])hyperlax ({'|'.join(COMMANDS)})(?![\w-])")


def program() -> str:
    """The words with which this program was called: `hyperlax`, its path, or `python -m hyperlax`.

    The short name is used only where the shell would find this program by it, and for programs that call
    hyperlax from Python.
    """
    called = Path(sys.argv[0]) if sys.argv and sys.argv[0] else Path("hyperlax")
    if called.name == "__main__.py" and called.parent.name == "hyperlax":
        return f"{_shortest(Path(sys.executable))} -m hyperlax"
    if called.stem == "hyperlax" and called.exists():
        return _shortest(called.absolute())
    return "hyperlax"


def line(*words: object) -> str:
    """The command line that passes `words`, among them no relative paths, to this program in any folder."""
    return f"{program()} {shlex.join(map(str, words))}"


def here(*words: object) -> str:
    """The same for words that may name files relative to the current folder, which it goes to first."""
    return f"cd {shlex.quote(str(Path.cwd()))} && {line(*words)}"


def as_called(words: str) -> str:
    """A message in which commands are named plainly, `hyperlax list`, with the program as it was called.

    The name of the program in prose stays: only what is followed by one of `COMMANDS` is a command.
    """
    return _COMMAND.sub(lambda found: f"{program()} {found[1]}", words)


def _shortest(path: Path) -> str:
    """The name of an executable if the shell finds it by its name, else its path.

    `uv run` and `uvx` let a program find itself, and not the shell in which they were typed.
    """
    found = _BY_UV not in os.environ and shutil.which(path.name) == str(path)
    return path.name if found else shlex.quote(str(path))
