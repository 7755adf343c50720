"""The part of the site that MkDocs cannot read from files: generated pages, and a menu of what there is."""

# pyright: reportMissingImports=false
# MkDocs comes with the extra `docs`; everything else here is checked without it.

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

sys.path.insert(0, str(Path(__file__).parent))

import reference

ROOT = Path(__file__).parents[2]
COPIED = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "conduct.md": "CODE_OF_CONDUCT.md",
    "license.md": "LICENSE",
}
"""Page of the site → the file of the repository that it shows."""


NOTEBOOK = "tutorials/notebook.md"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leaves out of the menu the pages that do not exist (yet)."""
    docs = Path(config.docs_dir)
    config.nav = [entry for entry in (_existing(entry, docs) for entry in config.nav or []) if entry]
    return config


def _existing(entry: Any, docs: Path) -> Any:
    """`entry` of the menu, without the pages that there are not; None if nothing is left of it."""
    if isinstance(entry, dict):
        kept = {title: _existing(below, docs) for title, below in entry.items()}
        return {title: below for title, below in kept.items() if below} or None
    if isinstance(entry, list):
        return [below for below in (_existing(b, docs) for b in entry) if below]
    return entry if entry in {*reference.PAGES, *COPIED, NOTEBOOK} or (docs / entry).is_file() else None


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are generated from the code, and those that show files of the repository."""
    for name, write in reference.PAGES.items():
        files.append(File.generated(config, name, content=write()))
    for name, source in COPIED.items():
        files.append(File.generated(config, name, content=_copied(source)))
    files.append(File.generated(config, NOTEBOOK, content=_notebook(Path(config.docs_dir))))
    return files


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Loads from the site itself what the theme would load from elsewhere."""
    return output.replace(
        "https://unpkg.com/iframe-worker/shim", get_relative_url("assets/iframe-worker.js", page.url)
    )


def _copied(source: str) -> str:
    """The page that shows a file of the repository, whose links lead to pages of the site."""
    text = (ROOT / source).read_text("utf-8")
    if not source.endswith(".md"):
        return f"# {source.capitalize()}\n\n```text\n{text}```\n"
    for page, file in COPIED.items():
        text = text.replace(f"]({file})", f"]({page})")
    return text.replace("](docs/", "](")


def _notebook(docs: Path) -> str:
    """The notebook as a page: its text, its code, and a link to the notebook itself."""
    cells = json.loads((docs / NOTEBOOK).with_suffix(".ipynb").read_text("utf-8"))["cells"]
    parts = []
    for cell in cells:
        text = "".join(cell["source"])
        first, _, rest = text.partition("\n")
        written = first.startswith("%%writefile ")
        title = f' title="{first.split()[1]}"' if written else ""
        below = rest if written else text
        parts.append(f"```python{title}\n{below}\n```" if cell["cell_type"] == "code" else text)
    parts.insert(1, "[Download the notebook](notebook.ipynb).")
    return "\n\n".join(parts) + "\n"
