"""Figures for a paper: groups, averages, pairs, colours, files; nothing is trained."""

from __future__ import annotations

import colorsys
import dataclasses
import itertools
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from report_data import nothing_yet, synthetic

import hyperlax
from hyperlax import plot
from hyperlax.commands.main import main
from hyperlax.report.charts.style import MAX_ROWS, family_colours, family_shape
from hyperlax.report.figures.averages import average, average_words
from hyperlax.report.figures.drawing import curve_table, thinned_words
from hyperlax.report.figures.figure import curves_figure, difference_figure
from hyperlax.report.figures.look import COLOURS, DASHES, Look
from hyperlax.report.figures.panels import Panel, experiment_names, grouped, panels
from hyperlax.statistics import median_over_runs
from hyperlax.storage import store
from hyperlax.storage.results import SCHEMAS, Results

STEPS = (1_000, 2_000, 3_000)
GAP = 5.0


def ablation(
    samples: int = 6, seeds: int = 3, env: str = "gymnax.acrobot", recipe: str = "dqn_mlp"
) -> Results:
    """Lanes whose return is `GAP` higher with `norm`, whatever their rate; everything else is equal."""
    rng = np.random.default_rng(3)
    rates = rng.uniform(0, 100, samples)
    noise = rng.normal(0, 1, (samples, seeds, len(STEPS)))
    table, lanes, curves = [], [], []
    for sample in range(2 * samples):
        pair, norm = divmod(sample, 2)
        table.append({"sample": sample, "rate": rates[pair], "critic.norm": bool(norm)})
        for seed in range(seeds):
            lane = sample * seeds + seed
            lanes.append((lane, sample, seed, "done", STEPS[-1], 1, 0, 1.0, 10, 0, None))
            for point, step in enumerate(STEPS):
                value = rates[pair] + noise[pair, seed, point] + GAP * norm
                curves.append((lane, sample, seed, step, step, 0, 0.1 * step, "return", value))
    algorithm, _, network = recipe.partition("_")
    manifest = {
        "name": recipe,
        "recipe": recipe,
        "algorithm": algorithm,
        "network": network,
        "env": env,
        "settings": {"total_timesteps": STEPS[-1], "seeds": seeds},
    }
    lane_table = pl.DataFrame(lanes, schema=SCHEMAS["lanes"], orient="row")
    curve_table = pl.DataFrame(curves, schema=SCHEMAS["curves"], orient="row")
    return Results(manifest, pl.DataFrame(table), lane_table, curve_table)


def test_a_line_is_the_average_of_the_samples_of_its_group():
    results = ablation()
    table = curves_figure([results], ["critic.norm"], show="mean").table
    joined = results.curves.join(results.samples, on="sample")
    for norm in (True, False):
        own = joined.filter(pl.col("critic.norm") == norm).group_by("env_steps").agg(pl.col("value").mean())
        line = table.filter(pl.col("group") == str(norm).lower()).sort("x")
        np.testing.assert_allclose(line["value"], own.sort("env_steps")["value"])
        assert line["samples"].to_list() == [6] * 3
        assert line["low"].null_count() == 3


def test_the_best_sample_of_a_group_is_one_of_its_samples_and_no_other_is_better():
    results = ablation()
    table = curves_figure([results], ["critic.norm"], show="best").table
    ends = (
        results.curves.sort("env_steps")
        .group_by("sample", "seed")
        .agg(pl.col("value").last())
        .group_by("sample")
        .agg(pl.col("value").mean())
    )
    best = ends.join(results.samples, on="sample").sort("value")
    for norm in (True, False):
        sample = best.filter(pl.col("critic.norm") == norm)["sample"][-1]
        own = (
            results.curves.filter(pl.col("sample") == sample)
            .group_by("env_steps")
            .agg(pl.col("value").mean())
        )
        line = table.filter(pl.col("group") == str(norm).lower()).sort("x")
        np.testing.assert_allclose(line["value"], own.sort("env_steps")["value"])


def test_all_samples_are_drawn_as_they_are():
    results = ablation()
    table = curves_figure([results], ["critic.norm"], show="all").table
    assert table["line"].n_unique() == 12
    assert table.height == 12 * len(STEPS)
    assert table["low"].null_count() == table.height


def test_intervals_are_those_of_the_statistics_and_missing_where_none_holds():
    values = np.random.default_rng(0).normal(size=(8, 3, 2))
    found = average(values, "median", "interval")
    expected = median_over_runs(values.mean(axis=1)[None])
    np.testing.assert_allclose(found.low, expected.low[0])
    assert np.isnan(average(values, "iqm", "interval").low).all()
    assert np.isfinite(average(np.tile(values, (2, 1, 1)) + values[:1], "iqm", "interval").low).all()
    spread = average(values, "iqm", "range")
    np.testing.assert_allclose(spread.low, values.mean(axis=1).min(axis=0))
    assert np.isnan(average(values, "iqm", "none").low).all()
    assert "the median has one from 5 on" in average_words("iqm", "interval", 8, 3, False)


@pytest.mark.parametrize("show", ["iqm", "median"])
def test_no_interval_is_drawn_over_samples_that_are_no_independent_draws(show):
    """Both samples of a pair in one group are none; one of each pair, in groups of what differs, are."""
    pairs = ablation(samples=12)
    pairs = dataclasses.replace(pairs, samples=pairs.samples.with_columns(pair=pl.col("sample") // 2))
    copied = dataclasses.replace(pairs, lineage=pl.DataFrame({"lane": [0], "donor": [1]}))
    for results, by, why in (
        (pairs, [], "agree with others in all but a part of their hyperparameters"),
        (copied, ["critic.norm"], "continued from copies of one another"),
        (pairs, ["critic.norm"], ""),
    ):
        figure = curves_figure([results], by, show)
        assert (figure.table["low"].count() == 0) == bool(why)
        assert ("No interval over samples that are no independent draws: " in figure.notes[0]) == bool(why)
        assert why in figure.notes[0]
        assert ("Bands: " in figure.notes[0]) != bool(why)
    noise = pl.Series(np.random.default_rng(0).normal(size=pairs.curves.height))
    noisy = dataclasses.replace(pairs, curves=pairs.curves.with_columns(pl.col("value") + noise))
    figure = difference_figure([noisy], ["critic.norm"], show=show)
    assert figure.table["low"].count()
    assert "independent draws" not in figure.notes[0]


def test_pairs_take_out_what_the_samples_have_in_common():
    """The samples differ by up to 100, the pairs by exactly `GAP`."""
    figure = difference_figure([ablation()], ["critic.norm"])
    np.testing.assert_allclose(figure.table["value"], GAP)
    assert figure.table["samples"].to_list() == [6] * 3
    row = plot.pairs(ablation(), "critic.norm").row(0, named=True)
    assert (row["group"], row["against"], row["pairs"], row["better"], row["worse"]) == (
        "true",
        "false",
        6,
        6,
        0,
    )
    assert row["difference"] == pytest.approx(GAP)
    turned = plot.pairs(ablation(), "critic.norm", against="true").row(0, named=True)
    assert turned["difference"] == pytest.approx(-GAP)


def test_a_sentence_about_the_score_is_not_taken_for_one_about_another_curve():
    results = ablation()
    other = results.curves.with_columns(metric=pl.lit("fresh_return"), value=-pl.col("value"))
    both = dataclasses.replace(results, curves=pl.concat([results.curves, other]))
    (said,) = difference_figure([both], ["critic.norm"]).notes[1:]
    assert said.startswith("gymnax.acrobot: true against false, 6 pairs")
    figure = difference_figure([both], ["critic.norm"], metric="fresh_return")
    np.testing.assert_allclose(figure.table["value"], -GAP)
    assert figure.notes[1:] == (f"By the final return, which is not what is drawn here: {said}",)


def test_pairs_are_found_across_folders_and_only_where_all_else_is_equal():
    """One arm in each of two experiments, as made with one samples file; a changed sample has no partner."""
    whole = ablation()
    arms = []
    for norm in (False, True):
        kept = whole.samples.filter(pl.col("critic.norm") == norm)
        arms.append(
            dataclasses.replace(
                whole,
                samples=kept,
                lanes=whole.lanes.join(kept.select("sample"), on="sample"),
                curves=whole.curves.join(kept.select("sample"), on="sample"),
            )
        )
    assert plot.pairs(arms, "critic.norm")["pairs"].to_list() == [6]
    shifted = arms[1].samples.with_columns(
        rate=pl.when(pl.col("sample") == 1).then(0.0).otherwise(pl.col("rate"))
    )
    arms[1] = dataclasses.replace(arms[1], samples=shifted)
    assert plot.pairs(arms, "critic.norm")["pairs"].to_list() == [5]
    arms[1] = dataclasses.replace(arms[1], samples=shifted.with_columns(rate=pl.col("rate") + 1))
    with pytest.raises(Exception, match=r"no samples differ in critic.norm alone.*--ablate critic.norm="):
        plot.differences(arms, "critic.norm")


def test_a_lane_that_stopped_early_counts_while_it_ran():
    results = ablation()
    cut = results.curves.filter((pl.col("lane") != 0) | (pl.col("env_steps") < 2_000))
    table = difference_figure([dataclasses.replace(results, curves=cut)], ["critic.norm"]).table
    np.testing.assert_allclose(table["value"], GAP)


def test_environments_are_panels_and_recipes_the_usual_groups():
    several = [ablation(), ablation(env="gymnax.cartpole"), ablation(recipe="ppo_mlp")]
    figure = curves_figure(several)
    assert figure.table["env"].unique(maintain_order=True).to_list() == ["gymnax.acrobot", "gymnax.cartpole"]
    assert figure.table["group"].unique(maintain_order=True).to_list() == ["dqn_mlp", "ppo_mlp"]
    both = curves_figure(several, ["recipe", "critic.norm"]).table["group"].unique().sort().to_list()
    assert both == ["dqn_mlp, false", "dqn_mlp, true", "ppo_mlp, false", "ppo_mlp, true"]
    assert figure.chart.to_dict()["facet"]


def test_groups_are_ordered_by_value_and_labels_go_first():
    several = panels([ablation()])
    assert grouped(several, ["critic.norm"])[0] == ["false", "true"]
    assert grouped(several, ["critic.norm"], labels={"true": "with"})[0] == ["with", "false"]
    names, own = grouped(several, ["rate"], bins=3)
    rates = several[0].table["rate"]
    sizes = own[0].value_counts()["count"].to_list()
    assert sizes == [4, 4, 4]
    means = [rates.filter(own[0] == name).to_numpy().mean() for name in names]
    assert means == sorted(means)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"by": "critic.nrom"}, 'no "critic.nrom" to group by; did you mean "critic.norm"'),
        ({"by": "norm"}, 'did you mean "critic.norm"'),
        ({"by": "critic.norm", "labels": {"True": "x"}}, 'no group "True"; did you mean "true"'),
        ({"by": "critic.norm", "labels": {"true": "x", "false": "x"}}, "two groups have the same label"),
        ({"metric": "retrun"}, 'no curve is called "retrun"; did you mean "return"'),
        ({"x": "steps"}, 'unknown axis "steps"; did you mean "env_steps" or "gradient_steps"'),
        ({"show": "iqr"}, 'show is one of iqm, median, mean, best, all; got .*; did you mean "iqm"'),
        ({"band": "sd"}, "band is one of interval, range, none"),
        ({"x": "circuit_executions"}, "no evaluation on gymnax.acrobot recorded its circuit_executions"),
    ],
)
def test_mistakes_are_answered_with_the_fix(how, said):
    with pytest.raises(Exception, match=said):
        plot.learning_curves(ablation(), **how)


def test_more_groups_than_can_be_told_apart_are_refused():
    with pytest.raises(ValueError, match=r"rate makes 12 groups, at most 10 .*--bins 3"):
        plot.learning_curves(ablation(samples=12), by="rate")
    with pytest.raises(Exception, match="no evaluation has been written yet"):
        plot.learning_curves(nothing_yet())


def lightness(colour: str) -> float:
    """CIE L* of a colour, by its definition: 0 is black, 100 white."""
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return 116 * luminance ** (1 / 3) - 16 if luminance > 0.008856 else 903.3 * luminance


def test_five_lines_are_told_apart_in_grey_and_ten_in_colour():
    shades = [lightness(colour) for colour in COLOURS[:5]]
    assert all(b - a >= 10 for a, b in itertools.pairwise(shades)), shades
    assert len(set(DASHES)) == len(DASHES)
    for a, b in itertools.combinations(COLOURS, 2):
        hls = [colorsys.rgb_to_hls(*(int(c[i : i + 2], 16) / 255 for i in (1, 3, 5))) for c in (a, b)]
        turn = abs(hls[0][0] - hls[1][0])
        assert min(turn, 1 - turn) > 0.02 or abs(lightness(a) - lightness(b)) > 8, (a, b)


@pytest.mark.parametrize(
    "recipes", [["dqn_mlp"] * 2, ["ppo_mlp"] * 6, ["ppo_mlp", "ppo_mlp", "ppo_tmlp"], ["a_x", "a_y", "b_x"]]
)
def test_two_recipes_never_have_one_colour_or_mark_in_reports(recipes):
    found = []
    for turn, name in enumerate(recipes):
        results = ablation(samples=1, recipe=name)
        found.append(dataclasses.replace(results, manifest={**results.manifest, "name": f"{name}{turn}"}))
    colours = family_colours(found)
    for a, b in itertools.combinations(colours, 2):
        assert max(abs(int(a[i : i + 2], 16) - int(b[i : i + 2], 16)) for i in (1, 3, 5)) >= 20, colours
    if len(set(recipes)) < len(recipes):
        marks = (
            str(family_shape(found, "name").to_dict())
            .partition("'range': [")[2]
            .partition("]")[0]
            .split(", ")
        )
        assert len(set(marks)) == len(marks)


def test_colours_and_titles_of_ones_own_are_used_and_wrong_ones_refused():
    look = Look(colours={"true": "#000000"}, x_title="steps", y_title="", legend_title="")
    spec = str(plot.learning_curves(ablation(), "critic.norm", look=look).to_dict())
    assert f"'range': ['{COLOURS[0]}', '#000000']" in spec
    assert "'title': 'steps'" in spec
    assert "critic.norm" not in spec.split("'datasets'")[0].replace("'critic.norm'", "")
    both = {"labels": {"true": "with"}, "look": Look(colours={"true": "#000000"})}
    assert "'range': ['#000000'" in str(plot.learning_curves(ablation(), "critic.norm", **both).to_dict())
    assert "'range': ['#000000']" in str(plot.differences(ablation(), "critic.norm", **both).to_dict())
    turned = plot.differences(ablation(), "critic.norm", "true", **both)
    np.testing.assert_allclose(plot.table(turned)["value"], -GAP)
    with pytest.raises(ValueError, match='no group "x" to colour'):
        plot.learning_curves(ablation(), "critic.norm", look=Look(colours={"x": "red"}))
    with pytest.raises(ValueError, match="1 colours for 2 groups"):
        plot.learning_curves(ablation(), "critic.norm", look=Look(colours=["red"]))
    with pytest.raises(ValueError, match="width must be from"):
        Look(width=0)


def test_a_figure_has_the_size_asked_for_no_caption_and_its_data_beside_it(tmp_path):
    chart = plot.learning_curves(ablation(), "critic.norm", look=Look(width=3.5, height=2))
    spec = chart.to_dict()
    assert "title" not in spec
    assert "interquartile mean" in spec["description"]
    written = plot.save(chart, tmp_path / "a.pdf", tmp_path / "a.svg")
    assert [p.name for p in written] == ["a.pdf", "a.svg", "a.csv"]
    box = re.search(rb"MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)", (tmp_path / "a.pdf").read_bytes())
    assert box is not None
    assert [float(side) / 72 for side in box.groups()] == pytest.approx([3.5, 2.0], abs=0.02)
    data = pl.read_csv(tmp_path / "a.csv")
    assert data.columns == plot.table(chart).columns
    np.testing.assert_allclose(data["value"], plot.table(chart)["value"])
    with pytest.raises(ValueError, match=r"ends in \.pdf, \.svg or \.png"):
        plot.save(chart, tmp_path / "a.jpg")


def test_the_command_draws_what_the_function_does(tmp_path, monkeypatch, capsys):
    results = ablation()
    monkeypatch.setattr(store, "find", lambda folder: [folder])
    monkeypatch.setattr(store, "read", lambda folder: results)
    target = tmp_path / "figure.svg"
    command = ["figure", str(tmp_path), "--by", "critic.norm", "--paired", "--output-file", str(target)]
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert f"{target}\n{target.with_suffix('.csv')}\n" in out
    assert "true against false, 6 pairs: better in 6, worse in 0" in out
    chart = plot.differences(results, "critic.norm")
    assert target.with_suffix(".csv").read_text() == plot.table(chart).write_csv()
    for wrong, said in (
        (["--paired"], "say with --by what the samples of a pair differ in"),
        (["--against", "true"], "--against is for --paired"),
        (["--output-file", "a.jpg"], r"must end in .pdf, .svg or .png"),
        (["--by", "critic.norm", "--labels", "true"], "--labels needs group=words"),
        (["--by", "norm", "--output-file", str(target)], 'did you mean "critic.norm"'),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["figure", str(tmp_path), *wrong])
        assert stopped.value.code == 2
        assert said in capsys.readouterr().err


def test_many_samples_fit_into_a_chart():
    many = synthetic(samples=200, seeds=2, evaluations=40)
    chart = hyperlax.plot.learning_curves(many, by="actor.activation", show="all")
    assert plot.table(chart).height <= 5_000
    assert chart.to_dict()


def test_no_figure_has_more_rows_than_altair_draws():
    """Averages lose points, and of very many samples some are drawn, which is said."""
    rng, env = np.random.default_rng(0), [f"env{i}" for i in range(8)]
    tables = [pl.DataFrame({"experiment": ["e"] * 8, "sample": range(8), "score": [0.0] * 8}) for _ in env]
    x = np.arange(1.0, 91)
    several = [Panel(e, t, x, rng.normal(size=(8, 2, 90))) for e, t in zip(env, tables, strict=True)]
    groups = [f"r{i}" for i in range(8)]
    own = [pl.Series(groups)] * 8
    table = curve_table(several, groups, own, "iqm", "none")
    assert table.height <= MAX_ROWS
    assert table["x"].max() == 90
    assert table.group_by("env", "group").len()["len"].unique().to_list() == [MAX_ROWS // 64]
    count = 1_200
    many = pl.DataFrame({"experiment": ["e"] * count, "sample": range(count), "score": [0.0] * count})
    one = [Panel("env", many, x, rng.normal(size=(count, 1, 90)))]
    labels = [pl.Series(["few"] * 2 + ["many"] * (count - 2))]
    drawn = curve_table(one, ["few", "many"], labels, "all", "none")
    assert drawn.height <= MAX_ROWS
    assert set(drawn["group"]) == {"few", "many"}
    lines = drawn["line"].n_unique()
    assert MAX_ROWS // 10 - 3 < lines <= MAX_ROWS // 10 + 1
    said = thinned_words(one, ["few", "many"], labels, "all")
    assert said == f" Shown: {lines} of 1,200 samples, evenly chosen."
    assert not thinned_words(one, ["few", "many"], labels, "iqm")


def test_a_figure_of_very_many_samples_says_that_some_are_shown():
    many = ablation(samples=250, seeds=1)
    assert (
        "Shown: 400 of 500 samples, evenly chosen." in curves_figure([many], ["rate"], "all", bins=2).notes[0]
    )


def test_experiments_with_folders_of_one_name_are_told_apart():
    one = ablation(samples=1, seeds=1)
    places = ["/a/run1/x", "/a/run2/x", "/a/y", "/r/b/gymnax.acrobot", "/s/b/gymnax.acrobot", "/a/y"]
    several = [dataclasses.replace(one, folder=Path(place)) for place in places]
    assert experiment_names(several) == ["run1/x", "run2/x", "y", "r/b", "s/b", "y 2"]
    assert experiment_names([one, one]) == ["dqn_mlp", "dqn_mlp 2"]
    table = curves_figure([one, one], ["critic.norm"], show="all").table
    assert not table.select("line", "x").is_duplicated().any()


def test_bins_of_close_numbers_have_names_of_their_own():
    results = ablation(samples=8, seeds=1)
    close = results.samples.with_columns(rate=0.1 + 1e-6 * pl.col("sample"))
    several = panels([dataclasses.replace(results, samples=close)])
    names, own = grouped(several, ["rate"], bins=4)
    assert len(names) == 4
    assert own[0].value_counts()["count"].to_list() == [4] * 4


def test_a_figure_of_pairs_speaks_of_pairs_in_the_singular_too():
    words = difference_figure([ablation()], ["critic.norm"], show="best").notes[0]
    assert "of the pair of samples with the best score" in words
    words = difference_figure([ablation()], ["critic.norm"], show="all").notes[0]
    assert words.startswith("Every line is a pair of samples:")


def test_a_caption_says_that_one_group_is_a_single_sample():
    results = ablation(samples=6, seeds=2)
    alone = results.samples.with_columns(pl.Series("critic.norm", [True] + [False] * 11))
    results = dataclasses.replace(results, samples=alone)
    said = curves_figure([results], ["critic.norm"]).notes[0]
    assert said.startswith(
        "Lines: interquartile mean over the samples of a group of their interquartile means"
    )
    assert "or over seeds where it has one sample. Bands: 95 % intervals" in said
    unevaluated = results.curves.filter(pl.col("sample") != 3)
    still = curves_figure([dataclasses.replace(results, curves=unevaluated)], ["critic.norm"]).notes[0]
    assert still == said
