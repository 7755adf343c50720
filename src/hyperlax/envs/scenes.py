"""Pictures of environments as a few shapes in the plane, from which animations are drawn."""

from __future__ import annotations

from typing import NamedTuple

Point = tuple[float, float]


class Line(NamedTuple):
    """A line through points with round ends, `width` wide."""

    points: tuple[Point, ...]
    width: float
    colour: str


class Disc(NamedTuple):
    """A filled circle."""

    centre: Point
    radius: float
    colour: str


class Polygon(NamedTuple):
    """A filled polygon."""

    corners: tuple[Point, ...]
    colour: str


Shape = Line | Disc | Polygon


class Scene(NamedTuple):
    """The picture of one state: shapes in the order in which they are painted.

    Lengths are those of the environment, the second coordinate points upwards, and colours are written
    `#rrggbb`.

    - `x`, `y`: the lowest and the highest coordinate that is visible.
    - `seconds`: how long the state lasts in an animation.
    """

    shapes: tuple[Shape, ...]
    x: Point
    y: Point
    seconds: float = 1 / 30


def rectangle(centre: Point, width: float, height: float, colour: str) -> Polygon:
    """A rectangle whose sides are horizontal and vertical."""
    (x, y), w, h = centre, width / 2, height / 2
    return Polygon(((x - w, y - h), (x + w, y - h), (x + w, y + h), (x - w, y + h)), colour)
