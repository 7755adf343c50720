"""Reading what a folder holds: one experiment, or all those of a benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from hyperlax.storage import reading
from hyperlax.storage.places import as_typed
from hyperlax.storage.results import Results
from hyperlax.typecheck import public

Table = Literal["samples", "lanes", "curves", "episodes"]


@dataclass(frozen=True, repr=False)
class Experiments(Mapping[str, Results]):
    """The experiments below a folder, such as those of a benchmark, by their paths below it.

    `experiments["ppo_mlp/gymnax.cartpole"]` is the `Results` of one; `samples`, `lanes`, `curves` and
    `episodes` are the tables of all, one below the other, with the columns `cell` (the path), `recipe` and
    `env` before the others. A column that an experiment does not have is null in its rows.
    """

    folder: Path
    cells: Mapping[str, Results]

    def __getitem__(self, cell: str) -> Results:
        if cell not in self.cells:
            raise KeyError(f"{cell}; there are {', '.join(self.cells)}")
        return self.cells[cell]

    def __iter__(self) -> Iterator[str]:
        return iter(self.cells)

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def samples(self) -> pl.DataFrame:
        """The hyperparameters of all samples; a column whose types differ holds text."""
        return self._table("samples")

    @property
    def lanes(self) -> pl.DataFrame:
        """All lanes."""
        return self._table("lanes")

    @property
    def curves(self) -> pl.DataFrame:
        """All learning curves."""
        return self._table("curves")

    @property
    def episodes(self) -> pl.DataFrame:
        """All evaluation episodes."""
        return self._table("episodes")

    def _table(self, name: Table) -> pl.DataFrame:
        frames = []
        for cell, results in self.cells.items():
            manifest, frame = results.manifest, getattr(results, name)
            about = {"cell": cell, "recipe": manifest.get("recipe"), "env": manifest.get("env")}
            labels = [pl.lit(value, pl.String).alias(column) for column, value in about.items()]
            frames.append(frame.select(*labels, pl.all()))
        kinds: dict[str, set[Any]] = {}
        for frame in frames:
            for column, kind in frame.schema.items():
                kinds.setdefault(column, set()).add(kind)
        mixed = {c for c, found in kinds.items() if len(found) > 1 and not all(k.is_numeric() for k in found)}
        as_text = [
            frame.with_columns(
                pl.Series(c, [None if v is None else str(v) for v in frame[c].to_list()], dtype=pl.String)
                for c in frame.columns
                if c in mixed
            )
            for frame in frames
        ]
        return pl.concat(as_text, how="diagonal_relaxed")

    def summary(self) -> dict[str, str]:
        """What every experiment is and how far it has come, by its path."""
        return {cell: _line(results.summary()) for cell, results in self.cells.items()}

    def __repr__(self) -> str:
        lines = (f"  {cell}: {said}" for cell, said in self.summary().items())
        return "\n".join([f"Experiments: {len(self)} in {self.folder}", *lines])

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        from hyperlax.storage.notebook import card  # a template engine, in notebooks alone

        return card(self.summary())


def _line(facts: Mapping[str, str]) -> str:
    """The facts about one experiment in one line."""
    return "; ".join(facts[name] for name in ("samples", "lanes", "best last return") if name in facts)


@public
def read(folder: str | Path) -> Results | Any:
    """Read the experiment in `folder` or, if it holds none itself, all those below, as `Experiments`.

    Type checkers take what comes back for `Results` and, because the folder alone decides which it is, do not
    complain where it is used as `Experiments`.

    Experiments that are still running or were killed are read as well: their tables are those of the newest
    checkpoint, and empty if there is none yet.

    Raises `FileNotFoundError` when there is no experiment in the folder nor below, and `ValueError` when a
    file is damaged or missing, with the file and the way out.
    """
    root = as_typed(folder, "folder")
    try:
        return reading.read(root)
    except FileNotFoundError:
        try:
            below = reading.find(root)
        except ValueError:
            below = []
        if not below:
            raise
    cells = {found.relative_to(root).as_posix(): reading.read(found) for found in below}
    return Experiments(root, cells)
