"""Env steps come in whole cycles: how many of those asked for a lane trains."""

from __future__ import annotations

import numpy as np
import pytest

from hyperlax.programs.budget import cycles_of, steps_of


@pytest.mark.parametrize(
    ("total", "cycle", "expected"),
    [
        (5_000, 8, 5_000),
        (5_000, 32, 5_024),
        (5_000, 128, 4_992),
        (5_000, 1_024, 4_096),
        (5_000, 4_096, 4_096),
        (5_000, 5_050, 5_050),
        (5_000, 5_051, 0),
        (30_000, 131_072, 0),
        (1_000_000, 8_192, 1_007_616),
        (1, 1, 1),
        (99, 100, 0),
        (100, 101, 101),
    ],
)
def test_a_lane_ends_with_the_last_cycle_that_is_at_most_one_percent_above(total, cycle, expected):
    assert steps_of(total, cycle) == expected
    assert cycles_of(total, {"num_envs": cycle, "rollout_length": 1}) * cycle == expected


def test_a_lane_can_end_with_the_first_cycle_that_reaches_the_steps_however_far_above():
    for total, cycle in ((5_000, 1_024), (99, 100), (100, 101), (5_000, 8)):
        end = steps_of(total, cycle, reaching=True)
        assert total <= end < total + cycle
        assert end % cycle == 0
        assert steps_of(total, cycle, end, reaching=True) == end


def test_the_end_stays_what_it_is_while_a_lane_trains_towards_it():
    """From every cycle on the way, and at the end, where no cycle is left; it is never over 1 % above."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        cycle, total = int(rng.integers(1, 2_000)), int(rng.integers(1, 20_000))
        end = steps_of(total, cycle)
        assert 100 * end <= 101 * total, "at most 1 % above"
        assert 100 * (end + cycle) > 101 * total or end >= total, "no further cycle fits"
        assert all(steps_of(total, cycle, start) == end for start in range(0, end + 1, cycle))


def test_a_lane_that_has_changed_its_cycle_trains_on_from_where_it_is():
    assert steps_of(800, 128, 192) == 704
    assert steps_of(800, 64, 192) == 768
    assert steps_of(800, 128, 800) == 800
    assert steps_of(800, 128, 900) == 900
