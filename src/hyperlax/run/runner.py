"""The host's side of a sweep: fills slots, runs segments, evaluates, records, saves."""

from __future__ import annotations

import dataclasses
import heapq
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl

from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.experiments.execution import Execution
from hyperlax.experiments.experiment import Experiment, Lane
from hyperlax.programs.compiled import Compiled, state_like
from hyperlax.programs.plan import Program
from hyperlax.programs.train import TrainState
from hyperlax.run import policies
from hyperlax.run.monitor import Monitor
from hyperlax.run.recording import EVALUATION_MODES, Recorder, summary
from hyperlax.run.replaced import Replaced
from hyperlax.run.signals import Interrupted, signals_of, wait
from hyperlax.run.slots import Slots
from hyperlax.schedules import Verdict
from hyperlax.storage.checkpoint import pack, read_header, unpack
from hyperlax.storage.files import write_atomically
from hyperlax.storage.results import SCHEMAS
from hyperlax.storage.store import CHECKPOINT, Store

log = logging.getLogger("hyperlax")

BEST_POLICIES = 5


class Runner:
    """Runs the programs of one experiment: one after the other, compiling the next while one runs.

    Programs of an experiment whose schedule `grows` take turns instead, segment by segment. `single` makes
    the program of a sample that fits none of `programs`.
    """

    def __init__(
        self,
        experiment: Experiment,
        programs: list[Program],
        compile_: Callable[[int], Compiled],
        recorder: Recorder,
        progress: Any,
        how: Execution,
        single: Callable[[int], Program] | None = None,
    ):
        self.experiment, self.programs, self.compile, self.recorder = experiment, programs, compile_, recorder
        self.progress, self.how, self.single = progress, how, single
        self.schedule = experiment.schedule
        self.settings = experiment.settings
        self.last_return: dict[int, float] = {}
        self.best: list[tuple[float, int]] = []
        self.elapsed_before = 0.0
        self.began = time.perf_counter()
        self.saved_at = time.perf_counter()
        self.stop: int | None = None
        self.parked: dict[int, TrainState] = {}
        self.replaced: dict[int, Replaced] = {}
        self.errors: dict[int, str] = {}
        self.monitor = Monitor()
        self.lanes: list[Lane] = []
        self.keys: list[np.ndarray] = []
        self.init_keys: list[np.ndarray] = []
        self.index: dict[int, int] = {}
        self.executions: list[tuple[float, float]] = []
        self.work: dict[int, float] = {}
        self.running: dict[int, Slots] = {}
        self.broken: set[int] = set()
        programs_of = {i: number for number, program in enumerate(programs) for i in program.samples}
        self._enter(list(range(len(experiment.rows))), programs_of)

    # Samples and their lanes

    def admit(self, row: Mapping[str, Any]) -> list[Lane]:
        """Adds a sample to the experiment and queues its lanes in the program where it costs least.

        Raises `ValueError` as `Experiment.add` does.
        """
        place = self.experiment.add(row)
        tree, env = self.experiment.trees[place], self.experiment.env
        sizes = tree.sizes()
        fitting = [n for n, p in enumerate(self.programs) if n not in self.broken and p.holds(sizes)]
        if not fitting:
            assert self.single is not None
            fitting = [len(self.programs)]
            self.programs.append(dataclasses.replace(self.single(place), samples=()))
        number = min(fitting, key=lambda n: tree.work(sizes, self.programs[n].caps, env)[0])
        program = self.programs[number]
        self.programs[number] = dataclasses.replace(program, samples=(*program.samples, place))
        return self._enter([place], {place: number})

    def prune(self, lane: Lane) -> None:
        """Ends a lane between segments, wherever it is: in a slot, waiting, or not yet begun."""
        for slots in self.running.values():
            for slot, other in slots.busy():
                if other is lane:
                    slots.free(slot)
        self.end(lane, "pruned")

    def _enter(self, places: list[int], programs_of: Mapping[int, int]) -> list[Lane]:
        """Lanes, keys and costs of the samples at `places`."""
        spec = self.experiment
        lanes = spec.lanes(places)
        for keys, drawn in zip((self.keys, self.init_keys), spec.lane_keys(places), strict=True):
            keys.extend(drawn)
        for place in places:
            tree, sample = spec.trees[place], spec.sample_ids[place]
            self.index[sample] = place
            self.executions.append(tree.executions(spec.env))
            self.work[sample] = tree.work(tree.sizes(), self.programs[programs_of[place]].caps, spec.env)[0]
        for lane in lanes:
            lane.program = programs_of[self.index[lane.sample]]
        self.lanes.extend(lanes)
        return lanes

    # What a lane is now: its sample, unless its schedule has replaced it

    def tree(self, lane: Lane) -> AbstractAgentHyperparams:
        """The hyperparameters the lane trains with."""
        changed = self.replaced.get(lane.lane)
        return self.experiment.trees[self.index[lane.sample]] if changed is None else changed.tree

    def cycle_steps(self, lane: Lane) -> int:
        """Environment steps of one cycle."""
        sizes = self.tree(lane).sizes()
        return sizes["num_envs"] * sizes["rollout_length"]

    def work_of(self, lane: Lane) -> float:
        """Predicted cost of one cycle."""
        if lane.lane not in self.replaced:
            return self.work[lane.sample]
        tree = self.tree(lane)
        return tree.work(tree.sizes(), self.programs[lane.program].caps, self.experiment.env)[0]

    def executed(self, lane: Lane) -> int:
        """Circuit executions so far."""
        if (changed := self.replaced.get(lane.lane)) is None:
            per_step, per_gradient = self.executions[self.index[lane.sample]]
            return round(per_step * lane.env_steps + per_gradient * lane.gradient_steps)
        return changed.executed(lane, self.experiment.env)

    def replace(self, lane: Lane, state: TrainState) -> None:
        """Gives a waiting lane another state (host arrays), in which it goes on with the counts it has."""
        self.parked[lane.lane], self.replaced[lane.lane] = state, Replaced.now(lane, state)
        lane.env_steps, lane.diverged_at = int(state.env_steps), None
        lane.parameters = self.tree(lane).parameter_count(self.experiment.env)

    def end(self, lane: Lane, status: str) -> None:
        """Ends a waiting lane."""
        lane.status = status
        self.parked.pop(lane.lane, None)
        self.schedule.ended(self, lane)

    # What time it is, and what that means

    def now(self) -> float:
        """Seconds since the experiment began, interruptions not counted."""
        return self.elapsed_before + time.perf_counter() - self.began

    def phase(self, name: str, program: int, start: float, end: float | None = None) -> None:
        end = self.now() if end is None else end
        self.recorder.add("timeline", [{"phase": name, "program": program, "start": start, "end": end}])

    # Running

    def run(self) -> None:
        """Trains every lane that is not over. Raises `Interrupted` after saving when a signal asks for it."""
        pool = ThreadPoolExecutor(1)
        try:
            with signals_of(self):
                self._run(pool)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, pool: ThreadPoolExecutor) -> None:
        ahead: dict[int, Future[Compiled]] = {}
        self.schedule.begin(self)
        while True:
            self.schedule.refill(self)
            waiting = [n for n in range(len(self.programs)) if self._trainable(n)]
            if not waiting:
                break
            for number in waiting if self.schedule.grows else waiting[:1]:
                try:
                    if number in self.running or self._open(number, pool, ahead, waiting):
                        self._segment(number)
                except (MemoryError, RuntimeError, jax.errors.JaxRuntimeError) as error:
                    self._fail(number, error)
                if not (self.schedule.grows or self._unfinished(number)):
                    self.running.pop(number, None)
        self.save()

    def _open(
        self, number: int, pool: ThreadPoolExecutor, ahead: dict[int, Future[Compiled]], waiting: list[int]
    ) -> bool:
        """Starts a program that has been compiled, and the compilation of the next one.

        Waits for its compilation unless another program has a turn meanwhile: then False.
        """
        start = self.now()
        if number not in ahead:
            self.progress.compiling(number, len(self.programs))
            ahead[number] = pool.submit(self.compile, number)
        others = self.schedule.grows and any(n in self.running for n in waiting)
        if others and not ahead[number].done():
            return False
        compiled = wait(ahead.pop(number), self)
        traced = min(start + compiled.trace_seconds, self.now())  # sooner where it was compiled ahead
        self.phase("trace", number, start, traced)
        self.phase("compile", number, traced)
        self.progress.compiled(number, compiled)
        for following in [n for n in waiting if n > number and n not in self.running and n not in ahead][:1]:
            ahead[following] = pool.submit(self.compile, following)
        self.running[number] = Slots(self, compiled)
        return True

    def _trainable(self, number: int) -> list[Lane]:
        return [lane for lane in self._unfinished(number) if lane.status != "paused"]

    def _unfinished(self, number: int) -> list[Lane]:
        return [lane for lane in self.lanes if lane.program == number and not lane.over]

    def _queue(self, number: int) -> deque[Lane]:
        """Lanes of a program that wait for a slot: those with a state first, then as the schedule orders."""
        inside = {lane.lane for _, lane in self.running[number].busy()}
        lanes = [lane for lane in self._trainable(number) if lane.lane not in inside]

        def order(lane: Lane) -> tuple[bool, float]:
            cycles_left = -(-(self.settings.total_timesteps - lane.env_steps) // self.cycle_steps(lane))
            later = self.schedule.started_first and lane.lane not in self.parked
            return later, self.schedule.order(lane, self.work_of(lane) * cycles_left)

        return deque(sorted(lanes, key=order))

    def _segment(self, number: int) -> None:
        """Fills the slots of a program, trains them for a moment, evaluates and saves what is due."""
        slots = self.running[number]
        if None in slots.lanes:
            slots.fill(self._queue(number))
        start = self.now()
        slots.advance()
        self.phase("train", number, start)
        self._evaluate(number, slots)
        self.monitor.sample(self.now(), self.recorder)
        self.progress.update(self.lanes, self.now())
        if self.stop is not None or time.perf_counter() - self.saved_at > self.how.checkpoint_seconds:
            start = self.now()
            self.save()
            self.phase("save", number, start)
        if self.stop is not None:
            folder = self.recorder.store.folder if self.recorder.store else None
            raise Interrupted(self.stop, folder)

    def _fail(self, number: int, error: Exception) -> None:
        log.error("program %d failed, its lanes are marked: %s", number + 1, error)
        self.broken.add(number)
        self.running.pop(number, None)
        for lane in self._unfinished(number):
            lane.status = "failed"
            self.errors[lane.lane] = str(error)
            self.schedule.ended(self, lane)
        self.progress.failed(number, error)

    # Recording

    def _evaluate(self, number: int, slots: Slots) -> None:
        """Evaluates the lanes at a milestone, ends the lanes that are over."""
        diverged = [lane for _, lane in slots.busy() if lane.diverged_at is not None]
        due = [(s, lane) for s, lane in slots.busy() if lane.diverged_at is None and slots.due(lane)]
        verdicts: dict[int, Verdict] = {}
        if due:
            start = self.now()
            returns, lengths, metrics = slots.evaluate([s for s, _ in due])
            for slot, lane in due:
                self._record(lane, returns[slot], lengths[slot], {k: v[slot] for k, v in metrics.items()})
                if not np.isfinite(returns[slot]).all():
                    lane.diverged_at = lane.env_steps
                    diverged.append(lane)
                elif lane.env_steps < self.settings.total_timesteps and lane.lane in self.last_return:
                    verdicts[lane.lane] = self.schedule.judge(self, lane, self.last_return[lane.lane])
            self.phase("evaluate", number, start)
        for slot, lane in slots.busy():
            lane.seconds = self.now() - slots.started[lane.lane]
            verdict = verdicts.get(lane.lane, Verdict.GO_ON)
            if lane in diverged:
                verdict = self.schedule.lost(self, lane)
                self.progress.diverged(lane, self.tree(lane))
            if verdict is Verdict.PAUSE:
                lane.status = "paused"
                self.parked[lane.lane] = slots.state(slot)
                slots.free(slot)
            elif lane in diverged:
                lane.status = "diverged"
            elif lane.env_steps >= self.settings.total_timesteps:
                lane.status = "done"
            elif verdict is Verdict.PRUNE:
                lane.status = "pruned"
            if lane.over:
                self._keep_policy(lane, self.programs[number], slots, slot)
                slots.free(slot)
                self.schedule.ended(self, lane)

    def _record(self, lane: Lane, returns: np.ndarray, lengths: np.ndarray, metrics: dict[str, Any]) -> None:
        measured = {f"train/{k}": float(v) for k, v in metrics.items() if np.isfinite(v)}
        if self.settings.evaluations or self.settings.eval_at_start:
            headline = 0 if self.settings.evaluation == "deterministic" else 1
            measured |= summary(returns[headline], lengths[headline])
            measured |= {f"{EVALUATION_MODES[1 - headline]}_return": float(returns[1 - headline].mean())}
            self.recorder.episodes(lane, returns, lengths)
            self.progress.evaluated(lane, measured["return"])
            self.last_return[lane.lane] = measured["return"]
        self.recorder.point(lane, self.now(), measured)

    def _keep_policy(self, lane: Lane, program: Program, slots: Slots, slot: int) -> None:
        """Saves the lane's agent if it is among the best so far (or all are wanted)."""
        store = self.recorder.store
        if store is None or self.how.save_policies == "none" or lane.status != "done":
            return
        score = self.last_return.get(lane.lane, -np.inf)
        heapq.heappush(self.best, (float(score), lane.lane))
        dropped = None
        if self.how.save_policies == "best" and len(self.best) > BEST_POLICIES:
            dropped = heapq.heappop(self.best)[1]
        if dropped != lane.lane:
            agent = slots.state(slot).agent
            about = {"lane": lane.lane, "sample": lane.sample, "seed": lane.seed, "env_steps": lane.env_steps}
            policies.save(
                _policy_path(store, lane.lane),
                agent,
                self.experiment.recipe,
                self.experiment.env_name,
                program.caps,
                **about,
            )
        if dropped is not None and dropped != lane.lane:
            _policy_path(store, dropped).unlink(missing_ok=True)

    # Saving and resuming

    def lanes_frame(self) -> pl.DataFrame:
        return pl.DataFrame([dataclasses.asdict(lane) for lane in self.lanes], schema=SCHEMAS["lanes"])

    def save(self) -> None:
        """Flushes the tables and replaces the checkpoint; the two always belong together."""
        self.saved_at = time.perf_counter()
        store = self.recorder.store
        if store is None:
            return
        states = dict(self.parked)
        for slots in self.running.values():
            states |= slots.states()
        if self.schedule.grows and self.experiment.rows:
            store.write_samples(self.experiment.samples)
        store.flush(self.lanes_frame())
        header = {
            "parts": store.parts,
            "elapsed": self.now(),
            "lanes": [dataclasses.asdict(lane) for lane in self.lanes],
            "states": list(states),
            "replaced": {lane: self.replaced[lane].counts() for lane in states if lane in self.replaced},
            "best": self.best,
            "programs": [p.describe() for p in self.programs],
            "rows": self.experiment.rows if self.schedule.grows else None,
            "schedule": self.schedule.state(),
            "last_return": self.last_return,
        }
        write_atomically(store.folder / CHECKPOINT, pack(list(states.values()), **header))

    def restore(self) -> bool:
        """Continues from the checkpoint in the store's folder; False when there is none yet."""
        store = self.recorder.store
        if store is None or not (store.folder / CHECKPOINT).exists():
            if store is not None:
                store.discard_after(0)
            return False
        data = (store.folder / CHECKPOINT).read_bytes()
        header = read_header(data)
        programs = [Program.restored(about) for about in header["programs"]]
        if [p.key for p in programs[: len(self.programs)]] != [p.key for p in self.programs]:
            raise ValueError(
                "the checkpoint was written under another plan of programs; it cannot be continued"
            )
        self.programs[:] = programs
        places = [self.experiment.add(row) for row in header["rows"] or []]
        self._enter(places, {i: n for n, program in enumerate(programs) for i in program.samples})
        self.lanes = [Lane(**lane) for lane in header["lanes"]]
        likes = []
        for number in header["states"]:
            lane = self.lanes[number]
            tree = self.experiment.trees[self.index[lane.sample]]
            likes.append(state_like(tree, self.experiment.env, self.programs[lane.program].caps))
        self.parked = dict(zip(header["states"], unpack(data, likes, str(CHECKPOINT)), strict=True))
        for number, counts in header["replaced"].items():
            self.replaced[int(number)] = Replaced(self.parked[int(number)].agent.hp, *counts)
        self.elapsed_before = header["elapsed"]
        self.best = [(float(s), int(i)) for s, i in header["best"]]
        self.last_return = {int(k): v for k, v in header["last_return"].items()}
        self.schedule.restore(header["schedule"])
        store.discard_after(header["parts"])
        if self.schedule.describe() is None:  # others have decided what follows from a failure
            self._try_again(store)
        return True

    def _try_again(self, store: Store) -> None:
        """Queues failed lanes: they go on from where they waited, or begin anew, as if never started."""
        anew = []
        for lane in self.lanes:
            if lane.status == "failed":
                lane.status = "queued"
                if lane.lane not in self.parked:
                    lane.env_steps = lane.gradient_steps = lane.circuit_executions = 0
                    lane.seconds, lane.diverged_at = 0.0, None
                    self.last_return.pop(lane.lane, None)
                    anew.append(lane.lane)
        store.forget(anew)


def _policy_path(store: Store, lane: int) -> Path:
    return store.folder / "policies" / f"lane-{lane:05d}.policy"
