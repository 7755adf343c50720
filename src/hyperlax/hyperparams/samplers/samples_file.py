"""Samples that are read from a file."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import equinox as eqx
from beartype import beartype
from jaxtyping import jaxtyped

from hyperlax.hyperparams import design
from hyperlax.hyperparams.fields import Field, nearest
from hyperlax.hyperparams.samplers.base import AbstractDesign
from hyperlax.hyperparams.spaces import Space
from hyperlax.hyperparams.tables import Table, read_table
from hyperlax.registry.limits import within


@final
@jaxtyped(typechecker=beartype)
class SamplesFile(AbstractDesign):
    """The samples of a csv, json or parquet file whose columns are dotted paths, in order.

    A column `sample` contains ids. `known` are the paths that are allowed as columns, with the fields that
    check their values if they are given. Notes on how the file was understood go to standard error. Raises
    `ValueError` for what cannot be understood (`checked_rows`), `FileNotFoundError` for a missing file.
    """

    path: Path = eqx.field(static=True, kw_only=True)
    records: Sequence[Mapping[str, Any]] = eqx.field(static=True, kw_only=True)
    chosen_by: ClassVar[str] = "samples"

    def __init__(self, path: Path, known: Mapping[str, Field] | Sequence[str]):
        self.path, table = path, read_table(path)
        self.records = checked_rows(table, known)
        super().__init__({}, 0, len(self.records))

    def rows(self, first: int, last: int) -> list[dict[str, Any]]:
        return [dict(record) for record in self.records[first:last]]

    @classmethod
    def sized(cls, space: Mapping[str, Space], seed: int, n: int, **options: Any) -> SamplesFile:
        raise ValueError("a samples file is chosen by its path: samples=..., or --load-hyperparams")


def checked_rows(table: Table, known: Mapping[str, Field] | Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a table of samples, whose columns are `known` hyperparameters or `design.COLUMNS`.

    Prints the notes of the table. Raises `ValueError` that names the source, and row and column where there
    are any, for no rows, an unknown column, an empty cell, a value that the hyperparameter cannot have, an id
    that is none or used twice, and a matrix that no sensitivity analysis has.
    """
    if not table.rows:
        raise ValueError(
            f"no samples were given: {table.source} holds no samples; leave it out for the defaults"
        )
    for name in table.columns:
        if name not in known and name not in design.COLUMNS:
            raise ValueError(f'{table.source}: unknown column "{name}"{nearest(name, known)}')
    used: dict[int, str] = {}
    for i, row in enumerate(table.rows):
        for name in table.columns:
            if name not in row and table.sparse:
                continue
            if row.get(name) in (None, ""):
                table.wrong(i, name, "the cell is empty; write a value, or leave out the column")
            try:
                if isinstance(known, Mapping) and name in known:
                    known[name].encode(row[name])
                elif name in ("sample", "pair"):
                    row[name] = within("sample", row[name], f"the {name} id")
                elif name == "matrix" and not design.is_matrix(row[name]):
                    raise ValueError(f"a matrix is A, B or AB:<hyperparameter>, got {row[name]!r}")
            except ValueError as error:
                table.wrong(i, name, str(error))
        number = row.get("sample", i)
        if (other := used.setdefault(number, table.places[i])) != table.places[i]:
            table.wrong(i, "sample", f"the ids are not unique: {number} is also in {other}")
    for note in table.notes:
        print(f"note: {note}", file=sys.stderr)
    return table.rows
