"""The options that programs are compiled with change speed, never what is computed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax.agents import PPOHyperparams
from hyperlax.experiments.machine import usable_cores
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


ON_CORES = """
import hashlib, json, os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[1])])
import jax, jax.numpy as jnp, numpy as np
from hyperlax.experiments.machine import set_up_jax
from hyperlax.lanes.compilation import CPU_OPTIONS, compiler_options
from hyperlax.networks.layout import affine_map, batch_last
set_up_jax()
x = np.random.default_rng(0).normal(size=(1024, 128)).astype(np.float32)

def network(weights, x):
    hidden = affine_map(weights[0], weights[0][:, 0], x)
    return affine_map(weights[1], weights[1][:, 0], jnp.sin(hidden))

def gradient(network, x):
    weights = jnp.asarray(x[:64]), jnp.asarray(x[64:320])
    return jax.grad(lambda w: jnp.sum(jnp.sin(jax.vmap(lambda x: network(w, x))(x))))(weights)

def several(x):
    sums = jnp.sum(x, 0), jnp.sum(x * x, 1), jnp.sum(x)
    inputs = x.reshape(2048, 64)
    gradients = gradient(network, inputs), gradient(batch_last(network, "network"), inputs)
    values = jnp.tanh(x) * jnp.exp(x), x @ x.T, x[:128] @ x[128:256]
    return *sums, *values, *jax.tree.leaves(gradients)

found = {"devices": jax.device_count()}
for effort in CPU_OPTIONS:
    program = jax.jit(several).lower(x).compile(compiler_options=compiler_options(effort, "cpu"))
    bits = [hashlib.sha256(np.asarray(y)).hexdigest() for y in program(x)]
    found[effort] = bits, 'outer_dimension_partitions":["' in program.as_text()
print(json.dumps(found))
"""
"""Computes some functions on as many cores as its argument says, and prints digests of the results."""


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or usable_cores() < 2, reason="a process of one core, and of two"
)
def test_bits_do_not_depend_on_the_number_of_cores():
    """Neither by a loop that is cut into a part for every core, nor by a sum that threads share.

    `NPROC` is what XLA takes for the number of cores when it starts threads.
    """
    whole = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES", "NPROC")}
    found = []
    for cores, threads in ((1, {}), (2, {}), (2, {"NPROC": "64"})):
        command = [sys.executable, "-c", ON_CORES, str(cores)]
        environment = {**whole, "JAX_PLATFORMS": "cpu", **threads}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
        assert found[-1].pop("devices") == cores
    assert found[0] == found[1] == found[2]
    assert not any(cut for _, cut in found[0].values())


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
