"""The charts of an experiment as image files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hyperlax.files import write_atomically
from hyperlax.report.charts import CHARTS, NothingToDraw
from hyperlax.report.vega import vegalite_version, vl_convert
from hyperlax.results import Results

FORMATS = ("png", "svg", "pdf")
_SCALE = 2.0


def export_charts(results: Results, folder: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Writes every chart that has data to `folder` as `<chart>.<format>`; returns the paths written.

    PNG is drawn at twice the size of the page. Raises ValueError for an unknown format.
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise ValueError(f"unknown image format {', '.join(unknown)}; choose from {', '.join(FORMATS)}")
    vl_convert()
    written = []
    for name, chart in CHARTS.items():
        try:
            spec = chart(results).to_dict()
        except NothingToDraw:
            continue
        for suffix in formats:
            written.append(write_atomically(folder / f"{name}.{suffix}", image(spec, suffix)))
    return written


def converted(drawing: str, suffix: str) -> bytes:
    """The SVG document `drawing` as a png, svg or pdf file."""
    if suffix == "png":
        return vl_convert().svg_to_png(drawing, scale=_SCALE)
    if suffix == "pdf":
        return vl_convert().svg_to_pdf(drawing)
    return drawing.encode()


def image(spec: dict[str, Any], suffix: str) -> bytes:
    """The Vega-Lite chart `spec` as a png, svg or pdf file."""
    vlc, version = vl_convert(), vegalite_version()
    if suffix == "png":
        return vlc.vegalite_to_png(spec, vl_version=version, scale=_SCALE)
    if suffix == "pdf":
        return vlc.vegalite_to_pdf(spec, vl_version=version)
    return vlc.vegalite_to_svg(spec, vl_version=version).encode()
