"""Charts of a search, drawn from its table of trials."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
from report_data import synthetic

from hyperlax.report import export_charts, write_report
from hyperlax.report.applies import applies
from hyperlax.report.charts import CHARTS, NothingToDraw
from hyperlax.report.charts.search import SEARCH_CHARTS, history, importances, pareto, what_mattered
from hyperlax.report.comparison import summary
from hyperlax.report.vega import vegalite_version
from hyperlax.storage.results import Results


def searched(trials: int = 40, several: bool = False, states: tuple[str, ...] = ("done",)) -> Results:
    """Build a search of the synthetic space in which the score depends only on `lr`."""
    results = synthetic(samples=trials, seeds=2, diverged=())
    table = results.samples.rename({"sample": "trial"}).drop("max_grad_norm")
    rng = np.random.default_rng(1)
    score = -((np.log10(table["lr"].to_numpy()) + 3) ** 2) + rng.normal(0, 0.01, trials)
    table = table.with_columns(
        state=pl.Series([states[i % len(states)] for i in range(trials)]),
        peak_return=pl.Series(score),
        time_to_target=pl.Series(rng.permutation(trials) * 10.0),
        start=pl.int_range(trials).cast(pl.Float64),
        end=pl.int_range(trials) + 2.0,
        seconds=pl.lit(2.0),
        process=pl.lit(0),
    )
    names = ["peak_return", "time_to_target"] if several else ["peak_return"]
    results.manifest["search"] = {
        "sampler": "tpe",
        "pruner": "none",
        "n_trials": trials,
        "objectives": names,
        "directions": ["maximize", "minimize"][: len(names)],
    }
    table = table if several else table.drop("time_to_target")
    return Results(**{**vars(results), "trials": table})


@pytest.mark.parametrize("several", [False, True])
def test_every_chart_of_a_search_is_valid_vega(several):
    vlc = pytest.importorskip("vl_convert")
    results = searched(several=several, states=("done", "done", "pruned", "diverged"))
    for name, chart in SEARCH_CHARTS.items():
        if name == "search_pareto" and not several:
            continue
        vega = vlc.vegalite_to_vega(chart(results).to_dict(), vl_version=vegalite_version())
        assert vega["marks"], name


@pytest.mark.parametrize("states", [("running",), ("pruned",), ("diverged",)])
@pytest.mark.parametrize("trials", [1, 12])
def test_a_chart_is_drawn_or_gives_the_reason_why_not(states, trials):
    results = searched(trials, states=states)
    if states == ("running",):
        results = Results(**{**vars(results), "trials": results.trials.with_columns(peak_return=None)})
    for name, chart in SEARCH_CHARTS.items():
        reason, spec = "", {}
        try:
            spec = chart(results).to_dict()
        except NothingToDraw as nothing:
            reason = str(nothing)
        assert reason.endswith(".") or spec["title"]["text"], name
    with pytest.raises(NothingToDraw):
        history(synthetic(samples=2, seeds=1))


def test_trials_that_a_search_proposes_by_scores_are_not_shown_as_random_samples():
    results = searched()
    assert not applies("best_of_k", results)
    with pytest.raises(NothingToDraw, match="no random ones"):
        CHARTS["best_of_k"](results)
    spec = CHARTS["ecdf"](results).to_dict()
    (steps,) = [rows for rows in spec["datasets"].values() if "share" in rows[0]]
    assert {row["low"] for row in steps} == {None}
    assert "Bands" not in str(spec["title"])
    assert "no independent draws: a search proposed the trials" in str(spec["title"])
    assert summary([results])["expected best of 8"].to_list() == [None]
    results.manifest["search"]["sampler"] = "random"
    assert applies("best_of_k", results)
    assert "Bands" in str(CHARTS["ecdf"](results).to_dict()["title"])


def test_the_best_score_so_far_rises_and_counts_only_finished_trials():
    results = searched(states=("done", "diverged"))
    spec = history(results).to_dict()
    lines = [rows for rows in spec["datasets"].values() if "best" in rows[0]]
    best = [row["best"] for row in lines[0]]
    done = results.trials.filter(state="done")["peak_return"].to_numpy()
    assert best == sorted(best)
    assert best[-1] == pytest.approx(done.max())
    assert set(best) == set(np.maximum.accumulate(done).tolist())


def test_the_decisive_hyperparameter_is_the_most_important():
    table = importances(searched(), "peak_return", 1)
    assert table is not None
    assert table["hyperparameter"][0] == "lr"
    assert table["importance"][0] > 0.5
    assert table["importance"].sum() == pytest.approx(1.0)
    with pytest.raises(NothingToDraw, match="needs 10 trials"):
        what_mattered(searched(9))


def test_only_pareto_optimal_trials_are_on_the_front():
    results = searched(several=True)
    rows = next(r for r in pareto(results).to_dict()["datasets"].values() if not all(x["front"] for x in r))
    front = {row["sample"] for row in rows if row["front"]}
    for row in rows:
        better = [o for o in rows if o["x"] > row["x"] and o["y"] < row["y"]]
        assert (row["sample"] in front) == (not better)


def test_a_trial_without_a_score_is_not_optimal():
    results = searched(several=True)
    unknown = pl.when(pl.col("trial") < 30).then(None).otherwise(pl.col("peak_return"))
    trials = results.trials.with_columns(peak_return=unknown)
    spec = pareto(Results(**{**vars(results), "trials": trials})).to_dict()
    rows = max(spec["datasets"].values(), key=len)
    assert {row["sample"] for row in rows} == set(range(30, 40))
    front = sum(row["front"] for row in rows)
    assert spec["title"]["subtitle"][0].startswith(f"{front} of 10 trials are Pareto-optimal")
    with pytest.raises(NothingToDraw, match="a score for both objectives"):
        pareto(Results(**{**vars(results), "trials": trials.head(30)}))


def test_trials_that_a_chart_leaves_out_are_counted():
    results = searched(several=True, states=("done", "done", "pruned", "diverged"))
    trials = results.trials.with_columns(
        peak_return=pl.when(pl.col("trial") == 0).then(None).otherwise("peak_return")
    )
    results = Results(**{**vars(results), "trials": trials})
    for name in ("search_pareto", "search_importance", "search_slices", "search_parallel"):
        said = str(SEARCH_CHARTS[name](results).to_dict()["title"])
        assert "Left out: 21 of 40 trials (10 diverged, 1 without a score, 10 pruned)." in said, name
        assert "Left out" not in str(SEARCH_CHARTS[name](searched(several=True)).to_dict()["title"]), name


def test_a_long_front_is_counted_as_a_whole(monkeypatch):
    monkeypatch.setattr("hyperlax.report.charts.search.MAX_ROWS", 15)
    (said,) = pareto(searched(several=True)).to_dict()["title"]["subtitle"]
    assert " of 40 trials" in said


@pytest.mark.parametrize("directions", list(itertools.product(["maximize", "minimize"], repeat=2)))
def test_the_line_of_the_front_claims_no_more_than_was_reached(directions):
    results = searched(several=True)
    results.manifest["search"]["directions"] = list(directions)
    signs = [1 if direction == "maximize" else -1 for direction in directions]
    spec = pareto(results).to_dict()
    (line,) = [part for part in spec["layer"] if part["mark"]["type"] == "line"]
    front = [(row["x"], row["y"]) for row in spec["datasets"][line["data"]["name"]]]
    assert len(front) > 1
    for before, after in itertools.pairwise(front):
        corner = {"step-before": (before[0], after[1]), "step-after": (after[0], before[1])}
        x, y = corner[line["mark"]["interpolate"]]
        assert any(
            signs[0] * point[0] >= signs[0] * x and signs[1] * point[1] >= signs[1] * y
            for point in (before, after)
        )


def test_thinned_points_do_not_hide_the_best_trial():
    results = searched(4_501)
    peak = pl.when(pl.col("trial") == 1_001).then(99.0).otherwise(pl.col("peak_return"))
    results = Results(**{**vars(results), "trials": results.trials.with_columns(peak_return=peak)})
    spec = history(results).to_dict()
    (line,) = [rows for rows in spec["datasets"].values() if "best" in rows[0]]
    assert next(row["sample"] for row in line if row["best"] == 99) == 1_001
    assert line[-1] == {"sample": 4_500, "best": 99}
    assert spec["title"]["subtitle"][-1] == "Points: 1 in 3 of 4501 trials."


def test_charts_of_a_long_search_are_thinned():
    results = searched(4_500)
    for name in ("search_history", "search_slices", "search_parallel"):
        spec = SEARCH_CHARTS[name](results).to_dict()
        assert max(map(len, spec["datasets"].values())) <= 5_000, name
        thinned = any(len(rows) < 4_500 for rows in spec["datasets"].values())
        assert ("Shown: " in str(spec["title"])) == thinned or name == "search_history"


def test_only_the_report_of_a_search_has_a_section_on_the_search(tmp_path):
    page = write_report(searched(), tmp_path / "report.html").read_text()
    assert 'id="search"' in page
    assert "its score is optimistic" in page
    assert "search_parallel" in page
    assert 'id="slices"' not in page
    plain = write_report(synthetic(samples=2, seeds=1), tmp_path / "plain.html").read_text()
    assert 'id="search"' not in plain
    assert 'id="slices"' in plain


def test_charts_are_exported_beside_the_others(tmp_path):
    written = export_charts(searched(12), tmp_path, ["svg"], charts=SEARCH_CHARTS)
    assert [p.stem for p in written] == [n for n in SEARCH_CHARTS if n != "search_pareto"]
