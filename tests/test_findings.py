"""What reports and terminals say was found claims no more than ranks and intervals do."""

from __future__ import annotations

import dataclasses
import io
import shlex
import sys
from pathlib import Path

import polars as pl
import pytest
from report_data import nothing_yet, synthetic
from rich.console import Console

import hyperlax
from hyperlax.commands.app import app
from hyperlax.commands.benchmarking import _check_sampling
from hyperlax.commands.ending import next_command
from hyperlax.commands.flags import Common, folder_of
from hyperlax.report import leaderboard, write_report
from hyperlax.report.agreement import check_comparable, differences, metrics_words
from hyperlax.report.claims import verdicts
from hyperlax.report.comparison import comparable
from hyperlax.report.findings import comparison_findings, findings
from hyperlax.report.options import Options
from hyperlax.run.fitting import Fitting
from hyperlax.storage import calling
from hyperlax.storage.collection import Experiments
from hyperlax.storage.wording import duration


@pytest.fixture(scope="module")
def many():
    return synthetic(samples=6, seeds=10, diverged=())


def test_the_best_sample_is_told_apart_from_as_many_as_its_rank_says(many):
    first = leaderboard(many, 1).row(0, named=True)
    apart = 6 - int(first["rank"].rpartition("–")[2])
    compared, best, following = findings(many).sentences
    assert compared == (
        "Compared: 6 samples of ppo_mlp on gymnax.pendulum, with 10 seeds each over 500,000 env steps; "
        "they differ in 8 hyperparameters."
    )
    assert (
        f"Best: sample {first['sample']} with a final return of {first['score']:.4g}, 95 % interval" in best
    )
    said = {0: "cannot be told apart from any of the 5", 5: "told apart from all 5 others"}
    assert said.get(apart, f"told apart from {apart} of the 5 others") in best
    assert following.startswith("Next: train ")
    resumed, (name, count) = findings(many).flags
    assert (resumed, name) == (("--resume",), "--confirm")
    assert int(count) >= 1


@pytest.mark.parametrize(
    ("trained", "said"), [(480_000, "480,000"), (504_000, "500,000"), (600_000, "600,000")]
)
def test_lanes_are_compared_over_the_steps_that_all_of_them_have_trained(trained, said):
    """Whole cycles may all end before the steps that were asked for, or less than 1 % above."""
    made = synthetic(samples=3, seeds=3, diverged=())
    lanes = made.lanes.with_columns(pl.lit(trained, pl.Int64).alias("env_steps"))
    compared = findings(dataclasses.replace(made, lanes=lanes)).compared
    assert f"with 3 seeds each over {said} env steps" in compared


def test_the_next_command_is_the_last_one_with_its_folders_and_every_value(tmp_path, monkeypatch):
    """The manifest leaves folders out, so it cannot be the source; `--num-samples 2` is no `--confirm 2`."""
    typed = ["sweep-hp-samples", "--num-samples", "2", "--output-root", str(tmp_path / "a b")]
    monkeypatch.setattr(sys, "argv", ["hyperlax", *typed])
    monkeypatch.chdir(tmp_path)
    made = synthetic(2, 4, diverged=())
    made = dataclasses.replace(made, manifest={**made.manifest, "command": ["hyperlax", "…"]})
    said = next_command(made, (("--resume",), ("--confirm", "2")), tmp_path)
    assert shlex.split(said)[:3] == ["cd", str(tmp_path), "&&"]
    assert shlex.split(said)[4:] == [*typed, "--resume", "--confirm", "2"]


def test_few_seeds_have_no_interval_and_tell_nothing_apart():
    best = findings(synthetic(samples=4, seeds=3, diverged=())).best
    assert "(3 seeds between -" in best
    assert "an interval needs 10 seeds" in best
    assert "cannot be told apart from any of the 3 others; ranks need four seeds or more" in best


def test_one_sample_one_seed_and_nothing_at_all_are_said_as_they_are():
    alone = findings(synthetic(samples=1, seeds=1, diverged=()))
    assert alone.compared.startswith("Compared: 1 sample of ppo_mlp on gymnax.pendulum, with 1 seed over")
    assert "a single seed, which says nothing about luck" in alone.best
    assert "Nothing has been evaluated yet." in findings(nothing_yet()).sentences


def test_what_is_not_done_goes_on_first(many):
    lanes = many.lanes.with_columns(
        status=pl.when(pl.col("lane") == 0).then(pl.lit("running")).otherwise("status")
    )
    found = findings(dataclasses.replace(many, lanes=lanes))
    assert found.next == "Next: 1 lane is not done; continue with --resume."


def test_the_report_begins_with_what_was_found(many, tmp_path):
    page = write_report(many, tmp_path / "report.html").read_text("utf-8")
    assert page.index('<div class="found">') < page.index('<dl class="facts">')


def test_a_page_without_data_is_small_and_offline_and_says_what_it_lacks(tmp_path):
    small = synthetic(samples=3, seeds=2, diverged=())
    full = write_report(small, tmp_path / "full.html").stat().st_size
    page = write_report(small, tmp_path / "small.html", Options(embed_data=False)).read_text("utf-8")
    assert len(page) < 0.6 * full
    assert "vegaEmbed =" not in page
    assert "data-chart=" not in page
    assert 'src="data:image/' in page
    assert "are pictures, without the underlying data" in page


def test_charts_of_constant_scores_are_left_out_with_the_reason(tmp_path):
    flat = synthetic(samples=4, seeds=2, diverged=())
    curves = flat.curves.with_columns(
        value=pl.when(pl.col("metric") == "return").then(500.0).otherwise("value")
    )
    page = write_report(dataclasses.replace(flat, curves=curves), tmp_path / "r.html").read_text("utf-8")
    assert 'id="distribution"' not in page
    assert "Return distribution: All samples have the same final return." in page


def other(results, **changes):
    settings = {**results.manifest["settings"], **changes.pop("settings", {})}
    return dataclasses.replace(
        results,
        manifest={**results.manifest, "settings": settings, **changes},
        folder=Path(f"/{id(changes)}"),
    )


def test_a_comparison_says_where_experiments_differ_and_refuses_what_cannot_be(many):
    longer = other(many, name="sac_mlp", settings={"total_timesteps": 900_000}, metric="peak")
    groups = comparable([many, longer])
    (families,) = groups.values()
    assert differences(families) == ["The experiments differ in env steps: ppo_mlp 500,000, sac_mlp 900,000."]
    assert "ranked by different metrics (final, peak)" in metrics_words([many, longer])[0]
    said = comparison_findings(groups, {env: verdicts(found) for env, found in groups.items()})
    assert said[0] == (
        "Compared: ppo_mlp and sac_mlp on gymnax.pendulum, 2 experiments in all, by their final return."
    )
    assert "no difference is claimed" in said[1]
    check_comparable(groups)
    with pytest.raises(ValueError, match=r"no two experiments have an environment in common"):
        check_comparable(comparable([many, other(many, env="gymnax.cartpole")]))


def test_all_experiments_below_a_folder_are_one_mapping(many, monkeypatch, tmp_path):
    one = dataclasses.replace(many, samples=many.samples.with_columns(lr=pl.lit("text")))
    found = Experiments(tmp_path, {"a/pendulum": many, "b/pendulum": one})
    assert list(found) == ["a/pendulum", "b/pendulum"]
    assert found["a/pendulum"] is many
    assert found.lanes.columns[:4] == ["cell", "recipe", "env", "lane"]
    assert found.lanes.height == 2 * many.lanes.height
    assert found.samples["lr"].dtype == pl.String
    assert repr(found).splitlines()[1].startswith("  a/pendulum: 6, with 10 seeds each; 60 done")
    with pytest.raises(KeyError, match="there are a/pendulum, b/pendulum"):
        found["c"]
    with pytest.raises(FileNotFoundError, match="holds no experiment"):
        hyperlax.read(tmp_path)
    assert len(hyperlax.plot.read(found)) == 2


def test_commands_to_type_next_call_the_program_that_is_running(monkeypatch, tmp_path):
    package = Path(hyperlax.__file__).parent / "__main__.py"
    monkeypatch.setattr(sys, "argv", [str(package)])
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("UV", raising=False)
    called = f"{sys.executable} -m hyperlax"
    assert calling.line("list") == f"{called} list"
    said = "`hyperlax list` shows them; hyperlax export-policy X; hyperlax computes"
    expected = f"`{called} list` shows them; {called} export-policy X; hyperlax computes"
    assert calling.as_called(said) == expected
    assert calling.as_called(expected) == expected
    script = tmp_path / "a b" / "hyperlax"
    script.parent.mkdir()
    script.touch(0o755)
    monkeypatch.setattr(sys, "argv", [str(script), "x"])
    assert calling.line("list") == f"'{script}' list"
    monkeypatch.setenv("PATH", str(script.parent))
    monkeypatch.chdir(tmp_path)
    assert calling.here("play", "x y") == f"cd {tmp_path} && hyperlax play 'x y'"
    monkeypatch.setenv("UV", "/usr/bin/uv")  # as uvx calls it, in an environment that the shell does not see
    assert calling.line("list") == f"'{script}' list"


@pytest.mark.parametrize(("width", "shown"), [(80, ["recipe", "score", "more"]), (20, ["recipe", "score"])])
def test_a_narrow_terminal_sees_the_columns_that_matter(width, shown):
    file = io.StringIO()
    table = Fitting(
        ("recipe", "score", "more", "empty"), [["ppo", "1.0", "x" * 20, ""]], ("more",), ("recipe",)
    )
    Console(file=file, width=width).print(table)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert [name for name in ("recipe", "score", "more", "empty") if name in lines[1]] == shown
    assert ("not shown" in file.getvalue()) == (width == 20)


def test_the_commands_that_messages_may_name_are_all_there_are():
    assert set(calling.COMMANDS) == {name for name in app if not name.startswith("-")}


def test_durations_are_in_two_units():
    assert [duration(s) for s in (12.0, 185.0, 7_500.0)] == ["12 s", "3 min 5 s", "2 h 5 min"]


def test_arguments_that_nothing_would_use_are_refused(capsys, tmp_path):
    with pytest.raises(ValueError, match="--sampling-method is for samples that are drawn"):
        _check_sampling(["optuna"])
    _check_sampling(["batched", "optuna"])
    assert "is for batched" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"--resume-from .* is not below --output-root"):
        folder_of("x", Common(resume_from=tmp_path / "a", output_root=tmp_path / "b"))
