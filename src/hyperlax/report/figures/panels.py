"""Samples of any number of experiments side by side, grouped by whatever they differ in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from hyperlax.hyperparams import nearest, words
from hyperlax.report.charts.style import NothingToDraw
from hyperlax.report.draws import AGREEING, chosen
from hyperlax.report.evaluations import X_AXES, Evaluations, at_equal_steps, evaluations
from hyperlax.report.scores import measured_alike, sample_scores
from hyperlax.statistics import HEADLINES
from hyperlax.storage.results import Results

ABOUT = ("recipe", "algorithm", "network", "env", "protocol", "experiment")
"""What samples can be grouped by beside their hyperparameters and settings; `experiment` is the folder."""
MOST_GROUPS = 10
POINTS = 100
"""Most positions, or about so many, of a curve whose samples were evaluated at different ones."""

Values = Float[np.ndarray, "samples seeds points"]


@dataclass(frozen=True)
class Panel:
    """The samples of all experiments on one environment.

    - `table`: one row per sample, with its hyperparameters, the columns `ABOUT` and `score`.
    - `x`, `values`: the curves of one metric at common positions, in the order of the table; NaN where a
      sample has no seed or a lane no evaluation.
    - `interpolated`: whether some samples were evaluated at other positions, by more than a hundredth of the
      whole; between them their curves are linear.
    - `chosen`: for each row of the table, how scores decided that there is such a sample (`draws.chosen`).
    """

    env: str
    table: pl.DataFrame
    x: Float[np.ndarray, " points"]
    values: Values
    interpolated: bool = False
    chosen: tuple[str, ...] = ()

    def dependence(self, rows: Int[np.ndarray, " rows"]) -> str:
        """Say in a clause why these samples are no independent draws; empty if they are, or if it is one."""
        if len(rows) < 2:
            return ""
        for row in rows.tolist() if self.chosen else ():
            if self.chosen[row]:
                return self.chosen[row]
        own, again = self.table[rows.tolist()], False
        if "pair" in own.columns:
            again = own.drop_nulls("pair").select("experiment", "pair").is_duplicated().any()
        if "matrix" in own.columns and own["matrix"].n_unique() > 1:
            again = again or bool(own["matrix"].str.starts_with("AB:").any())
        return f"samples of a group {AGREEING}" if again else ""


def panels(experiments: Sequence[Results], metric: str = "return", x: str = "env_steps") -> list[Panel]:
    """Arrange experiments by environment, with their curves of `metric` against `x`, up to equal steps.

    Raises `ValueError` for an unknown metric or axis, with the known ones, and `NothingToDraw` if nothing has
    been evaluated.
    """
    if x not in X_AXES:
        raise ValueError(f'unknown axis "{x}"' + nearest(x, X_AXES, f"known: {', '.join(X_AXES)}"))
    known = sorted({name for results in experiments for name in results.curves["metric"].unique()})
    if not known:
        raise NothingToDraw("no evaluation has been written yet")
    if metric not in known:
        scores = f"and scores, which judge the return: {', '.join(HEADLINES)}"
        known_too = f"known: {', '.join(known)}; {scores}"
        raise ValueError(f'no curve is called "{metric}"{nearest(metric, [*known, *HEADLINES], known_too)}')
    by_env: dict[str, list[Results]] = {}
    for results in measured_alike(experiments):
        by_env.setdefault(str(results.manifest.get("env", "")), []).append(results)
    return [_panel(env, group, metric, x) for env, group in by_env.items()]


def _panel(env: str, experiments: Sequence[Results], metric: str, x: str) -> Panel:
    experiments = at_equal_steps(experiments)
    found = [evaluations(results, metric) for results in experiments]
    named = zip(experiments, found, experiment_names(experiments), strict=True)
    tables = [_table(results, one, name) for results, one, name in named]
    together = _stacked(found)
    why = tuple(chosen(r) for r, one in zip(experiments, found, strict=True) for _ in one.samples)
    if together.values.size == 0 or np.nanmax(together.x[x], initial=0.0) <= 0:
        raise NothingToDraw(f"no evaluation on {env} recorded its {x}")
    known = together.x[x]
    table = pl.concat(tables, how="diagonal_relaxed")
    if np.isfinite(known).all() and (known == known[0]).all():
        return Panel(env, table, known[0], together.values, chosen=why)
    grid, values = together.where_evaluated(x, POINTS)
    alike = np.isfinite(known).all() and np.ptp(known, axis=0).max() <= np.max(known) / POINTS
    return Panel(env, table, grid, values, interpolated=not alike, chosen=why)


def experiment_names(experiments: Sequence[Results]) -> list[str]:
    """The folder of every experiment, with those above it where equal names differ in them, else a number.

    A folder that is named by its environment goes by the two above.
    """
    paths, names = [], []
    for results in experiments:
        folder = results.folder
        parts = (results.name,) if folder is None else folder.relative_to(folder.anchor).parts
        of_env = folder is not None and folder.name == str(results.manifest.get("env", ""))
        paths.append(parts[:-1] if of_env else parts)
        names.append("/".join(paths[-1][-2:] if of_env else parts[-1:]))
    for depth in range(2, max(map(len, paths)) + 1):
        known = list(zip(names, paths, strict=True))
        names = [
            "/".join(path[-depth:]) if any(n == name and p != path for n, p in known) else name
            for name, path in known
        ]
    turns = [names[:place].count(name) + 1 for place, name in enumerate(names)]
    return [name if turn == 1 else f"{name} {turn}" for name, turn in zip(names, turns, strict=True)]


def _table(results: Results, found: Evaluations, name: str) -> pl.DataFrame:
    """The rows of the table of a panel for the experiment `name`, in the order of its curves."""
    manifest = results.manifest
    about = {name: str(manifest.get(name, "")) for name in ABOUT}
    about["recipe"] = str(manifest.get("recipe") or results.name)
    about["experiment"] = name
    settings = {k: v for k, v in manifest.get("settings", {}).items() if k not in about}
    scores = sample_scores(results).select("sample", "score")
    rows = pl.DataFrame({"sample": found.samples}, schema={"sample": pl.Int64})
    rows = rows.join(results.samples, on="sample", how="left", maintain_order="left")
    rows = rows.join(scores, on="sample", how="left", maintain_order="left")
    constant = {k: pl.lit(v) for k, v in {**settings, **about}.items() if k not in rows.columns}
    return rows.with_columns(**constant)


def _stacked(found: Sequence[Evaluations]) -> Evaluations:
    """The samples of several experiments one after the other, padded with NaN to common shapes."""
    seeds = max(one.values.shape[1] for one in found)
    points = max(one.values.shape[2] for one in found)

    def padded(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        whole = np.full((len(array), *shape), np.nan)
        whole[tuple(slice(size) for size in array.shape)] = array
        return whole

    values = np.concatenate([padded(one.values, (seeds, points)) for one in found])
    x = {axis: np.concatenate([padded(one.x[axis], (points,)) for one in found]) for axis in X_AXES}
    samples = np.concatenate([one.samples for one in found])
    return Evaluations(samples, x, values, pl.concat([one.lanes for one in found]))


def usual_grouping(several: Sequence[Panel]) -> list[str]:
    """What samples are grouped by when nothing is said: what tells the experiments apart, if any."""
    tables = [panel.table for panel in several]
    for name in ("recipe", "experiment"):
        if any(table[name].n_unique() > 1 for table in tables):
            return [name]
    return []


def grouped(
    several: Sequence[Panel],
    by: Sequence[str],
    bins: int | None = None,
    labels: Mapping[str, str] | None = None,
) -> tuple[list[str], list[pl.Series]]:
    """Group the samples of all panels by the columns `by`.

    Returns the labels of the groups in order, and for each panel the label of every sample. `labels` replaces
    labels by other words, and its order goes first. `bins` groups numbers into so many groups, each with as
    many of their distinct values.
    Raises `ValueError` for a column that there is not, for too many groups, and for unknown labels.
    """
    whole = pl.concat(
        [panel.table.with_columns(panel=pl.lit(p)) for p, panel in enumerate(several)], how="diagonal_relaxed"
    )
    columns = [_labelled(whole, name, bins) for name in by]
    texts = (
        [", ".join(t or "none" for t in parts) for parts in zip(*columns, strict=True)]
        if by
        else ["all"] * whole.height
    )
    order = list(dict.fromkeys(texts))
    if len(by) == 1:
        order = _ordered(whole[by[0]], columns[0], order)
    if len(order) > MOST_GROUPS:
        raise ValueError(_too_many(by, len(order), bins))
    given = dict(labels or {})
    if wrong := [label for label in given if label not in order]:
        there = f"there are {', '.join(order)}"
        raise ValueError(f'there is no group "{wrong[0]}"{nearest(wrong[0], order, there)}')
    order = [*given, *(label for label in order if label not in given)]
    new = {label: given.get(label, label) for label in order}
    if len(set(new.values())) < len(new):
        raise ValueError("two groups have the same label; a figure could not tell them apart")
    named = pl.Series("group", [new[t] for t in texts], dtype=pl.String)
    parts = [named.filter(whole["panel"] == p) for p in range(len(several))]
    return [new[label] for label in order], parts


def _too_many(by: Sequence[str], count: int, bins: int | None) -> str:
    more = "" if bins else "; numbers are grouped with bins (--bins 3)"
    return f"{', '.join(by)} makes {count} groups, at most {MOST_GROUPS} can be told apart{more}"


def _labelled(table: pl.DataFrame, name: str, bins: int | None) -> list[str | None]:
    """The value of a column as text for every row, or the range of the bin that it is in."""
    if name not in table.columns or name in ("score", "panel"):
        known = [c for c in table.columns if c not in ("score", "panel")]
        theirs = f"they have {', '.join(known)}"
        raise ValueError(f'samples have no "{name}" to group by{nearest(name, known, theirs)}')
    values = table[name]
    if bins and values.dtype.is_numeric() and values.n_unique() > bins:
        parts = np.array_split(np.sort(values.drop_nulls().unique().to_numpy()), bins)
        texts: list[str] = []
        for digits in range(3, 18):
            texts = [f"{p[0]:.{digits}g} to {p[-1]:.{digits}g}" for p in parts]
            if len(set(texts)) == len(texts):
                break
        ends = [part[-1] for part in parts]
        return [None if v is None else texts[int(np.searchsorted(ends, v))] for v in values.to_list()]
    return [None if value is None else words.shown(value) for value in values.to_list()]


def _ordered(values: pl.Series, texts: Sequence[str | None], labels: Sequence[str]) -> list[str]:
    """The labels of one column, in the order of its values if these are numbers, else as they come."""
    if not (values.dtype.is_numeric() or values.dtype == pl.Boolean):
        return list(labels)
    least: dict[str, float] = {}
    for value, label in zip(values.to_list(), texts, strict=True):
        least.setdefault(label or "none", float("inf") if value is None else float(value))
        least[label or "none"] = min(least[label or "none"], float("inf") if value is None else float(value))
    return sorted(labels, key=least.__getitem__)
