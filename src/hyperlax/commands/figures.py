"""The command that draws a figure for a paper."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from hyperlax import leaving
from hyperlax.commands.flags import Names, Place, limited
from hyperlax.storage.places import check_writable, resolved

Formats = Annotated[list[Literal["pdf", "svg", "png"]] | None, Parameter(consume_multiple=True, negative="")]


def figure(
    results_dirs: Annotated[list[Place], Parameter(consume_multiple=True, negative="")],
    /,
    *,
    by: Names = None,
    show: Literal["iqm", "median", "mean", "best", "all"] | None = None,
    paired: bool = False,
    against: str | None = None,
    band: Literal["interval", "range", "none"] = "interval",
    metric: str = "return",
    x: str = "env_steps",
    bins: Annotated[int | None, limited("bins")] = None,
    output_file: Place = Path("figure.pdf"),
    format: Formats = None,
    labels: Names = None,
    colours: Names = None,
    width: float = 3.25,
    height: float = 2.3,
    font: str | None = None,
    font_size: float = 8,
    x_title: str | None = None,
    y_title: str | None = None,
    legend_title: str | None = None,
    legend: Literal["top", "right", "bottom", "left", "none"] = "top",
) -> int:
    """Draw learning curves of any grouping for a paper, as PDF, SVG or PNG, with the plotted data as CSV.

    The figure holds its axes and legend only; text for a caption is printed.

    Parameters
    ----------
    results_dirs
        Folders of experiments, or any folders that contain some.
    by
        What to group by: recipe, algorithm, network, experiment, or a hyperparameter or setting such as
        critic.layer_norm; several give a group for each combination. [default: what the experiments differ
        in; with --paired what was ablated]
    show
        The interquartile mean (iqm), median or mean over the samples of each group, its best sample, or all.
        [default: iqm; median with --paired]
    paired
        Draw differences instead: samples that agree in all but --by are paired and compared with one group.
    against
        The group that others are compared with, by its label. [default: the first]
    band
        95 % intervals where they hold, the range of the samples, or none.
    metric
        Which curve: return, stochastic_return, length, train/... as in curves.parquet. Or a score (final,
        auc, peak, peak_of_mean): the return, with the best sample and the pairs judged by that.
    x
        env_steps, seconds, gradient_steps or circuit_executions.
    bins
        Divide the numbers of --by, such as learning rates, into this many groups, each with as many of the
        distinct values.
    output_file
        Ends in .pdf, .svg or .png; the data is written beside it as .csv. A file that exists is overwritten.
    format
        Several formats at once, written side by side.
    labels
        Your own names for groups, in your order: "true=with LayerNorm" "false=without".
    colours
        One for each group, or group=colour: "#004488" or false=black.
    width
        In inches; the default fits one column of a two-column paper.
    height
        In inches.
    font
        Font family; it has to be installed.
    font_size
        Size of tick labels, in points.
    x_title
        Title of the axis; an empty text leaves it out.
    y_title
        Title of the axis; an empty text leaves it out.
    legend_title
        Title of the legend; an empty text leaves it out.
    legend
        Position of the legend.
    """
    from hyperlax.report import plot
    from hyperlax.report.charts.style import NothingToDraw
    from hyperlax.report.figures.figure import curves_figure, difference_figure

    files = _files(output_file, format or [])
    if against is not None and not paired:
        raise ValueError("--against is for --paired, which compares groups with one of them")
    if paired and bins:
        raise ValueError("--paired compares single values; leave out --bins")
    look = plot.Look(
        width=width,
        height=height,
        font=font or plot.Look.font,
        font_size=font_size,
        colours=_colours(colours or []),
        x_title=x_title,
        y_title=y_title,
        legend_title=legend_title,
        legend=legend,
    )
    named = _assigned("--labels", labels or [])
    results = plot.read(list(results_dirs))
    try:
        if paired:
            drawn = difference_figure(results, by, against, show or "median", band, metric, x, named, look)
        else:
            drawn = curves_figure(results, by, show or "iqm", band, metric, x, bins, named, look)
    except NothingToDraw as why:
        raise ValueError(f"there is nothing to draw: {why}") from None
    leaving.from_now_on(None)
    for path in plot.save(drawn.chart, *files):
        print(path)
    for line in drawn.notes:
        print(line)
    return 0


def _files(output_file: Path, formats: Sequence[str]) -> list[Path]:
    """The files to write; raises `ValueError` for an unsupported suffix, or a folder in their place."""
    if output_file.suffix not in (".pdf", ".svg", ".png"):
        raise ValueError(f"--output-file {output_file} must end in .pdf, .svg or .png")
    check_writable(resolved(output_file).parent, "--output-file")
    files = [output_file, *(output_file.with_suffix(f".{kind}") for kind in formats)]
    files = list(dict.fromkeys(files)) if not formats else list(dict.fromkeys(files[1:]))
    for path in [*files, files[0].with_suffix(".csv")]:
        if os.path.isdir(path):
            raise ValueError(f"--output-file {path} is a folder")
    return files


def _assigned(flag: str, pairs: list[str]) -> dict[str, str]:
    """`a=b` as a mapping; raises `ValueError` for text of another form and for a name given twice."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, words = pair.partition("=")
        if not equals or name in found:
            raise ValueError(f"{flag} needs group=words, each group once; got {pair!r}")
        found[name] = words
    return found


def _colours(given: list[str]) -> list[str] | dict[str, str]:
    """Colours in the order of the groups, or group → colour."""
    if any("=" in colour for colour in given):
        return _assigned("--colours", given)
    return given
