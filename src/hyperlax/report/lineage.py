"""Who went on from whose state in population-based training, and with which hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from hyperlax.storage.results import Results


@dataclass(frozen=True)
class Span:
    """Env steps that `lane` (of `sample`) trained with the same `hyperparameters`, all of them as text."""

    lane: int
    sample: int
    start: int
    end: int
    hyperparameters: dict[str, str]


def explored(results: Results) -> list[str]:
    """The hyperparameters that may change in training; none in a plain sweep."""
    schedule = (results.manifest.get("identity") or {}).get("schedule") or {}
    return [path for name in schedule.get("explores") or [] for path in name.split("+")]


def spans(results: Results) -> dict[int, list[Span]]:
    """What every lane trained with, in order: its sample's values, then what copies changed them to."""
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
    """How the state `lane` ended with came to be, oldest first: each span was trained by one lane.

    A span ends where the next lane copied it.
    """
    every = spans(results)
    events = _events(results.lineage)
    line: list[Span] = []
    barrier, end = float("inf"), None
    while True:
        own = [event for event in events if event["lane"] == lane]
        copied = [event for event in own if event["barrier"] < barrier]
        span = every[lane][len(copied)]
        line.append(
            Span(lane, span.sample, span.start, span.end if end is None else end, span.hyperparameters)
        )
        if not copied:
            return line[::-1]
        last = copied[-1]
        lane, barrier, end = last["parent"], last["barrier"], last["env_steps"]


def best_lane(results: Results) -> int | None:
    """The lane whose last evaluation is best, of those that are not over early; None before any."""
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
    """One dict per copy in order of barriers: lane, parent, barrier, env_steps and `changes`."""
    events: dict[tuple[int, int], dict[str, Any]] = {}
    for row in lineage.sort("barrier", "lane", maintain_order=True).iter_rows(named=True):
        event = events.setdefault((row["barrier"], row["lane"]), {**row, "changes": {}})
        if row["hyperparameter"] is not None:
            event["changes"][row["hyperparameter"]] = row["to"]
    return list(events.values())
