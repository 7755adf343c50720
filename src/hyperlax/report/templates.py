"""The templates of pages, the only place where HTML is made; what is put into them is escaped.

Templates are files in `page/`. A value becomes text as everywhere on a page (`style.text`), loses the folders
of this machine, and is escaped. Only what a template has made, of class `Markup`, is put in as it is; `own`
gives that class to the few texts that this package writes itself.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from hyperlax.report.charts.style import text
from hyperlax.storage.shareable import without_folders

__all__ = ["Markup", "asset", "joined", "own", "piece", "render", "script_json"]


def asset(name: str) -> str:
    """The text of a file in `page/`."""
    return files("hyperlax.report").joinpath("page", name).read_text(encoding="utf-8")


def piece(macro: str, *values: Any, **named: Any) -> Markup:
    """The HTML that a macro of `page/parts.html` makes of values."""
    return getattr(_parts(), macro)(*values, **named)


def render(template: str, **values: Any) -> Markup:
    """The HTML that a template makes of values."""
    return Markup(_environment().get_template(template).render(**values))


def joined(*parts: Any) -> Markup:
    """Pieces of HTML, or text, one after the other."""
    return Markup("").join(parts)


def own(content: str) -> Markup:
    """Text of this package that is put into a page as it is: scripts, styles and drawings, never a value."""
    return Markup(content)


def script_json(value: Any) -> Markup:
    """`value` as JSON inside of a script element, which no text in it can end or comment out."""
    said = json.dumps(value, allow_nan=False)  # ASCII, hence without line separators
    return Markup(said.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _shown(value: Any) -> Any:
    return value if isinstance(value, Markup) else without_folders(text(value))


@cache
def _environment() -> Environment:
    return Environment(
        loader=FunctionLoader(asset),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        keep_trailing_newline=True,
    )


@cache
def _parts() -> Any:
    return _environment().get_template("parts.html").module
