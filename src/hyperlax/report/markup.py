"""Building blocks of HTML: tables, lists of facts, sections, and escaped text."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from hyperlax.report.charts.style import text
from hyperlax.storage.shareable import without_folders

_MAX_UNFILTERED = 8
"""Number of rows up to which a table needs no field to filter them."""


def public(value: Any) -> str:
    """Format `value` as text that is safe in HTML and does not reveal the folders of this machine."""
    return html.escape(without_folders(text(value)))


def facts(entries: Mapping[str, Any]) -> str:
    """Return a grid of named values as HTML; values that are None are left out."""
    shown = {name: value for name, value in entries.items() if value is not None}
    items = "".join(f"<div><dt>{public(n)}</dt><dd>{public(v)}</dd></div>" for n, v in shown.items())
    return f'<dl class="facts">{items}</dl>'


def table(frame: pl.DataFrame, name: str, note: str = "", filtered: bool | None = None) -> str:
    """Return `frame` as a sortable HTML table with id `name`, preceded by `note`.

    Rows with a `sample` can be clicked to select that sample on the whole page. A field to filter the rows is
    added if `filtered` is true, or if it is None and the table is long.
    """
    columns = {column: _heading(column) for column in frame.columns}
    numeric = {column for column in frame.columns if frame[column].dtype.is_numeric()}
    head = "".join(
        f'<th{_alignment(column in numeric)}><button type="button">{html.escape(label)}</button></th>'
        for column, label in columns.items()
    )
    rows = "".join(_row(row, numeric) for row in frame.iter_rows(named=True))
    tool = ""
    if filtered or (filtered is None and len(frame) > _MAX_UNFILTERED):
        hint = html.escape("filter, e.g.  relu gamma>0.95")
        tool = (
            f'<div class="tool"><input type="search" data-filters="{name}" '
            f'placeholder="{hint}" aria-label="filter">'
            f"<output>{len(frame)} of {len(frame)}</output></div>"
        )
    caption = f'<p class="note">{note}</p>' if note else ""
    return (
        f'{caption}{tool}<div class="scroll"><table class="sortable" id="{name}">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def pairs(entries: Mapping[str, Any], heading: Sequence[str], name: str) -> str:
    """Return a mapping as a two-column HTML table with id `name`."""
    columns = {heading[0]: list(entries), heading[1]: [text(value) for value in entries.values()]}
    return table(pl.DataFrame(columns, schema=dict.fromkeys(heading, pl.String)), name)


def section(anchor: str, heading: str, body: str) -> str:
    """Return a section with id `anchor`; the heading is escaped, the body is inserted as it is."""
    return f'<section id="{anchor}"><h2>{html.escape(heading)}</h2>{body}</section>'


def _row(row: Mapping[str, Any], numeric: set[str]) -> str:
    mark = f' data-sample="{html.escape(str(row["sample"]))}"' if row.get("sample") is not None else ""
    return f"<tr{mark}>" + "".join(_cell(row[c], c in numeric) for c in row) + "</tr>"


def _cell(value: Any, number: bool) -> str:
    if not number:
        return f"<td>{public(value)}</td>"
    exact = "" if value is None else repr(value)
    return f'<td class="number" data-value="{html.escape(exact)}">{public(value)}</td>'


def _alignment(number: bool) -> str:
    return ' class="number"' if number else ""


def _heading(column: str) -> str:
    """Return the heading of a column: underscores become spaces, except in dotted hyperparameter names."""
    return column if "." in column else column.replace("_", " ")
