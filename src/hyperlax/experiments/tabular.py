"""A description as text for a terminal, as Markdown, and as HTML for a notebook."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Iterator, Mapping

import polars as pl

from hyperlax.storage.notebook import card

_TABULAR = 60
"""Columns of a terminal from which on default and values stand in columns."""


def as_text(kind: str, name: str, facts: Mapping[str, str], rows: pl.DataFrame) -> str:
    """The description for a terminal: facts, then every hyperparameter, in lines of the terminal's width.

    A star marks what is searched.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(file=io.StringIO(), highlight=False, markup=False, width=Console().width)
    console.print(f"{kind} {name}")
    about = Table(box=None, show_header=False, pad_edge=False)
    for fact, value in facts.items():
        about.add_row(fact, value)
    console.print(about)
    if rows.height:
        console.print()
        for line in _entries(rows, console.width):
            console.print(line, soft_wrap=True)
    file = console.file
    assert isinstance(file, io.StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def _entries(rows: pl.DataFrame, width: int) -> Iterator[str]:
    """The hyperparameters in lines of `width`: each with default and values, and below it what it means."""
    shown = [
        (
            row["name"],
            row["default"],
            f"* {row['space']} ({row['scale']})" if row["searched"] else row["range"],
            f"{row['meaning']} [{row['source']}]",
        )
        for row in rows.iter_rows(named=True)
    ]
    first, second = (max(len(entry[place]) for entry in shown) for place in (0, 1))
    second = max(second, len("default"))
    heading = ("hyperparameter", "default", "searched * or accepted")
    roomy = width >= max(first + second + 24, _TABULAR)
    if roomy:
        yield f"{heading[0]:<{first}}  {heading[1]:<{second}}  {heading[2]}"
    else:
        yield from textwrap.wrap(f"{heading[0]} = {heading[1]}; {heading[2]}; meaning [source]", width)
    for name, default, values, meaning in shown:
        yield ""
        if roomy:
            start = f"{name:<{first}}  {default:<{second}}  "
            yield from textwrap.wrap(start + values, width, subsequent_indent=" " * len(start))
        else:
            yield from textwrap.wrap(f"{name} = {default}", width, subsequent_indent="    ")
            yield from _indented(values, width)
        yield from _indented(meaning, width)


def _indented(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent="    ", subsequent_indent="    ")


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
