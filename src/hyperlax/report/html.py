"""The report of one experiment: a single HTML file that works offline."""

from __future__ import annotations

import json
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from hyperlax.hyperparams import assign
from hyperlax.networks.pqc import PQCHyperparams
from hyperlax.report import markup
from hyperlax.report.charts import charts_with
from hyperlax.report.charts.search import SEARCH_CHARTS
from hyperlax.report.charts.style import text
from hyperlax.report.document import Pictures, sections_of, tabs, write_document
from hyperlax.report.leaderboard import leaderboard, varied_hyperparameters
from hyperlax.report.lineage import explored
from hyperlax.report.metrics import sample_metrics
from hyperlax.report.options import Options
from hyperlax.report.selection import drop_words, selection_bias
from hyperlax.storage.results import LANE_STATUSES, Results

_CURVES = {
    "learning_curves": "environment steps",
    "learning_curves_seconds": "wall time",
    "learning_curves_gradient_steps": "gradient steps",
    "learning_curves_circuit_executions": "circuit executions",
}
_DEFAULTS = Options()
_SEARCH = {
    "search_history": "History",
    "search_pareto": "Pareto front",
    "search_importance": "What mattered",
    "search_slices": "Slices",
    "search_parallel": "Trials through the space",
}
_BETWEEN_SAMPLES = (
    "aggregate_curves",
    "return_distribution",
    "ecdf",
    "best_of_k",
    "slices",
    "importance",
    "parallel_coordinates",
    "return_against_parameters",
)
"""Charts that say nothing about a single sample."""
_PROTOCOLS = {
    "corrected": "the default of hyperlax, with the known defects of the published experiments put right",
    "published": "training and evaluation as in the published experiments of hyperlax v0.1, defects included",
}


def write_report(results: Results, path: Path, options: Options = _DEFAULTS) -> Path:
    """Writes the report of `results`, drawn as `options` want it, to `path` and returns it.

    Vega is inside the file, which loads nothing else. A chart without data is replaced by the reason, so that
    an experiment still running can be reported. The file appears complete or not at all.
    """
    pictures = Pictures()
    wanted = charts_with(options) | (SEARCH_CHARTS if len(results.trials) else {})
    charts = {name: chart for name, chart in wanted.items() if _applies(name, results)}
    shown = {name: pictures.add(name, partial(chart, results)) for name, chart in charts.items()}
    return write_document(path, _title(results), _body(results, shown, options), pictures)


def _applies(name: str, results: Results) -> bool:
    """Some charts are only about circuits, several samples or a confirmation; some a search has its own."""
    if name in _BETWEEN_SAMPLES and len(results.samples) == 1:
        return False
    if name == "learning_curves_circuit_executions":
        return bool((results.lanes["circuit_executions"] > 0).any())
    if name == "entanglement":
        return any(c.endswith("entangler") for c in varied_hyperparameters(results.samples))
    if name in ("slices", "importance", "parallel_coordinates"):
        return results.trials.is_empty()
    return name != "confirmation" or results.confirmation is not None


def _body(results: Results, pictures: dict[str, str], options: Options) -> str:
    sections = {
        "leaderboard": ("Leaderboard", _leaderboard(results, options.top) + pictures["leaderboard"]),
        **_confirmation(results, pictures),
        "curves": ("Learning curves", tabs("curves", _curves(pictures))),
        **_drawn("tuned", "Best and best few", pictures, "aggregate_curves"),
        **_scheduled(results, pictures),
        **_circuits(results),
        **_search(results, pictures),
        **_drawn("distribution", "Return across samples", pictures, "return_distribution", "ecdf"),
        **_drawn("budget", "What a smaller search would find", pictures, "best_of_k"),
        **_drawn("slices", "Slices through the search space", pictures, "slices"),
        **_drawn("importance", "Importance of hyperparameters", pictures, "importance"),
        **_drawn("parallel", "Parallel coordinates", pictures, "parallel_coordinates"),
        **_sobol(results, pictures),
        **_drawn("sizes", "Return against parameters", pictures, "return_against_parameters"),
        **_drawn("entanglement", "With and without entanglement", pictures, "entanglement"),
        "samples": ("All samples", _samples(results)),
        "health": ("Training health", _trouble(results) + pictures["training_health"]),
        "time": ("Where the time went", pictures["timeline"] + pictures["runtime"] + _plan(results)),
        "repeat": ("How to repeat it", _repeat(results)),
    }
    return sections_of(_header(results), sections)


def _curves(pictures: dict[str, str]) -> dict[str, str]:
    """Pictures of the learning curves by tab."""
    return {label: pictures[name] for name, label in _CURVES.items() if name in pictures}


def _drawn(name: str, heading: str, pictures: dict[str, str], *wanted: str) -> dict[str, tuple[str, str]]:
    """A section with the `wanted` pictures; none where no such chart applies."""
    shown = [pictures[chart] for chart in wanted if chart in pictures]
    return {name: (heading, "".join(shown))} if shown else {}


def _confirmation(results: Results, pictures: dict[str, str]) -> dict[str, tuple[str, str]]:
    """A section with what the best samples score from fresh seeds, where they were trained again."""
    if results.confirmation is None:
        return {}
    found = selection_bias(results)
    note = (
        "Peak return, interquartile mean over seeds, with the ends of its 95 % bootstrap interval. "
        f"The drop is what choosing the best by their scores has added to them. {drop_words(results)}"
    )
    content = pictures["confirmation"] + markup.table(found, "confirmed", note)
    return {"confirmation": ("Tuning score against confirmed score", content)}


def _sobol(results: Results, pictures: dict[str, str]) -> dict[str, tuple[str, str]]:
    """A section with Sobol' indices, or why there are none, where the samples were drawn for them."""
    drawn = "matrix" in results.samples.columns
    return {"sobol": ("Sobol’ indices", pictures["sobol_indices"])} if drawn else {}


def _scheduled(results: Results, pictures: dict[str, str]) -> dict[str, tuple[str, str]]:
    """A section about what a schedule decided, where there was one."""
    schedule = (results.manifest.get("identity") or {}).get("schedule") or {}
    contents = {
        "pbt": ("Population-based training", ("lineage", "hyperparameter_schedules")),
        "asha": ("Successive halving", ("rungs",)),
    }
    if schedule.get("name") not in contents:
        return {}
    heading, names = contents[schedule["name"]]
    options = {k: v for k, v in schedule.items() if k not in ("name", "explores")}
    return {"schedule": (heading, markup.facts(options) + "".join(pictures[name] for name in names))}


def _search(results: Results, pictures: dict[str, str]) -> dict[str, tuple[str, str]]:
    """A section with the trials of a search, where there was one."""
    if results.trials.is_empty():
        return {}
    about = results.manifest.get("search") or {}
    ended = dict(results.trials.group_by("state").len().iter_rows())
    entries = {
        "sampler": about.get("sampler"),
        "pruner": about.get("pruner"),
        "objectives": ", ".join(map(" ".join, zip(about["directions"], about["objectives"], strict=True))),
        "trials": ", ".join(f"{n} {state}" for state, n in sorted(ended.items(), key=lambda e: -e[1])),
        "wanted": about.get("n_trials"),
        "processes": results.trials["process"].n_unique(),
    }
    note = (
        "A trial's score is over the seeds it was chosen by, so the best one flatters itself: "
        "train best_recipe.py with fresh seeds before quoting it."
    )
    several = len(about["objectives"]) > 1
    shown = {name: heading for name, heading in _SEARCH.items() if several or name != "search_pareto"}
    drawn = "".join(f"<h3>{heading}</h3>{pictures[name]}" for name, heading in shown.items())
    table = results.trials.drop("start", "end").rename({"trial": "sample"})
    listed = (
        f"<details><summary>All trials</summary>{markup.table(table, 'trials', '', filtered=True)}</details>"
    )
    return {"search": ("Search", f'{markup.facts(entries)}<p class="note">{note}</p>{drawn}{listed}')}


def _circuits(results: Results) -> dict[str, tuple[str, str]]:
    """A section with the circuits of the best sample, where there are any."""
    manifest, best = results.manifest, leaderboard(results)
    inputs = manifest.get("inputs") or {}
    if manifest.get("network") != "drpqc" or best.is_empty():
        return {}
    sample = int(best["sample"][0])
    row = results.samples.row(by_predicate=pl.col("sample") == sample, named=True)
    parts = []
    for name, in_size in inputs.items():
        own = {k.removeprefix(f"{name}."): v for k, v in row.items() if k.startswith(f"{name}.")}
        hp = assign(PQCHyperparams(), own)
        said = f"{name} of sample {sample}: {hp.parameter_count(in_size)} trained parameters"
        parts.append(f'<p class="note">{said}</p><div class="scroll">{hp.picture(in_size, said)}</div>')
    return {"circuits": ("Circuits of the best sample", "".join(parts))} if parts else {}


def _header(results: Results) -> str:
    manifest, settings = results.manifest, results.manifest.get("settings", {})
    counts = dict(results.lanes.group_by("status").len().iter_rows())
    lanes = ", ".join(f"{counts[status]}\u00a0{status}" for status in LANE_STATUSES if status in counts)
    protocol = str(manifest.get("protocol", "unknown"))
    meaning = _PROTOCOLS.get(protocol)
    wall = manifest.get("timings", {}).get("wall_seconds")
    entries = {
        "environment": manifest.get("env"),
        "algorithm": manifest.get("algorithm"),
        "network": manifest.get("network"),
        "protocol": protocol,
        "samples": len(results.samples),
        "seeds": settings.get("seeds"),
        "lanes": lanes or "none yet",
        "budget": _steps(settings.get("total_timesteps")),
        "evaluations": _evaluations(settings),
        "wall time": None if wall is None else _duration(float(wall)),
        "started": str(manifest["created"]).replace("T", " ")[:16] if "created" in manifest else None,
    }
    notes = "".join(f'<p class="note">{markup.public(note)}</p>' for note in manifest.get("notes") or [])
    stated = f"Protocol <b>{markup.public(protocol)}</b>" + (f": {meaning}." if meaning else ".")
    return (
        f"<header><h1>{markup.public(_title(results))}</h1><p>{stated} "
        "Click a sample in a table or chart to highlight it everywhere.</p>"
        f"{markup.facts(entries)}{notes}</header>"
    )


def _leaderboard(results: Results, top: int) -> str:
    note = (
        "Peak return: interquartile mean over seeds, with the ends of its 95 % bootstrap interval. "
        "Rank: the places a sample may have, since no order is claimed where intervals overlap "
        "or a sample has fewer than three seeds; one seed alone gives no interval."
    ) + _start_values(results)
    best = leaderboard(results, top)
    return "" if best.is_empty() else markup.table(best, "best", note)


def _samples(results: Results) -> str:
    measured = sample_metrics(results)
    first = ["peak_return", "peak_return_low", "peak_return_high", "final_return"]
    others = [
        c for c in measured.columns if not c.endswith(("_low", "_high")) and c not in ("sample", *first)
    ]
    defined = [c for c in others if measured[c].null_count() < len(measured)]
    varied = varied_hyperparameters(results.samples)
    constant = [c for c in results.samples.columns if c not in ("sample", *varied)]
    note = (
        "Metrics are interquartile means over seeds. Columns that end in “published” normalise each curve "
        "by itself, as v0.1 did, and do not compare between samples; "
        "those of the same name without it use fixed scores of the environment."
    ) + _start_values(results)
    joined = results.samples.join(measured, on="sample", how="left")
    ordered = joined.sort("peak_return", "sample", descending=[True, False], nulls_last=True)
    columns = ["sample", *first, *varied, *defined, *constant]
    return markup.table(ordered.select(columns), "all", note if defined else "", filtered=True)


def _start_values(results: Results) -> str:
    """Says so where hyperparameters are not what a sample was trained with throughout."""
    names = ", ".join(explored(results))
    return f" Hyperparameters are those at the start: {names} may change in training." if names else ""


def _trouble(results: Results) -> str:
    """Lanes that did not finish as planned."""
    lanes = results.lanes.filter(pl.col("status").is_in(["diverged", "failed", "pruned"]))
    if lanes.is_empty():
        return '<p class="note">No lane diverged or failed.</p>' if len(results.lanes) else ""
    shown = lanes.select("lane", "sample", "seed", "status", "env_steps", "diverged_at").sort("lane")
    errors = results.manifest.get("timings", {}).get("errors") or {}
    if errors:
        shown = shown.with_columns(
            error=pl.Series([errors.get(str(lane)) for lane in shown["lane"]], dtype=pl.String)
        )
    return markup.table(shown, "trouble", "Lanes that stopped early keep the evaluations they had.")


def _plan(results: Results) -> str:
    plan = results.manifest.get("plan") or []
    if not plan:
        return ""
    seeds = int(results.manifest.get("settings", {}).get("seeds") or 1)
    rows = [
        {
            "program": entry.get("program", place),
            "lanes": entry.get("lanes") or len(entry.get("samples") or []) * seeds or None,
            "capacities": ", ".join(f"{name} {_cap(v)}" for name, v in (entry.get("caps") or {}).items())
            or "–",
            "useful share": None if entry.get("useful_share") is None else f"{entry['useful_share']:.0%}",
            "MB per lane": entry.get("memory_mb_per_lane"),
        }
        for place, entry in enumerate(plan)
    ]
    frame = pl.DataFrame(rows, infer_schema_length=None)
    note = (
        "Compiled programs: the lanes that share one, what is allocated for each lane, "
        "and how much of the work is useful."
    )
    return markup.table(frame, "plan", note)


def _repeat(results: Results) -> str:
    manifest = results.manifest
    command = [str(part) for part in manifest.get("command") or []]
    if command:
        command[0] = Path(command[0]).name
    parts = [f"<pre>{markup.public(shlex.join(command)).replace('&#x27;', chr(39))}</pre>" if command else ""]
    commit = manifest.get("git_commit")
    parts.append(markup.facts({"seed": manifest.get("seed"), "git commit": commit}))
    for heading, key in (
        ("Versions", "versions"),
        ("Machine", "machine"),
        ("Settings", "settings"),
        ("Defaults of hyperparameters", "defaults"),
        ("Search space", "space"),
    ):
        entries = {name: _words(value) for name, value in (manifest.get(key) or {}).items()}
        if entries:
            inner = markup.pairs(entries, ("name", "value"), key)
            parts.append(f"<details><summary>{heading}</summary>{inner}</details>")
    return "".join(parts)


def _title(results: Results) -> str:
    return f"{results.name} on {results.manifest.get('env', 'an unnamed environment')}"


def _words(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False).replace('"', "") if isinstance(value, dict) else value


def _steps(value: Any) -> str | None:
    return None if value is None else f"{int(value):,} env steps"


def _evaluations(settings: dict[str, Any]) -> str | None:
    count, episodes = settings.get("evaluations"), settings.get("eval_episodes")
    if count is None:
        return None
    return f"{count}" + (f" × {episodes} episodes" if episodes is not None else "")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _cap(value: Any) -> str:
    """An allocated size, or the branches that were compiled."""
    return " or ".join(text(v) for v in value["branches"]) if isinstance(value, dict) else text(value)
