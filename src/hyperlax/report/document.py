"""The frame of every report page: one HTML file that contains its charts and Vega, with a dark mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from altair.utils.schemapi import debug_mode

from hyperlax.report import markup
from hyperlax.report.charts.style import Chart, NothingToDraw, theme
from hyperlax.report.export import picture
from hyperlax.report.templates import Markup, asset, joined, own, piece, render, script_json
from hyperlax.report.vega import javascript_bundle
from hyperlax.storage.files import write_output


@dataclass
class Pictures:
    """The charts of a page.

    - `embed_data`: whether the page holds their data and draws them, or pictures that are drawn here.
    - `specs`: Vega-Lite specifications, by name, of those that the page draws.
    - `reasons`: why others are missing, by name.
    """

    embed_data: bool = True
    specs: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, draw: Callable[[], Chart]) -> Markup:
        """Draw a chart and return its placeholder in HTML; without data, the reason why it is missing."""
        try:
            with debug_mode(False):  # validating every node against the schema takes longer than drawing
                spec = draw().to_dict(validate=False)
        except NothingToDraw as reason:
            self.reasons[name] = str(reason)
            return piece("missing", str(reason))
        if not self.embed_data:
            subtitle = spec.pop("title")["subtitle"]
            return joined(
                markup.notes(subtitle), piece("picture", own(picture(spec)), name.replace("_", " "))
            )
        title = spec.pop("title")
        for unused in ("$schema", "config"):
            spec.pop(unused, None)
        self.specs[name] = spec
        return joined(markup.notes(title["subtitle"]), piece("chart", name))


STILL = (
    "The charts of this page are pictures, without the underlying data: pointing at them shows nothing, they "
    "cannot be saved from the page, and a selected sample is highlighted in tables alone. The same command "
    "without --embed-data no writes the page with all of it."
)
"""What a page without data lacks, in words."""


def write_document(path: Path, title: str, body: Markup | str, pictures: Pictures) -> Path:
    """Write the page atomically (completely or not at all), and return its path; plain text is escaped."""
    themes = {mode: {**theme(mode == "dark"), "background": "transparent"} for mode in ("light", "dark")}
    charts = {"specs": pictures.specs, "themes": themes}
    if not pictures.embed_data:
        body = joined(body, piece("note", STILL))
    page = render(
        "page.html",
        title=title,
        style=own(asset("page.css")),
        body=body,
        charts=script_json(charts),
        vega=own(javascript_bundle() if pictures.specs else ""),
        script=own(asset("page.js")),
    )
    return write_output(path, str(page))


def sections_of(header: Markup, sections: Mapping[str, tuple[str, Markup]]) -> Markup:
    """Return the body of a page: the header, links to the sections, and the sections.

    `sections` maps each anchor to the heading and the HTML content of its section.
    """
    return piece("sections", header, sections)


def tabs(name: str, contents: Mapping[str, Markup]) -> Markup:
    """Return a row of tabs, one per label of `contents`, that show one of its HTML fragments at a time.

    `name` must be unique on the page; the ids of the panels begin with it.
    """
    return piece("tabs", name, contents)
