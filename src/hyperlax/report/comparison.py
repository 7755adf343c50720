"""Comparison of several experiments on one page: families of agents side by side on each environment.

A family is an algorithm × network as one recipe configures it; every experiment stands for one family.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path

import numpy as np
import polars as pl

from hyperlax.report import markup
from hyperlax.report.agreement import differences
from hyperlax.report.charts import ecdf, entanglement, return_distribution, size_chart
from hyperlax.report.charts.complexities import complexity_chart
from hyperlax.report.charts.curves import X_TITLES
from hyperlax.report.charts.families import (
    Families,
    best_of_k_chart,
    improvement_chart,
    profile_chart,
    tuned_curves,
)
from hyperlax.report.charts.runtime import scaling
from hyperlax.report.charts.samples import combined_distribution
from hyperlax.report.charts.style import Chart, NothingToDraw, sample_keys
from hyperlax.report.charts.tuning import tuning_chart
from hyperlax.report.claims import verdicts_by_environment
from hyperlax.report.document import Pictures, sections_of, tabs, write_document
from hyperlax.report.draws import chosen, drawn_scores
from hyperlax.report.evaluations import at_equal_steps, stopped_early
from hyperlax.report.export import image, informed_title
from hyperlax.report.findings import comparison_findings
from hyperlax.report.leaderboard import leaderboard, varied_hyperparameters
from hyperlax.report.options import Options
from hyperlax.report.published import Published
from hyperlax.report.published_comparison import BEST_STATISTICS, STATISTICS, over_samples
from hyperlax.report.published_section import TABLE, PublishedComparison
from hyperlax.report.scores import (
    DESCRIPTION,
    described,
    headline_of,
    measured_alike,
    ranked,
    sample_scores,
    scores,
)
from hyperlax.report.tables import definition, score_table
from hyperlax.report.templates import Markup, joined, piece
from hyperlax.report.tuning import sensitivity_table
from hyperlax.statistics import Unavailable, best_of_k
from hyperlax.storage.files import write_output
from hyperlax.storage.results import FRESH, Results
from hyperlax.storage.shareable import without_folders

_DEFAULTS = Options()
_SMALL_SEARCH = 8
"""Number of samples of the small search whose expected best score the summary reports."""
_SOMETIMES = (
    f"expected best of {_SMALL_SEARCH}",
    "fresh return of the best",
    "parameters of the best",
    "circuit executions of the best",
    "seconds per lane",
)
"""Columns of the summary that may be empty."""
_OVERVIEW = ("env", "family", "recipe", "samples", "diverged", *STATISTICS)
"""Columns of the summary that are shown for all environments together."""


def charts(families: Families, top: int = 5) -> dict[str, Callable[[], Chart]]:
    """Return the charts of one environment by file name, as functions that draw them."""
    curves = {
        f"tuned_curves_{axis}": partial(tuned_curves, families, axis, top)
        for axis in X_TITLES
        if axis != "circuit_executions" or any(_runs_circuits(r) for r in families)
    }
    return {
        **curves,
        "return_distribution": partial(return_distribution, *families, shared=True),
        "ecdf": partial(ecdf, *families, shared=True),
        "best_of_k": partial(best_of_k_chart, families),
        "performance_profile": partial(profile_chart, families),
        "probability_of_improvement": partial(improvement_chart, families),
        "sample_complexity": partial(complexity_chart, families),
        "return_against_parameters": partial(size_chart, *families, shared=True),
        "entanglement": partial(entanglement, *families, shared=True),
        "runtime": partial(scaling, families),
    }


def by_environment(experiments: Sequence[Results]) -> dict[str, list[Results]]:
    """Group experiments by environment.

    Experiments of equal name on one environment are renamed after their recipes, or after their folders if
    the recipes are equal too.
    """
    found: dict[str, list[Results]] = {}
    for results in experiments:
        env = without_folders(str(results.manifest.get("env", "an unnamed environment")))
        found.setdefault(env, []).append(results)
    return {env: _with_distinct_names(group) for env, group in found.items()}


def comparable(experiments: Sequence[Results]) -> dict[str, list[Results]]:
    """Group experiments by environment, with distinct names, one headline metric and equal lengths."""
    groups = by_environment(measured_alike(experiments))
    return {env: at_equal_steps(group) for env, group in groups.items()}


def _with_distinct_names(group: Sequence[Results]) -> list[Results]:
    """Rename experiments of equal name after their recipes or, if those are equal too, their folders."""
    names = [r.name for r in group]
    if len(set(names)) == len(names):
        return list(group)
    recipes = [without_folders(str(r.manifest.get("recipe", r.name))) for r in group]
    chosen = recipes if len(set(recipes)) == len(recipes) else _distinct_path_parts(group)
    return [
        dataclasses.replace(r, manifest={**r.manifest, "name": name})
        for r, name in zip(group, chosen, strict=True)
    ]


def _distinct_path_parts(group: Sequence[Results]) -> list[str]:
    """Return, for each experiment, the components of its folder's path that are not common to all.

    These are the last component, with a position if they are equal, where a folder contains the others.
    """
    parts = [r.folder.parts if r.folder else (str(i),) for i, r in enumerate(group)]
    columns = [column for column in zip_longest(*parts, fillvalue="") if len(set(column)) > 1]
    differ = ["/".join(filter(None, own)) for own in zip(*columns, strict=True)]
    names = [name or own[-1] for name, own in zip(differ or [""] * len(parts), parts, strict=True)]
    again = {name for name in names if names.count(name) > 1}
    return [f"{name} ({i})" if name in again else name for i, name in enumerate(names, 1)]


def summary(families: Families) -> pl.DataFrame:
    """Summarise every family in one row: samples, lanes, scores, and what the best sample costs.

    The statistics of `STATISTICS` are taken over the scores of the samples by the headline metric, the best
    with its score in `fresh` episodes. Where samples stopped early by their scores, those left are no random
    ones: what is said of all samples is null. So is the expected best where they were `chosen`. `evaluated`
    counts all that have a score. Parameters and circuit executions of the best sample are those of one of its
    lanes. The columns of `scores.DESCRIPTION` say what the scores are.
    """
    rows = []
    for results in families:
        best, lanes = ranked(results).head(1), results.lanes
        values = over_samples(scores(results))
        stopped = stopped_early(results) > 0
        own = lanes.filter(pl.col("sample").is_in(best["sample"].implode()))
        sizes = lanes["parameters"].drop_nulls()
        row = {
            "family": results.name,
            "samples": len(results.samples),
            "evaluated": sample_scores(results)["score"].count(),
            "lanes": len(lanes),
            "diverged": int((lanes["status"] == "diverged").sum()),
            "best sample": best["sample"].to_list()[0] if len(best) else None,
            **{
                name: None if stopped and name not in BEST_STATISTICS else float(value.value)
                for name, value in values.items()
            },
            f"expected best of {_SMALL_SEARCH}": None
            if chosen(results)
            else _expected_best(drawn_scores(results)),
            "fresh return of the best": best[FRESH].to_list()[0] if len(best) else None,
            "parameters of the best": _first_value(own, "parameters"),
            "parameters": f"{sizes.min():,} – {sizes.max():,}" if len(sizes) else None,
            "circuit executions of the best": _first_value(own, "circuit_executions"),
            "seconds per lane": float(lanes["seconds"].drop_nulls().to_numpy().mean())
            if lanes["seconds"].drop_nulls().len()
            else None,
        }
        numbers = dict.fromkeys((*STATISTICS, *_SOMETIMES), pl.Float64) | {"best sample": pl.Int64}
        numbers = {name: kind for name, kind in numbers.items() if name in row}
        rows.append(described(pl.DataFrame([row], schema_overrides=numbers), results).fill_nan(None))
    return pl.concat(rows, how="vertical_relaxed")


def overview(groups: Mapping[str, Families]) -> pl.DataFrame:
    """Return the summaries of all environments in one table, in the format that `read_published` reads."""
    tables = []
    for env, families in groups.items():
        names = [
            {"env": env, "algo": r.manifest.get("algorithm"), "network": r.manifest.get("network")}
            for r in families
        ]
        cells = pl.DataFrame(names, schema=dict.fromkeys(("env", "algo", "network"), pl.String))
        tables.append(pl.concat([cells, summary(families)], how="horizontal"))
    return pl.concat(tables, how="vertical_relaxed")


def _expected_best(found: np.ndarray) -> float | None:
    """Return the expected best of `_SMALL_SEARCH` samples; None if there are fewer."""
    return float(best_of_k(found).value[_SMALL_SEARCH - 1]) if len(found) >= _SMALL_SEARCH else None


def _first_value(lanes: pl.DataFrame, column: str) -> float | None:
    """Return the first value of a column that is not null; None if there is none."""
    values = lanes[column].drop_nulls()
    return float(values[0]) if len(values) else None


def _varies_entangler(results: Results) -> bool:
    return any(c.endswith("entangler") for c in varied_hyperparameters(results.samples))


def _runs_circuits(results: Results) -> bool:
    return bool((results.lanes["circuit_executions"] > 0).any())


def write_comparison(
    experiments: Sequence[Results],
    path: Path,
    top: int = 5,
    published: Published | None = None,
    embed_data: bool = True,
) -> Path:
    """Write one self-contained page that compares `experiments`, and return its path.

    A CSV file next to the page holds the summary of every experiment (`overview`), with the same numbers as
    the page; a later comparison can use it as published results. All experiments are scored by one headline
    metric (`measured_alike`). If `published` is given, the page begins with our results next to the published
    ones, and the same numbers are written to a second CSV file (`TABLE`). Raises ValueError if `published`
    has results for none of the experiments. Without `embed_data` the page holds pictures
    (`Options.embed_data`).
    """
    pictures = Pictures(embed_data)
    groups, experiments = comparable(experiments), measured_alike(experiments)
    table, sections = overview(groups), {}
    if published is not None:
        comparison = PublishedComparison(groups, published)
        sections["published"] = ("Comparison with published results", comparison.section(pictures))
        write_output(path.with_name(TABLE), comparison.table().write_csv())
    if len(groups) > 1:
        drawn = pictures.add("combined_distribution", partial(combined_distribution, groups))
        listed = markup.table(table.select(_OVERVIEW), "overview")
        sections["combined"] = ("All environments", joined(drawn, listed))
    said = verdicts_by_environment(groups)
    for place, (env, families) in enumerate(groups.items()):
        inner = _environment_section(families, f"e{place}", pictures, top, said[env])
        sections[f"env-{place}"] = (env, inner)
    if len(groups) > 1:
        sections["across"] = ("Across environments", _across_environments(experiments, pictures))
    count = sum(len(f) for f in groups.values())
    title = f"{count} experiments compared" if count > 1 else experiments[0].name
    introduction = (
        f"The score of a sample is its {headline_of(experiments[0].manifest).title}. "
        "The report of each experiment lists its samples, shows how training went, and says how to repeat it."
    )
    found = piece("found", comparison_findings(groups, said))
    header = piece("header", title, introduction, joined(found, definition(experiments[0])))
    write_output(path.with_suffix(".csv"), table.write_csv())
    return write_document(path, title, sections_of(header, sections), pictures)


def sentences(groups: Mapping[str, Sequence[Results]]) -> list[str]:
    """Return what was found, in three sentences, from the experiments on each environment."""
    return comparison_findings(groups, verdicts_by_environment(groups))


def check_published(experiments: Sequence[Results], published: Published) -> None:
    """Raise ValueError if `published` has results for none of the experiments."""
    PublishedComparison(by_environment(experiments), published)


def _environment_section(
    families: Families, prefix: str, pictures: Pictures, top: int, verdicts: Sequence[str]
) -> Markup:
    """Return the section of one environment as HTML; `prefix` makes its chart and table ids unique."""
    shown = {name: pictures.add(f"{prefix}_{name}", draw) for name, draw in charts(families, top).items()}
    curves = {
        title: shown[f"tuned_curves_{axis}"]
        for axis, title in X_TITLES.items()
        if f"tuned_curves_{axis}" in shown
    }
    parts = [
        markup.table(summary(families).drop("definition"), f"{prefix}-summary"),
        *(piece("note", line, bad=True) for line in differences(families)),
        _section("Tuned learning curves", tabs(f"{prefix}-curves", curves)),
        _best_samples_section(families, prefix, top),
        _section("Return across samples", joined(shown["return_distribution"], shown["ecdf"])),
        _section("Best of k samples", shown["best_of_k"]),
        _section("Performance profile", shown["performance_profile"]),
    ]
    if len(families) > 1:
        said = markup.notes(list(verdicts))
        parts.append(_section("Who is ahead", joined(said, shown["probability_of_improvement"])))
    parts.append(_section("Sample complexity", shown["sample_complexity"]))
    parts.append(_section("Return against parameters", shown["return_against_parameters"]))
    if any(_varies_entangler(results) for results in families):
        parts.append(_section("With and without entanglement", shown["entanglement"]))
    parts.append(_section("Runtime", shown["runtime"]))
    return joined(*parts)


def _across_environments(experiments: Sequence[Results], pictures: Pictures) -> Markup:
    """Return the section on sensitivity across environments: chart and table, or why there are none."""
    shown = pictures.add("across_environments", partial(tuning_chart, experiments))
    try:
        return joined(shown, markup.table(sensitivity_table(experiments), "across-table"))
    except Unavailable:
        return shown


def best_samples(families: Families, top: int = 5) -> pl.DataFrame:
    """Return the `top` samples of every family in one table, best first; ranks are within the family."""
    columns = ("rank", "score", "score_low", "score_high", FRESH, "seeds_done", "seeds_diverged")
    tables = []
    for results in families:
        best = leaderboard(results, top).drop_nulls("score")
        keys = sample_keys(results, best["sample"], True)
        tables.append(best.select(keys, pl.lit(results.name).alias("family"), *columns, *DESCRIPTION))
    ranked_first = pl.col("rank") == "–"
    return pl.concat(tables).sort(ranked_first, "score", descending=[False, True], maintain_order=True)


def _best_samples_section(families: Families, prefix: str, top: int) -> Markup:
    best = best_samples(families, top)
    note = "Ranks are places within the family. Click a sample to find it in every chart."
    if best.is_empty():
        return joined()
    return _section("Best samples", score_table(best, families[0], f"{prefix}-best", note))


def _section(heading: str, content: Markup) -> Markup:
    return piece("part", heading, content)


def export_comparison(
    experiments: Sequence[Results],
    folder: Path,
    formats: Sequence[str],
    options: Options = _DEFAULTS,
    published: Published | None = None,
) -> list[Path]:
    """Write every chart that has data to `folder`, and return the paths written.

    File names are `<environment>-<chart>.<format>`; the charts over all environments are called
    `combined_distribution` and `across_environments`. If `published` is given, the table of the comparison
    with it (`TABLE`) is written as well.
    """
    groups, experiments = comparable(experiments), measured_alike(experiments)
    comparison = PublishedComparison(groups, published) if published is not None else None
    drawn: dict[str, tuple[Callable[[], Chart], Families]] = {
        "across_environments": (partial(tuning_chart, experiments), ())
    }
    if len(groups) > 1:
        drawn["combined_distribution"] = partial(combined_distribution, groups), ()
    for env, families in groups.items():
        prefix = "".join(c if c.isalnum() else "_" for c in env)
        every = charts(families, options.top) | (comparison.charts(env) if comparison is not None else {})
        drawn |= {f"{prefix}-{name}": (draw, families) for name, draw in every.items()}
    written = []
    if comparison is not None:
        written.append(write_output(folder / TABLE, comparison.table().write_csv()))
    for name, (draw, families) in drawn.items():
        try:
            spec = draw().to_dict()
        except NothingToDraw:
            continue
        if options.informed and families:
            spec = informed_title(spec, families)
        written += [write_output(folder / f"{name}.{s}", image(spec, s)) for s in formats]
    return written
