"""The commands of the command line. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import re
from typing import Any

from cyclopts import App
from cyclopts.exceptions import CycloptsError, UnknownOptionError

from hyperlax.commands import (
    benchmarking,
    cluster,
    comparing,
    describing,
    figures,
    looking,
    new,
    playing,
    preparing,
    searching,
    training,
)
from hyperlax.commands.screen import visible
from hyperlax.registry.spellings import alike


def refused(error: CycloptsError) -> Any:
    """The message for a command line that cannot be understood; it knows the flags of other programs."""
    from cyclopts import CycloptsPanel

    words = re.sub(r"^Invalid value for (--[a-z-]+): (?=\1 )", "", str(error))
    if isinstance(error, UnknownOptionError):
        typed = (error.token.keyword or error.token.value).partition("=")[0]
        flags = [name.lstrip("-") for argument in error.argument_collection for name in argument.names]
        name = typed.lstrip("-")
        words = f"Unknown option: {typed}."
        chain = error.command_chain or ("",)
        if found := alike(name, flags):
            words += f" Did you mean {' or '.join(f'--{flag}' for flag in found)}?"
        elif (instead := _INSTEAD.get((chain[0], name))) is not None:
            words += f" {instead}"
        elif others := _having(f"--{name}"):
            words += f" It is a flag of {' and '.join(others)}."
        elif "set" in flags:
            words += f" Hyperparameters and settings are given as --set {name}=VALUE."
    return CycloptsPanel(visible(words))


_INSTEAD = {
    ("run-single-hp", "num-samples"): "run-single-hp trains one sample, with the defaults of the recipe; "
    "sweep-hp-samples draws as many as --num-samples says.",
    ("optuna-hp-search", "num-samples"): "A search trains as many samples as --n-trials says.",
    (
        "optuna-hp-search",
        "search-only",
    ): "A search searches all that the recipe does: fix what it is to leave "
    "alone with --set path=value, and add to it with --range path=low,high.",
}
"""Command and flag that it lacks → what to do instead."""


def _having(flag: str) -> list[str]:
    """The commands that have a `flag`, in the order of the help."""
    commands = [name for name in app if not name.startswith("-") and app[name].default_command is not None]
    return [
        name for name in commands if any(flag in a.names for a in app[name].assemble_argument_collection())
    ]


app = App(
    name="hyperlax",
    help="Many reinforcement learning experiments in one compiled program.",
    help_epilogue="Recipes and environments: hyperlax list. Exit codes: 0 done, 1 something failed, "
    "2 usage, 3 work is left (status and submit), 75 stopped by SIGTERM, SIGHUP, SIGUSR1 or SIGUSR2 and "
    "130 by SIGINT, with the state saved, 76 taken over by another process.",
    version_flags=["--version"],
    help_format="plaintext",
    error_formatter=refused,
)

for command in (
    training.run_single_hp,
    training.sweep_hp_samples,
    searching.optuna_hp_search,
    benchmarking.run_benchmark,
    looking.plot_benchmark,
    comparing.compare,
    figures.figure,
    looking.export,
    looking.check,
    describing.describe,
    playing.play,
    playing.export_policy,
    cluster.status,
    cluster.submit,
    cluster.merge,
    cluster.cancel,
    cluster.unit,
    preparing.inspect_circuit,
    preparing.generate_hp_samples,
    new.new,
):
    app.command(command)
app.command(preparing.list_names, name="list")


def booleans(tokens: list[str]) -> list[str]:
    """Rewrite `--flag True`, which earlier versions accepted, as `--flag=True`."""
    joined: list[str] = []
    for token in tokens:
        if token.lower() in ("true", "false") and joined and re.fullmatch(r"--[a-z][a-z-]*", joined[-1]):
            joined[-1] += f"={token}"
        else:
            joined.append(token)
    return joined
