"""Digests of the files in which somebody's own code is, so that a run is not continued with other code."""

from __future__ import annotations

import ast
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from hyperlax.registry.modules import location

ANY_CODE = "HYPERLAX_ANY_CODE"
"""The environment variable with which, at 1, runs are continued with changed code."""
_INSTALLED = ("site-packages", "dist-packages")
_LIBRARY = Path(os.__file__).resolve().parent


def digests(names: Iterable[str], things: Iterable[Any]) -> dict[str, str]:
    """The name of a file → digest, for the files of `names` and of the classes of `things`.

    Modules of the same folders that they import are among them. Installed packages and the script that runs
    are not: that one may well say how to continue.
    """
    found: dict[str, list[str]] = {}
    for file in sorted({file for module in _roots(names, things) for file in _files(module)}):
        found.setdefault(file.name, []).append(_digest(file))
    return {name: "+".join(each) for name, each in sorted(found.items())}


def changed(before: Mapping[str, str] | None, now: Mapping[str, str] | None) -> list[str]:
    """The files whose digests differ; those of which only one is known are left out."""
    before, now = before or {}, now or {}
    return sorted(name for name in before.keys() & now.keys() if before[name] != now[name])


def refusal(before: Mapping[str, str] | None, now: Mapping[str, str] | None) -> list[str]:
    """What is wrong with the code, and what to do, in a line for each file; none where any code is wanted."""
    if os.environ.get(ANY_CODE) == "1":
        return []
    return [
        f"{name} has been changed since the run began, and its lanes would be of two versions: "
        f"restore it, choose another folder, or set {ANY_CODE}=1 to continue with the file as it is"
        for name in changed(before, now)
    ]


def _roots(names: Iterable[str], things: Iterable[Any]) -> Iterator[ModuleType]:
    """The modules of `names`, as far as they have been imported, and of the classes of `things`."""
    places = [place[0] for name in names if (place := location(name.partition("[")[0])) is not None]
    files = [Path(place).expanduser().resolve() for place in places if place.endswith(".py")]
    wanted = {*places, *(kind.__module__ for thing in things for kind in type(thing).__mro__)}
    for name, module in sys.modules.copy().items():  # other threads may import
        if isinstance(module, ModuleType) and (name in wanted or (files and _file(module) in files)):
            yield module


def _files(root: ModuleType) -> set[Path]:
    """The file of a module, and those below the same folder that it imports, directly or not."""
    left, found = [root], {}
    while left:
        module = left.pop()
        if (file := _file(module)) is None or file in found:
            continue
        if found and next(iter(found)).parent not in file.parents:
            continue
        found[file] = True
        left.extend(_imported(module, file))
        for value in vars(module).copy().values():
            if isinstance(value, ModuleType):
                left.append(value)
            elif isinstance(value, type | FunctionType) and (near := sys.modules.get(value.__module__)):
                left.append(near)
    return set(found)


def _imported(module: ModuleType, file: Path) -> Iterator[ModuleType]:
    """The modules that are named in the import statements of `file`, as far as they have been imported.

    What has been taken from a module, such as a number, may not tell where it comes from.
    """
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes(), str(file))))
    except (OSError, SyntaxError, ValueError):  # no longer what was imported
        return
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            above = (module.__package__ or "").split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    yield from (sys.modules[name] for name in names if isinstance(sys.modules.get(name), ModuleType))


def _file(module: Any) -> Path | None:
    """The file of a module of the user's own; None for the script that runs, and for what is installed."""
    name, path = getattr(module, "__name__", None), getattr(module, "__file__", None)
    if not isinstance(path, str) or not isinstance(name, str) or not path.endswith(".py"):
        return None
    return None if name in ("__main__", "__mp_main__") or name.partition(".")[0] == "hyperlax" else _own(path)


@cache
def _own(path: str) -> Path | None:
    """`path` in full, unless it belongs to something that is installed."""
    file = Path(path).resolve()
    return None if set(_INSTALLED) & set(file.parts) or _LIBRARY in file.parents else file


@cache
def _digest(file: Path) -> str:
    """The digest of a file as it was when it was first asked for; how its lines end does not matter."""
    return hashlib.sha256(file.read_bytes().replace(b"\r\n", b"\n")).hexdigest()[:16]
