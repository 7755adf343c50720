"""Sizes: what shapes a computation, for one sample and for the program that it shares with others.

A sample says what it uses, a program what it allocates: its *capacities*, in which all of its samples fit.
There are three kinds of size, which differ in how those of several samples combine: an `Extent` is padded to
the largest, `Branches` are all compiled, and a `Shape` cannot differ within a program.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class AbstractSize(ABC):
    """One entry of a sample's sizes; it behaves like the number, set or text that it is."""

    is_branch: ClassVar[bool] = False
    is_shape: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def merged(cls, name: str, sizes: Sequence[Any]) -> AbstractSize:
        """The capacity that holds all of `sizes`; raises `ValueError` naming `name` where there is none."""

    @abstractmethod
    def fits(self, cap: Any) -> bool:
        """Whether a sample of this size can run where `cap` is allocated."""

    @abstractmethod
    def to_json(self) -> Any:
        """A JSON-ready value, which `from_json` reads."""


class Extent(int, AbstractSize):
    """A length or a count, padded: the capacity is the largest."""

    @classmethod
    def merged(cls, name: str, sizes: Sequence[Extent]) -> Extent:
        return cls(max(sizes))

    def fits(self, cap: int) -> bool:
        return self <= cap

    def to_json(self) -> int:
        return int(self)


class Branches(frozenset, AbstractSize):
    """The branches taken (activations, for example); a program compiles those of all its samples."""

    is_branch: ClassVar[bool] = True

    @classmethod
    def merged(cls, name: str, sizes: Sequence[Branches]) -> Branches:
        return cls(frozenset().union(*sizes))

    def fits(self, cap: frozenset[Any]) -> bool:
        return self <= cap

    def to_json(self) -> dict[str, list[Any]]:
        return {"branches": sorted(self)}


class Shape(str, AbstractSize):
    """A shape that cannot be padded, by its name: samples of different shapes need different programs."""

    __slots__ = ()
    is_shape: ClassVar[bool] = True

    @classmethod
    def merged(cls, name: str, sizes: Sequence[Shape]) -> Shape:
        if len(set(sizes)) > 1:
            raise ValueError(f"{name} cannot differ within a program: {', '.join(sorted(set(sizes)))}")
        return cls(sizes[0])

    def fits(self, cap: str) -> bool:
        return self == cap

    def to_json(self) -> str:
        return str(self)


Sizes = Mapping[str, Any]
"""Name → `AbstractSize`. Capacities also hold what is derived from them: block and chunk lengths, layouts."""


def merge(sizes: Sequence[Sizes]) -> dict[str, Any]:
    """The smallest capacities that hold all of `sizes`.

    Raises `ValueError` where a shape differs, and `TypeError` for an entry that is no size.
    """
    for name, size in sizes[0].items():
        if not isinstance(size, AbstractSize):
            raise TypeError(
                f"sizes()[{name!r}] is {size!r}; say how it combines with other samples': "
                f"Extent({size!r}) is padded, Branches({{{size!r}}}) are all compiled, "
                f'Shape("{size}") needs a program of its own'
            )
    return {name: type(size).merged(name, [s[name] for s in sizes]) for name, size in sizes[0].items()}


def fits(sizes: Sizes, caps: Sizes) -> bool:
    """Whether a sample of `sizes` can run in a program with `caps`."""
    return all(size.fits(caps[name]) for name, size in sizes.items())


def shapes(sizes: Sizes) -> tuple[tuple[str, str], ...]:
    """The entries that must be equal in all samples of a program, sorted by name."""
    return tuple((name, size) for name, size in sorted(sizes.items()) if size.is_shape)


def without_branches(sizes: Sizes) -> tuple[tuple[str, Any], ...]:
    """The entries that are no branches, sorted by name."""
    return tuple((name, size) for name, size in sorted(sizes.items()) if not size.is_branch)


def has_alternatives(caps: Sizes) -> bool:
    """Whether a program with `caps` compiles more than one branch of anything."""
    return any(isinstance(size, Branches) and len(size) > 1 for size in caps.values())


def nested(sizes: Sizes, prefix: str) -> dict[str, Any]:
    """The entries of `sizes` under `prefix.`, without it."""
    return {k.removeprefix(prefix + "."): v for k, v in sizes.items() if k.startswith(prefix + ".")}


def prefixed(sizes: Sizes, prefix: str) -> dict[str, Any]:
    """`sizes` with every name put under `prefix.`."""
    return {f"{prefix}.{k}": v for k, v in sizes.items()}


def to_json(sizes: Sizes) -> dict[str, Any]:
    """Sizes or capacities as JSON-ready values."""
    return {k: v.to_json() if isinstance(v, AbstractSize) else v for k, v in sizes.items()}


def from_json(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes or capacities that `to_json` was given."""
    return {k: _read(v) for k, v in sizes.items()}


def _read(value: Any) -> Any:
    match value:
        case bool():
            return value
        case int():
            return Extent(value)
        case str():
            return Shape(value)
        case {"branches": branches}:
            return Branches(branches)
        case list():
            return tuple(value)
    raise ValueError(f"{value!r} is no size")
