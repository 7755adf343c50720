"""Population-based training (Jaderberg et al. 2017), in which bad lanes copy good ones and perturb them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import numpy as np

from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.samples import Lane
from hyperlax.hyperparams import values
from hyperlax.hyperparams.spaces import Space
from hyperlax.lanes.keys import seed_words
from hyperlax.programs.budget import cycle_steps
from hyperlax.programs.train import TrainState
from hyperlax.registry.limits import within
from hyperlax.schedules.base import Schedule, Verdict, decisions, refuse_designs
from hyperlax.schedules.exploration import changeable, perturbed
from hyperlax.schedules.view import RunnerView

Population = tuple[int, int]
"""Program and seed index, which the lanes of a population share."""


@dataclass
class PBT(Schedule):
    """Trains populations of lanes side by side, in which the worst lanes copy the best at barriers.

    - A population consists of the lanes of all samples with the same seed index in the same program, so that
      seeds remain independent replicates. Lanes whose shapes cannot share a program cannot copy one another.
    - Every `interval`th evaluation is a barrier, where lanes wait for all others of their population that are
      not over. What happens next depends on their scores alone, not on the order of arrival.
    - Scores are the returns at the barrier. Each of the worst `quantile` of the lanes continues from the
      state of one of the best, drawn at random: weights, optimiser, normaliser, replay buffer, environments
      and all hyperparameters. It keeps its own random key and step counts. A lane that is no worse than the
      one it would copy continues unchanged, as does one too near its end for a cycle of the other.
    - Those of the copied hyperparameters that are searched and can change during training
      (`exploration.changeable`) are then perturbed: by a step up or down (`factor`, see `Space.beside`) or,
      for whole numbers and choices, with probability `resample` by a new draw from the space.
    - A diverged lane waits for the next barrier and continues from a copy, at the env steps of its donor;
      the steps in between are not trained. It is over if no barrier is left or the whole population has
      diverged.

    Random draws depend on the seed of the experiment, the barrier and the lane. An instance serves one
    experiment.
    """

    interval: int = 1
    quantile: float = 0.25
    factor: float | int = 1.2
    resample: float | int = 0.25
    explored: dict[str, Space] = field(default_factory=dict, init=False, repr=False)
    barriers: list[int] = field(default_factory=list, init=False, repr=False)
    passed: dict[Population, int] = field(default_factory=dict, init=False, repr=False)
    waiting: dict[int, tuple[int, float | None]] = field(default_factory=dict, init=False, repr=False)
    """Lane → the number of barriers it has reached, and its score at the last one (None: it has diverged)."""

    one_program = True

    def __post_init__(self):
        self.interval = within("scheduler.interval", self.interval)
        if not 0 < self.quantile <= 0.5:
            raise ValueError(f"scheduler.quantile is a share of lanes up to 0.5; got {self.quantile}")
        if not 1 < self.factor < math.inf:
            raise ValueError(f"scheduler.factor must be above 1, got {self.factor}")
        if not 0 <= self.resample <= 1:
            raise ValueError(f"scheduler.resample is a probability, got {self.resample}")

    def check(self, experiment: Experiment) -> None:
        samples = len(experiment.records)
        if samples < 2:
            raise ValueError(
                f"population-based training copies between samples and there is {samples}: --num-samples 8"
            )
        refuse_designs(experiment, "copies change them")
        self.passed, self.waiting = {}, {}
        marks = decisions(experiment.settings)
        self.barriers = marks[self.interval - 1 :: self.interval]
        if not self.barriers:
            raise ValueError(
                f"population-based training copies at evaluations before the end; there are {len(marks)} and "
                f"scheduler.interval is {self.interval}: --set evaluations={4 * self.interval}"
            )
        space = experiment.recipe.search_space()
        self.explored = changeable(experiment.base, space, experiment.fixed)
        words = (
            ", ".join(self.explored) or "nothing: no searched hyperparameter can change while a lane trains"
        )
        experiment.notes.append(
            f"population-based training explores {words}; hyperparameters of samples are those at the start"
        )

    def describe(self) -> dict[str, Any]:
        return {
            "name": "pbt",
            "interval": self.interval,
            "quantile": self.quantile,
            "factor": float(self.factor),
            "resample": float(self.resample),
            "explores": list(self.explored),
        }

    def judge(self, runner: RunnerView, lane: Lane, value: float) -> Verdict:
        reached = sum(mark <= lane.env_steps for mark in self.barriers)
        if reached <= self.passed.get(population(lane), 0):
            return Verdict.GO_ON
        self.waiting[lane.lane] = (reached, value)
        return Verdict.PAUSE

    def lost(self, runner: RunnerView, lane: Lane) -> Verdict:
        passed = self.passed.get(population(lane), 0)
        if passed == len(self.barriers):
            return Verdict.PRUNE
        self.waiting[lane.lane] = (passed + 1, None)
        return Verdict.PAUSE

    def ended(self, runner: RunnerView, lane: Lane) -> None:
        self.waiting.pop(lane.lane, None)

    def refill(self, runner: RunnerView) -> None:
        populations: dict[Population, list[Lane]] = {}
        for lane in runner.lanes:
            if not lane.over:
                populations.setdefault(population(lane), []).append(lane)
        for key, lanes in populations.items():
            self._advance(runner, key, lanes)

    def _advance(self, runner: RunnerView, key: Population, lanes: list[Lane]) -> None:
        """Let the population `key` pass every barrier that all of its `lanes` have reached."""
        while lanes and all(self._reached(lane) > self.passed.get(key, 0) for lane in lanes):
            barrier = self.passed[key] = self.passed.get(key, 0) + 1
            scores = {lane.lane: self.waiting[lane.lane][1] for lane in lanes}
            for lane, donor in self.copies(runner.experiment.settings.seed, barrier, scores).items():
                self._copy(runner, runner.lanes[lane], runner.lanes[donor], barrier)
            for lane in lanes:
                if self.waiting[lane.lane][1] is None:
                    runner.end(lane, "diverged")
                elif self._reached(lane) == barrier:
                    del self.waiting[lane.lane]
                    lane.status = "queued"
            lanes = [lane for lane in lanes if not lane.over]

    def _reached(self, lane: Lane) -> int:
        """The number of barriers that a waiting lane has reached; 0 for a lane that does not wait."""
        return self.waiting.get(lane.lane, (0, None))[0]

    def copies(self, seed: int, barrier: int, scores: Mapping[int, float | None]) -> dict[int, int]:
        """Choose the lanes of a population that copy another one: lane → the lane that it copies.

        `scores` maps every lane to its score, None if it has diverged. Ties are broken by lane number, so
        that the order of arrival does not matter.
        """
        finite = {lane: score for lane, score in scores.items() if score is not None}
        if not finite:
            return {}
        ranked = sorted(finite, key=lambda lane: (-finite[lane], lane))
        ranked += sorted(lane for lane in scores if lane not in finite)
        count = max(1, int(len(scores) * self.quantile))
        best = ranked[: min(count, len(finite))]
        worst = [lane for lane in ranked if lane not in finite or lane in ranked[-count:]]
        chosen = {}
        for lane in worst:
            donor = best[int(_draws(seed, barrier, lane).integers(len(best)))]
            if lane not in best and (lane not in finite or finite[lane] < finite[donor]):
                chosen[lane] = donor
        return chosen

    def _has_room(self, runner: RunnerView, lane: Lane, donor: Lane) -> bool:
        """Whether the run is long enough for one more cycle of `lane` with the sizes of `donor`."""
        if self.waiting[lane.lane][1] is None:  # it goes on from the env steps of the donor
            return True
        cycle = cycle_steps(runner.tree(donor).sizes())
        return runner.experiment.settings.last_step(cycle, lane.env_steps) > lane.env_steps

    def _copy(self, runner: RunnerView, lane: Lane, donor: Lane, barrier: int) -> None:
        """Let `lane` continue from the state of `donor` with perturbed hyperparameters, and record it.

        Nothing happens if it would end at once.
        """
        if not self._has_room(runner, lane, donor):
            return
        previous, state = runner.parked[lane.lane], runner.parked[donor.lane]
        program = runner.programs[lane.program]
        before, copied = values(runner.tree(lane)), runner.tree(donor)
        rng = _draws(runner.experiment.settings.seed, barrier, lane.lane, 1)
        fits = lambda tree: program.holds(tree.sizes())  # noqa: E731
        tree = perturbed(copied, self.explored, self.factor, self.resample, fits, rng)
        (reached, score), parent_score = self.waiting[lane.lane], self.waiting[donor.lane][1]
        runner.replace(lane, inherited(previous, state, tree, score is None))
        self.waiting[lane.lane] = (reached, parent_score)
        changed = {path: (before[path], now) for path, now in values(tree).items() if before[path] != now}
        event = {
            "lane": lane.lane,
            "sample": lane.sample,
            "seed": lane.seed,
            "barrier": barrier,
            "env_steps": lane.env_steps,
            "parent": donor.lane,
            "score": score,
            "parent_score": parent_score,
        }
        rows = [
            {**event, "hyperparameter": path, "from": str(old), "to": str(new)}
            for path, (old, new) in changed.items()
        ]
        unchanged = [{**event, "hyperparameter": None, "from": None, "to": None}]
        runner.recorder.add("lineage", rows or unchanged)

    def start_over(self, lanes: Sequence[Lane], lost: Collection[int]) -> set[int]:
        populations = {population(lane) for lane in lanes if lane.lane in lost}
        again = {lane.lane for lane in lanes if population(lane) in populations}
        self.passed = {key: 0 if key in populations else count for key, count in self.passed.items()}
        self.waiting = {lane: reached for lane, reached in self.waiting.items() if lane not in again}
        return again

    def state(self) -> dict[str, Any]:
        return {
            "passed": [[*key, count] for key, count in self.passed.items()],
            "waiting": [[lane, *reached] for lane, reached in self.waiting.items()],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.passed = {(program, seed): count for program, seed, count in state["passed"]}
        self.waiting = {lane: (reached, score) for lane, reached, score in state["waiting"]}


def population(lane: Lane) -> Population:
    """The population of a lane, within which lanes may copy one another."""
    return lane.program, lane.seed


def inherited(
    own: TrainState, donor: TrainState, tree: AbstractAgentHyperparams, in_time: bool
) -> TrainState:
    """The state `own` of a lane with all that `donor` has learned, and the hyperparameters `tree`.

    The lane keeps its random key and its counts of gradient steps and cycles. It keeps its env steps, too,
    unless it takes over those of the donor (`in_time`).
    """
    replaced = lambda s: (s.agent.hp, s.key, s.env_steps, s.gradient_steps, s.cycles)  # noqa: E731
    steps = donor.env_steps if in_time else own.env_steps
    return eqx.tree_at(replaced, donor, (tree, own.key, steps, own.gradient_steps, own.cycles))


def _draws(seed: int, barrier: int, lane: int, what: int = 0) -> np.random.Generator:
    """The random numbers of a lane at a barrier, to choose a donor (`what` = 0) or to perturb (1)."""
    low, *high = seed_words(seed)
    return np.random.default_rng([low, barrier, lane, what, *high])
