"""The commands of the command line. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import re

from cyclopts import App

from hyperlax.commands import benchmarking, looking, new, preparing, searching, training

app = App(
    name="hyperlax",
    help="Many reinforcement learning experiments in one compiled program.",
    help_epilogue="Recipes and environments: hyperlax list. Exit codes: 0 done, 1 some lanes failed, "
    "2 usage, 75 stopped by SIGTERM, SIGHUP, SIGUSR1 or SIGUSR2 and 130 by SIGINT, with the state saved, "
    "76 taken over by another process.",
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


def booleans(tokens: list[str]) -> list[str]:
    """`--flag True` as `--flag=True`, which is how it has always been typed."""
    joined: list[str] = []
    for token in tokens:
        if token.lower() in ("true", "false") and joined and re.fullmatch(r"--[a-z][a-z-]*", joined[-1]):
            joined[-1] += f"={token}"
        else:
            joined.append(token)
    return joined
