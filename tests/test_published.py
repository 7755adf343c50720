"""Published results: reading their formats, and comparing experiments with them."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import polars as pl
import pytest
import scipy.stats
from report_data import nothing_yet, synthetic

from hyperlax.report import export_comparison, read_published, write_comparison
from hyperlax.report.charts.published import sample_by_sample, side_by_side
from hyperlax.report.comparison import overview
from hyperlax.report.published import Cell, other_schedule
from hyperlax.report.published_comparison import (
    ahead,
    design_mismatch,
    matched,
    over_samples,
    spearman,
)
from hyperlax.report.published_section import TABLE, PublishedComparison, verdict
from hyperlax.report.scores import measured_by, ranked
from hyperlax.statistics import Estimate
from hyperlax.storage.results import Results

ENV = "gymnax.mountain_car"
HEADER = (
    "env,algo,network,samples,diverged,best_peak,top5_iqm_peak,median_peak,q25_peak,best_final,best_sample_id"
)
SUMMARY = "gymnax.mountain-car_ppo-mlp_summary.csv"


@pytest.fixture(scope="module")
def ours() -> Results:
    results = synthetic(samples=12, seeds=2, diverged=())
    return dataclasses.replace(results, manifest={**results.manifest, "env": ENV})


def peaks(results: Results) -> pl.DataFrame:
    """Return the scores by the published metric, with the columns `sample` and `peak`."""
    return ranked(measured_by(results, "peak_of_mean")).select("sample", peak="score").sort("sample")


def summary(folder, results: Results, shift: float = 0.0, name: str = "gymnax.mountain-car_ppo-mlp"):
    """Write the summary that hyperlax v0.1 would write for these samples, with returns raised by `shift`."""
    table = peaks(results).join(results.samples.select("sample", "gamma", "lr"), on="sample")
    table = table.select(
        pl.col("sample").alias("hp id"),
        (pl.col("peak") + shift).round_sig_figs(4).alias("peak return"),
        pl.col("gamma").round_sig_figs(4),
        pl.col("lr").round_sig_figs(4),
        pl.col("sample").alias("sample id"),
    )
    path = folder / f"{name}_summary.csv"
    table.write_csv(path)
    return path


def table(folder, *rows: str):
    path = folder / "table.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def test_of_two_ids_the_first_names_the_returns_and_the_second_the_hyperparameters(tmp_path, ours):
    path = summary(tmp_path, ours)
    straight = read_published(path).samples
    frame = pl.read_csv(path)
    held = frame.select("gamma", "lr", "sample id")
    pl.concat([frame.select("hp id", "peak return"), held.reverse()], how="horizontal").write_csv(path)
    mixed = read_published(path).samples
    columns = ["sample", "peak", "gamma", "lr"]
    for cell, table in straight.items():
        assert mixed[cell].select(columns).equals(table.select(columns))


def test_names_are_normalised(tmp_path, ours):
    """`brax.inverted-double-pendulum` and `brax.inverted_double_pendulum` are the same environment."""
    expected = Cell("brax.inverted_double_pendulum", "ppo", "drpqc")
    assert Cell.of("brax.inverted-double-pendulum", "PPO", "drpqc") == expected
    found = read_published(summary(tmp_path, ours, name="brax.inverted-double-pendulum_ppo-drpqc"))
    assert found.names() == [expected]
    assert str(expected) == "ppo_drpqc on brax.inverted_double_pendulum"


def test_tables_summaries_and_folders_are_read(tmp_path, ours):
    rows = "gymnax.acrobot,dqn,mlp,64,2,-104.7,-133.6,-271.9,,-109.5,18"
    found = read_published(table(tmp_path, rows))
    values, count = found.cells[Cell("gymnax.acrobot", "dqn", "mlp")]
    assert (values["best"], values["top 5 IQM"], values["median"], count) == (-104.7, -133.6, -271.9, 64)
    assert np.isnan(values["q25"])
    one = read_published(summary(tmp_path, ours))
    assert one.samples[Cell(ENV, "ppo", "mlp")].height == 12
    both = read_published(tmp_path)
    assert both.names() == sorted([*found.names(), *one.names()])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "x,y\n1,2\n", "neither a table with one row per environment, algorithm and network"),
        ("a.csv", "", "not a readable CSV table"),
        ("a.csv", "sample id,peak return\n0,1.0\n", "rename it to <env>_<algo>-<network>_summary.csv"),
        ("a.csv", "env,algo,network,score\na,b,c,1\n", "none of the columns best_peak"),
        ("a.csv", "env,algo,network,best_peak\na,b,c,good\n", "column best_peak of .* not a number"),
        ("a.csv", "env,algo,network,best_peak\na,b,c,inf\n", "column best_peak of .* an infinite number"),
        (
            "a.csv",
            "env,algo,network,samples,best_peak\na,b,c,nan,1\n",
            "column samples of .* number of samples",
        ),
        ("a.csv", "env,algo,network,samples,best_peak\na,b,c,inf,1\n", "column samples of .* infinite"),
        ("a.csv", "env,algo,network,samples,best_peak\na,b,c,2.5,1\n", "column samples of .* number of samp"),
        ("a.csv", "env,algo,network,samples,best_peak\na,b,c,many,1\n", "column samples of .* not a number"),
        ("a.csv", "env,algo,network,best_peak\n,b,c,1\n", "column env of .* has an empty cell"),
        (SUMMARY, "sample id,peak return\n0,-inf\n", "column peak_return of .* an infinite number"),
        (SUMMARY, "sample id,peak return\n1e30,1\n", "column sample_id of .* not the id of a sample"),
        (SUMMARY, "sample id,peak return,Peak Return\n0,1,2\n", 'columns "peak return" and "Peak Return"'),
        (SUMMARY, "sample id,peak return\n", "holds no row"),
        ("a.txt", "sample id,peak return\n0,1\n", r"must end in \.csv"),
    ],
)
def test_files_in_another_format_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_published(tmp_path / name)


def test_missing_and_empty_sources_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none\.csv does not exist"):
        read_published(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"holds no \.csv file"):
        read_published(tmp_path)


def test_the_peak_is_the_largest_mean_over_seeds(ours):
    """The mean of the largest returns of each seed would be larger."""
    curves = ours.curves.filter(pl.col("metric") == "return")
    expected = curves.group_by("sample", "env_steps").agg(pl.col("value").mean()).group_by("sample")
    wanted = dict(expected.agg(pl.col("value").max()).iter_rows())
    assert dict(peaks(ours).select("sample", "peak").iter_rows()) == pytest.approx(wanted)
    assert peaks(nothing_yet()).is_empty()


def test_statistics_are_those_of_numpy_and_scipy():
    values = np.random.default_rng(1).normal(size=31)
    found = over_samples(values)
    best = np.sort(values)[-5:]
    assert found["best"].value == values.max()
    assert found["top 5 IQM"].value == pytest.approx(scipy.stats.trim_mean(best, 0.25))
    assert found["median"].value == np.median(values)
    assert found["q25"].value == pytest.approx(np.quantile(values, 0.25))
    for name in ("median", "q25"):
        assert found[name].low < found[name].value < found[name].high
        assert {float(found[name].low), float(found[name].high)} <= set(values)
    assert np.isnan([found["best"].low, found["top 5 IQM"].high]).all()


@pytest.mark.parametrize("seed", range(3))
def test_rank_correlation_is_that_of_scipy(seed):
    rng = np.random.default_rng(seed)
    a = rng.integers(8, size=40).astype(float)
    b = a + rng.normal(size=40) * (1 + seed)
    found = spearman(a, b)
    assert found.value == pytest.approx(scipy.stats.spearmanr(a, b)[0])
    reach = 1.959964 * np.sqrt((1 + found.value**2 / 2) / 37)  # Bonett & Wright 2000, on artanh's scale
    assert np.arctanh([found.low, found.value, found.high]) == pytest.approx(
        np.arctanh(found.value) + reach * np.array([-1, 0, 1])
    )


def test_intervals_of_the_rank_correlation_cover_the_truth():
    """For independent pairs, the 95 % interval contains zero in about 95 % of cases."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(100):
        found = spearman(rng.normal(size=30), rng.normal(size=30))
        inside += bool(found.low <= 0 <= found.high)
    assert 88 <= inside <= 100


def test_rank_correlation_is_undefined_for_two_pairs_and_constants():
    assert np.isnan(spearman(np.arange(2.0), np.arange(2.0)).value)
    constant = spearman(np.zeros(5), np.arange(5.0))
    assert np.isnan([constant.value, constant.low, constant.high]).all()


def estimate(value, low=np.nan, high=np.nan) -> Estimate:
    return Estimate(*(np.asarray(float(v)) for v in (value, low, high)))


@pytest.mark.parametrize(
    ("ours", "theirs", "sampled", "verdict"),
    [
        (estimate(5, 4, 6), estimate(2, 1, 3), True, "ours"),
        (estimate(2, 1, 3), estimate(5, 4, 6), True, "published"),
        (estimate(2, 1, 4), estimate(5, 4, 6), True, "not claimed: intervals overlap"),
        (estimate(5, 4, 6), estimate(2), False, "not claimed: the published number has no spread"),
        (estimate(5, 4, 6), estimate(np.nan), False, "not claimed: the published number has no spread"),
        (estimate(5), estimate(2, 1, 3), True, "not claimed: no interval"),
    ],
)
def test_an_order_is_claimed_only_if_intervals_are_disjoint(ours, theirs, sampled, verdict):
    assert ahead(ours, theirs, sampled) == verdict


def test_the_same_samples_are_compared_one_by_one(tmp_path, ours):
    (one,) = matched([ours], read_published(summary(tmp_path, ours, shift=3000.0)))
    assert one.mismatch == ""
    assert len(one.pairs) == 12
    assert one.correlation.value == pytest.approx(1.0)
    assert one.rows["ahead"].to_list() == ["not claimed: no interval holds for the best"] * 2 + [
        "published",
        "not claimed: no interval",
    ]
    differ = (one.rows["published"] - one.rows["ours"]).to_list()
    assert differ == pytest.approx([3000.0] * 4, abs=2)
    assert "the published one is ahead in median; no order is claimed in" in verdict(one)
    assert "ρ 1.00" in verdict(one)


def test_a_running_search_is_compared_on_its_finished_samples_only(tmp_path, ours):
    """Both sides are restricted to the finished samples, so an unfinished search is not at a disadvantage."""
    finished = [0, 3, 7]
    begun = dataclasses.replace(
        ours,
        lanes=ours.lanes.filter(pl.col("sample").is_in(finished)),
        curves=ours.curves.filter(pl.col("sample").is_in(finished)),
    )
    (one,) = matched([begun], read_published(summary(tmp_path, ours)))
    assert one.rows["published samples"].to_list() == one.rows["samples"].to_list() == [3] * 4
    assert one.rows["ours"].to_list() == pytest.approx(one.rows["published"].to_list(), rel=1e-3)
    assert all(claim.startswith("not claimed") for claim in one.rows["ahead"])


def without_peaks(path, *samples: int):
    """Empty the peaks of some samples of a summary, as if they had diverged."""
    frame = pl.read_csv(path)
    kept = pl.when(~pl.col("hp id").is_in(samples)).then("peak return")
    frame.with_columns(kept.alias("peak return")).write_csv(path)
    return path


@pytest.mark.parametrize(("random", "worst"), [(-1e5, -1e5), (1e5, None), (None, None)])
def test_published_samples_that_diverged_count_like_ours(tmp_path, ours, random, worst):
    """They count with the return of a random policy, or with the lowest peak if that is lower."""
    known = dataclasses.replace(ours, manifest={**ours.manifest, "reference": {"random": random}})
    all_peaks = peaks(ours)
    (one,) = matched([known], read_published(without_peaks(summary(tmp_path, ours), 2, 5, 7)))
    kept = all_peaks.filter(~pl.col("sample").is_in([2, 5, 7]))["peak"].to_numpy()
    wanted = np.concatenate([kept, np.full(3, kept.min() if worst is None else worst)])
    numbers = dict(one.rows.select("statistic", "published").iter_rows())
    assert numbers["median"] == pytest.approx(np.median(wanted), rel=1e-3)
    assert numbers["q25"] == pytest.approx(np.quantile(wanted, 0.25), rel=1e-3)
    assert one.rows["published samples"].to_list() == one.rows["samples"].to_list() == [12] * 4
    assert len(one.pairs) == 12
    assert "Counted: 3 published samples that diverged, as ours are, with the return" in verdict(one)
    said = " ".join(side_by_side([one]).to_dict()["title"]["subtitle"])
    assert "Samples that diverged count on both sides" in said


def test_samples_that_cannot_be_compared_are_left_out_on_both_sides(tmp_path, ours):
    """One without an evaluation, and one that is still in training."""
    lost, late = pl.col("sample") == 3, pl.col("sample") == 4
    begun = dataclasses.replace(
        ours,
        lanes=ours.lanes.with_columns(
            status=pl.when(lost).then(pl.lit("failed")).when(late).then(pl.lit("running")).otherwise("status")
        ),
        curves=ours.curves.filter(~lost, ~late | (pl.col("env_steps") < 250_000)),
    )
    (one,) = matched([begun], read_published(summary(tmp_path, ours)))
    assert one.rows["published samples"].to_list() == one.rows["samples"].to_list() == [10] * 4
    assert one.rows["ours"].to_list() == pytest.approx(one.rows["published"].to_list(), rel=1e-3)
    assert "Left out: 2 samples of ours without an evaluation, with fewer env steps" in verdict(one)


def test_no_order_is_claimed_of_samples_that_were_chosen_by_scores(tmp_path, ours):
    lineage = pl.DataFrame({"lane": [0], "parent": [1]})
    copied = dataclasses.replace(ours, lineage=lineage)
    (one,) = matched([copied], read_published(summary(tmp_path, ours, shift=3000.0)))
    assert set(one.rows["ahead"]) == {"not claimed: lanes of ppo_mlp continued from copies of one another"}
    assert one.rows["low"].null_count() == one.rows["high"].null_count() == 4
    assert "The reason: lanes of ppo_mlp continued from copies of one another." in verdict(one)


def test_ids_of_another_design_are_not_compared(tmp_path, ours):
    """Equal ids of two different designs stand for different hyperparameters."""
    shifted = dataclasses.replace(ours, samples=ours.samples.with_columns(gamma=pl.col("gamma") * 0.99))
    (one,) = matched([ours], read_published(summary(tmp_path, shifted)))
    difference = r"gamma of sample \d+ is [\d.]+ here, but [\d.]+ in the published results"
    assert re.fullmatch(difference, one.mismatch)
    assert one.pairs.is_empty()
    assert "because the designs differ: gamma of sample" in verdict(one)
    assert design_mismatch(ours.samples, ours.samples.with_columns(pl.col("sample") + 100)).startswith(
        "no sample"
    )


def test_no_order_is_claimed_for_the_best_of_unequally_many_samples(tmp_path, ours):
    many = f"{ENV},ppo,mlp,64,0,5000,4000,3000,2000,1,0"
    (one,) = matched([ours], read_published(table(tmp_path, many)))
    claims = dict(one.rows.select("statistic", "ahead").iter_rows())
    assert claims["best"] == claims["top 5 IQM"] == "not claimed: different numbers of samples"
    assert claims["median"] == claims["q25"] == "not claimed: the published number has no spread"
    equal = f"{ENV},ppo,mlp,12,0,5000,4000,3000,2000,1,0"
    (one,) = matched([ours], read_published(table(tmp_path, equal)))
    assert all(claim.startswith("not claimed") for claim in one.rows["ahead"])


def test_charts_show_both_sides(tmp_path, ours):
    found = matched([ours], read_published(summary(tmp_path, ours, shift=50.0)))
    spec = side_by_side(found).to_dict()
    assert [panel["title"]["text"] for panel in spec["hconcat"]] == ["best", "top 5 IQM", "median", "q25"]
    spec = sample_by_sample(found).to_dict()
    assert spec["concat"][0]["title"]["subtitle"].startswith("ρ 1.00")
    points = next(t for t in spec["datasets"].values() if "sample" in t[0])
    assert {row["sample"] for row in points} == {f"ppo_mlp {i}" for i in range(12)}


def test_the_page_has_a_section_and_a_table_beside_it(tmp_path, ours):
    """This holds for a single experiment as well; the table holds the numbers that the page shows."""
    other = dataclasses.replace(ours, manifest={**ours.manifest, "name": "sac_mlp", "algorithm": "sac"})
    published = read_published(summary(tmp_path, ours))
    for experiments in ([ours], [ours, other]):
        page = write_comparison(experiments, tmp_path / "out" / "comparison.html", published=published)
        text = page.read_text()
        assert '<section id="published"><h2>Comparison with published results</h2>' in text
        assert 'data-chart="p0_published_samples"' in text
        unpublished = "Without published results: sac_mlp on gymnax.mountain_car."
        assert (unpublished in text) == (len(experiments) == 2)
        written = pl.read_csv(page.with_name(TABLE))
        assert written["statistic"].to_list() == ["best", "top 5 IQM", "median", "q25"]
    assert "Comparison with published" not in write_comparison([ours, other], tmp_path / "b.html").read_text()


def test_charts_and_table_are_exported(tmp_path, ours, monkeypatch):
    monkeypatch.setattr("hyperlax.report.comparison.image", lambda spec, suffix: b"drawn")
    published = read_published(summary(tmp_path, ours))
    names = {p.name for p in export_comparison([ours], tmp_path / "x", ["svg"], published=published)}
    assert {f"{ENV.replace('.', '_')}-{n}.svg" for n in ("published", "published_samples")} <= names
    assert TABLE in names


def test_the_table_of_a_comparison_can_be_read_as_published_results(tmp_path, ours):
    """The table that a comparison writes has the columns of a published table, with our numbers."""
    page = write_comparison([ours], tmp_path / "comparison.html")
    written = page.with_suffix(".csv")
    assert {*HEADER.split(",")[:5], "recipe", "metric", "definition"} <= set(pl.read_csv(written).columns)
    (one,) = matched([ours], read_published(written))
    assert one.rows["ours"].to_list() == pytest.approx(one.rows["published"].to_list())
    assert one.rows["published samples"].to_list() == [12] * 4
    assert all(claim.startswith("not claimed") for claim in one.rows["ahead"])
    row = overview({ENV: [ours]}).row(0, named=True)
    assert (row["best sample"], row["diverged"]) == (ranked(ours)["sample"][0], 0)
    assert overview({ENV: [nothing_yet()]})["best"].to_list() == [None]


def test_tables_of_several_metrics_are_not_compared_at_once(tmp_path, ours):
    write_comparison([ours], tmp_path / "a.html")
    other = dataclasses.replace(ours, manifest={**ours.manifest, "algorithm": "sac", "metric": "auc"})
    write_comparison([other], tmp_path / "b.html")
    assert read_published(tmp_path / "b.csv").metric == "auc"
    with pytest.raises(ValueError, match=r"several metrics: final in a\.csv, auc in b\.csv"):
        read_published(tmp_path)
    table = pl.read_csv(tmp_path / "a.csv").with_columns(metric=pl.lit("luck"))
    table.write_csv(tmp_path / "c.csv")
    with pytest.raises(ValueError, match="the metric 'luck' is not known; known: final"):
        read_published(tmp_path / "c.csv")


def test_experiments_without_published_results_are_refused(tmp_path, ours):
    published = read_published(table(tmp_path, "gymnax.acrobot,dqn,mlp,64,0,-1,-2,-3,-4,-5,18"))
    with pytest.raises(
        ValueError, match=r"no results were published for ppo_mlp on .*: dqn_mlp on gymnax\.acrobot"
    ):
        PublishedComparison({ENV: [ours]}, published)


def with_steps(path, steps, cycle=(1024, 2)):
    """Add the env steps of the peaks, and the environments and the rollout length, to a summary."""
    frame = pl.read_csv(path).with_columns(
        pl.lit(pl.Series("peak timestep", np.resize(steps, pl.read_csv(path).height))),
        pl.lit(cycle[0]).alias("total num envs"),
        pl.lit(cycle[1]).alias("rollout length"),
    )
    frame.write_csv(path)
    return path


@pytest.mark.parametrize(
    ("steps", "fits"),
    [([125_000, 126_976, 1_001_472, 5_001_216], True), ([125_000, 127_048], False), ([2_351_104], False)],
)
def test_peaks_between_the_evaluations_of_the_protocol_are_no_reference(tmp_path, ours, steps, fits):
    """It evaluates at the first end of a cycle, here of 2,048 env steps, at or after multiples of 125,000."""
    (one,) = matched([ours], read_published(with_steps(summary(tmp_path, ours, shift=3000.0), steps)))
    said = verdict(one)
    assert (one.schedule == "") == fits
    assert ("no reference for the protocol" in said) != fits
    claims = set(one.rows["ahead"])
    if not fits:
        assert claims == {"not claimed: the published returns come from another evaluation schedule"}
        assert "every 125,000, does not evaluate" in said
    else:
        assert "published" in claims


def test_summaries_that_do_not_say_when_the_peaks_were_are_not_judged(tmp_path, ours):
    (samples,) = read_published(summary(tmp_path, ours)).samples.values()
    assert other_schedule(samples) == ""
