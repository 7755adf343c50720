"""`HYPERLAX_TYPECHECK=1`: modules of a package whose functions check their arguments and results when called.

Tests run with it, where functions are called millions of times. jaxtyping's own import hook binds the
signature and checks the arguments twice in every call; here beartype checks once, within a context of named
dimensions if an annotation has any, and functions that have nothing to check stay as they are.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import jaxtyped

_CONF = BeartypeConf(violation_type=TypeError)
_VERSION = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
_NAME = "_hyperlax_checked"
"""What instrumented modules call this one."""


def install(package: str) -> None:
    """Check the functions and dataclasses of every module of `package` that is imported from now on."""
    sys.meta_path.insert(0, _Finder(package))


def function(checked: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function raise `TypeError` for arguments and results that are not as annotated.

    The name of a dimension stands for the same length in all of them. Annotations that cannot be resolved,
    because they refer to a name inside a function, are left out.
    """
    written = checked.__annotations__
    hints = {name: _resolved(checked, name) for name in written}
    parts = [part for hint in hints.values() for part in _parts(hint)]
    if all(hint is Any for hint in hints.values()):
        return checked
    checked.__annotations__ = hints
    checking = beartype(conf=_CONF)(checked)
    checked.__annotations__ = checking.__annotations__ = written
    if any("{" in getattr(part, "dim_str", "") for part in parts):  # a length computed from arguments
        return jaxtyped(checking, typechecker=None)
    if not any(isinstance(part, type) and part.__module__ == "jaxtyping" for part in parts):
        return checking

    @functools.wraps(checked)
    def within_context(*args: Any, **kwargs: Any) -> Any:
        with jaxtyped("context"):
            return checking(*args, **kwargs)

    return within_context


def dataclass(kind: type) -> type:
    """Make the constructor of a dataclass check its fields; other classes stay as they are."""
    return jaxtyped(kind, typechecker=beartype)


def instrumented(source: str | bytes, path: str) -> ast.Module:
    """The syntax tree of a module whose functions and dataclasses are checked."""
    tree = ast.parse(source, path)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            node.decorator_list.insert(0, _decorator("dataclass", node))
        elif isinstance(node, ast.FunctionDef) and _annotated(node):
            node.decorator_list.append(_decorator("function", node))
    first = next((i for i, node in enumerate(tree.body) if not _stays_first(node)), len(tree.body))
    tree.body.insert(first, ast.Import([ast.alias(__name__, _NAME)]))
    return ast.fix_missing_locations(tree)


def _resolved(checked: Callable[..., Any], name: str) -> Any:
    def alone() -> None: ...

    alone.__annotations__ = {name: checked.__annotations__[name]}
    try:
        return typing.get_type_hints(alone, checked.__globals__, include_extras=True)[name]
    except Exception:  # whatever evaluating an annotation raises
        return Any


def _parts(hint: Any) -> Iterator[Any]:
    """An annotation and all that it is composed of."""
    yield hint
    for part in typing.get_args(hint):
        yield from _parts(part)


def _annotated(node: ast.FunctionDef) -> bool:
    a = node.args
    arguments = [*a.posonlyargs, *a.args, *a.kwonlyargs, *(x for x in (a.vararg, a.kwarg) if x)]
    return node.returns is not None or any(x.annotation is not None for x in arguments)


def _decorator(name: str, node: ast.AST) -> ast.expr:
    return ast.copy_location(ast.parse(f"{_NAME}.{name}", mode="eval").body, node)


def _stays_first(node: ast.stmt) -> bool:
    """Whether it is a module's docstring or a `__future__` import."""
    if isinstance(node, ast.ImportFrom):
        return node.module == "__future__"
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


class _Finder(MetaPathFinder):
    def __init__(self, package: str):
        self._package = package

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if f"{fullname}.".startswith(f"{self._package}."):
            spec = PathFinder.find_spec(fullname, path, target)
            if spec is not None and isinstance(spec.loader, SourceFileLoader):
                spec.loader = _Loader(spec.loader.name, spec.loader.path)
                return spec
        return None


class _Loader(SourceFileLoader):
    """Compiles instrumented modules, into bytecode beside that of the plain ones."""

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> Any:
        return compile(instrumented(data, path), path, "exec", dont_inherit=True, optimize=_optimize)

    def get_data(self, path: str) -> bytes:
        return super().get_data(_own(path))

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        super().set_data(_own(path), data, _mode=_mode)


def _own(path: str) -> str:
    return path.removesuffix(".pyc") + f".checked-{_VERSION}.pyc" if path.endswith(".pyc") else path
