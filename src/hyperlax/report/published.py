"""Published results, read from files.

Published results come by cell, that is by environment, algorithm and network: either as one row of statistics
per cell, or as a table with every sample of a cell.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import polars as pl

from hyperlax.hyperparams.tables import Table, read_table
from hyperlax.statistics import HEADLINES
from hyperlax.statistics.headline import PUBLISHED

COLUMNS = {
    "best": "best_peak",
    "top 5 IQM": "top5_iqm_peak",
    "median": "median_peak",
    "q25": "q25_peak",
}
"""Maps each statistic over the scores of a cell's samples to its column in a published table.

A table that this package has written (`comparison.csv`) names the statistics as they are, and its metric.
"""
_SUMMARY_NAME = re.compile(
    r"(?P<env>.+)_(?P<algorithm>[a-z0-9]+)-(?P<network>[a-z0-9_-]+?)_summary\.csv", re.I
)
_ID_COLUMNS = ("hp_id", "sample_id", "sample")
"""Columns that may hold sample ids, in order of preference.

The first that is present identifies the sample whose returns a row holds, the second, if there is one, the
sample whose hyperparameters it holds. The two differ in the published summaries of DQN on CartPole.
"""
_COUNTS = ("evaluated", "samples")
"""Columns that may hold the number of samples of a cell, in order of preference."""

STEPS, EVALUATIONS = 5_000_000, 40
"""The env steps of the published experiments, and how often the published protocol evaluates within them."""


class Cell(NamedTuple):
    """A combination of environment, algorithm and network, in a normalised spelling."""

    env: str
    algorithm: str
    network: str

    @staticmethod
    def of(env: str, algorithm: str, network: str) -> Cell:
        """Return the cell with its names in lower case, without outer spaces, and with `_` instead of `-`."""
        return Cell(*(name.strip().lower().replace("-", "_") for name in (env, algorithm, network)))

    def __str__(self) -> str:
        return f"{self.algorithm}_{self.network} on {self.env}"


@dataclass(frozen=True)
class Published:
    """Published results by cell, as statistics or as tables of samples.

    - `cells`: the statistics named in `COLUMNS`, NaN if missing, and the number of samples, 0 if unknown.
    - `samples`: tables with the columns `sample`, `peak` (null if the sample diverged) and the
      hyperparameters as they were published.
    - `metric`: the headline metric of all of them.
    """

    cells: dict[Cell, tuple[dict[str, float], int]] = field(default_factory=dict)
    samples: dict[Cell, pl.DataFrame] = field(default_factory=dict)
    metric: str = PUBLISHED

    def names(self) -> list[Cell]:
        """Return all cells with published results, sorted."""
        return sorted({*self.cells, *self.samples})


def read_published(path: Path) -> Published:
    """Read published results from a CSV file or from all CSV files of a folder.

    A file is either a table with one row per cell, with the columns env, algo, network, samples and any of
    best_peak, top5_iqm_peak, median_peak and q25_peak; or a comparison.csv; or the summary of one cell with
    one row per sample, named <env>_<algo>-<network>_summary.csv, with the columns "peak return" and "sample
    id" or "hp id". Raises ValueError for anything else, and for files of several metrics.
    """
    if not path.exists():
        raise ValueError(f"the published table {path} does not exist")
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".csv")
    if not files:
        raise ValueError(f"{path} holds no .csv file to compare with")
    found = Published()
    metrics = {metric: file for file in files for metric in _read(file, found)}
    if len(metrics) > 1:
        said = ", ".join(f"{metric} in {file.name}" for metric, file in metrics.items())
        raise ValueError(
            f"{path} holds tables of several metrics: {said}; compare with one of them at a time"
        )
    return replace(found, metric=next(iter(metrics)))


def other_schedule(samples: pl.DataFrame) -> str:
    """Explain why the published returns of `samples` are not those of the protocol; return "" if they may be.

    The protocol evaluates a sample with the first cycle that reaches a multiple of an interval of env steps,
    so that its peak lies less than one cycle beyond such a multiple. Of the published cells, all peaks of 27
    do, and about one in six of the other three, DQN on CartPole: those were evaluated more often, and a peak
    is the larger the more evaluations it is the largest of. Tables without the columns "peak timestep",
    "total num envs" and "rollout length" cannot be judged.
    """
    columns = ("peak_timestep", "total_num_envs", "rollout_length")
    if not all(name in samples.columns and samples[name].dtype.is_numeric() for name in columns):
        return ""
    steps, envs, rollout = (pl.col(name).cast(pl.Float64) for name in columns)
    interval = STEPS // EVALUATIONS
    known = samples.select(steps=steps, cycle=envs * rollout).filter(pl.col("steps") > 0)
    beyond = known.filter((pl.col("steps") < STEPS) & (pl.col("steps") % interval >= pl.col("cycle")))
    if beyond.is_empty():
        return ""
    return (
        f"{len(beyond)} of {len(known)} peaks lie at env steps where the published protocol, which evaluates "
        f"every {interval:,}, does not evaluate"
    )


def _read(file: Path, found: Published) -> list[str]:
    """Add the published results in `file` to `found`, and return the metrics that they are of."""
    try:
        table = read_table(file)
    except ValueError as error:
        raise ValueError(f"{file} is not a readable CSV table: {error}") from error
    if not table.rows:
        raise ValueError(f"{file} holds no row to compare with")
    names = {name: name.strip().lower().replace(" ", "_") for name in table.columns}
    for name, meant in names.items():
        if other := [n for n, m in names.items() if m == meant and n != name]:
            raise ValueError(
                f'{file}: the columns "{name}" and "{other[0]}" are the same; remove one of them'
            )
    frame = pl.DataFrame({meant: _column(table, name) for name, meant in names.items()}, strict=False)
    if {"env", "algo", "network"} <= set(frame.columns):
        for cell, values in _cells(file, frame).items():
            if cell in found.cells:
                raise ValueError(f"{file}: {cell} is in the published tables twice; remove one of them")
            found.cells[cell] = values
        return _metrics(file, frame)
    ids = [name for name in _ID_COLUMNS if name in frame.columns]
    name = _SUMMARY_NAME.fullmatch(file.name)
    if not ids or "peak_return" not in frame.columns:
        raise ValueError(
            f"{file} is neither a table with one row per environment, algorithm and network (columns env, "
            "algo, network, best_peak, …) nor a summary with one row per sample (columns "
            '"sample id", "peak return")'
        )
    if name is None:
        raise ValueError(
            f"the name of {file.name} does not say which results it holds; rename it to "
            "<env>_<algo>-<network>_summary.csv"
        )
    for column in (*ids, "peak_return"):
        _check_numbers(file, frame, column, whole=column != "peak_return")
    if (twice := frame[ids[0]].is_duplicated()).any():
        again = frame[ids[0]].filter(twice)[0]
        raise ValueError(
            f"{file}: the sample {again:.0f} in column {ids[0]} is there twice; remove one of them"
        )
    peak = pl.col("peak_return").cast(pl.Float64).fill_nan(None)
    peaks = frame.select(pl.col(ids[0]).cast(pl.Int64).alias("sample"), peak.alias("peak"))
    own = pl.col(ids[1] if len(ids) > 1 else ids[0]).cast(pl.Int64).alias("sample")
    values = frame.with_columns(own).unique("sample", maintain_order=True)
    found.samples[Cell.of(**name.groupdict())] = peaks.join(values, on="sample", how="left")
    return [PUBLISHED]


def _metrics(file: Path, frame: pl.DataFrame) -> list[str]:
    """Return the metrics that a table with one row per cell is of; raise `ValueError` for an unknown one."""
    names = frame["metric"].unique().to_list() if "metric" in frame.columns else [PUBLISHED]
    for name in names:
        if name not in HEADLINES:
            raise ValueError(f"{file}: the metric {name!r} is not known; known: {', '.join(HEADLINES)}")
    return names


def _cells(file: Path, frame: pl.DataFrame) -> dict[Cell, tuple[dict[str, float], int]]:
    """Return the statistics and the number of samples of every cell in a table with one row per cell."""
    written = {name: name.replace(" ", "_").lower() for name in COLUMNS}
    names = written if "metric" in frame.columns else COLUMNS
    known = {name: column for name, column in names.items() if column in frame.columns}
    if not known:
        raise ValueError(f"{file} has none of the columns {', '.join(COLUMNS.values())}")
    counts = [name for name in _COUNTS if name in frame.columns]
    for column in (*known.values(), *counts):
        _check_numbers(file, frame, column)
    found = {}
    for row in frame.iter_rows(named=True):
        if empty := [name for name in ("env", "algo", "network") if row[name] is None]:
            raise ValueError(f"column {empty[0]} of {file} has an empty cell; say what the row is of")
        values = {name: _number(row.get(column)) for name, column in names.items()}
        if wrong := [name for name in counts if row[name] is not None and not _is_count(row[name])]:
            raise ValueError(f"column {wrong[0]} of {file} holds something that is not a number of samples")
        cell = Cell.of(str(row["env"]), str(row["algo"]), str(row["network"]))
        if cell in found:
            raise ValueError(f"{file}: {cell} is in the table twice; remove one of them")
        found[cell] = values, int(next((row[name] for name in counts if row[name]), 0))
    return found


def _column(table: Table, name: str) -> list[float | None] | list[str | None]:
    """The cells of a column as numbers, if all that are not empty are numbers; otherwise as they are."""
    cells = [None if row[name] == "" else row[name] for row in table.rows]
    try:
        return [None if cell is None else float(cell) for cell in cells]
    except ValueError:
        return cells


def _check_numbers(file: Path, frame: pl.DataFrame, column: str, whole: bool = False) -> None:
    """Raise `ValueError` for a column with anything but finite numbers; `whole`: for any but ids, too."""
    cells = frame[column]
    if not cells.dtype.is_numeric() and cells.null_count() < len(cells):
        raise ValueError(f"column {column} of {file} holds something that is not a number")
    if whole and any(cell is None or not _is_count(cell) for cell in cells):
        raise ValueError(f"column {column} of {file} holds something that is not the id of a sample")
    if any(cell is not None and math.isinf(cell) for cell in cells):
        raise ValueError(
            f"column {column} of {file} holds an infinite number; leave the cell empty if there is none"
        )


def _is_count(cell: float) -> bool:
    """Whether a number is an id or a number of samples: an integer that floats hold exactly."""
    return 0 <= cell <= 2**53 and float(cell).is_integer()


def _number(value: float | int | None) -> float:
    return float("nan") if value is None else float(value)
