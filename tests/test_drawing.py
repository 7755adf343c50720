"""Circuit diagrams: every gate that is run is drawn, and the SVG document is well-formed."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET

import pytest

from hyperlax.hyperparams import assign
from hyperlax.networks.drawing import svg
from hyperlax.networks.pennylane import couplings
from hyperlax.networks.pqc import PQCHyperparams

NAMESPACE = "{http://www.w3.org/2000/svg}"


def drawn(*args, **kwargs):
    """Return the rectangles, the dots of CZ gates and the words of the diagram."""
    root = ET.fromstring(svg(*args, **kwargs))
    words = [t.text or "" for t in root.iter(f"{NAMESPACE}text")]
    return len(list(root.iter(f"{NAMESPACE}rect"))), len(list(root.iter(f"{NAMESPACE}circle"))), words


@pytest.mark.parametrize("entangler", ["none", "cz", "cz_ring"])
def test_gates_are_those_of_the_circuit(entangler):
    gates, dots, words = drawn(4, 2, 3, entangler)
    assert gates == 4 * (2 * 3 + 1) + 4, "two rotations per layer, one at the end, and what is measured"
    assert dots == 2 * sum(len(couplings(4, layer, entangler)) for layer in range(3))
    assert words.count("x₀…₂") == words.count("x₃") == 2 * 3
    assert words.count("x₀…₂+θ") == 2


def test_without_reuploading_features_enter_once():
    _, _, words = drawn(4, 1, 3, "cz", reupload=False, measured=1)
    assert words.count("x₀…₂") == 1
    assert words.count("θ") == 2 * 4
    assert words.count("⟨Z⟩") == 1


def test_deep_circuits_are_summed_up():
    gates, _, words = drawn(3, 1, 30, "cz")
    assert "⋯ 27 more layers ⋯" in words
    assert gates == 2 * 3 + 2
    assert "more" not in " ".join(drawn(3, 1, 4, "cz")[2])


def test_lines_of_one_column_do_not_cross():
    lines = ET.fromstring(svg(18, 1, 1, "cz_ring")).iter(f"{NAMESPACE}path")
    spans: dict[str, list[tuple[float, float]]] = {}
    for line in (p.get("d", "") for p in lines):
        if "V" in line:
            x, rest = line[1:].split(" ")
            top, bottom = rest.split("V")
            spans.setdefault(x, []).append((float(top), float(bottom)))
    assert sum(map(len, spans.values())) == 6
    for column in spans.values():
        ordered = sorted(column)
        assert all(a[1] < b[0] for a, b in itertools.pairwise(ordered))


def test_a_sample_draws_itself_and_its_title_is_escaped():
    hp = assign(PQCHyperparams(), {"layers": 2, "stacks": 3, "entangler": "none"})
    picture = hp.picture(3, "a < b")
    assert "<title>a &lt; b</title>" in picture
    assert "circle" not in picture
