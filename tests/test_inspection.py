"""Circuit diagnostics agree with hand-made states, known distributions and PennyLane's own counts."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax.commands.main import app
from hyperlax.hyperparams import assign
from hyperlax.networks import PQCHyperparams
from hyperlax.networks.diagnostics import BINS, counts, entangling_capability, expressibility, measure
from hyperlax.networks.pennylane import diagram
from hyperlax.studies import inspection


def states(*vectors: Sequence[complex]) -> jax.Array:
    x = np.asarray(vectors).T / np.linalg.norm(vectors, axis=1)
    return jnp.asarray(np.stack([x.real, x.imag]), jnp.float32)


def test_entangling_capability_of_known_states():
    """Product states have 0, Bell and GHZ states 1, W on 3 wires 8/9, a Bell pair and a free wire 2/3."""
    r = np.sqrt(0.5)
    product = np.kron([1, 1j], np.kron([1, 2], [3j, 1])).tolist()
    ghz = [r, 0, 0, 0, 0, 0, 0, 1j * r]
    w = [0, 1, 1, 0, 1, 0, 0, 0]
    bell = np.kron([r, 0, 0, r], [1, 1]).tolist()
    found = entangling_capability(states(product, ghz, w, bell))
    np.testing.assert_allclose(found, [0, 1, 8 / 9, 2 / 3], atol=1e-5)


@pytest.mark.parametrize("wires", [1, 2, 4])
def test_haar_random_states_have_expressibility_zero(wires):
    """Normal random vectors have the fidelities of Haar-random states; identical states are far from them."""
    rng = np.random.default_rng(0)
    draw = lambda: rng.normal(size=(20000, 2**wires)) + 1j * rng.normal(size=(20000, 2**wires))  # noqa: E731
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (draw(), draw()))
    assert 0 <= expressibility(np.abs(np.sum(a.conj() * b, 1)) ** 2, wires) < 0.01
    idle = (2**wires - 1) * np.log(BINS)
    assert expressibility(np.ones(10), wires) == pytest.approx(idle, rel=1e-6)


def test_counts_follow_the_definition():
    """There are 2nL + n rotations, 5 and 4 CZ in turn, and two executions per angle and one for the value."""
    hp = assign(PQCHyperparams(), {"layers": 3, "stacks": 2})
    found = counts(hp, 8)
    assert found["qubits"] == 6
    assert found["rotations"] == 2 * 6 * 3 + 6
    assert found["cz_gates"] == 3 + 2 + 3
    assert found["shift_rule_executions"] == 2 * 3 * found["rotations"] + 1
    ring = counts(assign(hp, {"entangler": "cz_ring"}), 8)
    assert ring["cz_gates"] == 18


def test_no_entangler_entangles_nothing_and_depth_does():
    base = assign(PQCHyperparams(), {"stacks": 2, "initial_angles": "unit"})
    free, shallow, deep = measure(
        [assign(base, c) for c in ({"entangler": "none"}, {"layers": 1}, {"layers": 6})], 6, 60
    )
    assert free["entangling_capability"] == pytest.approx(0, abs=1e-5)
    assert 0.01 < shallow["entangling_capability"] < deep["entangling_capability"] < 1
    assert deep["expressibility"] < shallow["expressibility"]
    assert deep["gradient_variance"] > 0


def run(*arguments: str) -> int:
    return app(list(arguments), exit_on_error=False, result_action="return_value")


def test_the_command_prints_the_diagram_and_writes_table_and_chart(tmp_path, capsys):
    line = ["inspect-circuit", "--layers", "1", "2", "--stacks", "1", "--draws", "8"]
    files = ["--output-file", str(tmp_path / "out.csv"), "--diagram-file", str(tmp_path / "circuit.png")]
    assert run(*line, "--env-config", "gymnax.cartpole", *files) == 0
    assert (tmp_path / "circuit.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert 'Rot("x0:3")' in printed
    assert "circuits at initialisation" in printed
    for words in (*list(inspection.COLUMNS.values())[2:], "Sim et al. 2019", "Meyer and Wallach 2002"):
        assert f"{words}:" in printed or f"({words})" in printed, words
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3
    table = inspection.pl.read_csv(tmp_path / "out.csv")
    inspection.save(table, tmp_path / "out.svg", "circuits")
    assert "<svg" in (tmp_path / "out.svg").read_text()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--algo-and-network-config", "ppo_mlp"], "not a circuit"),
        (["--algo-and-network-config", "dqn_drpqc", "--env-config", "gymnax.cartpole"], "has no network"),
        (["--stacks", "40"], "qubits fit"),
        (["--output-file", "x.doc"], "must end in"),
        (["--diagram-file", "x.csv"], "--diagram-file x.csv must end in .svg, .png or .pdf"),
    ],
)
def test_networks_that_cannot_be_inspected_are_refused(line, message):
    with pytest.raises(ValueError, match=message):
        run("inspect-circuit", *line)


def test_rounded_fidelities_above_one_count():
    assert expressibility(np.full(10, 1 + 1e-7), 2) == expressibility(np.ones(10), 2)


def test_the_diagram_shows_what_is_encoded_and_measured():
    again, once = diagram(3, 2, 2, "cz"), diagram(3, 2, 2, "cz", reupload=False, measured=1)
    assert (again.count("x0:3"), once.count("x0:3")) == (6, 2)
    assert (again.count("<Z>"), once.count("<Z>")) == (2, 1)
    assert "θ2,1" in once
    assert "+θ2,1" in again
    assert "+θ" not in once
