"""Reports and images for many experiments; one that cannot be read or drawn does not stop the others."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from hyperlax import leaving
from hyperlax.report.export import export_charts
from hyperlax.report.html import write_report
from hyperlax.report.options import Options
from hyperlax.storage import reading, store
from hyperlax.storage.results import Results


def begun(folders: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Split `folders` into those in which something has been recorded, and those of runs that never began."""
    waiting = []
    for folder in folders:
        with suppress(ValueError):  # damage is reported by `readable`
            if reading.unbegun(folder):
                waiting.append(folder)
    return [f for f in folders if f not in waiting], waiting


def readable(folders: Sequence[Path]) -> tuple[dict[Path, Results], dict[Path, str]]:
    """Read every folder that can be read.

    Returns the experiments by folder, and for each of the other folders the reason why it cannot be read.
    """
    found, errors = {}, {}
    for folder in folders:
        try:
            found[folder] = _read(folder)
        except Exception as error:  # a defect of one folder must not hide the others
            errors[folder] = f"cannot be read: {_message(error)}"
    return found, errors


def _read(folder: Path) -> Results:
    """Read one experiment; raise ValueError if its manifest has no name, or if it has no samples."""
    results = store.read(folder)
    if not isinstance(results.manifest, dict) or "name" not in results.manifest:
        raise ValueError("its manifest.json does not name the experiment")
    if results.samples.is_empty():
        raise ValueError("it has no samples")
    return results


def draw_all(
    experiments: dict[Path, Results], formats: Sequence[str], options: Options, workers: int = 1
) -> Iterator[tuple[Path, list[Path], str]]:
    """Draw every experiment into its folder, and yield the outcomes in the same order.

    Each outcome is the folder, the files written to it, and an error message, empty if nothing went wrong.
    With several `workers`, each is a separate process, which reads its experiments from disk again.
    """
    folders = list(experiments)
    if workers == 1 or len(folders) < 2:
        for folder, results in experiments.items():
            yield (folder, *_draw(results, folder, formats, options))
        return
    # "spawn", because forked workers would inherit locks that threads of XLA and polars may hold.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(folders)), context, leaving.as_worker) as pool:
        draw = partial(_read_and_draw, formats=tuple(formats), options=options)
        for folder, drawn in zip(folders, pool.map(draw, folders), strict=True):
            yield (folder, *drawn)


def _read_and_draw(folder: Path, formats: Sequence[str], options: Options) -> tuple[list[Path], str]:
    return _draw(store.read(folder), folder, formats, options)


def _draw(results: Results, folder: Path, formats: Sequence[str], options: Options) -> tuple[list[Path], str]:
    """Return the files written and an error message, empty if nothing went wrong."""
    written = []
    try:
        if "html" in formats:
            written.append(write_report(results, folder / store.REPORT, options))
        if images := [f for f in formats if f != "html"]:
            written += export_charts(results, folder / "charts", images, options)
    except Exception as error:  # a failure to draw one experiment must not stop the others
        return written, f"cannot be drawn: {_message(error)}"
    return written, ""


def _message(error: Exception) -> str:
    """Return the first line of the message, with the type of any error other than ValueError."""
    lines = str(error).strip().splitlines() or [""]
    return lines[0] if isinstance(error, ValueError) else f"{type(error).__name__}: {lines[0]}"
