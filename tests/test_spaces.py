"""Search spaces: from a uniform number to a value and back."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hyperlax.hyperparams.spaces import (
    Choice,
    Integers,
    Joint,
    LogUniform,
    Uniform,
    decode,
    resolved,
    without,
)

unit = st.floats(0, 1)
few = settings(deadline=None, max_examples=60)


@st.composite
def intervals(draw, least: float = -1e3):
    low = draw(st.floats(least, 1e3))
    return low, low + draw(st.floats(1e-3, 1e3))


@st.composite
def spaces(draw):
    """A function without arguments that makes a space: the type checker's own dice must not roll in here."""
    low, high = draw(intervals(1e-4))
    first, more = draw(st.integers(-5, 5)), draw(st.integers(0, 9))
    distinct = draw(st.lists(st.integers(), min_size=1, max_size=5, unique=True))
    makers = [
        lambda: Uniform(low - 1, high),
        lambda: LogUniform(low, high),
        lambda: Integers(first, first + more),
        lambda: Choice(*distinct),
        lambda: Choice(True, False),
        lambda: Choice("relu", "tanh", "silu"),
        lambda: Joint(("width", "depth"), (32, 5), (64, 6), (128, 7)),
    ]
    return draw(st.sampled_from(makers))


@few
@given(spaces(), unit)
def test_every_probability_gives_a_value_of_the_space(make, u):
    space = make()
    assert space.contains(space.ppf(u))


@few
@given(spaces(), st.integers(1, 9))
def test_grid_values_belong_to_the_space_and_are_distinct(make, points):
    space = make()
    values = space.grid(points)
    assert all(space.contains(v) for v in values)
    assert len({json.dumps(v) for v in values}) == len(values)
    if isinstance(space, (Uniform, LogUniform, Integers)):
        assert len(values) <= points


@few
@given(intervals(), unit, unit)
def test_continuous_spaces_keep_the_order_of_probabilities(bounds, u, v):
    u, v = sorted((u, v))
    assert Uniform(*bounds).ppf(u) <= Uniform(*bounds).ppf(v)


@few
@given(intervals(1e-3), unit)
def test_uniform_is_linear_and_log_uniform_linear_in_the_logarithm(bounds, u):
    low, high = bounds
    assert Uniform(low, high).ppf(u) == pytest.approx(low + u * (high - low), rel=1e-5)
    expected = math.exp(math.log(low) + u * math.log(high / low))
    assert LogUniform(low, high).ppf(u) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("space", [Integers(-2, 4), Choice(*"abcdefg")])
def test_discrete_values_are_equally_likely(space):
    """Exactly: over a fine regular grid of probabilities each of the seven values comes as often."""
    drawn = [space.ppf((i + 0.5) / 700) for i in range(700)]
    assert sorted({drawn.count(v) for v in set(drawn)}) == [100]
    assert len(set(drawn)) == 7


@pytest.mark.parametrize("space", [Integers(1, 3), Choice(1, 2, 3)])
def test_the_end_of_the_unit_interval_is_the_last_value(space):
    assert space.ppf(0.0) == 1
    assert space.ppf(1.0) == 3


def test_joint_chooses_all_of_its_values_together():
    joint = Joint(("width", "depth"), (32, 5), (64, 6), (128, 7))
    assert [joint.ppf(u) for u in (0.1, 0.5, 0.9)] == joint.grid(3)
    assert joint.ppf(0.5) == {"width": 64, "depth": 6}
    assert not joint.contains({"width": 64, "depth": 5})
    assert not joint.contains({"width": 64})
    assert not joint.contains(64)


def test_decode_resolves_joints_and_keeps_the_order():
    space = {
        "net": Joint(("width", "depth"), (32, 1), (64, 2)),
        "lr": Uniform(0, 1),
        "on": Choice(True, False),
    }
    assert decode(space, [0.9, 0.25, 0.0]) == {"width": 64, "depth": 2, "lr": 0.25, "on": True}


def test_decode_needs_one_coordinate_per_dimension():
    with pytest.raises(ValueError, match="shorter"):
        decode({"a": Uniform(0, 1), "b": Uniform(0, 1)}, [0.5])


@pytest.mark.parametrize(
    ("space", "stranger"),
    [
        (Uniform(0, 1), 1.1),
        (Uniform(0, 1), True),
        (Uniform(0, 1), "0.5"),
        (LogUniform(1e-3, 1), 0.0),
        (Integers(1, 3), 1.5),
        (Integers(1, 3), 4),
        (Integers(0, 3), True),
        (Choice(1, 2), True),
        (Choice(True), 1),
        (Choice("relu"), "Relu"),
    ],
)
def test_values_outside_are_recognised(space, stranger):
    assert not space.contains(stranger)


def test_bounds_that_float32_cannot_hold_still_belong():
    """0.1 in float32 is a little above 0.1: rounding must not push a drawn value outside."""
    for space in (Uniform(0.1, 0.3), LogUniform(1e-5, 1e-3)):
        assert space.contains(space.ppf(0.0))
        assert space.contains(space.ppf(1.0))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Uniform(1, 1), "low < high"),
        (lambda: LogUniform(0, 1), "0 < low < high"),
        (lambda: LogUniform(2, 1), "0 < low < high"),
        (lambda: Integers(3, 2), "low <= high"),
        (lambda: Choice(), "at least one value"),
        (lambda: Joint(("a", "b"), (1, 2), (3,)), "needs 2 values"),
        (lambda: Joint(("a", "b")), "needs 2 values"),
    ],
)
def test_impossible_spaces_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


@few
@given(spaces())
def test_descriptions_survive_json(make):
    described = make().describe()
    assert json.loads(json.dumps(described)) == described
    assert isinstance(described["type"], str)


def test_published_samples_zero_and_one():
    """The first two of the published PPO samples, from the Sobol points that gave them."""
    from scipy.stats import qmc

    sequence = qmc.Sobol(21, scramble=True, seed=42)  # pyright: ignore[reportCallIssue] - not in the signature
    points = sequence.random_base2(1)
    lr, gamma, ent = LogUniform(1e-5, 1e-3), Uniform(0.9, 0.99), LogUniform(1e-5, 1e-1)
    golden = [(2.486e-4, 0.972561, 4.923e-3), (2.514e-5, 0.900492, 1.038e-4)]
    for point, (actor_lr, discount, entropy) in zip(points, golden, strict=True):
        assert lr.ppf(point[6]) == pytest.approx(actor_lr, rel=3e-4)
        assert gamma.ppf(point[8]) == pytest.approx(discount, abs=1e-6)
        assert ent.ppf(point[11]) == pytest.approx(entropy, rel=3e-4)


@pytest.mark.parametrize(
    ("space", "described", "distribution"),
    [
        (Uniform(0.5, 2), {"type": "uniform", "low": 0.5, "high": 2}, FloatDistribution(0.5, 2)),
        (
            LogUniform(0.5, 2),
            {"type": "log_uniform", "low": 0.5, "high": 2},
            FloatDistribution(0.5, 2, log=True),
        ),
        (Integers(-1, 3), {"type": "integers", "low": -1, "high": 3}, IntDistribution(-1, 3)),
        (Choice("b", 1), {"type": "choice", "values": ["b", 1]}, CategoricalDistribution(["b", 1])),
        (
            Joint(("a", "b"), (1, 2), (3, 4)),
            {"type": "joint", "paths": ["a", "b"], "choices": [[1, 2], [3, 4]]},
            CategoricalDistribution(["[1, 2]", "[3, 4]"]),
        ),
    ],
)
def test_manifests_and_optuna_are_told_what_a_space_is(space, described, distribution):
    assert space.describe() == described
    assert space.distribution() == distribution


@few
@given(spaces())
def test_what_optuna_draws_belongs_to_the_space(make):
    """The smallest and largest of the distribution, and draws in between, through the names it stores."""
    import optuna

    space = make()
    distribution = space.distribution()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(5):
        parameter = study.ask({"x": distribution}).params["x"]
        assert space.contains(space.chosen(parameter))
    stored = optuna.distributions.distribution_to_json(distribution)
    assert optuna.distributions.json_to_distribution(stored) == distribution


def test_choices_of_every_kind_come_back_from_their_names():
    choice = Choice(True, False, 1, 2.5, "relu", None, [64, 64], (3,))
    names = [choice.distribution().choices[i] for i in range(len(choice.values))]
    assert [choice.chosen(name) for name in names] == list(choice.values)
    assert [type(choice.chosen(name)) for name in names] == [type(v) for v in choice.values]
    joint = Joint(("w", "d"), (32, 1), (64, None))
    assert [joint.chosen(name) for name in joint.distribution().choices] == joint.grid(2)
    with pytest.raises(ValueError, match="'silu' is none of"):
        Choice("relu", "tanh").chosen("silu")


def test_parameters_resolve_to_hyperparameters():
    space = {"lr": LogUniform(1e-3, 1), "w+d": Joint(("w", "d"), (32, 1), (64, 2))}
    assert resolved(space, {"lr": 0.1, "w+d": "[64, 2]"}) == {"lr": 0.1, "w": 64, "d": 2}


def test_what_is_fixed_is_left_out_and_joint_choices_keep_to_it():
    space = {
        "lr": LogUniform(1e-3, 1),
        "w+d": Joint(("w", "d"), (32, 1), (64, 2), (64, 3)),
    }
    assert without(space, {}) == space
    assert without(space, {"lr": 0.1}) == {"w+d": space["w+d"]}
    assert without(space, {"w": 64})["w+d"] == Joint(("d",), (2,), (3,))
    assert without(space, {"w": 5})["w+d"] == Joint(("d",), (1,), (2,), (3,))
    assert without(space, {"w": 64, "d": 2}) == {"lr": space["lr"]}
