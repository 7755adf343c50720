"""Files that show a recorded episode: films, sheets of pictures, pages, arrays."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyperlax.envs.scenes import Scene
from hyperlax.storage.files import write_atomically

if TYPE_CHECKING:
    from hyperlax.policies.rollouts import Rollout

SUFFIXES = (".gif", ".png", ".html", ".npz")
"""What `show` writes: a film, a sheet of pictures, brax's viewer, and the recorded arrays."""
PICTURED = (".gif", ".png", ".html")
"""Those of `SUFFIXES` for which the states have to be recorded."""


def show(rollout: Rollout, path: Path, episode: int) -> Path:
    """Write the file that the suffix of `path` stands for, and return `path`.

    Raises `ValueError` for another suffix, and if the environment has no picture of that kind.
    """
    if path.suffix == ".npz":
        return write_atomically(path, _arrays(rollout))
    if path.suffix == ".html":
        page = rollout.env.viewer(rollout.episode(episode))
        if page is None:
            raise ValueError(f"{path}: only brax's environments have a page; end the name in .gif or .png")
        return write_atomically(path, page)
    if path.suffix not in PICTURED:
        raise ValueError(f"{path} must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    from hyperlax.policies import films

    scenes, captions = _scenes(rollout, path, episode)
    return write_atomically(path, (films.film if path.suffix == ".gif" else films.sheet)(scenes, captions))


def _scenes(rollout: Rollout, path: Path, episode: int) -> tuple[list[Scene], list[str]]:
    """What is seen of each state of an episode, and the step and the return so far in words."""
    scenes = [scene for state in rollout.episode(episode) if (scene := rollout.env.scene(state)) is not None]
    earned = np.concatenate([[0.0], np.cumsum(rollout.rewards[episode], dtype=np.float64)])
    if len(scenes) <= rollout.lengths[episode]:
        raise ValueError(
            f"{path}: this environment has no pictures; define scene(state) on its class, or end the name "
            "in .npz for what was observed and done"
        )
    return scenes, [f"step {t}   return {earned[t]:.4g}" for t in range(len(scenes))]


def _arrays(rollout: Rollout) -> bytes:
    """The recorded arrays, without states, as a file of NumPy."""
    file = io.BytesIO()
    names = ("returns", "lengths", "terminated", "obs", "actions", "rewards")
    np.savez_compressed(file, allow_pickle=False, **{name: getattr(rollout, name) for name in names})
    return file.getvalue()
