"""The slots of a running program: which lane is in each, and how far it trains in a segment."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import jax
import numpy as np

from hyperlax.experiments.samples import Lane
from hyperlax.programs.compiled import Compiled, Orders, blank_orders
from hyperlax.programs.train import NEVER, TrainState
from hyperlax.run.roster import Roster

SEGMENT_SECONDS = 1.0
"""Intended seconds of a segment; progress is shown and signals are answered after each."""


class Slots:
    """The slots of one running program, filled with lanes of `roster`.

    With `sequential`, only one slot is used at a time. `now` returns the seconds since the experiment began.
    """

    def __init__(self, roster: Roster, compiled: Compiled, sequential: bool, now: Callable[[], float]):
        self.roster, self.compiled, self.sequential, self.now = roster, compiled, sequential, now
        self.settings = roster.experiment.settings
        self.device_state = compiled.empty_state()
        self.orders: Orders = blank_orders(roster.experiment.base, compiled.slots)
        self.lanes: list[Lane | None] = [None] * compiled.slots
        self.started: dict[int, float] = {}
        self.targets: dict[int, int] = {}
        self.rate = compiled.rate
        self.segment = 0.1

    def busy(self) -> list[tuple[int, Lane]]:
        """The slots that hold a lane, each with its lane."""
        return [(s, lane) for s, lane in enumerate(self.lanes) if lane is not None]

    def fill(self, queue: deque[Lane]) -> None:
        """Put the next lanes of the queue into empty slots, new or in the state in which they were parked."""
        for slot in [s for s, lane in enumerate(self.lanes) if lane is None]:
            if not queue or (self.sequential and self.busy()):
                return
            lane = queue.popleft()
            self.lanes[slot] = lane
            self.started[lane.lane] = self.now() - lane.seconds
            lane.status = "running"
            if (saved := self.roster.parked.pop(lane.lane, None)) is not None:
                self.device_state = self.compiled.place(self.device_state, slot, saved)
                continue
            sample, hp = self.roster.sample(lane), jax.tree.leaves(self.orders.hp)
            for target, value in zip(hp, jax.tree.leaves(sample.tree), strict=True):
                target[slot] = np.asarray(value)
            self.orders.key[slot] = sample.keys[lane.seed]
            self.orders.init_key[slot] = sample.init_keys[lane.seed]
            self.orders.total_steps[slot] = self.settings.total_timesteps
            self.orders.fresh[slot] = True

    def target(self, lane: Lane) -> int:
        """The env steps of the next milestone of the lane, or the end of its training."""
        total = self.settings.total_timesteps
        marks = self.settings.milestones()
        marks = [m for m in marks if m > lane.env_steps or (m == 0 and self._new(lane))]
        return marks[0] if marks else total

    def _new(self, lane: Lane) -> bool:
        """Whether the lane is about to start."""
        return lane.env_steps == 0 and any(self.orders.fresh[s] for s, other in self.busy() if other is lane)

    def due(self, lane: Lane) -> bool:
        """Whether the lane has reached the target of the last segment."""
        return lane.env_steps >= self.targets[lane.lane]

    def advance(self) -> None:
        """Run one segment, in which every lane trains for about the same time, but not past its milestone."""
        busy = self.busy()
        self.targets = {lane.lane: self.target(lane) for _, lane in busy}
        left, cost = {}, {}
        for slot, lane in busy:
            steps = max(self.targets[lane.lane] - lane.env_steps, 0)
            left[slot] = -(-steps // self.roster.cycle_steps(lane))
            cost[slot] = self.roster.work_of(lane)
        share = min([left[s] * cost[s] for s in left if left[s]] + [self.segment * self.rate])
        cycles = np.zeros(self.compiled.slots, np.int32)
        for slot in left:
            cycles[slot] = min(left[slot], max(1, round(share / cost[slot])))
        if self.orders.fresh.any():
            self.device_state = self.compiled.start(self.device_state, *self.orders.arrays())
            self.orders.fresh[:] = False
        started = time.perf_counter()
        self.device_state = self.compiled.train(self.device_state, cycles)
        steps, gradients, diverged = (
            np.asarray(x)
            for x in (
                self.device_state.env_steps,
                self.device_state.gradient_steps,
                self.device_state.diverged_at,
            )
        )
        seconds = time.perf_counter() - started
        planned = max((cycles[s] * cost[s] for s in left), default=0)
        if planned:
            self.rate = 0.5 * self.rate + 0.5 * planned / seconds
            self.segment = min(SEGMENT_SECONDS, 2 * self.segment)
        for slot, lane in busy:
            lane.env_steps, lane.gradient_steps = int(steps[slot]), int(gradients[slot])
            lane.circuit_executions = self.roster.executed(lane)
            if diverged[slot] != NEVER:
                lane.diverged_at = int(diverged[slot])

    def evaluate(self, slots: list[int]) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Evaluate the lanes in `slots`; return returns, lengths and training metrics.

        Returns and lengths have the shape [slots, modes, episodes], over all slots of the program; metrics
        are means since the last call, of shape [slots].
        """
        due = np.zeros(self.compiled.slots, bool)
        due[slots] = bool(self.settings.milestones())
        self.device_state, returns, lengths, metrics = self.compiled.evaluate(self.device_state, due)
        return np.asarray(returns), np.asarray(lengths), {k: np.asarray(v) for k, v in metrics.items()}

    def state(self, slot: int) -> TrainState:
        """The state of the lane in `slot`, as host arrays that later segments do not change."""
        return self.compiled.lane(self.device_state, slot)

    def states(self) -> dict[int, TrainState]:
        """Lane → its state as host arrays, for every lane in a slot."""
        host = jax.tree.map(np.asarray, self.device_state)
        return {lane.lane: jax.tree.map(lambda x, s=s: x[s], host) for s, lane in self.busy()}

    def free(self, slot: int) -> None:
        """Remove the lane from `slot`, which makes room for the next."""
        self.lanes[slot] = None
