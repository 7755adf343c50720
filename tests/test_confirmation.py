"""Confirmations use fresh seeds and the same hyperparameters, can be resumed, and overwrite nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import hyperlax
from hyperlax import Execution
from hyperlax.commands import main as cli
from hyperlax.experiments.experiment import Experiment, build
from hyperlax.run.display import Display
from hyperlax.schedules import Schedule
from hyperlax.storage import store
from hyperlax.studies import confirmation

ARGUMENTS = {
    "recipe": "ppo_mlp_no_network_search",
    "env": "gymnax.pendulum",
    "num_samples": 3,
    "run_length_modifier": "quick",
    "total_timesteps": 700,
    "seeds": 2,
    "eval_episodes": 2,
    "evaluations": 3,
}
COMMAND = (
    "sweep-hp-samples --algo-and-network-config ppo_mlp_no_network_search --run-length-modifier quick "
    "--num-samples 3 --total-timesteps 700 --seeds 2 --set eval_episodes=2 --set evaluations=3"
)


class Crash(Display):
    """A display that raises at the n-th evaluation, as if the process were killed."""

    def __init__(self, n: int):
        self.left = n

    def evaluated(self, lane, score) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> hyperlax.Results:
    """A finished sweep."""
    return hyperlax.sweep(**ARGUMENTS, folder=tmp_path_factory.mktemp("swept") / "x")


@pytest.fixture
def copied(swept, tmp_path) -> hyperlax.Results:
    """The finished sweep, copied into a folder that a test may change."""
    shutil.copytree(swept.folder, tmp_path / "x")
    return hyperlax.read(tmp_path / "x")


def returns(results: hyperlax.Results | None) -> pl.DataFrame:
    assert results is not None
    found = results.curves.filter(pl.col("metric") == "return")
    return found.sort("lane", "env_steps").select("sample", "seed", "env_steps", "value")


def test_the_best_are_trained_again_with_their_own_hyperparameters(copied):
    """The first of the leaderboard are chosen, and keep all their hyperparameters."""
    from hyperlax.report import leaderboard

    results = hyperlax.confirm(copied, 2, seeds=3)
    again = results.confirmation
    assert again is not None
    best = leaderboard(copied, top=2)["sample"].to_list()
    assert again.samples["sample"].to_list() == best
    for sample in best:
        row = pl.col("sample") == sample
        assert again.samples.filter(row).equals(copied.samples.filter(row))
    assert again.lanes["status"].to_list() == ["done"] * 6
    assert again.manifest["confirms"]["best"] == 2
    changed = {"seed": confirmation.fresh_seed(42), "seeds": 3}
    assert again.manifest["settings"] == {**copied.manifest["settings"], **changed}
    assert copied.folder is not None
    assert again.folder is not None
    assert again.folder == copied.folder / "confirmation"
    assert sorted(p.name for p in (again.folder / "policies").iterdir())
    stored = hyperlax.read(copied.folder)
    assert returns(stored).equals(returns(copied))
    assert returns(stored.confirmation).equals(returns(again))
    stored = json.loads((copied.folder / "manifest.json").read_text())
    assert {k: v for k, v in stored.items() if k != "sha256"} == copied.manifest


def lane_keys(spec: Experiment, protocol: str) -> set[tuple[int, ...]]:
    """Every key that the lanes of `spec` would have under another protocol of initial weights."""
    settings = dataclasses.replace(spec.settings, initial_weights=protocol)
    names = (spec.recipe_name, spec.recipe, spec.env_name)
    records = build(*names, settings, spec.rows, spec.fixed, Schedule()).records.values()
    return {tuple(key.tolist()) for s in records for keys in (s.keys, s.init_keys) for key in keys}


def test_no_lane_shares_a_key_with_the_sweep(swept):
    """Keys for training and for initial weights differ, also from those of sweeps with neighbouring seeds."""
    again = confirmation.prepare(swept, 3, 50)
    tuning = hyperlax.prepare(**{**ARGUMENTS, "seeds": 50})
    for protocol in ("per_lane", "shared"):
        old, new = lane_keys(tuning, protocol), lane_keys(again, protocol)
        assert len(old) > 3 * 50
        assert not old & new
    seeds = [*range(1_000), *(confirmation.fresh_seed(s) for s in range(1_000))]
    assert len(set(seeds)) == 2_000
    assert max(seeds) < 2**31


def test_fresh_seeds_bring_other_returns(copied):
    again = hyperlax.confirm(copied, 3).confirmation
    assert not set(returns(again)["value"]) & set(returns(copied)["value"])


def test_a_sweep_that_was_kept_in_memory_is_confirmed_in_memory(copied):
    """The results are the same as with a folder, and nothing is written."""
    kept = dataclasses.replace(copied, folder=None)
    confirmed = hyperlax.confirm(kept, 1).confirmation
    assert confirmed is not None
    assert confirmed.folder is None
    assert not (copied.folder / "confirmation").exists()
    assert returns(confirmed).equals(returns(hyperlax.confirm(copied, 1).confirmation))


@pytest.mark.parametrize("evaluations", [1, 7])
def test_a_killed_confirmation_continues_bitwise(swept, copied, evaluations):
    whole = hyperlax.confirm(dataclasses.replace(swept, folder=None), 2)
    with pytest.raises(KeyboardInterrupt):
        hyperlax.confirm(copied, 2, execution=Execution(checkpoint_seconds=0), progress=Crash(evaluations))
    assert returns(hyperlax.confirm(copied, 2).confirmation).equals(returns(whole.confirmation))


def test_impossible_confirmations_are_refused(copied, tmp_path):
    """A sweep that is unfinished, unevaluated or a confirmation, and a folder with another confirmation."""
    running = copied.lanes.with_columns(
        status=pl.when(pl.col("lane") == 0).then(pl.lit("running")).otherwise("status")
    )
    with pytest.raises(ValueError, match="not finished: 1 of its 6 lanes remain; continue it with --resume"):
        hyperlax.confirm(dataclasses.replace(copied, lanes=running))
    with pytest.raises(ValueError, match="not finished: it has no lane yet"):
        hyperlax.confirm(dataclasses.replace(copied, lanes=running.clear()))
    with pytest.raises(ValueError, match="none has an evaluation"):
        hyperlax.confirm(dataclasses.replace(copied, curves=copied.curves.clear()))
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        hyperlax.confirm(copied, 0)
    again = hyperlax.confirm(copied, 1).confirmation
    assert again is not None
    with pytest.raises(ValueError, match="this is a confirmation"):
        hyperlax.confirm(again, 1)
    with pytest.raises(ValueError, match="1 samples with 2 seeds, but 2 with 2 were asked for"):
        hyperlax.confirm(copied, 2)


def test_a_confirmation_is_no_experiment_of_a_comparison(copied):
    """A confirmation is found only together with its sweep, unless its own folder is given."""
    hyperlax.confirm(copied, 1)
    assert store.find(copied.folder.parent) == [copied.folder]
    assert store.find(copied.folder) == [copied.folder]
    assert store.find(copied.folder / "confirmation") == [copied.folder / "confirmation"]


# The command line


def run(line: str) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main(line.split())
    code = left.value.code
    assert isinstance(code, int)
    return code


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HYPERLAX_CACHE_DIR", str(Path(__file__).parents[1] / ".jax_cache"))
    monkeypatch.chdir(tmp_path)
    return Path("out") / "ppo_mlp_no_network_search" / "gymnax.pendulum"


@pytest.mark.slow  # the tour of the README confirms as well
def test_a_sweep_is_confirmed_when_it_ends(home, capsys):
    """Both reports and a table are written, and --resume alone continues the same confirmation."""
    assert run(f"{COMMAND} --confirm 2 --output-root out") == 0
    said = capsys.readouterr().out
    assert "confirmed from fresh seeds" in said
    assert "confirmed score" in (home / "report.html").read_text()
    assert "confirmation of the best 2 of 3 samples" in (home / "confirmation" / "report.html").read_text()
    assert run(f"{COMMAND} --resume --output-root out") == 0
    assert "confirmed from fresh seeds" in capsys.readouterr().out
    assert run(f"{COMMAND} --resume --confirm 3 --output-root out") == 2
    assert "2 samples with 2 seeds, but 3 with 2 were asked for" in capsys.readouterr().err
    results = hyperlax.read(home)
    assert results.confirmation is not None
    assert len(results.confirmation.lanes) == 4


def test_a_finished_sweep_is_confirmed_later(home, swept, capsys):
    """--confirm with --resume adds a confirmation without training the sweep again."""
    shutil.copytree(swept.folder, home)
    assert run(f"{COMMAND} --resume --confirm 1 --confirm-seeds 3 --output-root out") == 0
    results = hyperlax.read(home)
    assert returns(results).equals(returns(swept))
    assert results.confirmation is not None
    np.testing.assert_array_equal(results.confirmation.lanes["seed"], [0, 1, 2])


@pytest.mark.slow
def test_an_interrupted_confirmation_leaves_the_report_of_the_sweep(home, swept, capsys, monkeypatch):
    """The command exits with the code of an interruption; --resume continues it without --confirm."""
    shutil.copytree(swept.folder, home)

    asked = []

    def stop(self, lane, score):
        if not asked:
            asked.append(lane)
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr("hyperlax.run.terminal.Lines.evaluated", stop)
        patched.setattr(cli, "_leave", sys.exit)
        assert run(f"{COMMAND} --resume --confirm 1 --output-root out") == 75
    assert "state saved, continue with --resume" in capsys.readouterr().err
    assert (home / "report.html").exists()
    partial = hyperlax.read(home).confirmation
    assert partial is not None
    assert set(partial.lanes["status"]) <= {"queued", "running"}
    assert run(f"{COMMAND} --resume --output-root out") == 0
    whole = hyperlax.confirm(dataclasses.replace(swept, folder=None), 1).confirmation
    assert returns(hyperlax.read(home).confirmation).equals(returns(whole))


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ("--confirm 4", "--confirm 4 exceeds the 3 samples"),
        ("--confirm 0", "--confirm must be at least 1"),
        ("--confirm 2 --set evaluations=0", "--confirm chooses samples by their evaluations"),
        ("--confirm-seeds 3", "--confirm-seeds needs --confirm"),
    ],
)
def test_impossible_confirmations_are_refused_before_the_sweep(home, capsys, flags, problem):
    line = COMMAND.replace("--set evaluations=3", "") if "evaluations=0" in flags else COMMAND
    assert run(f"{line} {flags} --output-root out") == 2
    said = capsys.readouterr()
    assert problem in said.err + said.out
    assert not home.exists()
