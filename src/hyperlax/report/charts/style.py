"""What all charts share: colours, light and dark themes, linked selection, saying there is nothing."""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from hyperlax.storage.results import Results

WIDTH = 1_020
"""Pixels of a full-width chart."""
NEUTRAL = "#8c8c8c"
HIGHLIGHT = "#e6308a"
DIVERGED = "#c43c00"
MAX_ROWS = 4_000
"""Rows a chart may hold; altair refuses 5,000."""

_HUES = {"ppo": "#0072b2", "dqn": "#d55e00", "sac": "#009e73"}
_OTHER_HUES = ("#cc79a7", "#b8860b", "#56b4e9", "#7f5fc0")
_TINTS = {"mlp": 0.0, "tmlp": 0.35, "drpqc": 0.6}
_MARKS = {"mlp": "circle", "tmlp": "square", "drpqc": "triangle-up"}
_OTHER_MARK = "diamond"
_OTHER_TINTS = (0.2, 0.45, 0.7)

Layered = alt.LayerChart | alt.FacetChart
Chart = alt.Chart | Layered | alt.ConcatChart | alt.HConcatChart | alt.VConcatChart


class NothingToDraw(Exception):
    """Why a chart cannot be drawn (yet), as one sentence for the reader."""


def family_colour(algorithm: str, network: str) -> str:
    """The colour of an algorithm × network in every chart: hue by algorithm, lightness by network.

    Hues are the colour-blind safe ones of Okabe & Ito; unknown names get a stable one of the others.
    """
    hue = _HUES.get(algorithm) or _OTHER_HUES[zlib.crc32(algorithm.encode()) % len(_OTHER_HUES)]
    tint = _TINTS.get(network)
    return lighten(hue, _OTHER_TINTS[zlib.crc32(network.encode()) % 3] if tint is None else tint)


def lighten(colour: str, share: float) -> str:
    """`colour` (#rrggbb) moved towards a light tone of its own hue by `share` in [0, 1]."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    rgb = colorsys.hls_to_rgb(hue, light + (0.85 - light) * share, saturation * (1 - 0.3 * share))
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in rgb)


def colour_of(manifest: dict[str, Any]) -> str:
    """The family colour of an experiment."""
    return family_colour(str(manifest.get("algorithm", "")), str(manifest.get("network", "")))


def family_colours(experiments: Sequence[Results]) -> list[str]:
    """The family colour of each experiment, lighter where one before it has the same."""
    own = [colour_of(results.manifest) for results in experiments]
    return [lighten(c, min(0.75, 0.3 * own[:i].count(c))) for i, c in enumerate(own)]


def family_shape(experiments: Sequence[Results], field: str, legend: alt.Legend | None = None) -> alt.Shape:
    """A mark for each network, so that families can be told apart without colours.

    `field` holds the names of the experiments.
    """
    names = [results.name for results in experiments]
    marks = [_MARKS.get(str(r.manifest.get("network", "")), _OTHER_MARK) for r in experiments]
    return alt.Shape(f"{field}:N", scale=alt.Scale(domain=names, range=marks), legend=legend)


def theme(dark: bool) -> dict[str, Any]:
    """Vega-Lite configuration for a light or dark page; marks have fixed colours, readable on both."""
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
    """The chart with its title, the shared selection and the light theme."""
    # Set in place: the chart's own methods copy the whole tree of panels every time.
    chart["title"] = alt.TitleParams(title, subtitle=[line for line in subtitle if line])
    picked = alt.param(name="picked", value=[]).param
    chart["params"] = [picked] if chart["params"] is alt.Undefined else [*chart["params"], picked]
    chart["config"] = alt.Config(**theme(dark=False))
    return chart


def is_picked() -> str:
    """Vega expression: the row's sample is selected. The page sets `picked`, a list of sample ids."""
    return "indexof(picked, datum.sample) >= 0"


def none_or_picked() -> str:
    """Vega expression: nothing is selected, or the row's sample is."""
    return "length(picked) == 0 || indexof(picked, datum.sample) >= 0"


def text(value: Any) -> str:
    """A hyperparameter or metric as a reader wants it: four significant digits, lists in brackets."""
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
    """d3 format of an axis over `values`: plain numbers, with an SI suffix where they get long."""
    return (
        "~s"
        if float(values.abs().cast(pl.Float64).fill_null(0.0).to_numpy().max(initial=0.0)) >= 1e5
        else ",.5~g"
    )


def jitter(places: int) -> list[float]:
    """Evenly spread offsets in [-1, 1) that do not change between runs (golden ratio sequence)."""
    return list(2 * ((0.5 + np.arange(places) * 0.6180339887498949) % 1.0) - 1)


def sample_keys(results: Results, samples: pl.Series, several: bool) -> pl.Series:
    """What the shared selection knows samples by: their ids, or family and id where `several` share a page.

    One family's sample 3 is not another's.
    """
    if not several:
        return samples
    return pl.Series(samples.name, [f"{results.name} {sample}" for sample in samples], dtype=pl.String)
