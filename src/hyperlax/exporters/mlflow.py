"""Export to MLflow: to a database in one local file, or to a tracking server."""

from __future__ import annotations

import logging
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hyperlax.exporters.runs import Run, package

MOST_PARAMS, MOST_METRICS, LONGEST = 100, 1_000, 6_000
"""Limits of MLflow: parameters and metrics per request, and characters per parameter value."""


def write(runs: Sequence[Run], destination: Path | str) -> str:
    """Write every run, with the runs of samples nested in that of their experiment.

    `destination` is a folder, in which `mlflow.db` is created (MLflow no longer develops its store of plain
    files), or the address of a tracking server or database (`http://…`, `sqlite:///…`). Returns the shell
    command that shows the runs.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow reads this on import
    mlflow, entities = package("mlflow"), package("mlflow.entities")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    address, artifacts = str(destination), None
    if isinstance(destination, Path):
        destination.mkdir(parents=True, exist_ok=True)
        address = f"sqlite:///{destination.resolve() / 'mlflow.db'}"
        artifacts = (destination.resolve() / "artifacts").as_uri()
    client = mlflow.MlflowClient(tracking_uri=address)
    parents: dict[tuple[str, str], str] = {}
    for run in runs:
        known = client.get_experiment_by_name(run.group[0])
        experiment = known.experiment_id if known else client.create_experiment(run.group[0], artifacts)
        name = run.group[1] if run.sample is None else f"{run.group[1]}, sample {run.sample}"
        tags = {"hyperlax.kind": "experiment" if run.sample is None else "sample"}
        if run.sample is not None:
            tags["mlflow.parentRunId"] = parents[run.group]
        began = round(1_000 * run.began)
        created = client.create_run(experiment, start_time=began, tags=tags, run_name=name)
        if run.sample is None:
            parents[run.group] = created.info.run_id
        _log(client, entities, created.info.run_id, run)
        ended = round(1_000 * run.points[-1].time) if run.points else began
        client.set_terminated(created.info.run_id, "FINISHED", ended)
    return f"mlflow ui --backend-store-uri {shlex.quote(address)}"


def _log(client: Any, entities: Any, run_id: str, run: Run) -> None:
    """Log the parameters and metrics of a run, in as few requests as MLflow allows."""
    params = [entities.Param(_key(k), str(v)[:LONGEST]) for k, v in run.config.items()]
    metrics = [
        entities.Metric(_key(k), v, round(1_000 * point.time), point.env_steps)
        for point in run.points
        for k, v in point.values.items()
    ]
    at = (round(1_000 * run.points[-1].time), run.points[-1].env_steps) if run.points else (0, 0)
    metrics += [entities.Metric(f"summary/{_key(k)}", v, *at) for k, v in run.summary.items()]
    for start in range(0, len(params), MOST_PARAMS):
        client.log_batch(run_id, params=params[start : start + MOST_PARAMS])
    for start in range(0, len(metrics), MOST_METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + MOST_METRICS])


def _key(name: str) -> str:
    """Replace the characters of `name` that MLflow does not allow in keys."""
    return re.sub(r"[^\w\-./ :]", "_", name)
