"""A registry: the things of one kind by name, built in, of installed packages, or in files of one's own."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, Generic, NamedTuple, TypeVar, cast

from hyperlax.registry import modules
from hyperlax.registry.words import escaped, nearest

T = TypeVar("T")
_MISSING: Any = object()
_USABLE = re.compile(r"[^\W_][\w.-]*")
_RULE = (
    "a name begins with a letter or digit, goes on with letters, digits, _, - and ., and does not end in .py"
)


class Source(NamedTuple):
    """A registered name and where it comes from: `built in`, or a package and its version."""

    name: str
    origin: str


class Registry(Mapping[str, T], Generic[T]):
    """The things of one kind by name, imported when they are first asked for.

    As a mapping it holds what is registered: the built-in names, and those that installed packages declare
    as entry points of its `group`. `resolve` also takes `path/to/file.py:Name` and `package.module:Name`.

    - `noun`: what one of them is called in messages.
    - `group`: the entry-point group, `hyperlax.<kind>`.
    - `built_in`: name → `package.module:attribute`.
    - `base`: the class that they derive from (or are instances of, with `instances`), as a place; none for
      plain functions.
    - `functions`: whether a function will do as well; without a `base` nothing else does.
    - `instances`: whether they are objects of the class, not classes.
    - `collection`: a dict in a file whose names go before the file's attributes (`RECIPES`).
    - `suffix`: `Name` also stands for the class called `Name<suffix>` beside it.
    - `taken`: the place of a function that says what else goes by a name, None if nothing does.
    - `validate`: the place of a function of the name and the thing that raises `ValueError`, with the fix,
      for what the class may not hold. It is called when the thing is first asked for.
    """

    def __init__(
        self,
        noun: str,
        group: str,
        built_in: Mapping[str, str],
        base: str = "",
        *,
        functions: bool = False,
        instances: bool = False,
        collection: str = "",
        suffix: str = "",
        validate: str = "",
        taken: str = "",
    ):
        self.noun, self.group, self.built_in = noun, group, dict(built_in)
        self.base, self.functions, self.instances = base, functions, instances
        self.collection, self.suffix, self.validate, self.taken = collection, suffix, validate, taken
        self._found: dict[str, T] = {}

    def __iter__(self) -> Iterator[str]:
        yield from dict.fromkeys([*self.built_in, *filter(usable, _installed(self.group))])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in self.built_in or (name in _installed(self.group) and usable(str(name)))

    def __getitem__(self, name: str) -> T:
        """What is registered as `name`; `KeyError` for another one, `ValueError` when it cannot be used."""
        if name not in self._found:
            if name not in self:
                raise KeyError(self.unknown(name))
            self._found[name] = self._registered(name)
        return self._found[name]

    def resolve(self, name: str) -> T:
        """What `name` stands for: registered, in a file, or in a module.

        A file is found from the current folder, and needs no `:Name` when it holds just one of the kind.
        Raises `ValueError` with the nearest name, or the file and line that cannot be run.
        """
        if name in self:
            return self[name]
        if (place := modules.location(name)) is None:
            raise ValueError(self.unknown(name))
        try:
            return self._picked(modules.load(place[0]), *place)
        except ValueError as error:
            raise ValueError(f'{self.noun} "{name}": {error}') from error

    def given(self, choice: str | T | None, stored: str, instead: str) -> T:
        """Resolve the caller's choice, a name or the object itself, or else the name `stored` in a file."""
        if choice is None:
            return self.trusted(stored, instead)
        if isinstance(choice, str):
            return self.resolve(choice)
        return self.accept(getattr(choice, "__name__", stored), self._companion(choice))

    def trusted(self, name: str, instead: str) -> T:
        """Resolve `name`, read from a data file: data never decides what code is run.

        It has to be registered, whatever else this program has imported. Otherwise raises `ValueError`;
        `instead` says what to do.
        """
        if name not in self:
            raise ValueError(
                f'{self.noun} "{escaped(name)}" is not a registered name, and may be any code; {instead}'
            )
        return self[name]

    def sources(self) -> list[Source]:
        """Every registered name and where it comes from; a name that several claim stands once for each."""
        own = [Source(name, "built in") for name in self.built_in]
        others = [Source(e.name, _package(e)) for found in _installed(self.group).values() for e in found]
        return own + others

    def check(self, name: str) -> None:
        """Raise `ValueError` for a `name` that is neither registered nor of a file or module.

        Imports nothing.
        """
        if name not in self and modules.location(name) is None:
            raise ValueError(self.unknown(name))

    def unknown(self, name: str) -> str:
        """The message for an unknown `name`."""
        refused = "".join(f"; {problem}" for problem in self.unusable())
        known = (
            f"known: {', '.join(self) or 'none'}; your own are named file.py:Name or "
            f"package.module:Name{refused}"
        )
        return f'unknown {self.noun} "{escaped(name)}"{nearest(name, self, known)}'

    def unusable(self) -> list[str]:
        """What is wrong with the names that packages declare and that nobody can use, one line each."""
        return [
            f'the {self.noun} "{escaped(name)}" of {_package(found[0])} cannot be used: {_RULE}'
            for name, found in _installed(self.group).items()
            if not usable(name)
        ]

    def fits(self, thing: Any) -> bool:
        """Whether `thing` is of the kind that this registry holds."""
        if self.functions and callable(thing) and not isinstance(thing, type):
            return True
        if not self.base:
            return False
        base = modules.load_attribute(self.base)
        return (
            isinstance(thing, base) if self.instances else isinstance(thing, type) and issubclass(thing, base)
        )

    def accept(self, name: str, thing: Any) -> T:
        """`thing`, which is called `name`; raises `ValueError` with the fix unless it can be one of these."""
        if not self.fits(thing):
            what = f"an object of {type(thing).__name__}"
            if isinstance(thing, type):
                parents = ", ".join(c.__name__ for c in thing.__bases__)
                what = f"a class derived from {parents}"
            elif inspect.isroutine(thing):
                what = "a function"
            raise ValueError(f"{name} is {what}; {self._wanted()}")
        if isinstance(thing, type) and (lacking := _abstract(thing)):
            raise ValueError(f"{name} is abstract: it lacks {', '.join(lacking)}")
        if self.validate:
            modules.load_attribute(self.validate)(name, thing)
        return cast(T, thing)

    def _wanted(self) -> str:
        """What one of the kind has to be, in words."""
        module, _, base = self.base.partition(":")
        place, this = f"{module}.{base}", f"{'an' if self.noun[0] in 'aeiou' else 'a'} {self.noun}"
        if self.instances:
            return f"{this} is an object of {place}"
        wanted = f"{this} is a class derived from {place}" if base else f"{this} is a function"
        if base and self.functions:
            wanted += ", or a function that returns one"
        return wanted + (f", called Name{self.suffix} where Name is to stand for it" if self.suffix else "")

    def _registered(self, name: str) -> T:
        found = _installed(self.group).get(name, [])
        claims = [f"{e.value} of {_package(e)}" for e in found]
        if name in self.built_in:
            claims.insert(0, f"{self.built_in[name]} of hyperlax")
        elif self.taken and (other := modules.load_attribute(self.taken)(name)):
            claims.insert(0, other)
        if len(claims) > 1:
            raise ValueError(
                f'{self.noun} "{name}" is claimed by {" and ".join(claims)}; '
                "write the one you mean in full, as package.module:Name"
            )
        if not found:
            return self.accept(name, modules.load_attribute(self.built_in[name]))
        try:
            module = modules.load(found[0].module)
            return self._picked(module, found[0].module, found[0].attr)
        except ValueError as error:
            raise ValueError(f'{self.noun} "{name}" of {_package(found[0])}: {error}') from error

    def _picked(self, module: ModuleType, place: str, attribute: str) -> T:
        """The thing called `attribute` in a module at `place`, or the only one that there is."""
        own = self._members(module)
        if not attribute:
            if len(own) == 1:
                return self.accept(place, next(iter(own.values())))
            held = (
                f"holds {', '.join(own)}; name one, {place}:{next(iter(own))}" if own else self._none(place)
            )
            raise ValueError(f"{place} {held}")
        name = f"{place}:{attribute}"
        thing = own[attribute] if attribute in own else _attribute(module, attribute)
        if thing is _MISSING and self.suffix:
            thing = own.get(f"{attribute}{self.suffix}", _MISSING)
        if thing is _MISSING:
            public = [n for n in vars(module) if not n.startswith("_")]
            hint = nearest(attribute, own) or nearest(attribute, public)
            held = f"; it holds {', '.join(own)}" if own else ""
            raise ValueError(f'{place} has no {self.noun} called "{attribute}"{hint or held}')
        return self.accept(name, self._companion(thing))

    def _companion(self, thing: Any) -> Any:
        """The class called `Name<suffix>` beside a class `Name` that is not of this kind; else `thing`."""
        if not self.suffix or not isinstance(thing, type) or self.fits(thing):
            return thing
        beside = getattr(inspect.getmodule(thing), f"{thing.__name__}{self.suffix}", _MISSING)
        return beside if self.fits(beside) else thing

    def _members(self, module: ModuleType) -> dict[str, Any]:
        """What a module holds of this kind: its collection, or what it defines itself.

        Where there is a class to derive from, functions are not among it: they may be anything.
        """
        if collection := getattr(module, self.collection, None) if self.collection else None:
            if not isinstance(collection, Mapping) or any(not isinstance(key, str) for key in collection):
                raise ValueError(f"{self.collection} has to be a dict, in which names stand for objects")
            return dict(collection)
        return {
            name: thing
            for name, thing in vars(module).items()
            if not name.startswith("_") and self.fits(thing) and self._is_own(module, thing)
        }

    def _is_own(self, module: ModuleType, thing: Any) -> bool:
        """Whether a module defines `thing`, and offers it."""
        if self.instances:
            return True
        offered = isinstance(thing, type) and not _abstract(thing) if self.base else True
        return offered and thing.__module__ == module.__name__

    def _none(self, place: str) -> str:
        listed = f", neither by itself nor in {self.collection}" if self.collection else ""
        return f"holds no {self.noun}{listed}; {self._wanted()}"


def usable(name: str) -> bool:
    """Whether a package may call something so: a part of a recipe's name, and no file's name."""
    return _USABLE.fullmatch(name) is not None and not name.endswith(".py")


def short_name(name: str) -> str:
    """`name` without where it is, usable as a file name: `ResidualMLP` for `my/nets.py:ResidualMLP`."""
    place = modules.location(name)
    if place is not None:
        name = place[1] or place[0].rsplit("/", 1)[-1].removesuffix(".py")
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name)


@cache
def _installed(group: str) -> dict[str, list[EntryPoint]]:
    """The entry points of a group by name, as this process found them when it first asked."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=group):
        if entry not in found.setdefault(entry.name, []):
            found[entry.name].append(entry)
    return found


def _package(entry: EntryPoint) -> str:
    """The package that declares an entry point, with its version."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.module


def _attribute(module: ModuleType, dotted: str) -> Any:
    """What a module calls `dotted`, `_MISSING` when there is no such thing."""
    thing: Any = module
    for part in dotted.split("."):
        thing = getattr(thing, part, _MISSING)
    return thing


def _abstract(kind: type) -> list[str]:
    """What a class still lacks: abstract methods, and the abstract fields of Equinox."""
    marks = ("__abstractmethods__", "__abstractvars__", "__abstractclassvars__")
    return sorted({name for mark in marks for name in getattr(kind, mark, ())})
