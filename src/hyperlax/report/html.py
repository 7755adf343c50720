"""The report of one experiment: a single HTML file that works offline."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import polars as pl

from hyperlax.hyperparams import assign
from hyperlax.networks.pqc import PQCHyperparams
from hyperlax.report import markup
from hyperlax.report.applies import applies, over, telling
from hyperlax.report.charts import charts_with
from hyperlax.report.charts.ablation import ablation_notes, ablation_table
from hyperlax.report.charts.search import SEARCH_CHARTS
from hyperlax.report.document import Pictures, sections_of, tabs, write_document
from hyperlax.report.evaluations import equal_steps
from hyperlax.report.findings import findings
from hyperlax.report.leaderboard import leaderboard
from hyperlax.report.options import Options
from hyperlax.report.scores import headline_of
from hyperlax.report.selection import DROP_MEANING, drop_words, selection_bias
from hyperlax.report.tables import (
    leaderboard_table,
    plan_table,
    sample_table,
    score_table,
    stopped_lanes_table,
)
from hyperlax.report.templates import Markup, joined, own, piece
from hyperlax.statistics import HEADLINES
from hyperlax.storage.results import LANE_STATUSES, Results
from hyperlax.storage.shareable import shareable_command
from hyperlax.storage.wording import duration

_CURVE_TABS = {
    "learning_curves": "environment steps",
    "learning_curves_seconds": "wall time",
    "learning_curves_gradient_steps": "gradient steps",
    "learning_curves_circuit_executions": "circuit executions",
}
_DEFAULTS = Options()
_SEARCH_HEADINGS = {
    "search_history": "History",
    "search_pareto": "Pareto front",
    "search_importance": "Importance of hyperparameters",
    "search_slices": "Slices",
    "search_parallel": "Trials through the space",
}
_LARGEST_DRAWN = 2**40
"""Bytes that a circuit may take to be drawn; more than any circuit that was trained."""
_PROTOCOL_MEANINGS = {
    "corrected": "the default of hyperlax, which corrects the known defects of the published experiments",
    "published": "training and evaluation as in the published experiments of hyperlax v0.1, defects included",
}


def write_report(results: Results, path: Path, options: Options = _DEFAULTS) -> Path:
    """Write the report of one experiment to `path`, and return that path.

    The file is self-contained: it includes Vega and loads nothing else. A chart without data is replaced by
    the reason why it is missing, so that a running experiment can be reported as well; once it is over, such
    charts are left out, and their reasons listed at the end. The file is written atomically.
    """
    pictures = Pictures(options.embed_data)
    wanted = charts_with(options) | (SEARCH_CHARTS if len(results.trials) else {})
    charts = {name: chart for name, chart in wanted.items() if applies(name, results)}
    shown = {name: pictures.add(name, telling(name, chart, results)) for name, chart in charts.items()}
    left_out = pictures.reasons if over(results) else {}
    kept = {name: joined() if name in left_out else picture for name, picture in shown.items()}
    return write_document(path, _title(results), _body(results, kept, left_out, options), pictures)


def _body(
    results: Results, pictures: dict[str, Markup], left_out: dict[str, str], options: Options
) -> Markup:
    """Return the body of the page as HTML.

    `pictures` holds the HTML of each chart that applies, and `left_out` why some of these are empty.
    """
    sections = {
        "leaderboard": (
            "Leaderboard",
            joined(leaderboard_table(results, options.top), pictures["leaderboard"]),
        ),
        **_confirmation_section(results, pictures),
        **_ablation_section(results, pictures),
        **_curves_section(pictures),
        **_chart_section("tuned", "Best samples", pictures, "aggregate_curves"),
        **_schedule_section(results, pictures),
        **_circuit_section(results),
        **_search_section(results, pictures),
        **_chart_section("distribution", "Return across samples", pictures, "return_distribution", "ecdf"),
        **_chart_section("budget", "Expected result of a smaller search", pictures, "best_of_k"),
        **_chart_section("slices", "Slices through the search space", pictures, "slices"),
        **_chart_section("importance", "Importance of hyperparameters", pictures, "importance"),
        **_chart_section("parallel", "Parallel coordinates", pictures, "parallel_coordinates"),
        **_sobol_section(results, pictures),
        **_chart_section("sizes", "Return against parameters", pictures, "return_against_parameters"),
        **_chart_section("entanglement", "With and without entanglement", pictures, "entanglement"),
        "samples": ("All samples", sample_table(results)),
        "health": ("Training health", joined(stopped_lanes_table(results), pictures["training_health"])),
        "time": (
            "Where the time went",
            joined(pictures["timeline"], pictures["runtime"], plan_table(results)),
        ),
        "repeat": ("How to repeat it", _reproduction(results)),
    }
    if reasons := {_words(name): reason for name, reason in left_out.items()}:
        sections["left-out"] = ("Charts with nothing to show", markup.reasons(reasons))
    return sections_of(_header(results), sections)


def _words(name: str) -> str:
    """Return the name of a chart in words."""
    return name[0].upper() + name[1:].replace("_", " ")


def _curves_section(pictures: dict[str, Markup]) -> dict[str, tuple[str, Markup]]:
    """Return a section with the learning curves, a tab for each axis; empty if there is none."""
    found = {label: pictures[name] for name, label in _CURVE_TABS.items() if pictures.get(name)}
    return {"curves": ("Learning curves", tabs("curves", found))} if found else {}


def _chart_section(
    name: str, heading: str, pictures: dict[str, Markup], *wanted: str
) -> dict[str, tuple[str, Markup]]:
    """Return a section, as a one-entry mapping, with the `wanted` charts; empty if none of them applies."""
    shown = [pictures[chart] for chart in wanted if pictures.get(chart)]
    return {name: (heading, joined(*shown))} if shown else {}


def _confirmation_section(results: Results, pictures: dict[str, Markup]) -> dict[str, tuple[str, Markup]]:
    """Return a section on the best samples retrained with fresh seeds; empty without a confirmation."""
    if results.confirmation is None:
        return {}
    found = selection_bias(results)
    note = (
        "The drop, tuning score minus confirmed score, estimates how far selecting the best samples "
        f"by their tuning scores has inflated these. {drop_words(results)}"
        + (f" {DROP_MEANING}" if found["drop_low"].count() else "")
    )
    content = joined(pictures["confirmation"], score_table(found, results, "confirmed", note))
    return {"confirmation": ("Tuning score against confirmed score", content)}


def _ablation_section(results: Results, pictures: dict[str, Markup]) -> dict[str, tuple[str, Markup]]:
    """Return a section on samples that differ in one hyperparameter alone; empty without such pairs."""
    found = ablation_table(results)
    if found.is_empty():
        return {}
    note = markup.notes(ablation_notes(results))
    shown = joined(note, pictures["ablation"], markup.table(found, "ablation"))
    return {"ablation": ("What one hyperparameter changes", shown)}


def _sobol_section(results: Results, pictures: dict[str, Markup]) -> dict[str, tuple[str, Markup]]:
    """Return a section with Sobol' indices; empty unless the samples were drawn to estimate them."""
    drawn = "matrix" in results.samples.columns
    return _chart_section("sobol", "Sobol’ indices", pictures, "sobol_indices") if drawn else {}


def _schedule_section(results: Results, pictures: dict[str, Markup]) -> dict[str, tuple[str, Markup]]:
    """Return a section on the decisions of the schedule; empty if every lane was trained to its end."""
    schedule = (results.manifest.get("identity") or {}).get("schedule") or {}
    contents = {
        "pbt": ("Population-based training", ("lineage", "hyperparameter_schedules")),
        "asha": ("Successive halving", ("rungs",)),
    }
    if schedule.get("name") not in contents:
        return {}
    heading, names = contents[schedule["name"]]
    options = {k: v for k, v in schedule.items() if k not in ("name", "explores")}
    drawn = joined(markup.facts(options), *(pictures[name] for name in names))
    return {"schedule": (heading, drawn)}


def _search_section(results: Results, pictures: dict[str, Markup]) -> dict[str, tuple[str, Markup]]:
    """Return a section on the trials of a search; empty if the experiment is not a search."""
    if results.trials.is_empty():
        return {}
    search = results.manifest.get("search") or {}
    ended = dict(results.trials.group_by("state").len().iter_rows())
    entries = {
        "sampler": search.get("sampler"),
        "pruner": search.get("pruner"),
        "objectives": ", ".join(map(" ".join, zip(search["directions"], search["objectives"], strict=True))),
        "trials": ", ".join(f"{n} {state}" for state, n in sorted(ended.items(), key=lambda e: -e[1])),
        "trials planned": search.get("n_trials"),
        "processes": results.trials["process"].n_unique(),
    }
    note = "The best trial was selected by the score shown here, so its score is optimistic" + (
        ": train best_recipe.py with fresh seeds before you quote it." if "done" in ended else "."
    )
    several = len(search["objectives"]) > 1
    shown = {
        name: heading for name, heading in _SEARCH_HEADINGS.items() if several or name != "search_pareto"
    }
    drawn = [piece("part", heading, pictures[name]) for name, heading in shown.items() if pictures[name]]
    if search["objectives"][0] in HEADLINES:
        note += f" {search['objectives'][0]}: {HEADLINES[search['objectives'][0]].definition}."
    table = results.trials.drop("start", "end").rename({"trial": "sample"})
    listed = piece("details", "All trials", markup.table(table, "trials", "", filtered=True))
    return {"search": ("Search", joined(markup.facts(entries), piece("note", note), *drawn, listed))}


def _circuit_section(results: Results) -> dict[str, tuple[str, Markup]]:
    """Return a section with the circuit diagrams of the best sample; empty for other networks."""
    manifest, best = results.manifest, leaderboard(results).drop_nulls("score")
    inputs = manifest.get("inputs") or {}
    if manifest.get("network") != "drpqc" or best.is_empty():
        return {}
    sample = int(best["sample"][0])
    row = results.samples.row(by_predicate=pl.col("sample") == sample, named=True)
    parts = []
    for name, in_size in inputs.items():
        chosen = {k.removeprefix(f"{name}."): v for k, v in row.items() if k.startswith(f"{name}.")}
        hp = assign(PQCHyperparams(), chosen)
        if refusal := hp.refusal(int(in_size), _LARGEST_DRAWN):
            parts.append(piece("missing", f"{name}: {refusal}"))
            continue
        caption = f"{name} of sample {sample}: {hp.parameter_count(in_size)} trained parameters"
        parts += [piece("note", caption), piece("drawing", own(hp.picture(in_size, caption)))]
    return {"circuits": ("Circuits of the best sample", joined(*parts))} if parts else {}


def _header(results: Results) -> Markup:
    """Return the header of the page: title, protocol, the main facts and the notes of the experiment."""
    manifest, settings = results.manifest, results.manifest.get("settings", {})
    counts = dict(results.lanes.group_by("status").len().iter_rows())
    lanes = ", ".join(f"{counts[status]}\u00a0{status}" for status in LANE_STATUSES if status in counts)
    protocol = str(manifest.get("protocol", "unknown"))
    meaning = _PROTOCOL_MEANINGS.get(protocol)
    wall = manifest.get("timings", {}).get("wall_seconds")
    notes = markup.notes(manifest.get("notes") or [])
    entries = {
        "recipe": manifest.get("recipe"),
        "environment": manifest.get("env"),
        "algorithm": manifest.get("algorithm"),
        "network": manifest.get("network"),
        "protocol": protocol,
        "samples": len(results.samples),
        "seeds": settings.get("seeds"),
        "lanes": lanes or "none yet",
        "budget": _steps(settings.get("total_timesteps")),
        "score": headline_of(manifest).title,
        "compared up to": _steps(equal_steps(results)),
        "evaluations": _evaluations(settings),
        "wall time": None if wall is None else duration(float(wall), 1),
        "started": str(manifest["created"]).replace("T", " ")[:16] if "created" in manifest else None,
    }
    return piece(
        "header",
        _title(results),
        "Click a sample in a table or chart to highlight it everywhere.",
        joined(piece("found", findings(results).sentences), markup.facts(entries), notes),
        piece("protocol", protocol, meaning),
    )


def _reproduction(results: Results) -> Markup:
    """Return what is needed to repeat the experiment: command, seed, versions, settings and search space."""
    manifest = results.manifest
    command = shareable_command([str(part) for part in manifest.get("command") or []])
    parts = [piece("command", shlex.join(command))] if command else []
    commit = manifest.get("git_commit")
    parts.append(markup.facts({"seed": manifest.get("seed"), "git commit": commit}))
    for heading, key in (
        ("Versions", "versions"),
        ("Machine", "machine"),
        ("Settings", "settings"),
        ("Defaults of hyperparameters", "defaults"),
        ("Search space", "space"),
    ):
        entries = {name: _plain(value) for name, value in (manifest.get(key) or {}).items()}
        if entries:
            inner = markup.pairs(entries, ("name", "value"), key)
            parts.append(piece("details", heading, inner))
    return joined(*parts)


def _title(results: Results) -> str:
    manifest = results.manifest
    return f"{manifest.get('recipe', results.name)} on {manifest.get('env', 'an unnamed environment')}"


def _plain(value: Any) -> Any:
    """Format a mapping as JSON without quotes; return other values unchanged."""
    return json.dumps(value, ensure_ascii=False).replace('"', "") if isinstance(value, dict) else value


def _steps(value: Any) -> str | None:
    return None if value is None else f"{int(value):,} env steps"


def _evaluations(settings: dict[str, Any]) -> str | None:
    count, episodes = settings.get("evaluations"), settings.get("eval_episodes")
    if count is None:
        return None
    return f"{count}" + (f" × {episodes} episodes" if episodes is not None else "")
