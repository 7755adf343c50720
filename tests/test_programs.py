"""The options that programs are compiled with change speed, never what is computed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax.agents import PPOHyperparams
from hyperlax.lanes.compilation import CPU_OPTIONS, compiler_options
from hyperlax.programs.orders import blank_orders

FUNCTIONS = ("arctan", "tanh", "sin", "cos", "exp", "expm1", "log1p", "sqrt", "arcsinh", "cbrt", "sinh")


@pytest.mark.parametrize("effort", CPU_OPTIONS)
def test_elementary_functions_are_numpys(effort):
    """In vectors of every length that a compiler treats differently."""
    x = np.abs(np.random.default_rng(0).normal(size=256)).astype(np.float32)

    @jax.jit
    def all_of(x):
        return [getattr(jnp, name)(x) for name in FUNCTIONS]

    for size in (3, 16, 256):
        found = all_of.lower(x[:size]).compile(compiler_options=compiler_options(effort, "cpu"))(x[:size])
        for name, values in zip(FUNCTIONS, found, strict=True):
            np.testing.assert_allclose(values, getattr(np, name)(x[:size]), rtol=1e-5, err_msg=name)


def test_orders_may_change_while_a_program_still_reads_them():
    """jax takes aligned NumPy arrays without a copy, and a call returns before its program has run."""
    orders = blank_orders(PPOHyperparams(), 2)
    orders.fresh[:] = True
    given = orders.arrays()
    held = [orders.hp, orders.key, orders.init_key, orders.total_steps, orders.fresh]
    for mine, theirs in zip(jax.tree.leaves(held), jax.tree.leaves(given), strict=True):
        assert not np.shares_memory(mine, theirs)
    orders.fresh[:] = False
    assert given[-1].all()
