"""Common style of all charts: colours, light and dark themes, the linked selection, and number formats.

Charts write channels out, as in `detail=alt.Detail("sample:N")`: of a string alone, Altair makes a channel
too, but takes milliseconds for each.
"""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from hyperlax.storage.results import Results

WIDTH = 1_020
"""Width of a full-width chart in pixels."""
NEUTRAL = "#8c8c8c"
HIGHLIGHT = "#e6308a"
DIVERGED = "#c43c00"
MAX_ROWS = 4_000
"""Maximum number of rows of a chart's data; altair refuses more than 5,000."""

_HUES = {"ppo": "#0072b2", "dqn": "#d55e00", "sac": "#009e73"}
_OTHER_HUES = ("#cc79a7", "#b8860b", "#56b4e9", "#7f5fc0")
_TINTS = {"mlp": 0.0, "tmlp": 0.35, "drpqc": 0.6}
_MARKS = {"mlp": "circle", "tmlp": "square", "drpqc": "triangle-up"}
_OTHER_MARK = "diamond"
_OTHER_TINTS = (0.2, 0.45, 0.7)
_LIGHTEST = 0.75
_REPEATED_MARKS = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "stroke")

Layered = alt.LayerChart | alt.FacetChart
Chart = alt.Chart | Layered | alt.ConcatChart | alt.HConcatChart | alt.VConcatChart


class NothingToDraw(Exception):
    """A chart cannot be drawn (yet); the message is a sentence for the reader that says why."""


def family_colour(algorithm: str, network: str) -> str:
    """Return the colour that a family has in every chart: hue by algorithm, lightness by network.

    The hues are from the colour-blind safe palette of Okabe & Ito; an unknown algorithm always gets the same
    one of the remaining hues.
    """
    hue = _HUES.get(algorithm) or _OTHER_HUES[zlib.crc32(algorithm.encode()) % len(_OTHER_HUES)]
    tint = _TINTS.get(network)
    return lighten(hue, _OTHER_TINTS[zlib.crc32(network.encode()) % 3] if tint is None else tint)


def lighten(colour: str, share: float) -> str:
    """Move `colour` (#rrggbb) towards a light tone of its own hue, by `share` in [0, 1]."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    rgb = colorsys.hls_to_rgb(hue, light + (0.85 - light) * share, saturation * (1 - 0.3 * share))
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in rgb)


def colour_of(manifest: dict[str, Any]) -> str:
    """Return the family colour of an experiment."""
    return family_colour(str(manifest.get("algorithm", "")), str(manifest.get("network", "")))


def sample_colours(manifest: dict[str, Any], count: int) -> list[str]:
    """Return a colour for each of `count` samples of one experiment: that of its family, then other hues.

    Samples beyond the number of hues have lighter tones of them.
    """
    first = colour_of(manifest)
    hues = [first, *(h for h in (*_HUES.values(), *_OTHER_HUES) if not alike(h, first))]
    rounds = max(1, -(-count // len(hues)))
    return [lighten(hues[i % len(hues)], _LIGHTEST * (i // len(hues)) / rounds) for i in range(count)]


def family_colours(experiments: Sequence[Results]) -> list[str]:
    """Return the colour of each experiment: that of its family, and never the same or a similar one twice.

    Experiments of one hue, two of which look alike, are given as many tones of it instead.
    """
    chosen = [colour_of(results.manifest) for results in experiments]
    hues = [family_colour(str(results.manifest.get("algorithm", "")), "mlp") for results in experiments]
    for hue in dict.fromkeys(hues):
        places = [i for i, other in enumerate(hues) if other == hue]
        if any(alike(chosen[a], chosen[b]) for a, b in combinations(places, 2)):
            for turn, place in enumerate(places):
                chosen[place] = lighten(hue, _LIGHTEST * turn / (len(places) - 1))
    return chosen


def alike(colour: str, other: str) -> bool:
    """Whether two colours (#rrggbb) can hardly be told apart: no channel differs by a tenth."""
    return all(abs(int(colour[i : i + 2], 16) - int(other[i : i + 2], 16)) < 26 for i in (1, 3, 5))


def family_shape(experiments: Sequence[Results], field: str, legend: alt.Legend | None = None) -> alt.Shape:
    """Return an encoding of a mark for each network, so that families differ not only in colour.

    If two experiments have algorithm and network in common, each has a mark of its own instead.

    `field` is the column with the names of the experiments.
    """
    names = [results.name for results in experiments]
    marks = [_MARKS.get(str(r.manifest.get("network", "")), _OTHER_MARK) for r in experiments]
    families = [(r.manifest.get("algorithm"), mark) for r, mark in zip(experiments, marks, strict=True)]
    if len(set(families)) < len(families):
        marks = [_REPEATED_MARKS[i % len(_REPEATED_MARKS)] for i in range(len(marks))]
    return alt.Shape(f"{field}:N", scale=alt.Scale(domain=names, range=marks), legend=legend)


def theme(dark: bool) -> dict[str, Any]:
    """Return the Vega-Lite configuration for a light or dark page; the colours of marks suit both."""
    ink, faint, grid = ("#e4e4e4", "#a8a8a8", "#3a3d42") if dark else ("#1f2328", "#57606a", "#e3e5e8")
    font = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', sans-serif"
    return {
        "background": "transparent" if dark else "white",
        "font": font,
        "view": {"stroke": None},
        "axis": {
            "labelColor": faint,
            "titleColor": ink,
            "gridColor": grid,
            "domainColor": faint,
            "tickColor": faint,
            "labelFontSize": 11,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "labelLimit": 220,
            "labelFlush": False,
        },
        "legend": {
            "labelColor": ink,
            "titleColor": ink,
            "labelFontSize": 11,
            "titleFontSize": 12,
            "labelLimit": 220,
        },
        "title": {
            "color": ink,
            "subtitleColor": faint,
            "anchor": "start",
            "fontSize": 15,
            "subtitleFontSize": 12,
            "offset": 12,
        },
        "header": {"labelColor": ink, "titleColor": ink},
        "text": {"color": ink},
        "style": {
            "halo": {"stroke": "#16181c" if dark else "#ffffff", "strokeWidth": 3, "strokeJoin": "round"},
        },
    }


def finished(chart: Chart, title: str, subtitle: list[str]) -> Chart:
    """Add the title, the subtitle lines that are not empty, the shared selection and the light theme."""
    # The attributes are set in place, because altair's methods copy the whole tree of panels each time.
    chart["title"] = alt.TitleParams(title, subtitle=[line for line in subtitle if line])
    picked = alt.param(name="picked", value=[]).param
    chart["params"] = [picked] if chart["params"] is alt.Undefined else [*chart["params"], picked]
    chart["config"] = alt.Config(**theme(dark=False))
    return chart


def is_picked() -> str:
    """Return a Vega expression that is true if the row's sample is selected.

    The page sets the parameter `picked` to the list of selected samples.
    """
    return "indexof(picked, datum.sample) >= 0"


def none_or_picked() -> str:
    """Return a Vega expression that is true if nothing is selected, or if the row's sample is selected."""
    return "length(picked) == 0 || indexof(picked, datum.sample) >= 0"


def text(value: Any) -> str:
    """Format a value for display: numbers with four significant digits, lists in brackets, "–" for None."""
    if value is None:
        return "–"
    if isinstance(value, bool | str | int):
        return str(value)
    if isinstance(value, pl.Series | list | tuple):
        return "[" + ", ".join(text(v) for v in value) + "]"
    if isinstance(value, float):
        return f"{value:.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
    return str(value)


def axis_format(values: pl.Series) -> str:
    """Return the d3 number format for an axis over `values`: plain, or with SI suffixes from 100,000."""
    return (
        "~s"
        if float(values.abs().cast(pl.Float64).fill_null(0.0).to_numpy().max(initial=0.0)) >= 1e5
        else ",.5~g"
    )


def over_training() -> alt.Scale:
    """Return the scale of an axis along training, which begins where training does."""
    return alt.Scale(zero=True, nice=False)


def steps_axis(ticks: int, short: bool = True) -> alt.Axis:
    """Return an axis of about so many `ticks` with SI suffixes, unless not `short`; zero has no suffix."""
    if not short:
        return alt.Axis(format=",.4~g", tickCount=ticks)
    return alt.Axis(format="~s", tickCount=ticks, labelExpr="datum.value == 0 ? '0' : datum.label")


def of_returns() -> alt.Scale:
    """Return the scale of an axis of returns, with a margin: a curve at an end does not lie on the frame."""
    return alt.Scale(zero=False, padding=6)


def jitter(places: int) -> list[float]:
    """Return evenly spread offsets in [-1, 1) that are the same in every run (golden ratio sequence)."""
    return list(2 * ((0.5 + np.arange(places) * 0.6180339887498949) % 1.0) - 1)


def sample_keys(results: Results, samples: pl.Series, several: bool) -> pl.Series:
    """Return the keys by which the linked selection of a page identifies samples.

    These are sample ids, or family and id if `several` families are on the page: sample 3 of one family is
    not sample 3 of another.
    """
    if not several:
        return samples
    return pl.Series(samples.name, [f"{results.name} {sample}" for sample in samples], dtype=pl.String)
