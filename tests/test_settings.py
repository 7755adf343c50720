"""Settings: run lengths, milestones, how and where, and refusing nonsense."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from hyperlax.experiments.execution import Execution
from hyperlax.experiments.recipes import Recipe
from hyperlax.experiments.settings import PUBLISHED, RUN_LENGTHS, Settings, run_length


def test_published_milestones():
    long = Settings().updated(run_length("long"))
    assert long.milestones() == [125_000 * i for i in range(1, 41)]


def test_the_page_on_reproduction_names_all_that_the_published_protocol_sets():
    page = (Path(__file__).parents[1] / "docs/reproduction.md").read_text()
    rows = re.findall(r"^\| (`.+?`) \|.*\|$", page, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    algorithms = [Recipe(name, "drpqc").published("gymnax.pendulum") for name in ("ppo", "dqn", "sac")]
    assert named == set(PUBLISHED).union(*algorithms)


@pytest.mark.parametrize(("steps", "expected"), [(32_768, [131_072, 262_144, 393_216]), (1_024, [125_952])])
def test_published_evaluation_points(steps, expected):
    """A milestone is evaluated at the first cycle boundary at or after it."""
    marks = Settings().updated(run_length("long")).milestones()
    assert [math.ceil(m / steps) * steps for m in marks[: len(expected)]] == expected


def test_milestones_ascend_to_the_end_and_are_spread_evenly():
    rng = np.random.default_rng(0)
    for _ in range(200):
        total, n = int(rng.integers(1, 10_000)), int(rng.integers(0, 60))
        marks = Settings(total_timesteps=total, evaluations=n).milestones()
        assert marks == sorted(set(marks))
        assert len(marks) <= n
        if n == 0:
            assert marks == []
            continue
        assert marks[-1] == total
        if total >= n:
            assert len(marks) == n
            assert marks == [i * (total // n) for i in range(1, n)] + [total]


def test_an_evaluation_at_the_start_comes_first():
    base = Settings(total_timesteps=100, evaluations=4)
    assert base.updated({"eval_at_start": "true"}).milestones() == [0, *base.milestones()]


@pytest.mark.parametrize("modifier", [5000, "5000"])
def test_an_integer_run_length_is_a_number_of_steps(modifier):
    assert Settings().updated(run_length(modifier)).total_timesteps == 5000


@pytest.mark.parametrize("modifier", RUN_LENGTHS)
def test_every_run_length_gives_valid_settings(modifier):
    changes = run_length(modifier)
    changed = Settings().updated(changes)
    assert all(getattr(changed, k) == v for k, v in changes.items())


@pytest.mark.parametrize(
    ("modifier", "message"),
    [("quikc", 'did you mean "quick"'), ("1e6x", "number of environment steps"), ("-5", "allowed: quick")],
)
def test_an_unknown_run_length_says_what_is_allowed(modifier, message):
    with pytest.raises(ValueError, match=message):
        run_length(modifier)


def test_run_length_zero_is_refused():
    with pytest.raises(ValueError, match="total_timesteps must be at least 1"):
        Settings().updated(run_length(0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"total_timestep": 5}, 'unknown setting "total_timestep"; did you mean "total_timesteps"'),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"evaluations": -1}, "evaluations must be at least 0"),
        ({"eval_episodes": "x"}, "eval_episodes needs an integer"),
        ({"eval_episodes": "1.5"}, "eval_episodes needs an integer"),
        ({"eval_episodes": 1.5}, "eval_episodes needs an integer"),
        ({"eval_at_start": "maybe"}, "true or false"),
        ({"protocol": "publishd"}, 'did you mean "published"'),
        ({"evaluation": "greedy"}, "one of deterministic, sampled"),
        ({"initial_weights": "none"}, "one of per_lane, shared"),
        ({"evaluation_keys": "new"}, "one of fresh, fixed"),
        ({"last_cycle": "over"}, "one of bounded, reaching"),
    ],
)
def test_wrong_settings_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        Settings().updated(changes)


def test_text_becomes_the_type_of_the_setting():
    changed = Settings().updated({"total_timesteps": "5e6", "seeds": "3", "eval_at_start": "False"})
    assert (changed.total_timesteps, changed.seeds, changed.eval_at_start) == (5_000_000, 3, False)
    assert isinstance(changed.total_timesteps, int)


def test_updating_leaves_the_original_alone():
    base = Settings()
    assert base.updated({"seeds": 3}) != base
    assert base == Settings()


def test_folder_and_resume_add_to_how_an_experiment_is_run():
    how = Execution(folder="there", lanes_at_once=3)
    assert how.at(None, False) == how
    assert how.at(None, True) == Execution(folder="there", resume=True, lanes_at_once=3)
    assert how.at("here", False) == Execution(folder="here", lanes_at_once=3)
    assert Execution(resume=True).at("here", False) == Execution(folder="here", resume=True)
