"""Population-based training (Jaderberg et al. 2017): the worst go on from the best, with other values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import numpy as np

from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.samples import Lane
from hyperlax.hyperparams import values
from hyperlax.hyperparams.spaces import Space
from hyperlax.programs.train import TrainState
from hyperlax.schedules.base import Schedule, Verdict, decisions, refuse_designs
from hyperlax.schedules.exploration import changeable, perturbed
from hyperlax.schedules.view import RunnerView

Population = tuple[int, int]


@dataclass
class PBT(Schedule):
    """Lets a population of lanes train side by side, and copy one another at barriers.

    - A population is the lanes of all samples with the same seed index, in the same program: seeds stay
      independent replicates. Lanes whose shapes cannot share a program cannot copy one another either.
    - A barrier is every `interval`th evaluation. Lanes wait there until all others of the population that are
      not over have come; what then happens depends on their scores alone, not on who came first.
    - Scores are the returns evaluated at the barrier. Each of the worst `quantile` of the lanes goes on from
      the state of one of the best, drawn at random: weights, optimiser, normaliser, replay, environments and
      all hyperparameters. Random numbers and counts of steps stay its own. A lane that is no worse than the
      one it would copy goes on as it is.
    - Copied hyperparameters are then perturbed, those that are searched and that a lane can follow in the
      middle of training (`exploration.changeable`): a step up or down (`factor`, see `Space.beside`); for
      whole numbers and choices, with chance `resample`, a new draw from the space.
    - A lane that has diverged waits for the next barrier and goes on from a copy, at the env steps of that
      one; those between are not trained. It is over where no barrier is left, or everybody has diverged.

    What is drawn belongs to (seed of the experiment, barrier, lane). An object serves one experiment.
    """

    interval: int = 1
    quantile: float = 0.25
    factor: float | int = 1.2
    resample: float | int = 0.25
    explored: dict[str, Space] = field(default_factory=dict, init=False, repr=False)
    barriers: list[int] = field(default_factory=list, init=False, repr=False)
    passed: dict[Population, int] = field(default_factory=dict, init=False, repr=False)
    waiting: dict[int, tuple[int, float | None]] = field(default_factory=dict, init=False, repr=False)
    """Lane → the barriers it has reached, and its score there (None: it has diverged)."""

    one_program = True

    def __post_init__(self):
        if self.interval < 1:
            raise ValueError(
                f"scheduler.interval is a number of evaluations, at least 1; got {self.interval}"
            )
        if not 0 < self.quantile <= 0.5:
            raise ValueError(f"scheduler.quantile is a share of lanes up to 0.5; got {self.quantile}")
        if not self.factor > 1:
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
        """Opens the barriers that all of a population have reached."""
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
        return self.waiting.get(lane.lane, (0, None))[0]

    def copies(self, seed: int, barrier: int, scores: Mapping[int, float | None]) -> dict[int, int]:
        """Lane → the lane whose state it takes over, from the scores of a population (None: diverged).

        Ties are broken by lane number, so that the order in which scores came does not matter.
        """
        sound = {lane: score for lane, score in scores.items() if score is not None}
        if not sound:
            return {}
        ranked = sorted(sound, key=lambda lane: (-sound[lane], lane))
        ranked += sorted(lane for lane in scores if lane not in sound)
        count = max(1, int(len(scores) * self.quantile))
        best = ranked[: min(count, len(sound))]
        worst = [lane for lane in ranked if lane not in sound or lane in ranked[-count:]]
        chosen = {}
        for lane in worst:
            donor = best[int(_draws(seed, barrier, lane).integers(len(best)))]
            if lane not in best and (lane not in sound or sound[lane] < sound[donor]):
                chosen[lane] = donor
        return chosen

    def _copy(self, runner: RunnerView, lane: Lane, donor: Lane, barrier: int) -> None:
        own, state = runner.parked[lane.lane], runner.parked[donor.lane]
        program = runner.programs[lane.program]
        before, copied = values(runner.tree(lane)), runner.tree(donor)
        rng = _draws(runner.experiment.settings.seed, barrier, lane.lane, 1)
        fits = lambda tree: program.holds(tree.sizes())  # noqa: E731
        tree = perturbed(copied, self.explored, self.factor, self.resample, fits, rng)
        (reached, score), parent_score = self.waiting[lane.lane], self.waiting[donor.lane][1]
        runner.replace(lane, inherited(own, state, tree, score is None))
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
        nothing = [{**event, "hyperparameter": None, "from": None, "to": None}]
        runner.recorder.add("lineage", rows or nothing)

    def state(self) -> dict[str, Any]:
        return {
            "passed": [[*key, count] for key, count in self.passed.items()],
            "waiting": [[lane, *reached] for lane, reached in self.waiting.items()],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.passed = {(program, seed): count for program, seed, count in state["passed"]}
        self.waiting = {lane: (reached, score) for lane, reached, score in state["waiting"]}


def population(lane: Lane) -> Population:
    """Lanes of equal population may copy one another."""
    return lane.program, lane.seed


def inherited(
    own: TrainState, donor: TrainState, tree: AbstractAgentHyperparams, in_time: bool
) -> TrainState:
    """The lane `own` with everything learned and seen by `donor`, and the hyperparameters `tree`.

    Random numbers and counts stay its own; env steps do unless it takes the donor's place `in_time`.
    """
    kept = lambda s: (s.agent.hp, s.key, s.env_steps, s.gradient_steps, s.cycles)  # noqa: E731
    steps = donor.env_steps if in_time else own.env_steps
    return eqx.tree_at(kept, donor, (tree, own.key, steps, own.gradient_steps, own.cycles))


def _draws(seed: int, barrier: int, lane: int, what: int = 0) -> np.random.Generator:
    return np.random.default_rng([seed % 2**32, barrier, lane, what])
