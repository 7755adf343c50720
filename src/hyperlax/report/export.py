"""Export of charts as image files."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hyperlax.report.charts import Chart, NothingToDraw, charts_with
from hyperlax.report.charts.search import SEARCH_CHARTS
from hyperlax.report.charts.style import theme
from hyperlax.report.options import Options
from hyperlax.report.vega import vegalite_version, vl_convert
from hyperlax.storage.files import write_output
from hyperlax.storage.results import Results
from hyperlax.storage.wording import counted

FORMATS = ("png", "svg", "pdf")
_SCALE = 2.0
_LABELS = re.compile(r' (?:aria-\w+|role)="[^"]*"')
"""What Vega writes at every mark of an SVG document for screen readers, which see a page's picture as one."""
_DECIMALS = re.compile(r"-?\d+\.\d{3,}(?![\w.])")
"""Coordinates that are given to less than a hundredth of a pixel."""
_DEFAULTS = Options()


def export_charts(
    results: Results,
    folder: Path,
    formats: Sequence[str] = FORMATS,
    options: Options = _DEFAULTS,
    charts: Mapping[str, Callable[[Results], Chart]] | None = None,
) -> list[Path]:
    """Write every chart that has data to `folder` as `<chart>.<format>`, and return the paths written.

    `charts` defaults to all charts of an experiment and of a search. PNG images have twice the resolution of
    the page. Raises ValueError for an unknown format.
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise ValueError(f"unknown image format {', '.join(unknown)}; choose from {', '.join(FORMATS)}")
    vl_convert()
    written = []
    chosen = {**charts_with(options), **SEARCH_CHARTS} if charts is None else charts
    for name, chart in chosen.items():
        try:
            spec = chart(results).to_dict()
        except NothingToDraw:
            continue
        if options.informed:
            spec = informed_title(spec, [results])
        for suffix in formats:
            written.append(write_output(folder / f"{name}.{suffix}", image(spec, suffix)))
    return written


def informed_title(spec: dict[str, Any], experiments: Sequence[Results]) -> dict[str, Any]:
    """Add the experiments and the environment to the chart's title, and their settings to its subtitle."""
    title = spec["title"]
    names = ", ".join(results.name for results in experiments)
    env = experiments[0].manifest.get("env", "an unnamed environment")
    made = dict.fromkeys(about(results) for results in experiments)
    text = f"{title['text']}: {names} on {env}"
    return {**spec, "title": {**title, "text": text, "subtitle": [*title["subtitle"], *made]}}


def about(results: Results) -> str:
    """Describe an experiment in a sentence: samples, seeds, budget, evaluations and protocol, where known."""
    manifest = results.manifest
    settings = manifest.get("settings", {})
    parts = [counted(len(results.samples), "sample")]
    if seeds := settings.get("seeds"):
        parts[0] += f" × {counted(int(seeds), 'seed')}"
    if budget := settings.get("total_timesteps"):
        parts.append(f"{int(budget):,} env steps")
    count, episodes = (settings.get(key) for key in ("evaluations", "eval_episodes"))
    if count and episodes:
        parts.append(f"{counted(int(count), 'evaluation')} of {counted(int(episodes), 'episode')}")
    parts += [f"{key} {manifest[key]}" for key in ("protocol", "seed") if manifest.get(key) is not None]
    return ", ".join(parts) + "."


def converted(drawing: str, suffix: str) -> bytes:
    """Convert the SVG document `drawing` to the content of a png, svg or pdf file."""
    if suffix == "png":
        return vl_convert().svg_to_png(drawing, scale=_SCALE)
    if suffix == "pdf":
        return vl_convert().svg_to_pdf(drawing)
    return drawing.encode()


def picture(spec: dict[str, Any]) -> str:
    """Draw the Vega-Lite chart `spec` as a data address for a page: as SVG or as PNG, what is shorter."""
    light = {**spec, "config": theme(dark=False)}
    drawing = _LABELS.sub("", image(light, "svg").decode())
    drawing = _DECIMALS.sub(lambda found: f"{float(found[0]):.2f}", drawing)
    kinds = {"image/svg+xml": drawing.encode(), "image/png": image(light, "png")}
    kind = min(kinds, key=lambda kind: len(kinds[kind]))
    return f"data:{kind};base64,{b64encode(kinds[kind]).decode()}"


def image(spec: dict[str, Any], suffix: str, scale: float = _SCALE) -> bytes:
    """Render the Vega-Lite chart `spec` as the content of a png, svg or pdf file.

    A pixel of the chart is a point of a pdf file, and `scale` pixels of a png file.
    """
    vlc, version = vl_convert(), vegalite_version()
    if suffix == "png":
        return vlc.vegalite_to_png(spec, vl_version=version, scale=scale)
    if suffix == "pdf":
        return vlc.vegalite_to_pdf(spec, vl_version=version)
    return vlc.vegalite_to_svg(spec, vl_version=version).encode()
