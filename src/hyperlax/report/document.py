"""The frame of every report page: one HTML file that contains its charts and Vega, with a dark mode."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from altair.utils.schemapi import debug_mode

from hyperlax.report import markup
from hyperlax.report.charts.style import Chart, NothingToDraw, theme
from hyperlax.report.vega import javascript_bundle
from hyperlax.storage.files import write_atomically


@dataclass
class Pictures:
    """Vega-Lite specifications of the charts of a page, by name."""

    specs: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, draw: Callable[[], Chart]) -> str:
        """Draw a chart and return its placeholder in HTML; without data, the reason why it is missing."""
        try:
            with debug_mode(False):  # validating every node against the schema takes longer than drawing
                spec = draw().to_dict(validate=False)
        except NothingToDraw as reason:
            return f'<p class="missing">{markup.public(str(reason))}</p>'
        title = spec.pop("title")
        for unused in ("$schema", "config"):
            spec.pop(unused, None)
        self.specs[name] = spec
        notes = "".join(f'<p class="note">{markup.public(line)}</p>' for line in title["subtitle"])
        return f'{notes}<div class="chart" data-chart="{name}"></div>'


def write_document(path: Path, title: str, body: str, pictures: Pictures) -> Path:
    """Write the page atomically (completely or not at all), and return its path."""
    themes = {mode: {**theme(mode == "dark"), "background": "transparent"} for mode in ("light", "dark")}
    charts = {"specs": pictures.specs, "themes": themes}
    page = Template(_asset("page.html")).substitute(
        title=markup.public(title),
        style=_asset("page.css"),
        body=body,
        charts=json.dumps(charts, allow_nan=False).replace("<", "\\u003c"),
        vega=javascript_bundle() if pictures.specs else "",
        script=_asset("page.js"),
    )
    return write_atomically(path, page)


def sections_of(header: str, sections: Mapping[str, tuple[str, str]]) -> str:
    """Return the body of a page: the header, links to the sections, and the sections.

    `sections` maps each anchor to the heading and the HTML content of its section.
    """
    links = "".join(f'<a href="#{anchor}">{heading}</a>' for anchor, (heading, _) in sections.items())
    return (
        f"{header}<nav>{links}</nav>"
        '<div id="selection" class="tool" hidden><span>selected: sample <b></b></span>'
        '<button type="button" id="clear">clear</button></div>'
        "<main>"
        + "".join(markup.section(anchor, *content) for anchor, content in sections.items())
        + "</main>"
    )


def tabs(name: str, contents: Mapping[str, str]) -> str:
    """Return a row of tabs, one per label of `contents`, that show one of its HTML fragments at a time.

    `name` must be unique on the page; the ids of the panels begin with it.
    """
    buttons, panels = [], []
    for place, (label, content) in enumerate(contents.items()):
        first = place == 0
        buttons.append(
            f'<button type="button" role="tab" aria-controls="{name}-{place}" '
            f'aria-selected="{str(first).lower()}">{label}</button>'
        )
        panels.append(f'<div id="{name}-{place}" role="tabpanel"{"" if first else " hidden"}>{content}</div>')
    return f'<div class="tabs" role="tablist">{"".join(buttons)}</div>{"".join(panels)}'


def _asset(name: str) -> str:
    return files("hyperlax.report").joinpath("page", name).read_text(encoding="utf-8")
