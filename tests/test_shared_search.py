"""Searches that several processes work on as units of one sweep: no trial is lost, and none counts twice."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fake_runner import FakeRunner
from optuna.trial import TrialState

import hyperlax
from hyperlax import searches
from hyperlax.cluster import planning, records, state, sweep, trust
from hyperlax.cluster.work import _joining
from hyperlax.commands.main import main
from hyperlax.searches import shared, studies
from hyperlax.storage.files import experiment_path
from hyperlax.storage.integrity import read_json, write_json
from hyperlax.storage.places import PLAN
from hyperlax.studies.suites import Suite

GIVEN: dict[str, Any] = {
    "recipe": "ppo_mlp_no_network_search",
    "env": "gymnax.pendulum",
    "n_trials": 10,
    "storage": None,
    "seeds": 2,
    "run_length_modifier": "quick",
}
EXPERIMENT = "--algo-and-network-config ppo_mlp_no_network_search --env-config gymnax.pendulum"
LENGTH = "--run-length-modifier quick --total-timesteps 20000 --checkpoint-seconds 0.2 --sampler random"
WORDS = ["optuna-hp-search", *EXPERIMENT.split(), *LENGTH.split()]
BELOW = experiment_path("ppo_mlp_no_network_search", "gymnax.pendulum")


@pytest.fixture(scope="module")
def spec():
    return searches.prepare(**GIVEN)


def planned(spec, root: Path, **more: Any) -> sweep.Sweep:
    given = {**GIVEN, **more.pop("given", {})}
    found = planning.of_search(spec, root, given, ["hyperlax"], "cpu", {}, **{"wanted": 3, **more})
    found.write()
    return found


# Plans


def test_the_processes_of_a_search_share_its_trials_and_have_folders_of_their_own(spec, tmp_path):
    found = planned(spec, tmp_path)
    assert [unit.worker for unit in found.units] == [0, 1, 2]
    assert [unit.lanes for unit in found.units] == [8, 6, 6]
    assert len({found.folder(unit) for unit in found.units}) == 3
    again = sweep.needed(tmp_path)
    assert again.units == found.units
    own = again.spec(0)
    assert own.identity() == spec.identity()
    assert own.schedule.search.storage == str(found.study(0))
    assert "3 processes share the study" in state.look(again).notes()[0]
    with pytest.raises(ValueError, match="n_trials: 10 in the folder, 20 asked for"):
        planning.continued(again, planning.asked_of_search(spec, False, {**GIVEN, "n_trials": 20}))


@pytest.mark.parametrize(("more", "units"), [({"wanted": None, "tasks": 4}, 4), ({"wanted": 1}, 1)])
def test_tasks_decide_how_many_processes_share_a_search(spec, tmp_path, more, units):
    found = planned(spec, tmp_path, **more)
    assert len(found.units) == units
    assert all(unit.whole == (units == 1) for unit in found.units)
    assert bool(state.look(found).notes()) == (units > 1)


def test_searches_of_a_benchmark_are_shared_only_where_that_is_asked_for(tmp_path):
    suite = Suite(("ppo_mlp",), ("gymnax.cartpole",), ("optuna",), samples=4, run_length="quick")
    for wanted, whole in ((None, True), (2, False)):
        found = planning.of_suite(suite, tmp_path, "s", {}, ["hyperlax"], "cpu", {}, wanted=wanted)
        assert [unit.whole for unit in found.units] == [whole] * (wanted or 1)


def test_a_study_elsewhere_needs_trust_and_no_password_is_stored(spec, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HYPERLAX_CACHE_DIR", str(tmp_path / "cache"))
    found = planned(spec, tmp_path / "r", given={"storage": "postgresql://me@elsewhere/trials"})
    assert found.study(0) is None
    assert trust.named(found) == ["--storage postgresql://me@elsewhere/trials"]
    with pytest.raises(ValueError, match="add --trust"):
        trust.check(found)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([*WORDS, "--tasks", "2", "--storage", "postgresql://me:secret@elsewhere/trials"])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "~/.pgpass" in said
    assert "secret" not in said
    assert not (tmp_path / "results").exists()


def changed(root: Path, **arguments: Any) -> None:
    """Change the arguments of the only cell of a planned search, as somebody else may have."""
    content = read_json(root / PLAN)
    content["cells"][0]["arguments"].update(arguments)
    write_json(root / PLAN, content)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"recipe": "evil.py:R"}, r"would run evil\.py:R"),
        ({"storage": "postgresql://me@elsewhere:5432/trials"}, "--storage postgresql"),
    ],
)
def test_a_search_of_somebody_else_is_only_merged_if_it_is_trusted(
    spec, tmp_path, monkeypatch, capsys, given, said
):
    monkeypatch.setenv("HYPERLAX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    evil = "open('stolen', 'w')\nimport hyperlax\nR = hyperlax.Recipe('ppo', 'mlp')\n"
    (tmp_path / "evil.py").write_text(evil)
    found = planned(spec, tmp_path / "r")
    trust.remember(found)
    changed(found.root, **given)
    for unit in found.units:
        write_json(found.records(unit) / records.DONE, {"unit": unit.name, "lanes": unit.lanes})
    for command, code in (("merge", 2), ("status", 0)):
        with pytest.raises(SystemExit) as ended:
            main([command, str(found.root)])
        assert ended.value.code == code
        err = capsys.readouterr().err
        assert code == 0 or (re.search(said, err) and "add --trust" in err)
    assert not (tmp_path / "stolen").exists()
    with pytest.raises(SystemExit):  # its units are not there
        main(["merge", str(found.root), "--trust"])
    assert "--trust" not in capsys.readouterr().err
    trust.check(sweep.needed(found.root))


# Trials


def worker(url: str, owner: str, n_trials: int = 6) -> FakeRunner:
    made = searches.prepare(**{**GIVEN, "n_trials": n_trials, "storage": url, "sampler": "random"})
    made.schedule.owner, made.schedule.takes_over = owner, False  # type: ignore[attr-defined]
    runner = FakeRunner(dataclasses.replace(made, shared=True), lambda row, seed, step: row["gamma"] + seed)
    runner.schedule.begin(runner)
    return runner


def turn(runner: FakeRunner) -> None:
    runner.schedule.refill(runner)
    runner._fill()
    if runner.busy:
        runner._segment()


def test_trials_begun_by_a_process_that_was_believed_dead_are_not_lost(tmp_path):
    """It draws one more in the name of its successor, which finds it when there are no others left."""
    url = f"sqlite:///{tmp_path}/study.db"
    old, new = worker(url, "unit"), worker(url, "unit")
    extra = old.schedule.study.ask()
    assert extra is not None
    for _ in range(100):
        turn(new)
    found = new.schedule.study.trials()
    assert [t.state for t in found] == [TrialState.COMPLETE] * 6
    assert set(new.experiment.records) == set(range(6))
    numbers = [lane.lane for lane in new.lanes]
    assert sorted(numbers) == [2 * t + s for t in range(6) for s in range(2)]


def test_clocks_of_other_machines_do_not_say_who_is_silent(tmp_path, monkeypatch):
    """A process is silent if this one has not heard of it for ten minutes, by its own clock."""
    url, now = f"sqlite:///{tmp_path}/study.db", [1e9]
    other, mine = worker(url, "a", 3).schedule.study, worker(url, "b", 3).schedule.study
    mine.takes_over = True
    monkeypatch.setattr(shared.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(shared.time, "time", lambda: 0.0)
    for study in (other, other, mine):
        assert study.ask() is not None
    for _ in range(10):
        now[0] += 500
        other.beat()
        assert mine.ask() is None
    now[0] += 599
    assert mine.ask() is None
    now[0] += 2
    assert any(mine.ask() for _ in range(2))
    assert [t.state for t in mine.trials()][:2] == [TrialState.FAIL] * 2


# Runs


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("HYPERLAX_TYPECHECK", "XLA_FLAGS")}
    return {**kept, "HYPERLAX_CACHE_DIR": str(Path(__file__).parents[1] / ".jax_cache")}


def begin(root: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hyperlax", *WORDS, "--output-root", str(root), *more]
    return subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def counts(journal: Path) -> dict[str, int]:
    where = studies.storage(str(journal), None)
    if not studies.exists(where, studies.NAME):
        return {}
    states = [t.state.name for t in where.get_all_trials(where.get_study_id_from_name(studies.NAME))]
    return {name: states.count(name) for name in set(states)}


def assert_whole(folder: Path, n_trials: int) -> hyperlax.Results:
    """Every trial is in the merged folder, once, with all its lanes, and nothing in it is damaged."""
    results = hyperlax.read(folder)
    assert results.trials["state"].to_list() == ["done"] * n_trials
    assert results.samples["sample"].to_list() == list(range(n_trials))
    seeds = results.manifest["settings"]["seeds"]
    assert results.lanes["lane"].to_list() == list(range(n_trials * seeds))
    assert (results.lanes["sample"] == results.lanes["lane"] // seeds).all()
    assert set(results.curves["lane"]) == set(results.lanes["lane"])
    assert not [p for entry in hyperlax.check(folder) for p in entry.problems]
    assert counts(folder / studies.JOURNAL) == {"COMPLETE": n_trials}
    best = json.loads((folder / "best_params.json").read_text())
    assert best["trial"] in range(n_trials)
    assert not list((folder / ".units").glob("*/run"))
    return results


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_tasks_on_this_machine_share_a_study_are_killed_and_go_on(tmp_path):
    first = begin(tmp_path, "--tasks", "2", "--n-trials", "8")
    journal, end = tmp_path / BELOW / ".units" / "c000.journal", time.monotonic() + 400
    while not (journal.exists() and counts(journal).get("COMPLETE")) and time.monotonic() < end:
        assert first.poll() is None, first.communicate()
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    found = sweep.needed(tmp_path / BELOW)
    looked = state.look(found)
    assert looked.exit_code in (state.ALL_DONE, state.WORK_LEFT)
    again = begin(tmp_path, "--tasks", "2", "--n-trials", "8", "--resume")
    said, _ = again.communicate(timeout=400)
    assert again.returncode == 0, said
    assert re.search(r"^next: .* run-single-hp ", said, re.MULTILINE), said
    results = assert_whole(tmp_path / BELOW, 8)
    assert set(results.trials["process"]) <= {0, 1}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_tasks_of_slurm_share_a_study_even_one_that_comes_too_late(tmp_path, monkeypatch):
    """The queue is made up. The first task is stopped and queued again; the second finds nothing to do."""
    fake, home, tools = Path(__file__).parent / "fake_slurm" / "slurm.py", tmp_path / "jobs", tmp_path / "bin"
    for folder in (home, tools):
        folder.mkdir()
    for name in ("sbatch", "squeue", "scontrol", "srun"):
        (tools / name).write_text(f"#!{sys.executable}\n" + fake.read_text().partition("\n")[2])
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(home))
    more = ("--executor", "slurm", "--time", "10", "--units", "2", "--n-trials", "4")
    sent = begin(tmp_path, *more)
    said, _ = sent.communicate(timeout=200)
    assert sent.returncode == 0, said
    assert "job 1: 2 units" in said
    found = sweep.needed(tmp_path / BELOW)
    script = (found.root / "submissions" / "0001" / "job-0.sh").read_text().replace("sleep 60", "true")

    def task(index: int, job: str) -> subprocess.Popen[bytes]:
        ours = {"SLURM_ARRAY_TASK_ID": str(index), "SLURM_ARRAY_JOB_ID": "1", "SLURM_JOB_ID": job}
        return subprocess.Popen(
            ["bash", "-c", f"exec bash -s <<'END'\n{script}END"], env={**environment(), **ours}
        )

    stopped, end = task(0, "1"), time.monotonic() + 300
    claims = found.folder(found.units[0]) / "checkpoint"
    while (
        not (told := records.newest_claim(found, found.units[0])).get("env_steps") and time.monotonic() < end
    ):
        assert stopped.poll() is None, list(claims.glob("*"))
        time.sleep(0.1)
    os.kill(told["pid"], signal.SIGTERM)
    assert stopped.wait(timeout=120) == 75
    assert (home / "requeued").read_text() == "1_0\n"
    assert task(0, "1").wait(timeout=300) == 0
    assert task(1, "2").wait(timeout=300) == 0
    looked = state.look(found)
    assert [u.state for u in looked.units] == ["done", "done"]
    with pytest.raises(SystemExit) as ended:
        main(["merge", str(found.root)])
    assert ended.value.code == 0
    assert_whole(found.root, 4)


def test_a_unit_of_a_search_keeps_its_name_in_the_study(spec, tmp_path):
    found = planned(spec, tmp_path)
    own = _joining(found.spec(0), found.units[1])
    assert (own.schedule.owner, own.shared) == (found.units[1].name, True)
