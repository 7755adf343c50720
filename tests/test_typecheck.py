"""Constructors and public functions refuse what is not of the annotated type or shape, in one line."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import hyperlax
from hyperlax.agents import PPOHyperparams
from hyperlax.envs.base import AbstractEnv, ActionSpace, Discrete
from hyperlax.typecheck import public


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("gamma", [1, 2], r"PPOHyperparams\.gamma is \[1, 2\]; it must be Float32\[Array, ''\]"),
        ("gamma", np.ones(2), r"gamma is an array of float64 of shape \(2,\); it must be Float32"),
        ("epochs", jnp.float32(1), r"epochs is an array of float32 of shape \(\); it must be Int32"),
        ("actor", 3, "AbstractNetworkHyperparams"),  # the import hook of the tests may say it first
    ],
)
def test_hyperparameters_refuse_other_types_and_shapes(field, value, message):
    with pytest.raises(TypeError, match=message):
        PPOHyperparams(**{field: value})


def test_numpy_scalars_are_hyperparameters_on_the_host():
    gamma: Any = np.asarray(0.5, np.float32)
    assert PPOHyperparams(gamma=gamma).gamma == np.float32(0.5)


class Short(AbstractEnv):
    """An environment whose size is no number."""

    obs_size: int
    action_space: ActionSpace = Discrete(2)
    max_episode_steps: int = 1

    def reset(self, *, key):
        raise RuntimeError

    def step(self, state, action, *, key):
        raise RuntimeError


def test_environments_are_checked_when_they_are_built():
    size: Any = "two"
    with pytest.raises(TypeError, match=r"Short\.obs_size is 'two'; it must be int"):
        Short(obs_size=size)
    assert Short(obs_size=2).obs_size == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_sample": 3}, 'prepare\\(\\) has no parameter "num_sample"; did you mean "num_samples"'),
        ({"num_samples": "4"}, r"prepare\(\) parameter num_samples is '4'; it must be int \| None"),
        ({"num_samples": 4.5}, r"num_samples is 4\.5; it must be int"),
        ({"schedule": "asha"}, r"schedule is 'asha'; it must be Schedule \| None"),
    ],
)
def test_public_functions_name_the_parameter_and_what_it_must_be(arguments, message):
    with pytest.raises(TypeError, match=message):
        hyperlax.prepare("ppo_mlp", "gymnax.cartpole", **arguments)


def test_whole_numbers_of_any_kind_are_integers():
    for seeds in (3, 3.0, np.int64(3), np.float32(3)):
        settings = hyperlax.prepare("ppo_mlp", "gymnax.cartpole", seeds=seeds).settings  # pyright: ignore[reportArgumentType]
        assert (settings.seeds, type(settings.seeds)) == (3, int)


@public
def scaled(x: float, by: int | None = None) -> float:
    """Multiply."""
    return x * (by or 1)


def test_an_int_is_a_float_and_signatures_stay():
    assert scaled(2) == 2
    assert scaled(2.5, by=2) == 5
    assert (scaled.__name__, scaled.__doc__) == ("scaled", "Multiply.")
    with pytest.raises(TypeError, match="missing a required argument: 'x'"):
        scaled(by=2)  # pyright: ignore[reportCallIssue]
