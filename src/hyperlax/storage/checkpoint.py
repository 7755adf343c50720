"""Serialisation of PyTrees: raw array bytes behind a JSON header that holds checksums; never pickle."""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeVar

import jax
import numpy as np

T = TypeVar("T")

FORMAT = 1
_HEADER = 8 + 32
"""Offset of the JSON header in bytes: it follows its own length (8) and its SHA-256 checksum (32)."""


def structure(tree: Any) -> str:
    """Fingerprint of the paths, shapes and dtypes of the leaves of `tree`: 16 hexadecimal digits."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    text = "\n".join(f"{jax.tree_util.keystr(p)} {np.shape(x)} {np.dtype(x.dtype)}" for p, x in leaves)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def pack(tree: Any, **header: Any) -> bytes:
    """Serialise `tree`, whose leaves must be arrays, together with `header`, which must be JSON-serialisable.

    The names `format`, `structure`, `sha256` and `bytes` in the header are overwritten.
    """
    arrays = [np.asarray(x) for x in jax.tree.leaves(tree)]
    body = b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)
    head = {
        **header,
        "format": FORMAT,
        "structure": structure(tree),
        "sha256": hashlib.sha256(body).hexdigest(),
        "bytes": len(body),
    }
    text = json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + hashlib.sha256(text).digest() + text + body


def read_header(data: bytes, source: str = "checkpoint") -> dict[str, Any]:
    """Return the header of `data`, which `pack` wrote; `source` names the data in error messages.

    Raises `ValueError` when the header is incomplete or damaged.
    """
    text = data[_HEADER : _HEADER + _header_size(data)]
    if hashlib.sha256(text).digest() != data[8:_HEADER]:
        raise ValueError(f"{source} is damaged: its header does not match its checksum")
    return json.loads(text)


def unpack(data: bytes, like: T, source: str = "checkpoint") -> T:
    """Return the tree that `pack` wrote into `data`, as NumPy arrays in the structure of `like`.

    Raises `ValueError` when the data is incomplete or damaged, or when its leaves differ from those of `like`
    in path, shape or dtype. `source` names the data in the message.
    """
    header, body = read_header(data, source), data[_HEADER + _header_size(data) :]
    if header["format"] != FORMAT:
        raise ValueError(f"{source} has format {header['format']}, this version reads {FORMAT}")
    if len(body) != header["bytes"] or hashlib.sha256(body).hexdigest() != header["sha256"]:
        raise ValueError(f"{source} is damaged: its contents do not match their checksum")
    if header["structure"] != structure(like):
        raise ValueError(
            f"{source} was written by a version whose agents are built differently; it cannot be read"
        )
    leaves, treedef = jax.tree.flatten(like)
    out, offset = [], 0
    for leaf in leaves:
        dtype, shape = np.dtype(leaf.dtype), np.shape(leaf)
        count = int(np.prod(shape, dtype=np.int64))
        out.append(np.frombuffer(body, dtype, count, offset).reshape(shape).copy())
        offset += count * dtype.itemsize
    return jax.tree.unflatten(treedef, out)


def _header_size(data: bytes) -> int:
    return int.from_bytes(data[:8], "little")
