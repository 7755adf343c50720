"""Tables of the report of one experiment, as HTML."""

from __future__ import annotations

from typing import Any

import polars as pl

from hyperlax.report import markup
from hyperlax.report.charts.style import text
from hyperlax.report.evaluations import DIVERGED, behind
from hyperlax.report.leaderboard import leaderboard, tied, varied_hyperparameters
from hyperlax.report.lineage import explored
from hyperlax.report.metrics import sample_metrics
from hyperlax.report.scores import FRESH_MEANING, PLAIN_MEAN, headline_of, sample_scores
from hyperlax.report.templates import Markup, joined, piece
from hyperlax.report.words import left_out_words
from hyperlax.statistics import HEADLINES
from hyperlax.storage.results import FRESH, Results


def leaderboard_table(results: Results, top: int) -> Markup:
    """Return the table of the `top` best samples; empty before the first evaluation."""
    note = (
        "Rank: the range of places that a sample may have; in 95 % of leaderboards all ranges hold together. "
        "Samples with three seeds or fewer, and samples that score the same, are not told apart."
    )
    best = leaderboard(results, None)
    if (count := tied(best)) > 1:
        note += f" {count} samples share the highest score; the one with the lowest id is listed first."
    if late := behind(results):
        note += f" Rank –: {left_out_words(len(late))}."
    note += _initial_value_note(results)
    return joined() if best.is_empty() else score_table(best.head(top), results, "best", note)


def score_table(
    frame: pl.DataFrame, results: Results, name: str, note: str = "", filtered: bool | None = None
) -> Markup:
    """Return a table of scores by the headline metric of `results`, with the definition one click away.

    The columns of `DESCRIPTION` become words above the table; a recipe stays if there are several. Columns
    without any value are left out, and so are the ends of intervals.
    """
    shown = frame.drop("metric", "definition", strict=False)
    if "recipe" in shown.columns and shown["recipe"].n_unique() < 2:
        shown = shown.drop("recipe")
    empty = [c for c in ("score_low", "score_high", FRESH) if c in shown.columns and not shown[c].count()]
    shown, title = shown.drop(empty), headline_of(results.manifest).title
    names = {c: c.replace("score", title) for c in shown.columns if c.startswith("score")}
    return joined(definition(results), markup.table(shown.rename(names), name, note, filtered))


def definition(results: Results) -> Markup:
    """Return the headline metric of an experiment, folded up: a click shows how it is defined."""
    headline = headline_of(results.manifest)
    others = ", ".join(name for name in HEADLINES if name != headline.name)
    lines = [
        f"{headline.title[0].upper()}{headline.title[1:]} (--metric {headline.name}): {headline.definition}.",
        "Intervals are at 95 %, over seeds. There is none with fewer than ten seeds, with seeds that all "
        "agree, or for a maximum.",
        PLAIN_MEAN,
        DIVERGED,
        FRESH_MEANING,
        f"Other metrics: --metric {others}.",
    ]
    return piece("details", f"Score: {headline.title}", markup.notes(lines))


def sample_table(results: Results) -> Markup:
    """Return the table of all samples, best first: metrics, then hyperparameters that vary, then the rest."""
    scored = sample_scores(results).drop(
        "lowest_seed", "highest_seed", "seeds", "seeds_done", "seeds_diverged"
    )
    measured = scored.join(sample_metrics(results), on="sample", how="left")
    first = scored.columns[1:]
    known = ("sample", headline_of(results.manifest).title.replace(" ", "_"), *first)
    others = [c for c in measured.columns if not c.endswith(("_low", "_high")) and c not in known]
    defined = [c for c in others if measured[c].null_count() < len(measured)]
    varied = varied_hyperparameters(results.samples)
    constant = [c for c in results.samples.columns if c not in ("sample", *varied)]
    note = (
        "Metrics beside the score are interquartile means over seeds. Columns that end in “published” "
        "normalise each curve by its own range, as v0.1 did, and cannot be compared between samples; the "
        "area and the time to target without that ending use fixed reference scores of the environment."
    ) + _initial_value_note(results)
    everything = results.samples.join(measured, on="sample", how="left")
    ordered = everything.sort("score", "sample", descending=[True, False], nulls_last=True)
    columns = ["sample", *first, *varied, *defined, *constant]
    return score_table(ordered.select(columns), results, "all", note if defined else "", filtered=True)


def _initial_value_note(results: Results) -> str:
    """Return a note that names the hyperparameters which change during training; empty if none does."""
    names = ", ".join(explored(results))
    return f" Hyperparameters are initial values: {names} may change during training." if names else ""


def stopped_lanes_table(results: Results) -> Markup:
    """Return a table of the lanes that diverged, failed or were pruned, or a note that there are none."""
    lanes = results.lanes.filter(pl.col("status").is_in(["diverged", "failed", "pruned"]))
    if lanes.is_empty():
        return piece("note", "No lane diverged or failed.") if len(results.lanes) else joined()
    shown = lanes.select("lane", "sample", "seed", "status", "env_steps", "diverged_at").sort("lane")
    errors = results.manifest.get("timings", {}).get("errors") or {}
    if errors:
        shown = shown.with_columns(
            error=pl.Series([errors.get(str(lane)) for lane in shown["lane"]], dtype=pl.String)
        )
    note = f"Lanes that stopped early keep their evaluations up to that point. {DIVERGED}"
    return markup.table(shown, "trouble", note)


def plan_table(results: Results) -> Markup:
    """Return a table of the compiled programs; empty if the manifest holds no plan."""
    plan = results.manifest.get("plan") or []
    if not plan:
        return joined()
    seeds = int(results.manifest.get("settings", {}).get("seeds") or 1)
    rows = [
        {
            "program": entry.get("program", place),
            "lanes": entry.get("lanes") or len(entry.get("samples") or []) * seeds or None,
            "capacities": ", ".join(f"{name} {_capacity(v)}" for name, v in (entry.get("caps") or {}).items())
            or "–",
            "useful share": None if entry.get("useful_share") is None else f"{entry['useful_share']:.0%}",
            "MB per lane": entry.get("memory_mb_per_lane"),
        }
        for place, entry in enumerate(plan)
    ]
    frame = pl.DataFrame(rows, infer_schema_length=None)
    note = (
        "Compiled programs: the number of lanes that share each, the sizes allocated for every lane, "
        "and the predicted share of the work that is not padding."
    )
    return markup.table(frame, "plan", note)


def _capacity(value: Any) -> str:
    """Format a capacity: an allocated size, or the set of branches that were compiled."""
    return " or ".join(text(v) for v in value["branches"]) if isinstance(value, dict) else text(value)
