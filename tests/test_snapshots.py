"""Whenever a run is killed, what --resume ends with is what the uninterrupted run has, files included."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import time
from pathlib import Path

import pytest
import snapshots
from snapshots import KINDS, RECIPES, campaign, contents, differences

from hyperlax.programs import compiled
from hyperlax.run import slots
from hyperlax.storage import behind
from hyperlax.storage.files import write_atomically

CACHE = str(Path(__file__).parents[1] / ".jax_cache")
KILLS = int(os.environ.get("HYPERLAX_KILLS", "24"))
"""How many processes to kill of each kind of experiment."""
STEP = int(os.environ.get("HYPERLAX_MOMENTS", "15"))
"""Every how many moments one is tried; all of them take hours."""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder with the recipes, which is the current one; reports take a second each and are stand-ins."""
    monkeypatch.setenv("HYPERLAX_CACHE_DIR", CACHE)
    monkeypatch.chdir(tmp_path)
    for module in ("hyperlax.report", "hyperlax.studies.benchmark"):
        monkeypatch.setattr(f"{module}.write_report", lambda results, path: write_atomically(path, "report"))
    (tmp_path / "recipes.py").write_text(RECIPES)
    return tmp_path


def test_a_sweep_under_successive_halving_resumes_from_a_few_of_its_moments(place):
    """Many moments of all kinds of experiments are in the slow test."""
    taken, wrong = campaign(KINDS["asha"], place, step=150)
    assert taken >= 2
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_moments_of_every_kind_of_experiment_resume_to_the_uninterrupted_run(kind, place):
    taken, wrong = campaign(KINDS[kind], place, step=STEP)
    assert taken > 3
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["dqn", "asha", "pbt", "tpe"])
def test_moments_of_runs_whose_checkpoints_are_written_behind_resume_too(kind, place, monkeypatch):
    monkeypatch.setattr(behind, "LARGE", 0)
    taken, wrong = campaign(KINDS[kind], place, step=STEP)
    assert taken > 3
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["dqn", "pbt"])
def test_moments_of_runs_whose_checkpoints_wait_on_the_device_resume_too(kind, place, monkeypatch):
    monkeypatch.setattr(behind, "LARGE", 0)
    monkeypatch.setattr(compiled, "SMALL_STATE", 0)
    monkeypatch.setattr(slots, "spare_memory", lambda device: 2**40)
    taken, wrong = campaign(KINDS[kind], place, step=2 * STEP)
    assert taken > 3
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_processes_killed_at_random_instants_lose_nothing(kind, place, monkeypatch):
    """kill -9 at a random instant, up to three times in a row, then resumed to the end."""
    monkeypatch.delenv("HYPERLAX_TYPECHECK", raising=False)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["snapshots", "hyperlax.report", "hyperlax.searches"])
    root, draws, killed = place / "root", random.Random(kind), 0

    def started():
        process = processes.Process(target=snapshots.in_a_process, args=(kind, root))
        process.start()
        return process

    seconds = 0.0
    for _ in range(2):  # the first compiles
        shutil.rmtree(root, ignore_errors=True)
        began = time.monotonic()
        whole = started()
        whole.join()
        assert whole.exitcode == 0
        seconds = time.monotonic() - began
    expected = contents(root)
    while killed < KILLS:
        shutil.rmtree(root)
        for turn in range(draws.randint(1, 3)):
            began, process = time.monotonic(), started()
            process.join(draws.uniform(0.1, 1.0) * seconds)
            killed += process.is_alive()
            if turn == 0 and not process.is_alive():  # the machine has become faster
                seconds = time.monotonic() - began
            process.kill()
            process.join()
        last = started()
        last.join()
        assert last.exitcode == 0, f"after {killed} kills"
        assert not (wrong := differences(expected, contents(root))), f"after {killed} kills: {wrong}"
