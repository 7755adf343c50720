"""Recipes: found by name, and valid search spaces."""

from __future__ import annotations

import pytest

from hyperlax.experiments import recipes
from hyperlax.experiments.recipes import Recipe, names, network_fields, resolve
from hyperlax.experiments.settings import Settings
from hyperlax.hyperparams import assign, fields, values
from hyperlax.hyperparams.samplers import design
from hyperlax.hyperparams.spaces import Choice, Integers, Joint, LogUniform, Uniform
from hyperlax.networks import MLPHyperparams

BENCHMARKED = "benchmarked.01_static_qmc_sampling_S64.ppo_mlp"


@pytest.mark.parametrize("name", names())
def test_every_recipe_can_be_searched(name):
    recipe = resolve(name)
    defaults = recipe.hyperparams()
    paths = [f.path for f in fields(defaults)]
    space = recipe.search_space()
    drawn = design(space, 4, "qmc_sobol", 0)
    for sample in drawn:
        assert set(sample) <= set(paths)
        assert values(assign(defaults, sample)) == pytest.approx({**values(defaults), **sample})
    Settings().updated(recipe.settings)
    assert bool(recipe.quick_recipe().search_space()) == bool(space)


def test_the_benchmarked_space_has_the_published_dimensions():
    space = resolve(BENCHMARKED).search_space()
    assert len(space) == 21
    assert list(space)[:3] == ["actor.width+actor.depth", "actor.layer_norm", "actor.activation"]
    assert list(space)[6:8] == ["actor_lr", "critic_lr"]


def test_dimensions_follow_the_hyperparameter_tree_not_the_recipe():
    recipe = Recipe("ppo", "mlp", {"gamma": Uniform(0, 1), "actor_lr": Uniform(0, 1)}, only=True)
    assert list(recipe.search_space()) == ["actor_lr", "gamma"]


def test_a_recipe_overrides_fixes_and_keeps():
    recipe = Recipe("ppo", "mlp", {"gamma": 0.5, "actor.width": Choice(8, 16)})
    space = recipe.search_space()
    assert "gamma" not in space
    assert space["actor.width"] == Choice(8, 16)
    assert space["critic.width"] == Choice(32, 64, 128)
    assert values(recipe.hyperparams())["gamma"] == 0.5
    assert "loss_reduction" not in space, "a hyperparameter without a space stays fixed"


def test_only_searches_nothing_else():
    recipe = Recipe("ppo", "mlp", {"gamma": Uniform(0.9, 0.99), "actor_lr": 1e-3}, only=True)
    assert recipe.search_space() == {"gamma": Uniform(0.9, 0.99)}


def test_with_space_splits_a_joint_whose_value_is_overridden():
    joint = Joint(("actor.width", "actor.depth"), (32, 1), (64, 2), (32, 3))
    changed = Recipe("ppo", "mlp", {"layers": joint}, only=True).with_space({"actor.depth": Integers(1, 4)})
    assert changed.search_space() == {"actor.width": Choice(32, 64), "actor.depth": Integers(1, 4)}


def test_with_space_splits_a_joint_whose_value_is_fixed():
    joint = Joint(("actor.width", "actor.depth"), (32, 1), (64, 2))
    changed = Recipe("ppo", "mlp", {"layers": joint}, only=True).with_space({"actor.width": 7})
    assert changed.search_space() == {"actor.depth": Choice(1, 2)}
    assert values(changed.hyperparams())["actor.width"] == 7


def test_with_space_leaves_the_recipe_alone():
    recipe = resolve(BENCHMARKED)
    before = recipe.search_space()
    recipe.with_space({"actor.width": 8, "gamma": LogUniform(0.1, 0.9)})
    assert recipe.search_space() == before


@pytest.mark.parametrize(
    "space",
    [
        {"actor.widht": Choice(8, 16)},
        {"layers": Joint(("actor.widht", "actor.depth"), (8, 1), (16, 2))},
    ],
)
def test_an_unknown_hyperparameter_names_the_nearest(space):
    with pytest.raises(ValueError, match=r'"actor\.widht"; did you mean "actor\.width"'):
        Recipe("ppo", "mlp", space).search_space()


def test_an_unknown_fixed_hyperparameter_names_the_nearest():
    with pytest.raises(ValueError, match=r'did you mean "actor\.width"'):
        Recipe("ppo", "mlp", {"actor.widht": 8}).hyperparams()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("ppo_mpl", "ppo_mlp"),
        ("ppo_vec_mpl", "ppo_vec_mlp"),
        ("benchmarked.01_static_qmc_sampling_S64.ppo_mpl", "ppo_mlp"),
    ],
)
def test_an_unknown_recipe_names_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=f'unknown recipe "{name}"; did you mean "{nearest}"'):
        resolve(name)


def test_a_recipe_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from hyperlax import Recipe\nRECIPES = {'small': Recipe('ppo', 'mlp', {'gamma': 0.5})}\n"
    )
    assert resolve(f"{path}:small") == resolve(str(path)) == Recipe("ppo", "mlp", {"gamma": 0.5})
    with pytest.raises(ValueError, match='did you mean "small"'):
        resolve(f"{path}:smal")


def test_recipe_files_that_are_missing_or_hold_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        resolve(str(tmp_path / "none.py:x"))
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match="x is an object of int; a recipe is"):
        resolve(str(tmp_path / "empty.py:x"))
    with pytest.raises(ValueError, match="neither by itself nor in RECIPES; a recipe is an object of"):
        resolve(str(tmp_path / "empty.py"))


def test_networks_of_an_algorithm_are_its_nested_hyperparameters():
    assert network_fields(recipes.AGENTS["ppo"]) == ["actor", "critic"]


def test_a_quick_run_of_a_recipe_that_searches_only_what_it_names_searches_nothing_else():
    recipe = Recipe("ppo", "mlp", {"actor_lr": Uniform(0, 1), "num_envs": Integers(8, 64)}, only=True)
    quick = recipe.quick_recipe()
    assert quick.search_space() == {"num_envs": Choice(4, 8), "actor_lr": Uniform(0, 1)}
    chosen = values(quick.hyperparams())
    assert (chosen["rollout_length"], chosen["epochs"], chosen["actor.width"]) == (8, 1, 16)
    assert set(resolve("tuned.first_sweep").quick_recipe().search_space()) == set(
        resolve("tuned.first_sweep").search_space()
    )


def test_a_dotted_name_leads_to_no_file_outside_of_the_recipes(tmp_path):
    (tmp_path / "mine.py").write_text("raise SystemExit('this has been run')")
    with pytest.raises(ValueError, match="unknown recipe"):
        resolve(f"{tmp_path}/mine.ppo_mlp")


def test_hyperparameters_that_cannot_be_built_are_named_in_one_line(tmp_path):
    file = tmp_path / "still.py"
    file.write_text(
        "from hyperlax.agents import PPOHyperparams\n"
        "from hyperlax.networks import MLPHyperparams\n\n"
        "class StillHyperparams(PPOHyperparams):\n    gamma = 0.5\n\n"
        "class WideHyperparams(MLPHyperparams):\n    width = 99\n"
    )
    with pytest.raises(ValueError, match=r"StillHyperparams cannot be built: .* gamma, which .* choose"):
        Recipe(f"{file}:Still", "mlp").hyperparams()
    with pytest.raises(ValueError, match=r"WideHyperparams cannot be built: .* width, which .* choose"):
        Recipe("ppo", f"{file}:Wide").hyperparams()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("network", MLPHyperparams, r"Recipe\.network is <class .*MLPHyperparams'>; it must be str"),
        ("space", ["gamma"], r"Recipe\.space is \['gamma'\]; it must be Mapping\[str, Any\]"),
    ],
)
def test_a_recipe_of_other_fields_is_refused(field, value, message):
    made = Recipe("ppo", "mlp")
    object.__setattr__(made, field, value)  # the constructor is checked twice in tests
    with pytest.raises(TypeError, match=message):
        made.__post_init__()


@pytest.mark.parametrize("written", ["[Recipe('ppo', 'mlp')]", "{1: Recipe('ppo', 'mlp')}"])
def test_recipes_are_in_a_dict(written, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(f"from hyperlax import Recipe\nRECIPES = {written}\n")
    with pytest.raises(ValueError, match=r"mine\.py:m\": RECIPES has to be a dict, in which names"):
        resolve(f"{file}:m")
