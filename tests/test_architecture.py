"""Modules depend on one another in one direction: rooms in a fixed order, no cycles, nothing hidden.

Every import counts, wherever it stands: at the top of a module, inside a function, or for type checkers only.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import hyperlax

ROOT = Path(hyperlax.__file__).parent
ROOMS = (
    "leaving",
    "registry",
    "typecheck",
    "statistics",
    "lanes",
    "hyperparams",
    "storage",
    "envs",
    "networks",
    "learning",
    "agents",
    "programs",
    "experiments",
    "policies",
    "schedules",
    "report",
    "run",
    "sweeps",
    "searches",
    "studies",
    "cluster",
    "exporters",
    "testing",
    "commands",
    "__main__",
    "__init__",
)
"""The rooms, low to high: each may import those before it, and none after it."""
MOST_ROOMS = 24
MOST_LINES = 400

Graph = dict[str, set[str]]


def graph(sources: dict[str, str]) -> Graph:
    """Module → the modules it imports, from the text of every module by dotted name.

    A name imported from a package counts as the submodule of that name, where there is one.
    """
    top = next(iter(sources)).partition(".")[0]

    def imported(node: ast.AST) -> list[str]:
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            return [name if name in sources else str(node.module) for name in submodules]
        return []

    def imports(module: str) -> set[str]:
        names = [name for node in ast.walk(ast.parse(sources[module])) for name in imported(node)]
        found = {name for name in names if name.partition(".")[0] == top} - {module}
        assert found <= sources.keys(), f"{module} imports what is not there: {found - sources.keys()}"
        return found

    return {module: imports(module) for module in sources}


def room(module: str) -> str:
    """The top-level name in the package that a module belongs to."""
    return [*module.split("."), "__init__"][1]


def between_rooms(modules: Graph) -> Graph:
    """Room → the other rooms it imports from."""
    rooms: Graph = {}
    for module, targets in modules.items():
        rooms.setdefault(room(module), set()).update(room(t) for t in targets if room(t) != room(module))
    return rooms


def circle(arrows: Graph) -> list[str]:
    """A circle of arrows, or nothing."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@cache
def package() -> Graph:
    """The import graph of hyperlax."""
    sources = {}
    for file in sorted(ROOT.rglob("*.py")):
        parts = file.relative_to(ROOT.parent).with_suffix("").parts
        sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file.read_text()
    return graph(sources)


TEXTS = {
    "p": "",
    "p.low": "import math",
    "p.low.a": "def f():\n    from p.low import b",
    "p.low.b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.high import C",
    "p.high": "import p.low.a as a",
}


def test_every_kind_of_import_is_seen():
    """In functions, for type checkers, of submodules and of names in a package; other packages are not."""
    arrows = graph(TEXTS)
    assert arrows["p.low.a"] == {"p.low.b"}
    assert arrows["p.low.b"] == {"p.high"}
    assert arrows["p.high"] == {"p.low.a"}
    assert arrows["p.low"] == arrows["p"] == set()
    assert between_rooms(arrows) == {"__init__": set(), "low": {"high"}, "high": {"low"}}
    assert set(circle(arrows)) == {"p.low.a", "p.low.b", "p.high"}
    assert circle({**arrows, "p.low.b": set()}) == []
    with pytest.raises(AssertionError, match="imports what is not there"):
        graph({**TEXTS, "p.high": "import p.nowhere"})


def test_there_are_few_rooms_and_each_has_its_place():
    rooms = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert len(rooms - {"__init__", "__main__"}) <= MOST_ROOMS
    assert rooms == {room(module) for module in package()}
    assert not rooms - set(ROOMS), "a new room needs a place in the order"


def test_the_page_on_the_design_lists_the_rooms_in_their_order():
    page = (ROOT.parents[1] / "docs" / "explanation" / "design.md").read_text()
    rows = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| `")]
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == [
        room for room in ROOMS if not room.startswith("_")
    ]


def test_no_module_imports_itself_through_others():
    assert not (found := circle(package())), " -> ".join(found)


def test_no_room_imports_itself_through_others():
    assert not (found := circle(between_rooms(package()))), " -> ".join(found)


def test_every_import_between_rooms_runs_down():
    up = [
        f"{module} imports {target}"
        for module, targets in package().items()
        for target in targets
        if ROOMS.index(room(target)) > ROOMS.index(room(module))
    ]
    assert not up


def test_statistics_stand_alone():
    """They work on anybody's arrays, and know nothing of the rest."""
    assert not {t for m, targets in package().items() for t in targets if room(m) == "statistics"} - {
        module for module in package() if room(module) in ("statistics", "typecheck")
    }


def test_files_are_short():
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in ROOT.rglob("*.py")}
    assert not {name: n for name, n in lengths.items() if n > MOST_LINES}
