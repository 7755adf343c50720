"""Commands that show, draw, verify and export results, and train nothing."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

from hyperlax import leaving
from hyperlax.commands.ending import FAILED
from hyperlax.commands.flags import Metric, Place, Tracker, limited
from hyperlax.registry import escaped


def plot_benchmark(
    *,
    results_dir_to_plot: Place,
    format: Annotated[str, Parameter(name="--format")] = "html",
    top_n: Annotated[int, limited("top_n")] = 5,
    metric: Metric | None = None,
    slice_metric: str = "score",
    combined_only: bool = False,
    include_additional_info_in_titles: bool = False,
    max_workers: Annotated[int, limited("max_workers")] = 1,
    compare: Place | None = None,
    embed_data: Literal["yes", "no"] = "yes",
) -> int:
    """Write the report (and images) of every experiment in a folder, finished or still running.

    Parameters
    ----------
    results_dir_to_plot
        An experiment's folder, or any folder that contains some. Several experiments are also compared, in
        comparison.html.
    format
        What to write, separated by commas: html, png, svg, pdf.
    top_n
        How many of the best samples of an experiment are drawn together.
    metric
        The score of a sample in every table and chart: its final return, the mean return in training (auc),
        the mean of its seeds' peaks, or the peak of their mean. [default: that of the experiment: final, or
        peak_of_mean in the published protocol]
    slice_metric
        What slices and parallel coordinates show of a sample: its score, or a column of the report's table of
        samples.
    combined_only
        Write only the comparison, no reports of single experiments.
    include_additional_info_in_titles
        Titles of images name the experiment, its samples, seeds, budget and protocol.
    max_workers
        Processes that draw experiments at the same time.
    compare
        Published results to compare with: a table with one row per cell (env, algo, network, samples,
        best_peak, ...), a summary with one row per sample (<env>_<algo>-<network>_summary.csv), or a folder
        of such files.
    embed_data
        no: pages hold pictures instead of the charts and their data, and are much smaller. They have no
        tooltips, no highlighting, and no way to save a chart from the page.
    """
    formats = [f.strip() for f in format.split(",")]
    if wrong := [f for f in formats if f not in ("html", "png", "svg", "pdf")]:
        raise ValueError(f"--format knows html, png, svg and pdf; got {', '.join(wrong)}")
    if include_additional_info_in_titles and formats == ["html"]:
        raise ValueError(
            "--include-additional-info-in-titles is for images, and none is written; add them with "
            "--format html,png"
        )
    if embed_data == "no" and "html" not in formats:
        raise ValueError(
            "--embed-data no is for pages, and none is written; add html to --format, or leave it out"
        )
    from hyperlax.storage import store

    folders = store.find(results_dir_to_plot)
    from hyperlax import report
    from hyperlax.report import batch

    options = report.Options(top_n, slice_metric, include_additional_info_in_titles, embed_data == "yes")
    published = report.read_published(compare) if compare is not None else None
    folders, waiting = batch.begun(folders)
    for folder in waiting:
        print(f"{folder} is skipped: nothing has been recorded yet; begin it with --resume", file=sys.stderr)
    leaving.from_now_on("what is drawn so far is whole; for the rest enter the command again")
    found, failed = batch.readable(folders)
    found = {folder: report.measured_by(results, metric) for folder, results in found.items()}
    experiments = list(found.values())
    together = len(experiments) > 1 or published is not None
    if published is not None:
        report.check_published(experiments, published)
    if combined_only and not together:
        raise ValueError(
            f"--combined-only compares experiments, and {results_dir_to_plot} holds one; leave it out"
        )
    if not combined_only:
        for folder, written, problem in batch.draw_all(found, formats, options, max_workers):
            for path in written:
                print(path)
            if problem:
                failed[folder] = problem
    if together and experiments:
        if "html" in formats:
            page = results_dir_to_plot / "comparison.html"
            print(report.write_comparison(experiments, page, top_n, published, options.embed_data))
        if images := [f for f in formats if f != "html"]:
            charts = results_dir_to_plot / "charts"
            drawn = report.export_comparison(experiments, charts, images, options, published)
            print(*drawn, sep="\n")
    for folder, problem in failed.items():
        print(escaped(f"{folder} {problem}"), file=sys.stderr)
    return FAILED if failed else 0


def check(folder: Place) -> int:
    """Verify every file of an experiment, or of all below a folder; the exit code is 1 if one is damaged.

    Parameters
    ----------
    folder
        The folder of an experiment or a benchmark, or any folder that contains some.
    """
    from rich.console import Console

    from hyperlax.commands.screen import visible
    from hyperlax.commands.tables import checked_table
    from hyperlax.storage.checking import check as verify

    found = verify(folder)
    Console(highlight=False, markup=False).print(checked_table(found, folder))
    for line in [line for entry in found for line in entry.problems]:
        print(visible(line))
    for command in dict.fromkeys(entry.command for entry in found if entry.command):
        print(visible(f"next: {command}"))
    return FAILED if any(entry.problems for entry in found) else 0


def export(
    *,
    results_dir: Place,
    to: Tracker,
    top_k: Annotated[int, limited("top_k")] = 5,
    metric: Metric | None = None,
    destination: str | None = None,
) -> int:
    """Write experiments for a tracker: a run for each, finished or running, and for its best samples.

    Parameters
    ----------
    results_dir
        An experiment's folder, or any folder that contains some.
    top_k
        How many of the best samples of an experiment get a run of their own.
    metric
        The metric that ranks samples, as for plot-benchmark.
    destination
        A new folder; for mlflow also an address. [default: <results-dir>/<tracker>]
    """
    from hyperlax.exporters import export as write

    print(f"written; see it with: {write(results_dir, to, destination, top_k, metric)}")
    return 0
