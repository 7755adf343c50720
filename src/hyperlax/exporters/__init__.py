"""Experiment trackers by name: what is in an experiment's folder, written as their runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hyperlax.exporters import mlflow, runs, tensorboard, wandb
from hyperlax.hyperparams import nearest
from hyperlax.storage import store
from hyperlax.storage.results import Results

EXPORTERS: dict[str, Callable[[Sequence[runs.Run], Any], str]] = {
    "tensorboard": tensorboard.write,
    "wandb": wandb.write,
    "mlflow": mlflow.write,
}
"""Tracker → what writes runs to a folder and says how to look at them; `mlflow` also takes an address."""

__all__ = ["EXPORTERS", "export"]


def export(
    results: Results | Sequence[Results] | str | Path,
    to: str,
    destination: str | Path | None = None,
    top_k: int = 5,
) -> str:
    """Writes experiments, finished or running, for a tracker of `EXPORTERS`; the command that shows them.

    Each becomes one run (its manifest; the best sample's curve of the interquartile mean over seeds, with
    interval) and one more for each of its `top_k` best samples; there is none per lane.

    - `results`: experiments, or a folder at or below which they are.
    - `destination`: a new or empty folder (default: `<folder>/<tracker>`); for MLflow also an address.

    Raises `ValueError` before anything is written, also when the tracker is not installed.
    """
    if to not in EXPORTERS:
        raise ValueError(f'unknown tracker "{to}"{nearest(to, EXPORTERS)}; known: {", ".join(EXPORTERS)}')
    if top_k < 0:
        raise ValueError(f"top_k must be at least 0, got {top_k}")
    if isinstance(results, str | Path):
        found, place = [store.read(folder) for folder in store.find(results)], Path(results)
    else:
        found = [results] if isinstance(results, Results) else list(results)
        place = found[0].folder if len(found) == 1 else None
    if destination is None and place is None:
        raise ValueError("give a destination: these results are not in one folder")
    target = _target(to, place / to if destination is None and place is not None else destination)
    return EXPORTERS[to](list(runs.of(found, top_k)), target)


def _target(to: str, destination: Any) -> Path | str:
    """The folder to write to, or an address as it is. Raises `ValueError` for a folder in use."""
    if "://" in str(destination):
        if to != "mlflow":
            raise ValueError(f"{to} is written to a folder, not to {destination}")
        return str(destination)
    folder = Path(destination)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty; remove it, or choose another --destination")
    return folder
