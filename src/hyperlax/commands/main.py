"""The entry point of the command line: listens to signals before anything that takes time is imported."""

from __future__ import annotations

import gc
import logging
import os
import sys
from typing import Any, NoReturn

from hyperlax import leaving
from hyperlax.commands import screen
from hyperlax.storage import calling

USAGE = 2


def main(argv: list[str] | None = None) -> None:
    """Entry point of `hyperlax` and `python -m hyperlax`; exits with the codes that the help lists.

    With `argv` it runs inside another program, whose signal handlers are restored.
    """
    if argv is None:
        screen.keep_open()
    with leaving.watched(to_the_end=argv is None):
        gc.set_threshold(50_000, 20, 50)  # tracing makes millions of objects that stay, and few cycles
        code = _run(sys.argv[1:] if argv is None else argv)
        if code in (leaving.INTERRUPTED, leaving.OUT_OF_TIME, leaving.SUPERSEDED):
            _leave(code)
    sys.exit(code)


def _run(tokens: list[str]) -> int:
    """The exit code of the command in `tokens`."""
    from hyperlax.commands.app import app, booleans
    from hyperlax.commands.continuing import completed
    from hyperlax.storage.claims import Superseded

    try:
        return app(completed(booleans(tokens)), exit_on_error=True, result_action="return_value") or 0
    except ValueError as error:
        print(screen.visible(f"error: {calling.as_called(str(error))}"), file=sys.stderr)
        return USAGE
    except OSError as error:
        return _disk(error)
    except Superseded as why:
        print(why, file=sys.stderr)
        return leaving.SUPERSEDED
    except SystemExit as error:
        return USAGE if error.code == 1 else int(error.code or 0)
    except Exception as error:
        return _foreign(error)


def _foreign(error: Exception) -> int:
    """Print what went wrong in a user's own code, and return the exit code; raises any other error again."""
    from hyperlax.commands.ending import FAILED
    from hyperlax.registry import foreign

    failed = isinstance(error, RuntimeError) and isinstance(error.__cause__, ValueError)
    if os.environ.get("HYPERLAX_DEBUG") or not (failed or foreign.place(error)):
        raise error
    words = leaving.words_now()
    begun = words != leaving.NOTHING_BEGUN
    problem = calling.as_called(str(error)) if failed else foreign.explained(error)
    print(
        screen.visible(f"error: {problem}" + f"; {words}" * begun + "; HYPERLAX_DEBUG=1 shows the traceback"),
        file=sys.stderr,
    )
    return FAILED if begun else USAGE


def _disk(error: OSError) -> int:
    """Print what the disk has refused, and how to continue; return the exit code."""
    from hyperlax.commands.ending import FAILED
    from hyperlax.storage.patience import FULL

    problem = calling.as_called(str(error))
    if error.filename is not None:
        problem = f"{os.fsdecode(error.filename)}: {(error.strerror or 'cannot be used').lower()}"
    words = leaving.words_now()
    begun = words != leaving.NOTHING_BEGUN
    print(screen.visible(f"error: {problem}" + f"; {words}" * begun), file=sys.stderr)
    if not begun:
        return USAGE
    return leaving.OUT_OF_TIME if error.errno in FULL else FAILED


def _leave(code: int) -> NoReturn:
    """Exit without waiting for a compilation that may still run in another thread; everything is saved."""
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
