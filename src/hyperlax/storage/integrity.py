"""Whether files hold what was written to them: lengths, digests, and JSON files that carry their own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hyperlax.storage.files import create, write_atomically

CHECKSUM = "sha256"
"""The key of a JSON file that holds the digest of its other contents."""


class Damaged(ValueError):
    """Raised for stored files that do not hold what was written to them; one line: which, what, the way out.

    - `file`: the file that is damaged.
    - `what`: what is wrong with it, to follow its name.
    """

    def __init__(self, file: Path, what: str, way_out: str = ""):
        super().__init__(f"{file} {what}" + (f"; {way_out}" if way_out else ""))
        self.file, self.what = file, what


class Digest(NamedTuple):
    """The length of a file in bytes and the SHA-256 of its contents in hexadecimal digits."""

    length: int
    sha256: str

    @classmethod
    def of(cls, content: bytes) -> Digest:
        return cls(len(content), hashlib.sha256(content).hexdigest())


def problem(content: bytes, expected: Digest) -> str | None:
    """Say what is wrong with the contents of a file, to follow its name; None if they are as expected."""
    if len(content) != expected.length:
        return f"is damaged: it has {len(content):,} bytes, {expected.length:,} were written"
    if hashlib.sha256(content).hexdigest() != expected.sha256:
        return "is damaged: its contents do not match their checksum"
    return None


def beginning_problem(content: bytes, expected: Digest) -> str | None:
    """The same for a file that only grows: what is `expected` is its beginning."""
    if len(content) < expected.length:
        return f"is damaged: it has {len(content):,} bytes, {expected.length:,} were written"
    return problem(content[: expected.length], expected)


def verified(path: Path, expected: Digest | None, way_out: str = "") -> bytes:
    """Return the contents of a file, which must be as `expected` where that is known.

    Raises `FileNotFoundError` if there is no such file, and `Damaged` if it holds something else.
    """
    content = path.read_bytes()
    if expected is not None and (what := problem(content, expected)) is not None:
        raise Damaged(path, what, way_out)
    return content


def json_text(content: Mapping[str, Any]) -> str:
    """The text of a JSON file with `content` and its checksum; what JSON does not know becomes text."""
    plain = json.loads(json.dumps({k: v for k, v in content.items() if k != CHECKSUM}, default=str))
    return json.dumps({**plain, CHECKSUM: _checksum(plain)}, indent=1) + "\n"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` atomically, with a checksum."""
    write_atomically(path, json_text(content))


def create_json(path: Path, content: Mapping[str, Any]) -> bool:
    """Write `content` with a checksum to a new file; return False if the file exists (`files.create`)."""
    return create(path, json_text(content))


def read_json(path: Path, way_out: str = "") -> dict[str, Any]:
    """Read a JSON file that `write_json` wrote; one without a checksum, from an older version, as it is.

    Raises `FileNotFoundError` if there is no such file, and `Damaged` if it is not intact.
    """
    raw = path.read_bytes()
    if not raw:
        raise Damaged(path, "is damaged: it is empty", way_out)
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Damaged(path, f"is damaged: it is not JSON ({_first_line(error)})", way_out) from None
    if not isinstance(content, dict):
        raise Damaged(path, f"is damaged: it holds no JSON object but {type(content).__name__}", way_out)
    if CHECKSUM in content and content.pop(CHECKSUM) != _checksum(content):
        raise Damaged(path, "is damaged: its contents do not match their checksum", way_out)
    return content


def _checksum(plain: Mapping[str, Any]) -> str:
    """The digest of JSON-ready contents, which does not depend on white space."""
    return hashlib.sha256(json.dumps(plain, separators=(",", ":")).encode()).hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
