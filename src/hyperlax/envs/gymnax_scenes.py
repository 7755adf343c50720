"""Pictures of states of gymnax environments."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi, sin
from typing import Any

import numpy as np

from hyperlax.envs.scenes import Disc, Line, Point, Scene, Shape, rectangle

DARK, GROUND, BODY, MOVING, GOAL, JOINT = "#2b2f3a", "#b9bec9", "#3b6fb6", "#d9822b", "#2f9e63", "#8a2f4f"


def cartpole(state: Any) -> Scene:
    """A cart on a track, 2.4 to each side, and a pole of length 1."""
    x, angle = float(state.x), float(state.theta)
    top = (x + sin(angle), cos(angle))
    marks = tuple(Line(((end, -0.16), (end, 0.04)), 0.03, JOINT) for end in (-2.4, 2.4))
    shapes: tuple[Shape, ...] = (
        Line(((-3.0, -0.16), (3.0, -0.16)), 0.03, GROUND),
        *marks,
        rectangle((x, -0.04), 0.5, 0.2, DARK),
        Line(((x, 0.0), top), 0.09, MOVING),
        Disc((x, 0.0), 0.05, GROUND),
    )
    return Scene(shapes, (-3.0, 3.0), (-0.8, 1.6), 0.02)


def pendulum(state: Any) -> Scene:
    """A rod of length 1, upright at angle zero, and the torque as an arc around its joint."""
    angle, torque = float(state.theta), float(np.asarray(state.last_u).reshape(()))
    end = (-sin(angle), cos(angle))
    arc = np.linspace(0, torque * pi / 3, 24)
    turned = tuple((-0.32 * sin(a), 0.32 * cos(a)) for a in arc)
    shapes: tuple[Shape, ...] = (
        Line(((0.0, 0.0), end), 0.16, MOVING),
        Line(turned, 0.03, BODY),
        Disc((0.0, 0.0), 0.06, DARK),
    )
    return Scene(shapes, (-1.6, 1.6), (-1.3, 1.3), 0.05)


def acrobot(state: Any) -> Scene:
    """Two links of length 1 that hang from a joint, and the height to reach."""
    first, second = float(state.joint_angle1), float(state.joint_angle1) + float(state.joint_angle2)
    elbow = (sin(first), -cos(first))
    end = (elbow[0] + sin(second), elbow[1] - cos(second))
    shapes: tuple[Shape, ...] = (
        Line(((-2.6, 1.0), (2.6, 1.0)), 0.02, GOAL),
        Line(((0.0, 0.0), elbow), 0.16, BODY),
        Line((elbow, end), 0.16, MOVING),
        Disc((0.0, 0.0), 0.09, DARK),
        Disc(elbow, 0.09, DARK),
    )
    return Scene(shapes, (-2.8, 2.8), (-2.2, 2.2), 1 / 15)


def mountain_car(state: Any) -> Scene:
    """A car in a valley of height 0.45 sin 3x, and the flag to reach."""
    return _valley(float(state.position), 0.5)


def mountain_car_continuous(state: Any) -> Scene:
    """As `mountain_car`; the flag stands a little lower."""
    return _valley(float(state.position), 0.45)


def _valley(x: float, goal: float) -> Scene:
    height = lambda x: 0.45 * sin(3 * x)  # noqa: E731
    hill = tuple((float(x), height(float(x))) for x in np.linspace(-1.3, 0.7, 80))
    slope = np.arctan(1.35 * cos(3 * x))
    along, up = (cos(slope), sin(slope)), (-sin(slope), cos(slope))
    at = lambda a, b: _moved((x, height(x)), along, a, up, b)  # noqa: E731
    shapes: tuple[Shape, ...] = (
        Line(hill, 0.02, GROUND),
        Line(((goal, height(goal)), (goal, height(goal) + 0.2)), 0.015, DARK),
        Line(((goal, height(goal) + 0.18), (goal + 0.09, height(goal) + 0.15)), 0.05, GOAL),
        Line((at(-0.06, 0.07), at(0.06, 0.07)), 0.07, MOVING),
        Disc(at(-0.05, 0.03), 0.03, DARK),
        Disc(at(0.05, 0.03), 0.03, DARK),
    )
    return Scene(shapes, (-1.3, 0.7), (-0.65, 0.85))


def _moved(start: Point, along: Point, a: float, up: Point, b: float) -> Point:
    return start[0] + a * along[0] + b * up[0], start[1] + a * along[1] + b * up[1]


def reacher(state: Any) -> Scene:
    """An arm of links of length 1, each at its own angle to the x axis, and the point to reach."""
    steps = [(cos(a), sin(a)) for a in np.asarray(state.angles, float)]
    joints = [(0.0, 0.0)]
    for dx, dy in steps:
        joints.append((joints[-1][0] + dx, joints[-1][1] + dy))
    links = [
        Line((joints[i], joints[i + 1]), 0.16, BODY if i % 2 == 0 else MOVING) for i in range(len(steps))
    ]
    discs = [Disc(joint, 0.09, DARK) for joint in joints[:-1]]
    goal = (float(state.goal_xy[0]), float(state.goal_xy[1]))
    shapes: tuple[Shape, ...] = (Disc(goal, 0.14, GOAL), *links, *discs)
    reach = len(steps) + 0.4
    return Scene(shapes, (-1.3 * reach, 1.3 * reach), (-reach, reach))


def swimmer(state: Any) -> Scene:
    """A swimmer, the urchins that it avoids, and the point to reach."""
    point = lambda xy: (float(xy[0]), float(xy[1]))  # noqa: E731
    urchins = [Disc(point(xy), 0.1, JOINT) for xy in np.asarray(state.urchin_xys)]
    shapes = (Disc(point(state.goal_xy), 0.08, GOAL), *urchins, Disc(point(state.xy), 0.06, MOVING))
    return Scene(shapes, (-1.7, 1.7), (-1.3, 1.3), 0.05)


def point_robot(state: Any) -> Scene:
    """A robot in the half circle on which its goal lies; what counts is within 0.2 of it."""
    arc = tuple((cos(a), sin(a)) for a in np.linspace(0, pi, 60))
    goal, here = (tuple(float(v) for v in np.asarray(xy)) for xy in (state.goal, state.pos))
    shapes: tuple[Shape, ...] = (
        Line(arc, 0.015, GROUND),
        Disc((goal[0], goal[1]), 0.2, "#cfe8da"),
        Disc((goal[0], goal[1]), 0.04, GOAL),
        Disc((here[0], here[1]), 0.06, MOVING),
    )
    return Scene(shapes, (-1.7, 1.7), (-0.9, 1.5), 0.1)


SCENES: dict[str, Callable[[Any], Scene]] = {
    "CartPole-v1": cartpole,
    "Pendulum-v1": pendulum,
    "Acrobot-v1": acrobot,
    "MountainCar-v0": mountain_car,
    "MountainCarContinuous-v0": mountain_car_continuous,
    "Reacher-misc": reacher,
    "Swimmer-misc": swimmer,
    "PointRobot-misc": point_robot,
}
"""The id of an environment of gymnax → the picture of one of its states."""
