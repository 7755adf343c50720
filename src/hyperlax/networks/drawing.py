"""Drawing of circuits as SVG documents without scripts, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from hyperlax.networks.pennylane import ANGLES, couplings

LAYERS_SHOWN = 3
"""Number of layers that are drawn before the remaining ones are summarised."""
ROW, BOX, HEIGHT, GAP = 44, 62, 28, 8
"""Distances in pixels: between wires, width of a gate, height of a gate, between gates."""
COLOURS = {"features": "#0072b2", "trained": "#e69f00", "both": "#009e73", "measured": "#777777"}
"""Kind of gate → colour, from the colour-blind palette of Okabe and Ito."""


def svg(
    in_size: int,
    stacks: int,
    layers: int,
    entangler: str,
    *,
    reupload: bool = True,
    measured: int = 0,
    title: str = "",
) -> str:
    """Draw the data re-uploading circuit of `networks.pqc.PQC` as an SVG document.

    Blue gates rotate by features x times their scales, orange ones by trained angles θ, and green ones by the
    sum of both; two dots joined by a line are a CZ gate. For a deep circuit the first layers, the number of
    omitted layers and the last layer are drawn. `measured` is the number of measured wires, counted from the
    first one; 0 means all.
    """
    blocks = -(-in_size // ANGLES)
    wires = blocks * stacks
    sheet = _Sheet(wires)
    features = [_features(w % blocks, in_size) for w in range(wires)]
    sheet.labels(["|0⟩"] * wires)
    shown = layers if layers <= LAYERS_SHOWN + 1 else LAYERS_SHOWN
    for layer in range(shown):
        if reupload or layer == 0:
            sheet.gates(features, "features")
        sheet.gates(["θ"] * wires, "trained")
        for column in _columns(couplings(wires, layer, entangler)):
            sheet.cz_gates(column)
    if shown < layers:
        left = layers - shown
        sheet.note(f"⋯ {left} more {'layers' if left > 1 else 'layer'} ⋯")
    if reupload or layers == 0:
        sheet.gates([f"{x}+θ" for x in features], "both")
    else:
        sheet.gates(["θ"] * wires, "trained")
    seen = min(measured, wires) or wires
    sheet.gates(["⟨Z⟩"] * seen, "measured")
    return sheet.document(title)


def _features(block: int, in_size: int) -> str:
    """The label of the features that block number `block` encodes, such as x₃…x₅."""
    first, last = ANGLES * block, min(ANGLES * (block + 1), in_size) - 1
    return f"x{_subscript(first)}" if first == last else f"x{_subscript(first)}…{_subscript(last)}"


def _subscript(number: int) -> str:
    return "".join(chr(0x2080 + int(digit)) for digit in str(number))


def _columns(pairs: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Distribute pairs of wires over columns, so that the lines of a column do not overlap."""
    columns: list[list[tuple[int, int]]] = []
    for pair in pairs:
        low, high = sorted(pair)
        for column in columns:
            if all(high < min(other) or low > max(other) for other in column):
                column.append(pair)
                break
        else:
            columns.append([pair])
    return columns


class _Sheet:
    """A drawing that grows to the right, column by column; `x` is the left edge of the next column."""

    def __init__(self, wires: int):
        self.wires = wires
        self.x = 8
        self.parts: list[str] = []

    def labels(self, words: Sequence[str]) -> None:
        for wire, word in enumerate(words):
            self._text(self.x + 14, wire, word)
        self.x += 36
        self.ends = [self.x - 6] * self.wires

    def gates(self, words: Sequence[str], kind: str) -> None:
        for wire, word in enumerate(words):
            top = self._middle(wire) - HEIGHT // 2
            self._wire(wire, BOX)
            self.parts.append(
                f'<rect x="{self.x}" y="{top}" width="{BOX}" height="{HEIGHT}" rx="4" '
                f'fill="{COLOURS[kind]}" fill-opacity="0.25" stroke="{COLOURS[kind]}"/>'
            )
            self._text(self.x + BOX // 2, wire, word)
        self.x += BOX + GAP

    def cz_gates(self, pairs: Sequence[tuple[int, int]]) -> None:
        x = self.x + 8
        for a, b in pairs:
            top, bottom = self._middle(min(a, b)), self._middle(max(a, b))
            self.parts.append(f'<path d="M{x} {top}V{bottom}" stroke="currentColor" stroke-width="1.5"/>')
            self.parts += [f'<circle cx="{x}" cy="{y}" r="4" fill="currentColor"/>' for y in (top, bottom)]
        self.x += 16 + GAP

    def note(self, text: str) -> None:
        width = 8 * len(text)
        middle = ROW * self.wires // 2
        for wire in range(self.wires):
            self._wire(wire, width)
        self.parts.append(f'<text x="{self.x + width // 2}" y="{middle}" class="said">{escape(text)}</text>')
        self.x += width + GAP

    def document(self, title: str) -> str:
        width, height = self.x + 8, ROW * self.wires
        for wire in range(self.wires):
            self._wire(wire, 0)
        named = f"<title>{escape(title)}</title>" if title else ""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img">{named}'
            "<style>text{font:14px system-ui,sans-serif;text-anchor:middle;dominant-baseline:central;"
            "fill:currentColor}.said{fill-opacity:.7}</style>"
            f"{''.join(self.parts)}</svg>"
        )

    def _wire(self, wire: int, width: int) -> None:
        """Draw a wire from its last element to the current column, whose element is `width` pixels wide."""
        line = f'<path d="M{self.ends[wire]} {self._middle(wire)}H{self.x}" '
        self.parts.append(f'{line}stroke="currentColor" stroke-opacity="0.6"/>')
        self.ends[wire] = self.x + width

    def _middle(self, wire: int) -> int:
        return ROW * wire + ROW // 2

    def _text(self, x: int, wire: int, word: str) -> None:
        self.parts.append(f'<text x="{x}" y="{self._middle(wire)}">{escape(word)}</text>')
