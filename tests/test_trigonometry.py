"""Cosines, sines and arctangents, against NumPy in double precision."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lanes import quick

from hyperlax.lanes.constants import tracing_for_accelerator
from hyperlax.networks.trigonometry import arctan, cos_and_sin

both = quick(lambda x: cos_and_sin(x))


@pytest.mark.parametrize("largest", [1e-3, 1.0, 100.0, 1e4, 1e5, 1e6])
def test_they_are_right_to_rounding(largest):
    x = np.random.default_rng(0).uniform(-largest, largest, 20_000).astype(np.float32)
    x[:8] = largest * np.array([0, 1, -1, 0.5, -0.5, 0.25, 0.75, -0.75])
    multiples = np.float32(np.pi / 4) * np.arange(-9, 10, dtype=np.float32)  # where the quadrant changes
    x[8 : 8 + len(multiples)] = multiples
    cos, sin = both(x)
    error = 1.5e-7 + (np.spacing(np.float32(largest)) if largest > 1e4 else 0)
    np.testing.assert_allclose(cos, np.cos(x.astype(np.float64)), rtol=0, atol=error)
    np.testing.assert_allclose(sin, np.sin(x.astype(np.float64)), rtol=0, atol=error)


def test_small_angles_keep_their_relative_precision():
    x = np.array([1e-30, -1e-20, 1e-8, 1e-4, 0.01], np.float32)
    np.testing.assert_allclose(both(np.resize(x, 20_000))[1][:5], np.sin(x.astype(np.float64)), rtol=2e-7)


def test_gates_of_huge_angles_are_unitary_and_those_of_no_number_are_nan():
    cos, sin = both(np.resize(np.array([1e8, -3e12, 1e30, -3e38], np.float32), 20_000))
    np.testing.assert_allclose(cos**2 + sin**2, 1, atol=3e-6)
    for found in both(np.resize(np.array([np.nan, np.inf, -np.inf], np.float32), 20_000)):
        assert np.isnan(found).all()


def test_their_derivatives_are_each_others():
    x = jnp.linspace(-9, 9, 101)
    rates = [jax.vmap(jax.grad(lambda x, i=i: cos_and_sin(x)[i])) for i in range(2)]
    found = quick(lambda x: [rate(x) for rate in rates])(x)
    np.testing.assert_allclose(found[0], -np.sin(x), atol=2e-6)
    np.testing.assert_allclose(found[1], np.cos(x), atol=2e-6)
    bends = quick(lambda x: [jax.vmap(jax.grad(lambda x, r=r: r(x[None])[0]))(x) for r in rates])(x)
    np.testing.assert_allclose(bends[0], -np.cos(x), atol=2e-6)
    np.testing.assert_allclose(bends[1], -np.sin(x), atol=2e-6)


@pytest.mark.parametrize("largest", [1e-3, 0.5, 3.0, 1e4, 3e38])
def test_arctangents_are_right_to_rounding(largest):
    x = np.random.default_rng(0).uniform(-largest, largest, 20_000).astype(np.float32)
    x[:9] = [0, -0.0, np.inf, -np.inf, 1, -1, np.tan(np.pi / 8), np.tan(3 * np.pi / 8), 1e-30]
    angles, slopes = quick(lambda x: (arctan(x), jax.vmap(jax.grad(arctan))(x)))(x)
    np.testing.assert_allclose(angles, np.arctan(x.astype(np.float64)), rtol=2e-7)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(slopes, 1 / (1 + x.astype(np.float64) ** 2), rtol=1e-6, atol=1e-37)
    assert np.signbit(angles[1])
    assert np.isnan(arctan(jnp.full(3, jnp.nan))).all()


def test_accelerators_have_their_own():
    """What is traced first decides nothing for the other."""

    def of():
        jaxpr = jax.make_jaxpr(lambda x: (cos_and_sin(x), arctan(x)))(jnp.ones(3))
        return {e.primitive.name for e in jaxpr.eqns}

    assert of() == {"custom_jvp_call"}
    with tracing_for_accelerator(True):
        assert of() == {"cos", "sin", "atan"}
    assert of() == {"custom_jvp_call"}
