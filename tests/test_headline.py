"""One number, wherever it is shown: scores against hand-made ones, and every place that shows them."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path

import numpy as np
import optuna
import polars as pl
import pytest
from report_data import confirmed, synthetic
from rich.console import Console
from scipy.stats import trim_mean

from hyperlax import Execution, Recipe, Uniform
from hyperlax.commands.tables import best_words, leaderboard_table
from hyperlax.experiments.settings import Settings
from hyperlax.exporters import export
from hyperlax.exporters.runs import tracker_runs
from hyperlax.report import (
    importance_table,
    lane_scores,
    leaderboard,
    measured_by,
    sample_scores,
    selection_bias,
    write_comparison,
    write_report,
)
from hyperlax.report.charts import ecdf, leaderboard_chart, return_distribution, size_chart
from hyperlax.report.charts.families import best_of_k_chart, improvements, profile_chart
from hyperlax.report.comparison import best_samples, overview, summary
from hyperlax.report.evaluations import DIVERGED, evaluations
from hyperlax.report.published_comparison import over_samples
from hyperlax.report.scores import headline_of, measured_alike
from hyperlax.report.selection import drop_words
from hyperlax.run.slots import fresh_keys
from hyperlax.searches import outcome
from hyperlax.searches.objectives import objectives
from hyperlax.statistics import HEADLINES, Unavailable, iqm
from hyperlax.storage.results import Results
from hyperlax.studies.confirmation import best_samples as to_confirm

METRIC = "auc"
"""A metric that is no default, so that a place with a definition of its own is found out."""


def by_hand(results: Results, name: str) -> dict[int, float]:
    """Score samples from the table of evaluations, with loops; lane 6 of `synthetic` has diverged."""
    rows = results.curves.filter(pl.col("metric") == "return").sort("lane", "env_steps")
    floor = min(rows["value"].min(), results.manifest["reference"]["random"])
    lost = set(results.lanes.filter(pl.col("status") == "diverged")["lane"])
    found = {}
    for sample in rows["sample"].unique():
        own = rows.filter(pl.col("sample") == sample)
        steps = np.array(sorted(own["env_steps"].unique()), float)
        curves = []
        for lane in own["lane"].unique():
            curve = own.filter(pl.col("lane") == lane)["value"].to_list()
            curves.append(curve + [floor] * (len(steps) - len(curve) if lane in lost else 0))
        values = {
            "final": [np.mean(c[-max(1, len(c) // 10) :]) for c in curves],
            "auc": [np.trapezoid(c, steps) / (steps[-1] - steps[0]) for c in curves],
            "peak": [max(c) for c in curves],
        }
        found[sample] = (
            float(np.mean(curves, axis=0).max()) if name == "peak_of_mean" else trim_mean(values[name], 0.25)
        )
    return found


@pytest.fixture(scope="module")
def results() -> Results:
    """Eight samples × four seeds of which one has diverged, with a confirmation."""
    full = confirmed(synthetic(samples=8, seeds=4, evaluations=20), (2, 0))
    return dataclasses.replace(full, manifest={**full.manifest, "recipe": "ppo_mlp_wide"})


@pytest.fixture(scope="module")
def scored(results) -> Results:
    return measured_by(results, METRIC)


def shown_in(page: Path, table: str) -> list[dict[str, str]]:
    """Read the rows of an HTML table by heading; numbers are exact (`data-value`)."""
    html = page.read_text().split(f'id="{table}"')[1].split("</table>")[0]
    heads = re.findall(r"<th[^>]*><button[^>]*>(.*?)</button>", html)
    return [
        dict(zip(heads, [exact or text for exact, text in cells], strict=True))
        for row in re.findall(r"<tr[^>]*>(<td.*?)</tr>", html)
        if (cells := re.findall(r'<td(?: class="number" data-value="([^"]*)")?>(.*?)</td>', row))
    ]


@pytest.mark.parametrize("name", HEADLINES)
def test_scores_are_those_made_by_hand(results, name):
    found = sample_scores(measured_by(results, name))
    assert dict(found.select("sample", "score").iter_rows()) == pytest.approx(by_hand(results, name))
    assert headline_of({"metric": name}).name == name


def test_the_metrics_differ_as_their_definitions_say(results):
    """No point of a curve is higher than the mean of its seeds' peaks; of three seeds the mean is the IQM."""
    three = synthetic(samples=8, seeds=3, evaluations=20, diverged=())
    final, auc, peak, of_mean = (sample_scores(measured_by(three, name))["score"] for name in HEADLINES)
    assert (peak > of_mean).all()
    assert (of_mean > final).all()
    assert (auc < final).all()
    peaks = sample_scores(measured_by(results, "peak"))["score"].to_numpy()
    assert (peaks[:, None] >= iqm(evaluations(results).values, axis=1)).all()


def test_which_metric_it_is_follows_from_the_experiment():
    assert headline_of({}).name == headline_of({"protocol": "corrected"}).name == "final"
    assert headline_of({"protocol": "published"}).name == "peak_of_mean"
    assert headline_of({"protocol": "published", "metric": "auc"}).name == "auc"
    assert headline_of({"search": {"objectives": ["peak"]}}).name == "peak"
    assert headline_of({"search": {"objectives": ["time_to_target"]}}).name == "final"
    with pytest.raises(ValueError, match="unknown metric 'luck'; known: final, auc"):
        headline_of({"metric": "luck"})
    with pytest.raises(ValueError, match='unknown metric "fianl"; did you mean "final"'):
        Execution(metric="fianl")
    with pytest.raises(ValueError, match='unknown metric "fianl"; did you mean "final"'):
        export([], "tensorboard", metric="fianl")


def test_experiments_on_one_page_have_one_metric(results):
    published = dataclasses.replace(results, manifest={**results.manifest, "protocol": "published"})
    for given, wanted in (([published] * 2, "peak_of_mean"), ([published, results], "final")):
        assert {headline_of(r.manifest).name for r in measured_alike(given)} == {wanted}


def test_the_report_of_an_experiment_shows_the_scores_in_every_table(scored, tmp_path):
    expected = dict(sample_scores(scored).select("sample", "score").iter_rows())
    page = write_report(scored, tmp_path / "report.html")
    title = HEADLINES[METRIC].title
    for table, count in (("best", 5), ("all", 8)):
        rows = shown_in(page, table)
        assert len(rows) == count
        assert {int(r["sample"]): float(r[title]) for r in rows} == {
            int(r["sample"]): expected[int(r["sample"])] for r in rows
        }
    tuning = {int(r["sample"]): float(r["tuning"]) for r in shown_in(page, "confirmed")}
    assert tuning == {sample: expected[sample] for sample in (2, 0)}
    text = page.read_text()
    assert f"<summary>Score: {title}</summary>" in text
    for said in (HEADLINES[METRIC].definition.replace("'", "&#39;"), DIVERGED, f"--metric {METRIC}"):
        assert said in text
    assert "peak return</button>" in text, "other metrics keep their columns in the table of all samples"


def test_the_comparison_and_its_csv_show_the_same_numbers(scored, tmp_path):
    other = dataclasses.replace(scored, manifest={**scored.manifest, "name": "ppo_tmlp", "network": "tmlp"})
    page = write_comparison([scored, other], tmp_path / "comparison.html")
    written = pl.read_csv(tmp_path / "comparison.csv")
    expected = sample_scores(scored)["score"]
    statistics = over_samples(expected.to_numpy())
    rows = shown_in(page, "e0-summary")
    assert [r["family"] for r in rows] == written["family"].to_list() == ["ppo_mlp", "ppo_tmlp"]
    for row, line in zip(rows, written.iter_rows(named=True), strict=True):
        for name, value in statistics.items():
            assert float(row[name]) == line[name] == float(value.value)
        for name in ("samples", "evaluated", "lanes", "diverged", "best sample", "fresh return of the best"):
            assert row[name] == ("–" if line[name] is None else str(line[name]))
        assert row["recipe"] == line["recipe"] == "ppo_mlp_wide"
        assert (row["metric"], line["metric"], line["definition"]) == (
            METRIC,
            METRIC,
            HEADLINES[METRIC].definition,
        )
    best = shown_in(page, "e0-best")
    assert float(best[0][HEADLINES[METRIC].title]) == written["best"][0] == expected.max()
    assert HEADLINES[METRIC].definition.replace("'", "&#39;") in page.read_text()


def test_every_frame_says_what_its_scores_are(scored):
    tables = (leaderboard(scored), selection_bias(scored), summary([scored]), best_samples([scored]))
    for table in (*tables, overview({"gymnax.pendulum": [scored]})):
        assert set(table["recipe"]) == {"ppo_mlp_wide"}
        assert set(table["metric"]) == {METRIC}
        assert set(table["definition"]) == {HEADLINES[METRIC].definition}


def test_charts_draw_the_scores(scored):
    expected = sample_scores(scored)["score"].to_numpy()
    for chart in (leaderboard_chart, return_distribution, size_chart):
        tables = chart(scored).to_dict()["datasets"].values()
        drawn = [{row["score"] for row in t} for t in tables if t and "score" in t[0]]
        assert any(values == set(expected.tolist()) for values in drawn), chart.__name__
    (steps,) = [t for t in ecdf(scored).to_dict()["datasets"].values() if "share" in t[0]]
    assert sorted(row["value"] for row in steps) == sorted(expected.tolist())
    best = max(best_of_k_chart([scored]).to_dict()["datasets"].values(), key=len)
    assert max(row["value"] for row in best) == expected.max()
    profile = max(profile_chart([scored]).to_dict()["datasets"].values(), key=len)
    assert {min(r["x"] for r in profile), max(r["x"] for r in profile)} == {expected.min(), expected.max()}


def test_the_terminal_the_trackers_and_the_recommendations_agree(scored):
    board = leaderboard(scored, None)
    first = board.row(0, named=True)
    file = io.StringIO()
    Console(file=file, width=120).print(leaderboard_table(board.head(5), 8))
    printed = [line.split("│")[1:-1] for line in file.getvalue().splitlines() if line.startswith("│")]
    assert [(int(c[1]), c[2].strip()) for c in printed] == [
        (sample, f"{score:.1f}") for sample, score in board.head(5).select("sample", "score").iter_rows()
    ]
    assert HEADLINES[METRIC].title in file.getvalue()
    assert best_words(board, scored.samples).startswith(f"sample {first['sample']}: ")
    assert to_confirm(scored, 3) == board["sample"].to_list()[:3]
    whole, best = tracker_runs([scored], 1)
    assert whole.summary["score"] == best.summary["score"] == first["score"] == board["score"].max()
    assert whole.config["metric"] == METRIC
    assert whole.config["metric_definition"] == HEADLINES[METRIC].definition


@pytest.mark.parametrize("name", HEADLINES)
def test_a_search_tells_and_recommends_by_the_score_of_the_report(name, tmp_path):
    results = measured_by(synthetic(samples=6, seeds=3, evaluations=12, diverged=()), name)
    wanted, space = objectives([name]), {"gamma": Uniform(0.9, 0.99)}
    study = optuna.create_study(direction="maximize")
    points = results.curves.filter(metric="return").sort("lane", "env_steps")
    for (_,), own in points.group_by("sample", maintain_order=True):
        curves = [list(zip(p["env_steps"], p["value"], strict=True)) for _, p in own.group_by("lane")]
        trial = study.ask({path: s.distribution() for path, s in space.items()})
        study.tell(trial, wanted[0].score(curves, results.manifest))
    table = outcome.trials_table(study, space, wanted, results.manifest)
    board = leaderboard(results, None)
    told = dict(table.select("trial", name).iter_rows())
    assert told == pytest.approx(dict(board.select("sample", "score").iter_rows()), rel=1e-12)
    assert outcome.best(table, wanted) == board["sample"].to_list()[:1]
    recipe = Recipe("ppo", "mlp", space)
    outcome.write(tmp_path, table, wanted, recipe, recipe.hyperparams())
    best = json.loads((tmp_path / "best_params.json").read_text())
    assert (best["trial"], best["values"][name]) == (board["sample"][0], pytest.approx(board["score"][0]))
    assert best["definitions"] == {name: HEADLINES[name].definition}


def ended(results: Results, kept: dict[int, int]) -> Results:
    """Let lanes diverge after so many of their evaluations."""
    marked = pl.col("lane").is_in(list(kept))
    order = pl.col("env_steps").rank("dense").over("lane", "metric")
    allowed = pl.col("lane").replace_strict(kept, default=10**6, return_dtype=pl.Int64)
    return dataclasses.replace(
        results,
        lanes=results.lanes.with_columns(
            status=pl.when(marked).then(pl.lit("diverged")).otherwise(pl.col("status"))
        ),
        curves=results.curves.filter(order <= allowed),
    )


def test_a_lane_that_diverged_counts_as_a_random_policy_or_worse():
    whole = synthetic(samples=3, seeds=1, evaluations=5, diverged=())
    lost = ended(whole, {0: 3, 1: 0})
    floor = min(-1250.0, *whole.curves.filter(metric="return")["value"].to_list())
    assert sample_scores(lost)["score"].to_list()[:2] == [floor, floor]
    assert sample_scores(lost)["score"][2] == sample_scores(whole)["score"][2]
    curve = evaluations(lost).values
    assert (curve[0, 0, 3:] == floor).all()
    assert (curve[0, 0, :3] == evaluations(whole).values[0, 0, :3]).all()
    assert lane_scores(lost)["diverged"].to_list() == [True, True, False]
    assert leaderboard(lost)["sample"][0] == 2
    unknown = dataclasses.replace(lost, manifest={**lost.manifest, "reference": None})
    lowest = lost.curves.filter(metric="return")["value"].min()
    assert sample_scores(unknown)["score"].to_list()[:2] == [lowest, lowest]


def test_if_all_lanes_have_diverged_they_count_so_at_the_end_too():
    """No evaluation is there after the last of them, but the score is not that of the last one."""
    whole = synthetic(samples=2, seeds=2, evaluations=5, diverged=())
    lost = ended(whole, dict.fromkeys(range(4), 2))
    floor = min(-1250.0, *lost.curves.filter(metric="return")["value"].to_list())
    assert sample_scores(lost)["score"].to_list() == [floor, floor]
    assert evaluations(lost).values.shape[2] == 5
    nothing = ended(whole, dict.fromkeys(range(4), 0))
    assert sample_scores(nothing)["score"].to_list() == [None, None]


def saturated(seeds: int, samples: int = 12) -> Results:
    """All lanes but those of the last sample reach the largest return there is, 500."""
    full = synthetic(samples=samples, seeds=seeds, evaluations=10, diverged=())
    low = pl.col("sample") == samples - 1
    value = pl.when(pl.col("metric") != "return").then("value").when(low).then(90.0).otherwise(500.0)
    return dataclasses.replace(full, curves=full.curves.with_columns(value=value))


def test_samples_that_tie_share_their_ranks_and_it_is_said(tmp_path):
    results = saturated(seeds=10)
    board = leaderboard(results, None)
    assert board["rank"].to_list() == ["1–11"] * 11 + ["12"]
    assert board["score_low"].null_count() == 12, "seeds that all agree have no interval"
    assert board["sample"].to_list() == list(range(12))
    assert best_words(board, results.samples).startswith("sample 0, of 11 that score the same: ")
    page = write_report(results, tmp_path / "report.html").read_text()
    assert "11 samples share the highest score; the one with the lowest id is listed first." in page


def test_saturated_families_are_not_told_apart():
    one = saturated(5)
    other = dataclasses.replace(one, manifest={**one.manifest, "name": "sac_mlp"})
    (row,) = improvements([one, other]).iter_rows(named=True)
    assert (row["probability"], row["ahead"], row["difference"]) == (0.5, None, 0.0)
    alike = dataclasses.replace(
        one, curves=one.curves.with_columns(value=pl.when(pl.col("metric") == "return").then(500.0))
    )
    with pytest.raises(Unavailable, match="All samples reach the same return"):
        importance_table(alike)


def test_one_seed_and_few_samples_claim_nothing():
    for results in (synthetic(samples=4, seeds=1, diverged=()), synthetic(samples=2, seeds=3, diverged=())):
        board = leaderboard(results, None)
        assert set(board["rank"]) == {f"1–{len(board)}"}
        assert board["score_low"].null_count() == len(board)
        assert np.isnan([over_samples(board["score"].to_numpy())["median"].low]).all()
    file = io.StringIO()
    Console(file=file, width=120).print(leaderboard_table(leaderboard(synthetic(1, 1, diverged=())), 1))
    assert "…" not in file.getvalue(), "one seed has no range"
    again = confirmed(synthetic(samples=4, seeds=1, diverged=()))
    assert "so few seeds give no interval" in drop_words(again)
    assert "a maximum over the mean of seeds has no interval" in drop_words(
        measured_by(again, "peak_of_mean")
    )


def test_fresh_episodes_are_many_apart_and_no_burden():
    keys = np.array([[1, 2], [1, 3]], np.uint32)
    drawn = [tuple(key) for repeat in range(3) for key in fresh_keys(keys, repeat)]
    assert len({*drawn, (1, 2), (1, 3)}) == 8
    assert (fresh_keys(keys, 1) == fresh_keys(keys, 1)).all()
    for steps, episodes, longest, repeats, why in (
        (10**8, 16, 200, 7, "a hundred episodes"),
        (1_000_000, 16, 500, 1, "two per cent of the steps"),
        (2_048, 4, 200, 1, "at least one evaluation"),
    ):
        settings = Settings(total_timesteps=steps, eval_episodes=episodes)
        assert settings.fresh_repeats(longest) == repeats, why
