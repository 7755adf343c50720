"""Reports and images of many experiments: what cannot be read is named, the rest is drawn."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from hyperlax.report.export import export_charts
from hyperlax.report.html import write_report
from hyperlax.report.options import Options
from hyperlax.storage import store
from hyperlax.storage.results import Results


def readable(folders: Sequence[Path]) -> tuple[dict[Path, Results], dict[Path, str]]:
    """The experiments by folder, and why others cannot be read."""
    found, broken = {}, {}
    for folder in folders:
        try:
            found[folder] = _read(folder)
        except Exception as error:  # whatever is wrong with one folder must not hide the others
            broken[folder] = f"cannot be read: {_words(error)}"
    return found, broken


def _read(folder: Path) -> Results:
    results = store.read(folder)
    if not isinstance(results.manifest, dict) or "name" not in results.manifest:
        raise ValueError("its manifest.json does not say what it is")
    if results.samples.is_empty():
        raise ValueError("it has no samples")
    return results


def draw_all(
    experiments: dict[Path, Results], formats: Sequence[str], options: Options, workers: int = 1
) -> Iterator[tuple[Path, list[Path], str]]:
    """Draws every experiment into its folder, in order: the folder, the files written, and what went wrong.

    With several `workers`, each is a process of its own that reads the experiment again.
    """
    folders = list(experiments)
    if workers == 1 or len(folders) < 2:
        for folder, results in experiments.items():
            yield (folder, *_draw(results, folder, formats, options))
        return
    # Forked, the workers would inherit locks that threads of XLA and polars may hold.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(folders)), mp_context=context) as pool:
        draw = partial(_read_and_draw, formats=tuple(formats), options=options)
        for folder, drawn in zip(folders, pool.map(draw, folders), strict=True):
            yield (folder, *drawn)


def _read_and_draw(folder: Path, formats: Sequence[str], options: Options) -> tuple[list[Path], str]:
    return _draw(store.read(folder), folder, formats, options)


def _draw(results: Results, folder: Path, formats: Sequence[str], options: Options) -> tuple[list[Path], str]:
    """Files written, and what went wrong where something did."""
    written = []
    try:
        if "html" in formats:
            written.append(write_report(results, folder / "report.html", options))
        if images := [f for f in formats if f != "html"]:
            written += export_charts(results, folder / "charts", images, options)
    except Exception as error:  # one experiment that cannot be drawn must not stop the others
        return written, f"cannot be drawn: {_words(error)}"
    return written, ""


def _words(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return lines[0] if isinstance(error, ValueError) else f"{type(error).__name__}: {lines[0]}"
