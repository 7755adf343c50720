"""Experiments whose scores are given as numbers, for what reports say of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from report_data import frame, manifest

from hyperlax.storage.results import Results


def scored(
    scores: Any,
    name: str = "fam",
    env: str = "gymnax.cartpole",
    samples: pl.DataFrame | None = None,
    status: Mapping[tuple[int, int], str] | None = None,
    steps: Mapping[tuple[int, int], int] | None = None,
    **about: Any,
) -> Results:
    """Return an experiment with one evaluation per lane, whose return is in `scores` (samples, seeds).

    NaN stands for a lane without an evaluation. A lane of `status` has this status instead of "done", and one
    of `steps` was evaluated after so many env steps instead of 10,000.
    """
    table = np.asarray(scores, float)
    lanes, curves = [], []
    for (sample, seed), value in np.ndenumerate(table):
        lane, at = len(lanes), (steps or {}).get((sample, seed), 10_000)
        state = (status or {}).get((sample, seed), "done")
        lanes.append((lane, sample, seed, state, at, at // 64, 0, 10.0, 100, 0, None))
        if not np.isnan(value):
            curves.append((lane, sample, seed, at, at // 64, 0, 1.0, "return", float(value)))
    drawn = pl.DataFrame({"sample": range(len(table)), "lr": [1e-4 * (1 + i) for i in range(len(table))]})
    head = manifest(table.shape[0], table.shape[1], 1, 10_000)
    head |= {"name": name, "recipe": name, "env": env, "reference": {}}
    return Results(
        manifest={**head, **about},
        samples=drawn if samples is None else samples,
        lanes=frame("lanes", lanes),
        curves=frame("curves", curves),
    )


def with_confirmation(results: Results, samples: Sequence[int], scores: Any) -> Results:
    """Return the experiment with `samples` trained again, to the `scores` (samples, seeds)."""
    again = scored(scores, results.name)
    ids = dict(enumerate(samples))
    tables = {
        name: getattr(again, name).with_columns(pl.col("sample").replace_strict(ids, return_dtype=pl.Int64))
        for name in ("lanes", "curves")
    }
    about = {**again.manifest, "confirms": {"best": len(ids), "samples": list(samples), "seed": 0}}
    drawn = results.samples.filter(pl.col("sample").is_in(list(samples)))
    return dataclasses.replace(results, confirmation=Results(manifest=about, samples=drawn, **tables))
