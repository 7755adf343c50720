"""The command that compares experiments from folders that were made separately."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from hyperlax import leaving
from hyperlax.commands.flags import Metric, Place, limited
from hyperlax.registry import escaped
from hyperlax.storage.places import check_writable, resolved

if TYPE_CHECKING:
    from rich.console import RenderableType


def compare(
    results_dirs: Annotated[list[Place], Parameter(consume_multiple=True, negative="")],
    /,
    *,
    output_file: Place = Path("comparison.html"),
    metric: Metric | None = None,
    top_n: Annotated[int, limited("top_n")] = 5,
    embed_data: Literal["yes", "no"] = "yes",
) -> int:
    """Compare sweeps, searches or benchmarks made separately: print a table, and write a page with curves.

    Experiments on one environment are put side by side. Where their budgets, seeds, evaluations or protocols
    differ, the terminal and the page say so; experiments without an environment in common are refused.

    Parameters
    ----------
    results_dirs
        Folders of experiments, or any folders that contain some.
    output_file
        The page; a table with the same numbers is written beside it as CSV. Overwritten if it exists.
    metric
        The score of a sample. [default: what all were trained with, or final where that differs]
    top_n
        How many of the best samples of each experiment are drawn together.
    embed_data
        no: the page holds pictures instead of the charts and their data, and is much smaller. It has no
        tooltips, no highlighting, and no way to save a chart from the page.
    """
    if output_file.suffix != ".html":
        raise ValueError(f"--output-file {output_file} must end in .html")
    check_writable(resolved(output_file).parent, "--output-file")
    from rich.console import Console

    from hyperlax import report
    from hyperlax.report import agreement, batch
    from hyperlax.report.comparison import sentences
    from hyperlax.storage import store

    folders = dict.fromkeys(found.resolve() for folder in results_dirs for found in store.find(folder))
    read, failed = batch.readable(list(folders))
    for folder, problem in failed.items():
        print(escaped(f"{folder} {problem}"), file=sys.stderr)
    experiments = [report.measured_by(results, metric) for results in read.values()]
    groups = report.comparable(experiments)
    agreement.check_comparable(groups)
    leaving.from_now_on("nothing is lost; enter the command again")
    console = Console(highlight=False, markup=False)
    for line in agreement.metrics_words(experiments):
        console.print(line, style="yellow")
    for env, families in groups.items():
        console.print(f"\n{env}", style="bold")
        for line in agreement.differences(families):
            console.print(line, style="yellow")
        console.print(_table(families))
    console.print()
    for sentence in sentences(groups):
        console.print(sentence)
    page = report.write_comparison(experiments, output_file, top_n, embed_data=embed_data == "yes")
    console.print(f"\ncomparison: {page}", soft_wrap=True)
    return 1 if failed else 0


def _table(families: Sequence[Any]) -> RenderableType:
    """A row for each experiment on one environment: its best sample, and the middle of all its samples."""
    from rich.console import Group

    from hyperlax.commands.tables import number, span
    from hyperlax.report.comparison import summary
    from hyperlax.report.leaderboard import leaderboard
    from hyperlax.run.fitting import Fitting

    rows = []
    for results, row in zip(families, summary(families).iter_rows(named=True), strict=True):
        board = leaderboard(results, 1).row(0, named=True)
        certain = board["score_low"] is not None
        ends = ("score_low", "score_high") if certain else ("lowest_seed", "highest_seed")
        rows.append(
            [
                results.name,
                f"{row['samples']:,}",
                str(board["seeds"]),
                number(row["median"]),
                number(board["score"]),
                span(*(board[end] for end in ends)) + ("" if certain else " *"),
                "–" if row["best sample"] is None else str(row["best sample"]),
            ]
        )
    names = ("experiment", "samples", "seeds", "median", "best", "95 % interval", "sample")
    table = Fitting(names, rows, ("sample", "seeds", "median", "samples"), words=("experiment",))
    starred = any(cell.endswith(" *") for row in rows for cell in row)
    return Group(table, "* the range of the seeds: no interval holds") if starred else table
