"""A process trains its last lanes with no more memory, handles or time than its first."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

import hyperlax
from hyperlax import Choice, Execution, LogUniform, Recipe
from hyperlax.run.display import Display

LANES = int(os.environ.get("HYPERLAX_LANES", "2000"))
SMALL = {"actor.width": 8, "actor.depth": 1, "critic.width": 8, "critic.depth": 1}
RECIPE = Recipe(
    "ppo",
    "mlp",
    {"actor_lr": LogUniform(1e-4, 1e-2), **SMALL, "num_envs": 4, "rollout_length": Choice(4, 8)},
    only=True,
)


class Moment(NamedTuple):
    """What the process held when `over` lanes had ended: MiB of memory, open handles.

    Until then it had taken `seconds`, and `cpu` seconds of all cores.
    """

    over: int
    seconds: float
    cpu: float
    memory: float
    handles: int


class Watch(Display):
    """A display that writes down what the process holds after every segment."""

    def __init__(self):
        self.moments: list[Moment] = []

    def update(self, lanes: Sequence[Any], seconds: float) -> None:
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
        over = sum(lane.status == "done" for lane in lanes)
        memory = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        handles = len(os.listdir("/proc/self/fd"))
        self.moments.append(Moment(over, seconds, time.process_time(), memory, handles))

    def after(self, lanes: float) -> Moment:
        """The first moment at which so many lanes had ended."""
        return next(m for m in self.moments if m.over >= lanes)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_last_of_two_thousand_lanes_costs_what_the_first_did(tmp_path):
    """The first fifth is left out: there programs are compiled and buffers made.

    Time is that of the processor, which other processes of the machine hardly change.
    """
    watch, folder = Watch(), tmp_path / "run"
    results = hyperlax.sweep(
        RECIPE,
        "gymnax.cartpole",
        num_samples=LANES // 4,
        seeds=4,
        total_timesteps=320,
        evaluations=2,
        eval_episodes=2,
        execution=Execution(checkpoint_seconds=0.5),
        folder=folder,
        progress=watch,
    )
    assert results.lanes.filter(results.lanes["status"] == "done").height == LANES
    start, half, end = watch.after(0.2 * LANES), watch.after(0.6 * LANES), watch.after(LANES)
    assert end.handles <= start.handles + 2
    assert end.memory < start.memory + 100  # MiB; the tables of the run grow by a few
    assert end.memory - half.memory < 60
    first, last = half.cpu - start.cpu, end.cpu - half.cpu
    assert last < 2 * first, (first, last)
    assert len(list(folder.rglob("*"))) < 100 + 2 * watch.moments[-1].seconds
    print(
        *(f"{m.over}: {m.cpu:.1f} s, {m.memory:.0f} MiB, {m.handles}" for m in (start, half, end)),
        sep="\n",
    )
