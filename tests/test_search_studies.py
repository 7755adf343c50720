"""Every sampler draws valid values from every recipe's space; studies open where they are said to be."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import json
import os
import random
from functools import cache
from pathlib import Path

import optuna
import pytest

from hyperlax.experiments import recipes
from hyperlax.hyperparams import assign
from hyperlax.hyperparams.samplers import storages
from hyperlax.hyperparams.samplers.optuna import ALGORITHMS, OptunaSampler
from hyperlax.hyperparams.spaces import Joint, resolved
from hyperlax.searches import studies
from hyperlax.searches.shared import SharedStudy
from hyperlax.storage import patience

FEW = ("ppo_mlp", "ppo_tmlp", "dqn_drpqc")
"""Recipes for samplers whose draws take long."""

LEARNING = ("tpe", "cmaes", "gp")
"""Samplers that draw at random until ten trials have been told."""


@cache
def recipes_of_distinct_spaces():
    found = {}
    for name in recipes.names():
        for recipe in (recipes.resolve(name), recipes.resolve(name).quick_recipe()):
            space = recipe.search_space()
            described = json.dumps({p: s.describe() for p, s in space.items()}, default=str)
            found.setdefault(described, (name, recipe, space))
    return list(found.values())


def sampler_of(algorithm, directions=("maximize",), where=None, space=None):
    where = where or studies.storage(None, None)
    about = {"algorithm": algorithm, "study_name": "a study", "storage": where, "directions": directions}
    return OptunaSampler(space or {}, 42, owner="me", **about)


def study_of(*about, **more):
    return studies.opened(sampler_of(*about, **more), "none", 4, {})


@pytest.mark.parametrize(
    "sampler", [pytest.param(a, marks=[pytest.mark.slow] * (a == "tpe")) for a in ALGORITHMS]
)
def test_every_sampler_draws_valid_values_from_every_space(sampler):
    needed = {"gp": "torch", "cmaes": "cmaes"}.get(sampler)
    if needed and importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    rng, distinct = random.Random(0), recipes_of_distinct_spaces()
    assert len(distinct) > 20
    assert any(isinstance(s, Joint) for _, _, space in distinct for s in space.values())
    for name, recipe, space in distinct:
        if sampler == "gp" and name not in FEW:
            continue
        study = study_of(sampler)
        distributions = {path: s.distribution() for path, s in space.items()}
        for _ in range(12 if sampler in LEARNING and name in FEW else 3):
            trial = study.ask(distributions)
            for path, s in space.items():
                assert s.contains(s.chosen(trial.params[path])), (name, path)
            study.tell(trial, rng.random())
        assign(recipe.hyperparams(), resolved(space, study.trials[-1].params))


@pytest.mark.parametrize("sampler", [s for s in ALGORITHMS if s not in ("cmaes", "gp")])
def test_samplers_take_several_objectives_and_trials_in_flight(sampler):
    study = study_of(sampler, ("maximize", "minimize"))
    distributions = {p: s.distribution() for p, s in recipes.resolve("ppo_tmlp").search_space().items()}
    for _ in range(4):
        asked = [study.ask(distributions) for _ in range(4)]
        for trial in asked:
            study.tell(trial, [random.random(), random.random()])
    assert len({str(t.params) for t in study.trials}) == 16


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii", "random", "qmc"])
def test_draws_depend_on_the_study_and_not_on_the_process(sampler):
    """A second process that opens the study draws what the first would have drawn."""
    space: dict[str, optuna.distributions.BaseDistribution] = {
        "x": optuna.distributions.FloatDistribution(0, 1)
    }

    def draw(reopened):
        where = studies.storage(None, None)
        study = study_of(sampler, where=where)
        for i in range(16):
            if reopened and i % 3 == 0:
                study = study_of(sampler, where=where)
            trial = study.ask(space)
            study.tell(trial, trial.params["x"])
        return [t.params["x"] for t in study.trials]

    once = draw(reopened=False)
    assert draw(reopened=True) == once
    assert len(set(once)) == 16


def test_unknown_names_and_impossible_combinations_are_refused(monkeypatch):
    for arguments, said in (
        (("tpee", "none", 1, 4), 'unknown sampler "tpee"; did you mean "tpe"'),
        (("tpe", "medain", 1, 4), 'unknown pruner "medain"; did you mean "median"'),
        (("cmaes", "none", 2, 4), "one objective only; take tpe, nsgaii or gp"),
        (("tpe", "asha", 2, 4), "several objectives nothing can be pruned"),
        (("tpe", "asha", 1, 1), "--set evaluations=4"),
    ):
        with pytest.raises(ValueError, match=said):
            studies.check(*arguments)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for sampler, package in (("gp", "torch"), ("cmaes", "cmaes")):
        with pytest.raises(ValueError, match=f"needs {package}: pip install"):
            studies.check(sampler, "none", 1, 4)


def test_a_storage_that_cannot_be_used_is_named_without_its_password():
    with pytest.raises(ValueError, match="cannot be used") as refused:
        studies.storage("postgresql://me:secret@127.0.0.1:1/none", None)
    assert "secret" not in str(refused.value)
    assert "me:***@127.0.0.1" in str(refused.value)
    with pytest.raises(ValueError, match=r"sqlite:///trials\.db"):
        studies.storage("trials.db", None)
    assert studies.public("sqlite:///a@b.db") == "sqlite:///a@b.db"
    address = "postgresql://host/db?user=me&{}=se%20cret@1&sslmode=require"
    for name in ("password", "passwd", "pwd", "sslpassword", "PassWord"):
        assert (
            studies.public(address.format(name)) == f"postgresql://host/db?user=me&{name}=***&sslmode=require"
        )


def test_a_journal_survives_a_line_that_was_being_written(tmp_path):
    """The process was killed in the middle of it; the next one must not write behind the torn line."""
    path = tmp_path / "study.journal"
    study = study_of("random", where=studies.storage(None, path))
    study.tell(study.ask(), 1.0)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code":4,"worker')
    again = study_of("random", where=studies.storage(None, path))
    assert path.read_bytes().startswith(whole)
    again.tell(again.ask(), 2.0)
    third = study_of("random", where=studies.storage(str(path), None))
    assert [t.value for t in third.trials] == [1.0, 2.0]


@pytest.mark.parametrize("line", ["{", "7", "{}", '{"op_code": 99}', "\xff\xfe"])
def test_a_damaged_journal_is_named(tmp_path, line):
    path = tmp_path / studies.JOURNAL
    path.write_text(line + "\n" + line + "\n")
    with pytest.raises(ValueError, match=r"study.journal is damaged: .*; restore it from a backup"):
        studies.storage(None, path)


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe", "nsgaii"])
def test_a_trial_whose_parameters_were_being_chosen_is_finished_as_it_would_have_been(sampler, monkeypatch):
    """A process is killed at a write of a trial; the next one draws the same, and goes on in the same way."""
    space = recipes.resolve("ppo_mlp").search_space()

    def asked(killed: int | None) -> list[dict | None]:
        where = studies.storage(None, None)
        study = study_of(sampler, where=where, space=space)
        shared = SharedStudy(sampler_of(sampler, where=where, space=space), study, n_trials=14, alone=True)
        samples = []
        for _ in range(12):
            samples.append(shared.ask())
            shared.tell(len(samples) - 1, [0.1 * len(samples)], {})
        with monkeypatch.context() as patch:
            for name in ("set_trial_param", "set_trial_system_attr", "set_study_system_attr"):
                patch.setattr(where, name, dies(getattr(where, name), left := [killed]))
            left[0] = killed
            with contextlib.suppress(KeyboardInterrupt):
                samples.append(shared.ask())
        if len(samples) == 12:
            samples += shared.missed(set(range(12)))
        return [*samples, shared.ask()]

    def dies(write, left):
        def written(*arguments):
            if left[0] is not None:
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt
            return write(*arguments)

        return written

    whole = asked(None)
    assert [sample["sample"] for sample in whole if sample] == list(range(14))
    for killed in (0, 1, 3, len(space)):
        assert asked(killed) == whole, killed


def _full(monkeypatch, times):
    """Let the disk have room for the first seven bytes of a record only, the next `times` it is written."""
    write, left = os.write, [7, None] * times

    def until_full(handle, content):
        if not left:
            return write(handle, content)
        if (room := left.pop(0)) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, content[:room])

    monkeypatch.setattr(storages.os, "write", until_full)


def test_a_disk_that_is_full_for_a_moment_leaves_whole_records_behind(tmp_path, monkeypatch):
    path = str(tmp_path / "study.journal")
    mine, other = storages.storage(path, None), storages.storage(path, None)
    study = optuna.create_study(study_name="s", storage=mine)
    before = Path(path).read_bytes()
    _full(monkeypatch, 1)
    with pytest.raises(OSError, match="No space left"):
        study.ask()
    assert Path(path).read_bytes() == before
    assert not list(tmp_path.glob("*.lock*"))
    assert optuna.load_study(study_name="s", storage=other).ask().number == 0
    assert study.ask().number == 1
    assert optuna.load_study(study_name="s", storage=storages.storage(path, None)).ask().number == 2


def test_a_record_waits_for_room_where_other_files_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(patience, "TRY_SECONDS", 0.0)
    path = tmp_path / "study.journal"
    study = optuna.create_study(study_name="s", storage=studies.storage(None, path))
    _full(monkeypatch, 3)
    with patience.patient():
        assert study.ask().number == 0
    assert "waiting for room" in capsys.readouterr().err
    assert all(json.loads(line) for line in path.read_text().splitlines())


@pytest.mark.parametrize("torn", [b"{", b"x" * 200_000])
def test_half_a_record_of_a_killed_process_is_not_written_behind(tmp_path, torn):
    path = tmp_path / "study.journal"
    mine, other = storages.storage(str(path), None), storages.storage(str(path), None)
    optuna.create_study(study_name="s", storage=mine)
    with path.open("ab") as file:
        file.write(torn)
    assert optuna.load_study(study_name="s", storage=other).ask().number == 0
    assert all(json.loads(line) for line in path.read_text().splitlines())
    assert optuna.load_study(study_name="s", storage=storages.storage(str(path), None)).ask().number == 1
