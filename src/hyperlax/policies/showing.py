"""Ways to show an episode: an animation, a sheet of pictures, or an interactive page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from hyperlax.envs.base import AbstractEnv
from hyperlax.envs.scenes import Scene
from hyperlax.policies import films

PICTURED = (".gif", ".png", ".html")
"""What is drawn from the states of an episode: an animation, a sheet of pictures, and brax's viewer."""
SUFFIXES = (*PICTURED, ".npz")
"""What can be written of episodes; the last are arrays."""


def shown(
    suffix: str, env: AbstractEnv, states: Sequence[Any], rewards: Float[np.ndarray, " steps"]
) -> bytes | str:
    """The contents of a file with this suffix, one of `PICTURED`, for the `states` of an episode.

    Raises `ValueError` if the environment has no pictures of that kind.
    """
    if suffix == ".html":
        if (page := env.viewer(states)) is None:
            raise ValueError(
                "this environment has no page to watch; define viewer(states) on its class, or end the name "
                "in .gif or .png"
            )
        return page
    scenes = _scenes(env, states)
    earned = np.concatenate([[0.0], np.cumsum(rewards, dtype=np.float64)])
    captions = [f"step {t}   return {earned[t]:.4g}" for t in range(len(scenes))]
    return films.animation(scenes, captions) if suffix == ".gif" else films.sheet(scenes, captions)


def _scenes(env: AbstractEnv, states: Sequence[Any]) -> list[Scene]:
    """What is seen of each state."""
    found = []
    for state in states:
        if (scene := env.scene(state)) is None:
            raise ValueError(
                "this environment has no pictures; define scene(state) on its class, or end the name in .npz "
                "for what was observed and done"
            )
        found.append(scene)
    return found
