"""Draws the pictures of the documentation into docs/pictures.

    python docs/tools/pictures.py [folder]

Everything in them is computed from a few sizes, so that they can be changed and drawn again; a test compares
the files with what this program writes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

INK, GREY, LIGHT = "#24292f", "#8b949e", "#e6e9ed"
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")
"""Colours that can be told apart with any colour vision (Okabe and Ito 2008)."""


@dataclass
class Picture:
    """An SVG drawing of `width` × `height` pixels on a white card."""

    width: float
    height: float
    title: str
    parts: list[str] = field(default_factory=list)

    def box(self, x: float, y: float, w: float, h: float, fill: str, edge: str = "none") -> None:
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="3" fill="{fill}" stroke="{edge}"/>'
        )

    def text(
        self, x: float, y: float, words: str, *, anchor: str = "start", fill: str = INK, size: float = 13
    ) -> None:
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{fill}" font-size="{size:g}">'
            f"{escape(words)}</text>"
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str, *, dashed: bool = False) -> None:
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self.parts.append(f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{colour}"{dash}/>')

    def arrow(self, x1: float, x2: float, y: float) -> None:
        """A horizontal arrow from x1 to x2."""
        self.line(x1, y, x2, y, INK)
        self.parts.append(f'<path d="M{x2:g},{y:g} l-7,-4 v8 z" fill="{INK}"/>')

    def circle(self, x: float, y: float, radius: float, fill: str, edge: str) -> None:
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{fill}" stroke="{edge}"/>')

    def svg(self) -> str:
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} {self.height:g}" '
            f'width="{self.width:g}" height="{self.height:g}" role="img" font-family="sans-serif">'
        )
        card = f'<rect width="{self.width:g}" height="{self.height:g}" rx="8" fill="#ffffff"/>'
        return "\n".join([head, f"<title>{escape(self.title)}</title>", card, *self.parts, "</svg>"]) + "\n"


def lanes() -> Picture:
    """Three samples with two seeds each make six lanes, which two slots train one after another."""
    picture = Picture(720, 250, "Samples and seeds become lanes; lanes go through the slots of a program")
    lengths = (150, 110, 60, 130, 95, 120)  # how long each lane trains, in pixels
    picture.text(20, 28, "samples × seeds")
    for seed in range(2):
        picture.text(112 + 46 * seed, 52, f"seed {seed}", anchor="middle", fill=GREY, size=11)
    for sample in range(3):
        y = 62 + 50 * sample
        picture.text(20, y + 24, f"sample {sample}", fill=GREY, size=11)
        for seed in range(2):
            picture.box(92 + 46 * seed, y, 40, 40, COLOURS[sample])
            picture.text(
                112 + 46 * seed, y + 25, f"{2 * sample + seed}", anchor="middle", fill="#ffffff", size=14
            )
    picture.arrow(200, 262, 132)
    picture.text(231, 122, "lanes", anchor="middle", size=11)
    picture.text(280, 28, "one program, two slots")
    picture.box(276, 44, 424, 150, "#f6f8fa", LIGHT)
    free = [0.0, 0.0]
    for lane in range(6):
        slot = free.index(min(free))
        length = lengths[lane]
        x, y = 290 + free[slot], 58 + 68 * slot
        picture.box(x, y, length - 4, 52, COLOURS[lane // 2])
        picture.text(x + length / 2 - 2, y + 32, f"{lane}", anchor="middle", fill="#ffffff", size=14)
        free[slot] += length
    picture.arrow(290, 690, 214)
    picture.text(690, 234, "time", anchor="end", fill=GREY, size=11)
    picture.text(290, 234, "a slot takes the next lane when one ends", fill=GREY, size=11)
    return picture


def padding() -> Picture:
    """A network of width 3 in an allocation of width 5: the other units have no weights."""
    picture = Picture(720, 270, "An MLP of width 3 inside an allocation of width 5")
    columns = (("observation", 2, 2), ("hidden 1", 3, 5), ("hidden 2", 3, 5), ("action", 1, 1))
    xs = (110, 270, 430, 590)

    def place(column: int, unit: int) -> tuple[float, float]:
        return xs[column], 145 + 38 * (unit - (columns[column][2] - 1) / 2)

    for left in range(3):
        for i in range(columns[left][2]):
            for j in range(columns[left + 1][2]):
                used = i < columns[left][1] and j < columns[left + 1][1]
                (x1, y1), (x2, y2) = place(left, i), place(left + 1, j)
                if used:
                    picture.line(x1, y1, x2, y2, COLOURS[0])
    for column, (name, used, cap) in enumerate(columns):
        picture.text(xs[column], 28, name, anchor="middle")
        for unit in range(cap):
            x, y = place(column, unit)
            picture.circle(x, y, 12, COLOURS[0] if unit < used else "#ffffff", INK if unit < used else GREY)
            if unit >= used:
                picture.text(x, y + 4, "0", anchor="middle", fill=GREY, size=11)
    picture.text(
        360,
        258,
        "n = 3 units are used, cap = 5 are allocated: all weights of the others are zero and stay zero",
        anchor="middle",
        fill=GREY,
        size=12,
    )
    return picture


def plan() -> Picture:
    """Eight lanes of different sizes in one program, and in two."""
    widths = (16, 16, 24, 32, 96, 112, 128, 128)
    groups = (("one program", [widths]), ("two programs", [widths[:4], widths[4:]]))
    picture = Picture(720, 250, "Lanes of different sizes, grouped into two programs")
    x = 30.0
    for name, programs in groups:
        start = x
        useful = sum(widths) / sum(max(program) * len(program) for program in programs)
        for program in programs:
            for width in program:
                picture.box(x, 50 + 128 - max(program), 32, max(program), LIGHT, GREY)
                picture.box(x, 50 + 128 - width, 32, width, COLOURS[programs.index(program) * 2])
                x += 36
            x += 14
        picture.text(start, 30, f"{name}: {useful:.0%} of the work is useful")
        for lane, width in enumerate(widths):
            gap = 14 * (len(programs) == 2 and lane >= 4)
            picture.text(start + 36 * lane + 16 + gap, 196, f"{width}", anchor="middle", fill=GREY, size=11)
        x += 26
    picture.text(
        30,
        232,
        "each bar is a lane: its width (coloured) in what its program allocates (grey)",
        fill=GREY,
        size=12,
    )
    return picture


def cycles() -> Picture:
    """The life of a lane: cycles of a rollout and of learning, and evaluations at milestones."""
    picture = Picture(720, 200, "A lane trains in cycles and is evaluated at milestones")
    rollout, learning, cycle = 46, 22, 72
    for i in range(9):
        x = 30 + cycle * i
        picture.box(x, 70, rollout, 42, COLOURS[0])
        picture.box(x + rollout, 70, learning, 42, COLOURS[1])
    picture.text(30, 28, "one lane")
    picture.box(110, 16, 14, 14, COLOURS[0])
    picture.text(130, 28, "rollout: num_envs × rollout_length env steps", size=12)
    picture.box(410, 16, 14, 14, COLOURS[1])
    picture.text(430, 28, "learning: epochs × minibatches", size=12)
    for k in range(1, 4):
        asked = 30 + 210 * k
        done = 30 + cycle * -(-210 * k // cycle)
        picture.line(asked, 52, asked, 122, GREY, dashed=True)
        picture.text(asked, 48, ("T / 3", "2 T / 3", "T")[k - 1], anchor="middle", fill=GREY, size=11)
        done = min(done, 30 + cycle * 9)
        picture.box(done - 8, 122, 12, 24, COLOURS[2])
    picture.text(
        30,
        178,
        "evaluations (green) come at the end of the cycle in which a milestone falls",
        fill=GREY,
        size=12,
    )
    return picture


def seeds() -> Picture:
    """How often n seeds show nothing of failures that happen to 30 % of all seeds."""
    picture = Picture(720, 230, "How often no seed fails although 30 % of all seeds do")
    counts = (2, 3, 4, 5, 8, 10, 15, 20)
    picture.text(30, 28, "30 % of all seeds fail: how often does none of yours?")
    for i, n in enumerate(counts):
        share, x = 0.7**n, 50 + 82 * i
        height = 280 * share
        picture.box(x, 190 - height, 46, height, COLOURS[0])
        label = f"{share:.0%}" if share >= 0.01 else f"{share:.1%}"
        picture.text(x + 23, 184 - height, label, anchor="middle", size=12)
        picture.text(x + 23, 210, f"{n} seeds", anchor="middle", fill=GREY, size=11)
    picture.line(30, 190, 690, 190, GREY)
    return picture


PICTURES: dict[str, Callable[[], Picture]] = {
    "lanes": lanes,
    "padding": padding,
    "plan": plan,
    "cycles": cycles,
    "seeds": seeds,
}
"""File name, without its ending → what draws it."""


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        (folder / f"{name}.svg").write_text(draw().svg(), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "pictures")
