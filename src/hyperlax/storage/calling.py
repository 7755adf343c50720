"""Commands to type next: by the same program, so that they work in any folder and environment."""

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
"""The variable by which a program knows that uv has called it."""
_COMMAND = re.compile(rf"(?<!-m )(?<![\w./-])hyperlax ({'|'.join(COMMANDS)})(?![\w-])")


def program() -> str:
    """What calls this program as it was called: `hyperlax`, its path, or `python -m hyperlax`.

    A short name stands only for what the shell would find by it. A program that calls hyperlax is told the
    plain name.
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
