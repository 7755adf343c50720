"""Python code that is named by a file or a module, loaded once, with errors that say where and what."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from hyperlax.registry import foreign
from hyperlax.registry.words import nearest

log = logging.getLogger(__name__)

_FILE = re.compile(r"(?P<place>.+\.py)(?::(?P<attribute>[^:]*))?")
_RELATIVE = "attempted relative import"
_MODULE = re.compile(r"(?P<place>[^\W\d]\w*(?:\.[^\W\d]\w*)*):(?P<attribute>[^:]+)")


def location(name: str) -> tuple[str, str] | None:
    """File or module, and attribute, of `path/to/file.py:Name`, `file.py` or `package.module:Name`.

    The attribute is empty where none is given. None for a name of another form.
    """
    match = _FILE.fullmatch(name) or _MODULE.fullmatch(name)
    return (match["place"], match["attribute"] or "") if match else None


def load_attribute(place: str) -> Any:
    """What `package.module:attribute` stands for, where it is part of a program: nothing is caught."""
    module, _, attribute = place.partition(":")
    return functools.reduce(getattr, attribute.split("."), importlib.import_module(module))


def load(place: str) -> ModuleType:
    """The module at `place`, a file that ends in `.py` or the dotted name of an importable module.

    Raises `ValueError`, which names the file and the line, when there is none or it cannot be run.
    """
    if place.endswith(".py"):
        return load_file(place)
    try:
        return importlib.import_module(place)
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        file = Path(*place.split(".")).with_suffix(".py")
        if missing is None or not f"{place}.".startswith(f"{missing}."):  # it is there, and does not run
            raise ValueError(f"{place} cannot be imported: {_words(error)}") from error
        hint = f"; to name the file {file}, write {file}:Name" if file.is_file() else ""
        raise ValueError(f"{place} cannot be imported: {error}{hint}") from error


def load_file(path: str | Path) -> ModuleType:
    """The module in a file, relative to the current folder; run once in a process.

    A file that runs already, as a script or under another name, is not run again; a change of it since then
    is said once. While it runs, the modules beside it can be imported, as in a script. It is known to
    `sys.modules`, which dataclasses and Equinox need to understand annotations that are text. Raises
    `ValueError` as `load` does.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        beside = file.parent.glob("*.py") if file.parent.is_dir() else ()
        hint = nearest(str(path), [str(p) for p in beside])
        looked = "" if file.is_absolute() else f" in {Path.cwd()}"
        raise ValueError(f"{path} does not exist{looked}{hint}")
    file = file.resolve()
    name = f"_hyperlax_{hashlib.sha256(os.fsencode(file)).hexdigest()[:8]}_{file.stem}"
    if (known := sys.modules.get(name) or _loaded(file)) is not None:
        _say_changed(name, path, file)
        return known
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    try:
        _refuse_clashes(path, file)
        _run[name] = file.read_bytes()
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        with _importable(file.parent):
            spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)
        if isinstance(error, Exception) and not isinstance(error, _Clash):
            raise ValueError(f"{path} cannot be loaded: {_words(error)}") from error
        raise
    return module


_run: dict[str, bytes] = {}
"""Name of a module → what was in its file when it was run, or when a change was last said."""


def _say_changed(name: str, path: str | Path, file: Path) -> None:
    """Warn where a file is no longer what was run: a notebook writes one again, and trains the old one."""
    now = file.read_bytes()
    if _run.get(name, now) != now:
        _run[name] = now
        log.warning(
            "%s has changed since this process loaded it, which goes on with what it loaded; "
            "to use the new one, start Python again (in a notebook, restart the kernel)",
            path,
        )


class _Clash(ValueError):
    """A module beside a file has the name of another one that is imported already."""


def _loaded(file: Path) -> ModuleType | None:
    """The module that `sys.modules` has for `file`."""
    for module in sys.modules.copy().values():
        found = getattr(module, "__file__", None)
        if isinstance(found, str) and found.endswith(file.name) and Path(found).resolve() == file:
            return module
    return None


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Put `folder` first on `sys.path`, where the folder of a script is."""
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)


def _refuse_clashes(path: str | Path, file: Path) -> None:
    """Raise `ValueError` where `file` imports a module beside it whose name has been taken by another.

    Python would hand it the other one without a word: two folders may both have a `common.py`.
    """
    tree = ast.parse(file.read_bytes(), str(file))
    wanted = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    wanted |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module and not n.level}
    for name in sorted({name.partition(".")[0] for name in wanted}):
        beside = [f for f in (file.parent / f"{name}.py", file.parent / name / "__init__.py") if f.is_file()]
        taken = getattr(sys.modules.get(name), "__file__", None)
        if beside and name in sys.modules and (taken is None or Path(taken).resolve() not in beside):
            other = f"that of {taken}" if taken else "a built-in one"
            raise _Clash(f"{path} imports {beside[0].name}, but the module {name} is {other}; rename yours")


def _words(error: Exception) -> str:
    """What went wrong, and where."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    hint = "; write `from name import ...`: a file that is loaded by its path belongs to no package" * (
        _RELATIVE in str(error)
    )
    return f"{type(error).__name__}: {error}{_line(error)}{hint}"


def _line(error: Exception) -> str:
    """The file and line that an exception comes from, unless that is the machinery of imports."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")]
    frames = [f for f in frames if f.filename not in (__file__, importlib.__file__)]
    if own := foreign.place(error):
        return f" ({own.partition(' (')[2]}"
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
