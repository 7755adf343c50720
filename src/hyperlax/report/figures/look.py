"""How a figure looks: its size in inches, fonts, colours and dashes that differ without colour, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import altair as alt

from hyperlax.report.figures.panels import MOST_GROUPS

POINTS_PER_INCH = 72
"""Pixels of a chart per inch: one is a point of a PDF file."""

COLOURS = (
    "#16165c",
    "#b01f63",
    "#2b84c4",
    "#ec8330",
    "#d9c72e",
    "#5b2a86",
    "#8f4a16",
    "#3f9a6a",
    "#d88fb8",
    "#9fd8e6",
)
"""Colours in the order of the groups. The first five become lighter by equal steps, so that they are told
apart without colour and by any eye; further ones differ in colour and, in print without it, by their dash."""

DASHES: tuple[tuple[float, ...], ...] = (
    (1, 0),
    (6, 2),
    (2, 1.5),
    (8, 2, 2, 2),
    (4, 1.5, 1, 1.5, 1, 1.5),
    (12, 2),
    (1, 2.5),
    (12, 2, 2, 2, 2, 2),
    (4, 4),
    (6, 1, 1, 1),
)
"""Dashes in the order of the groups, in pixels: drawn, left out, drawn …"""

Legend = Literal["top", "right", "bottom", "left", "none"]
LEGENDS: tuple[Legend, ...] = ("top", "right", "bottom", "left", "none")


@dataclass(frozen=True)
class Look:
    """How a figure looks; the defaults fit a column of a paper with two.

    - `width`, `height`: of the whole figure, in inches.
    - `font`, `font_size`: the family, which has to be installed, and the size of tick labels in points;
      titles are one point larger.
    - `colours`: instead of `COLOURS` in the order of the groups, or group → colour.
    - `dashes`: whether lines also differ in their dash.
    - `x_title`, `y_title`, `legend_title`: words of one's own; an empty text leaves the title out.
    - `legend`: where it is, or `none`.

    Raises `ValueError` for a size that no figure can have, and for too few colours or unknown groups.
    """

    width: int | float = 3.25
    height: int | float = 2.3
    font: str = "Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif"
    font_size: int | float = 8
    colours: Sequence[str] | Mapping[str, str] = field(default_factory=tuple)
    dashes: bool = True
    x_title: str | None = None
    y_title: str | None = None
    legend_title: str | None = None
    legend: Legend = "top"

    def __post_init__(self):
        for name, least, most in (("width", 0.5, 50), ("height", 0.5, 50), ("font_size", 2, 72)):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be from {least:g} to {most:g}, got {getattr(self, name)!r}")
        if self.legend not in LEGENDS:
            raise ValueError(f"legend is one of {', '.join(LEGENDS)}; got {self.legend!r}")

    def colour_of(self, groups: Sequence[str]) -> list[str]:
        """A colour for each of the groups; those that were given are kept, no other is used twice."""
        if isinstance(self.colours, Mapping):
            if wrong := [name for name in self.colours if name not in groups]:
                raise ValueError(f'there is no group "{wrong[0]}" to colour; there are {", ".join(groups)}')
            free = iter([c for c in COLOURS if c not in self.colours.values()])
            return [self.colours.get(group) or next(free) for group in groups]
        if self.colours and len(self.colours) < len(groups):
            raise ValueError(f"{len(self.colours)} colours for {len(groups)} groups; give each its own")
        return list(self.colours or COLOURS)[: len(groups)]

    def colour(self, groups: Sequence[str], title: str) -> alt.Color:
        """The encoding of the column `group` as a colour."""
        scale = alt.Scale(domain=list(groups), range=self.colour_of(groups))
        return alt.Color("group:N", scale=scale, legend=self._legend(groups, title))

    def dash(self, groups: Sequence[str], title: str) -> alt.StrokeDash | alt.StrokeDashValue:
        """The encoding of the column `group` as a dash."""
        if not self.dashes:
            return alt.StrokeDashValue([1, 0])
        scale = alt.Scale(domain=list(groups), range=[list(d) for d in DASHES[: len(groups)]])
        return alt.StrokeDash("group:N", scale=scale, legend=self._legend(groups, title))

    def _legend(self, groups: Sequence[str], title: str) -> alt.Legend | None:
        if self.legend == "none" or len(groups) < 2:
            return None
        words = title if self.legend_title is None else self.legend_title
        beside = self.legend in ("left", "right")
        longest = max(map(len, groups)) * 0.56 * self.font_size + 34
        fitting = max(1, min(len(groups), int(self.width * POINTS_PER_INCH / longest)))
        return alt.Legend(
            title=words or None,
            orient=self.legend,
            columns=1 if beside else fitting,
            symbolType="stroke",
            titleOrient="top" if beside or fitting < len(groups) else "left",
            symbolSize=(1.9 * self.font_size) ** 2,
            symbolStrokeWidth=1.6,
            symbolOpacity=1,
            labelLimit=0,
            titleFontSize=self.font_size,
            titleAnchor="middle" if not beside and fitting >= len(groups) else "start",
        )

    def size(self, panels: int) -> tuple[float, float]:
        """Width and height of each of some panels side by side, in pixels; of a single one with its axes."""
        width, height = (float(side * POINTS_PER_INCH) for side in (self.width, self.height))
        if panels == 1:
            return width, height
        axis, around = (
            6.5 * self.font_size,
            (6 if self.legend in ("left", "right", "none") else 8.5) * self.font_size,
        )
        return max(20.0, (width - 8) / panels - axis), max(20.0, height - around)

    def config(self) -> dict[str, Any]:
        """The configuration of Vega-Lite."""
        labels = {"labelFontSize": self.font_size, "titleFontSize": self.font_size + 1}
        ink = {"labelColor": "black", "titleColor": "black", "titleFontWeight": "normal"}
        return {
            "background": "white",
            "font": self.font,
            "padding": 2,
            "view": {"stroke": None},
            "axis": {**labels, **ink, "gridColor": "#e6e6e6", "gridWidth": 0.5, "domainColor": "black"}
            | {"tickColor": "black", "tickSize": 3, "labelPadding": 2, "titlePadding": 4, "labelLimit": 0},
            "legend": {
                **labels,
                **ink,
                "rowPadding": 0,
                "columnPadding": 6,
                "offset": 3,
                "padding": 0,
                "titlePadding": 4,
            },
            "header": {**labels, **ink, "labelPadding": 4},
        }


assert len(COLOURS) == len(DASHES) == MOST_GROUPS
