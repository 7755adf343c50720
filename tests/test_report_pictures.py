"""Content of the charts: positions on axes, shares, seconds, sizes and counts."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
from report_data import frame, manifest, nothing_yet, synthetic

from hyperlax.report import sample_metrics, sample_scores
from hyperlax.report.charts import (
    CHARTS,
    NothingToDraw,
    charts_with,
    ecdf,
    entanglement,
    parallel_coordinates,
    return_distribution,
    runtime,
    size_chart,
    training_health,
)
from hyperlax.report.charts.runtime import compile_seconds, progress, scaling
from hyperlax.report.charts.samples import combined_distribution
from hyperlax.report.metrics import METRICS
from hyperlax.report.options import Options
from hyperlax.storage.results import Results


def rows(chart, *columns: str) -> pl.DataFrame:
    """Return the rows of the chart's first data set that has all `columns`."""
    for found in chart.to_dict()["datasets"].values():
        if found and set(columns) <= set(found[0]):
            return pl.DataFrame(found, infer_schema_length=None)
    raise AssertionError(f"no data set with {columns}")


@pytest.fixture(scope="module")
def results() -> Results:
    return synthetic(samples=6, seeds=2, circuits=3)


def test_parallel_axes_are_scaled_as_the_search_space(results):
    """An axis is logarithmic if its space is; categories are spaced evenly, in the order of the space."""
    data = rows(parallel_coordinates(results), "axis", "place").sort("axis", "sample")
    rates = results.samples["lr"].log()
    expected = (rates - rates.min()) / (rates.max() - rates.min())
    assert data.filter(pl.col("axis") == "lr")["place"].to_list() == pytest.approx(expected.to_list())
    sizes = dict(data.filter(pl.col("axis") == "rollout").select("value", "place").iter_rows())
    assert sizes == {"64": 0.0, "128": 0.5, "256": 1.0}
    (switch,) = {
        tuple(sorted(set(p))) for p in [data.filter(pl.col("axis") == "normalise_observations")["place"]]
    }
    assert switch == (0.25, 0.75)


def test_a_parallel_line_ends_in_the_chosen_metric(results):
    chart = parallel_coordinates(results, "final_return")
    data = rows(chart, "axis", "place")
    assert "final return" in set(data["axis"])
    assert "peak return" not in set(data["axis"])
    final = dict(sample_metrics(results).select("sample", "final_return").iter_rows())
    scored = data.filter(pl.col("axis") == "final return")
    assert dict(scored.select("sample", "score").iter_rows()) == pytest.approx(final)
    assert scored["score"].is_sorted()  # the best is drawn last, on top


def test_many_hyperparameters_take_several_rows_without_omitting_samples():
    wide = synthetic(samples=5, seeds=1, diverged=())
    more = [pl.lit(i).add(pl.col("sample")).alias(f"more.{i}") for i in range(20)]
    spec = parallel_coordinates(dataclasses.replace(wide, samples=wide.samples.with_columns(more))).to_dict()
    assert len(spec["vconcat"]) == 3
    assert "Shown" not in spec["title"]["subtitle"][0]


def test_the_distribution_rises_by_one_sample_at_a_time(results):
    data = rows(ecdf(results), "share").sort("value")
    assert data["share"].to_list() == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1])
    assert data["value"].to_list() == sorted(sample_scores(results)["score"].to_list())
    inside = data.filter(pl.col("low") <= pl.col("share"), pl.col("share") <= pl.col("high"))
    assert len(inside) == 6


def test_samples_of_several_families_are_told_apart(results):
    """Clicking sample 3 of one family must not highlight sample 3 of another."""
    other = dataclasses.replace(results, manifest={**results.manifest, "name": "sac_mlp", "algorithm": "sac"})
    for chart in (ecdf, return_distribution, size_chart):
        keys = set(rows(chart(results, other), "sample")["sample"])
        assert keys == {f"{name} {i}" for name in ("ppo_mlp", "sac_mlp") for i in range(6)}
        assert set(rows(chart(results), "sample")["sample"]) == set(range(6))
        assert set(rows(chart(results, shared=True), "sample")["sample"]) == {
            f"ppo_mlp {i}" for i in range(6)
        }


def test_environments_are_combined_side_by_side(results):
    spec = combined_distribution({"a.x": [results], "b.y": [nothing_yet()], "c.z": [results]}).to_dict()
    assert [panel["title"]["text"] for panel in spec["concat"]] == ["a.x", "c.z"]
    assert spec["resolve"]["scale"] == {"color": "independent", "shape": "independent"}
    with pytest.raises(NothingToDraw):
        combined_distribution({"b.y": [nothing_yet()]})


def test_compiling_counts_only_while_nothing_else_runs():
    """Compiling one program while another trains does not delay the run."""
    spans = [
        ("trace", 0, 0.0, 1.0),
        ("compile", 0, 1.0, 4.0),
        ("train", 0, 4.0, 10.0),
        ("compile", 1, 5.0, 12.0),
        ("train", 1, 12.0, 20.0),
    ]
    results = Results(manifest(1, 1, 1, 1), pl.DataFrame({"sample": [0]}), timeline=frame("timeline", spans))
    assert compile_seconds(results, np.asarray([0.5, 4.0, 9.0, 11.0, 99.0])).tolist() == [
        0.5,
        4.0,
        4.0,
        5.0,
        6.0,
    ]


def timed() -> Results:
    """Build a run of three lanes after 4 s of compilation: two end at 12 s, one still runs at 15 s."""
    points = [(0, 100, 8.0), (0, 200, 12.0), (1, 100, 9.0), (1, 200, 12.0), (2, 50, 15.0)]
    curves = [(lane, lane, 0, steps, 1, 0, seconds, "return", 1.0) for lane, steps, seconds in points]
    status = ["done", "diverged", "running"]
    lanes = [(i, i, 0, status[i], 200, 1, 0, 1.0, 10 * (i + 1), 0, None) for i in range(3)]
    spans = [("compile", 0, 0.0, 4.0), ("train", 0, 4.0, 15.0)]
    return Results(
        manifest(3, 1, 2, 200),
        pl.DataFrame({"sample": [0, 1, 2]}),
        frame("lanes", lanes),
        frame("curves", curves),
        timeline=frame("timeline", spans),
    )


def test_progress_counts_lanes_seconds_and_steps():
    table = progress(timed())
    assert table["lanes"].to_list() == [1, 2]
    assert table["running"].to_list() == [8.0, 8.0]
    assert table["compiling"].to_list() == [4.0, 4.0]
    assert table["env_steps"].to_list() == [400.0, 400.0]


def test_speed_is_given_with_and_without_compiling():
    found = rows(runtime(timed()), "kind")
    chart = runtime(timed()).to_dict()
    tables = [pl.DataFrame(found) for found in chart["datasets"].values()]
    values = {(r["kind"], r["lanes"], r["value"]) for t in tables for r in t.iter_rows(named=True)}
    assert ("without compiling", 2, 8.0) in values
    assert ("compiling", 2, 4.0) in values
    assert ("without compiling", 2, 50.0) in values
    assert ("compiling included", 2, 400 / 12) in values
    assert set(found["lanes"]) == {1, 2}
    with pytest.raises(NothingToDraw):
        runtime(nothing_yet())


def test_experiments_of_a_family_are_joined_by_a_line():
    small, large = timed(), synthetic(samples=4, seeds=2)
    large.manifest["name"] = "the same, larger"
    found = rows(scaling([small, large]), "line")
    assert set(found["lanes"]) == {2, 8}
    assert found["line"].n_unique() == 1


def test_the_size_chart_shows_the_parameters_of_each_sample(results):
    found = rows(size_chart(timed()), "parameters")
    assert dict(found.select("sample", "parameters").iter_rows()) == {0: 10.0, 1: 20.0, 2: 30.0}
    spec = size_chart(results).to_dict()
    assert spec["encoding"]["shape"]["scale"]["range"] == ["circle"]


def test_entanglers_are_ordered_from_none_to_ring(results):
    spec = entanglement(results).to_dict()
    (panel,) = spec["concat"]
    assert panel["layer"][0]["encoding"]["y"]["sort"] == ["none", "cz", "cz_ring"]
    boxes = rows(entanglement(results), "median", "value")
    scored = sample_scores(results).join(results.samples, on="sample")
    for value, median in boxes.select("value", "median").iter_rows():
        values = scored.filter(pl.col("actor.entangler") == value)["score"]
        assert median == pytest.approx(values.median())
    with pytest.raises(NothingToDraw, match="does not vary"):
        entanglement(synthetic(samples=3, seeds=1))


def test_health_shows_every_metric_and_counts_diverged_lanes():
    results = synthetic(samples=4, seeds=2, diverged=(1, 6))
    spec = training_health(results).to_dict()
    titles = [panel["layer"][-1]["encoding"]["y"]["title"] for panel in spec["concat"]]
    assert titles[:4] == ["entropy", "approx kl", "clip fraction", "explained variance"]
    assert "actor gradient norm" in titles
    assert titles[-1] == "diverged, of 8 lanes"
    counted = [t for t in spec["datasets"].values() if t and set(t[0]) == {"x", "lanes"}]
    assert [row["lanes"] for row in counted[0]] == [0, 1, 2, 2]


def test_health_follows_the_selection():
    """The data hold every sample, and a filter draws only the selected ones."""
    results = synthetic(samples=4, seeds=2)
    spec = training_health(results).to_dict()
    layer = spec["concat"][0]["layer"][-1]
    assert "indexof(picked, datum.sample)" in layer["transform"][0]["filter"]
    assert {row["sample"] for row in spec["datasets"][layer["data"]["name"]]} == {-1, 0, 1, 2, 3}


def test_the_axis_of_a_constant_metric_does_not_show_rounding_errors():
    results = synthetic(samples=2, seeds=2)
    rounding = pl.when(pl.col("lane") == 0).then(1e-3).otherwise(1.00001e-3)
    same = results.curves.with_columns(
        value=pl.when(pl.col("metric") == "train/entropy").then(rounding).otherwise("value")
    )
    panels = training_health(dataclasses.replace(results, curves=same)).to_dict()["concat"]
    scales = {
        p["layer"][0]["encoding"]["y"]["title"]: p["layer"][0]["encoding"]["y"]["scale"] for p in panels
    }
    assert scales["entropy"] == {"zero": True}
    assert scales["approx kl"] == {"zero": False}


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_can_be_chosen(results, metric):
    drawn = charts_with(Options(metric=metric))
    assert list(drawn) == list(CHARTS)
    for name in ("slices", "parallel_coordinates"):
        try:
            spec = drawn[name](results).to_dict()
        except NothingToDraw:
            assert sample_metrics(results)[metric].null_count() == 6
            continue
        assert metric.replace("_", " ") in str(spec)


def test_the_number_of_best_samples_can_be_chosen(results):
    drawn = charts_with(Options(top=2))
    assert "sample" in str(drawn["learning_curves"](results).to_dict())
    names = set(rows(drawn["learning_curves"](results), "name", "low")["name"])
    assert len({n for n in names if n.startswith("sample")}) == 2
    assert "the best 2 samples" in str(drawn["aggregate_curves"](results).to_dict()["title"])


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (
            {"metric": "peak_retrun"},
            'unknown metric "peak_retrun"; did you mean "peak_return"? Known: peak_',
        ),
        ({"top": 0}, "top must be at least 1"),
    ],
)
def test_invalid_options_are_refused(chosen, message):
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        Options(**chosen)
    assert message in str(refused.value)


def test_the_best_of_k_is_exact_at_the_few_points_that_are_drawn():
    """The expected best of one sample is the mean, and that of all samples is the largest."""
    results = synthetic(samples=300, seeds=1, evaluations=1, diverged=())
    drawn = CHARTS["best_of_k"](results).to_dict()["datasets"].values()
    found = pl.DataFrame(max(drawn, key=len)).sort("x")
    found_scores = sample_scores(results)["score"]
    assert len(found) <= 100
    assert found["x"][0] == 1
    assert found["x"][-1] == 300
    assert found["value"][0] == pytest.approx(found_scores.mean())
    assert found["value"][-1] == pytest.approx(found_scores.max())
