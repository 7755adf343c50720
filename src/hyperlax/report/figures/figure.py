"""Figures of learning curves and of paired differences: chart, table behind it, and words for a caption."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from hyperlax.hyperparams import nearest
from hyperlax.report.charts.ablation import ablated
from hyperlax.report.charts.style import Chart, NothingToDraw
from hyperlax.report.figures import pairs
from hyperlax.report.figures.averages import BANDS, SHOW, average_words
from hyperlax.report.figures.drawing import curve_chart, curve_table, dependence_words, thinned_words
from hyperlax.report.figures.look import Look
from hyperlax.report.figures.panels import Panel, grouped, panels, usual_grouping
from hyperlax.report.scores import measured_alike, measured_by, title_of
from hyperlax.statistics import HEADLINES
from hyperlax.storage.results import Results


@dataclass(frozen=True)
class Figure:
    """A chart without a caption, the `table` that it is drawn from, and `notes` for the caption."""

    chart: Chart
    table: pl.DataFrame
    notes: tuple[str, ...]


def curves_figure(
    experiments: Sequence[Results],
    by: Sequence[str] | None = None,
    show: str = "iqm",
    band: str = "interval",
    metric: str = "return",
    x: str = "env_steps",
    bins: int | None = None,
    labels: Mapping[str, str] | None = None,
    look: Look | None = None,
) -> Figure:
    """Draw the learning curve of every group of samples, a panel for each environment.

    The parameters are those of `hyperlax.plot.learning_curves`.
    """
    _check(show, band)
    experiments, metric = _by_score(experiments, metric)
    look, several = look or Look(), panels(experiments, metric, x)
    by = usual_grouping(several) if by is None else list(by)
    groups, own = grouped(several, by, bins, labels)
    look = _coloured(look, groups, labels or {}, groups)
    table = curve_table(several, groups, own, show, band)
    words = _caption(several, groups, own, show, band, table)
    chart = curve_chart(table, groups, look, x, _metric_title(metric), ", ".join(by), words)
    return Figure(chart, table, (words, *_evaluated_words(several, own)))


def difference_figure(
    experiments: Sequence[Results],
    by: Sequence[str] | None = None,
    against: str | None = None,
    show: str = "median",
    band: str = "interval",
    metric: str = "return",
    x: str = "env_steps",
    labels: Mapping[str, str] | None = None,
    look: Look | None = None,
) -> Figure:
    """Draw how much each group is ahead of the group `against`, in pairs that differ in nothing else.

    The parameters are those of `hyperlax.plot.differences`.
    """
    _check(show, band)
    experiments, metric = _by_score(experiments, metric)
    by = _ablated(experiments) if by is None else list(by)
    look, several = look or Look(), panels(experiments, metric, x)
    groups, own = grouped(several, by, None, labels)
    against, others = _sides(several, by, groups, labels or {}, against)
    look = _coloured(look, groups, labels or {}, others)
    gaps, named = pairs.difference_panels(several, own, by, others, against)
    found = pairs.summary(gaps, named, others, against)
    if not found["pairs"].sum():
        raise NothingToDraw(
            f"no samples differ in {', '.join(by)} alone; draw them so: hyperlax sweep-hp-samples "
            f"--ablate {by[0]}=…"
        )
    table = curve_table(gaps, others, named, show, band)
    words = _caption(gaps, others, named, show, band, table)
    words = re.sub(r"\bsample(s?)\b", r"pair\1 of samples", words)
    title = _metric_title(metric)
    title += f" ({others[0]} − {against})" if len(others) == 1 else f" − that of {against}"
    chart = curve_chart(table, others, look, x, title, f"ahead of {against}", words, zero=True)
    score = title_of(measured_alike(experiments))
    said = pairs.summary_words([(row, row["env"]) for row in found.iter_rows(named=True)], score)
    if metric != "return":
        said = [f"By the {score}, which is not what is drawn here: {line}" for line in said]
    return Figure(chart, table, (words, *_evaluated_words(gaps, named), *said))


def difference_summary(
    experiments: Sequence[Results],
    by: Sequence[str] | None = None,
    against: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> pl.DataFrame:
    """The differences of the scores in pairs, with the columns `pairs.SUMMARY`."""
    by = _ablated(experiments) if by is None else list(by)
    several = panels(experiments)
    groups, own = grouped(several, by, None, labels)
    against, others = _sides(several, by, groups, labels or {}, against)
    gaps, named = pairs.difference_panels(several, own, by, others, against)
    return pairs.summary(gaps, named, others, against)


def _caption(
    several: Sequence[Panel],
    groups: Sequence[str],
    labels: Sequence[pl.Series],
    show: str,
    band: str,
    table: pl.DataFrame,
) -> str:
    """Say what the lines and bands of a `table` are, and what is left out of it."""
    drawn, dependent = bool(table["low"].count()), dependence_words(several, groups, labels, show, band)
    what = band if drawn or not dependent else "none"
    words = average_words(show, what, *_least(several, labels), drawn, _most(labels))
    return words + dependent + thinned_words(several, groups, labels, show)


def _by_score(experiments: Sequence[Results], metric: str) -> tuple[Sequence[Results], str]:
    """The curve to draw, and experiments whose samples are judged as `metric` says, if that names a score."""
    if metric not in HEADLINES:
        return experiments, metric
    return [measured_by(results, metric) for results in experiments], "return"


def _ablated(experiments: Sequence[Results]) -> list[str]:
    """What samples were drawn in pairs for; raises `ValueError` unless that is one hyperparameter."""
    found = list(dict.fromkeys(path for results in experiments for path in ablated(results)))
    if len(found) == 1:
        return found
    flag = "say with --by what the samples of a pair differ in"
    if not found:
        raise ValueError(f"no experiment says what its samples were paired for (--ablate); {flag}")
    raise ValueError(f"samples were paired for {' and '.join(found)}; {flag}: --by {found[0]}")


def _evaluated_words(several: Sequence[Panel], labels: Sequence[pl.Series]) -> list[str]:
    """Say where the lines are not simply over all samples of a group, at the steps of their evaluations."""
    said = []
    if any(panel.interpolated for panel in several):
        said.append(
            "Samples were evaluated at different positions: between its own evaluations a curve is linear, "
            "and outside of them it is left out."
        )
    for panel, own in zip(several, labels, strict=True):
        known = np.asarray(~np.isnan(panel.values).all(axis=1))
        parts = [known[np.flatnonzero((own == group).to_numpy())] for group in own.unique().to_list()]
        shown = [part[:, part.any(axis=0)] for part in parts]  # where there is a line
        if any((part != part[:, :1]).any() for part in shown):
            said.append(
                f"On {panel.env} not all samples of a group have an evaluation everywhere: a line is over "
                "those that have, so that it may jump where they change."
            )
    return said


def _sides(
    several: Sequence[Panel],
    by: Sequence[str],
    groups: Sequence[str],
    labels: Mapping[str, str],
    against: str | None,
) -> tuple[str, list[str]]:
    """The group that the others are compared with, by default that of the least value, and those others."""
    if len(groups) < 2:
        raise ValueError(f"all samples have the same {', '.join(by)}; there is nothing to compare")
    name = grouped(several, by)[0][0] if against is None else against
    chosen = labels.get(name, name)
    if chosen not in groups:
        there = f"there are {', '.join(groups)}"
        raise ValueError(f'there is no group "{name}"{nearest(name, groups, there)}')
    return chosen, [group for group in groups if group != chosen]


def _coloured(look: Look, groups: Sequence[str], labels: Mapping[str, str], drawn: Sequence[str]) -> Look:
    """The look with the colours of the groups that are drawn; they may be named as without labels."""
    if not isinstance(look.colours, Mapping):
        return look
    chosen = {labels.get(name, name): colour for name, colour in look.colours.items()}
    replace(look, colours=chosen).colour_of(groups)
    return replace(look, colours={name: colour for name, colour in chosen.items() if name in drawn})


def _check(show: str, band: str) -> None:
    for name, value, known in (("show", show, SHOW), ("band", band, BANDS)):
        if value not in known:
            raise ValueError(f"{name} is one of {', '.join(known)}; got {value!r}{nearest(value, known)}")


def _least(several: Sequence[Panel], labels: Sequence[pl.Series]) -> tuple[int, int]:
    """The least number of samples of a group, and the least number of seeds of a sample that has any."""
    samples = [n for own in labels for n in own.value_counts()["count"].to_list()]
    seeds = [(~np.isnan(panel.values).all(axis=2)).sum(axis=1) for panel in several]
    return min(samples, default=0), int(min((s[s > 0].min() for s in seeds if s.any()), default=0))


def _most(labels: Sequence[pl.Series]) -> int:
    """The largest number of samples of a group."""
    return max((n for own in labels for n in own.value_counts()["count"].to_list()), default=0)


def _metric_title(metric: str) -> str:
    return metric.removeprefix("train/").replace("_", " ")
