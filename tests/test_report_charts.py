"""Charts of an experiment: each is drawn or gives the reason why not, and stays within altair's limits."""

import dataclasses
import itertools

import altair as alt
import numpy as np
import polars as pl
import pytest
from report_data import SPACE, confirmed, frame, manifest, nothing_yet, sobol_design, synthetic

from hyperlax.report import importance_table, sensitivity_table, sobol_table
from hyperlax.report.charts import (
    CHARTS,
    SCHEDULED,
    NothingToDraw,
    learning_curves,
    return_distribution,
    slices,
)
from hyperlax.report.charts.run import timeline
from hyperlax.report.charts.slices import space_by_column
from hyperlax.report.charts.style import alike, family_colour, sample_colours, text
from hyperlax.report.charts.tuning import tuning_chart
from hyperlax.report.vega import vegalite_version
from hyperlax.storage.results import Results

AWKWARD = {
    "one evaluation": lambda: synthetic(samples=3, seeds=2, evaluations=1, diverged=()),
    "one lane": lambda: synthetic(samples=1, seeds=1, diverged=()),
    "all diverged": lambda: synthetic(samples=3, seeds=1, diverged=(0, 1, 2)),
    "lanes without points": lambda: _without_points(synthetic(samples=4, seeds=2), [0, 1, 2]),
    "only lanes": lambda: _without_points(synthetic(samples=2, seeds=2), [0, 1, 2, 3]),
    "confirmed with one seed": lambda: confirmed(synthetic(samples=3, seeds=1, diverged=()), (0,)),
    "nothing confirmed yet": lambda: _nothing_confirmed(synthetic(samples=3, seeds=2)),
    "nothing": nothing_yet,
}


@pytest.mark.parametrize("case", AWKWARD)
def test_a_chart_is_drawn_or_gives_the_reason_why_not(case):
    results = _with_few_columns(AWKWARD[case]())
    for name, chart in CHARTS.items():
        reason, spec = "", {}
        try:
            spec = chart(results).to_dict()
        except NothingToDraw as nothing:
            reason = str(nothing)
        assert reason.endswith(".") or spec["title"]["text"], name


def test_every_chart_of_an_ordinary_experiment_is_valid_vega():
    vlc = pytest.importorskip("vl_convert")
    results, drawn = confirmed(synthetic(samples=10, seeds=2, circuits=3)), sobol_design(seeds=1)
    for name, chart in CHARTS.items():
        if name in (*SCHEDULED, "ablation"):  # which belong to other experiments
            continue
        own = drawn if name == "sobol_indices" else results
        vega = vlc.vegalite_to_vega(chart(own).to_dict(), vl_version=vegalite_version())
        assert vega["marks"], name


@pytest.mark.parametrize(
    ("name", "samples", "evaluations"),
    [
        ("learning_curves", 300, 40),
        ("leaderboard", 300, 2),
        ("return_distribution", 4_500, 2),
        ("slices", 4_500, 2),
    ],
)
def test_charts_of_a_large_sweep_are_thinned_and_say_so(name, samples, evaluations):
    spec = CHARTS[name](_large(samples, evaluations)).to_dict()
    assert max(len(rows) for rows in spec["datasets"].values()) <= 5_000
    assert f"of {samples} " in " ".join(spec["title"]["subtitle"]) or "of 40 eval" in str(spec["title"])


def test_importance_and_sobol_charts_show_their_tables():
    drawn = sobol_design(rows=8)
    for name, table in (("importance", importance_table(drawn)), ("sobol_indices", sobol_table(drawn))):
        spec = CHARTS[name](drawn).to_dict()
        shown = [row["hyperparameter"] for rows in spec["datasets"].values() for row in rows]
        assert set(shown) == set(table["hyperparameter"])
    assert "approximate 95 % bootstrap intervals" in str(spec["title"])
    totals = [r["value"] for rows in spec["datasets"].values() for r in rows if r["index"] == "total"]
    assert sorted(totals) == sorted(table["total"])


def test_the_tuning_chart_is_labelled_with_the_sensitivity():
    here = synthetic(samples=6, seeds=2)
    there = dataclasses.replace(here, manifest={**here.manifest, "env": "gymnax.acrobot"})
    spec = tuning_chart([here, there]).to_dict()
    (label,) = {r["label"] for rows in spec["datasets"].values() for r in rows if "label" in r}
    row = sensitivity_table([here, there]).row(0, named=True)
    assert label == f"sensitivity {row['sensitivity']:.2f}"
    with pytest.raises(NothingToDraw, match="two environments"):
        tuning_chart([here])


def test_a_long_timeline_is_merged_without_losing_time():
    spans = [("train" if i % 2 else "evaluate", 0, float(i), i + 0.999) for i in range(6_000)]
    results = Results(manifest(1, 1, 1, 1), pl.DataFrame({"sample": [0]}), timeline=frame("timeline", spans))
    spec = timeline(results).to_dict()
    rows = next(iter(spec["datasets"].values()))
    assert len(rows) <= 1_500
    assert (min(row["start"] for row in rows), max(row["end"] for row in rows)) == (0.0, 5_999.999)
    assert any("6000 spans" in line for line in spec["title"]["subtitle"])


def test_each_family_has_its_own_colour_everywhere():
    families = [(a, n) for a in ("ppo", "dqn", "sac") for n in ("mlp", "tmlp", "drpqc")]
    assert len({family_colour(*family) for family in families}) == len(families)
    assert family_colour("mine", "mlp") == family_colour("mine", "mlp")
    spec = return_distribution(synthetic(samples=3, seeds=1)).to_dict()
    assert family_colour("ppo", "mlp") in str(spec)


def test_families_are_compared_in_one_chart():
    other = synthetic(samples=3, seeds=2)
    other.manifest.update(name="sac_mlp", algorithm="sac")
    spec = return_distribution(synthetic(samples=3, seeds=2), other).to_dict()
    assert family_colour("ppo", "mlp") in str(spec)
    assert family_colour("sac", "mlp") in str(spec)


def test_slices_follow_the_space():
    spec = slices(synthetic(samples=6, seeds=2)).to_dict()
    panels = {panel["layer"][0]["encoding"]["x"]["title"]: panel for panel in spec["concat"]}
    assert "max_grad_norm" not in panels
    scales = {name: panel["layer"][0]["encoding"]["x"]["scale"] for name, panel in panels.items()}
    assert scales["lr"]["type"] == "log"
    assert scales["gamma"]["type"] == "linear"
    assert len(panels["rollout"]["layer"]) == 2
    assert '["tanh", "relu", "silu"]' in str(panels["actor.activation"])


def test_a_joint_space_describes_each_of_its_columns():
    found = space_by_column(SPACE, ["lr", "actor.width", "actor.depth"])
    assert found["actor.width"] == {"type": "choice", "values": [32, 64, 128]}
    assert found["actor.depth"] == {"type": "choice", "values": [1, 2]}
    assert found["lr"]["type"] == "log_uniform"


@pytest.mark.parametrize("x", ["env_steps", "seconds", "gradient_steps", "circuit_executions"])
def test_learning_curves_against_every_axis(x):
    spec = learning_curves(synthetic(samples=4, seeds=2, circuits=3), x, top=2).to_dict()
    names = {row.get("name") for rows in spec["datasets"].values() for row in rows} - {None}
    assert len(names) == 3
    assert "IQM of 4 samples" in names


def test_an_axis_that_was_not_recorded_is_reported_by_name():
    results = synthetic(samples=2, seeds=1)
    blank = results.curves.with_columns(gradient_steps=pl.lit(None, pl.Int64))
    with pytest.raises(NothingToDraw, match="gradient steps"):
        learning_curves(Results(results.manifest, results.samples, results.lanes, blank), "gradient_steps")


def test_one_seed_is_drawn_without_intervals_and_says_so():
    spec = learning_curves(synthetic(samples=4, seeds=1)).to_dict()
    assert "area" not in {layer["mark"]["type"] for layer in spec["layer"]}
    assert "no intervals" in spec["title"]["subtitle"][0]


@pytest.mark.parametrize(
    ("samples", "seeds", "over"), [(12, 1, "samples"), (4, 10, "the seeds of these samples")]
)
def test_the_band_over_all_samples_is_said_to_be_one(samples, seeds, over):
    first, second, _ = learning_curves(synthetic(samples=samples, seeds=seeds)).to_dict()["title"]["subtitle"]
    assert ("no intervals of single samples" in first) == (seeds == 1)
    assert second == f"Dashed: interquartile mean over all samples; its band: 95 % interval over {over}."


def test_bands_are_intervals_if_there_are_ten_seeds():
    spec = learning_curves(synthetic(samples=2, seeds=10, diverged=())).to_dict()
    assert spec["title"]["subtitle"][0].startswith("Interquartile mean over seeds; bands: 95 % intervals.")
    few, many = (
        [
            row
            for rows in learning_curves(synthetic(samples=1, seeds=n, diverged=()))
            .to_dict()["datasets"]
            .values()
            for row in rows
            if row.get("low") is not None
        ]
        for n in (9, 10)
    )
    assert np.mean([r["high"] - r["low"] for r in many]) < np.mean([r["high"] - r["low"] for r in few])


def test_thin_lines_show_the_seeds_of_a_single_sample():
    results = synthetic(samples=1, seeds=3, diverged=())
    spec = learning_curves(results).to_dict()
    assert spec["title"]["subtitle"] == [
        "Interquartile mean over seeds; bands: from the lowest to the highest seed, because fewer than 10 "
        "seeds have no interval that holds. Thin lines: its 3 seeds."
    ]
    drawn = next(rows for rows in spec["datasets"].values() if rows and "line" in rows[0])
    measured = results.curves.filter(pl.col("metric") == "return").sort("lane", "env_steps")
    assert [row["line"] for row in drawn] == measured["lane"].to_list()
    assert [row["value"] for row in drawn] == pytest.approx(measured["value"].to_list())


def test_values_are_formatted_for_display():
    formatted = [text(v) for v in (0.00012346, 123456.7, 64, True, [64, 64], None, "tanh", pl.Series([1, 2]))]
    assert formatted == ["0.0001235", "123457", "64", "True", "[64, 64]", "–", "tanh", "[1, 2]"]


def test_altair_still_refuses_more_than_5000_rows():
    with pytest.raises(alt.MaxRowsError):
        alt.Chart(pl.DataFrame({"x": range(5_001)})).mark_point().to_dict()


def _with_few_columns(results: Results) -> Results:
    """Reduce an experiment to two hyperparameters and two training metrics, which are faster to draw."""
    curves = results.curves.filter(pl.col("metric").is_in(["return", "train/entropy", "train/value_loss"]))
    samples = results.samples.select("sample", "lr", "actor.activation")
    timeline, confirmation = results.timeline, results.confirmation
    return Results(
        results.manifest, samples, results.lanes, curves, timeline=timeline, confirmation=confirmation
    )


def _nothing_confirmed(results: Results) -> Results:
    """Add a confirmation that has begun but has no evaluation yet."""
    confirmation = confirmed(results).confirmation
    assert confirmation is not None
    return dataclasses.replace(results, confirmation=Results(confirmation.manifest, confirmation.samples))


def _without_points(results: Results, lanes: list[int]) -> Results:
    curves = results.curves.filter(~pl.col("lane").is_in(lanes))
    return Results(results.manifest, results.samples, results.lanes, curves, timeline=results.timeline)


def _large(samples: int, evaluations: int) -> Results:
    """Build an experiment with one seed for each of `samples` samples."""
    ids = pl.DataFrame({"lane": range(samples)}).with_columns(sample="lane", seed=pl.lit(0, pl.Int64))
    steps = pl.DataFrame({"env_steps": [100 * (i + 1) for i in range(evaluations)]})
    curves = ids.join(steps, how="cross").with_columns(
        gradient_steps=pl.col("env_steps"),
        circuit_executions=pl.lit(0, pl.Int64),
        seconds=pl.col("env_steps").cast(pl.Float64),
        metric=pl.lit("return"),
        value=(pl.col("sample") % 97).cast(pl.Float64) + pl.col("env_steps") / 100,
    )
    lanes = [(i, i, 0, "done", 100 * evaluations, 1, 0, 1.0, 1, 0, None) for i in range(samples)]
    table = pl.DataFrame({"sample": range(samples)}).with_columns(gamma=pl.col("sample") / samples)
    return Results(manifest(samples, 1, evaluations, 4_000), table, frame("lanes", lanes), curves)


@pytest.mark.parametrize("count", [1, 5, 7, 20])
@pytest.mark.parametrize("family", [("ppo", "mlp"), ("sac", "drpqc"), ("mine", "own")])
def test_no_two_samples_of_an_experiment_share_a_colour(family, count):
    about = {"algorithm": family[0], "network": family[1]}
    colours = sample_colours(about, count)
    assert colours[0] == family_colour(*family)
    assert len(set(colours)) == count
    few = colours[:5]
    assert not any(alike(a, b) for a, b in itertools.combinations(few, 2))
