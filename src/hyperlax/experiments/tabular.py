"""A description as text for a terminal, as Markdown, and as HTML for a notebook."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping

import polars as pl

from hyperlax.storage.notebook import card


def as_text(kind: str, name: str, facts: Mapping[str, str], rows: pl.DataFrame) -> str:
    """The description for a terminal: facts, then one line per hyperparameter, as wide as the terminal.

    A star marks what is searched.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(file=io.StringIO(), highlight=False, markup=False, width=Console().width)
    console.print(f"{kind} {name}")
    about = Table(box=None, show_header=False, pad_edge=False)
    for fact, value in facts.items():
        about.add_row(fact, value)
    console.print(about)
    if rows.height:
        table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
        table.add_column("hyperparameter", overflow="fold", min_width=14)
        table.add_column("default", overflow="fold", min_width=7)
        table.add_column("searched * or accepted", overflow="fold", min_width=14)
        table.add_column("meaning [source]", overflow="fold", ratio=1)
        for row in rows.iter_rows(named=True):
            found = f"* {row['space']} ({row['scale']})" if row["searched"] else row["range"]
            table.add_row(row["name"], row["default"], found, f"{row['meaning']} [{row['source']}]")
        console.print(table)
    file = console.file
    assert isinstance(file, io.StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def as_markdown(kind: str, name: str, facts: Mapping[str, str], rows: pl.DataFrame) -> str:
    """The description as a section of a page of documentation."""
    lines = [f"## {kind} `{name}`", ""]
    lines += [f"* {fact}: {value}" for fact, value in facts.items()]
    if rows.height:
        heading = ("hyperparameter", "meaning", "default", "accepted", "searched", "scale", "source")
        lines += ["", _line(heading), _line("---" for _ in heading)]
        for row in rows.iter_rows(named=True):
            space = (row["space"], row["scale"]) if row["searched"] else ("not searched", "")
            cells = (row["meaning"], row["default"], row["range"], *space, row["source"])
            lines.append(_line([f"`{row['name']}`", *(cell.replace("|", "\\|") for cell in cells)]))
    return "\n".join([*lines, ""])


def as_html(kind: str, name: str, facts: Mapping[str, str], rows: pl.DataFrame) -> str:
    """The description as HTML for a notebook."""
    heading = ("hyperparameter", "meaning", "default", "accepted", "searched", "scale", "source")
    body = []
    for row in rows.iter_rows(named=True):
        space = (row["space"], row["scale"]) if row["searched"] else ("", "")
        body.append((row["name"], row["meaning"], row["default"], row["range"], *space, row["source"]))
    return card(facts, f"{kind} {name}", heading, body)


def _line(cells: Iterable[str]) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"
