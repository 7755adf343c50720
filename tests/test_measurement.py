"""Circuits measured with finite shots and noise, against PennyLane's density matrices."""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pennylane as qml
import pytest
from lanes import quick

import hyperlax
from hyperlax.hyperparams import assign
from hyperlax.networks.measurement import Measurement, probabilities, z_means
from hyperlax.networks.mlp import MLPHyperparams
from hyperlax.networks.pennylane import couplings
from hyperlax.networks.pqc import ENTANGLERS, PQC, PQCHyperparams
from hyperlax.report import write_report

IN_SIZE = 4


@partial(quick, static_argnames="layers")
def built(hp, layers):
    return PQC(hp, IN_SIZE, {"layers": layers, "stacks": 2}, key=jr.key(3))


def circuit(allocated=4, **changes):
    hp = jax.tree.map(jnp.asarray, assign(PQCHyperparams(), {"layers": 3, "stacks": 2, **changes}))
    return built(hp, allocated)


@partial(quick, static_argnames="how")
def measured(net, how, key, x):
    return net.measured(how, key)(x)


X = jnp.array([0.3, -0.7, 1.1, 0.4])


def noisy_by_pennylane(net: PQC, x, strength: float) -> np.ndarray:
    """⟨σz⟩ by `default.mixed`, with its own depolarizing channel after every layer."""
    wires, depth = int(net.wires), int(net.hp.layers)
    first, second = (np.asarray(a[..., 0]) for a in net.rotation_angles(x[:, None]))
    entangler = ENTANGLERS[int(net.hp.entangler)]

    @qml.qnode(qml.device("default.mixed", wires=wires))
    def node():
        for layer in range(depth + 1):
            for w in range(wires):
                qml.Rot(*first[:, layer, w], wires=w)
                qml.Rot(*second[:, layer, w], wires=w)
            for a, b in couplings(wires, layer, entangler) if layer < depth else []:
                qml.CZ(wires=[a, b])
            for w in range(wires):
                qml.DepolarizingChannel(strength, wires=w)
        return [qml.expval(qml.PauliZ(w)) for w in range(wires)]

    return np.asarray(node())


@pytest.mark.parametrize("entangler", ["cz", "cz_ring"])
@pytest.mark.parametrize("strength", [0.02, 0.3])
def test_noise_is_that_of_pennylanes_mixed_states(entangler, strength):
    net = circuit(entangler=entangler)
    ours = measured(net, Measurement(depolarizing=strength), jr.key(0), X)
    assert ours == pytest.approx(noisy_by_pennylane(net, X, strength), abs=1e-5)


def test_complete_noise_leaves_nothing():
    found = measured(circuit(), Measurement(depolarizing=0.75), jr.key(0), X)
    assert found == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("how", [Measurement(), Measurement(depolarizing=1e-9)])
def test_without_shots_and_noise_it_is_the_circuit(how):
    net = circuit(output_scale=True, measured=2)
    exact = quick(lambda net, x: net(x))(net, X)
    assert measured(net, how, jr.key(0), X) == pytest.approx(np.asarray(exact), abs=1e-5)


def test_noise_ends_with_the_lanes_own_layers():
    how = Measurement(depolarizing=0.1)
    own = np.asarray(measured(circuit(), how, jr.key(0), X))
    assert measured(circuit(allocated=9), how, jr.key(0), X) == pytest.approx(own, abs=1e-6)


def test_shots_scatter_around_the_expectation_as_binomials_do():
    net, how = circuit(), Measurement(shots=100, depolarizing=0.1)
    exact = np.asarray(measured(net, Measurement(depolarizing=how.depolarizing), jr.key(0), X))
    often = quick(jax.vmap(lambda k: net.measured(how, k)(X)))
    drawn = np.asarray(often(jr.split(jr.key(1), 2000)))
    error = np.sqrt((1 - exact**2) / how.shots)
    assert np.all(np.abs(drawn.mean(0) - exact) < 5 * error / np.sqrt(2000))
    assert drawn.std(0) == pytest.approx(error, rel=0.1)
    counts = (drawn + 1) / 2 * how.shots
    assert counts == pytest.approx(np.round(counts), abs=1e-3)


def test_all_wires_are_read_in_the_same_shots():
    """Of the state (|00⟩ + |11⟩) / √2 both wires show the same, whatever the shots."""
    draw = quick(jax.vmap(lambda k: z_means(jnp.array([0.5, 0, 0, 0.5]), 7, key=k)))
    drawn = np.asarray(draw(jr.split(jr.key(0), 50)))
    assert np.array_equal(drawn[:, 0], drawn[:, 1])
    assert len(np.unique(drawn[:, 0])) > 3


def test_an_impossible_outcome_is_never_drawn():
    drawn = quick(lambda key: z_means(jnp.array([0.0, 1.0, 0.0, 0.0]), 1000, key=key))(jr.key(0))
    assert drawn == pytest.approx([1.0, -1.0])


def test_probabilities_add_up():
    @quick
    def every_outcome(net):
        first, second = (a[..., 0] for a in net.rotation_angles(X[:, None]))
        return probabilities(first, second, net.signs(), net.hp.layers, 0.05)

    found = np.asarray(every_outcome(circuit()))
    assert found.sum() == pytest.approx(1, abs=1e-5)
    assert np.all(found >= 0)


@pytest.mark.parametrize("how", [Measurement(), Measurement(depolarizing=0.1)])
def test_accelerators_multiply_in_single_precision(how):
    """By default they round the factors of a product to ten bits."""
    text = jax.jit(lambda net: net.measured(how, jr.key(0))(X)).lower(circuit()).as_text()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert products
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)


def test_other_networks_do_not_change():
    hp = MLPHyperparams()
    net = eqx.filter_eval_shape(hp.network, IN_SIZE, hp.sizes(), key=jr.key(0))
    assert net.measured(Measurement(shots=3), jr.key(0)) is net


@pytest.mark.slow
def test_a_run_is_evaluated_with_shots_and_trained_without(tmp_path):
    common = {
        "recipe": "ppo_drpqc",
        "env": "gymnax.cartpole",
        "run_length_modifier": "quick",
        "seeds": 1,
        "total_timesteps": 256,
        "num_samples": 2,
        "eval_episodes": 4,
    }
    small = {f"{net}.{size}": 1 for net in ("actor", "critic") for size in ("layers", "stacks")}
    small |= {"epochs": 1, "num_envs": 4, "rollout_length": 16, "num_minibatches": 2}
    exact = hyperlax.sweep(**common, folder=tmp_path / "exact", set=small)
    measured = {"eval.shots": 1, "eval_depolarizing": "0.1"}
    few = hyperlax.sweep(**common, folder=tmp_path / "few", set={**small, **measured})
    assert few.manifest["settings"]["eval_shots"] == 1
    page = write_report(few, tmp_path / "few" / "report.html").read_text()
    assert page.count("trained parameters</title>") == 2, "the circuits of actor and critic are drawn"
    a, b = (r.curves.sort("env_steps", "metric") for r in (exact, few))
    trained = [m for m in a["metric"].unique() if "loss" in m]
    for metric in trained:
        assert a.filter(a["metric"] == metric)["value"].equals(b.filter(b["metric"] == metric)["value"])
    assert not a.filter(a["metric"] == "return")["value"].equals(b.filter(b["metric"] == "return")["value"])


@pytest.mark.parametrize(
    ("recipe", "changes", "says"),
    [
        ("ppo_mlp", {"eval.shots": 10}, "apply to circuits.*use a recipe of drpqc"),
        ("ppo_drpqc", {"eval.shots": -1}, "eval.shots must be at least 0"),
        ("ppo_drpqc", {"eval.depolarizing": "lots"}, "needs a number"),
        ("ppo_drpqc", {"eval.depolarizing": 2}, "between 0 and 1"),
        ("ppo_drpqc", {"eval.shots": 10, "eval_shots": 20}, "given twice"),
        ("ppo_drpqc", {"eval.shot": 10}, 'did you mean "eval_shots"'),
        (
            "ppo_drpqc",
            {"eval.depolarizing": 0.1, "actor.stacks": 8},
            "measuring 16 qubits takes a density matrix of .* for each of 32 episodes",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(recipe, changes, says):
    with pytest.raises(ValueError, match=says):
        hyperlax.sweep(recipe, "gymnax.cartpole", set=changes)
