"""Figures as altair charts, ready for a paper: `hyperlax.plot.learning_curves(results, by="recipe")`.

What is drawn can be changed further with altair's own methods, and written with `save`, which puts the data
behind the figure beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from hyperlax.report.charts.style import Chart
from hyperlax.report.export import FORMATS, image
from hyperlax.report.figures.figure import curves_figure, difference_figure, difference_summary
from hyperlax.report.figures.look import Look
from hyperlax.storage import store
from hyperlax.storage.collection import Experiments
from hyperlax.storage.files import write_output
from hyperlax.storage.results import Results

__all__ = ["Look", "differences", "learning_curves", "pairs", "save", "table"]

Given = Results | Experiments | str | Path | Sequence[Results | Experiments | str | Path]
"""Results, a folder above those of any number of experiments, what `hyperlax.read` gives, or several."""


def learning_curves(
    results: Given,
    by: str | Sequence[str] | None = None,
    *,
    show: str = "iqm",
    band: str = "interval",
    metric: str = "return",
    x: str = "env_steps",
    bins: int | None = None,
    labels: Mapping[str, str] | None = None,
    look: Look | None = None,
) -> Chart:
    """Return the learning curves of groups of samples, with a panel for each environment.

    - `by`: what makes the groups: `recipe`, `algorithm`, `network`, `experiment` (the folder), a
      hyperparameter such as `critic.layer_norm`, a setting, or several of them. By default what tells the
      experiments apart.
    - `show`: the interquartile mean (`iqm`), `median` or `mean` over the samples of a group, its `best`
      sample, or `all` of them.
    - `band`: the 95 % `interval` where one holds, the `range` of the samples, or `none`.
    - `metric`: which curve, such as `return`, `stochastic_return`, `length` or `train/entropy`; or a score
      (`final`, `auc`, `peak`, `peak_of_mean`), for the return and the best sample by that score.
    - `x`: `env_steps`, `seconds`, `gradient_steps` or `circuit_executions`.
    - `bins`: how many groups to make of a number, such as a learning rate, each with as many of its distinct
      values.
    - `labels`: label of a group → words of one's own; its order goes first.
    - `look`: size, fonts, colours and titles.

    What the lines and bands are is the `description` of the chart. Raises `ValueError` for unknown names and
    for more groups than can be told apart.
    """
    return curves_figure(read(results), names(by), show, band, metric, x, bins, labels, look).chart


def differences(
    results: Given,
    by: str | Sequence[str] | None = None,
    against: str | None = None,
    *,
    show: str = "median",
    band: str = "interval",
    metric: str = "return",
    x: str = "env_steps",
    labels: Mapping[str, str] | None = None,
    look: Look | None = None,
) -> Chart:
    """Return how far each group is ahead of the group `against`, in pairs of samples that agree in all else.

    Samples are paired by their other hyperparameters, and seeds by their number. `by` is what was ablated
    unless it is given. `against` is the label of a group: by default the group with the smallest value, or
    the first one where values are words. The other parameters are those of `learning_curves`.
    """
    found = read(results)
    return difference_figure(found, names(by), against, show, band, metric, x, labels, look).chart


def pairs(results: Given, by: str | Sequence[str] | None = None, against: str | None = None) -> pl.DataFrame:
    """Return the differences of scores in such pairs: the median with its 95 % interval, and counts.

    Columns: `env`, `group`, `against`, `pairs`, `difference`, `low`, `high` (null with fewer than five
    pairs), `better` and `worse` (how many pairs are above and below zero).
    """
    return difference_summary(read(results), names(by), against)


def table(chart: Chart) -> pl.DataFrame:
    """Return the data that a chart of this module is drawn from."""
    data = chart["data"]
    if not isinstance(data, pl.DataFrame):
        raise ValueError("this chart holds no table; it is not one of hyperlax.plot")
    return data


def save(chart: Chart, *paths: str | Path) -> list[Path]:
    """Write a chart to files that end in .pdf, .svg or .png, and its data to a .csv beside the first.

    Files that exist are overwritten. Returns the paths written. Raises `ValueError` for another ending.
    """
    files = [Path(path) for path in paths]
    if wrong := [f for f in files if f.suffix.removeprefix(".") not in FORMATS]:
        raise ValueError(f"a figure ends in .pdf, .svg or .png, got {wrong[0]}")
    spec = chart.to_dict()
    written = [write_output(f, image(spec, f.suffix.removeprefix("."), PNG_SCALE)) for f in files]
    return [*written, *(write_output(f.with_suffix(".csv"), table(chart).write_csv()) for f in files[:1])]


PNG_SCALE = 300 / 72
"""Pixels of a PNG file for each point, which makes 300 per inch."""


def read(results: Given) -> list[Results]:
    """Read all experiments in folders; those that are given as results stay as they are."""
    if isinstance(results, Results):
        return [results]
    if isinstance(results, Experiments):
        return list(results.values())
    if isinstance(results, str | Path):
        return [store.read(folder) for folder in store.find(Path(results))]
    return [one for part in results for one in read(part)]


def names(by: str | Sequence[str] | None) -> list[str] | None:
    """The names of columns as a list; None if nothing is said."""
    return [by] if isinstance(by, str) else by if by is None else list(by)
