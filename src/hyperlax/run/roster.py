"""The lanes of a run: their programs and hyperparameters, and the state of those that wait."""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Iterable
from typing import Any

import polars as pl

from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.samples import Lane, Sample
from hyperlax.programs.budget import cycle_steps
from hyperlax.programs.plan import Program
from hyperlax.programs.train import TrainState
from hyperlax.run.replaced import Replaced
from hyperlax.storage.results import SCHEMAS


class Roster:
    """The lanes of an experiment that runs in `programs`, a list to which programs may be added.

    - `lanes`: every lane, ordered by number.
    - `samples`: id → sample, with its predicted work in the program that trains it.
    - `parked`: lane → its state as host arrays, for lanes that have begun and are in no slot.
    - `replaced`: lane → the record of the last time that its schedule gave it the state of another lane.
    - `last_return`: lane → its latest headline return.
    """

    def __init__(self, experiment: Experiment[Any], programs: list[Program]):
        self.experiment, self.programs = experiment, programs
        self.lanes: list[Lane] = []
        self.samples: dict[int, Sample] = {}
        self.parked: dict[int, TrainState] = {}
        self.replaced: dict[int, Replaced] = {}
        self.last_return: dict[int, float] = {}
        self.enter(experiment.records.values())

    def enter(self, samples: Iterable[Sample]) -> list[Lane]:
        """Add the lanes of `samples`, each of which must be listed by one of the programs."""
        samples, env = list(samples), self.experiment.env
        programs = {place: n for n, program in enumerate(self.programs) for place in program.samples}
        lanes = self.experiment.lanes(samples)
        for sample in samples:
            work = self.programs[programs[sample.place]].work(sample.tree, env)
            self.samples[sample.id] = dataclasses.replace(sample, work=work)
        for lane in lanes:
            lane.program = programs[self.samples[lane.sample].place]
        self.lanes.extend(lanes)
        self.lanes.sort(key=lambda lane: lane.lane)
        return lanes

    def lane(self, number: int) -> Lane:
        """The lane with this number; raises `IndexError` if there is none."""
        place = bisect_left(self.lanes, number, key=lambda lane: lane.lane)
        if self.lanes[place].lane != number:
            raise IndexError(f"there is no lane {number}")
        return self.lanes[place]

    def sample(self, lane: Lane) -> Sample:
        """The sample that the lane started with."""
        return self.samples[lane.sample]

    def tree(self, lane: Lane) -> AbstractAgentHyperparams:
        """The current hyperparameters of the lane: its sample's, unless its schedule has replaced them."""
        changed = self.replaced.get(lane.lane)
        return self.sample(lane).tree if changed is None else changed.tree

    def cycle_steps(self, lane: Lane) -> int:
        """Count the env steps of one cycle of the lane."""
        return cycle_steps(self.tree(lane).sizes())

    def last_step(self, lane: Lane) -> int:
        """The env steps at which the training of the lane ends, by its current hyperparameters."""
        if lane.lane not in self.replaced:
            return self.sample(lane).steps
        return self.experiment.settings.last_step(self.cycle_steps(lane), lane.env_steps)

    def work_of(self, lane: Lane) -> float:
        """Predict the cost of one cycle of the lane, in the unit of its program (`Program.work`)."""
        if lane.lane not in self.replaced:
            return self.sample(lane).work
        return self.programs[lane.program].work(self.tree(lane), self.experiment.env)

    def iterations(self, lane: Lane) -> int:
        """The iterations of its program that a cycle of the lane takes."""
        return self.programs[lane.program].iterations(self.tree(lane))

    def executed(self, lane: Lane) -> int:
        """Count the circuit executions of the lane so far."""
        if (changed := self.replaced.get(lane.lane)) is None:
            per_step, per_gradient = self.sample(lane).executions
            return round(per_step * lane.env_steps + per_gradient * lane.gradient_steps)
        return changed.executed(lane, self.experiment.env)

    def replace(self, lane: Lane, state: TrainState) -> None:
        """Give a parked lane another state (host arrays); its counts, apart from env steps, go on."""
        self.parked[lane.lane], self.replaced[lane.lane] = state, Replaced.now(lane, state)
        lane.env_steps, lane.diverged_at, lane.cause = int(state.env_steps), None, ""
        lane.parameters = self.tree(lane).parameter_count(self.experiment.env)

    def trainable(self, program: int) -> list[Lane]:
        """The lanes of a program that are neither over nor paused."""
        return [lane for lane in self.unfinished(program) if lane.status != "paused"]

    def unfinished(self, program: int) -> list[Lane]:
        """The lanes of a program that are not over."""
        return [lane for lane in self.lanes if lane.program == program and not lane.over]

    def frame(self) -> pl.DataFrame:
        """The table of lanes, one row each."""
        rows = [[getattr(lane, column) for column in SCHEMAS["lanes"]] for lane in self.lanes]
        return pl.DataFrame(rows, schema=SCHEMAS["lanes"], orient="row")

    def fitting(self, sample: Sample, broken: Iterable[int]) -> int | None:
        """The number of the cheapest program, not `broken`, that holds the sample; None if there is none."""
        sizes, env = sample.tree.sizes(), self.experiment.env
        programs = [n for n, p in enumerate(self.programs) if n not in broken and p.holds(sizes)]
        return min(programs, key=lambda n: self.programs[n].work(sample.tree, env), default=None)

    def assign(self, sample: Sample, program: int) -> list[Lane]:
        """Add a new sample to a program; return its lanes."""
        found = self.programs[program]
        self.programs[program] = dataclasses.replace(found, samples=(*found.samples, sample.place))
        return self.enter([sample])

    def try_again(self) -> list[int]:
        """Queue the failed lanes again; return the numbers of those that have no state and start anew."""
        failed = [lane for lane in self.lanes if lane.status == "failed"]
        restarted = [lane.lane for lane in failed if lane.lane not in self.parked]
        for lane in failed:
            lane.status, lane.cause = "queued", ""
        for number in restarted:
            self.restart(self.lane(number))
        return restarted

    def restart(self, lane: Lane) -> None:
        """Queue a lane from its very beginning."""
        parameters = self.sample(lane).tree.parameter_count(self.experiment.env)
        new = Lane(lane.lane, lane.sample, lane.seed, lane.program, parameters=parameters)
        for name, value in dataclasses.asdict(new).items():
            setattr(lane, name, value)
        for table in (self.parked, self.replaced, self.last_return):
            table.pop(lane.lane, None)
