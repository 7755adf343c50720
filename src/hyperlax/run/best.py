"""The choice of trained agents that a run saves as policies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from hyperlax import policies
from hyperlax.agents.base import AbstractAgent
from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.samples import Lane
from hyperlax.storage.store import Store

BEST_POLICIES = 5
"""How many policies `Execution.save_policies="best"` keeps."""


class BestPolicies:
    """Saves the agents of finished lanes: the `best`, `all` or `none`, as `which` says.

    The attribute `best` holds (score, lane) of the saved agents.
    """

    def __init__(self, store: Store | None, which: str, experiment: Experiment[Any]):
        self.store, self.which, self.experiment = store, which, experiment
        self.best: list[tuple[float, int]] = []

    def keep(
        self, lane: Lane, score: float | None, caps: Mapping[str, Any], agent: Callable[[], AbstractAgent]
    ) -> None:
        """Save what `agent` returns if the `score` of the lane is among the best so far (or all are saved).

        The score is the return of the final weights in fresh episodes, apart from the learning curve.

        The file of one that is no longer among the best is removed with the next commits, as it may belong to
        the last. A lane without a score counts as the worst; of equal ones the smallest lane is kept, which
        leads the leaderboard.
        """
        if self.store is None or self.which == "none" or lane.status != "done":
            return
        self.best.append((float(-np.inf if score is None else score), lane.lane))
        dropped = None
        if self.which == "best" and len(self.best) > BEST_POLICIES:
            worst = min(self.best, key=preference)
            self.best.remove(worst)
            dropped = worst[1]
        if dropped != lane.lane:
            spec, path = self.experiment, self.store.folder / policy_name(lane.lane)
            about = {"lane": lane.lane, "sample": lane.sample, "seed": lane.seed, "env_steps": lane.env_steps}
            about |= {"score": score, "definition": definition(spec)}
            policies.save(path, agent(), spec.recipe, spec.env_name, caps, **about)

    def forget(self, lanes: Collection[int]) -> None:
        """Leave out the agents of `lanes`, which are trained again."""
        self.best = [entry for entry in self.best if entry[1] not in lanes]


def preference(entry: tuple[float, int]) -> tuple[float, int]:
    """The order in which (score, lane) are kept, the best last: of equal scores the smallest lane."""
    score, lane = entry
    return score, -lane


def definition(spec: Experiment[Any]) -> str:
    """What the score of a saved policy is, in words: the return in episodes that chose no evaluation."""
    settings = spec.settings
    count = settings.eval_episodes * settings.fresh_repeats(spec.env.max_episode_steps)
    episodes = "episode" if count == 1 else "episodes"
    return f"mean return of the final weights in {count} fresh {episodes} with {settings.evaluation} actions"


def policy_name(lane: int) -> str:
    """The policy file of a lane, relative to the folder of the experiment."""
    return f"policies/lane-{lane:05d}.policy"
