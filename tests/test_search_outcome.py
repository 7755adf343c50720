"""Trials as a table, the best of them, and recipe files: against tables made by hand."""

from __future__ import annotations

import importlib.util
import itertools
import json

import numpy as np
import optuna
import polars as pl
import pytest

from hyperlax import Choice, Integers, Joint, LogUniform, Recipe, Uniform
from hyperlax.hyperparams import values
from hyperlax.searches import outcome
from hyperlax.searches.objectives import objectives
from hyperlax.statistics import undominated

ONE = objectives(["peak_return"])
TWO = objectives(["peak_return", "time_to_target"])


def table(rows, names=("peak_return",)):
    return pl.DataFrame(rows, schema=["trial", "state", *names], orient="row")


def test_the_best_trial_is_the_first_of_the_largest_that_was_trained_to_its_end():
    rows = [(0, "done", 1.0), (1, "done", 3.0), (2, "done", 3.0), (3, "pruned", 9.0), (4, "diverged", 5.0)]
    assert outcome.best(table(rows), ONE) == [1]
    assert outcome.best(table(rows), objectives(["peak_return"], ["minimize"])) == [0]
    assert outcome.best(table(rows[3:]), ONE) == []
    assert outcome.best_words(table(rows), ONE) == "best trial 1: peak_return 3"
    assert outcome.best_words(table(rows[3:]), ONE) == ""


def test_a_front_holds_the_trials_that_no_other_dominates():
    """More return, fewer steps; best first by the first objective."""
    rows = [
        (0, "done", 1.0, 10.0),
        (1, "done", 2.0, 20.0),
        (2, "done", 2.0, 30.0),  # slower than 1, no better
        (3, "done", 3.0, 25.0),
        (4, "done", 0.5, 10.0),
        (5, "pruned", 9.0, 1.0),
    ]
    names = ("peak_return", "time_to_target")
    assert outcome.best(table(rows, names), TWO) == [3, 1, 0]
    assert "3 on the Pareto front, e.g. trial 3" in outcome.best_words(table(rows, names), TWO)


@pytest.mark.parametrize(("wanted", "most"), [(ONE, 0), (TWO, 1)])
def test_trials_are_compared_in_pairs_only_for_a_front_and_then_once(wanted, most, monkeypatch):
    calls, names = [], [objective.name for objective in wanted]
    monkeypatch.setattr(outcome, "undominated", lambda scores: calls.append(1) or undominated(scores))
    rows = [(i, "done", *[float(i % 7), float(i)][: len(names)]) for i in range(50)]
    assert outcome.best(table(rows, names), wanted)[0] == 6
    assert len(calls) == most


def test_a_score_that_is_no_number_is_best_only_where_there_is_no_other():
    nan = float("nan")
    assert outcome.best(table([(0, "done", nan), (1, "done", 2.0), (2, "done", 5.0)]), ONE) == [2]
    assert outcome.best(table([(0, "done", nan), (1, "done", nan)]), ONE) == [0]


def test_undominated_rows_against_every_pair():
    scores = np.random.default_rng(0).integers(0, 4, (30, 3)).astype(float)
    kept = [
        not any(all(b >= a) and any(b > a) for b in scores if b is not row) for row in scores for a in [row]
    ]
    assert undominated(scores).tolist() == kept


SPACE = {
    "actor_lr": LogUniform(1e-5, 1e-3),
    "epochs": Integers(1, 4),
    "actor.width+actor.depth": Joint(("actor.width", "actor.depth"), (32, 1), (64, 2)),
    "normalize_observations": Choice(True, False),
}


@pytest.fixture
def study():
    study = optuna.create_study(direction="maximize")
    distributions = {path: s.distribution() for path, s in SPACE.items()}
    for number in range(4):
        trial = study.ask(distributions)
        trial.set_user_attr("owner", "ab"[number % 2])
        if number == 0:
            study.tell(trial, -3.0)
        if number == 1:
            trial.set_user_attr("status", "diverged")
            study.tell(trial, -9.0)
        if number == 2:
            trial.report(-4.0, 1)
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    return study


def test_trials_become_rows_with_decoded_hyperparameters(study):
    rows = outcome.trials_table(study, SPACE, ONE)
    assert rows["state"].to_list() == ["done", "diverged", "pruned", "running"]
    assert rows["peak_return"].to_list() == [-3.0, -9.0, -4.0, None]
    assert rows["process"].to_list() == [0, 1, 0, 1]
    assert set(zip(rows["actor.width"], rows["actor.depth"], strict=True)) <= {(32, 1), (64, 2)}
    assert rows["actor_lr"].is_between(1e-5, 1e-3).all()
    assert rows["end"].null_count() == 1
    assert rows["start"][0] == 0.0
    assert (rows["seconds"].drop_nulls() >= 0).all()


def test_scores_of_trials_that_end_apart_are_compared_at_equal_steps():
    """Each was told its score at its own end; the one that trained longer is not ahead by that."""
    study, wanted = optuna.create_study(direction="maximize"), objectives(["final"])
    for told, curve in ((4.0, [(50, 3.0), (80, 4.0)]), (9.0, [(50, 2.0), (80, 3.0), (100, 9.0)])):
        trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
        trial.set_user_attr("curves", [curve])
        study.tell(trial, told)
    about = {"settings": {"total_timesteps": 100}}
    space = {"x": Uniform(0, 1)}
    assert outcome.trials_table(study, space, wanted)["final"].to_list() == [4.0, 9.0]
    rows = outcome.trials_table(study, space, wanted, about)
    assert rows["final"].to_list() == [4.0, 3.0]
    assert outcome.best(rows, wanted) == [0]


def test_a_study_without_trials_is_a_table_without_rows():
    empty = outcome.trials_table(optuna.create_study(), SPACE, TWO)
    assert empty.is_empty()
    assert {"trial", "state", "peak_return", "time_to_target"} <= set(empty.columns)


def test_hyperparameters_of_mixed_kinds_are_kept():
    space = {"x": Choice(1, 2.5), "y": Choice("a", 1), "z": Choice([1, 2], [3])}
    study = optuna.create_study()
    for x, y in itertools.product((1, 2.5), ("a", 1)):
        study.enqueue_trial({"x": x, "y": y, "z": "[1, 2]"})
        study.tell(study.ask({path: s.distribution() for path, s in space.items()}), 0.0)
    rows = outcome.trials_table(study, space, objectives(["peak_return"]))
    assert rows["x"].to_list() == [1.0, 1.0, 2.5, 2.5]
    assert rows["y"].to_list() == ["a", "1", "a", "1"]
    assert rows["z"].to_list() == [[1, 2]] * 4


def load(path):
    spec = importlib.util.spec_from_file_location("written", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.RECIPES


def test_written_recipes_fix_exactly_what_was_found(study, tmp_path):
    """Also for the quick run length; values are those of the trial to the last bit of float32."""
    recipe = Recipe("ppo", "mlp", {**SPACE, "gamma": 0.97}, {"evaluations": 7})
    rows = outcome.trials_table(study, SPACE, ONE)
    path = outcome.write(tmp_path, rows, ONE, recipe, recipe.hyperparams())
    assert path == tmp_path / "best_recipe.py"
    written = load(path)
    assert list(written) == ["best"]
    best = written["best"]
    assert (best.settings, best.search_space()) == ({"evaluations": 7}, {})
    found = values(best.hyperparams())
    for hyperparameter in ("epochs", "actor.width", "actor.depth", "normalize_observations"):
        assert found[hyperparameter] == rows[hyperparameter][0]
    assert np.float32(found["actor_lr"]) == np.float32(rows["actor_lr"][0])
    assert np.float32(found["gamma"]) == np.float32(0.97)
    assert values(best.quick_recipe().hyperparams()) == found
    about = json.loads((tmp_path / "best_params.json").read_text())
    assert about["values"] == {"peak_return": -3.0}
    assert about["params"]["actor.width"] == rows["actor.width"][0]


def test_a_front_is_written_as_a_recipe_per_trial(study, tmp_path):
    rows = outcome.trials_table(study, SPACE, ONE).with_columns(time_to_target=pl.lit(5.0))
    outcome.write(tmp_path, rows, TWO, Recipe("ppo", "mlp", SPACE), Recipe("ppo", "mlp").hyperparams())
    assert list(load(tmp_path / "best_recipe.py")) == ["trial_0"]
    assert json.loads((tmp_path / "pareto_front.json").read_text())[0]["trial"] == 0
    assert not (tmp_path / "best_params.json").exists()


def test_nothing_is_written_while_no_trial_is_done(study, tmp_path):
    rows = outcome.trials_table(study, SPACE, ONE).filter(pl.col("state") != "done")
    assert outcome.write(tmp_path, rows, ONE, Recipe("ppo", "mlp"), None) is None
    assert not any(tmp_path.iterdir())
