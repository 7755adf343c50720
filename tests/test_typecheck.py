"""Constructors and public functions refuse what is not of the annotated type or shape, in one line."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import hyperlax
from hyperlax.agents import PPOHyperparams
from hyperlax.envs.base import AbstractEnv, ActionSpace, Discrete
from hyperlax.learning.optimise import decayed
from hyperlax.registry import checked
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
    """An environment whose size is not a number."""

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


MODULE = '''"""A module of a checked package."""

from __future__ import annotations

import dataclasses

from jaxtyping import Array, Float


def dot(x: Float[Array, " n"], y: Float[Array, " n"]) -> Float[Array, ""]:
    return x @ y if x.shape[0] > 1 else x


def doubled(x: Float[Array, " n"]) -> Float[Array, "{2*x.shape[0]}"]:
    return x.repeat(2) if x.shape[0] > 1 else x


def label(number: int, /, *more: int, scale: float = 1.0, **words: str) -> str:
    class Local:
        pass

    def inner(number: int, local: Local) -> str:
        return "" if number > 0 else number

    return inner(number, Local())


def untyped(x):
    return x


class Shape:
    def __init__(self, side: int):
        self.side = side

    @property
    def area(self) -> int:
        return self.side**2 if self.side > 0 else "none"

    @staticmethod
    def unit(side: int = 1) -> Shape:
        return Shape(side)


@dataclasses.dataclass
class Point:
    x: Float[Array, " n"]
    y: Float[Array, " n"]
'''


@pytest.fixture(scope="module")
def module(tmp_path_factory) -> Iterator[Any]:
    """`MODULE`, imported while its package is checked."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "made").mkdir()
    (folder / "made" / "__init__.py").write_text("")
    (folder / "made" / "shapes.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setattr(sys, "meta_path", [*sys.meta_path])
        checked.install("made")
        yield importlib.import_module("made.shapes")
    for name in ("made.shapes", "made"):
        del sys.modules[name]


def test_functions_of_a_checked_module_accept_what_is_annotated(module):
    two = jnp.ones(2)
    assert module.dot(two, y=two) == 2
    assert module.doubled(two).shape == (4,)
    assert module.label(1, 2, scale=0.5, word="x") == ""
    assert module.Shape.unit(3).area == 9
    assert module.Point(two, two).x is two
    assert module.__doc__ == "A module of a checked package."


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda m: m.dot(jnp.ones(2), jnp.ones(3)), id="one name, two lengths"),
        pytest.param(lambda m: m.dot(jnp.ones((2, 2)), jnp.ones(2)), id="rank"),
        pytest.param(lambda m: m.dot(jnp.arange(2), jnp.arange(2)), id="dtype"),
        pytest.param(lambda m: m.dot(jnp.ones(1), jnp.ones(1)), id="shape of the result"),
        pytest.param(lambda m: m.doubled(jnp.ones(1)), id="computed length"),
        pytest.param(lambda m: m.label("1"), id="positional"),
        pytest.param(lambda m: m.label(1, "2"), id="more positional"),
        pytest.param(lambda m: m.label(1, scale="2"), id="keyword"),
        pytest.param(lambda m: m.label(1, word=2), id="more keywords"),
        pytest.param(lambda m: m.label(0), id="result of an inner function"),
        pytest.param(lambda m: m.Shape("1"), id="method"),
        pytest.param(lambda m: m.Shape.unit("1"), id="static method"),
        pytest.param(lambda m: m.Shape(0).area, id="result of a property"),
        pytest.param(lambda m: m.Point(jnp.ones(2), jnp.ones(3)), id="fields"),
    ],
)
def test_functions_of_a_checked_module_refuse_everything_else(module, call):
    with pytest.raises(TypeError):
        call(module)


def test_what_has_nothing_to_check_is_left_alone_and_signatures_stay(module):
    assert not hasattr(module.untyped, "__wrapped__")
    assert str(inspect.signature(module.label)).startswith("(number: 'int', /, *more: 'int'")
    assert module.dot.__annotations__["return"] == "Float[Array, '']"


def test_the_package_is_checked_while_it_is_tested():
    one = jnp.float32(1)
    assert decayed(one, one, jnp.bool_(False)) == 1
    with pytest.raises(TypeError, match="progress"):
        decayed(one, jnp.ones(2), jnp.bool_(False))
