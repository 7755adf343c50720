"""What objects look like in a notebook: a table of facts, and another of rows, by a template that escapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template


def card(
    facts: Mapping[str, str], title: str = "", heading: Sequence[str] = (), rows: Sequence[Sequence[str]] = ()
) -> str:
    """The HTML of `facts` below a `title`, and of a table of `rows` below its `heading`."""
    return _template().render(facts=facts, title=title, heading=heading, rows=rows)


@cache
def _template() -> Template:
    text = files("hyperlax.storage").joinpath("notebook.html").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(text)
