"""Tables for a terminal, which leave out their least important columns where it is narrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table

_UNLIMITED = 10_000
_BROKEN = 24
"""Columns that a cell of words has at least, if it needs them."""
_ROOMY = 100
"""Columns of a terminal from which on a table has lines around its cells."""


class Fitting:
    """A table of text that fits the terminal.

    `names` are the headings and `rows` the cells below them. `expendable` names the columns to leave out, the
    least important first, until the rest fits; they are then named below the table. `words` names those that
    hold words, which are aligned left and broken into lines where they are long. Columns that are empty in
    every row are never shown.
    """

    def __init__(
        self,
        names: Sequence[str],
        rows: Sequence[Sequence[str]],
        expendable: Sequence[str] = (),
        words: Sequence[str] = (),
    ):
        used = [any(row[place] for row in rows) or not rows for place in range(len(names))]
        self.names = [name for name, some in zip(names, used, strict=True) if some]
        self.rows = [[cell for cell, some in zip(row, used, strict=True) if some] for row in rows]
        self.expendable = [name for name in expendable if name in self.names]
        self.words = words

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        names, dropped = list(self.names), []
        wide = options.update(max_width=_UNLIMITED)
        table = self._table(names, options.max_width)
        for name in self.expendable:
            if console.measure(table, options=wide).minimum <= options.max_width:
                break
            names.remove(name)
            dropped.append(name)
            table = self._table(names, options.max_width)
        yield table
        if dropped:
            yield Text(f"not shown, for want of width: {', '.join(dropped)}", style="dim")

    def _table(self, names: Sequence[str], width: int) -> Table:
        """The table of the columns `names` for a terminal of `width` columns."""
        from rich.box import HEAVY_HEAD, SIMPLE_HEAD
        from rich.table import Table

        roomy = width >= _ROOMY
        table = Table(box=HEAVY_HEAD if roomy else SIMPLE_HEAD, pad_edge=roomy, padding=(0, 1))
        for name in names:
            words = name in self.words
            place = self.names.index(name)
            longest = max([len(name), *(len(row[place]) for row in self.rows)])
            table.add_column(
                name,
                justify="left" if words else "right",
                no_wrap=not words,
                overflow="fold" if words else "ellipsis",
                min_width=min(_BROKEN, longest) if words else longest,
            )
        places = [self.names.index(name) for name in names]
        for row in self.rows:
            table.add_row(*(row[place] for place in places))
        return table
