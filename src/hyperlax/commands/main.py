"""The command line: parses, calls the Python API, prints. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import gc
import logging
import os
import re
import sys
from typing import NoReturn

from cyclopts import App

from hyperlax.commands import benchmarking, looking, new, preparing, searching, training
from hyperlax.commands.ending import INTERRUPTED, OUT_OF_TIME, SUPERSEDED
from hyperlax.storage.claims import Superseded

USAGE = 2

app = App(
    name="hyperlax",
    help="Many reinforcement learning experiments in one compiled program.",
    help_epilogue="Recipes and environments: hyperlax list. Exit codes: 0 done, 1 some lanes failed, "
    "2 usage, 75 out of time and 130 interrupted, both with the state saved, 76 taken over by another.",
    version_flags=["--version"],
    help_format="plaintext",
)

for command in (
    training.run_single_hp,
    training.sweep_hp_samples,
    searching.optuna_hp_search,
    benchmarking.run_benchmark,
    looking.plot_benchmark,
    looking.export,
    looking.check,
    preparing.inspect_circuit,
    preparing.generate_hp_samples,
    new.new,
):
    app.command(command)
app.command(preparing.list_names, name="list")


def main(argv: list[str] | None = None) -> None:
    """Entry point of `hyperlax` and `python -m hyperlax`; exits with the codes of the module's help."""
    gc.set_threshold(50_000, 20, 50)  # tracing makes millions of objects that stay, and few cycles
    tokens = _booleans(sys.argv[1:] if argv is None else argv)
    try:
        code = app(tokens, exit_on_error=True, result_action="return_value")
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = USAGE
    except Superseded as why:
        print(why, file=sys.stderr)
        code = SUPERSEDED
    except SystemExit as error:
        code = USAGE if error.code == 1 else error.code
    if code in (INTERRUPTED, OUT_OF_TIME, SUPERSEDED):
        _leave(code)
    sys.exit(code or 0)


def _leave(code: int) -> NoReturn:
    """Exits without waiting for a compilation that may still run in another thread; everything is saved."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _booleans(tokens: list[str]) -> list[str]:
    """`--flag True` as `--flag=True`, which is how it has always been typed."""
    joined: list[str] = []
    for token in tokens:
        if token.lower() in ("true", "false") and joined and re.fullmatch(r"--[a-z][a-z-]*", joined[-1]):
            joined[-1] += f"={token}"
        else:
            joined.append(token)
    return joined
