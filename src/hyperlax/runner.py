"""The host's side of a sweep: fills slots, runs segments, evaluates, records, saves."""

from __future__ import annotations

import dataclasses
import heapq
import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl

from hyperlax import policies
from hyperlax.checkpoint import pack, read_header, unpack
from hyperlax.execution import Execution
from hyperlax.experiment import Experiment, Lane
from hyperlax.files import write_atomically
from hyperlax.monitor import Monitor
from hyperlax.plan import Program
from hyperlax.programs import Compiled, state_like
from hyperlax.results import SCHEMAS
from hyperlax.slots import Slots
from hyperlax.store import CHECKPOINT, Store
from hyperlax.train import TrainState

log = logging.getLogger("hyperlax")

BEST_POLICIES = 5
EVALUATION_MODES = ("deterministic", "stochastic")


class Interrupted(Exception):
    """The run was asked to stop; its state is saved when it has a folder."""

    def __init__(self, signum: int, folder: Path | None):
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum, self.folder = signum, folder


@dataclass
class Recorder:
    """Everything measured, in memory and (with a store) on disk."""

    store: Store | None
    rows: dict[str, list[dict[str, Any]]] = field(
        default_factory=lambda: {k: [] for k in SCHEMAS if k != "lanes"}
    )

    def add(self, table: str, rows: list[dict[str, Any]]) -> None:
        if self.store is None:
            self.rows[table].extend(rows)
        else:
            self.store.append(table, rows)


class Runner:
    """Runs the programs of one experiment one after the other, compiling the next while one runs."""

    def __init__(
        self,
        experiment: Experiment,
        programs: list[Program],
        compile_: Callable[[Program], Compiled],
        recorder: Recorder,
        progress: Any,
        how: Execution,
    ):
        self.experiment, self.programs, self.compile, self.recorder = experiment, programs, compile_, recorder
        self.progress, self.how = progress, how
        self.last_return: dict[int, float] = {}
        self.settings = experiment.settings
        self.lanes = experiment.lanes()
        self.keys, self.init_keys = experiment.lane_keys()
        self.best: list[tuple[float, int]] = []
        self.elapsed_before = 0.0
        self.began = time.perf_counter()
        self.saved_at = time.perf_counter()
        self.stop: int | None = None
        self.parked: dict[int, TrainState] = {}
        self.errors: dict[int, str] = {}
        self.monitor = Monitor()
        self.index = {sample: i for i, sample in enumerate(experiment.sample_ids)}
        self.executions = [tree.executions(experiment.env) for tree in experiment.trees]
        for number, program in enumerate(programs):
            for i in program.samples:
                for lane in self.lanes[i * self.settings.seeds : (i + 1) * self.settings.seeds]:
                    lane.program = number

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
            with _signals(self):
                self._run_programs(pool)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _run_programs(self, pool: ThreadPoolExecutor) -> None:
        waiting = deque(n for n in range(len(self.programs)) if self._unfinished(n))
        ahead: dict[int, Future[Compiled]] = {}
        while waiting:
            number = waiting.popleft()
            self.progress.compiling(number, len(self.programs))
            start = self.now()
            try:
                future = ahead.pop(number, None) or pool.submit(self.compile, self.programs[number])
                compiled = _wait(future, self)
                self._compiled(number, compiled, start)
                if waiting:
                    ahead[waiting[0]] = pool.submit(self.compile, self.programs[waiting[0]])
                self._run_program(number, compiled)
            except (MemoryError, RuntimeError, jax.errors.JaxRuntimeError) as error:
                self._fail(number, error)
        self.save({})

    def _unfinished(self, number: int) -> list[Lane]:
        return [lane for lane in self.lanes if lane.program == number and not lane.over]

    def _compiled(self, number: int, compiled: Compiled, start: float) -> None:
        self.phase("trace", number, start, start + compiled.trace_seconds)
        self.phase("compile", number, start + compiled.trace_seconds)
        self.progress.compiled(number, compiled)

    def _fail(self, number: int, error: Exception) -> None:
        log.error("program %d failed, its lanes are marked: %s", number + 1, error)
        for lane in self._unfinished(number):
            lane.status = "failed"
            self.errors[lane.lane] = str(error)
        self.progress.failed(number, error)

    def _run_program(self, number: int, compiled: Compiled) -> None:
        program = self.programs[number]
        work = {
            s: program.cycle_work[i]
            for i, s in enumerate(self.experiment.sample_ids)
            if i in program.cycle_work
        }
        slots = Slots(self, compiled, work)
        lanes = sorted(
            self._unfinished(number), key=lambda lane: -work[lane.sample] * self._cycles_left(lane)
        )
        queue = deque(sorted(lanes, key=lambda lane: lane.lane not in self.parked))
        while queue or slots.busy():
            slots.fill(queue)
            start = self.now()
            slots.advance()
            self.phase("train", number, start)
            self._evaluate(number, program, slots)
            self.monitor.sample(self.now(), self.recorder)
            self.progress.update(self.lanes, self.now())
            if self.stop is not None or time.perf_counter() - self.saved_at > self.how.checkpoint_seconds:
                start = self.now()
                self.save(slots.states())
                self.phase("save", number, start)
            if self.stop is not None:
                folder = self.recorder.store.folder if self.recorder.store else None
                raise Interrupted(self.stop, folder)

    def _cycles_left(self, lane: Lane) -> int:
        return -(-(self.settings.total_timesteps - lane.env_steps) // self.cycle_steps(lane))

    def cycle_steps(self, lane: Lane) -> int:
        """Environment steps of one cycle."""
        sizes = self.experiment.trees[self.index[lane.sample]].sizes()
        return sizes["num_envs"] * sizes["rollout_length"]

    # Recording

    def _evaluate(self, number: int, program: Program, slots: Slots) -> None:
        """Evaluates the lanes at a milestone, ends the lanes that are over."""
        diverged = [lane for _, lane in slots.busy() if lane.diverged_at is not None]
        due = [(s, lane) for s, lane in slots.busy() if lane.diverged_at is None and slots.due(lane)]
        if due:
            start = self.now()
            returns, lengths, metrics = slots.evaluate([s for s, _ in due])
            for slot, lane in due:
                self._record(lane, returns[slot], lengths[slot], {k: v[slot] for k, v in metrics.items()})
                if not np.isfinite(returns[slot]).all():
                    lane.diverged_at = lane.env_steps
                    diverged.append(lane)
            self.phase("evaluate", number, start)
        for slot, lane in slots.busy():
            lane.seconds = self.now() - slots.started[lane.lane]
            if lane in diverged:
                lane.status = "diverged"
                self.progress.diverged(lane, self.experiment.trees[self.index[lane.sample]])
            elif lane.env_steps >= self.settings.total_timesteps:
                lane.status = "done"
            if lane.over:
                self._keep_policy(lane, program, slots, slot)
                slots.free(slot)

    def _record(self, lane: Lane, returns: np.ndarray, lengths: np.ndarray, metrics: dict[str, Any]) -> None:
        point = {
            "lane": lane.lane,
            "sample": lane.sample,
            "seed": lane.seed,
            "env_steps": lane.env_steps,
            "gradient_steps": lane.gradient_steps,
            "circuit_executions": lane.circuit_executions,
            "seconds": self.now(),
        }
        measured = {f"train/{k}": float(v) for k, v in metrics.items() if np.isfinite(v)}
        if self.settings.evaluations or self.settings.eval_at_start:
            headline = 0 if self.settings.evaluation == "deterministic" else 1
            measured |= _summary(returns[headline], lengths[headline])
            measured |= {f"{EVALUATION_MODES[1 - headline]}_return": float(returns[1 - headline].mean())}
            self.recorder.add(
                "episodes",
                [
                    {
                        "lane": lane.lane,
                        "env_steps": lane.env_steps,
                        "mode": mode,
                        "episode": e,
                        "return": r,
                        "length": n,
                    }
                    for mode, rs, ns in zip(EVALUATION_MODES, returns, lengths, strict=True)
                    for e, (r, n) in enumerate(zip(rs.tolist(), ns.tolist(), strict=True))
                ],
            )
            self.progress.evaluated(lane, measured["return"])
            self.last_return[lane.lane] = measured["return"]
        self.recorder.add("curves", [{**point, "metric": k, "value": v} for k, v in measured.items()])

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

    def save(self, states: dict[int, TrainState]) -> None:
        """Flushes the tables and replaces the checkpoint; the two always belong together."""
        self.saved_at = time.perf_counter()
        store = self.recorder.store
        if store is None:
            return
        states = {**self.parked, **states}
        store.flush(self.lanes_frame())
        header = {
            "parts": store.parts,
            "elapsed": self.now(),
            "lanes": [dataclasses.asdict(lane) for lane in self.lanes],
            "states": list(states),
            "best": self.best,
            "programs": [p.key for p in self.programs],
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
        if header["programs"] != [p.key for p in self.programs]:
            raise ValueError(
                "the checkpoint was written under another plan of programs; it cannot be continued"
            )
        self.lanes = [Lane(**lane) for lane in header["lanes"]]
        likes = []
        for number in header["states"]:
            lane = self.lanes[number]
            tree = self.experiment.trees[self.index[lane.sample]]
            likes.append(state_like(tree, self.experiment.env, self.programs[lane.program].caps))
        self.parked = dict(zip(header["states"], unpack(data, likes, str(CHECKPOINT)), strict=True))
        self.elapsed_before = header["elapsed"]
        self.best = [(float(s), int(i)) for s, i in header["best"]]
        self.last_return = {int(k): v for k, v in header["last_return"].items()}
        store.discard_after(header["parts"])
        return True


def _summary(returns: np.ndarray, lengths: np.ndarray) -> dict[str, float]:
    q25, median, q75 = np.quantile(returns, (0.25, 0.5, 0.75))
    return {
        "return": float(returns.mean()),
        "return_std": float(returns.std()),
        "return_q25": float(q25),
        "return_median": float(median),
        "return_q75": float(q75),
        "length": float(lengths.mean()),
        "episodes": float(returns.size),
    }


def _policy_path(store: Store, lane: int) -> Path:
    return store.folder / "policies" / f"lane-{lane:05d}.policy"


def _wait(future: Future[Compiled], runner: Runner) -> Compiled:
    """The compiled program; a signal meanwhile stops the run, with what was done before saved."""
    while True:
        try:
            return future.result(timeout=0.2)
        except TimeoutError:
            if runner.stop is not None:
                runner.save({})
                folder = runner.recorder.store.folder if runner.recorder.store else None
                raise Interrupted(runner.stop, folder) from None


class _signals:
    """While active, SIGINT and SIGTERM ask the runner to save and stop; a second one stops at once."""

    def __init__(self, runner: Runner):
        self.runner, self.previous = runner, {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._asked)

    def _asked(self, number: int, frame: Any) -> None:
        if self.runner.stop is not None:
            raise KeyboardInterrupt
        self.runner.stop = number
        self.runner.progress.stopping()

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
