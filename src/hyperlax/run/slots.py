"""The slots of a running program: which lane is in each, and how far it trains in a segment."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable
from functools import cached_property

import jax
import numpy as np

from hyperlax.experiments.memory import spare_memory
from hyperlax.experiments.samples import Lane
from hyperlax.programs.compiled import Compiled
from hyperlax.programs.orders import Orders, blank_orders
from hyperlax.programs.train import NEVER, TrainState
from hyperlax.run.roster import Roster

FIRST_SEGMENT_SECONDS, SEGMENT_SECONDS = 0.1, 1.0
"""Intended seconds of a segment, before and after a program has been timed.

Progress is shown and signals are answered after each; only an iteration that takes longer delays them.
"""


def fresh_keys(keys: np.ndarray, repeat: int) -> np.ndarray:
    """The raw keys of repeat number `repeat` of the fresh evaluation of lanes with the raw `keys`.

    Both have the shape [lanes, 2]. They are hashed on the host, so that no stream of a lane comes near them.
    """
    hashed = [np.random.SeedSequence([*map(int, key), repeat]).generate_state(2) for key in keys]
    return np.asarray(hashed, np.uint32).reshape(keys.shape)


@dataclasses.dataclass(frozen=True)
class Seat:
    """The stretch of training that a lane in a slot is at: from the clock `since` to the env steps `target`.

    The clock of a run is the predicted work (`Program.work`) that a slot has trained. It orders what happens
    to the lanes of a run in the same way however fast the machine is and however often the run is resumed.

    - `steps`: the env steps of the lane at the clock `since`.
    - `per_cycle`: the env steps of a cycle.
    - `parts`: the iterations of the program that a cycle takes.
    - `cost`: the predicted work of an iteration.
    """

    since: float
    steps: int
    target: int
    per_cycle: int
    parts: int
    cost: float

    @cached_property
    def iterations(self) -> int:
        """The number of iterations of the stretch."""
        return -(-max(self.target - self.steps, 0) // self.per_cycle) * self.parts

    def clock(self, iterations: int) -> float:
        """The clock after so many iterations."""
        return self.since + iterations * self.cost

    def done(self, env_steps: int, part: int = 0) -> int:
        """The number of iterations of a lane that has trained `env_steps` and a `part` of its cycle."""
        return (env_steps - self.steps) // self.per_cycle * self.parts + part

    def by(self, clock: float) -> int:
        """The number of whole iterations until `clock`."""
        if clock >= self.clock(self.iterations):
            return self.iterations
        return min(self.iterations, int((clock - self.since) / self.cost + 1e-6))


class Slots:
    """The slots of one running program, filled with lanes of `roster`.

    With `sequential`, only one slot is used at a time. `now` returns the seconds since the experiment began.
    `arrived` are the lanes that something happens to after a segment: those that have reached their target,
    or have diverged.
    """

    def __init__(self, roster: Roster, compiled: Compiled, sequential: bool, now: Callable[[], float]):
        self.roster, self.compiled, self.sequential, self.now = roster, compiled, sequential, now
        self.settings = roster.experiment.settings
        self.device_state = compiled.empty_state()
        self.orders: Orders = blank_orders(roster.experiment.base, compiled.slots)
        self.lanes: list[Lane | None] = [None] * compiled.slots
        self.parts = np.zeros(compiled.slots, np.int32)
        self.seats: dict[int, Seat] = {}
        self.started: dict[int, float] = {}
        self.arrived: list[tuple[int, Lane]] = []
        self.trained = 0.0
        self.rate = compiled.rate
        self.segment, self.timed = FIRST_SEGMENT_SECONDS, False

    def busy(self) -> list[tuple[int, Lane]]:
        """The slots that hold a lane, each with its lane."""
        return [(s, lane) for s, lane in enumerate(self.lanes) if lane is not None]

    def fill(self, queue: deque[Lane], clock: float) -> None:
        """Put the next lanes of the queue into empty slots, new or in the state in which they were parked."""
        for slot in [s for s, lane in enumerate(self.lanes) if lane is None]:
            if not queue or (self.sequential and self.busy()):
                break
            lane = queue.popleft()
            self._put(slot, lane)
            self.seats[lane.lane] = self._seat(lane, clock, new=bool(self.orders.fresh[slot]))
        self._start()

    def restore(self, seats: list[list[int | float]]) -> None:
        """Put parked lanes back where `seating` said that they were, as far as there are slots today."""
        for slot, number, since, steps, target in seats:
            free = [s for s, lane in enumerate(self.lanes) if lane is None]
            lane = self.roster.lane(int(number))
            if free and number in self.roster.parked and not (self.sequential and self.busy()):
                self._put(int(slot) if slot in free else free[0], lane)
                seat = self._seat(lane, float(since))
                target = min(int(target), self.roster.last_step(lane))
                self.seats[lane.lane] = dataclasses.replace(seat, steps=int(steps), target=target)
        self._start()

    def seating(self) -> list[list[int | float]]:
        """Slot, lane, and where its stretch began and ends, for every lane in a slot; JSON-ready."""
        seats = [(slot, lane.lane, self.seats[lane.lane]) for slot, lane in self.busy()]
        return [[slot, lane, seat.since, seat.steps, seat.target] for slot, lane, seat in seats]

    def go_on(self, lane: Lane, clock: float) -> None:
        """Let a lane that has arrived train on to its next target."""
        self.seats[lane.lane] = self._seat(lane, clock)

    def _put(self, slot: int, lane: Lane) -> None:
        """Put a lane into a slot, in its parked state or, after the next `_start`, as a new one."""
        self.lanes[slot] = lane
        self.started[lane.lane] = self.now() - lane.seconds
        lane.status = "running"
        if (saved := self.roster.parked.pop(lane.lane, None)) is not None:
            self.device_state = self.compiled.place(self.device_state, slot, saved)
            self.parts[slot] = 0 if saved.learning is None else int(saved.learning.part)
            return
        self.parts[slot] = 0
        sample, hp = self.roster.sample(lane), jax.tree.leaves(self.orders.hp)
        for target, value in zip(hp, jax.tree.leaves(sample.tree), strict=True):
            target[slot] = np.asarray(value)
        self.orders.key[slot] = sample.keys[lane.seed]
        self.orders.init_key[slot] = sample.init_keys[lane.seed]
        self.orders.total_steps[slot] = self.settings.total_timesteps
        self.orders.fresh[slot] = True

    def _start(self) -> None:
        """Start the new lanes, so that every lane in a slot has a state."""
        if self.orders.fresh.any():
            self.device_state = self.compiled.start(self.device_state, self.orders)
            self.orders.fresh[:] = False

    def _seat(self, lane: Lane, clock: float, new: bool = False) -> Seat:
        """The stretch of the lane from `clock` to its next milestone, or to the end of its training."""
        marks = [m for m in self.settings.milestones() if m > lane.env_steps or (m == 0 and new)]
        target = min([*marks[:1], self.roster.last_step(lane)])
        per_cycle, parts = self.roster.cycle_steps(lane), self.roster.iterations(lane)
        return Seat(clock, lane.env_steps, target, per_cycle, parts, self.roster.work_of(lane) / parts)

    def _arrival(self, lane: Lane) -> float:
        """The clock at which the lane reaches its target, or at which it has diverged."""
        seat = self.seats[lane.lane]
        return seat.clock(seat.iterations if lane.diverged_at is None else seat.done(lane.env_steps))

    def next_arrival(self) -> float:
        """The clock at which, as far as is known, the next lane arrives."""
        return min(self._arrival(lane) for _, lane in self.busy())

    def advance(self, clock: float) -> float:
        """Train one segment, in which all lanes get about the same work, until the next lane arrives at most.

        Returns the clock: `clock`, or that of the lanes that have `arrived`.
        """
        busy = self.busy()
        seats = {slot: self.seats[lane.lane] for slot, lane in busy}
        done = {slot: seats[slot].done(lane.env_steps, int(self.parts[slot])) for slot, lane in busy}
        following = (s.clock(done[i] + 1) for i, s in seats.items() if done[i] < s.iterations)
        until = max(self.trained + self.segment * self.rate, min(following, default=0.0))
        self.trained = min(until, self.next_arrival())
        iterations = np.zeros(self.compiled.slots, np.int32)
        for slot in seats:
            iterations[slot] = max(seats[slot].by(self.trained) - done[slot], 0)
        self._train(busy, iterations, max(iterations[slot] * seats[slot].cost for slot in seats))
        next_arrival = self.next_arrival()
        if next_arrival > self.trained:
            self.arrived = []
            return clock
        self.arrived = [(slot, lane) for slot, lane in busy if self._arrival(lane) == next_arrival]
        return max(clock, next_arrival)

    def _train(self, busy: list[tuple[int, Lane]], iterations: np.ndarray, planned: float) -> None:
        """Train every slot for its `iterations`, of which the most are `planned` work; note the progress."""
        started = time.perf_counter()
        self.device_state = self.compiled.train(self.device_state, iterations)
        read = lambda of: self.compiled.read(self.device_state, of)  # noqa: E731
        steps, gradients, diverged = (
            read(of) for of in (lambda s: s.env_steps, lambda s: s.gradient_steps, lambda s: s.diverged_at)
        )
        seconds = time.perf_counter() - started
        if self.device_state[0].learning is not None:
            self.parts = read(lambda s: s.learning.part)
        if self.parts.any() or any(gradients[slot] > lane.gradient_steps for slot, lane in busy):
            self._timed(planned / seconds)
        for slot, lane in busy:
            lane.env_steps, lane.gradient_steps = int(steps[slot]), int(gradients[slot])
            lane.circuit_executions = self.roster.executed(lane)
            if diverged[slot] != NEVER:
                lane.diverged_at = int(diverged[slot])

    def _timed(self, rate: float) -> None:
        """Note the work per second of a segment in which lanes have learned; a warm-up says nothing about it.

        A lower rate counts at once, so that no two segments take too long, and a higher one bit by bit.
        """
        self.rate = min(rate, 0.5 * (self.rate + rate)) if self.timed else rate
        self.segment, self.timed = min(SEGMENT_SECONDS, 2 * self.segment), True

    def evaluate(self, slots: list[int]) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Evaluate the lanes in `slots`; return returns, lengths and training metrics.

        Returns and lengths have the shape [slots, modes, episodes], over all slots of the program; metrics
        are means since the last call, of shape [slots].
        """
        asked = np.zeros(self.compiled.slots, bool)
        asked[slots] = True
        due = asked & bool(self.settings.milestones())
        self.device_state, returns, lengths, metrics = self.compiled.evaluate(self.device_state, due, asked)
        return returns, lengths, metrics

    def evaluate_freshly(self, slots: list[int], repeats: int) -> np.ndarray:
        """Evaluate the lanes in `slots` in episodes that nothing else sees, and leave them as they are.

        Each of the `repeats` has a key of its own (`fresh_keys`). Returns the returns, of shape
        [slots, modes, repeats × episodes], over all slots of the program.
        """
        due, own = np.zeros(self.compiled.slots, bool), self.compiled.read(self.device_state, lambda s: s.key)
        due[slots] = True
        found = []
        for repeat in range(repeats):
            keys = np.where(due[:, None], fresh_keys(own, repeat), own)
            state = self.compiled.with_keys(self.device_state, keys)
            self.device_state, returns, _, _ = self.compiled.evaluate(state, due, due)
            found.append(returns)
        self.device_state = self.compiled.with_keys(self.device_state, own)
        return np.concatenate(found, axis=2)

    def state(self, slot: int) -> TrainState:
        """The state of the lane in `slot`, as host arrays that later segments do not change."""
        return self.compiled.lane(self.device_state, slot)

    def states(self, behind: bool = False) -> dict[int, TrainState]:
        """Lane → its state as host arrays, for every lane in a slot, valid until the next segment.

        With `behind`, what is large is copied on an accelerator that has room for it, and fetched from there
        while the next segment runs (`storage.aside`).
        """
        busy, spare = self.busy(), spare_memory if behind else lambda device: 0
        states = self.compiled.lanes(self.device_state, [slot for slot, _ in busy], spare)
        return {lane.lane: state for (_, lane), state in zip(busy, states, strict=True)}

    def free(self, slot: int) -> None:
        """Remove the lane from `slot`, which makes room for the next."""
        self.lanes[slot] = None
