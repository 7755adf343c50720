"""An experiment before it runs: samples become lanes with keys of their own, and can be told apart."""

from __future__ import annotations

import dataclasses
import json
import platform
import subprocess

import jax
import jax.numpy as jnp
import jax.random as jr
import polars as pl
import pytest

import hyperlax
from hyperlax import searches, sweeps
from hyperlax.agents import AGENTS
from hyperlax.envs.base import AbstractEnv, ActionSpace, Discrete, Timestep
from hyperlax.experiments.experiment import build, difference, sample_difference
from hyperlax.experiments.machine import git_commit, machine, versions
from hyperlax.experiments.recipes import Recipe
from hyperlax.experiments.samples import Lane
from hyperlax.experiments.settings import Settings
from hyperlax.hyperparams import values
from hyperlax.hyperparams.spaces import Choice
from hyperlax.schedules import Schedule
from hyperlax.storage.store import Store
from hyperlax.storage.wording import noted

RECIPE = Recipe("ppo", "mlp")
ROWS = [{"sample": i, "gamma": 0.9 + i / 100, "actor.width": 8 * (i + 1)} for i in range(3)]


def experiment(rows=ROWS, fixed=None, env="gymnax.pendulum", recipe=RECIPE, **settings):
    given = Settings(seeds=2).updated(settings)
    return build("ppo_mlp", recipe, env, given, rows, fixed or {}, Schedule())


def lane_keys(spec):
    """(sample id, seed) → (training key, initial-weight key), as tuples."""
    return {
        (sample.id, seed): (tuple(sample.keys[seed].tolist()), tuple(sample.init_keys[seed].tolist()))
        for sample in spec.records.values()
        for seed in range(spec.settings.seeds)
    }


def test_every_sample_becomes_a_tree_of_its_values():
    spec = experiment()
    for row, tree in zip(ROWS, spec.trees, strict=True):
        assert values(tree)["gamma"] == pytest.approx(row["gamma"])
        assert values(tree)["actor.width"] == row["actor.width"]
        assert values(tree)["critic.width"] == values(RECIPE.hyperparams())["critic.width"]
    assert spec.samples["sample"].to_list() == [0, 1, 2]
    assert spec.samples["actor.width"].to_list() == [8, 16, 24]


def test_another_setting_is_named_even_if_the_manifest_is_damaged_and_its_copy_is_intact(tmp_path):
    spec, other = experiment(), experiment(seed=7)
    keeper = Store(tmp_path)
    keeper.begin(spec.manifest(None), spec.samples)
    (tmp_path / "manifest.json").write_text("{")
    assert sweeps.check_folder(spec, tmp_path, True) == tmp_path
    with pytest.raises(
        ValueError, match=r"(?s)cannot be resumed with other settings:.*seed: 42 in the folder"
    ):
        sweeps.check_folder(other, tmp_path, True)


def test_fixed_values_win_over_the_samples():
    spec = experiment(fixed={"gamma": 0.5})
    assert {values(t)["gamma"] for t in spec.trees} == {0.5}


def test_there_is_a_lane_for_every_sample_and_seed():
    lanes = experiment().lanes()
    assert [(a.lane, a.sample, a.seed) for a in lanes] == [
        (2 * s + k, s, k) for s in range(3) for k in range(2)
    ]
    assert all(a.status == "queued" and not a.over for a in lanes)
    assert len({a.parameters for a in lanes}) == 3
    for status in ("done", "diverged", "pruned", "failed"):
        assert Lane(0, 0, 0, status=status).over


def test_keys_belong_to_sample_and_seed_not_to_a_place():
    keys = lane_keys(experiment())
    part = lane_keys(experiment(rows=[ROWS[2], ROWS[0]]))
    assert part == {where: keys[where] for where in part}
    assert len(part) == 4
    flat = [key for pair in keys.values() for key in pair]
    assert len(set(flat)) == len(flat) == 12
    other = lane_keys(experiment(seed=43))
    assert not {key for pair in other.values() for key in pair} & set(flat)


def test_keys_are_folded_from_the_seed_of_the_experiment_the_sample_and_the_seed():
    for (sample, seed), (key, init_key) in lane_keys(experiment()).items():
        own = jr.fold_in(jr.fold_in(jr.key(42), sample), seed)
        assert key == tuple(jr.key_data(jr.fold_in(own, 0)).tolist())
        assert init_key == tuple(jr.key_data(jr.fold_in(own, 1)).tolist())


def test_shared_initial_weights_are_one_draw():
    shared, own = lane_keys(experiment(initial_weights="shared")), lane_keys(experiment())
    assert len({init for _, init in shared.values()}) == 1
    assert {where: key for where, (key, _) in shared.items()} == {
        where: key for where, (key, _) in own.items()
    }


def test_the_published_protocol_sets_its_switches_and_a_user_can_overrule_them():
    published = experiment(protocol="published")
    assert values(published.trees[0])["loss_reduction"] == "sum"
    assert values(published.trees[0])["time_limit"] == "termination"
    replaying = experiment([{}], recipe=Recipe("dqn", "mlp"), env="gymnax.cartpole", protocol="published")
    continuous = experiment([{}], recipe=Recipe("sac", "mlp"), protocol="published")
    for made, names in (
        (published, {"density_at_bounds": "averaged", "last_rollout": "unlearned"}),
        (replaying, {"buffer_rounding": "whole_steps", "last_rollout": "unlearned"}),
        (continuous, {"density_at_bounds": "averaged", "last_rollout": "learned"}),
    ):
        assert names.items() <= values(made.trees[0]).items()
    mixed = experiment(protocol="published", fixed={"loss_reduction": "mean"})
    assert values(mixed.trees[0])["loss_reduction"] == "mean"
    assert values(experiment().trees[0])["loss_reduction"] == "mean"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": [{"gama": 0.9}]}, 'unknown hyperparameter "gama"; did you mean "gamma"'),
        ({"rows": [{"gamma": "high"}]}, "gamma needs a number"),
        ({"fixed": {"actor.widht": 8}}, 'did you mean "actor.width"'),
        ({"env": "gymnax.pendulm"}, 'did you mean "gymnax.pendulum"'),
    ],
)
def test_bad_input_is_refused_before_anything_runs(changes, message):
    with pytest.raises(ValueError, match=message):
        experiment(**changes)


def test_a_circuit_that_memory_cannot_hold_is_refused_with_the_numbers():
    recipe = Recipe("ppo", "drpqc")
    with pytest.raises(ValueError, match=r"sample 1 of ppo_drpqc does not fit .*120 qubits.* qubits fit"):
        experiment([{"sample": 0}, {"sample": 1, "actor.stacks": 120}], recipe=recipe)
    assert len(experiment([{"sample": 0, "actor.stacks": 3}], recipe=recipe).trees) == 1


def test_the_published_protocol_reaches_into_the_networks():
    tensor = experiment([{}], recipe=Recipe("ppo", "tmlp"), protocol="published")
    assert values(tensor.trees[0])["critic.initial_cores"] == "unit"
    dense = experiment([{}], protocol="published")
    assert values(dense.trees[0])["actor.layer_norm_scale"] is False


def test_what_does_not_fit_together_is_noted():
    spec = experiment(rows=[{"num_envs": 2, "rollout_length": 3, "num_minibatches": n} for n in (2, 4, 8)])
    assert [note.split(":")[0] for note in spec.notes] == ["sample 1", "sample 2"]


def test_a_cycle_longer_than_the_run_is_refused_with_the_numbers():
    """By more than 1 %; steps that one cycle takes are never cut short."""
    row = {"num_envs": 8, "rollout_length": 16, "num_minibatches": 4}
    for total in (128, 127):
        spec = experiment(rows=[row], total_timesteps=total)
        assert (spec.notes, spec.records[0].steps) == ([], 128)
    numbers = r"^sample 7 of .* 8 envs × rollouts of 16 steps is 128 env steps, more than the 126 of"
    with pytest.raises(ValueError, match=numbers):
        experiment(rows=[{**row, "sample": 7}], total_timesteps=126)


def test_lanes_that_end_below_the_steps_asked_for_are_noted():
    """Those of 5,000 steps that cycles of 4,096 and of 1,024 cannot train; cycles of 32 and of 8 can."""
    rows = [{"num_envs": n, "rollout_length": 8, "num_minibatches": 2} for n in (1, 4, 128, 512)]
    spec = experiment(rows=rows, total_timesteps=5_000)
    assert [sample.steps for sample in spec.records.values()] == [5_000, 5_024, 4_096, 4_096]
    (note,) = spec.notes
    assert note.startswith("2 of 4 samples train 4,096 of 5,000 env steps: whole cycles of 1,024 to 4,096 (")


@pytest.mark.parametrize("length", ["default", "quick"])
@pytest.mark.parametrize("recipe", sorted(f"{a}_mlp" for a in AGENTS))
def test_the_published_protocol_is_not_searched_away(recipe, length):
    """What it settles is drawn only where a recipe says so, and a table that says otherwise is noted."""
    given = {"num_samples": 4, "protocol": "published", "run_length_modifier": length}
    spec = sweeps.prepare(recipe, "gymnax.cartpole", **given)
    settled = spec.base.published("gymnax.cartpole")
    assert settled.keys() <= spec.protocol_values.keys()
    assert not settled.keys() & spec.recipe.search_space().keys()
    for name, value in settled.items():
        assert set(spec.samples[name]) == {value}
    own = Recipe("dqn", "mlp", {"update_to_data": Choice(0.25, 0.5)}, only=True)
    asked = sweeps.prepare(own, "gymnax.cartpole", **given)
    assert 0.0 not in set(asked.samples["update_to_data"])
    assert "update_to_data is 0.25 as asked for, not 0.0 as in the published protocol" in " ".join(
        asked.notes
    )


def test_a_recipe_can_ask_for_the_published_protocol():
    """It then holds as if it were asked for by flag; what the recipe sets beside it, and flags, win."""
    given = {"env": "gymnax.cartpole", "num_samples": 4}
    flag = sweeps.prepare(Recipe("ppo", "mlp"), **given, protocol="published")
    spec = sweeps.prepare(Recipe("ppo", "mlp", settings={"protocol": "published"}), **given)
    assert spec.settings == flag.settings
    assert spec.protocol_values == flag.protocol_values
    assert spec.samples.equals(flag.samples)
    own = Recipe("ppo", "mlp", settings={"protocol": "published", "evaluation": "deterministic"})
    assert sweeps.prepare(own, **given).settings == dataclasses.replace(
        flag.settings, evaluation="deterministic"
    )
    assert sweeps.prepare(own, **given, evaluation="sampled").settings == flag.settings
    corrected = sweeps.prepare(own, **given, protocol="corrected")
    assert corrected.settings == sweeps.prepare(Recipe("ppo", "mlp"), **given).settings
    assert not corrected.protocol_values


@pytest.mark.parametrize("protocol", ["published", "corrected"])
def test_a_search_optimises_the_metric_of_the_protocol_that_its_recipe_asks_for(protocol):
    recipe = Recipe("ppo", "mlp", settings={"protocol": protocol})
    spec = searches.prepare(recipe, "gymnax.cartpole", n_trials=2)
    asked = searches.prepare(Recipe("ppo", "mlp"), "gymnax.cartpole", n_trials=2, protocol=protocol)
    assert isinstance(spec.schedule, searches.OptunaSearch)
    assert isinstance(asked.schedule, searches.OptunaSearch)
    assert spec.schedule.search.objectives == asked.schedule.search.objectives


def test_samples_with_the_same_problem_share_a_note():
    notes = ["a database"]
    for sample in (0, 1, 2, 5):
        noted(notes, sample, "too long: shorten it")
    noted(notes, 3, "empty")
    assert notes == ["a database", "samples 0–2, 5: too long: shorten it", "sample 3: empty"]
    for sample in range(10, 40, 2):
        noted(notes, sample, "empty")
    assert notes[-1] == "samples 3, 10, 12, 14, 16, 18, 20, 22 and 8 more: empty"


def test_a_quick_run_of_a_published_recipe_uses_the_epochs_that_it_searches():
    for name in ("dqn_mlp_no_network_search", "benchmarked.01_static_qmc_sampling_S64.dqn_mlp"):
        spec = sweeps.prepare(name, "gymnax.cartpole", num_samples=4, run_length_modifier="quick")
        assert set(spec.samples["update_to_data"]) == {0.0}
        assert not [note for note in spec.notes if "epochs" in note]


def test_a_run_that_only_warms_up_is_noted():
    row = {"num_envs": 16, "rollout_length": 4, "warmup_rollout_length": 30}
    given = {"samples": [row], "total_timesteps": 512}
    (note,) = sweeps.prepare("dqn_mlp", "gymnax.cartpole", **given).notes
    assert note == "sample 0: the warm-up is 480 steps, the run 512: nothing is learned"
    assert sweeps.prepare("dqn_mlp", "gymnax.cartpole", **{**given, "total_timesteps": 576}).notes == []
    assert sweeps.prepare("dqn_mlp", "gymnax.cartpole", **given, set={"warmup_budget": "free"}).notes == []


@pytest.mark.parametrize(
    ("recipe", "row", "steps", "why"),
    [
        ("ppo_mlp", {"num_envs": 4, "rollout_length": 64}, 256, "the run is 256 steps"),
        (
            "dqn_mlp",
            {"num_envs": 16, "rollout_length": 16, "warmup_rollout_length": 8},
            512,
            "the warm-up is 128 steps, the run 512",
        ),
    ],
)
def test_a_run_whose_only_rollout_to_learn_from_is_the_last_is_noted(recipe, row, steps, why):
    def notes(total, last):
        given = {"samples": [row], "set": {"last_rollout": last}, "total_timesteps": total}
        return sweeps.prepare(recipe, "gymnax.cartpole", **given).notes

    note = f"sample 0: {why}, of which the last 256 are not learned from: nothing is learned"
    assert notes(steps, "unlearned") == [note]
    assert notes(steps, "learned") == []
    assert notes(steps + 256, "unlearned") == []
    assert not any("nothing" in note for note in notes(steps + 100, "unlearned")), "none reaches the budget"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"sample": 0, "gamma": 0.9}, {"sample": 0, "gamma": 0.8}],
            "the ids are not unique: 0 is also in row 1",
        ),
        ([{"sample": 1, "gamma": 0.9}, {"gamma": 0.8}], r"not unique: 1 is also in row 1|row 2.* is empty"),
        ([{"sample": -1}], "sample id must be at least 0, got -1"),
        ([], "no samples were given"),
    ],
)
def test_samples_that_cannot_be_told_apart_are_refused(rows, message):
    for given in (rows, pl.DataFrame(rows)):
        with pytest.raises(ValueError, match=message):
            sweeps.prepare("ppo_mlp", "gymnax.pendulum", samples=given)


def test_samples_that_differ_are_named():
    """The first one that does, with both values; ids that only one side has are left to the counts."""
    one = experiment().samples
    assert sample_difference(one, experiment().samples) == []
    moved = [ROWS[0], {**ROWS[1], "gamma": 0.5, "epochs": 9}, {**ROWS[2], "gamma": 0.6}]
    (words,) = sample_difference(one, experiment(rows=moved).samples)
    assert words.startswith("first in sample 1: gamma 0.9")
    assert words.endswith("0.5 asked for; epochs 4 in the folder, 9 asked for")
    assert sample_difference(one, experiment(rows=ROWS[:2]).samples) == []


def test_the_manifest_is_json_and_says_nothing_about_whose_machine_it_is():
    manifest = experiment().manifest(["hyperlax", "sweep"])
    text = json.dumps(manifest)
    assert json.loads(text)["space"]["gamma"]["type"] == "uniform"
    assert platform.node() not in text or len(platform.node()) < 4
    assert manifest["reference"]["random"] < manifest["reference"]["solved"]
    assert manifest["versions"]["jax"] == versions()["jax"]
    assert machine()["cores"] >= 1


def test_a_precision_of_matrix_products_that_is_not_left_to_jax_is_recorded():
    assert "matmul_precision" not in machine()
    with jax.default_matmul_precision("float32"):
        assert machine()["matmul_precision"] == "float32"


def test_the_commit_is_the_recorded_one_or_that_of_the_checkout(monkeypatch, tmp_path):
    """Never that of a checkout in which the package is only installed."""
    package = tmp_path / "src" / "hyperlax"
    package.mkdir(parents=True)
    monkeypatch.setattr("hyperlax.experiments.machine.COMMIT", package / "COMMIT")
    assert git_commit() is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "m"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    assert git_commit() == head.strip()
    (package / "COMMIT").write_text("0123456789\n")
    assert git_commit() == "0123456789"
    installed = tmp_path / "venv" / "hyperlax"
    installed.mkdir(parents=True)
    monkeypatch.setattr("hyperlax.experiments.machine.COMMIT", installed / "COMMIT")
    assert git_commit() is None


def test_experiments_are_the_same_when_nothing_that_decides_results_differs():
    one = experiment().identity()
    assert difference(json.loads(json.dumps(one)), experiment().identity()) == []
    assert difference(one, experiment(seed=7).identity()) == ["seed: 42 in the folder, 7 asked for"]
    assert len(difference(one, experiment(rows=ROWS[:2]).identity())) == 1
    moved = [{**ROWS[0], "gamma": 0.91}, *ROWS[1:]]
    assert difference(one, experiment(rows=moved).identity())[0].startswith("samples: ")


class Broken(AbstractEnv):
    """An environment whose reward is a vector."""

    obs_size: int = 2
    action_space: ActionSpace = Discrete(2)
    max_episode_steps: int = 5

    def reset(self, *, key):
        return jnp.zeros(2), jnp.zeros(2)

    def step(self, state, action, *, key):
        return state, Timestep(state, jnp.zeros(3), jnp.bool_(False), jnp.bool_(True))


def test_a_class_of_ones_own_that_cannot_be_trained_is_refused_before_anything_is_created():
    with pytest.raises(ValueError, match="Broken cannot be trained: "):
        hyperlax.prepare("ppo_mlp", f"{__file__}:Broken")


@pytest.mark.parametrize(
    ("recipe", "label"),
    [
        ("/home/me/search/best_recipe.py", "best_recipe.py"),
        ("mine/two.py:small", "two.py:small"),
        ("ppo+mine/nets.py:Net", "ppo+nets.py:Net"),
        ("tuned.first_sweep", "tuned.first_sweep"),
    ],
)
def test_a_run_is_labelled_without_the_folders_of_its_recipe(recipe, label):
    spec = dataclasses.replace(sweeps.prepare("ppo_mlp", "gymnax.cartpole"), recipe_name=recipe)
    assert spec.label == spec.manifest()["recipe"] == label
