"""All ways to simulate circuits give the same values and gradients; the platform decides which is taken."""

from __future__ import annotations

import logging
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lanes import LOW_EFFORT
from test_circuit import drawn, wall

from hyperlax.lanes.masking import LANES
from hyperlax.networks import circuit_check, circuit_fused, circuit_paths
from hyperlax.networks.by_platform import by_platform
from hyperlax.networks.circuit import expectations

quick = partial(jax.jit, compiler_options=LOW_EFFORT)
SIZES = [(1, 2, 5), (2, 1, 512), (3, 4, 7)]
LARGE = [(4, 2, 33), (6, 3, 4), (9, 1, 2)]
"""Sizes of circuits: wires, layers before the last one, batch; one program simulates 32 of the second."""
CASES = [(name, *size) for name in ("grouped", "fused") for size in SIZES]
CASES += [("grouped", *LARGE[1])]
SLOW = [(name, *size) for name in ("grouped", "fused") for size in LARGE if (name, *size) not in CASES]


@pytest.fixture(autouse=True)
def unsaid():
    """The log repeats itself in every test."""
    circuit_paths._say.cache_clear()
    circuit_paths._warn.cache_clear()
    circuit_check.problem.cache_clear()


def by_path(monkeypatch, name: str, f, *arguments):
    """The result of `f`, compiled with circuits on the path `name`."""
    monkeypatch.setenv(circuit_paths.VARIABLE, name)
    return quick(lambda *x: f(*x))(*arguments)


def pulled(first, second, signs, depth, weights):
    """Values and gradients."""
    value, pull = jax.vjp(lambda a, b: expectations(a, b, signs, depth), first, second)
    return value, *pull(weights)


@pytest.mark.parametrize(
    ("name", "wires", "layers", "batch"), [*CASES, *(pytest.param(*c, marks=pytest.mark.slow) for c in SLOW)]
)
def test_values_and_gradients_are_those_of_the_loops(name, wires, layers, batch, monkeypatch):
    """Both CZ layers have random signs, so that each wrong parity shows."""
    first, second = drawn(wires, layers, batch)
    rng = np.random.default_rng(wires)
    signs = jnp.asarray(rng.choice([-1.0, 1.0], (2, 2**wires)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(wires, batch)), jnp.float32)
    arguments = (first, second, signs, jnp.int32(layers), weights)
    expected = by_path(monkeypatch, "loops", pulled, *arguments)
    found = by_path(monkeypatch, name, pulled, *arguments)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


DEPTHS = (4, 1, 3)
"""Layers before the last one of each lane; the first is all that is allocated."""


@pytest.fixture(scope="module")
def alone():
    """Lanes inside one allocation (angles, signs, depths, weights), and what each gives alone."""
    wires, layers, batch = 3, max(DEPTHS), 6
    depths = jnp.asarray(DEPTHS, jnp.int32)
    used = (np.arange(layers + 1) <= np.asarray(depths)[:, None])[:, None, :, None, None]
    draws = [drawn(wires, layers, batch, seed) for seed in range(3)]
    first, second = (jnp.where(used, jnp.stack(x), 0) for x in zip(*draws, strict=True))
    signs = jnp.stack([jnp.asarray(wall(wires), jnp.float32), jnp.ones((2, 8)), jnp.ones((2, 8))])
    lanes = (first, second, signs, depths, jnp.ones((3, wires, batch)))
    with pytest.MonkeyPatch.context() as patch:
        own = [[x[i][:, : depth + 1] for x in lanes[:2]] for i, depth in enumerate(DEPTHS)]
        found = [by_path(patch, "loops", pulled, *own[i], *(x[i] for x in lanes[2:])) for i in range(3)]
    return lanes, found


@pytest.mark.parametrize("name", ["loops", "grouped", "fused"])
def test_lanes_of_different_depth_and_entanglement_are_simulated_as_alone(name, alone, monkeypatch):
    lanes, found = alone
    together = by_path(monkeypatch, name, jax.vmap(pulled, axis_name=LANES), *lanes)
    for lane, (depth, expected) in enumerate(zip(DEPTHS, found, strict=True)):
        own = slice(depth + 1)
        np.testing.assert_allclose(together[0][lane], expected[0], atol=1e-5)
        for a, b in zip(together[1:], expected[1:], strict=True):
            np.testing.assert_allclose(a[lane][:, own], b, atol=1e-5)
            if name != "loops":
                assert not np.asarray(a[lane][:, depth + 1 :]).any()


@pytest.mark.parametrize("name", ["grouped", "fused"])
def test_a_derivative_that_is_zero_is_exactly_zero_on_every_path(name, monkeypatch):
    first, second = drawn(3, 2, 5)
    loss = lambda s: expectations(first, s, jnp.ones((2, 8)), jnp.int32(2))[0].sum()  # noqa: E731
    gradient = np.asarray(by_path(monkeypatch, name, jax.grad(loss), second))
    assert not gradient[:, :, 1:].any()
    assert not gradient[2, -1].any()
    assert gradient[1, :, 0].all()


def test_the_grouped_path_keeps_two_states_whatever_the_depth(monkeypatch):
    monkeypatch.setenv(circuit_paths.VARIABLE, "grouped")

    def memory(layers: int) -> int:
        first, second = drawn(8, layers, 32)
        signs = jnp.asarray(wall(8), jnp.float32)
        loss = lambda a, b: jnp.sum(expectations(a, b, signs, jnp.int32(layers)))  # noqa: E731
        analysis = jax.jit(jax.grad(loss, (0, 1))).lower(first, second).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    state, angles = 2 * 2**8 * 32 * 4, 3 * 8 * 32 * 4
    assert memory(24) - memory(4) < 20 * min(12 * angles, state)


def test_flipping_a_wire_reverses_its_axis():
    rng = np.random.default_rng(0)
    for wires, samples in ((1, 1), (3, 4), (5, 1)):
        register = circuit_fused.Register(wires, samples)
        x = jnp.asarray(rng.normal(size=register.shape) * 10.0 ** rng.integers(-30, 30), jnp.float32)
        for w in range(wires):
            axis = register.axis(w)
            np.testing.assert_array_equal(jax.jit(register.flipped, static_argnums=1)(x, w), np.flip(x, axis))


def test_tiles_divide_the_batch():
    for wires in range(1, 13):
        for batch in (1, 3, 64, 96, 512, 1000, 4096):
            assert batch % circuit_fused.tile(wires, batch) == 0
    assert circuit_fused.tile(2, 4096) > 1 == circuit_fused.tile(12, 4096)


def test_a_wrong_name_or_an_impossible_circuit_is_refused(monkeypatch):
    monkeypatch.setenv(circuit_paths.VARIABLE, "fast")
    with pytest.raises(ValueError, match="HYPERLAX_CIRCUIT is 'fast'; it must be one of auto, loops"):
        circuit_paths.chosen()
    monkeypatch.setenv(circuit_paths.VARIABLE, "fused")
    with pytest.raises(ValueError, match=r"up to 12 wires in float32.*has 13 wires in float32; use"):
        circuit_paths.path("cpu", jnp.zeros((3, 1, 13, 1)))
    with pytest.raises(ValueError, match="on another accelerator"):
        circuit_paths.path("other", jnp.zeros((3, 1, 2, 1)))


def lowered(platform: str, caplog) -> str:
    """What the log says when a circuit is compiled for `platform`."""
    first, second = drawn(2, 1, 3)
    f = jax.jit(partial(pulled, signs=jnp.ones((2, 4)), depth=jnp.int32(1), weights=jnp.ones((2, 3))))
    with caplog.at_level(logging.INFO, logger="hyperlax"):
        f.trace(first, second).lower(lowering_platforms=(platform,))
    return caplog.text


def test_the_platform_of_the_program_decides_and_the_log_says_it_once(monkeypatch, caplog):
    """Nothing can be compared on a machine without a GPU, so that `auto` is the grouped path for one."""
    monkeypatch.setattr(circuit_paths, "_gpu", lambda: None)
    assert lowered("cpu", caplog).count("Circuits on a CPU: loops path (HYPERLAX_CIRCUIT=auto)") == 1
    assert lowered("cuda", caplog).count("Circuits on an NVIDIA GPU: grouped path") == 1
    assert lowered("tpu", caplog).count("Circuits on an accelerator: grouped path") == 1


@pytest.mark.parametrize(("platform", "own"), [("cpu", True), ("cuda", False)])
def test_cosines_are_those_that_suit_the_platform(platform, own, monkeypatch):
    """Also in a program of the user's own. Polynomials would be more kernels on a GPU."""
    monkeypatch.setattr(circuit_paths, "_gpu", lambda: None)
    first, second = drawn(2, 1, 3)
    f = jax.jit(lambda a, b: expectations(a, b, jnp.ones((2, 4)), jnp.int32(1)))
    text = f.trace(first, second).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.cosine" not in text) == own


def test_a_gpu_whose_kernels_pass_the_check_takes_the_fused_path(monkeypatch):
    """The check runs on the first use, here in the middle of a trace; a CPU stands in for the GPU."""
    monkeypatch.setattr(circuit_paths, "_gpu", lambda: jax.devices("cpu")[0])
    names = []

    def traced(x):
        names.append(circuit_paths.path("cuda", x))
        names.append(circuit_paths.path("cuda", jnp.zeros((3, 1, 13, 1))))
        return x

    jax.eval_shape(traced, jnp.zeros((3, 1, 2, 1)))
    assert names == ["fused", "grouped"]
    assert circuit_check.problem.cache_info().currsize == 1


def broken(*arguments, **how):
    raise NotImplementedError("no such instruction\nand more")


def wrong(*arguments, right=circuit_fused.backward, **how):
    by_first, by_second = right(*arguments, **how)
    return by_first.at[1, 0, 0, 0].add(0.1), by_second


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (broken, "does not run (NotImplementedError: no such instruction)"),
        (wrong, "was compared with the grouped path and found wrong: derivatives by the angles of every"),
    ],
)
def test_kernels_that_fail_the_check_are_off_with_one_warning(fault, words, monkeypatch, caplog):
    monkeypatch.setattr(circuit_paths, "_gpu", lambda: jax.devices("cpu")[0])
    monkeypatch.setattr(circuit_fused, "backward", fault)
    first = jnp.zeros((3, 1, 2, 1))
    assert circuit_paths.path("cuda", first) == circuit_paths.path("cuda", first) == "grouped"
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert words in warnings[0]
    assert "for 2 wires" in warnings[0]
    assert "the grouped path simulates these circuits instead" in warnings[0]
    monkeypatch.setenv(circuit_paths.VARIABLE, "fused")
    with pytest.raises(RuntimeError, match="HYPERLAX_CIRCUIT=fused, but the fused circuit kernel"):
        circuit_paths.path("cuda", first)


def test_an_operation_by_platform_is_mapped_as_its_implementation_is():
    scale = {"cpu": 2.0, "cuda": 3.0, "other": 5.0}
    run = lambda platform, x, y, *, power: (scale[platform] * x**power + y.sum(), y)  # noqa: E731
    operation = by_platform("test_scaled", run, lambda x, y, *, power: (x, y))
    f = lambda x, y: operation(x, y, power=2)  # noqa: E731
    x, y = jnp.arange(3.0), jnp.ones(2)
    np.testing.assert_allclose(f(x, y)[0], [2, 4, 10])
    rows = jnp.stack([x, x + 1])
    twice = jax.vmap(jax.vmap(f, (None, 0)), (1, None), out_axes=1)(rows.T, jnp.ones((4, 2)))
    assert twice[0].shape == (4, 2, 3)
    np.testing.assert_allclose(twice[0][3], [[2, 4, 10], [4, 10, 20]])
    for platform, factor in (("cuda", "3.0"), ("tpu", "5.0")):
        assert factor in jax.jit(f).trace(x, y).lower(lowering_platforms=(platform,)).as_text()
