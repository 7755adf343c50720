"""Samples that are read from a file."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import equinox as eqx
from beartype import beartype
from jaxtyping import jaxtyped

from hyperlax.hyperparams.fields import nearest
from hyperlax.hyperparams.samplers.base import AbstractDesign
from hyperlax.hyperparams.spaces import Space


@final
@jaxtyped(typechecker=beartype)
class SamplesFile(AbstractDesign):
    """The samples of a csv, json (list of objects) or parquet file whose columns are dotted paths, in order.

    A column `sample` contains ids; hyperparameters of empty cells have their defaults. `known` are the paths
    that are allowed as columns. Raises `ValueError` for other columns, for repeated ids and for an empty
    file, and `FileNotFoundError` for a missing file.
    """

    path: Path = eqx.field(static=True, kw_only=True)
    records: Sequence[Mapping[str, Any]] = eqx.field(static=True, kw_only=True)
    chosen_by: ClassVar[str] = "samples"

    def __init__(self, path: Path, known: Sequence[str]):
        self.path, self.records = path, _read(path, known)
        super().__init__({}, 0, len(self.records))

    def rows(self, first: int, last: int) -> list[dict[str, Any]]:
        return [dict(record) for record in self.records[first:last]]

    @classmethod
    def sized(cls, space: Mapping[str, Space], seed: int, n: int, **options: Any) -> SamplesFile:
        raise ValueError("a samples file is chosen by its path: samples=..., or --load-hyperparams")


def _read(path: Path, known: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a samples file, without empty cells."""
    if not path.is_file():
        raise FileNotFoundError(f"samples file {path} does not exist")
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file))
    elif path.suffix == ".json":
        rows = json.loads(path.read_text())
    elif path.suffix == ".parquet":
        import polars as pl

        rows = pl.read_parquet(path, glob=False).to_dicts()
    else:
        raise ValueError(f"samples file {path} must end in .csv, .json or .parquet")
    if not rows:
        raise ValueError(f"samples file {path} holds no samples")
    columns = dict.fromkeys(name for row in rows for name in row)
    for name in columns:
        if name not in (*known, "sample", "matrix"):
            raise ValueError(f'samples file {path}: unknown column "{name}"{nearest(name, known)}')
    records = [{k: v for k, v in row.items() if v not in (None, "")} for row in rows]
    ids = [int(row.get("sample", i)) for i, row in enumerate(records)]
    if len(set(ids)) < len(ids):
        raise ValueError(f"samples file {path}: the ids in column sample are not unique")
    return records
