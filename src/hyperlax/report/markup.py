"""Building blocks of HTML: tables and lists of facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from hyperlax.report.charts.style import text
from hyperlax.report.templates import Markup, joined, piece

_MAX_UNFILTERED = 8
"""Number of rows up to which a table needs no field to filter them."""


def facts(entries: Mapping[str, Any]) -> Markup:
    """Return a grid of named values as HTML; values that are None are left out."""
    return piece("facts", {name: value for name, value in entries.items() if value is not None})


def notes(lines: Sequence[str]) -> Markup:
    """Return lines of small text as HTML."""
    return joined(*(piece("note", line) for line in lines))


def reasons(entries: Mapping[str, str]) -> Markup:
    """Return why some things are not shown, as one line of small text for each."""
    return notes([f"{name}: {reason}" for name, reason in entries.items()])


def table(frame: pl.DataFrame, name: str, note: str = "", filtered: bool | None = None) -> Markup:
    """Return `frame` as a sortable HTML table with id `name`, preceded by `note`.

    Rows with a `sample` can be clicked to select that sample on the whole page. A field to filter the rows is
    added if `filtered` is true, or if it is None and the table is long.
    """
    numeric = [frame[column].dtype.is_numeric() for column in frame.columns]
    columns = [(_heading(c), number) for c, number in zip(frame.columns, numeric, strict=True)]
    tool = filtered or (filtered is None and len(frame) > _MAX_UNFILTERED)
    shown = piece("table", name, columns, _rows(frame, numeric), len(frame), tool)
    return joined(piece("note", note) if note else "", shown)


def pairs(entries: Mapping[str, Any], heading: Sequence[str], name: str) -> Markup:
    """Return a mapping as a two-column HTML table with id `name`."""
    columns = {heading[0]: list(entries), heading[1]: [text(value) for value in entries.values()]}
    return table(pl.DataFrame(columns, schema=dict.fromkeys(heading, pl.String)), name)


def _rows(frame: pl.DataFrame, numeric: Sequence[bool]) -> Iterator[tuple[Any, list[tuple[Any, str | None]]]]:
    """Yield each row: its sample, if it has one, and every value with what it is sorted by, if a number."""
    place = frame.columns.index("sample") if "sample" in frame.columns else None
    for row in frame.iter_rows():
        exact = [
            ("" if value is None else repr(value)) if number else None
            for value, number in zip(row, numeric, strict=True)
        ]
        yield None if place is None else row[place], list(zip(row, exact, strict=True))


def _heading(column: str) -> str:
    """Return the heading of a column: underscores become spaces, except in dotted hyperparameter names."""
    return column if "." in column else column.replace("_", " ")
