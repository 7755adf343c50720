"""The simulator is exact: values and gradients equal PennyLane's for any size, precision and padding."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import pennylane as qml
import pytest
from lanes import LOW_EFFORT
from packaging.version import Version

from hyperlax.networks import circuit_loops
from hyperlax.networks.circuit import expectations, final_state

SIZES = [
    (1, 1, 3),
    (2, 3, 1),
    (3, 2, 2),
    (4, 1, 3),
    (5, 2, 1),
    (6, 1, 2),
    *((wires, 1, 1) for wires in (7, 8, 9, 10)),
]
"""Sizes of circuits: wires, layers before the last one, batch."""


quick = partial(jax.jit, compiler_options=LOW_EFFORT)


@contextmanager
def pennylanes_promotion():
    """Allow the implicit promotions that PennyLane relies on."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def drawn(wires: int, layers: int, batch: int, seed: int = 0, dtype: type[np.floating] = np.float32):
    """Draw the angles of both rotations, and random signs in place of CZ gates."""
    rng = np.random.default_rng([wires, layers, seed])
    first = rng.normal(size=(3, layers + 1, wires, batch)).astype(dtype)
    second = rng.normal(size=(3, layers + 1, wires, 1)).astype(dtype)
    return jnp.asarray(first), jnp.asarray(second)


def wall(wires: int) -> np.ndarray:
    """The signs of CZ on (0,1), (2,3) … and on (1,2), (3,4) …, computed from the matrices."""
    table = np.ones((2, 2**wires))
    for i in range(2**wires):
        bits = [(i >> (wires - 1 - w)) & 1 for w in range(wires)]
        for w in range(wires - 1):
            table[w % 2, i] *= -1 if bits[w] and bits[w + 1] else 1
    return table


def node(wires: int, layers: int):
    """The same circuit as a PennyLane QNode in NumPy, for one observation."""

    @qml.qnode(qml.device("default.qubit", wires=wires), interface="autograd", diff_method="adjoint")
    def run(first, second):
        for layer in range(layers + 1):
            for w in range(wires):
                qml.Rot(*first[:, layer, w], wires=w)
                qml.Rot(*second[:, layer, w], wires=w)
            if layer < layers:
                for w in range(layer % 2, wires - 1, 2):
                    qml.CZ(wires=[w, w + 1])
        return [qml.expval(qml.PauliZ(w)) for w in range(wires)]

    return lambda f, s: qml.math.stack(run(f, s))  # pyright: ignore[reportAttributeAccessIssue] - autoray


def ours(first, second, wires, layers):
    signs = jnp.asarray(wall(wires), first.dtype)
    return expectations(first, second, signs, jnp.int32(layers))


@pytest.mark.parametrize(("wires", "layers", "batch"), SIZES)
def test_values_and_gradients_are_pennylanes(wires, layers, batch):
    first, second = drawn(wires, layers, batch)
    weights = np.random.default_rng(1).normal(size=(wires, batch)).astype(np.float32)

    @quick
    def found(first, second, weights):
        value, pull = jax.vjp(partial(ours, wires=wires, layers=layers), first, second)
        return value, *pull(weights)

    value, by_first, by_second = map(np.asarray, found(first, second, weights))
    first, second = np.asarray(first), np.asarray(second)
    theirs, shared = node(wires, layers), np.zeros(second.shape[:-1])
    for b in range(batch):
        angles = [qml.numpy.array(x.astype(np.float64)) for x in (first[..., b], second[..., 0])]
        own, others = (np.tensordot(weights[:, b], d, 1) for d in qml.jacobian(theirs)(*angles))
        np.testing.assert_allclose(value[:, b], theirs(*angles), atol=1e-5)
        np.testing.assert_allclose(by_first[..., b], own, atol=2e-5)
        shared += others
    np.testing.assert_allclose(by_second[..., 0], shared, atol=4e-5)


def test_double_precision_is_used_where_asked_for():
    with jax.enable_x64(True):
        first, second = drawn(3, 4, 2, dtype=np.float64)
        signs = jnp.asarray(wall(3))
        f = lambda x, s: jnp.sum(jnp.sin(expectations(x, s, signs, jnp.int32(4))))  # noqa: E731
        gradient = quick(jax.grad(f, (0, 1)))(first, second)
        f = quick(f)
        for which, at in ((0, (1, 2, 0, 1)), (1, (2, 0, 2, 0)), (1, (0, 3, 1, 0))):
            step = 1e-6
            shifted = [[first, second], [first, second]]
            for sign, pair in zip((1, -1), shifted, strict=True):
                pair[which] = pair[which].at[at].add(sign * step)
            slope = (f(*shifted[0]) - f(*shifted[1])) / (2 * step)
            assert float(gradient[which][at]) == pytest.approx(float(slope), abs=1e-8)


def test_the_gradient_obeys_parameter_shift():
    """For every angle, ∂⟨σz⟩ = (⟨σz⟩ at +π/2 - ⟨σz⟩ at -π/2) / 2 (Schuld et al. 2019, eq. 14)."""
    wires, layers = 3, 2
    first, second = drawn(wires, layers, 1, seed=4)
    run = quick(partial(ours, wires=wires, layers=layers))
    jacobian = np.asarray(quick(jax.jacrev(lambda s: ours(first, s, wires, layers)[:, 0]))(second))
    for at in np.ndindex(*second.shape):
        turned = np.zeros(second.shape, np.float32)
        turned[at] = np.pi / 2
        plus, minus = (np.asarray(run(first, angles))[:, 0] for angles in (second + turned, second - turned))
        np.testing.assert_allclose(jacobian[(slice(None), *at)], (plus - minus) / 2, atol=2e-6)


def test_blocks_of_a_large_batch_change_nothing(monkeypatch):
    first, second = drawn(3, 2, 70)
    loss = lambda x, s: jnp.sum(ours(x, s, 3, 2) ** 3)  # noqa: E731
    whole = quick(jax.value_and_grad(loss, (0, 1)))(first, second)
    monkeypatch.setattr(circuit_loops, "BLOCK_AMPLITUDES", 8)
    blocks = quick(jax.value_and_grad(lambda x, s: loss(x, s), (0, 1)))(first, second)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(blocks), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)
    assert first.shape[-1] > circuit_loops.MIN_BLOCK


def test_the_state_is_normalised_and_gives_the_expectations():
    first, second = drawn(4, 3, 2, seed=2)
    signs = jnp.asarray(wall(4), jnp.float32)
    states = quick(final_state)(first, second, signs, jnp.int32(3))
    probabilities = np.asarray(states[0] ** 2 + states[1] ** 2)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    first_wire = probabilities.reshape(2, 8, 2)
    np.testing.assert_allclose(
        first_wire[0].sum(0) - first_wire[1].sum(0),
        quick(partial(ours, wires=4, layers=3))(first, second)[0],
        atol=1e-5,
    )


def test_the_state_is_pennylanes_up_to_a_phase():
    wires, layers = 3, 2
    first, second = drawn(wires, layers, 1, seed=3)
    states = quick(final_state)(first, second, jnp.asarray(wall(wires), jnp.float32), jnp.int32(layers))
    state = (np.asarray(states[0]) + 1j * np.asarray(states[1]))[:, 0]

    @qml.qnode(qml.device("default.qubit", wires=wires))
    def run():
        for layer in range(layers + 1):
            for w in range(wires):
                qml.Rot(*np.asarray(first)[:, layer, w, 0], wires=w)
                qml.Rot(*np.asarray(second)[:, layer, w, 0], wires=w)
            if layer < layers:
                for w in range(layer % 2, wires - 1, 2):
                    qml.CZ(wires=[w, w + 1])
        return qml.state()

    with pennylanes_promotion():
        expected = np.asarray(run())
    assert abs(np.vdot(expected, state)) == pytest.approx(1, abs=1e-5)


def test_the_gradient_keeps_two_states_whatever_the_depth():
    """The memory of the compiled gradient grows with the angles of a layer, not with its state.

    Compilers differ in how many copies of the angles they keep: 20 in jaxlib 0.10.0, 10 from 0.10.2 on.
    """
    wires, batch = 10, 32

    def memory(layers: int) -> int:
        first, second = drawn(wires, layers, batch)
        loss = lambda x, s: jnp.sum(ours(x, s, wires, layers))  # noqa: E731
        analysis = jax.jit(jax.grad(loss, (0, 1))).lower(first, second).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    state, angles = 2 * 2**wires * batch * 4, 3 * wires * batch * 4
    per_layer = (memory(24) - memory(4)) / 20
    copies = 12 if Version(version("jaxlib")) >= Version("0.10.2") else 24
    assert per_layer < copies * angles < state / 2


def test_a_derivative_that_is_zero_is_exactly_zero():
    """The last phases and wires that no measurement depends on have no derivative, not even from rounding."""
    first, second = drawn(3, 2, 5)
    nothing = jnp.ones((2, 8))
    gradient = quick(jax.grad(lambda s: expectations(first, s, nothing, jnp.int32(2))[0].sum()))(second)
    assert not np.asarray(gradient)[:, :, 1:].any()
    assert not np.asarray(gradient)[2, -1].any()
    assert np.asarray(gradient)[1, :, 0].all()
