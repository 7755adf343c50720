"""Flags that are not typed again when a run is continued."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hyperlax.commands.continuing import completed
from hyperlax.commands.flags import Common, folder_of
from hyperlax.storage.integrity import write_json

BEGUN = [
    "hyperlax",
    "sweep-hp-samples",
    "--algo-and-network-config",
    "dqn_mlp",
    "--env-config=gymnax.cartpole",
]
FLAGS = ["--seeds", "3", "--set", "gamma=0.9", "--set=tau=0.01", "--search-only", "critic_lr", "tau"]


@pytest.fixture
def root(tmp_path):
    """A folder with one experiment, at the place that its flags say."""
    begun(tmp_path / "dqn_mlp" / "gymnax.cartpole", [*BEGUN, *FLAGS, "--output-root", "…/tmp"])
    return tmp_path


def begun(folder, command):
    folder.mkdir(parents=True)
    write_json(folder / "manifest.json", {"command": command, "files": {}, "complete": False})


def test_flags_that_are_left_out_are_those_that_it_was_begun_with(root, capsys):
    folder = str(root / "dqn_mlp" / "gymnax.cartpole")
    typed = ["sweep-hp-samples", "--resume-from", folder, "--set", "gamma=0.8", "--confirm", "2"]
    found = completed(typed)
    left_out = [*BEGUN[2:], "--seeds", "3", "--set=tau=0.01", "--search-only", "critic_lr", "tau"]
    assert found == ["sweep-hp-samples", *left_out, *typed[1:]]
    assert capsys.readouterr().err == f"as it was begun: {' '.join(left_out)}\n"


@pytest.mark.parametrize("named", [[], BEGUN[2:4], BEGUN[4:]])
def test_the_only_experiment_below_a_folder_is_meant(root, named):
    found = completed(["sweep-hp-samples", "--resume", "--output-root", str(root), *named])
    assert found[found.index("--resume-from") + 1] == str(root / "dqn_mlp" / "gymnax.cartpole")
    assert found.count("dqn_mlp") == found.count("--env-config=gymnax.cartpole") == 1


def test_a_folder_whose_name_begins_with_a_dash_is_taken_for_no_flag(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    root.rename("-dash")
    found = completed(["sweep-hp-samples", "--resume", "--output-root=-dash"])
    assert found[found.index("--resume-from") + 1] == "./-dash/dqn_mlp/gymnax.cartpole"


def test_one_of_several_has_to_be_named(root):
    begun(root / "sac_mlp" / "gymnax.pendulum", ["hyperlax", "sweep-hp-samples"])
    with pytest.raises(
        ValueError, match=r"holds dqn_mlp/.*, sac_mlp/.*; continue one of them with --resume-from"
    ):
        completed(["sweep-hp-samples", "--resume", "--output-root", str(root)])
    found = completed(
        ["sweep-hp-samples", "--resume", "--output-root", str(root), "--env-config", "gymnax.cartpole"]
    )
    assert "dqn_mlp" in found


@pytest.mark.parametrize(
    "flags",
    [["--no-resume"], ["--resume=False"], ["--resume=0"], ["--resume", "--no-resume"], ["--no_resume"]],
)
def test_a_run_that_is_not_to_be_resumed_is_not_continued(root, flags, capsys):
    typed = ["sweep-hp-samples", *flags, "--output-root", str(root)]
    assert completed(typed) == typed
    assert capsys.readouterr().err == ""
    last = completed([*typed, "--resume"])
    assert "dqn_mlp" in last


@pytest.mark.parametrize(
    "typed",
    [
        ["sweep-hp-samples", "--num-samples", "2"],
        ["sweep-hp-samples", "--resume=false"],
        ["sweep-hp-samples", "--resume", "--output-root", "nowhere"],
        ["sweep-hp-samples", "--resume", "--help"],
        ["figure", "--resume"],
        [],
    ],
)
def test_what_continues_nothing_stays_as_it_is(typed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert completed(typed) == typed


def test_a_file_of_another_folder_has_to_be_named_again(tmp_path):
    command = ["hyperlax", "sweep-hp-samples", "--load-hyperparams", "…/samples.csv"]
    begun(tmp_path / "run", command)
    typed = ["sweep-hp-samples", "--resume-from", str(tmp_path / "run")]
    with pytest.raises(
        ValueError, match=r"where samples.csv is was not recorded: add --load-hyperparams in full"
    ):
        completed(typed)
    assert completed([*typed, "--load-hyperparams", "samples.csv"])[-1] == "samples.csv"


@pytest.mark.parametrize(
    "flags",
    [
        ["--algo-and-network-config", "mine.py:Recipe"],
        ["--algo-and-network-config=ppo+mine.py:Net"],
        ["--algo-and-network-config", "/elsewhere/mine.recipe"],
        ["--env-config", "os:system"],
        ["--scheduler", "mine.py:Mine"],
    ],
)
def test_code_is_taken_from_what_is_typed_alone(tmp_path, flags):
    """The manifest may be a stranger's."""
    begun(tmp_path / "run", ["hyperlax", "sweep-hp-samples", *flags])
    typed = ["sweep-hp-samples", "--resume-from", str(tmp_path / "run")]
    with pytest.raises(ValueError, match=f"which only runs if it is typed: add {flags[0].partition('=')[0]}"):
        completed(typed)
    assert completed([*typed, *flags]) == [*typed, *flags]


def test_words_for_a_shell_are_not_taken_from_a_file(tmp_path):
    more = [
        "--executor",
        "slurm",
        "--setup",
        "rm -r x",
        "--sbatch-arg=--wrap=x",
        "--bind",
        "/",
        "--seeds",
        "2",
    ]
    begun(tmp_path / "run", ["hyperlax", "sweep-hp-samples", *more])
    typed = ["sweep-hp-samples", "--resume-from", str(tmp_path / "run")]
    assert completed(typed) == ["sweep-hp-samples", "--seeds", "2", *typed[1:]]


def test_a_database_is_connected_to_only_where_it_is_typed(tmp_path):
    begun(tmp_path / "run", ["hyperlax", "optuna-hp-search", "--storage", "postgresql://other/x"])
    typed = ["optuna-hp-search", "--resume-from", str(tmp_path / "run")]
    with pytest.raises(ValueError, match="only a database that is typed is connected to: add --storage"):
        completed(typed)
    assert completed([*typed, "--storage", "sqlite:///mine.db"]) == [*typed, "--storage", "sqlite:///mine.db"]


def test_another_command_is_named(root):
    with pytest.raises(
        ValueError, match="was begun with sweep-hp-samples; continue it with that: hyperlax sweep"
    ):
        completed(["run-single-hp", "--resume-from", str(root / "dqn_mlp" / "gymnax.cartpole")])


def test_a_benchmark_is_continued_as_it_was_begun(tmp_path):
    cell = tmp_path / "dqn_mlp" / "gymnax.cartpole"
    begun(cell, ["hyperlax", "run-benchmark", "--base-config", "small", "--output-root", "there"])
    typed = ["run-benchmark", "--resume", "--output-root", str(tmp_path)]
    assert completed(typed) == ["run-benchmark", "--base-config", "small", *typed[1:]]


@pytest.fixture
def benchmarks(tmp_path, monkeypatch):
    """The benchmarks a, b, and one of c with other samples, where they are by default."""
    monkeypatch.chdir(tmp_path)
    flags = {
        "a": ["--base-config", "a", "--seeds", "2"],
        "b": ["--base-config=…/suites.py:b", "--seeds", "3"],
        "benchmark": ["--base-config", "c", "--num-samples-per-run", "5"],
    }
    for name, said in flags.items():
        folder = RESULTS / name
        begun(folder / "batched" / "ppo_mlp" / "gymnax.cartpole", ["hyperlax", "run-benchmark", *said])
        write_json(folder / "benchmark.json", {})
    return flags


RESULTS = Path("results/run-benchmark")


@pytest.mark.parametrize(
    ("named", "meant", "added"),
    [
        (["--base-config", "a"], "a", ["--seeds", "2"]),
        (["--base-config", "/mine/suites.py:b"], "b", ["--seeds", "3"]),
        (["--base-config=other/b.py:b"], "b", ["--seeds", "3"]),
        (["--base-config", "c"], "benchmark", ["--num-samples-per-run", "5"]),
        (["--benchmark-name", "a"], "a", ["--base-config", "a", "--seeds", "2"]),
        (["--base-config", "x", "--envs", "y"], "benchmark", ["--num-samples-per-run", "5"]),
    ],
)
def test_the_benchmark_that_is_named_is_continued(benchmarks, named, meant, added):
    typed = ["run-benchmark", "--resume", *named]
    where = ["--resume-from", str(RESULTS / meant)]
    assert completed(typed) == ["run-benchmark", *added, *where, *typed[1:]]


def test_one_of_several_benchmarks_has_to_be_named(benchmarks):
    for more in ([], ["--envs", "x"], ["--output-root", str(RESULTS)]):
        with pytest.raises(
            ValueError, match=r"holds a, b, benchmark; continue one of them with --resume-from \S+/a$"
        ):
            completed(["run-benchmark", "--resume", *more])
    shutil.rmtree(RESULTS / "benchmark")
    shutil.rmtree(RESULTS / "b" / "batched")  # killed before its first cell had begun
    with pytest.raises(ValueError, match="holds a, b; continue one of them"):
        completed(["run-benchmark", "--resume"])
    shutil.rmtree(RESULTS / "b")
    found = completed(["run-benchmark", "--resume"])
    assert found[found.index("--resume-from") + 1] == str(RESULTS / "a")


@pytest.mark.parametrize("named", [["--benchmark-name", "new"], ["--base-config", "new"]])
def test_no_flags_of_another_benchmark_are_taken(benchmarks, named):
    typed = ["run-benchmark", "--resume", *named]
    assert completed(typed) == typed


def planned(folder, command):
    """A folder whose units many processes were to train, and of which nothing is merged."""
    folder.mkdir(parents=True)
    write_json(folder / "sweep.json", {"cells": [{"manifest": {"command": ["hyperlax", *command]}}]})


def test_a_benchmark_is_continued_as_it_was_begun_whenever_it_was_killed(tmp_path):
    """Before a cell had begun, or in one that began when it was continued without its flags."""
    begun_so = ["hyperlax", "run-benchmark", "--base-config", "small", "--output-root", "there"]
    write_json(tmp_path / "benchmark.json", {"command": begun_so})
    typed = ["run-benchmark", "--resume-from", str(tmp_path)]
    assert completed(typed) == ["run-benchmark", "--base-config", "small", *typed[1:]]
    begun(tmp_path / "batched" / "dqn_mlp" / "gymnax.cartpole", ["hyperlax", *typed])
    assert completed(typed) == ["run-benchmark", "--base-config", "small", *typed[1:]]


def test_what_many_processes_train_is_continued_before_it_is_merged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    benchmark, sweep = RESULTS / "small", Path("results/sweep-hp-samples/dqn_mlp/gymnax.cartpole")
    planned(benchmark, ["run-benchmark", "--base-config", "small", "--tasks", "2"])
    planned(sweep, ["sweep-hp-samples", "--num-samples", "3", "--tasks", "2"])
    for root, command, told in (
        (benchmark, "run-benchmark", ["--base-config", "small"]),
        (sweep, "sweep-hp-samples", ["--num-samples", "3"]),
    ):
        assert completed([command, "--resume"]) == [command, *told, "--resume-from", str(root), "--resume"]
        typed = [command, "--resume-from", str(root)]
        assert completed(typed) == [command, *told, *typed[1:]]
    assert folder_of("sweep-hp-samples", Common(resume_from=sweep)) == sweep
    above = Common(
        resume_from=sweep.parents[1], algo_and_network_config="dqn_mlp", env_config="gymnax.cartpole"
    )
    assert folder_of("sweep-hp-samples", above) == sweep


@pytest.mark.parametrize("content", ["{", '{"cells": 1}', '{"cells": [{"manifest": 3}]}', '{"command": "x"}'])
def test_a_record_that_says_no_command_adds_no_flags(tmp_path, content):
    for name in ("sweep.json", "benchmark.json"):
        (tmp_path / name).write_text(content)
    typed = ["run-benchmark", "--resume-from", str(tmp_path)]
    assert completed(typed) == typed
