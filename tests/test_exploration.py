"""Hyperparameters that may change in training affect nothing else; steps stay inside space and program."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax import envs
from hyperlax.agents import AGENTS
from hyperlax.experiments.recipes import Recipe
from hyperlax.hyperparams import assign, values
from hyperlax.hyperparams.spaces import Choice, Integers, Joint, LogUniform, Uniform
from hyperlax.lanes.sizes import merge
from hyperlax.programs import train
from hyperlax.schedules.exploration import changeable, perturbed

ENV = envs.load("gymnax.cartpole")
SMALL = {"num_envs": 2, "rollout_length": 2, "buffer_size": 300, "batch_size": 64}


def explored(algorithm, fixed=()):
    recipe = Recipe(algorithm, "mlp")
    return changeable(recipe.hyperparams(), recipe.search_space(), dict.fromkeys(fixed))


@pytest.mark.parametrize("algorithm", AGENTS)
def test_changing_a_new_lane_equals_starting_it_with_the_changed_values(algorithm):
    """Law over the algorithms: nothing in a lane at its start depends on what is explored, but the leaf."""
    recipe = Recipe(algorithm, "mlp")
    known = values(recipe.hyperparams())
    small = {k: v for k, v in SMALL.items() if k in known}
    nets = {k: 4 for k in known if k.endswith(".width")} | {k: 1 for k in known if k.endswith(".depth")}
    hp = assign(recipe.hyperparams(), {**small, **nets})
    space = explored(algorithm)
    assert space
    others = [(path, assign(hp, {path: v})) for path, s in space.items() for v in s.grid(2)]
    caps = hp.capacities([merge([h.sizes() for h in (hp, *(o for _, o in others))])], [1], ENV)
    key = jnp.asarray([0, 1], jnp.uint32)
    begin = jax.jit(lambda h: train.start(h, ENV, caps, jnp.int32(100), key=key, init_key=key))

    def rest(h):
        state = begin(jax.tree.map(jnp.asarray, h))
        return jax.tree.leaves(eqx.tree_at(lambda s: s.agent.hp, state, None))

    expected = rest(hp)
    for path, other in others:
        for ours, theirs in zip(expected, rest(other), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, err_msg=path)


@pytest.mark.parametrize("algorithm", AGENTS)
def test_hyperparameters_of_networks_and_of_collection_are_not_explored(algorithm):
    names = set(explored(algorithm))
    assert not any("." in name for name in names)
    assert not names & {"num_envs", "rollout_length", "buffer_size", "warmup_rollout_length", "init_alpha"}
    assert "gamma" in names
    assert names & {"epochs", "batch_size"}, "trip counts and batches inside the allocation may change"


def test_fixed_and_single_valued_hyperparameters_are_not_explored():
    assert "gamma" not in explored("ppo", ["gamma"])
    assert "autotune" in Recipe("sac", "mlp").search_space()
    assert "autotune" not in explored("sac")


def test_a_joint_choice_is_explored_when_all_of_it_may_be():
    hp = Recipe("ppo", "mlp").hyperparams()
    free, bound = (
        Joint(("epochs", "gamma"), (1, 0.9), (4, 0.99)),
        Joint(("epochs", "num_envs"), (1, 8), (4, 16)),
    )
    assert list(changeable(hp, {"epochs+gamma": free, "epochs+num_envs": bound}, {})) == ["epochs+gamma"]
    moved = {values(_step(hp, {"both": free}, seed))["epochs"] for seed in range(20)}
    assert moved == {1, 4}


def _step(hp, space, seed, resample=0.25, fits=lambda tree: True):
    return perturbed(hp, space, 1.2, resample, fits, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("space", "value", "down", "up"),
    [
        (LogUniform(1e-4, 1e-2), 1e-3, 1e-3 / 1.2, 1.2e-3),
        (LogUniform(1e-4, 1e-2), 9e-3, 9e-3 / 1.2, 1e-2),
        (Uniform(0.9, 1.0), 0.95, 0.93, 0.97),
        (Uniform(0.9, 1.0), 0.91, 0.9, 0.93),
        (Integers(1, 5), 5, 4, 5),
        (Choice(2, 4, 8), 4, 2, 8),
        (Choice(True, False), True, True, False),
        (Choice("tanh", "relu"), "relu", "tanh", "relu"),
        (Choice(2, 4), 3, 2, 4),
    ],
)
def test_a_step_is_a_factor_a_share_of_the_range_or_a_neighbour(space, value, down, up):
    for way, expected in ((False, down), (True, up)):
        found = space.beside(value, way, 1.2)
        assert found == (pytest.approx(expected, rel=1e-6) if isinstance(expected, float) else expected)
        assert space.contains(found)


def test_continuous_hyperparameters_always_step_and_choices_are_sometimes_redrawn():
    hp = assign(Recipe("ppo", "mlp").hyperparams(), {"actor_lr": 1e-4, "epochs": 1})
    space = {"actor_lr": LogUniform(1e-5, 1e-3), "epochs": Integers(1, 100)}
    found = [values(_step(hp, space, seed)) for seed in range(400)]
    assert {round(f["actor_lr"] * 1e6, 2) for f in found} == {83.33, 120.0}
    jumps = sum(f["epochs"] not in (1, 2) for f in found) / 400
    assert 0.18 < jumps < 0.31
    assert all(values(_step(hp, space, seed, 0.0))["epochs"] in (1, 2) for seed in range(20))


def test_values_that_do_not_fit_the_program_are_not_changed_and_affect_no_others():
    hp = assign(Recipe("ppo", "mlp").hyperparams(), {"epochs": 2, "gamma": 0.95})
    space = {"epochs": Integers(1, 4), "gamma": Uniform(0.9, 0.99)}
    for seed in range(10):
        free = values(_step(hp, space, seed, 0.0))
        held = values(_step(hp, space, seed, 0.0, lambda tree: int(tree.epochs) <= 2))
        assert held["gamma"] == free["gamma"]
        assert held["epochs"] == (free["epochs"] if free["epochs"] <= 2 else 2)
