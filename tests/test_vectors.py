"""Programs have wide vectors where XLA computes every function in them right, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from hyperlax import sweeps
from hyperlax.lanes import vectors
from hyperlax.lanes.compilation import compiler_options
from hyperlax.lanes.vectors import FUNCTIONS, primitives, wrong_in_wide_vectors
from hyperlax.programs import compiled
from hyperlax.programs.plan import Machine, plan

ARITHMETIC = {
    *("abs", "add", "conj", "copy", "is_finite", "max", "min", "mul", "neg", "nextafter", "one_minus_square"),
    *("polynomial", "sign", "square", "stage", "stop_gradient", "sub"),
}
"""Operations that CPUs have themselves, or that compute nothing."""
SERIES = {"igamma", "igamma_grad_a", "igammac", "polygamma", "zeta"}
"""Operations that XLA writes as loops and other operations."""


def test_functions_that_are_trusted_are_right_in_vectors_of_every_length():
    """In loops that LLVM vectorises whole, in part and not at all."""
    trusted = {name: f for name, f in FUNCTIONS.items() if name not in wrong_in_wide_vectors()}
    assert {"tanh", "exp", "log", "erf_inv"} <= set(trusted)
    options = compiler_options("full", "cpu", wide_vectors=True)
    for size in (5, 16, 100):
        x = np.linspace(0.15, 0.85, size, dtype=np.float32)
        x = np.round(x * 256) / 256  # so that three times as much is exact, too
        all_of = jax.jit(lambda x: {name: f.computed(x) for name, f in trusted.items()})
        found = all_of.lower(x).compile(compiler_options=options)(x)
        for name, function in trusted.items():
            right = function.right(x.astype(np.float64))
            np.testing.assert_allclose(found[name], right, rtol=1e-5, atol=1e-5, err_msg=name)


def test_every_function_of_jax_is_tried():
    """One that a later version adds must be named here or tried."""
    met = set()
    for name in (n for n in dir(lax) if n.endswith("_p")):
        primitive = getattr(lax, name)
        for operands in (1, 2):
            try:
                out = jax.eval_shape(lambda *x, p=primitive: p.bind(*x), *[jnp.ones(4)] * operands)
            except Exception:
                continue
            if isinstance(out, jax.ShapeDtypeStruct) and out.shape == (4,) and out.dtype == jnp.float32:
                assert primitive.name in {*FUNCTIONS, *ARITHMETIC, *SERIES}, primitive.name
                met.add(primitive.name)
    assert {"atan", "atan2", "tanh", "pow", "add"} <= met


def test_a_function_is_found_wherever_it_is():
    x = jnp.ones(3)

    @jax.custom_jvp
    def inner(x):
        return jnp.arctan(x)

    inner.defjvp(lambda x, dx: (inner(*x), dx[0]))
    branch = lambda x: lax.cond(x[0] > 0, inner, jnp.exp, x)  # noqa: E731
    loop = lambda x: lax.fori_loop(0, x[1].astype(int), lambda _, x: jax.jit(branch)(x), x)  # noqa: E731
    scan = lambda x: lax.scan(lambda carry, _: (loop(carry), carry), x, None, 2)  # noqa: E731
    mapped = lambda x: jax.vmap(scan)(x[None])  # noqa: E731
    for f in (inner, branch, loop, scan, mapped):
        assert "atan" in primitives(jax.jit(f).trace(x).jaxpr)
    assert "atan" not in primitives(jax.jit(jnp.exp).trace(x).jaxpr)


@pytest.mark.parametrize("wrong", ["tanh", "atan"])
def test_a_program_with_a_wrong_function_keeps_the_vectors_of_llvm(wrong, monkeypatch):
    monkeypatch.setattr(vectors, "wrong_in_wide_vectors", lambda: frozenset({wrong}))
    asked = []

    def options(effort, platform, known_loops=False, wide_vectors=False):
        asked.append((effort, wide_vectors))
        return compiler_options("low", platform)

    monkeypatch.setattr(compiled, "compiler_options", options)
    spec = sweeps.prepare("ppo_mlp", "gymnax.cartpole", set={"actor.width": 8}, total_timesteps=600)
    program = plan(spec.trees, spec.env, 600, 1, Machine.planned("cpu"))[0]
    for effort in ("full", "low"):
        asked_for = replace(program, effort=effort)
        compiled.compile_program(asked_for, spec.trees[0], spec.env, 1, 1, jax.local_devices()[:1])
    full, start = ("full", wrong == "atan"), ("low", False)  # starting a lane takes no time to speak of
    assert asked == [full, start, full] + [("low", False)] * 3


def test_programs_for_cpus_are_told():
    """The option is the one that XLA knows, comes with no other, and overrides the user's XLA_FLAGS."""
    wide, narrow = (compiler_options("full", "cpu", wide_vectors=w) for w in (True, False))
    width = "xla_cpu_prefer_vector_width"
    assert (wide.pop(width), narrow.pop(width)) == (512, 256)
    assert wide == narrow
    assert compiler_options("low", "cpu")[width] == 256


@pytest.mark.parametrize("f", [jnp.log, lax.rsqrt, lambda z: z**0.5, lambda z: jnp.exp(lax.log(z))])
def test_functions_of_complex_numbers_consist_of_others(f):
    of_complex = jax.jit(lambda x: f(lax.complex(jnp.ones_like(x), x)).imag)
    assert "atan2" in primitives(of_complex.trace(jnp.ones(3)).jaxpr)
    assert "atan2" not in primitives(jax.jit(f).trace(jnp.ones(3)).jaxpr)
    assert "atan2" not in primitives(jax.jit(lambda x: lax.complex(x, x) * 2).trace(jnp.ones(3)).jaxpr)


@pytest.mark.parametrize("f", [jnp.log, lax.rsqrt, lambda z: z**0.5])
def test_complex_functions_of_one_plus_an_imaginary_number_are_right(f):
    x = np.linspace(0.1, 0.9, 192, dtype=np.float32)
    traced = jax.jit(lambda x: f(lax.complex(jnp.ones_like(x), x)).imag).trace(x)
    options = compiler_options("full", "cpu", wide_vectors=vectors.right_in_wide_vectors(traced.jaxpr))
    computed = traced.lower().compile(compiler_options=options)(x)
    one = 1 + 1j * x.astype(np.float64)
    right = {0: np.log(one), 1: one**-0.5, 2: one**0.5}
    assert min(np.abs(computed - known.imag).max() for known in right.values()) < 1e-6
