"""Comparison of several experiments on one page: its charts, tables and verdicts."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from report_data import nothing_yet, synthetic

from hyperlax.commands.main import app
from hyperlax.report import export_comparison, write_comparison
from hyperlax.report.charts.families import improvements
from hyperlax.report.claims import verdicts
from hyperlax.report.comparison import best_samples, by_environment, charts, summary
from hyperlax.storage.results import Results


def family(name: str, shift: float = 0.0, env: str = "gymnax.mountain_car", **kwargs) -> Results:
    """Build the synthetic experiment under another name, with its returns shifted."""
    results = synthetic(samples=8, seeds=2, **kwargs)
    algorithm, network = name.split("_", 1)
    about_samples = results.samples.with_columns(gamma=pl.col("gamma") - 1e-6 * len(network))
    returns = pl.when(pl.col("metric") == "return").then(pl.col("value") + shift).otherwise(pl.col("value"))
    about = {"name": name, "recipe": name, "algorithm": algorithm, "network": network, "env": env}
    return dataclasses.replace(
        results,
        manifest={**results.manifest, **about},
        samples=about_samples,
        curves=results.curves.with_columns(value=returns),
    )


@pytest.fixture(scope="module")
def three():
    return [family("ppo_mlp"), family("ppo_tmlp", 10.0), family("ppo_drpqc", -3000.0, circuits=7)]


@pytest.fixture(scope="module")
def page(three, tmp_path_factory):
    """What compares the three in one environment."""
    return write_comparison(three, tmp_path_factory.mktemp("page") / "comparison.html").read_text()


@pytest.fixture(scope="module")
def page_of_two(three, tmp_path_factory):
    """What compares the three in one environment and a family in another one."""
    elsewhere = family("ppo_mlp", env="gymnax.acrobot")
    return write_comparison([*three, elsewhere], tmp_path_factory.mktemp("page") / "a.html").read_text()


def test_the_page_compares_every_family_in_every_chart(three, page):
    for name in ("ppo_mlp", "ppo_tmlp", "ppo_drpqc", "gymnax.mountain_car"):
        assert name in page
    inside = page.split('id="charts"')[1].split(">", 1)[1].split("</script>")[0]
    specs = json.loads(inside)["specs"]
    assert set(specs) == {f"e0_{name}" for name in charts(three)}
    assert "e0_tuned_curves_circuit_executions" in specs
    assert "src=" not in page.split("<main>")[1].split("</main>")[0]


def test_the_page_loads_nothing(page_of_two):
    """Apart from the Vega library, the page contains no address and no code that could fetch one."""
    assert "default-src 'none'" in page_of_two
    own, *scripts = re.split(r"<script[^>]*>", page_of_two)
    assert len(scripts) == 3
    data, _, own_script = scripts
    for text in (own, data, own_script):
        assert not re.search(
            r"https?:|//[a-z]|url\(|@import|fetch\(|XMLHttpRequest", re.sub(r"\s// .*", "", text)
        )
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", own)


def test_best_samples_are_selected_by_family_and_id(three, tmp_path):
    """Table rows and chart marks identify a sample by the same key."""
    table = best_samples(three, top=2)
    assert len(table) == 6
    assert table["score"].is_sorted(descending=True)
    page = write_comparison(three, tmp_path / "comparison.html", top=2).read_text()
    rows = set(re.findall(r'<tr data-sample="([^"]*)"', page))
    assert rows == set(table["sample"])
    assert all(f'"sample": "{key}"' in page for key in rows)


@pytest.mark.parametrize("name", list(charts([synthetic()])))
def test_every_chart_is_valid_vega(three, name):
    assert charts(three)[name]().to_dict()


def test_circuit_executions_are_an_axis_only_where_circuits_ran(three):
    assert "tuned_curves_circuit_executions" in charts(three)
    assert "tuned_curves_circuit_executions" not in charts(three[:2])


def test_an_order_is_claimed_only_where_the_interval_allows_it(three):
    lines = verdicts(three)
    assert "ppo_mlp and ppo_tmlp: no difference is claimed." in lines
    assert sum(line.startswith("ppo_mlp is ahead of ppo_drpqc") for line in lines) == 1
    assert len(lines) == 3
    rows = improvements(three)
    worse = rows.filter((pl.col("family") == "ppo_mlp") & (pl.col("other") == "ppo_drpqc"))
    assert worse["probability"].to_list() == [1.0]


def test_families_with_the_same_samples_are_compared_pair_by_pair(three):
    """Between samples returns differ by far more than by what the pairs agree on."""
    plain, better = family("ppo_mlp", diverged=()), family("ppo_mlp", 30.0, diverged=())
    better = dataclasses.replace(better, manifest={**better.manifest, "name": "ppo_mlp_better"})
    (row,) = improvements([better, plain]).iter_rows(named=True)
    assert (row["paired"], row["ahead"], row["difference"]) == (True, "ppo_mlp_better", pytest.approx(30))
    assert verdicts([better, plain])[0].endswith(
        "The mean difference of equal samples is 30 (permutation test of equal means: p = 0.0078)."
    )
    (apart,) = improvements([better, three[1]]).iter_rows(named=True)
    assert (apart["paired"], apart["ahead"]) == (False, None)


def test_a_verdict_names_the_family_that_is_ahead_first(three):
    (line,) = verdicts([three[2], three[0]])
    assert line.startswith(
        "ppo_mlp is ahead of ppo_drpqc: a random sample of the former has the higher final return with "
        "probability 1.00"
    )


def test_the_summary_agrees_with_the_samples(three):
    table = summary(three)
    assert table["family"].to_list() == [r.name for r in three]
    assert table["samples"].to_list() == table["evaluated"].to_list() == [8, 8, 8]
    assert table["diverged"].to_list() == [1, 1, 1]
    best = table["best"].to_numpy()
    assert best[1] - best[0] == pytest.approx(10)
    assert table["expected best of 8"].to_list() == pytest.approx(best)
    assert np.all(table["median"].to_numpy() < best)
    assert table["parameters of the best"].to_list() == [4610] * 3
    executions = table["circuit executions of the best"].to_list()
    assert executions[0] == 0
    assert executions[2] > 0


def test_experiments_are_grouped_by_environment():
    groups = by_environment([family("ppo_mlp"), family("ppo_mlp", env="gymnax.acrobot")])
    assert {env: [r.name for r in found] for env, found in groups.items()} == {
        "gymnax.mountain_car": ["ppo_mlp"],
        "gymnax.acrobot": ["ppo_mlp"],
    }


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (("/home/me/out", "/home/me/out/again"), ["out", "again"]),
        (("/home/me/out", "/home/me/out/out"), ["out (1)", "out (2)"]),
        (("/home/me/out", "/home/me/out"), ["out (1)", "out (2)"]),
    ],
)
def test_names_from_folders_inside_each_other_hold_no_absolute_path(folders, names):
    one = family("ppo_mlp")
    (group,) = by_environment([dataclasses.replace(one, folder=Path(f)) for f in folders]).values()
    assert [r.name for r in group] == names


def test_the_same_family_twice_is_told_apart_by_recipe_or_by_folder():
    one, two = family("ppo_mlp"), family("ppo_mlp")
    named = dataclasses.replace(two, manifest={**two.manifest, "recipe": "ppo_vec_mlp"})
    (group,) = by_environment([one, named]).values()
    assert [r.name for r in group] == ["ppo_mlp", "ppo_vec_mlp"]
    folders = [
        dataclasses.replace(r, folder=Path(f"/data/{k}/ppo_mlp/env"))
        for r, k in ((one, "first"), (two, "second"))
    ]
    (group,) = by_environment(folders).values()
    assert len({r.name for r in group}) == 2
    assert "first" in group[0].name
    assert "second" in group[1].name


def test_differing_settings_are_reported(three, page, tmp_path):
    longer = family("ppo_tmlp", budget=900_000)
    differing = write_comparison([three[0], longer], tmp_path / "a.html").read_text()
    assert "The experiments differ in env steps: ppo_mlp 500,000, ppo_tmlp 900,000." in differing
    assert "The experiments differ in" not in page


def test_environments_with_the_same_samples_are_compared_with_one_another(three, page, page_of_two, tmp_path):
    """With equal returns on both environments one sample is best on both, so the sensitivity is 0."""
    assert '"across_environments"' in page_of_two
    assert "sensitivity 0.00" in page_of_two
    assert "effective dimensionality" in page_of_two
    other = write_comparison([three[1], family("ppo_mlp", env="gymnax.acrobot")], tmp_path / "b.html")
    assert "No family was trained with the same samples in two environments" in other.read_text()
    assert "Across environments" not in page


def test_running_experiments_are_compared_with_the_data_they_have(tmp_path):
    begun = nothing_yet()
    begun = dataclasses.replace(begun, manifest={**begun.manifest, "env": "gymnax.mountain_car"})
    assert "No sample has an evaluation yet." in write_comparison([begun], tmp_path / "one.html").read_text()
    running = dataclasses.replace(begun, manifest={**begun.manifest, "name": "dqn_mlp"})
    page = write_comparison([family("ppo_mlp"), running], tmp_path / "two.html").read_text()
    assert "dqn_mlp" in page
    assert verdicts([family("ppo_mlp"), running]) == []


def test_charts_are_exported_by_environment(three, tmp_path, monkeypatch):
    monkeypatch.setattr("hyperlax.report.comparison.image", lambda spec, suffix: b"drawn")
    written = export_comparison([*three, nothing_yet()], tmp_path, ["png"])
    assert tmp_path / "gymnax_mountain_car-best_of_k.png" in written
    assert tmp_path / "combined_distribution.png" in written
    assert len(written) == len(charts(three)) + 1


def test_the_command_compares_what_it_finds(three, tmp_path, capsys, monkeypatch):
    for results in three[:2]:
        (tmp_path / results.name).mkdir()
        (tmp_path / results.name / "manifest.json").write_text("{}")
    by_name = {results.name: results for results in three}
    monkeypatch.setattr("hyperlax.storage.store.read", lambda folder: by_name[folder.name])
    line = ["plot-benchmark", "--results-dir-to-plot", str(tmp_path), "--combined-only", "--top-n", "3"]
    assert app(line, exit_on_error=False, result_action="return_value") == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "comparison.html")]
    assert "best 3 samples" in (tmp_path / "comparison.html").read_text()
