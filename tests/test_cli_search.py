"""`hyperlax optuna-hp-search`: what it accepts, refuses and leaves, and that it survives signals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

import hyperlax
from hyperlax import searches
from hyperlax.commands import main as cli
from hyperlax.hyperparams.samplers import OptunaSampler
from hyperlax.testing.schedules import SIZES

CACHE = str(Path(__file__).parents[1] / ".jax_cache")
QUICK = "--algo-and-network-config ppo_mlp_no_network_search --run-length-modifier quick"
SEARCH = f"optuna-hp-search {QUICK}"


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    monkeypatch.setenv("HYPERLAX_CACHE_DIR", CACHE)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


def run(line: str) -> int:
    """The exit code of `hyperlax <line>`."""
    with pytest.raises(SystemExit) as left:
        cli.main(line.split())
    assert isinstance(left.value.code, int)
    return left.value.code


@pytest.fixture
def prepared(monkeypatch) -> list:
    """What would have been run: (experiment, execution), none of which trains."""
    seen = []
    monkeypatch.setattr(
        "hyperlax.commands.searching._search", lambda spec, how, *_: seen.append((spec, how)) or 0
    )
    return seen


REFUSED = [
    ("--sampler tpee", 'unknown sampler "tpee"; did you mean "tpe"?'),
    ("--pruner medain", 'unknown pruner "medain"; did you mean "median"?'),
    ("--objective-names peak_retrun", 'unknown objective "peak_retrun"; did you mean "peak_return"?'),
    ("--objective-names peak_return --objective-directions maximise", 'did you mean "maximize"?'),
    ("--objective-names peak_return final_return --pruner asha", "several objectives nothing can be pruned"),
    (
        "--objective-names peak_return final_return --objective-directions maximize maximize minimize",
        "2 objectives need as many directions, got 3",
    ),
    ("--n-trials 0", "--n-trials must be at least 1"),
    ("--optuna-study-batch-size 0", "--optuna-study-batch-size must be at least 1"),
    ("--runner-hparam-batch-size 2 --hparam-batch-size 2", "are the same; give one"),
    ("--set evaluations=0", "needs at least 1 evaluations"),
    ("--objective-names stability_score --set evaluations=2", "--set evaluations=3"),
    ("--env-config gymnax.cartpol", 'did you mean "gymnax.cartpole"?'),
    ("--storage trials.db", "sqlite:///trials.db"),
    ("--storage postgresql://me:secret@127.0.0.1:1/none", "postgresql://me:***@127.0.0.1:1/none "),
    ("--resume", "nothing to resume"),
]


@pytest.mark.parametrize(("flags", "message"), REFUSED, ids=[flags for flags, _ in REFUSED])
def test_bad_input_is_refused_with_the_fix_and_nothing_is_created(tmp_path, capsys, flags, message):
    assert run(f"{SEARCH} {flags}") == 2
    said = re.sub(r"[\s│╭╮╰╯─]+", " ", capsys.readouterr().err)
    assert message in said
    assert "Traceback" not in said
    assert "secret" not in said
    assert not any(tmp_path.iterdir())


def test_the_flags_say_what_is_searched_and_how(prepared):
    assert run(f"{SEARCH} --n-trials 7 --sampler qmc --pruner asha --optuna-study-batch-size 3 --seed 5") == 0
    assert run(f"{SEARCH} --objective-names peak_performance t_at_target --runner-hparam-batch-size 4") == 0
    (first, _), (second, how) = prepared
    plan = first.schedule.search
    assert (plan.n_trials, plan.sampler, plan.pruner, plan.at_once) == (7, "qmc", "asha", 3)
    assert first.settings.seed == 5
    assert [(o.metric, o.direction) for o in second.schedule.search.objectives] == [
        ("peak_return", "maximize"),
        ("time_to_target", "minimize"),
    ]
    assert second.schedule.search.n_trials == 100
    assert how.lanes_at_once == 4


@pytest.mark.parametrize(("written", "expected"), [("", True), ("--no-save-optuna-plots", False)])
def test_pictures_are_optional(monkeypatch, written, expected):
    seen = []
    monkeypatch.setattr("hyperlax.commands.searching._search", lambda *given: seen.append(given[-1]) or 0)
    assert run(f"{SEARCH} {written}") == 0
    assert seen == [expected]


def test_a_study_of_others_is_joined_only_when_asked_and_only_if_it_is_the_same(prepared, capsys, tmp_path):
    """Without --resume it is refused, with it the process joins; another experiment is refused always."""
    url = f"sqlite:///{tmp_path}/shared.db"
    spec = searches.prepare(
        "ppo_mlp_no_network_search", "gymnax.pendulum", run_length_modifier="quick", storage=url
    )
    where = searches.studies.storage(url, None)
    sampler = OptunaSampler({}, 42, study_name=spec.schedule.search.study_name, storage=where)
    searches.studies.opened(sampler, "none", 4, spec.identity())
    assert run(f"{SEARCH} --storage {url}") == 2
    assert "work on it with --resume, or choose another --study-name" in capsys.readouterr().err
    assert run(f"{SEARCH} --storage {url} --resume --seed 7") == 2
    assert "seed: 42 in the study, 7 asked for" in capsys.readouterr().err
    assert run(f"{SEARCH} --storage {url} --resume") == 0
    assert run(f"{SEARCH} --storage {url} --study-name another --resume") == 0
    searches.studies.close(where)
    foreign = searches.studies.storage(url, None)
    optuna.create_study(storage=foreign, study_name="foreign")
    assert run(f"{SEARCH} --storage {url} --study-name foreign --resume") == 2
    assert "is of another experiment" in capsys.readouterr().err
    searches.studies.close(foreign)
    assert len(prepared) == 2


def test_a_study_that_was_created_when_its_process_was_killed_is_continued(tmp_path):
    """It has no identity yet; that of a stranger has none either, and only the folder tells them apart."""
    url = f"sqlite:///{tmp_path}/shared.db"
    spec = searches.prepare("ppo_mlp", "gymnax.pendulum", run_length_modifier="quick", storage=url)
    where = searches.studies.storage(url, None)
    assert isinstance(spec.schedule, searches.OptunaSearch)
    spec.schedule.storage = where
    study = optuna.create_study(storage=where, study_name=spec.schedule.search.study_name)
    searches._check_study(spec.schedule, spec, resumes=True, joins=False, begun=False)
    with pytest.raises(ValueError, match="is of another experiment"):
        searches._check_study(spec.schedule, spec, resumes=False, joins=True, begun=False)
    study.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(ValueError, match="is of another experiment"):
        searches._check_study(spec.schedule, spec, resumes=True, joins=False, begun=False)
    searches.studies.close(where)


def test_a_search_says_what_it_found_and_what_to_do_with_it(capsys, tmp_path):
    sizes = {**SIZES, "actor.activation": "tanh", "critic.activation": "tanh", "eval_episodes": 2}
    line = f"{SEARCH} {' '.join(f'--set {k}={v}' for k, v in sizes.items())} --env-config gymnax.cartpole"
    line += " --n-trials 3 --total-timesteps 300 --output-root out"
    assert run(line) == 0
    said = capsys.readouterr().out
    assert "3 trials x 2 seeds = 6 lanes" in said
    assert "trial 3 of 3; best trial" in said
    folder = Path("out") / "ppo_mlp_no_network_search" / "gymnax.cartpole"
    best = json.loads((folder / "best_params.json").read_text())
    assert f"best trial {best['trial']}: final" in said
    assert "actor_lr=" in said
    offered = re.search(r"^next: cd .* && hyperlax (run-single-hp .*)$", said, re.MULTILINE)
    assert offered is not None
    again = offered.group(1)
    assert f"--algo-and-network-config {folder.absolute()}/best_recipe.py" in again
    for flag in ("run-length-modifier quick", "total-timesteps 300", "seed 43", "metric final"):
        assert f" --{flag} " in again
    assert " --output-root out " in again
    assert all(f"--set {path}={value}" in again for path, value in sizes.items())
    assert run(again) == 0
    done = hyperlax.read("out/best_recipe.py/gymnax.cartpole")
    assert done.manifest["settings"]["total_timesteps"] == 300
    assert done.samples.height == 1
    capsys.readouterr()
    spec = hyperlax.prepare(f"{folder}/best_recipe.py", "gymnax.cartpole")
    chosen = spec.samples.row(0, named=True)
    assert all(chosen[path] == pytest.approx(value) for path, value in best["params"].items())
    assert sorted(p.name for p in (folder / "charts").iterdir()) == [
        "search_history.svg",
        "search_parallel.svg",
        "search_slices.svg",
    ]
    assert 'id="search"' in (folder / "report.html").read_text()
    assert run(line) == 2
    assert "continue it with --resume" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_search_that_was_stopped_is_continued_to_its_total(tmp_path, number, code):
    """Ctrl-C and kill -9 in the middle; all trials are there in the end, each told once.

    A trial that was killed while its parameters were being chosen is given up and replaced.
    """
    flags = "--n-trials 30 --total-timesteps 20000 --checkpoint-seconds 0.5"
    command = [sys.executable, "-m", "hyperlax", *f"{SEARCH} {flags} --output-root out".split()]
    environment = {**os.environ, "HYPERLAX_CACHE_DIR": CACHE}
    environment.pop("HYPERLAX_TYPECHECK", None)
    folder = tmp_path / "out" / "ppo_mlp_no_network_search" / "gymnax.pendulum"
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 200
    log = folder / "hyperlax.log"
    while not (log.exists() and "trial 4 of 30" in log.read_text()) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    before = (folder / "study.journal").read_bytes()
    done = subprocess.run([*command, "--resume"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = hyperlax.read(folder)
    ended = results.trials.filter(state="done")["trial"].to_list()
    replaced = results.trials.filter(state="given up")["trial"].to_list()
    assert len(replaced) <= (number == signal.SIGKILL)
    assert results.trials["trial"].to_list() == sorted([*ended, *replaced]) == list(range(30 + len(replaced)))
    assert sorted(results.samples["sample"]) == ended
    assert set(results.lanes["status"]) == {"done"}
    assert results.curves.filter(metric="return").height == 30 * 2 * 4
    journal = (folder / "study.journal").read_bytes()
    assert journal.startswith(before[: before.rfind(b"\n") + 1])
