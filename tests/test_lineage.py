"""Lineage of a hand-made population of three lanes, and the charts drawn from it."""

from __future__ import annotations

import polars as pl
import pytest
from report_data import frame, synthetic

from hyperlax.report.charts import SCHEDULED, NothingToDraw
from hyperlax.report.charts.schedules import hyperparameter_schedules, lineage, pruned_at_rungs
from hyperlax.report.html import write_report
from hyperlax.report.lineage import ancestry, best_lane, explored, spans
from hyperlax.report.vega import vegalite_version
from hyperlax.storage.results import Results

PBT = {
    "name": "pbt",
    "interval": 1,
    "quantile": 0.25,
    "factor": 1.2,
    "resample": 0.25,
    "explores": ["lr", "gamma"],
}
ASHA = {"name": "asha", "reduction_factor": 3.0, "minimum": 0}

COPIES = [
    # at 100: lane 2 from lane 0; at 200: lane 0 (diverged) from lane 2; at 300: lane 1 from lane 0
    (2, 2, 0, 1, 100, 0, 1.0, 3.0, "lr", "0.3", "0.12"),
    (2, 2, 0, 1, 100, 0, 1.0, 3.0, "width", "64", "16"),
    (0, 0, 0, 2, 208, 2, None, 4.0, "lr", "0.1", "0.144"),
    (1, 1, 0, 3, 300, 0, 2.0, 5.0, None, None, None),
]


def population(copies=COPIES, final=(4.0, 9.0, 1.0)) -> Results:
    samples = pl.DataFrame(
        {"sample": [0, 1, 2], "lr": [0.1, 0.2, 0.3], "gamma": [0.9] * 3, "width": [16, 32, 64]}
    )
    lanes = [(i, i, 0, "done", 400, 10, 0, 1.0, 50, 0, None) for i in range(3)]
    curves = [
        (i, i, 0, step, step, 0, 1.0, "return", value if step == 400 else float(i))
        for i, value in enumerate(final)
        for step in (100, 200, 300, 400)
    ]
    about = {**synthetic(samples=3, seeds=1, diverged=()).manifest, "identity": {"schedule": PBT}}
    return Results(
        about,
        samples,
        lanes=frame("lanes", lanes),
        curves=frame("curves", curves),
        lineage=frame("lineage", copies),
    )


def test_the_hyperparameters_of_a_lane_change_with_its_copies():
    found = spans(population())
    assert [(s.start, s.end, s.hyperparameters["lr"], s.hyperparameters["width"]) for s in found[2]] == [
        (0, 100, "0.3", "64"),
        (100, 400, "0.12", "16"),
    ]
    assert [(s.start, s.end, s.hyperparameters["lr"]) for s in found[0]] == [
        (0, 208, "0.1"),
        (208, 400, "0.144"),
    ]
    assert [s.hyperparameters["lr"] for s in found[1]] == ["0.2", "0.2"]


def test_an_ancestry_leads_back_to_the_start():
    """Lane 1 copied lane 0 at step 300, which had copied lane 2 at 208, which had copied lane 0 at 100."""
    results = population()
    assert best_lane(results) == 1
    assert [(s.lane, s.start, s.end) for s in ancestry(results, 1)] == [
        (0, 0, 100),
        (2, 100, 208),
        (0, 208, 300),
        (1, 300, 400),
    ]
    assert [(s.lane, s.start, s.end) for s in ancestry(results, 2)] == [(0, 0, 100), (2, 100, 400)]
    assert [(s.lane, s.start, s.end) for s in ancestry(population([]), 1)] == [(1, 0, 400)]


def test_no_schedule_explores_nothing():
    assert explored(population()) == ["lr", "gamma"]
    assert explored(synthetic(samples=2, seeds=1)) == []


def test_the_charts_are_valid_and_show_every_copy():
    vlc = pytest.importorskip("vl_convert")
    spec = lineage(population()).to_dict()
    assert vlc.vegalite_to_vega(spec, vl_version=vegalite_version())["marks"]
    subtitle = " ".join(spec["title"]["subtitle"])
    assert subtitle.startswith("Number of copies: 3.")
    assert "Crosses: lanes that had diverged and continued from a copy (1)." in subtitle
    drawn = [row for rows in spec["datasets"].values() for row in rows if "parent" in row]
    assert {(row["parent"], row["sample"], row["begin"]) for row in drawn} == {
        (0, 2, 100),
        (2, 0, 208),
        (0, 1, 300),
    }
    over_time = hyperparameter_schedules(population()).to_dict()
    assert vlc.vegalite_to_vega(over_time, vl_version=vegalite_version())["marks"]
    panels = [panel["layer"][0]["encoding"]["y"] for panel in over_time["concat"]]
    assert [(p["title"], p["scale"].get("type")) for p in panels] == [("lr", "log")]


def test_a_large_population_is_thinned():
    results = population()
    curves = [
        (i, i, 0, step, step, 0, 1.0, "return", 1.0) for i in range(60) for step in range(100, 10_100, 100)
    ]
    lanes = [(i, i, 0, "done", 10_000, 10, 0, 1.0, 50, 0, None) for i in range(60)]
    large = Results(
        results.manifest,
        pl.DataFrame({"sample": list(range(60)), "lr": [0.1] * 60, "gamma": [0.9] * 60}),
        lanes=frame("lanes", lanes),
        curves=frame("curves", curves),
    )
    spec = lineage(large).to_dict()
    assert max(len(rows) for rows in spec["datasets"].values()) <= 4_000
    assert "Number of copies: 0." in spec["title"]["subtitle"][0]


def test_experiments_without_a_schedule_have_no_section_on_schedules(tmp_path):
    ordinary = synthetic(samples=3, seeds=2)
    for chart in SCHEDULED.values():
        with pytest.raises(NothingToDraw, match=r"only in .*\."):
            chart(ordinary)
    page = write_report(ordinary, tmp_path / "report.html").read_text()
    assert 'id="schedule"' not in page
    assert "at the start" not in page


@pytest.mark.parametrize("schedule", [PBT, ASHA])
def test_a_schedule_without_evaluations_is_reported(tmp_path, schedule):
    begun = Results({**population().manifest, "identity": {"schedule": schedule}}, population().samples)
    page = write_report(begun, tmp_path / "report.html").read_text()
    assert 'id="schedule"' in page


def test_survivors_are_counted_at_every_rung():
    """Of three samples two are stopped: sample 2 at the first rung, sample 0 at the second."""
    reached = {0: 300, 1: 900, 2: 100}
    curves = [
        (i, i, 0, step, step, 0, 1.0, "return", float(10 * i + step))
        for i, last in reached.items()
        for step in range(100, last + 1, 100)
    ]
    lanes = [
        (i, i, 0, "done" if i == 1 else "pruned", last, 10, 0, 1.0, 50, 0, None)
        for i, last in reached.items()
    ]
    about = {**population().manifest, "identity": {"schedule": ASHA}}
    about["settings"] = {"total_timesteps": 900, "evaluations": 9, "eval_episodes": 2, "seeds": 1}
    results = Results(
        about, population().samples, lanes=frame("lanes", lanes), curves=frame("curves", curves)
    )
    rows = next(iter(pruned_at_rungs(results).to_dict()["datasets"].values()))
    fates = {(row["rung"], row["sample"]): row["fate"] for row in rows}
    assert fates == {
        (100, 0): "continued",
        (100, 1): "continued",
        (100, 2): "stopped",
        (300, 0): "stopped",
        (300, 1): "continued",
        (900, 1): "continued",
    }
    assert {row["label"] for row in rows} == {
        "100 steps: 2 of 3 continued",
        "300 steps: 1 of 2 continued",
        "the end: 1 samples",
    }
