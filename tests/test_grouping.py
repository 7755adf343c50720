"""Grouping samples into programs by what groups cost, and what programs cost that run at the same time."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from hyperlax.programs import grouping, lockstep
from hyperlax.programs.lockstep import Seconds


def spread(values: np.ndarray, fixed: float):
    """The cost of a group whose members all cost as much as the dearest, and `fixed` for being there."""
    return lambda group: fixed + len(group) * max(float(values[i]) for i in group)


def partitions(items: list[int]):
    """Every way to group `items`."""
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for n in range(len(rest) + 1):
        for others in combinations(rest, n):
            for found in partitions([i for i in rest if i not in others]):
                yield [(first, *others), *found]


@pytest.mark.parametrize("seed", range(8))
def test_moving_only_ever_saves_and_nothing_is_lost(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 9))
    cost = spread(rng.exponential(size=count), float(rng.exponential()))
    start = [tuple(g.tolist()) for g in np.array_split(rng.permutation(count), min(3, count))]
    found = grouping.moved(start, [(i,) for i in range(count)], cost)
    assert sorted(i for group in found for i in group) == list(range(count))
    assert all(found)
    total = sum(map(cost, found))
    assert total <= sum(map(cost, start))
    least = min(sum(map(cost, groups)) for groups in partitions(list(range(count))))
    assert least <= total + 1e-9


def test_a_sample_leaves_the_group_that_it_was_merged_into_too_early():
    """The middle one was merged with the cheap one, before another one came that it fits."""
    cost = spread(np.array([1.0, 3.0, 3.1]), 0.5)
    found = grouping.moved([(0, 1), (2,)], [(0,), (1,), (2,)], cost)
    assert sorted(found) == [(0,), (1, 2)]


def test_samples_that_are_alike_stay_together():
    cost = spread(np.array([1.0, 3.0, 3.0, 3.1]), 0.5)
    found = grouping.moved([(0, 1, 2), (3,)], [(0,), (1, 2), (3,)], cost)
    assert sorted(found) == [(0,), (1, 2, 3)]


def test_waiting_overlaps_and_arithmetic_adds_up():
    programs = [Seconds(6.0, 1.0), Seconds(2.0, 1.0), Seconds(4.0, 0.5)]
    assert lockstep.at_once(programs, 1) == pytest.approx(sum(map(sum, programs)))
    assert lockstep.at_once(programs, 2) == pytest.approx(12 / 2 + 2.5)
    assert lockstep.at_once(programs, 100) == pytest.approx(7.0), "the longest program"
    assert lockstep.at_once([], 2) == 0
