"""The host side of an experiment: filling slots, running segments, evaluating, recording and saving."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.experiments.execution import Execution
from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.samples import Lane
from hyperlax.programs.compiled import Compiled
from hyperlax.programs.plan import Program
from hyperlax.programs.train import TrainState
from hyperlax.run import causes, saving
from hyperlax.run.again import Outcome, Repetition
from hyperlax.run.best import BestPolicies, policy_name
from hyperlax.run.compiling import at_a_time
from hyperlax.run.display import Display
from hyperlax.run.monitor import Monitor
from hyperlax.run.recording import EVALUATION_MODES, Recorder, summary
from hyperlax.run.roster import Roster
from hyperlax.run.signals import interruption, signals_of, wait
from hyperlax.run.slots import Slots
from hyperlax.schedules import Schedule, Verdict
from hyperlax.storage.patience import patient
from hyperlax.storage.results import FRESH

log = logging.getLogger("hyperlax")


class Runner:
    """Runs the programs of one experiment, one after the other, compiling the next ones while one runs.

    If the schedule of the experiment `grows`, its programs take turns instead, in the order in which their
    lanes arrive by the `clock` (`run.slots`). `single` plans a program for a sample that fits none of
    `programs`. `seating` says which lanes were in which slots when the run was saved, by program.
    """

    def __init__(
        self,
        experiment: Experiment[Schedule],
        programs: list[Program],
        compile_: Callable[[int], Compiled],
        recorder: Recorder,
        progress: Display,
        how: Execution,
        single: Callable[[AbstractAgentHyperparams], Program] | None = None,
    ):
        self.experiment, self.programs, self.compile, self.recorder = experiment, programs, compile_, recorder
        self.progress, self.how, self.single = progress, how, single
        self.schedule, self.settings = experiment.schedule, experiment.settings
        self.roster = Roster(experiment, programs)
        self.best = BestPolicies(recorder.store, how.save_policies, experiment)
        self.elapsed_before = 0.0
        self.began = time.perf_counter()
        self.pace = saving.Pace(float(how.checkpoint_seconds), time.perf_counter())
        self.stop: int | None = None
        self.errors: dict[int, str] = {}
        self.monitor = Monitor()
        self.running: dict[int, Slots] = {}
        self.clock = 0.0
        self.seating: dict[int, list[list[int | float]]] = {}
        self.broken: set[int] = set()
        self.again: Mapping[int, Outcome | None] = {}

    # The interface for schedules: `schedules.RunnerView`

    @property
    def lanes(self) -> list[Lane]:
        """Every lane there is so far, by number; where processes share an experiment, some are lacking."""
        return self.roster.lanes

    @property
    def parked(self) -> dict[int, TrainState]:
        """Lane → its state as host arrays, for lanes that have begun and are in no slot."""
        return self.roster.parked

    @property
    def last_return(self) -> dict[int, float]:
        """Lane → its latest headline return."""
        return self.roster.last_return

    def tree(self, lane: Lane) -> AbstractAgentHyperparams:
        """The current hyperparameters of the lane."""
        return self.roster.tree(lane)

    def admit(self, row: Mapping[str, Any]) -> list[Lane]:
        """Add a sample to the experiment and queue its lanes in the program where it costs least.

        Returns the lanes. Raises `ValueError` as `Experiment.add` does.
        """
        sample = self.experiment.add(row)
        if (number := self.roster.fitting(sample, self.broken)) is None:
            assert self.single is not None
            number = len(self.programs)
            self.programs.append(dataclasses.replace(self.single(sample.tree), samples=()))
        return self.roster.assign(sample, number)

    def replace(self, lane: Lane, state: TrainState) -> None:
        """Give a parked lane another state (host arrays); its counts, apart from env steps, go on."""
        self.roster.replace(lane, state)

    def end(self, lane: Lane, status: str) -> None:
        """End a lane between segments, whether it is in a slot, waiting, or not yet started."""
        for slots in self.running.values():
            for slot, other in slots.busy():
                if other is lane:
                    slots.free(slot)
        lane.status = status
        self.parked.pop(lane.lane, None)
        self.schedule.ended(self, lane)

    # Time

    def now(self) -> float:
        """Seconds since the experiment began, not counting interruptions."""
        return self.elapsed_before + time.perf_counter() - self.began

    def phase(self, name: str, program: int, start: float, end: float | None = None) -> None:
        """Record a phase of the timeline that lasted from `start` to `end` (now if None), in seconds."""
        end = self.now() if end is None else end
        self.recorder.add("timeline", [{"phase": name, "program": program, "start": start, "end": end}])

    # Running

    def run(self) -> None:
        """Train every lane that is not over; raise `Interrupted` after saving if a signal asks for it."""
        pool = ThreadPoolExecutor(at_a_time(self.programs))
        try:
            with signals_of(self), patient(self._answer):
                self._run(pool)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            self.recorder.settled()

    def _answer(self) -> None:
        """Raise `Interrupted` if a signal has come while the disk is full, and nothing can be saved."""
        if self.stop is not None:
            raise interruption(self)

    def _run(self, pool: ThreadPoolExecutor) -> None:
        """The loop of `run`; `ahead` holds the compilations that were started ahead, by program."""
        ahead: dict[int, Future[Compiled]] = {}
        self.schedule.begin(self)
        if self.recorder.store is not None and self.recorder.store.mending:
            self.save()
        while True:
            self.schedule.refill(self)
            waiting = [n for n in range(len(self.programs)) if self.roster.trainable(n)]
            if not waiting:
                if self._repeat():
                    continue
                break
            turns = waiting if self.schedule.grows else waiting[:1]
            fill = partial(self._fill, pool, ahead, waiting)
            ready = [n for n in turns if self._tried(n, fill)]
            if ready:
                number = min(ready, key=lambda n: (self.running[n].next_arrival(), n))
                self._tried(number, self._segment)
            for number in turns:
                if not (self.schedule.grows or self.roster.unfinished(number)):
                    self.running.pop(number, None)
        self.save()

    def _repeat(self) -> bool:
        """Begin to train the lanes again whose results were lost, if there are any; all others are over."""
        store = self.recorder.store
        if not self.again or store is None or isinstance(self.schedule, Repetition):
            return False
        lanes = [self.roster.lane(number) for number in self.again]
        ended = {n.lane: Outcome(dataclasses.replace(n), self.last_return.get(n.lane)) for n in lanes}
        outcomes = {n: self.again[n] or ended[n] for n in ended}
        outcomes = {n: outcome for n, outcome in outcomes.items() if outcome.measured(self.settings)}
        new = [n for n in outcomes if n not in self.parked]
        self.save()
        self.best.forget(new)
        store.forget(new, [policy_name(n) for n in new])
        for lane in lanes:
            if lane.lane in new:
                self.roster.restart(lane)
            elif lane.lane in outcomes:
                lane.status = "queued"
        self.schedule = Repetition(self.schedule, outcomes)
        self.again = self.schedule.outcomes
        return True

    def _tried(self, number: int, work: Callable[[int], None]) -> bool:
        """Do some work of a program; if it cannot be done, its lanes have failed, and the answer is False."""
        try:
            work(number)
        except (MemoryError, RuntimeError, jax.errors.JaxRuntimeError) as error:
            self._fail(number, error)
            return False
        return True

    def _fill(
        self, pool: ThreadPoolExecutor, ahead: dict[int, Future[Compiled]], waiting: list[int], number: int
    ) -> None:
        """Fill the slots of a program, which is started first if it does not run yet."""
        if number not in self.running:
            self._open(number, pool, ahead, waiting)
            self.running[number].restore(self.seating.pop(number, []))
        slots = self.running[number]
        if None in slots.lanes:
            slots.fill(self._queue(number), self.clock)

    def _open(
        self, number: int, pool: ThreadPoolExecutor, ahead: dict[int, Future[Compiled]], waiting: list[int]
    ) -> None:
        """Start program `number`, waiting for its compilation, and the compilation of the next one."""
        start = self.now()
        if number not in ahead:
            self.progress.compiling(number, len(self.programs))
            ahead[number] = pool.submit(self.compile, number)
        compiled = wait(ahead.pop(number), self)
        traced = min(start + compiled.trace_seconds, self.now())  # earlier if it was compiled ahead
        self.phase("trace", number, start, traced)
        self.phase("compile", number, traced)
        self.progress.compiled(number, compiled)
        copies = len(compiled.copies) if self.schedule.grows else 0
        shape = {"lanes_per_device": compiled.per_device, "copies": copies}
        self.programs[number] = dataclasses.replace(self.programs[number], **shape)
        later = [n for n in waiting if n > number and n not in self.running and n not in ahead]
        for following in later[: max(at_a_time(self.programs) - len(ahead), 0)]:
            ahead[following] = pool.submit(self.compile, following)
        self.running[number] = Slots(self.roster, compiled, self.how.sequential, self.now)

    def _queue(self, number: int) -> deque[Lane]:
        """The lanes of a program that wait for a slot: started ones first, then by the schedule's order."""
        inside = {lane.lane for _, lane in self.running[number].busy()}
        lanes = [lane for lane in self.roster.trainable(number) if lane.lane not in inside]

        def order(lane: Lane) -> tuple[bool, float]:
            steps_left = self.roster.last_step(lane) - lane.env_steps
            cycles_left = steps_left // self.roster.cycle_steps(lane)
            later = self.schedule.started_first and lane.lane not in self.parked
            return later, self.schedule.order(lane, self.roster.work_of(lane) * cycles_left)

        return deque(sorted(lanes, key=order))

    def _segment(self, number: int) -> None:
        """Train a program for one segment, then evaluate and save if that is due."""
        slots, start = self.running[number], self.now()
        self.clock = slots.advance(self.clock)
        self.phase("train", number, start)
        self._evaluate(number, slots)
        self.monitor.sample(self.now(), self.recorder)
        self.progress.update(self.lanes, self.now())
        due = self.pace.due(time.perf_counter(), self.recorder.settled(wait=False))
        if due or self.stop is not None:
            start = self.now()
            self.save(behind=self.stop is None)
            self.phase("save", number, start)
        if self.stop is not None:
            raise interruption(self)

    def _fail(self, number: int, error: Exception) -> None:
        """Mark the unfinished lanes of a program as failed."""
        log.error("program %d failed, its lanes are marked: %s", number + 1, error)
        self.broken.add(number)
        self.running.pop(number, None)
        for lane in self.roster.unfinished(number):
            lane.status = "failed"
            lane.cause, self.errors[lane.lane] = causes.failure(error), str(error) or type(error).__name__
            self.schedule.ended(self, lane)
        self.progress.failed(number, error)

    # Recording

    def _evaluate(self, number: int, slots: Slots) -> None:
        """Evaluate the lanes that have reached a milestone, and end those that are over or paused."""
        diverged = [lane for _, lane in slots.arrived if lane.diverged_at is not None]
        due = [(s, lane) for s, lane in slots.arrived if lane.diverged_at is None]
        verdicts: dict[int, Verdict] = {}
        unscored: set[int] = set()
        fresh: dict[int, float] = {}
        if due:
            start = self.now()
            returns, lengths, metrics = slots.evaluate([s for s, _ in due])
            for slot, lane in due:
                self._record(lane, returns[slot], lengths[slot], {k: v[slot] for k, v in metrics.items()})
                if not np.isfinite(returns[slot]).all():
                    lane.diverged_at = lane.env_steps
                    diverged.append(lane)
                    unscored.add(lane.lane)
                elif not self._at_end(lane) and lane.lane in self.last_return:
                    found = self.schedule.judge(self, lane, self.last_return[lane.lane])
                    verdicts[lane.lane] = Verdict.checked(found, self.schedule, "judge")
            ended = [(s, x) for s, x in due if x not in diverged and self._at_end(x)]
            fresh = self._evaluate_freshly(slots, ended)
            self.phase("evaluate", number, start)
        for _, lane in slots.busy():
            lane.seconds = self.now() - slots.started[lane.lane]
        for slot, lane in slots.arrived:
            verdict = verdicts.get(lane.lane, Verdict.GO_ON)
            if lane in diverged:
                scored = lane.lane not in unscored
                lane.cause = causes.divergence(slots.state(slot), self.experiment.env, scored)
                verdict = Verdict.checked(self.schedule.lost(self, lane), self.schedule, "lost")
                self.progress.diverged(lane, self.tree(lane))
            if verdict is Verdict.PAUSE:
                lane.status = "paused"
                self.parked[lane.lane] = slots.state(slot)
                slots.free(slot)
            elif lane in diverged:
                lane.status = "diverged"
            elif self._at_end(lane):
                lane.status = "done"
            elif verdict is Verdict.PRUNE:
                lane.status = "pruned"
            if lane.over:
                score, caps = fresh.get(lane.lane), self.programs[number].caps
                self.best.keep(lane, score, caps, lambda slot=slot: slots.state(slot).agent)
                slots.free(slot)
                self.schedule.ended(self, lane)
            elif lane.status == "running":
                slots.go_on(lane, self.clock)

    def _at_end(self, lane: Lane) -> bool:
        """Whether the lane has trained all its env steps."""
        return lane.env_steps >= self.roster.last_step(lane)

    def _evaluate_freshly(self, slots: Slots, ended: list[tuple[int, Lane]]) -> dict[int, float]:
        """Record the return of the final weights of the lanes that have ended, in many fresh episodes.

        Returns it by lane, without those for which it is not finite.
        """
        if not ended or not self.settings.milestones():
            return {}
        repeats = self.settings.fresh_repeats(self.experiment.env.max_episode_steps)
        returns = slots.evaluate_freshly([slot for slot, _ in ended], repeats)[:, self.headline]
        found = {x.lane: float(returns[s].mean()) for s, x in ended if np.isfinite(returns[s]).all()}
        for _, lane in ended:
            if lane.lane in found:
                self.recorder.point(lane, self.now(), {FRESH: found[lane.lane]})
        return found

    @property
    def headline(self) -> int:
        """The place in `EVALUATION_MODES` of the mode of the headline return."""
        return 0 if self.settings.evaluation == "deterministic" else 1

    def _record(self, lane: Lane, returns: np.ndarray, lengths: np.ndarray, metrics: dict[str, Any]) -> None:
        """Record an evaluation of a lane; `returns` and `lengths` have the shape [modes, episodes]."""
        measured = {f"train/{k}": float(v) for k, v in metrics.items() if np.isfinite(v)}
        if self.settings.evaluations or self.settings.eval_at_start:
            other = 1 - self.headline
            measured |= summary(returns[self.headline], lengths[self.headline])
            measured |= {f"{EVALUATION_MODES[other]}_return": float(returns[other].mean())}
            self.recorder.episodes(lane, returns, lengths)
            self.progress.evaluated(lane, measured["return"])
            self.last_return[lane.lane] = measured["return"]
        self.recorder.point(lane, self.now(), measured)

    # Saving and resuming

    @property
    def folder(self) -> Path | None:
        """The folder where the run is stored; None if it is not."""
        return self.recorder.store.folder if self.recorder.store else None

    def save(self, behind: bool = False) -> None:
        """Flush the tables and replace the checkpoint, if the run is stored.

        With `behind`, a large checkpoint is fetched from its device and written while the run goes on.
        """
        began = time.perf_counter()
        if self.recorder.store is not None:
            running: dict[int, TrainState] = {}
            seats = {n: [s for s in at if s[1] in self.parked] for n, at in self.seating.items()}
            for number, slots in self.running.items():
                running |= slots.states(behind)
                seats[number] = slots.seating()
            seating = {"clock": self.clock, "programs": [[n, seats[n]] for n in sorted(seats) if seats[n]]}
            extra = saving.Saved(self.now(), sorted(self.best.best), seating, self.again)
            saving.save(self.recorder.store, self.roster, running, self.schedule, extra, behind)
        self.pace.saved(began, time.perf_counter(), self.recorder.settled(wait=False))

    def restore(self) -> bool:
        """Load the checkpoint in the folder of the store; return False if there is none yet."""
        store = self.recorder.store
        mend = self.how.retrain_damaged
        saved = None if store is None else saving.restore(store, self.roster, self.schedule, mend)
        if saved is not None:
            self.elapsed_before, self.best.best, seating, self.again = saved
            self.clock = seating["clock"]
            self.seating = {n: [s for s in at if s[1] not in self.again] for n, at in seating["programs"]}
        return saved is not None
