"""Sizes, which determine the shape of the computation of a sample, and capacities of programs.

A sample has the sizes that it uses; a program has *capacities*, the sizes that it allocates, which all of its
samples must fit. There are three kinds of size, which differ in how the sizes of several samples combine: an
`Extent` is padded to the largest, `Branches` are all compiled, and a `Shape` cannot differ within a program.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class AbstractSize(ABC):
    """Base class of sizes; each kind is also a number, a set or a text."""

    is_branch: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def merged(cls, name: str, sizes: Sequence[Any]) -> AbstractSize:
        """The capacity that holds all of `sizes`; raises `ValueError` with the `name` if there is none."""

    @abstractmethod
    def fits(self, cap: Any) -> bool:
        """Whether a sample of this size can run in a program with the capacity `cap`."""

    @abstractmethod
    def to_json(self) -> Any:
        """A JSON-ready value, from which `from_json` makes the size again."""


class Extent(int, AbstractSize):
    """A length or a count that is padded: the capacity is the largest of all samples."""

    @classmethod
    def merged(cls, name: str, sizes: Sequence[Extent]) -> Extent:
        return cls(max(sizes))

    def fits(self, cap: int) -> bool:
        return self <= cap

    def to_json(self) -> int:
        return int(self)


class Branches(frozenset, AbstractSize):
    """The branches that a sample takes, such as activations; a program compiles those of all samples."""

    is_branch: ClassVar[bool] = True

    @classmethod
    def merged(cls, name: str, sizes: Sequence[Branches]) -> Branches:
        return cls(frozenset().union(*sizes))

    def fits(self, cap: frozenset[Any]) -> bool:
        return self <= cap

    def to_json(self) -> dict[str, list[Any]]:
        return {"branches": sorted(self)}


class Shape(str, AbstractSize):
    """The name of a shape that cannot be padded; samples with different shapes need different programs."""

    __slots__ = ()

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
"""Name → `AbstractSize`. Capacities also include derived values: block and chunk lengths, layouts."""


def merge(sizes: Sequence[Sizes]) -> dict[str, Any]:
    """The smallest capacities that hold all of `sizes`.

    Raises `ValueError` if a shape differs, and `TypeError` for an entry that is not a size.
    """
    for name, size in sizes[0].items():
        if not isinstance(size, AbstractSize):
            raise TypeError(
                f"sizes()[{name!r}] is {size!r}; say how it combines with the sizes of other samples: "
                f"Extent({size!r}) is padded, Branches({{{size!r}}}) are all compiled, "
                f'Shape("{size}") needs a program of its own'
            )
    return {name: type(size).merged(name, [s[name] for s in sizes]) for name, size in sizes[0].items()}


def fits(sizes: Sizes, caps: Sizes) -> bool:
    """Whether a sample of `sizes` can run in a program with `caps`."""
    return all(size.fits(caps[name]) for name, size in sizes.items())


def shapes(sizes: Sizes) -> tuple[tuple[str, str], ...]:
    """The entries that must be equal for all samples of a program, sorted by name."""
    return tuple((name, size) for name, size in sorted(sizes.items()) if isinstance(size, Shape))


def without_shapes(sizes: Sizes) -> tuple[tuple[str, Any], ...]:
    """All entries except shapes, sorted by name."""
    return tuple((name, size) for name, size in sorted(sizes.items()) if not isinstance(size, Shape))


def without_branches(sizes: Sizes) -> tuple[tuple[str, Any], ...]:
    """All entries except branches, sorted by name."""
    return tuple((name, size) for name, size in sorted(sizes.items()) if not size.is_branch)


def has_alternatives(caps: Sizes) -> bool:
    """Whether any entry of `caps` has more than one branch."""
    return any(isinstance(size, Branches) and len(size) > 1 for size in caps.values())


def nested(sizes: Sizes, prefix: str) -> dict[str, Any]:
    """The entries of `sizes` whose names start with `prefix.`, with that removed."""
    return {k.removeprefix(prefix + "."): v for k, v in sizes.items() if k.startswith(prefix + ".")}


def prefixed(sizes: Sizes, prefix: str) -> dict[str, Any]:
    """`sizes` with `prefix.` in front of every name."""
    return {f"{prefix}.{k}": v for k, v in sizes.items()}


def to_json(sizes: Sizes) -> dict[str, Any]:
    """Sizes or capacities as JSON-ready values."""
    return {k: v.to_json() if isinstance(v, AbstractSize) else v for k, v in sizes.items()}


def from_json(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes or capacities that `to_json` was given."""
    return {k: _read(v) for k, v in sizes.items()}


def _read(value: Any) -> Any:
    """The size, or derived value, that was written as `value`; raises `ValueError` if it is neither."""
    match value:
        case bool():
            return value
        case int():
            return Extent(value)
        case str():
            return Shape(value)
        case {"branches": [*branches]} if all(isinstance(b, bool | int | str) for b in branches):
            return Branches(branches)
        case list() | tuple() if all(isinstance(n, int) and not isinstance(n, bool) for n in value):
            return tuple(int(n) for n in value)
    raise ValueError(f"{str(value)[:40]!r} is not a size")
