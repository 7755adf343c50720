"""The results of an experiment as polars frames, as the sweep, the store and the report exchange them."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from hyperlax.storage.wording import counted

UNFINISHED = ("queued", "running", "paused")
"""The statuses of lanes that are still to be trained."""
LANE_STATUSES = (*UNFINISHED, "done", "diverged", "pruned", "failed")

FRESH = "fresh_return"
"""The metric of the curves that holds the evaluation of a lane's final weights in fresh episodes."""

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
"""Columns of the table of trials that hold neither an objective nor a hyperparameter."""


def empty(table: str) -> pl.DataFrame:
    """A frame without rows that has the columns of `table`, one of `SCHEMAS`."""
    return pl.DataFrame(schema=SCHEMAS[table])


def parquet(frame: pl.DataFrame) -> bytes:
    """The table as a Parquet file, which depends on its rows only and not on how they were put together."""
    buffer = io.BytesIO()
    frame.rechunk().write_parquet(buffer)
    return buffer.getvalue()


def sample_files(samples: pl.DataFrame) -> dict[str, bytes]:
    """The contents of the files of the table of samples, by name."""
    return {"samples.parquet": parquet(samples), "samples.csv": samples.write_csv().encode()}


@dataclass(frozen=True, repr=False)
class Results:
    """The results of one experiment, which trains one algorithm and network on one environment.

    - `samples`: one row per hyperparameter sample, with its number in `sample` and every hyperparameter in a
      column named by its dotted path; choices appear under their labels.
    - `lanes`: one row per lane (one sample trained with one seed). `diverged_at` is the environment step at
      which it diverged, or null; `circuit_executions` counts the circuits that a quantum computer would have
      run in training (`AbstractAgentHyperparams.executions`).
    - `curves`: long format, one row per lane, measurement and metric. The metric `return` is the mean over
      the evaluation episodes; beside it are `return_std`, `return_q25`, `return_median`, `return_q75` and
      `length` and `episodes`, once `fresh_return`, that of the final weights in episodes of their own,
      `stochastic_return` of sampled actions (`deterministic_return` where `return` is of sampled ones), and
      the training metrics `train/<name>`. `seconds` is wall time since the experiment began.
    - `episodes`: the return and length of every evaluation episode; `mode` is deterministic or stochastic.
    - `timeline`: what the process spent its time on, in seconds since the start; `phase` is trace, compile,
      train, evaluate or save.
    - `lineage`: the copies made by population-based training: `lane` continued from the state of `parent`.
      One row per hyperparameter that changed with the copy, one row with a null hyperparameter if none did;
      `score` is null for a lane that had diverged.
    - `system`: CPU use (percent of one core), memory and GPU use over time.
    - `trials`: one row per trial of a search (`searches.outcome.trials_table`); empty for a sweep.
    - `folder`: the folder that holds the results; None when they were not written.
    - `confirmation`: the results of training the best samples again (`hyperlax.confirm`), or None.
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
        """The names of the algorithm and the network, `<algorithm>_<network>`."""
        return str(self.manifest["name"])

    def summary(self) -> dict[str, str]:
        """What was trained, how far it is, and what is there to read, in words by name."""
        settings = self.manifest.get("settings", {})
        counts = dict(self.lanes.group_by("status").len().iter_rows())
        lanes = ", ".join(f"{counts[status]} {status}" for status in LANE_STATUSES if status in counts)
        recipe, env = (self.manifest.get(key, "unknown") for key in ("recipe", "env"))
        seeds = counted(settings["seeds"], "seed") if "seeds" in settings else "? seeds"
        found = {
            "trained": f"{recipe} on {env}",
            "samples": f"{self.samples.height}, with {seeds} each",
            "lanes": lanes or "none yet",
            "env steps": f"{self.lanes['env_steps'].max() or 0:,} of {settings.get('total_timesteps', 0):,}",
        }
        if (best := self._best()) is not None:
            value, sample, seed = best
            found["best last return"] = f"{value:.4g} (sample {sample}, seed {seed})"
        tables = {name: getattr(self, name).height for name in ("samples", *SCHEMAS, "trials")}
        found["tables"] = ", ".join(f"{name} {rows:,}" for name, rows in tables.items() if rows) + " rows"
        if self.confirmation is not None:
            found["confirmation"] = f"{self.confirmation.samples.height} samples trained again"
        if self.folder is not None:
            found["folder"] = str(self.folder)
        return found

    def _best(self) -> tuple[float, int, int] | None:
        """The largest last return of a lane, its sample and its seed; None before the first evaluation."""
        returns = self.curves.filter(pl.col("metric") == "return", pl.col("value").is_finite())
        last = (
            returns.sort("env_steps").group_by("lane").last().sort("value", "lane", descending=[True, False])
        )
        return None if last.is_empty() else last.select("value", "sample", "seed").row(0)

    def __repr__(self) -> str:
        width = max(map(len, self.summary()))
        lines = (f"  {name:<{width}}  {value}" for name, value in self.summary().items())
        return "\n".join(["Results", *lines])

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        from hyperlax.storage.notebook import card  # a template engine, in notebooks alone

        return card(self.summary())
