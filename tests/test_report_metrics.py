"""Metrics of learning curves against hand-made curves and a loop that follows the published definitions."""

import dataclasses
import weakref

import numpy as np
import polars as pl
import pytest
from report_data import frame, manifest, nothing_yet, sobol_design, synthetic
from scipy import stats

from hyperlax.report import lane_metrics, leaderboard, metrics, sample_metrics
from hyperlax.report.evaluations import at_equal_steps, equal_steps, evaluations
from hyperlax.report.leaderboard import varied_hyperparameters
from hyperlax.report.once import once
from hyperlax.storage.results import Results

NAN = np.nan
STEPS = np.array([[100.0, 200.0, 300.0, 400.0], [100.0, 200.0, 300.0, NAN]])
RETURNS = np.array([[0.0, 10.0, 20.0, 10.0], [-300.0, -200.0, -100.0, NAN]])


def test_metrics_of_hand_made_curves():
    np.testing.assert_allclose(metrics.peak_return(RETURNS), [20, -100])
    np.testing.assert_allclose(metrics.peak_timestep(STEPS, RETURNS), [300, 300])
    np.testing.assert_allclose(metrics.final_return(RETURNS), [10, -100])
    np.testing.assert_allclose(metrics.forgetting_score(RETURNS), [0.5, 0])
    np.testing.assert_allclose(metrics.stability_score(RETURNS), [0.5, 0.5])
    np.testing.assert_allclose(metrics.early_learning_rate(STEPS, RETURNS), [0.1, NAN])
    np.testing.assert_allclose(metrics.auc_at_budget(STEPS, RETURNS, 0.0, 20.0), [35 / 60, -10])


def test_time_to_target_interpolates_and_is_infinite_if_never_reached():
    np.testing.assert_allclose(metrics.time_to_target(STEPS, RETURNS, 15.0), [250, np.inf])
    np.testing.assert_allclose(metrics.time_to_target(STEPS, RETURNS, -150.0), [100, 250])


def test_published_time_to_target_is_the_budget_for_negative_returns():
    np.testing.assert_allclose(metrics.time_to_target_published(STEPS, RETURNS, 400.0), [280, 400])


def test_fixed_scores_order_curves_that_the_published_area_does_not():
    steps = np.tile(np.arange(1.0, 11.0), (2, 1))
    shape = np.linspace(0, 1, 10)
    returns = np.stack([shape, 100 * shape])
    published = metrics.auc_at_budget_published(steps, returns)
    np.testing.assert_allclose(published[0], published[1])
    fixed = metrics.auc_at_budget(steps, returns, 0.0, 100.0)
    np.testing.assert_allclose(fixed, [0.005, 0.5])


def test_the_published_definitions_on_random_curves():
    rng = np.random.default_rng(0)
    for count in (3, 9, 40):
        steps, returns = np.cumsum(rng.uniform(1, 5, (20, count)), axis=1), rng.normal(-50, 40, (20, count))
        ours = _published(steps, returns)
        for lane in range(20):
            for name, value in _reference(steps[lane], returns[lane]).items():
                np.testing.assert_allclose(ours[name][lane], value, err_msg=f"{name}, {count} points")


def test_padding_a_short_curve_changes_no_metric():
    rng = np.random.default_rng(1)
    steps, returns = np.cumsum(rng.uniform(1, 5, (6, 12)), axis=1), rng.normal(size=(6, 12))
    padding = np.full((6, 7), NAN)
    padded = _published(np.hstack([steps, padding]), np.hstack([returns, padding]))
    for name, values in _published(steps, returns).items():
        np.testing.assert_allclose(padded[name], values, err_msg=name)


def test_lane_metrics_mark_a_diverged_lane_and_use_its_evaluations():
    table = lane_metrics(synthetic())
    assert table["lane"].to_list() == list(range(64))
    broken = table.filter("diverged")
    assert broken["lane"].to_list() == [6]
    assert broken["points"].item() == 2
    assert broken["peak_return"].is_not_null().all()
    assert set(metrics.METRICS) <= set(table.columns)


def test_values_that_are_not_finite_are_ignored():
    results = _results({(0, 0): [1.0, 3.0, float("nan")], (0, 1): [float("inf"), 2.0, 4.0]})
    table = lane_metrics(results)
    assert table["points"].to_list() == [2, 2]
    assert table["final_return"].to_list() == [3.0, 4.0]
    assert table["peak_timestep"].to_list() == [200.0, 300.0]


def test_a_point_written_twice_counts_once():
    results = _results({(0, 0): [1.0, 2.0]})
    again = results.curves.with_columns(value=pl.lit(9.0)).head(1)
    doubled = Results(results.manifest, results.samples, results.lanes, pl.concat([results.curves, again]))
    assert lane_metrics(doubled)["points"].to_list() == [2]
    assert lane_metrics(doubled)["peak_return"].to_list() == [9.0]


def test_a_lane_that_is_not_listed_yet_counts_as_running():
    results = _results({(0, 0): [1.0, 2.0], (1, 0): [3.0]})
    unlisted = Results(results.manifest, results.samples, results.lanes.head(1), results.curves)
    assert lane_metrics(unlisted)["status"].to_list() == ["done", "running"]


def test_sample_metrics_aggregate_over_seeds():
    results = synthetic(seeds=10)
    lanes, samples = lane_metrics(results), sample_metrics(results)
    for sample, group in lanes.group_by("sample"):
        row = samples.filter(pl.col("sample") == sample[0])
        peaks = group["peak_return"].to_numpy()
        np.testing.assert_allclose(row["peak_return"].item(), stats.trim_mean(peaks, 0.25))
        assert peaks.min() <= row["peak_return_low"].item() <= row["peak_return"].item()
        assert row["peak_return"].item() <= row["peak_return_high"].item() <= peaks.max()
    assert samples["seeds_diverged"].sum() == 1


def test_a_seed_that_never_reached_the_solved_score_counts_as_latest():
    curves = {(0, seed): [-1000.0, last] for seed, last in enumerate((0.0, 600.0, 600.0, -900.0))}
    results = _results(curves)
    assert lane_metrics(results)["time_to_target"].to_list() == [180.0, 150.0, 150.0, None]
    row = sample_metrics(results)
    np.testing.assert_allclose(row["time_to_target"].item(), 165.0)
    assert row["time_to_target_high"].item() is None


def test_without_reference_scores_the_fixed_metrics_are_null():
    results = synthetic(samples=2, seeds=2)
    results.manifest["reference"] = None
    table = sample_metrics(results)
    assert table["auc_at_budget"].null_count() == table["time_to_target"].null_count() == 2
    assert table["auc_at_budget_published"].null_count() == 0


def test_ranks_are_ranges_where_the_order_is_not_certain():
    noise = np.linspace(-1, 1, 8)
    seeds = {0: 10 + noise, 1: 5 + noise, 2: 9.9 + noise, 4: 1 + noise}
    curves = {(sample, seed): [v] for sample, values in seeds.items() for seed, v in enumerate(values)}
    table = leaderboard(_results(curves | {(3, 0): []}), top=None)
    assert table["sample"].to_list() == [0, 2, 1, 4, 3]
    assert table["rank"].to_list() == ["1–2", "1–2", "3", "4", "–"]
    assert table["lowest_seed"].to_list()[:2] == pytest.approx([9.0, 8.9])
    assert table["score_low"].null_count() == 5


def test_three_seeds_allow_no_rank():
    table = leaderboard(_results({(i, seed): [9.0 * i + seed / 10] for i in range(2) for seed in range(3)}))
    assert table["rank"].to_list() == ["1–2", "1–2"]
    assert table["highest_seed"].to_list() == pytest.approx([9.2, 0.2])


def test_one_seed_allows_no_rank():
    table = leaderboard(_results({(0, 0): [1.0], (1, 0): [2.0]}))
    assert table["sample"].to_list() == [1, 0]
    assert table["rank"].to_list() == ["1–2", "1–2"]
    assert table["score_low"].null_count() == 2


def test_the_leaderboard_shows_hyperparameters_that_vary():
    table = leaderboard(synthetic(), top=3)
    assert len(table) == 3
    assert {"lr", "actor.width"} <= set(table.columns)
    assert "max_grad_norm" not in table.columns


@pytest.mark.parametrize("table", [lane_metrics, sample_metrics, leaderboard])
def test_an_experiment_without_lanes_gives_an_empty_table_with_all_columns(table):
    assert len(table(nothing_yet())) == 0
    assert table(nothing_yet()).columns == table(synthetic(samples=4, seeds=2)).columns


def _published(steps, returns):
    return {
        "peak": metrics.peak_return(returns),
        "when": metrics.peak_timestep(steps, returns),
        "final": metrics.final_return(returns),
        "auc": metrics.auc_at_budget_published(steps, returns),
        "stability": metrics.stability_score(returns),
        "target": metrics.time_to_target_published(steps, returns, 1e6),
        "early": metrics.early_learning_rate(steps, returns),
        "forgetting": metrics.forgetting_score(returns),
    }


def _reference(t, y):
    """Compute the metrics of one curve by the definitions of hyperlax v0.1, in plain numpy."""
    tail = y[-max(1, len(y) // 10) :]
    goal = np.percentile(y, 90)
    scaled = np.clip((y - y.min()) / (goal - y.min()), 0, 1)
    end = y[-max(3, len(y) // 10) :]
    spread = np.percentile(end, 75) - np.percentile(end, 25)
    crossing = 1e6
    for i in range(len(y)):
        if y[i] >= 0.9 * y.max():
            before = max(i - 1, 0)
            share = (0.9 * y.max() - y[before]) / (y[i] - y[before]) if i else 0.0
            crossing = t[before] + share * (t[i] - t[before])
            break
    half = len(y) // 2
    return {
        "peak": y.max(),
        "when": t[np.argmax(y)],
        "final": tail.mean(),
        "auc": np.trapezoid(scaled, t) / (t[-1] - t[0]),
        "stability": np.clip(1 - spread / (abs(np.median(end)) + 1e-8), 0, 1),
        "target": crossing,
        "early": (y[half - 1] - y[0]) / (t[half - 1] - t[0]) if half >= 2 else NAN,
        "forgetting": np.clip((y.max() - tail.mean()) / abs(y.max()), 0, 1),
    }


def _results(curves: dict[tuple[int, int], list[float]]) -> Results:
    """Build an experiment with the given returns by (sample, seed), evaluated every 100 steps."""
    lanes, rows = [], []
    for lane, ((sample, seed), returns) in enumerate(curves.items()):
        lanes.append((lane, sample, seed, "done", 100 * len(returns), 0, 0, 1.0, 1, 0, None))
        rows += [(lane, sample, seed, 100 * (i + 1), i, 0, 1.0, "return", y) for i, y in enumerate(returns)]
    samples = pl.DataFrame({"sample": sorted({sample for sample, _ in curves})})
    described = manifest(len(samples), 2, 2, 200) | {"reference": {"random": -1000.0, "solved": -200.0}}
    return Results(described, samples, frame("lanes", lanes), frame("curves", rows))


def test_the_matrix_of_a_design_is_not_a_hyperparameter():
    assert varied_hyperparameters(sobol_design().samples) == ["rate", "width", "depth"]


def of_lengths(*lengths: tuple[int, ...], status: str = "done") -> Results:
    """One lane per sample, evaluated at the steps of `lengths`, with a return of as many thousands."""
    key = [(i, i, 0) for i in range(len(lengths))]
    lanes = [
        {"lane": i, "sample": i, "seed": 0, "status": status if i else "done", "env_steps": steps[-1]}
        for i, steps in enumerate(lengths)
    ]
    curves = [
        {"lane": lane, "sample": sample, "seed": seed, "env_steps": at, "metric": "return", "value": at / 1e3}
        for (lane, sample, seed), steps in zip(key, lengths, strict=True)
        for at in steps
    ]
    return Results(
        manifest={"name": "a", "env": "gymnax.cartpole", "settings": {"total_timesteps": 5_000}},
        samples=pl.DataFrame({"sample": range(len(lengths))}),
        lanes=pl.DataFrame(lanes),
        curves=pl.DataFrame(curves).with_columns(
            seconds=0.0, gradient_steps=pl.lit(0), circuit_executions=pl.lit(0)
        ),
    )


def test_lanes_are_compared_at_the_steps_that_all_of_them_have_trained():
    """A lane that has trained 8,192 steps is not ranked by them where another has trained 5,120."""
    results = of_lengths((2_560, 5_120), (4_096, 5_150, 8_192))
    assert equal_steps(results) == 5_120
    measured = lane_metrics(results)
    assert measured["peak_return"].to_list() == [5.12, 5.15]
    assert measured["final_return"].to_list() == [5.12, 5.15]
    assert evaluations(results, whole=True).values.shape == (2, 1, 3)


def test_ends_within_one_percent_are_equal_and_lanes_that_were_stopped_hold_nobody_back():
    assert equal_steps(of_lengths((4_992,), (2_560, 5_024))) is None
    stopped = of_lengths((2_560, 5_120), (1_024,), status="pruned")
    assert equal_steps(stopped) is None
    assert lane_metrics(stopped)["peak_return"].to_list() == [5.12, 1.024]


def test_families_are_compared_at_equal_steps_if_they_were_to_train_equally_long():
    short, long = of_lengths((2_560, 4_096)), of_lengths((2_560, 4_096, 5_024))
    other = dataclasses.replace(long, manifest={**long.manifest, "settings": {"total_timesteps": 6_000}})
    cut = at_equal_steps([short, long, other])
    assert [r.curves["env_steps"].max() for r in cut] == [4_096, 4_096, 5_024]


def test_what_a_page_asks_for_many_times_is_computed_once_for_every_experiment():
    """Other arguments and other objects are computed anew; nothing is kept of what is gone."""
    asked = []

    @once
    def named(results: Results, metric: str = "return") -> str:
        asked.append((results.manifest["name"], metric))
        return f"{metric} of {results.manifest['name']}"

    one = Results({"name": "one"}, pl.DataFrame())
    other = dataclasses.replace(one, manifest={"name": "other"})
    for _ in range(2):
        assert [named(one), named(one, "length"), named(other)] == [
            "return of one",
            "length of one",
            "return of other",
        ]
    assert asked == [("one", "return"), ("one", "length"), ("other", "return")]
    gone = weakref.ref(other)
    del other
    assert gone() is None
    assert not evaluations(synthetic(samples=2, seeds=1)).values.flags.writeable, "all who ask share it"
