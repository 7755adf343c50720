"""What an experiment produced, as polars frames: the currency between the sweep, the store and the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

LANE_STATUSES = ("queued", "running", "paused", "done", "diverged", "pruned", "failed")

SCHEMAS: dict[str, dict[str, Any]] = {
    "lanes": {
        "lane": pl.Int64,
        "sample": pl.Int64,
        "seed": pl.Int64,
        "status": pl.String,
        "env_steps": pl.Int64,
        "gradient_steps": pl.Int64,
        "circuit_executions": pl.Int64,
        "seconds": pl.Float64,
        "parameters": pl.Int64,
        "program": pl.Int64,
        "diverged_at": pl.Int64,
    },
    "curves": {
        "lane": pl.Int64,
        "sample": pl.Int64,
        "seed": pl.Int64,
        "env_steps": pl.Int64,
        "gradient_steps": pl.Int64,
        "circuit_executions": pl.Int64,
        "seconds": pl.Float64,
        "metric": pl.String,
        "value": pl.Float64,
    },
    "episodes": {
        "lane": pl.Int64,
        "env_steps": pl.Int64,
        "mode": pl.String,
        "episode": pl.Int64,
        "return": pl.Float64,
        "length": pl.Int64,
    },
    "timeline": {
        "phase": pl.String,
        "program": pl.Int64,
        "start": pl.Float64,
        "end": pl.Float64,
    },
    "lineage": {
        "lane": pl.Int64,
        "sample": pl.Int64,
        "seed": pl.Int64,
        "barrier": pl.Int64,
        "env_steps": pl.Int64,
        "parent": pl.Int64,
        "score": pl.Float64,
        "parent_score": pl.Float64,
        "hyperparameter": pl.String,
        "from": pl.String,
        "to": pl.String,
    },
    "system": {
        "seconds": pl.Float64,
        "cpu_percent": pl.Float64,
        "memory_mb": pl.Float64,
        "gpu_percent": pl.Float64,
        "gpu_memory_mb": pl.Float64,
    },
}
"""Column types of every long table; `samples` has one column per hyperparameter and no fixed schema."""


TRIAL_COLUMNS = ("trial", "state", "start", "end", "seconds", "process")
"""Columns of a table of trials that are neither objectives nor hyperparameters."""


def empty(table: str) -> pl.DataFrame:
    """A frame of `table` without rows."""
    return pl.DataFrame(schema=SCHEMAS[table])


@dataclass(frozen=True)
class Results:
    """One experiment: an algorithm × network on one environment.

    - `samples`: one row per hyperparameter sample: `sample` and every hyperparameter by dotted name, decoded.
    - `lanes`: one row per lane (a sample × a seed); `diverged_at` is an env step or null;
      `circuit_executions` is what a quantum computer would run in training (`AgentHyperparams.executions`).
    - `curves`: long; metric `return` is the headline evaluation (mean over episodes), with `return_std`,
      `return_q25`, `return_median`, `return_q75`, `length`; `stochastic_return` where the policy was also
      sampled; training metrics are `train/<name>`. `seconds` is wall time since the experiment began.
    - `episodes`: raw evaluation returns, `mode` deterministic or stochastic.
    - `timeline`: seconds since the start; phase is trace, compile, train, evaluate or save.
    - `lineage`: copies in population-based training: `lane` went on from the state of lane `parent`. One row
      per hyperparameter that changed with it (null: none did); `score` is null for a lane that had diverged.
    - `system`: CPU (percent of one core), memory and GPU use over time.
    - `confirmation`: the best samples trained again from fresh seeds (`hyperlax.confirm`), where they were.
    - `trials`: of a search, one row per trial (`searches.outcome.trials_table`); otherwise empty.
    """

    manifest: dict[str, Any]
    samples: pl.DataFrame
    lanes: pl.DataFrame = field(default_factory=lambda: empty("lanes"))
    curves: pl.DataFrame = field(default_factory=lambda: empty("curves"))
    episodes: pl.DataFrame = field(default_factory=lambda: empty("episodes"))
    timeline: pl.DataFrame = field(default_factory=lambda: empty("timeline"))
    lineage: pl.DataFrame = field(default_factory=lambda: empty("lineage"))
    system: pl.DataFrame = field(default_factory=lambda: empty("system"))
    trials: pl.DataFrame = field(default_factory=pl.DataFrame)
    folder: Path | None = None
    confirmation: Results | None = None

    @property
    def name(self) -> str:
        """`<algorithm>_<network>`, the recipe's family name."""
        return str(self.manifest["name"])
