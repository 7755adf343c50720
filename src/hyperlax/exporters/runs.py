"""Conversion of experiments to the runs of a tracker: one per experiment, and one per best sample."""

from __future__ import annotations

import dataclasses
import datetime
import importlib
import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl

from hyperlax.report.comparison import by_environment
from hyperlax.report.evaluations import evaluations
from hyperlax.report.leaderboard import leaderboard
from hyperlax.report.metrics import sample_metrics
from hyperlax.report.scores import headline_of, sample_scores
from hyperlax.report.selection import selection_bias
from hyperlax.statistics import iqm, iqm_over_runs
from hyperlax.storage.results import FRESH, LANE_STATUSES, Results
from hyperlax.storage.shareable import shareable_command, without_folders

_OMITTED_KEYS = ("identity", "plan", "timings", "notes", "confirms", "resumed", "complete", "files", "grown")
"""Keys of a manifest that are not exported, because they repeat others or are summarised elsewhere."""
_SCORES = ("score", "score_low", "score_high", FRESH)


@dataclass(frozen=True)
class Point:
    """Values measured after `env_steps` environment steps, at `time` in seconds since 1970."""

    env_steps: int
    time: float
    values: dict[str, float]


@dataclass(frozen=True)
class Run:
    """A run as any tracker can store it: names are strings, values are scalars or text.

    - `group`: environment and name of the experiment, shared by all of its runs.
    - `sample`: id of the sample, or None for the run of the whole experiment.
    - `config`: the manifest of the experiment, or the hyperparameters and rank of the sample.
    - `summary`: metrics of the whole run.
    - `points`: curves; the run of an experiment has the return of its best sample.
    - `began`: start of the experiment, in seconds since 1970.
    """

    group: tuple[str, str]
    sample: int | None
    config: dict[str, bool | int | float | str]
    summary: dict[str, float]
    points: list[Point] = field(default_factory=list)
    began: float = 0.0


def tracker_runs(experiments: Sequence[Results], top_k: int) -> Iterator[Run]:
    """Yield the runs of all experiments, each followed by the runs of its `top_k` best samples."""
    for env, group in by_environment(experiments).items():
        for results in group:
            yield from experiment_runs(results, (env, results.name), top_k)


def experiment_runs(results: Results, group: tuple[str, str], top_k: int) -> Iterator[Run]:
    """Yield the run of one experiment and those of its `top_k` best samples.

    Before its first evaluation, an experiment has no points and no best samples.
    """
    manifest = results.manifest
    began = _seconds(manifest.get("created"))
    board = leaderboard(results, top=None).drop_nulls("score")
    best = board["sample"].to_list()[:top_k]
    about = {k: v for k, v in manifest.items() if k not in _OMITTED_KEYS}
    headline = headline_of(manifest)
    about |= {"metric": headline.name, "metric_definition": headline.definition}
    about["command"] = shlex.join(shareable_command([str(part) for part in manifest.get("command") or []]))
    points = _points(results, best[0], began, only="return") if best else []
    yield Run(group, None, flat(about), _experiment_summary(results, board, top_k), points, began)
    found = sample_metrics(results).join(sample_scores(results).select("sample", *_SCORES), on="sample")
    measured = {row["sample"]: row for row in found.iter_rows(named=True)}
    confirmed = {}
    if results.confirmation is not None:
        confirmed = {row["sample"]: row for row in selection_bias(results).iter_rows(named=True)}
    for place, sample in enumerate(best):
        own = results.samples.row(by_predicate=pl.col("sample") == sample, named=True)
        rank = {"rank": board["rank"][place], "metric": headline.name}
        shared = {k: manifest.get(k) for k in ("env", "algorithm", "network", "protocol", "seed")}
        found = {k: v for k, v in measured[sample].items() if k != "sample"}
        again = {k: v for k, v in confirmed.get(sample, {}).items() if k.startswith(("confirmed", "drop"))}
        yield Run(
            group,
            sample,
            flat({**own, **rank, **shared}),
            _finite({**found, **again}),
            _points(results, sample, began),
            began,
        )


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Flatten nested mappings to dotted names.

    Lists become JSON, absolute paths are shortened to their last component, and None is left out.
    """
    found: dict[str, bool | int | float | str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, bool | int | float):
            found[f"{prefix}{key}"] = value
        elif value is not None:
            words = value if isinstance(value, str) else json.dumps(value, default=str)
            found[f"{prefix}{key}"] = without_folders(words)
    return found


def package(name: str) -> ModuleType:
    """Import the package of a tracker; if it is missing, raise `ValueError` that says how to install it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ValueError(
            f'{name} is not installed: pip install ".[trackers]" in the checkout of hyperlax'
        ) from None


def file_name(words: str) -> str:
    """Replace the characters of `words` that are unsafe in the name of a folder."""
    return re.sub(r"[^A-Za-z0-9_.\[\]=-]+", "_", words).strip(".") or "_"


def _experiment_summary(results: Results, board: pl.DataFrame, top_k: int) -> dict[str, float]:
    """Summarise an experiment: numbers of samples and lanes, run time, and returns of the best samples."""
    statuses = results.lanes["status"]
    numbers: dict[str, Any] = {
        **{f"lanes_{s}": int((statuses == s).sum()) for s in LANE_STATUSES},
        "samples": len(results.samples),
        "samples_evaluated": len(board),
        **{
            f"{k}": (results.manifest.get("timings") or {}).get(k)
            for k in ("wall_seconds", "compile_seconds")
        },
    }
    if len(board):
        scores = board["score"].to_numpy()
        numbers |= {
            "best_sample": board["sample"][0],
            **{name: board[name][0] for name in _SCORES},
            "score_median": float(np.median(scores)),
            f"score_top_{top_k}": float(iqm(scores[:top_k])),
        }
    return _finite(numbers)


def _points(results: Results, sample: int, began: float, only: str | None = None) -> list[Point]:
    """Return the curves of a sample as interquartile means over seeds; the return also has an interval.

    The points hold all metrics, or `only` one. `began` is the start of the experiment in seconds since 1970.
    """
    own = pl.col("sample") == sample
    one = dataclasses.replace(results, lanes=results.lanes.filter(own), curves=results.curves.filter(own))
    names = [only] if only else one.curves["metric"].unique(maintain_order=True).to_list()
    names = [name for name in names if name != FRESH]
    gathered: dict[int, tuple[float, dict[str, float]]] = {}
    for name in names:
        found = evaluations(one, name, whole=True)
        if not found.values.size:
            continue
        columns = {name: iqm(found.values[0], axis=0)}
        if name == "return":
            estimate = iqm_over_runs(found.values)
            columns |= {"return_low": estimate.low[0], "return_high": estimate.high[0]}
        for place, steps in enumerate(found.x["env_steps"][0]):
            if np.isnan(steps):
                continue
            time = began + float(np.nan_to_num(found.x["seconds"][0, place]))
            values = gathered.setdefault(round(float(steps)), (time, {}))[1]
            values |= _finite({k: float(v[place]) for k, v in columns.items()})
    return [Point(steps, time, values) for steps, (time, values) in sorted(gathered.items()) if values]


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    """Keep the values that are finite numbers, as floats."""
    return {k: float(v) for k, v in values.items() if v is not None and math.isfinite(float(v))}


def _seconds(created: str | None) -> float:
    """Convert an ISO date to seconds since 1970; 0 without a date."""
    return datetime.datetime.fromisoformat(created).timestamp() if created else 0.0
