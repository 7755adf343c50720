"""Pictures of states of brax environments, from the side, or from above for planar ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from hyperlax.envs.scenes import Disc, Line, Scene, Shape

SPHERE, CAPSULE = 2, 3
"""The types of MuJoCo's geometries that are drawn: all that brax's environments have but the ground."""
GROUND, FIXED = "#b9bec9", "#8a8f9c"
SHADES = ("#d9822b", "#3b6fb6", "#2f9e63", "#8a2f4f", "#7a62b8", "#2b8fa3")


class View(NamedTuple):
    """The position of the camera.

    - `above`: whether it looks from above, with the axes x and y; otherwise from the side, with x and z.
    - `follows`: whether it moves with the first body.
    - `centre`, `half`: the middle of the picture, and half of its width; in metres.
    """

    above: bool = False
    follows: bool = True
    centre: tuple[float, float] = (0.0, 0.8)
    half: float = 2.0


VIEWS = {
    "inverted_pendulum": View(follows=False, centre=(0.0, 0.3), half=1.3),
    "inverted_double_pendulum": View(follows=False, centre=(0.0, 0.5), half=1.5),
    "reacher": View(above=True, follows=False, centre=(0.0, 0.0), half=0.4),
    "pusher": View(above=True, follows=False, centre=(0.3, -0.2), half=1.1),
    "swimmer": View(above=True, centre=(0.0, 0.0), half=3.0),
}
"""Environment → its view; others are seen from the side."""


def scene(system: Any, name: str, seconds: float, state: Any) -> Scene:
    """The bodies of `system` in a state of its pipeline; those nearest to the camera are painted last.

    A step lasts `seconds`.
    """
    view = VIEWS.get(name, View())
    across, up, depth = (0, 1, 2) if view.above else (0, 2, 1)
    position, rotation = np.asarray(state.x.pos, float), np.asarray(state.x.rot, float)
    bodies: list[tuple[float, Shape]] = []
    for geom in range(int(system.ngeom)):
        kind, link = int(system.geom_type[geom]), int(system.geom_bodyid[geom]) - 1
        if kind not in (SPHERE, CAPSULE):
            continue
        radius, half = (float(x) for x in system.geom_size[geom][:2])
        ends = np.array([[0, 0, -half], [0, 0, half]]) if kind == CAPSULE else np.zeros((1, 3))
        ends = rotated(np.asarray(system.geom_quat[geom], float), ends) + np.asarray(system.geom_pos[geom])
        if link >= 0:
            ends = rotated(rotation[link], ends) + position[link]
        first, last = ((float(ends[i, across]), float(ends[i, up])) for i in (0, -1))
        colour = SHADES[link % len(SHADES)] if link >= 0 else FIXED
        shape = Line((first, last), 2 * radius, colour) if kind == CAPSULE else Disc(first, radius, colour)
        bodies.append((float(ends[:, depth].mean()) * (1 if view.above else -1), shape))
    bodies.sort(key=lambda body: body[0])
    x, y = view.centre
    if view.follows:
        x += float(position[0, across])
        y += float(position[0, up]) if view.above else 0.0
    low, high = x - view.half, x + view.half
    shapes = [*(() if view.above else _ground(low, high)), *(shape for _, shape in bodies)]
    return Scene(tuple(shapes), (low, high), (y - 0.6 * view.half, y + 0.6 * view.half), seconds)


def _ground(low: float, high: float) -> list[Shape]:
    """The ground, with a mark at every metre, by which movement is seen."""
    marks = range(int(np.floor(low)), int(np.ceil(high)) + 1)
    line = Line(((low, -0.02), (high, -0.02)), 0.03, GROUND)
    return [line, *(Line(((float(m), -0.02), (float(m), -0.12)), 0.03, GROUND) for m in marks)]


def rotated(quaternion: Float[np.ndarray, "4"], points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """`points` turned by a unit quaternion with the real part first: v + 2 w (u × v) + 2 u × (u × v)."""
    w, u = quaternion[0], quaternion[None, 1:]
    crossed = np.cross(u, points)
    return points + 2 * w * crossed + 2 * np.cross(u, crossed)
