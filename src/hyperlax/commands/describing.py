"""The command that describes a recipe, an algorithm, a network or an environment."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from cyclopts import Parameter


def describe(
    name: Annotated[str | None, Parameter(help="Its name; without one every algorithm and network.")] = None,
    /,
    *,
    format: Literal["table", "json", "markdown"] = "table",
    run_length_modifier: str = "default",
) -> int:
    """Describe a recipe, algorithm, network or environment: every hyperparameter, with its meaning and range.

    Parameters
    ----------
    format
        A table for the terminal, JSON, or Markdown.
    run_length_modifier
        Describe a recipe as this run length trains it: quick, default, long, runtime_benchmark, or a number
        of environment steps.
    """
    from hyperlax.agents import AGENTS
    from hyperlax.experiments.description import describe as described
    from hyperlax.experiments.description import page
    from hyperlax.networks import NETWORKS

    names = [*AGENTS, *NETWORKS] if name is None else [name]
    found = [described(n, run_length_modifier) for n in names]
    if format == "json":
        content = [d.to_dict() for d in found]
        print(json.dumps(content[0] if name is not None else content, indent=2, ensure_ascii=False))
    elif format == "markdown":
        print(page(found), end="")
    else:
        print("\n\n".join(map(str, found)))
    return 0
