"""Small pieces of HTML: tables, facts, and text that is safe to show."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from hyperlax.report.charts.style import text

_FOLDERS = re.compile(r"(?<![\w./~-])~?/(?:[^\s/'\"=:,]+/)+")

_SHORT = 8
"""Rows that are seen at a glance."""


def public(value: Any) -> str:
    """`value` as escaped text, folders of this machine replaced by an ellipsis."""
    return html.escape(without_folders(text(value)))


def without_folders(value: str) -> str:
    """`/home/me/results/run` → `…/run`: the last part of absolute paths."""
    return _FOLDERS.sub("…/", value)


def facts(entries: Mapping[str, Any]) -> str:
    """A grid of named values; those that are None are left out."""
    shown = {name: value for name, value in entries.items() if value is not None}
    items = "".join(f"<div><dt>{public(n)}</dt><dd>{public(v)}</dd></div>" for n, v in shown.items())
    return f'<dl class="facts">{items}</dl>'


def table(frame: pl.DataFrame, name: str, note: str = "", filtered: bool | None = None) -> str:
    """`frame` as a sortable table with id `name`; rows with a `sample` column take part in the selection.

    Long tables, or those that are to be `filtered`, have a field to filter rows by.
    """
    columns = {column: _name(column) for column in frame.columns}
    numeric = {column for column in frame.columns if frame[column].dtype.is_numeric()}
    head = "".join(
        f'<th{_right(column in numeric)}><button type="button">{html.escape(label)}</button></th>'
        for column, label in columns.items()
    )
    rows = "".join(_row(row, numeric) for row in frame.iter_rows(named=True))
    tool = ""
    if filtered or (filtered is None and len(frame) > _SHORT):
        hint = html.escape("filter, e.g.  relu gamma>0.95")
        tool = (
            f'<div class="tool"><input type="search" data-filters="{name}" '
            f'placeholder="{hint}" aria-label="filter">'
            f"<output>{len(frame)} of {len(frame)}</output></div>"
        )
    said = f'<p class="note">{note}</p>' if note else ""
    return (
        f'{said}{tool}<div class="scroll"><table class="sortable" id="{name}">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def pairs(entries: Mapping[str, Any], heading: Sequence[str], name: str) -> str:
    """A two-column table of a mapping."""
    columns = {heading[0]: list(entries), heading[1]: [text(value) for value in entries.values()]}
    return table(pl.DataFrame(columns, schema=dict.fromkeys(heading, pl.String)), name)


def section(anchor: str, heading: str, body: str) -> str:
    return f'<section id="{anchor}"><h2>{html.escape(heading)}</h2>{body}</section>'


def _row(row: Mapping[str, Any], numeric: set[str]) -> str:
    mark = f' data-sample="{row["sample"]}"' if row.get("sample") is not None else ""
    return f"<tr{mark}>" + "".join(_cell(row[c], c in numeric) for c in row) + "</tr>"


def _cell(value: Any, number: bool) -> str:
    if not number:
        return f"<td>{public(value)}</td>"
    exact = "" if value is None else repr(value)
    return f'<td class="number" data-value="{exact}">{public(value)}</td>'


def _right(number: bool) -> str:
    return ' class="number"' if number else ""


def _name(column: str) -> str:
    """Column names as words; dotted hyperparameter names stay as they are written in recipes."""
    return column if "." in column else column.replace("_", " ")
