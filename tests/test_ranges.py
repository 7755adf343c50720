"""Spaces that are given by their ends on the command line, or in Python."""

from __future__ import annotations

import pytest

import hyperlax
from hyperlax import Choice, Integers, LogUniform, Recipe, Uniform
from hyperlax.commands.flags import spaces
from hyperlax.commands.main import app
from hyperlax.experiments.ranges import ranged

DQN = Recipe("dqn", "mlp")
FIXED = Recipe("dqn", "mlp", {"critic_lr": 1e-3, "gamma": Uniform(0.9, 0.99)}, only=True)


@pytest.mark.parametrize(
    ("path", "given", "space"),
    [
        ("critic_lr", "1e-4, 1e-2", LogUniform(1e-4, 1e-2)),
        ("critic_lr", (1e-4, 1e-2), LogUniform(1e-4, 1e-2)),
        ("critic_lr", "0,1e-2,linear", Uniform(0.0, 1e-2)),
        ("critic_lr", "1e-4,1e-3,1e-2", Choice(1e-4, 1e-3, 1e-2)),
        ("gamma", "0.5,0.9", Uniform(0.5, 0.9)),
        ("gamma", "0.5,0.9,log", LogUniform(0.5, 0.9)),
        ("critic.depth", "1,1e1", Integers(1, 10)),
        ("critic.width", "32,128", Choice(32, 128)),
        ("critic.width", "32,128,linear", Integers(32, 128)),
        ("critic.activation", "tanh,relu", Choice("tanh", "relu")),
        ("critic.layer_norm", "true,false", Choice(True, False)),
        ("evaluation_epsilon", "0,0.5", Uniform(0.0, 0.5)),
        ("gamma", LogUniform(0.5, 0.6), LogUniform(0.5, 0.6)),
    ],
)
def test_a_range_has_the_scale_of_its_hyperparameter_unless_another_is_asked_for(path, given, space):
    assert ranged(DQN, {path: given}, {}, None, None) == {path: space}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("lr=1,2", 'unknown hyperparameter "lr"; did you mean "critic_lr"'),
        ("critic_lr=1e-2,1e-4", "from its lower to its higher end"),
        ("critic_lr=1e-2,1e-2", "from its lower to its higher end"),
        ("critic_lr=1", "has two ends, critic_lr=LOW,HIGH, got 1"),
        ("critic_lr=0,1", r"needs a lower end above zero; got 0,1\. critic_lr=0,1,linear draws it evenly"),
        ("critic_lr=a,b", "critic_lr needs a number, got 'a'"),
        ("critic_lr=1,nan", "critic_lr needs a number, got 'nan'"),
        ("gamma=0.5,2", "gamma must be at most 1"),
        ("critic.depth=1,2.5", "critic.depth needs an integer"),
        ("critic.depth=1,3,log", "leave out log"),
        ("buffer_size=10", "give two or more.*buffer_size=LOW,HIGH,linear"),
        ("critic.activation=tanh,rleu", 'did you mean "relu"'),
        ("critic.activation=tanh,relu,log", "no log scale"),
        ("critic.layer_norm=true,True", "give two or more"),
        ("critic_lr", "--range needs path=low,high, got 'critic_lr'"),
    ],
)
def test_a_range_that_cannot_be_is_refused_with_the_fix(typed, said):
    with pytest.raises(ValueError, match=said):
        ranged(DQN, spaces([typed]), {}, None, None)


def test_a_range_is_given_once():
    with pytest.raises(ValueError, match="--range gamma is given twice"):
        spaces(["gamma=0.5,0.6", "gamma=0.7,0.8"])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"set": {"gamma": 0.9}}, "gamma has a range and is set to"),
        ({"ablate": {"gamma": [0.8, 0.9]}}, "gamma has a range and is ablated"),
        ({"search_only": ["critic_lr"]}, "add it to search_only: gamma"),
        ({"samples": [{"gamma": 0.9}], "num_samples": None}, "a range is for samples that are drawn"),
    ],
)
def test_a_range_contradicts_nothing_else(more, said):
    how = {"num_samples": 2, "ranges": {"gamma": "0.5,0.6"}, **more}
    with pytest.raises(ValueError, match=said):
        hyperlax.prepare(DQN, "gymnax.cartpole", **how)


@pytest.mark.parametrize("length", ["quick", 1_000])
def test_a_recipe_that_fixes_a_hyperparameter_searches_it_where_it_has_a_range(length):
    ranges = {"critic_lr": "1e-4,1e-3", "critic.depth": "2,3"}
    how = {"num_samples": 8, "run_length_modifier": length}
    found = hyperlax.prepare(FIXED, "gymnax.cartpole", ranges=ranges, **how).samples
    assert found["critic_lr"].is_between(1e-4, 1e-3).all()
    assert found["critic_lr"].n_unique() == 8
    assert set(found["critic.depth"]) == {2, 3}


def test_samples_are_generated_in_a_range(tmp_path):
    file = tmp_path / "samples.csv"
    words = [
        "generate-hp-samples",
        "--algo-and-network-config",
        "tuned.cartpole_dqn_mlp",
        "--num-samples",
        "4",
    ]
    typed = [*words, "--range", "critic_lr=1e-5,1e-4", "--output-file", str(file)]
    assert app(typed, result_action="return_value") == 0
    header, *rows = file.read_text().splitlines()
    place = header.split(",").index("critic_lr")
    assert len({row.split(",")[place] for row in rows}) == 4
    assert all(1e-5 <= float(row.split(",")[place]) <= 1e-4 for row in rows)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"ranges": {"critic_lr": (1e-4, 1e-2)}}, "ranges is"),
        ({"search_only": ["critic_lr"]}, "search_only is"),
        ({"sampling_method": "qmc_halton"}, "sampling_method is"),
        ({"experiment_type": "sobol_matrices_A_B_AB", "omit_ab": True}, "experiment_type and omit_ab are"),
    ],
)
def test_what_is_for_samples_that_are_drawn_needs_their_number(given, named):
    with pytest.raises(ValueError, match=f"^{named} for samples that are drawn.*how many with num_samples"):
        hyperlax.prepare(DQN, "gymnax.cartpole", **given)
    usual = {"ranges": {}, "search_only": [], "sampling_method": "qmc_sobol"}
    assert hyperlax.prepare(DQN, "gymnax.cartpole", **usual).samples.height == 1
