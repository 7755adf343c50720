"""Whole searches: their results, and resuming them to a larger total or after a crash at any moment."""

from __future__ import annotations

import json

import polars as pl
import pytest

import hyperlax
from hyperlax import Choice, Execution, LogUniform, Recipe, searches
from hyperlax.experiments.recipes import resolve
from hyperlax.report.scores import sample_scores
from hyperlax.run.display import Display
from hyperlax.searches import outcome

FIXED = {f"{net}.width": 8 for net in ("actor", "critic")} | {"num_envs": 4, "epochs": 1}
RECIPE = Recipe(
    "ppo",
    "mlp",
    {
        "actor_lr": LogUniform(1e-4, 1e-2),
        "actor.activation": Choice("tanh", "relu"),
        "normalize_observations": Choice(True, False),
        "rollout_length": Choice(8, 16),
        "num_minibatches": 2,
        **FIXED,
    },
    {"total_timesteps": 300, "seeds": 2, "evaluations": 3, "eval_episodes": 2},
    only=True,
)


class Watch(Display):
    """A display that records the progress of a search, and crashes it after a number of evaluations."""

    def __init__(self, crash: int = 0):
        self.said, self.left = [], crash

    def searched(self, over, total, best):
        self.said.append((over, total, best))

    def evaluated(self, lane, score):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> hyperlax.Results:
    folder = tmp_path_factory.mktemp("search") / "x"
    watch = Watch()
    results = hyperlax.search(
        RECIPE, "gymnax.pendulum", n_trials=6, folder=folder, trials_at_once=2, progress=watch
    )
    assert [said[:2] for said in watch.said] == [(n, 6) for n in range(1, 7)]
    assert watch.said[-1][2].startswith("best trial ")
    return results


def curves(results, numbers):
    kept = results.curves.filter(pl.col("metric").eq("return") & pl.col("sample").is_in(numbers))
    return kept.sort("sample", "seed", "env_steps").select("sample", "seed", "env_steps", "value")


def test_every_trial_is_a_sample_with_all_its_seeds(found):
    assert found.trials["trial"].to_list() == list(range(6))
    assert set(found.trials["state"]) == {"done"}
    assert found.lanes.group_by("sample").len().sort("sample")["len"].to_list() == [2] * 6
    assert found.trials["final"].to_list() == sample_scores(found)["score"].to_list()
    for column in ("actor_lr", "actor.activation", "rollout_length"):
        pairs = zip(found.trials[column], found.samples.sort("sample")[column], strict=True)
        assert all(a == pytest.approx(b) if column == "actor_lr" else a == b for a, b in pairs)
    assert (found.trials["end"] >= found.trials["start"]).all()


def test_the_final_weights_of_every_lane_are_evaluated_apart_from_its_curve(found):
    """Once, at the end of the lane, with other episodes than those of the last evaluation."""
    fresh = found.curves.filter(metric="fresh_return").sort("lane")
    assert fresh["lane"].to_list() == found.lanes.filter(status="done").sort("lane")["lane"].to_list()
    assert fresh["env_steps"].to_list() == found.lanes.sort("lane")["env_steps"].to_list()
    last = found.curves.filter(metric="return").sort("env_steps").group_by("lane").last().sort("lane")
    assert (fresh["value"] != last["value"]).all()
    scored = sample_scores(found)
    means = fresh.group_by("sample").agg(pl.col("value").mean()).sort("sample")["value"]
    assert scored["fresh_return"].to_list() == pytest.approx(means.to_list())


def test_a_search_leaves_its_best_trial_as_a_recipe_that_trains(found):
    best = json.loads((found.folder / "best_params.json").read_text())
    row = found.trials.sort("final").row(-1, named=True)
    assert best["trial"] == row["trial"]
    assert best["values"] == {"final": row["final"]}
    recipe = resolve(str(found.folder / "best_recipe.py"))
    assert recipe.search_space() == {}
    assert recipe.settings == RECIPE.settings
    again = hyperlax.prepare(recipe, "gymnax.pendulum")
    assert again.samples.drop("sample").equals(found.samples.filter(sample=best["trial"]).drop("sample"))
    quick = hyperlax.prepare(
        str(found.folder / "best_recipe.py"), "gymnax.pendulum", run_length_modifier="quick"
    )
    assert quick.samples.equals(again.samples)


def test_stored_results_equal_the_returned_ones(found):
    stored = hyperlax.read(found.folder)
    assert stored.trials.equals(found.trials)
    assert stored.manifest["search"]["n_trials"] == 6
    assert (found.folder / "study.journal").exists()


def test_a_search_is_continued_to_its_total_and_nothing_is_overwritten(found, tmp_path):
    arguments = {"recipe": RECIPE, "env": "gymnax.pendulum", "trials_at_once": 2}
    with pytest.raises(ValueError, match="continue it with --resume"):
        hyperlax.search(**arguments, n_trials=8, folder=found.folder)
    with pytest.raises(ValueError, match=r"cannot be resumed with other settings:\n  schedule: .*qmc"):
        hyperlax.search(**arguments, n_trials=8, sampler="qmc", folder=found.folder, resume=True)
    same = hyperlax.search(**arguments, n_trials=4, folder=found.folder, resume=True)
    assert same.trials.equals(found.trials)
    more = hyperlax.search(**arguments, n_trials=8, folder=found.folder, resume=True)
    assert more.trials["trial"].to_list() == list(range(8))
    assert curves(more, range(6)).equals(curves(found, range(6)))
    assert curves(more, [6, 7]).height == 2 * 2 * 3
    assert more.manifest["search"]["n_trials"] == 8


@pytest.mark.parametrize("evaluations", [2, 9, 22])
@pytest.mark.parametrize("seconds", [0.0, 1e6])
def test_a_crash_loses_no_trial_and_none_is_told_twice(found, tmp_path, evaluations, seconds):
    """Whether the checkpoint is new or there is none, all trials end as they do without a crash."""
    how = Execution(folder=tmp_path / "x", checkpoint_seconds=seconds)
    arguments = {"recipe": RECIPE, "env": "gymnax.pendulum", "trials_at_once": 2, "n_trials": 6}
    with pytest.raises(KeyboardInterrupt):
        hyperlax.search(**arguments, execution=how, progress=Watch(evaluations))
    again = hyperlax.search(**arguments, folder=tmp_path / "x", resume=True)
    assert again.trials["trial"].to_list() == list(range(6))
    assert set(again.trials["state"]) == {"done"}
    assert curves(again, range(6)).equals(curves(found, range(6)))
    apart = ["start", "end", "seconds"]
    assert again.trials.drop(apart).equals(found.trials.head(6).drop(apart))


def test_pruned_trials_free_their_slots_and_a_front_has_an_entry_per_trial(tmp_path):
    """Both need a search of their own; without a folder nothing is written."""
    pruned = hyperlax.search(
        RECIPE, "gymnax.pendulum", n_trials=9, pruner="asha", sampler="random", total_timesteps=192
    )
    states = dict(pruned.trials.group_by("state").len().iter_rows())
    assert states["pruned"] >= 2
    assert states["pruned"] + states["done"] == 9
    stopped = pruned.lanes.filter(status="pruned")
    assert (stopped["env_steps"] < 192).all()
    assert len(stopped) == 2 * states["pruned"]
    front = hyperlax.search(
        RECIPE,
        "gymnax.pendulum",
        n_trials=5,
        objective_names=["peak_return", "peak_timestep"],
        sampler="nsgaii",
        folder=tmp_path / "x",
    )
    entries = json.loads((tmp_path / "x" / "pareto_front.json").read_text())
    wanted = searches.objectives(["peak_return", "peak_timestep"])
    assert [e["trial"] for e in entries] == outcome.best(front.trials, wanted)
    for entry in entries:
        recipe = resolve(f"{tmp_path}/x/best_recipe.py:trial_{entry['trial']}")
        assert recipe.hyperparams() is not None


def test_fixed_hyperparameters_are_not_searched():
    spec = searches.prepare(RECIPE, "gymnax.pendulum", set={"rollout_length": "16", "actor_lr": 1e-3})
    assert list(spec.schedule.space) == ["actor.activation", "normalize_observations"]
    everything = dict.fromkeys(["actor_lr", "rollout_length"], 1) | {
        "actor.activation": "relu",
        "normalize_observations": "true",
    }
    with pytest.raises(ValueError, match="nothing to search"):
        searches.prepare(RECIPE, "gymnax.pendulum", set=everything)


def test_programs_are_planned_for_the_trials_to_come():
    """Not a point of the space needs a program of its own where one can hold them all."""
    spec = searches.prepare("ppo_mlp", "gymnax.pendulum", run_length_modifier="quick")
    trees = spec.schedule.trees_to_plan(spec)
    sizes = [tree.sizes() for tree in trees]
    searched = spec.recipe.search_space()["num_envs"]
    assert isinstance(searched, Choice)
    assert max(s["num_envs"] for s in sizes) == max(searched.values)
    assert len(trees) == 64
