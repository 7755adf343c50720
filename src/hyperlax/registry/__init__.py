"""Names of everything that can be extended, and what they stand for. Imports nothing else of hyperlax."""

from __future__ import annotations

from hyperlax.registry.base import Registry, Source, short_name
from hyperlax.registry.modules import load_attribute, load_file, location
from hyperlax.registry.words import boolean, build, convert, escaped, integer, nearest, plain, real

__all__ = [
    "Registry",
    "Source",
    "boolean",
    "build",
    "convert",
    "escaped",
    "integer",
    "load_attribute",
    "load_file",
    "location",
    "nearest",
    "plain",
    "real",
    "short_name",
]
