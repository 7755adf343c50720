"""Capacities and costs: enough room for every lane, and only chunk sizes that are worth compiling."""

from __future__ import annotations

import numpy as np
import pytest

from hyperlax import envs
from hyperlax.agents import PPOHyperparams
from hyperlax.agents.costs import LARGEST_CHUNK, MOST_CHUNKS, chunk_for
from hyperlax.experiments.recipes import Recipe
from hyperlax.hyperparams import assign
from hyperlax.networks import MLPHyperparams

ENV = envs.load("gymnax.pendulum")


def drawn(rng, **fixed):
    return assign(
        PPOHyperparams(),
        {
            "num_envs": int(2 ** rng.integers(1, 12)),
            "rollout_length": int(rng.integers(1, 100)),
            "num_minibatches": int(2 ** rng.integers(0, 9)),
            "epochs": int(rng.integers(1, 9)),
            "actor.width": int(rng.integers(4, 200)),
            "critic.depth": int(rng.integers(1, 4)),
            **fixed,
        },
    )


def test_sizes_are_what_a_cycle_needs():
    rng = np.random.default_rng(0)
    for _ in range(30):
        hp = drawn(rng)
        sizes, batch = hp.sizes(), int(hp.num_envs) * int(hp.rollout_length)
        assert sizes["gradient_steps"] == int(hp.epochs) * min(int(hp.num_minibatches), batch)
        minibatches = sizes["gradient_steps"] // int(hp.epochs)
        assert sizes["minibatch"] * minibatches >= batch
        assert (sizes["minibatch"] - 1) * minibatches < batch


@pytest.mark.parametrize(("minibatch", "chunk"), [(1, 4), (4, 4), (5, 9), (9, 9), (30, 9)])
def test_a_minibatch_goes_into_the_smallest_chunk_that_holds_it_or_the_largest(minibatch, chunk):
    assert chunk_for(minibatch, (4, 9)) == chunk


def test_capacities_hold_every_lane():
    rng = np.random.default_rng(1)
    for _ in range(10):
        hps = [drawn(rng) for _ in range(int(rng.integers(1, 8)))]
        caps = hps[0].capacities([hp.sizes() for hp in hps], [1000] * len(hps), ENV)
        chunks = caps["minibatch_chunks"]
        assert list(chunks) == sorted(set(chunks))
        assert 1 <= len(chunks) <= MOST_CHUNKS
        assert max(chunks) <= LARGEST_CHUNK
        assert caps["env_block"] * caps["env_blocks"] >= caps["num_envs"] == max(int(h.num_envs) for h in hps)


def test_the_capacities_of_one_lane_are_its_sizes():
    rng = np.random.default_rng(2)
    for _ in range(10):
        hp = drawn(rng)
        sizes = hp.sizes()
        caps = hp.capacities([sizes], [1], ENV)
        assert {k: caps[k] for k in sizes} == sizes
        assert caps["minibatch_chunks"] == (min(sizes["minibatch"], LARGEST_CHUNK),)


def test_work_grows_with_everything_that_costs():
    base = {"num_envs": 64, "rollout_length": 16, "num_minibatches": 4, "epochs": 2, "actor.width": 64}
    work = lambda **changes: _alone(assign(PPOHyperparams(), {**base, **changes}))  # noqa: E731
    for name, more in [("epochs", 4), ("rollout_length", 64), ("num_envs", 256), ("actor.width", 256)]:
        total, gradient = work(**{name: more})
        assert total > work()[0], name
        assert total > gradient > work()[1], name


def _alone(hp):
    sizes = hp.sizes()
    return hp.work(sizes, hp.capacities([sizes], [1], ENV), ENV)


def test_padding_costs_work():
    rng = np.random.default_rng(3)
    small, large = drawn(rng, **{"actor.width": 8}), drawn(rng, **{"actor.width": 200})
    caps = small.capacities([small.sizes(), large.sizes()], [1, 1], ENV)
    assert small.work(small.sizes(), caps, ENV)[0] > _alone(small)[0]


def test_a_forward_pass_costs_little_more_than_two_operations_per_weight():
    for width, depth in ((64, 1), (128, 3)):
        hp = assign(MLPHyperparams(), {"width": width, "depth": depth})
        weights = 5 * width + (depth - 1) * width * width
        flops = MLPHyperparams.flops(5, hp.sizes())
        assert 2 * weights <= flops <= 2 * weights + 40 * width * depth


def test_circuit_executions_equal_a_count_by_hand():
    """Actor on pendulum: 3 features on one wire, 1 layer, 3 rotations; critic: with the action, two wires."""
    hp = assign(
        Recipe("sac", "drpqc").hyperparams(), {"actor.layers": 1, "critic.layers": 1, "batch_size": 8}
    )
    per_step, per_gradient = hp.executions(ENV)
    assert per_step == 1
    assert per_gradient == 8 * (1 + (6 * 3 + 1) + 2 + 4 * (6 * 6 + 1))
    assert Recipe("sac", "mlp").hyperparams().executions(ENV) == (0, 0)


@pytest.mark.parametrize(
    ("minibatches", "message"),
    [(3, None), (4, "do not divide 6 samples"), (8, "8 minibatches of 6 samples: 6 minibatches of one")],
)
def test_conflicting_hyperparameters_are_explained(minibatches, message):
    hp = assign(PPOHyperparams(), {"num_envs": 2, "rollout_length": 3, "num_minibatches": minibatches})
    problems = hp.problems()
    assert (problems == []) == (message is None)
    assert message is None or message in problems[0]


def test_samples_that_are_dropped_are_said_to_be():
    changes = {"num_envs": 2, "rollout_length": 3, "num_minibatches": 4, "minibatch_remainder": "drop"}
    (problem,) = assign(PPOHyperparams(), changes).problems()
    assert problem.endswith("do not divide 6 samples: an epoch leaves 2 out")
