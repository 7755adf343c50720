"""Serialisation of PyTrees: raw array bytes behind a JSON header that holds checksums; never pickle."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

T = TypeVar("T")

FORMAT = 1
_HEADER = 8 + 32
"""Offset of the JSON header in bytes: it follows its own length (8) and its SHA-256 checksum (32)."""
_OWN = {"format": int, "structure": str, "sha256": str, "bytes": int}
"""Entries of every header, which `pack` makes, and their types."""


def structure(tree: Any) -> str:
    """Fingerprint of the paths, shapes and dtypes of the leaves of `tree`: 16 hexadecimal digits."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    text = "\n".join(f"{jax.tree_util.keystr(p)} {np.shape(x)} {np.dtype(x.dtype)}" for p, x in leaves)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def pack(tree: Any, **header: Any) -> bytes:
    """Serialise `tree`, whose leaves must be arrays, together with `header`, which must be JSON-serialisable.

    The names `format`, `structure`, `sha256` and `bytes` in the header are overwritten.
    """
    return b"".join(headed(gathered(tree), structure(tree), header))


def gathered(tree: Any, which: Callable[[Any], bool] = lambda leaf: True) -> bytearray:
    """A copy of the bytes of all leaves of `tree`, which must be arrays, one after the other.

    The bytes of leaves for which `which` is false are zeros, until `gather` is called for them.
    """
    body = bytearray(sum(_bytes(leaf) for leaf in jax.tree.leaves(tree)))
    gather(body, tree, which)
    return body


def gather(body: bytearray, tree: Any, which: Callable[[Any], bool]) -> None:
    """Copy the bytes of the leaves of `tree` for which `which` is true to their places in `body`."""
    offset = 0
    for leaf in jax.tree.leaves(tree):
        if (size := _bytes(leaf)) and which(leaf):
            array = np.asarray(leaf)
            np.frombuffer(body, array.dtype, array.size, offset).reshape(array.shape)[...] = array
        offset += size


def headed(
    body: bytes | bytearray, structure: str, header: Mapping[str, Any]
) -> tuple[bytes, bytes | bytearray]:
    """The contents of a file in two pieces, the header and `body`: what `pack` returns.

    `body` and `structure` are those of a tree, as the functions of this name return them.
    """
    own = {
        "format": FORMAT,
        "structure": structure,
        "sha256": hashlib.sha256(body).hexdigest(),
        "bytes": len(body),
    }
    return _start({**header, **own}), body


def with_header(data: bytes, header: dict[str, Any]) -> bytes:
    """Return `data`, which `pack` wrote, with other entries in its header; those of `pack` stay."""
    old = read_header(data)
    return _start({**header, **{name: old[name] for name in _OWN}}) + data[_HEADER + _header_size(data) :]


def read_header(data: bytes, source: str = "checkpoint") -> dict[str, Any]:
    """Return the header of `data`, which `pack` wrote; `source` names the data in error messages.

    Raises `ValueError` when the header is incomplete or damaged.
    """
    return _header(data[:_HEADER], data[_HEADER : _HEADER + _header_size(data)], source)


def read_header_of(path: Path) -> dict[str, Any]:
    """Return the header of the file that `pack` filled, reading no more than that.

    Raises `FileNotFoundError` if there is no such file, and `ValueError` when the header is damaged or does
    not fit the length of the file.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(_HEADER)
        length = _header_size(start)
        if len(start) < _HEADER or length > size - _HEADER:
            raise ValueError(f"{path} is damaged: its header does not fit into its {size:,} bytes")
        header = _header(start, file.read(length), str(path))
    if header["bytes"] != size - _HEADER - length:
        raise ValueError(
            f"{path} is damaged: it has {size:,} bytes, {_HEADER + length + header['bytes']:,} were written"
        )
    return header


def check_body(data: bytes, source: str = "checkpoint") -> dict[str, Any]:
    """Return the header of `data`, whose contents must match it.

    Raises `ValueError` when the data is incomplete or damaged, or has another format.
    """
    header, start = read_header(data, source), _HEADER + _header_size(data)
    if header["format"] != FORMAT:
        raise ValueError(f"{source} has format {header['format']}, this version reads {FORMAT}")
    body = memoryview(data)[start:]
    if len(body) != header["bytes"] or hashlib.sha256(body).hexdigest() != header["sha256"]:
        raise ValueError(f"{source} is damaged: its contents do not match their checksum")
    return header


def unpack(data: bytes, like: T, source: str = "checkpoint") -> T:
    """Return the tree that `pack` wrote into `data`, as NumPy arrays in the structure of `like`.

    Raises `ValueError` when the data is incomplete or damaged, or when its leaves differ from those of `like`
    in path, shape or dtype. `source` names the data in the message. Nothing is allocated before the sizes of
    the leaves are known to be those of the data.
    """
    header = check_body(data, source)
    if header["structure"] != structure(like):
        raise ValueError(
            f"{source} was written by a version whose agents are built differently; it cannot be read"
        )
    leaves, treedef = jax.tree.flatten(like)
    kinds = [(np.dtype(leaf.dtype), np.shape(leaf)) for leaf in leaves]
    needed = sum(math.prod(shape) * dtype.itemsize for dtype, shape in kinds)
    if needed != header["bytes"]:
        raise ValueError(f"{source} is damaged: it holds {header['bytes']:,} bytes of arrays, not {needed:,}")
    out, offset = [], _HEADER + _header_size(data)
    for dtype, shape in kinds:
        count = math.prod(shape)
        out.append(np.frombuffer(data, dtype, count, offset).reshape(shape).copy())
        offset += count * dtype.itemsize
    return jax.tree.unflatten(treedef, out)


def _start(header: dict[str, Any]) -> bytes:
    """What comes before the body of a file with this header."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + hashlib.sha256(text).digest() + text


def _header(start: bytes, text: bytes, source: str) -> dict[str, Any]:
    """The header with this `text`; `start` is what comes before it: its length and its checksum."""
    if len(text) != _header_size(start) or hashlib.sha256(text).digest() != start[8:_HEADER]:
        raise ValueError(f"{source} is damaged: its header does not match its checksum")
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{source} is damaged: its header is not JSON") from None
    if not isinstance(header, dict):
        raise ValueError(f"{source} is damaged: its header is no JSON object")
    for name, kind in _OWN.items():
        if type(header.get(name)) is not kind:
            raise ValueError(f'{source} is damaged: its header has no valid "{name}"')
    return header


def _bytes(array: Any) -> int:
    return math.prod(np.shape(array)) * np.dtype(array.dtype).itemsize


def _header_size(data: bytes) -> int:
    return int.from_bytes(data[:8], "little")
