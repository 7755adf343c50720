"""The data re-uploading circuit: golden values, every option against PennyLane, padding, counts, refusals."""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pennylane as qml
import pytest
from lanes import LOW_EFFORT

from hyperlax.hyperparams import assign
from hyperlax.lanes.sizes import merge
from hyperlax.learning.optimise import step_factors
from hyperlax.networks import PQC, PQCHyperparams
from hyperlax.networks.pqc import qubits, state_bytes

quick = partial(jax.jit, compiler_options=LOW_EFFORT)
run = quick(lambda net, x: net(x))
SQUASH = {"none": lambda x: x, "tanh": np.tanh, "arctan": np.arctan}


def built(in_size: int, key=None, caps=None, **changes) -> PQC:
    hp = assign(PQCHyperparams(), changes)
    leaves = jax.tree.map(jnp.asarray, hp)
    build = quick(lambda leaves, key: PQC(leaves, in_size, caps or hp.sizes(), key=key))
    return build(leaves, jr.key(0) if key is None else key)


def differentiated(by):
    """A program for the outputs of a network for a batch, and the derivatives of a loss that they make."""

    def loss(net, xs):
        outputs = jax.vmap(net)(xs)
        return jnp.sum(jnp.sin(outputs)), outputs

    return quick(jax.value_and_grad(loss, by, has_aux=True, allow_int=True))


def pennylane(net: PQC, x: np.ndarray, entangler: str, squash: str) -> np.ndarray:
    """The circuit as its definition reads, gate by gate."""
    layers, wires = net.angles.shape[0] - 1, net.angles.shape[1]
    blocks = -(-net.in_size // 3)
    padded = np.zeros(3 * blocks)
    padded[: net.in_size] = SQUASH[squash](x)
    angles, scales = np.asarray(net.angles, np.float64), np.asarray(net.scales, np.float64)

    @qml.qnode(qml.device("default.qubit", wires=wires))
    def node():
        for layer in range(layers):
            for w in range(wires):
                f = w % blocks
                qml.Rot(*(padded[3 * f : 3 * f + 3] * scales[layer, w]), wires=w)
                qml.Rot(*angles[layer, w], wires=w)
            if entangler == "cz":
                for w in range(layer % 2, wires - 1, 2):
                    qml.CZ(wires=[w, w + 1])
            if entangler == "cz_ring":
                for w in range(wires if wires > 2 else wires - 1):
                    qml.CZ(wires=[w, (w + 1) % wires])
        for w in range(wires):
            f = w % blocks
            qml.Rot(*(padded[3 * f : 3 * f + 3] * scales[layers, w] + angles[layers, w]), wires=w)
        return [qml.expval(qml.PauliZ(w)) for w in range(wires)]

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return np.asarray(node())


@pytest.mark.parametrize(
    ("in_size", "layers", "stacks", "x", "golden"),
    [
        (4, 3, 2, [0.3, -0.7, 1.1, 0.4], [0.754591, 0.605850, 0.557023, 0.422818]),
        (3, 2, 1, [0.3, -0.7, 1.1], [0.600693]),
        (8, 2, 1, [0.3, -0.7, 1.1, 0.4, -0.2, 0.9, -1.3, 0.05], [0.600795, 0.600643, -0.081925]),
    ],
)
def test_golden_values(in_size, layers, stacks, x, golden):
    """θ[i, l, k] = 0.1 (i + 1) + 0.2 l + 0.3 k, ω[l, j] = 0.5 + 0.05 j - 0.1 l, j = 3 · wire + component."""
    net = built(in_size, layers=layers, stacks=stacks)
    l, w, k = np.meshgrid(*map(np.arange, net.angles.shape), indexing="ij")
    angles = jnp.asarray(0.1 * (w + 1) + 0.2 * l + 0.3 * k, jnp.float32)
    scales = jnp.asarray(0.5 + 0.05 * (3 * w + k) - 0.1 * l, jnp.float32)
    net = eqx.tree_at(lambda n: (n.angles, n.scales), net, (angles, scales))
    seen = jnp.asarray(x, jnp.float32)
    np.testing.assert_allclose(run(net, seen), golden, atol=2e-6)
    np.testing.assert_allclose(quick(jax.vmap(net))(jnp.stack([seen, -seen]))[0], golden, atol=2e-6)


@pytest.mark.parametrize("entangler", ["none", "cz", "cz_ring"])
@pytest.mark.parametrize(("in_size", "stacks"), [(4, 1), (5, 2), (2, 3)])
def test_every_entangler_is_pennylanes(entangler, in_size, stacks):
    squash = list(SQUASH)[stacks - 1]
    net = built(in_size, layers=3, stacks=stacks, entangler=entangler, squash=squash, initial_angles="circle")
    x = np.random.default_rng(0).normal(size=in_size).astype(np.float32)
    np.testing.assert_allclose(run(net, jnp.asarray(x)), pennylane(net, x, entangler, squash), atol=1e-5)


def test_without_entanglement_a_wire_sees_its_own_features_alone():
    net = built(6, layers=2, stacks=1, entangler="none")
    jacobian = quick(jax.jacrev(net))(jnp.ones(6))
    assert not np.asarray(jacobian)[0, 3:].any()
    assert not np.asarray(jacobian)[1, :3].any()
    assert np.abs(np.asarray(jacobian)).max() > 0


def test_features_enter_once_without_reuploading():
    net = built(3, layers=4, stacks=1, reupload=False)
    assert np.asarray(net.scales)[0].all()
    assert not np.asarray(net.scales)[1:].any()
    gradient = quick(jax.grad(lambda n: n(jnp.ones(3)).sum(), allow_int=True))(net)
    assert not np.asarray(gradient.scales)[1:].any()
    assert np.asarray(gradient.scales)[0].any()


def test_only_the_measured_wires_are_put_out_and_scaled():
    x = jnp.asarray([0.3, -0.7, 1.1, 0.4])
    whole = built(4, layers=2, stacks=2)
    part = built(4, layers=2, stacks=2, measured=1, output_scale=True)
    assert int(part.out_size) == 1
    assert int(whole.out_size) == 4
    scaled = eqx.tree_at(lambda n: n.output_scales, part, part.output_scales.at[0].set(3.0))
    np.testing.assert_allclose(run(scaled, x), [3 * float(run(whole, x)[0]), 0, 0, 0], atol=1e-5)
    unscaled = eqx.tree_at(lambda n: n.output_scales, whole, jnp.full(4, 3.0))
    np.testing.assert_allclose(run(unscaled, x), run(whole, x), atol=1e-6)


def test_angles_start_where_they_are_told_to():
    unit, circle = (built(6, layers=9, stacks=3, initial_angles=k) for k in ("unit", "circle"))
    assert 0.9 < float(unit.angles.max()) < 1
    assert float(unit.angles.min()) >= 0
    assert 6 < float(circle.angles.max()) < 2 * np.pi
    assert 0.9 < float(circle.scales.max()) < 1


def test_padding_changes_neither_values_nor_gradients():
    changes = {"layers": 2, "stacks": 1, "entangler": "cz_ring", "squash": "tanh", "output_scale": True}
    xs = jr.normal(jr.key(1), (5, 7))
    results = []
    for caps in (None, {"layers": 6, "stacks": 2}):
        net = built(7, caps=caps, **changes)
        (_, values), (by_net, by_x) = differentiated((0, 1))(net, xs)
        corner = lambda a: np.asarray(a)[:3, :3]  # noqa: E731
        for gradient in (by_net.angles, by_net.scales):
            assert np.count_nonzero(gradient) == np.count_nonzero(corner(gradient)) > 0
        results.append(
            (
                values[:, :3],
                by_x,
                *(corner(a) for a in (net.angles, by_net.angles, by_net.scales)),
            )
        )
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_parameters_are_counted():
    """Angles and the scales of features that exist."""
    for in_size, changes in (
        (4, {}),
        (6, {"stacks": 2, "layers": 3}),
        (5, {"reupload": False, "output_scale": True}),
    ):
        net = built(in_size, **changes)
        hp = assign(PQCHyperparams(), changes)
        trained = [net.angles, net.scales, net.output_scales]
        assert hp.parameter_count(in_size) == sum(int((np.asarray(x) != 0).sum()) for x in trained)
    assert assign(PQCHyperparams(), {"layers": 5}).parameter_count(6) == 6 * 2 * 6


@pytest.mark.parametrize("reupload", [True, False])
def test_circuit_executions_follow_the_rotations_of_pennylanes_circuit(reupload):
    """Two for every angle that differs from zero, and one for the value."""
    net = built(5, layers=3, stacks=1, reupload=reupload)
    encoding, own = (np.asarray(a) for a in net.rotation_angles(jnp.full((5, 1), 0.3)))
    rotations = int((encoding != 0).any((0, 3)).sum() + (own != 0).any((0, 3)).sum())
    hp = assign(PQCHyperparams(), {"layers": 3, "stacks": 1, "reupload": reupload})
    assert hp.rotations(5) == rotations
    assert hp.executions(5) == (1, 2 * 3 * rotations + 1)


def test_step_sizes_of_scales_angles_and_head_differ():
    net = built(3, angle_lr_factor=2.0, scale_lr_factor=0.5, output_scale=True)
    factors = net.step_factors()
    assert float(factors.angles.min()) == float(factors.angles.max()) == 2
    assert float(factors.scales.max()) == 0.5
    assert float(factors.output_scales.max()) == 1
    flat = step_factors((net,))
    assert sorted(set(np.asarray(flat).tolist())) == [0.5, 1.0, 2.0]


def test_a_circuit_too_large_for_the_memory_is_refused_with_the_numbers():
    hp = assign(PQCHyperparams(), {"stacks": 3})
    assert hp.refusal(8, 2**30) is None
    answer = hp.refusal(27, 2**30)
    assert answer is not None
    assert "27 qubits" in answer
    assert "4 GiB" in answer
    assert "25 qubits fit" in answer
    assert qubits(27, 3) == 27
    assert state_bytes(27) == 4 * 2**30
    large = str(assign(PQCHyperparams(), {"stacks": 3}).refusal(27, 2**60))
    assert large == "27 features on 3 stacks take 27 qubits; at most 26 are supported"
    assert "82 qubits" in str(assign(PQCHyperparams(), {}).refusal(244, 2**40))


def test_pennylane_can_run_and_draw_the_module():
    xs = jr.normal(jr.key(2), (3, 4))
    results = []
    for backend in ("native", "pennylane"):
        net = built(4, layers=2, stacks=1, backend=backend)
        (_, values), gradient = differentiated(0)(net, xs)
        results.append((values, gradient.angles, gradient.scales))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    drawn = built(4, layers=2, stacks=2, entangler="cz").draw().splitlines()
    assert len(drawn) == 4
    assert drawn[0].count("Rot") == 5
    assert sum(line.count("╭●") for line in drawn) == 3


def test_a_program_has_one_backend():
    sizes = [assign(PQCHyperparams(), {"backend": b}).sizes() for b in ("native", "pennylane")]
    with pytest.raises(ValueError, match="backend cannot differ"):
        merge(sizes)
