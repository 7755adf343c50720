"""Designs: the columns of samples beside hyperparameters, and samples that differ in one hyperparameter."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from hyperlax.hyperparams.fields import Field
from hyperlax.registry import nearest

COLUMNS = ("sample", "matrix", "pair")
"""Columns of a table of samples that are not hyperparameters.

- `sample`: its number.
- `matrix`: its part in a sensitivity analysis.
- `pair`: the sample that it varies. Samples of one pair are trained with the same random keys.
"""

SCORED = (
    "rank",
    "score",
    "score_low",
    "score_high",
    "lowest_seed",
    "highest_seed",
    "fresh_return",
    "seeds",
    "seeds_done",
    "seeds_diverged",
    "recipe",
    "metric",
    "definition",
)
"""Columns of a leaderboard, beside which hyperparameters stand under their names."""

Ablations = Mapping[str, Sequence[Any]]
"""Dotted path → the values to compare, the first of which the others are compared with."""


def is_matrix(name: Any) -> bool:
    """Whether `name` is that of a matrix of a sensitivity analysis."""
    return isinstance(name, str) and (name in ("A", "B") or name.startswith("AB:"))


def parsed(pairs: Sequence[str]) -> dict[str, list[str]]:
    """The ablations of a command line, `path=value,value` each; raises `ValueError` for another form."""
    found: dict[str, list[str]] = {}
    for pair in pairs:
        path, equals, listed = (part.strip() for part in pair.partition("="))
        if not equals or not path or path in found:
            raise ValueError(f"--ablate needs path=value,value, each path once; got {pair!r}")
        found[path] = [value.strip() for value in listed.split(",")]
    return found


def ablated(
    rows: Sequence[Mapping[str, Any]],
    ablations: Ablations,
    known: Mapping[str, Field],
    fixed: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Every row once with each combination of values, as samples of one pair; what else a row says stays.

    Raises `ValueError` for an unknown hyperparameter, a value that it cannot have, fewer than two values, a
    path that is `fixed` as well, and rows of a design that pairs would destroy.
    """
    choices = []
    for path, given in ablations.items():
        if path not in known:
            raise ValueError(f'cannot ablate the unknown hyperparameter "{path}"{nearest(path, known)}')
        if path in fixed:
            raise ValueError(f"{path} cannot be ablated and set to {fixed[path]!r} at the same time")
        field = known[path]
        values = list(dict.fromkeys(field.decode(field.encode(value)) for value in given))
        if len(values) < 2:
            raise ValueError(
                f"an ablation of {path} compares two values or more, got {', '.join(map(str, given))}"
            )
        choices.append([(path, value) for value in values])
    if any("matrix" in row or "pair" in row for row in rows):
        raise ValueError("samples that have a matrix or a pair already cannot be ablated")
    numbers = [row.get("sample", place) for place, row in enumerate(rows)]
    whole = [
        {**row, **dict(chosen), "pair": number}
        for number, row in zip(numbers, rows, strict=True)
        for chosen in itertools.product(*choices)
    ]
    return [{**row, "sample": place} for place, row in enumerate(whole)]
