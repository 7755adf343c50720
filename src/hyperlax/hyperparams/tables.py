"""Tables that users provide: csv, json and parquet files, frames and lists, read by one reader.

What spreadsheets and other programs do to a table is either understood, with a note, or refused with file,
row and column; nothing is filled in.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from hyperlax.registry.limits import MOST_LANES
from hyperlax.registry.words import vanishes

MOST_ROWS, MOST_VALUES, MOST_BYTES = MOST_LANES, 5_000_000, 2**30
"""Rows and values of a table, and bytes of a file of text; a value takes up to a kilobyte as it is read."""
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_POINT_DECIMALS = re.compile(r"[+-]?\d{1,3}(,\d{3})+\.\d+")
_COMMA_DECIMALS = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d+),\d+([eE][+-]?\d+)?")
_AMBIGUOUS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")
_AMBIGUOUS_POINTS = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+")
"""Numbers whose points may separate thousands; looked for where other cells have decimal commas."""


@dataclass
class Table:
    """A table: its `rows` from column to value, their `places` in the `source`, and `notes` on reading it.

    `sparse`: whether rows may leave columns out, as dicts that somebody has written in Python do.
    """

    source: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sparse: bool = False

    @property
    def columns(self) -> list[str]:
        """The names of all columns, in order."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def wrong(self, row: int, column: str, why: str) -> NoReturn:
        """Raise `ValueError` that names the source, the row with index `row` and the column."""
        raise ValueError(f'{self.source}, {self.places[row]}, column "{column}": {why}')

    def add(self, row: Mapping[str, Any], place: str) -> None:
        """Add a row, unless all of its cells are empty, which is noted."""
        if row and all(_empty(value) for value in row.values()):
            self.notes.append(f"{self.source}: {place} is empty and skipped")
            return
        self.rows.append(dict(row))
        self.places.append(place)


def read_table(given: Any) -> Table:
    """The table in a csv, json or parquet file, a frame of polars or pandas, or a list of dicts.

    Raises `FileNotFoundError` for a missing file, and `ValueError` for what cannot be understood.
    """
    if not isinstance(given, (str, Path)):
        return _from_objects(given)
    path = Path(given).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"samples file {path} does not exist")
    readers = {".csv": _csv, ".tsv": _csv, ".json": _json, ".jsonl": _json, ".parquet": _parquet}
    if path.suffix.lower() not in readers:
        raise ValueError(f"samples file {path} must end in .csv, .json or .parquet")
    return readers[path.suffix.lower()](path)


def _from_objects(given: Any) -> Table:
    """The table of a frame, which is recognised by its methods, or of a list of dicts."""
    records = given
    if isinstance(given, int):
        raise ValueError(f"samples are a table, got {given!r}: num_samples says how many to draw")
    _refuse_many("samples", *getattr(given, "shape", (0,)))
    if callable(to_dicts := getattr(given, "to_dicts", None)):
        records = to_dicts()
    elif callable(to_dict := getattr(given, "to_dict", None)):
        records = to_dict(orient="records")
    return _records(records, Table("samples", sparse=records is given))


def _records(records: Any, table: Table) -> Table:
    if not isinstance(records, Sequence) or isinstance(records, str):
        raise ValueError(f"{table.source}: a table is a list of rows, got {type(records).__name__}")
    _refuse_many(table.source, len(records))
    for number, record in enumerate(records, 1):
        if not isinstance(record, Mapping):
            raise ValueError(
                f"{table.source}, row {number}: a row is an object with a value per column, got "
                f"{repr(record)[:60]}"
            )
        pairs = list(_flat(record))
        if len(row := dict(pairs)) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f'{table.source}, row {number}: names "{twice}" twice; remove one of them')
        table.add(row, f"row {number}")
    return table


def _flat(record: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The names and values of `record`, with nested objects as dotted paths."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _refuse_many(source: str | Path, rows: int, columns: int = 1, values: int = 0) -> None:
    """Raise `ValueError` for a table with too many rows or values, before an object is made of each."""
    values = max(values, rows * columns)
    if rows > MOST_ROWS or values > MOST_VALUES:
        raise ValueError(
            f"{source} holds {rows:,} rows and {values:,} values, and a table may hold {MOST_ROWS:,} rows "
            f"and {MOST_VALUES:,} values; leave out rows that repeat, or split it"
        )


def text_of(path: Path, table: Table) -> str:
    """The text of a file in UTF-8 or UTF-16, with or without a byte-order mark."""
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"{path} has {size:,} bytes, and a table may have {MOST_BYTES:,}; split it")
    data = path.read_bytes()
    coding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    if coding == "utf-16":
        table.notes.append(f"{path} is in UTF-16")
    try:
        text = data.decode(coding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8 ({error.reason}): save it as CSV in UTF-8") from None
    if "\0" in text:
        raise ValueError(f"{path} holds zero bytes and is not text: save it as CSV in UTF-8")
    return text


def _csv(path: Path) -> Table:
    table = Table(str(path))
    text = text_of(path, table)
    _refuse_many(path, max(text.count("\n"), text.count("\r")))
    first = next((line for line in io.StringIO(text, None) if line.strip(" ,;\t\n")), "")
    separator = max(_SEPARATORS, key=first.count)
    _refuse_many(path, 0, 0, text.count(separator))
    if separator != ",":
        table.notes.append(f"{path} is separated by {_SEPARATORS[separator]}")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}; check its quotes") from None
    full = [(number, cells) for number, cells in lines if any(cells)]
    if not full:
        raise ValueError(f"{path} holds no samples")
    header, body = full[0][1], full[1:]
    names = _named_columns(path, header, [cells for _, cells in body], table)
    skipped = [str(number) for number, cells in lines if not any(cells) and number > full[0][0]]
    if skipped:
        table.notes.append(f"{path}: empty lines {', '.join(skipped[:5])} are skipped")
    commas = any(_COMMA_DECIMALS.fullmatch(cell) for _, row in body for cell in row)
    for number, cells in body:
        if len(cells) < len(header) or any(cells[len(header) :]):
            raise ValueError(f"{path}, line {number} has {len(cells)} cells, the header has {len(header)}")
        row = {name: _number_text(cells[i], path, number, name, table, commas) for i, name in names}
        table.add(row, f"line {number}")
    return table


def _named_columns(
    path: Path, header: list[str], body: list[list[str]], table: Table
) -> list[tuple[int, str]]:
    """Position and name of every column, without empty columns and the index that pandas writes."""
    named = []
    for i, name in enumerate(header):
        cells = [row[i] for row in body if i < len(row)]
        if name:
            named.append((i, name))
        elif i == 0 and cells and cells == [str(n) for n in range(len(cells))]:
            table.notes.append(f"{path}: its first column has no name and counts the rows; it is left out")
        elif any(cells):
            raise ValueError(f"{path}: column {i + 1} has no name; name it in the first line, or remove it")
        elif i < len(header) - 1:
            table.notes.append(f"{path}: the empty column {i + 1} is left out")
    names = [name for _, name in named]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ValueError(f'{path} has {names.count(twice[0])} columns "{twice[0]}"; remove all but one')
    return named


def _number_text(cell: str, path: Path, line: int, name: str, table: Table, commas: bool) -> str:
    """A cell with a decimal point and no separators of thousands, if it is a number.

    `commas`: whether other cells of the table have a decimal comma, so that points may separate thousands.
    """
    points = commas and _AMBIGUOUS_POINTS.fullmatch(cell)
    if points or _AMBIGUOUS.fullmatch(cell):
        mark = "." if points else ","
        raise ValueError(
            f'{path}, line {line}, column "{name}": {cell!r} can mean {cell.replace(mark, "")} or '
            f"{cell.replace(mark, ',' if points else '.', 1)}; write one of them"
        )
    plain = cell
    if _POINT_DECIMALS.fullmatch(cell):
        plain = cell.replace(",", "")
    elif _COMMA_DECIMALS.fullmatch(cell):
        plain = cell.replace(".", "").replace(",", ".")
    start = f'{path}, column "{name}": numbers like'
    if plain != cell and not any(note.startswith(start) for note in table.notes):
        table.notes.append(f"{start} {cell} are read as {plain}")
    return plain


def _json(path: Path) -> Table:
    table = Table(str(path))
    text = text_of(path, table).strip()
    _refuse_many(path, 0, 0, sum(text.count(mark) for mark in ",[{"))  # one of these for every value

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not a number")

    def number(text: str) -> float | str:
        return text if vanishes(text) else float(text)  # what it is for says how small it may be

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            raise ValueError("an object names a column twice")
        return found

    try:
        first = next(io.StringIO(text, None), "")
        by_lines = path.suffix.lower() == ".jsonl" or first.endswith("}\n")
        if by_lines and all(line.strip()[:1] in ("{", "") for line in io.StringIO(text, None)):
            table.notes.append(f"{path} is read as one object per line")
            text = f"[{','.join(line for line in io.StringIO(text, None) if line.strip())}]"
        found = json.loads(text, parse_float=number, parse_constant=refuse, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON that can be read: {error}; write a list of objects") from None
    if isinstance(found, dict):
        found = _from_columns(path, found, table)
    return _records(found, table)


def _from_columns(path: Path, found: dict[str, Any], table: Table) -> list[dict[str, Any]]:
    """The rows of an object that maps columns to lists, or to objects by row as pandas writes them."""
    columns = {k: list(v.values()) if isinstance(v, dict) else v for k, v in found.items()}
    keys = {tuple(v) for v in found.values() if isinstance(v, dict)}
    if not columns or not all(isinstance(v, list) for v in columns.values()) or len(keys) > 1:
        raise ValueError(
            f"{path} is neither a list of objects nor an object of columns; write a list of objects"
        )
    if len({len(v) for v in columns.values()}) > 1:
        raise ValueError(f"{path}: its columns differ in length; write a list of objects")
    table.notes.append(f"{path} is read by columns")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _parquet(path: Path) -> Table:
    from hyperlax.hyperparams.parquet import TooLarge, read_parquet, values_in

    try:
        with _quiet():
            frame = read_parquet(path.read_bytes())
    except TooLarge as error:
        raise ValueError(f"{path} {error}") from None
    except ValueError as error:
        raise ValueError(f"{path} is not a parquet file that can be read: {error}; save it again") from None
    _refuse_many(path, frame.height, values=values_in(frame))
    records = frame.drop("__index_level_0__", strict=False).to_dicts()
    return _records(records, Table(str(path)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Context in which nothing is written to the standard error, where the decoder reports damaged files."""
    sys.stderr.flush()
    with open(os.devnull, "wb") as nothing:
        kept = os.dup(2)
        try:
            os.dup2(nothing.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _empty(value: Any) -> bool:
    return value is None or value == ""
