"""Copies that stay on a device until they are written, while programs consume what they were made of."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax import envs
from hyperlax.agents import PPOHyperparams
from hyperlax.experiments import memory
from hyperlax.programs import compiled
from hyperlax.programs.compiled import Compiled, Copy, state_like
from hyperlax.storage.aside import Aside, set_aside
from hyperlax.storage.checkpoint import pack, unpack


@partial(jax.jit, donate_argnums=0)
def consume(tree):
    return jax.tree.map(lambda x: jnp.logical_not(x) if x.dtype == bool else x + 1, tree)


def tree(lanes: int) -> dict[str, jax.Array]:
    """Arrays of every kind that a state has, with a leading axis of lanes."""
    numbers = jnp.arange(lanes * 6).reshape(lanes, 2, 3)
    return {
        "weights": numbers.astype(jnp.float32),
        "key": numbers[:, 0, :2].astype(jnp.uint32),
        "done": numbers[:, 0, 0] % 2 == 0,
        "none": jnp.zeros((lanes, 0)),
        "complex": numbers.astype(jnp.complex64) * 1j,
        "half": numbers.astype(jnp.bfloat16),
    }


def test_what_is_set_aside_survives_the_program_that_consumes_it():
    state = tree(3)
    before = jax.tree.map(lambda x: np.array(x), state)
    aside = set_aside(state)
    consume(state)
    assert all(isinstance(x, Aside) for x in jax.tree.leaves(aside))
    for name, array in before.items():
        assert (aside[name].shape, aside[name].dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(np.asarray(aside[name]), array)
        part = aside[name][1]
        assert (part.shape, part.dtype) == (array[1].shape, array.dtype)
        np.testing.assert_array_equal(np.asarray(part), array[1])


def test_a_checkpoint_of_it_is_that_of_arrays_of_the_host():
    state, lane = tree(3), jax.tree.map(lambda x: np.array(x[2]), tree(3))
    data = pack(jax.tree.map(lambda x: x[2], set_aside(state)), note=1)
    assert data == pack(lane, note=1)
    jax.tree.map(np.testing.assert_array_equal, unpack(data, lane), lane)


@pytest.mark.parametrize(
    ("small", "spare", "aside"),
    [(1, 0, True), (1, 1, False), (0, 0, False)],
    ids=["room", "no-room", "small"],
)
def test_only_large_states_are_set_aside_and_only_where_the_program_keeps_its_memory(
    monkeypatch, small, spare, aside
):
    """`small` and `spare`: by how many bytes the state is too large to be small, and the device too full."""
    hp, env = PPOHyperparams(), envs.load("gymnax.cartpole")
    like = state_like(hp, env, hp.capacities([hp.sizes()], [1], env))
    state = jax.tree.map(lambda x: jnp.ones((2, *x.shape), x.dtype), like)
    size, needed = sum(x.nbytes for x in jax.tree.leaves(state)), 1000
    program = Compiled(2, [Copy(jax.devices()[0], *[lambda *_: state] * 3)], like, 0.0, 0.0, needed)
    monkeypatch.setattr(compiled, "SMALL_STATE", size - small)
    lanes = program.lanes([state], [1, 0], lambda device: size + 2 * needed - spare)
    assert {isinstance(x, Aside) for lane in lanes for x in jax.tree.leaves(lane)} == {aside}
    assert jax.tree.map(np.shape, lanes[0]) == jax.tree.map(np.shape, like)


def test_an_accelerator_spares_what_is_free_and_a_cpu_nothing():
    stats = {"bytes_limit": 100, "bytes_in_use": 30}
    gpu = SimpleNamespace(platform="gpu", memory_stats=lambda: stats)
    assert memory.spare_memory(gpu) == 70
    assert memory.spare_memory(jax.devices("cpu")[0]) == 0
