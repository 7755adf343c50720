"""The entry point of the command line: listens to signals before anything that takes time is imported."""

from __future__ import annotations

import gc
import logging
import os
import sys
from typing import Any, NoReturn

from hyperlax import leaving

USAGE = 2


def main(argv: list[str] | None = None) -> None:
    """Entry point of `hyperlax` and `python -m hyperlax`; exits with the codes of the help.

    With `argv` it runs inside of another program, whose signal handlers are restored.
    """
    with leaving.watched(to_the_end=argv is None):
        gc.set_threshold(50_000, 20, 50)  # tracing makes millions of objects that stay, and few cycles
        code = _run(sys.argv[1:] if argv is None else argv)
        if code in (leaving.INTERRUPTED, leaving.OUT_OF_TIME):
            _leave(code)
    sys.exit(code)


def _run(tokens: list[str]) -> int:
    """The exit code of the command in `tokens`."""
    from hyperlax.commands.app import app, booleans

    try:
        return app(booleans(tokens), exit_on_error=True, result_action="return_value") or 0
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    except SystemExit as error:
        return USAGE if error.code == 1 else int(error.code or 0)


def _leave(code: int) -> NoReturn:
    """Exits without waiting for a compilation that may still run in another thread; everything is saved."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def __getattr__(name: str) -> Any:
    """`app`, the commands, which are imported when they are asked for."""
    if name == "app":
        from hyperlax.commands.app import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
