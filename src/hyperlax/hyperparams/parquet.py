"""Parquet files from untrusted sources: their size in memory is read from headers before they are decoded.

A few bytes can stand for billions of equal values, and compression can hide gigabytes. The headers of all
pages say so, and the decoder trusts them; so they are read first, by a reader of Thrift's compact protocol as
small as the format (https://github.com/apache/parquet-format) needs.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import polars as pl

FLOOR, RATIO = 256 * 2**20, 100
"""Bytes of memory that any table may take, and bytes that it may take for each byte of its file."""
_NUMBERS = (0, 1, 2, 4, 5)
"""The physical types of truth values and of numbers of up to eight bytes."""
_ENCODINGS = {0, 2, 3, 4, 5, 6, 8, 9}
"""Those whose values are as long as the page says; 7 (DELTA_BYTE_ARRAY) repeats parts of others."""
_DEEPEST = 24
"""Levels of nesting, in headers and in the schema."""

Fields = dict[int, Any]
"""A struct of Thrift: the number of a field → its value."""


def read_parquet(content: bytes, room: Callable[[], int] = lambda: 0) -> pl.DataFrame:
    """Read the table in the contents of a file, whose size in memory is checked first.

    Raises `TooLarge` for a table that would take much more memory than the file has bytes, and more than
    there is `room` for, and `ValueError` with the reason for contents that are not a table.
    """
    try:
        _refuse(_needed(content), len(content), room)
        frame = pl.read_parquet(io.BytesIO(content))
    except TooLarge:
        raise
    except (Exception, pl.exceptions.PanicException) as error:  # the decoder panics on damaged files
        words = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(words) from None
    _refuse(sum(_text_bytes(column) for column in frame.iter_columns()), len(content), room)
    return frame


def values_in(frame: pl.DataFrame) -> int:
    """The number of values in a table, those inside of lists and structs each."""
    return sum(_values(column) for column in frame.iter_columns())


def _values(column: pl.Series) -> int:
    kind = column.dtype
    if isinstance(kind, pl.Struct):
        return sum(_values(column.struct.field(field.name)) for field in kind.fields)
    return _values(column.explode()) if isinstance(kind, pl.List | pl.Array) else len(column)


def _text_bytes(column: pl.Series) -> int:
    """The bytes of all texts in a column, each counted as often as it is there."""
    kind = column.dtype
    if kind == pl.String:
        return int(column.str.len_bytes().cast(pl.Int64).sum())
    if kind == pl.Binary:
        return int(column.bin.size().cast(pl.Int64).sum())
    if isinstance(kind, pl.Struct):
        return sum(_text_bytes(column.struct.field(field.name)) for field in kind.fields)
    if isinstance(kind, pl.List | pl.Array):
        return _text_bytes(column.explode())
    return _text_bytes(column.cast(pl.String)) if isinstance(kind, pl.Categorical | pl.Enum) else 0


class TooLarge(ValueError):
    """Raised for a table that is far too large for its file; the message follows the name of the file."""


def _refuse(needed: int, size: int, room: Callable[[], int]) -> None:
    limit = FLOOR + RATIO * size
    if needed > limit and needed > (limit := max(limit, room())):
        raise TooLarge(
            f"would take {needed / 2**20:,.0f} MiB of memory for the {size:,} bytes of the file, and tables "
            f"may take {limit / 2**20:,.0f}; write it again without rows that repeat, or as csv"
        )


def _needed(content: bytes) -> int:
    """Bytes of memory that the table takes at most, by the headers of the file and all of its pages."""
    size = len(content)
    footer = int.from_bytes(content[-8:-4], "little")
    if content[:4] != b"PAR1" or content[-4:] != b"PAR1":
        raise ValueError("it does not begin and end as one")
    if footer > size - 12:
        _bad()
    about = _Thrift(content, size - 8 - footer, size - 8).struct()
    schema = about.get(2) or _bad()
    _check_depth(schema)
    leaves = [element for element in schema if 1 in element] or _bad()
    by_rows = _count(about.get(3, 0)) * sum(_value_bytes(leaf) for leaf in leaves)
    widest, by_pages = max(_value_bytes(leaf) for leaf in leaves), 0
    for chunk in [chunk for group in about.get(4, ()) for chunk in group.get(1, ())]:
        if 1 in chunk:
            raise ValueError("it keeps columns in other files")
        column = chunk.get(3) or _bad()
        width = 8 if column.get(1) in _NUMBERS else widest
        by_pages += sum(max(length, values * width) for length, values in _pages(content, column))
    return max(by_rows, by_pages)


def _value_bytes(leaf: Fields) -> int:
    """Bytes that a value of a column takes in memory, unless it is a longer text."""
    return 8 if leaf[1] in _NUMBERS else max(16, _count(leaf.get(2, 0)))


def _pages(content: bytes, column: Fields) -> Iterator[tuple[int, int]]:
    """The bytes, once decompressed, and the values of every page of a column."""
    at = min(_count(column[field]) for field in (9, 11) if field in column)
    end = at + _count(column.get(7, 0))
    if end > len(content):
        raise ValueError("a column ends beyond the end of the file")
    while at < end:
        reader = _Thrift(content, at, end)
        page = reader.struct()
        about = page.get(5) or page.get(7) or page.get(8) or {}
        encoding = about.get(4 if 8 in page else 2, 0)
        if encoding not in _ENCODINGS:
            raise ValueError(f"it uses encoding {encoding}, which is not read; write it with the usual ones")
        yield _count(page.get(2, 0)), _count(about.get(1, 0))
        at = reader.at + _count(page.get(3, 0))


def _check_depth(schema: list[Fields]) -> None:
    """Refuse columns nested so deep that reading them might exhaust the stack."""
    left: list[int] = []
    for element in schema:
        left.append(_count(element.get(5, 0)))
        if len(left) > _DEEPEST:
            raise ValueError("its columns are nested too deep")
        while left and left[-1] == 0:
            left.pop()
            if left:
                left[-1] -= 1


def _count(value: Any) -> int:
    return value if type(value) is int and value >= 0 else _bad()


def _bad() -> NoReturn:
    raise ValueError("its headers are damaged")


class _Thrift:
    """Reads structs of Thrift's compact protocol from the bytes `at` to `end`."""

    def __init__(self, data: bytes, at: int, end: int):
        self.data, self.at, self.end, self.depth = data, at, end, 0
        self._kinds: dict[int, Callable[[], Any]] = {
            3: lambda: self._take(1)[0],
            4: self._signed,
            5: self._signed,
            6: self._signed,
            7: lambda: self._take(8),
            8: lambda: self._take(self._varint()),
            9: self._list,
            10: self._list,
            11: self._map,
            12: self.struct,
        }

    def struct(self) -> Fields:
        """Read one struct; raises `ValueError` if there is none."""
        self.depth += 1
        if self.depth > _DEEPEST:
            _bad()
        found: Fields = {}
        number = 0
        while head := self._take(1)[0]:
            number = number + (head >> 4) if head >> 4 else self._signed()
            found[number] = head & 15 == 1 if head & 15 in (1, 2) else self._value(head & 15)
        self.depth -= 1
        return found

    def _value(self, kind: int) -> Any:
        return self._kinds[kind]() if kind in self._kinds else _bad()

    def _list(self) -> list[Any]:
        head = self._take(1)[0]
        count, kind = (head >> 4 if head >> 4 < 15 else self._varint()), head & 15
        if count > self.end - self.at:
            _bad()
        return [self._take(1)[0] if kind in (1, 2) else self._value(kind) for _ in range(count)]

    def _map(self) -> list[Any]:
        count = self._varint()
        kinds = self._take(1)[0] if count else 0
        if count > self.end - self.at:
            _bad()
        return [(self._value(kinds >> 4), self._value(kinds & 15)) for _ in range(count)]

    def _signed(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        return _bad()

    def _take(self, count: int) -> bytes:
        if count > self.end - self.at:
            _bad()
        self.at += count
        return self.data[self.at - count : self.at]
