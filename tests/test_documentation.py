"""README and the pages below docs/ are true: their commands, code, names and links.

Every fenced block names its language. Blocks of `bash` and `python` run, page by page and in their order, in
an empty folder; a `python` block with a title is a file that the blocks after it use. Commands in `sh` blocks
install something, need other machines or take long: they are only parsed. Other languages are for reading.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TO_RUN = ("bash", "python")
TO_READ = ("sh", "text", "toml", "json", "bibtex")
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file that it is written to (or ""), its text."""

    language: str
    title: str
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """The words of every command of a shell block that calls `hyperlax`, without the first."""
        if self.language not in ("bash", "sh"):
            return []
        lines = self.text.replace("\\\n", " ").splitlines()
        calls = [re.sub(r"^(srun |uvx --from \. )", "", line.strip()) for line in lines]
        return [shlex.split(line, comments=True)[1:] for line in calls if line.startswith("hyperlax ")]


def blocks(text: str) -> list[Block]:
    found = re.findall(r'^```(\S*?)(?: title="(.*?)")?\n(.*?)^```$', text, re.DOTALL | re.MULTILINE)
    return [Block(*parts) for parts in found]


BLOCKS = {name: blocks(page.read_text("utf-8")) for name, page in zip(NAMES, PAGES, strict=True)}
COMMANDS = [tokens for found in BLOCKS.values() for block in found for tokens in block.commands]
RUNNING = [name for name, found in BLOCKS.items() if any(block.language in TO_RUN for block in found)]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


@pytest.mark.parametrize("name", NAMES)
def test_every_block_names_its_language(name):
    text = (ROOT / name).read_text("utf-8")
    assert len(BLOCKS[name]) * 2 == len(re.findall(r"^\s*```", text, re.MULTILINE)), "a fence stays open"
    assert {block.language for block in BLOCKS[name]} <= {*TO_RUN, *TO_READ}


def test_every_command_is_understood():
    """Names of commands, flags and values."""
    from hyperlax.commands.app import app, booleans

    assert len(COMMANDS) >= 25
    for tokens in COMMANDS:
        app.parse_args(booleans(tokens), exit_on_error=False, print_error=False)


def test_every_recipe_exists():
    from hyperlax.experiments import recipes

    flagged = [(tokens, i) for tokens in COMMANDS for i, t in enumerate(tokens) if t.startswith("--algo-and")]
    named = {tokens[i + 1] for tokens, i in flagged}
    assert named
    for name in named:
        if ".py" not in name:
            recipes.resolve(name)


@pytest.mark.parametrize("name", [n for n in NAMES if any(b.language == "python" for b in BLOCKS[n])])
def test_the_names_in_python_exist(name):
    """What blocks import from hyperlax, and what they use of it."""
    for block in BLOCKS[name]:
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hyperlax":
                module = importlib.import_module(node.module or "")
                for alias in node.names:
                    assert hasattr(module, alias.name) or importlib.import_module(
                        f"{node.module}.{alias.name}"
                    )
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "hyperlax":
                assert hasattr(importlib.import_module("hyperlax"), node.attr), node.attr


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    """Relative links and pictures; what is generated when the site is built is known by its generator."""
    page = ROOT / name
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"https?:|mailto:", target):
            path, _, anchor = target.partition("#")
            linked = (page.parent / path).resolve() if path else page
            assert linked.exists(), target
            if anchor:
                titles = re.findall(r"^#+ (.*)$", linked.read_text("utf-8"), re.MULTILINE)
                assert anchor in {re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles}, target


def tool(name: str) -> Any:
    """The module docs/tools/<name>.py."""
    spec = importlib.util.spec_from_file_location(f"tools_{name}", ROOT / "docs" / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_pictures_are_those_that_the_program_draws():
    drawn = {f"{name}.svg": draw().svg() for name, draw in tool("pictures").PICTURES.items()}
    kept = {path.name: path.read_text("utf-8") for path in (ROOT / "docs" / "pictures").glob("*.svg")}
    assert drawn == kept


def test_every_page_is_in_the_menu():
    menu = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    pages = {str(page.relative_to(ROOT / "docs")) for page in PAGES[1:]}
    assert pages | tool("reference").PAGES.keys() <= set(menu)
    assert len(menu) == len(set(menu))


@pytest.mark.parametrize("page", ["reference/commands.md", "reference/python.md", "reference/tables.md"])
def test_the_reference_is_generated(page):
    """Every command, public name and column is on its page."""
    import hyperlax
    from hyperlax.commands.app import app
    from hyperlax.storage.results import SCHEMAS

    text = tool("reference").PAGES[page]()
    expected = {
        "reference/commands.md": [f"## {name}\n" for name in app if not name.startswith("-")],
        "reference/python.md": [
            f"      heading: {name}\n"
            for name in hyperlax.__all__
            if name not in (*tool("reference").MODULES, "__version__")
        ],
        "reference/tables.md": [f"| `{column}` |" for schema in SCHEMAS.values() for column in schema],
    }
    assert [piece for piece in expected[page] if piece not in text] == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", RUNNING)
def test_every_block_runs(name, tmp_path):
    """In order, in an empty folder; what a command is told to write is there afterwards."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment["HYPERLAX_CACHE_DIR"] = str(ROOT / ".jax_cache")
    environment.pop("HYPERLAX_TYPECHECK", None)
    for block in BLOCKS[name]:
        if block.title:
            (tmp_path / block.title).write_text(block.text, "utf-8")
            continue
        if block.language not in TO_RUN:
            continue
        shell = ["bash", "-euo", "pipefail", "-c"]
        command = [*(shell if block.language == "bash" else [sys.executable, "-c"]), block.text]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
        for tokens in block.commands:
            for flag in ("--output-root", "--output-file"):
                if flag in tokens and "--dry-run" not in tokens:
                    assert (tmp_path / tokens[tokens.index(flag) + 1]).exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    """With a live bar, tables and charts as a notebook shows them; it is kept without outputs."""
    nbclient = pytest.importorskip("nbclient", reason='pip install ".[docs]"')
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(ROOT / "docs" / "tutorials" / "notebook.ipynb", 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in code)
    monkeypatch.setenv("HYPERLAX_CACHE_DIR", str(ROOT / ".jax_cache"))
    monkeypatch.delenv("HYPERLAX_TYPECHECK", raising=False)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = {kind for cell in code for output in cell.outputs for kind in output.get("data", {})}
    assert {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"} <= shown
