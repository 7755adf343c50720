"""Lineage in population-based training: which lane continued from which, with which hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from hyperlax.storage.results import Results


@dataclass(frozen=True)
class Span:
    """A stretch of env steps over which one lane was trained with constant hyperparameters.

    `hyperparameters` maps the name of each to its value as text.
    """

    lane: int
    sample: int
    start: int
    end: int
    hyperparameters: dict[str, str]


def explored(results: Results) -> list[str]:
    """Return the hyperparameters that a schedule may change during training; none without such a schedule."""
    schedule = (results.manifest.get("identity") or {}).get("schedule") or {}
    return [path for name in schedule.get("explores") or [] for path in name.split("+")]


def spans(results: Results) -> dict[int, list[Span]]:
    """Return the spans of every lane in order: first its sample's values, then those after each copy."""
    rows = {row["sample"]: row for row in results.samples.iter_rows(named=True)}
    events = _events(results.lineage)
    found: dict[int, list[Span]] = {}
    for lane, sample, reached in results.lanes.select("lane", "sample", "env_steps").iter_rows():
        own = [event for event in events if event["lane"] == lane]
        values = {k: str(v) for k, v in rows[sample].items() if k != "sample"}
        starts = [0, *(event["env_steps"] for event in own)]
        history = [values]
        for event in own:
            history.append({**history[-1], **event["changes"]})
        ends = [*starts[1:], reached]
        found[lane] = [Span(lane, sample, *span) for span in zip(starts, ends, history, strict=True)]
    return found


def ancestry(results: Results, lane: int) -> list[Span]:
    """Trace the final state of `lane` back through the copies, and return the spans that led to it.

    The oldest span comes first. Each was trained by one lane, and ends where the next lane copied its state.
    """
    spans_by_lane = spans(results)
    events = _events(results.lineage)
    ancestors: list[Span] = []
    barrier, end = float("inf"), None
    while True:
        own = [event for event in events if event["lane"] == lane]
        copied = [event for event in own if event["barrier"] < barrier]
        span = spans_by_lane[lane][len(copied)]
        ancestors.append(
            Span(lane, span.sample, span.start, span.end if end is None else end, span.hyperparameters)
        )
        if not copied:
            return ancestors[::-1]
        last = copied[-1]
        lane, barrier, end = last["parent"], last["barrier"], last["env_steps"]


def best_lane(results: Results) -> int | None:
    """Return the lane with the best last evaluation, without lanes that diverged, failed or were pruned.

    Returns None before the first evaluation.
    """
    ended = results.lanes.filter(~pl.col("status").is_in(["diverged", "failed", "pruned"])).select("lane")
    last = (
        results.curves.filter(pl.col("metric") == "return", pl.col("value").is_finite())
        .join(ended, on="lane")
        .sort("lane", "env_steps")
        .group_by("lane", maintain_order=True)
        .last()
        .sort("value", "lane", descending=[True, False])
    )
    return None if last.is_empty() else int(last["lane"][0])


def _events(lineage: pl.DataFrame) -> Sequence[dict[str, Any]]:
    """Return one mapping per copy, in order of barriers: lane, parent, barrier, env_steps and changes.

    `changes` maps the hyperparameters that the copy changed to their new values.
    """
    events: dict[tuple[int, int], dict[str, Any]] = {}
    for row in lineage.sort("barrier", "lane", maintain_order=True).iter_rows(named=True):
        event = events.setdefault((row["barrier"], row["lane"]), {**row, "changes": {}})
        if row["hyperparameter"] is not None:
            event["changes"][row["hyperparameter"]] = row["to"]
    return list(events.values())
