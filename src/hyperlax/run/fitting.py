"""Tables for a terminal, which leave out their least important columns where it is narrow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table

_BROKEN = 24
"""Columns that a cell of words has at least, if it needs them."""
_NARROW = 12
"""The same where the table does not fit otherwise."""
_ROOMY = 100
"""Columns of a terminal from which on a table has lines around its cells."""


class Fitting:
    """A table of text that fits the terminal.

    `names` are the headings and `rows` the cells below them. `expendable` names the columns to leave out, the
    least important first, until the rest fits; they are then named below the table. `words` names those that
    hold words, which are aligned left and broken into lines where they are long. Columns that are empty in
    every row are never shown. Where nothing else fits, every row is a list of its cells. `meanings` explains
    columns below the table, if they are shown.
    """

    def __init__(
        self,
        names: Sequence[str],
        rows: Sequence[Sequence[str]],
        expendable: Sequence[str] = (),
        words: Sequence[str] = (),
        meanings: Mapping[str, str] | None = None,
    ):
        used = [any(row[place] for row in rows) or not rows for place in range(len(names))]
        self.names = [name for name, some in zip(names, used, strict=True) if some]
        self.rows = [[cell for cell, some in zip(row, used, strict=True) if some] for row in rows]
        self.expendable = [name for name in expendable if name in self.names]
        self.words = words
        self.meanings = dict(meanings or {})

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        names, dropped, width = list(self.names), [], options.max_width
        for name in self.expendable:
            if self._least(names, width) <= width:
                break
            names.remove(name)
            dropped.append(name)
        broken = _BROKEN if self._least(names, width) <= width else _NARROW
        if self._least(names, width, broken) <= width:
            yield self._table(names, width, broken)
        else:
            dropped = []
            yield from self._lists()
        for name, meaning in self.meanings.items():
            if name in self.names and name not in dropped:
                yield Text(f"{name}: {meaning}", style="dim")
        if dropped:
            yield Text(f"not shown, for want of width: {', '.join(dropped)}", style="dim")

    def _lists(self) -> Iterator[RenderableType]:
        """Every row as lines of a heading and a cell, for a terminal that is narrower than any table."""
        from rich.text import Text

        for row in self.rows:
            named = zip(self.names, row, strict=True)
            yield Text("\n".join(f"{name}: {cell}" for name, cell in named if cell) + "\n", overflow="fold")

    def _cells(self, name: str, broken: int) -> int:
        """The columns that the cells of a heading need: those of words can be broken to `broken`."""
        place = self.names.index(name)
        longest = max([len(name), *(len(row[place]) for row in self.rows)])
        return min(broken, longest) if name in self.words else longest

    def _least(self, names: Sequence[str], width: int, broken: int = _BROKEN) -> int:
        """The columns that the table needs: its cells, the spaces around them, and the lines."""
        edges = 1 if width >= _ROOMY else -1
        return sum(self._cells(name, broken) for name in names) + 3 * len(names) + edges

    def _table(self, names: Sequence[str], width: int, broken: int = _BROKEN) -> Table:
        """The table of the columns `names` for a terminal of `width` columns.

        Cells of words have at least `broken` columns if they need them.
        """
        from rich.box import HEAVY_HEAD, SIMPLE_HEAD
        from rich.table import Table

        roomy = width >= _ROOMY
        table = Table(box=HEAVY_HEAD if roomy else SIMPLE_HEAD, pad_edge=roomy, padding=(0, 1))
        for name in names:
            words = name in self.words
            table.add_column(
                name,
                justify="left" if words else "right",
                no_wrap=not words,
                overflow="fold" if words else "ellipsis",
                min_width=self._cells(name, broken),
            )
        places = [self.names.index(name) for name in names]
        for row in self.rows:
            table.add_row(*(row[place] for place in places))
        return table
