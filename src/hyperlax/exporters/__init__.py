"""Export of experiments to trackers such as TensorBoard, Weights & Biases and MLflow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hyperlax import leaving
from hyperlax.exporters import runs
from hyperlax.registry import Registry, built_in, nearest, short_name
from hyperlax.report.scores import measured_by
from hyperlax.statistics import HEADLINES
from hyperlax.storage import store
from hyperlax.storage.places import check_writable, resolved
from hyperlax.storage.results import Results
from hyperlax.typecheck import public

EXPORTERS: Registry[Callable[[Sequence[runs.Run], Any], str]] = built_in.EXPORTERS
"""Exporter of every tracker, by name: a function of the runs and a destination.

The destination is a folder or, for `mlflow`, also an address. The function returns the shell command that
shows the runs.
"""

__all__ = ["EXPORTERS", "export"]


@public
def export(
    results: Results | Sequence[Results] | str | Path,
    to: str,
    destination: str | Path | None = None,
    top_k: int = 5,
    metric: str | None = None,
) -> str:
    """Export finished or running experiments to a tracker, and return the shell command that shows them.

    Each experiment becomes one run, with its manifest and the curve of its best sample, and one run for each
    of its `top_k` best samples. A curve is the interquartile mean over seeds with its interval; single lanes
    are not exported.

    - `results`: an experiment, several experiments, or a folder that is or contains experiments.
    - `to`: a tracker, one of `EXPORTERS`, or `file.py:Name` of a function like theirs.
    - `metric`: by what samples are the best, a name in `statistics.HEADLINES` (default: as in their reports).
    - `destination`: a new or empty folder (default: `<folder>/<tracker>`); for MLflow also an address.

    Raises `ValueError` for invalid arguments and if the tracker is not installed, before writing anything.
    """
    write = EXPORTERS.resolve(to)
    if top_k < 0:
        raise ValueError(f"top_k must be at least 0, got {top_k}")
    if metric is not None and metric not in HEADLINES:
        known = f"known: {', '.join(HEADLINES)}"
        raise ValueError(f'unknown metric "{metric}"{nearest(metric, HEADLINES, known)}')
    if isinstance(results, str | Path):
        place = resolved(results, "folder")
        found = [store.read(folder) for folder in store.find(place)]
    else:
        found = [results] if isinstance(results, Results) else list(results)
        place = found[0].folder if len(found) == 1 else None
    if destination is None and place is None:
        raise ValueError("give a destination: these results are not in one folder")
    target = _target(to, place / short_name(to) if destination is None and place is not None else destination)
    with leaving.unfinished(*[target] if isinstance(target, Path) else []):
        return write(list(runs.tracker_runs([measured_by(r, metric) for r in found], top_k)), target)


def _target(to: str, destination: Any) -> Path | str:
    """Return the destination as a path, or an address unchanged; raise `ValueError` for a folder in use."""
    if "://" in str(destination):
        if to != "mlflow":
            raise ValueError(f"{to} is written to a folder, not to {destination}")
        return str(destination)
    folder = resolved(destination, "destination")
    check_writable(folder, "--destination")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty; remove it, or choose another --destination")
    return folder
