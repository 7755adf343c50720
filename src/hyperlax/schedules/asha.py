"""Successive halving (after ASHA, Li et al. 2020), in the variant that stops samples that fall behind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.samples import Lane
from hyperlax.registry.limits import within
from hyperlax.schedules.base import Schedule, Verdict, decisions, refuse_designs
from hyperlax.schedules.view import RunnerView


@dataclass
class ASHA(Schedule):
    """Stops samples whose return is not among the best 1/η of all samples that have reached the same rung.

    - Rungs are at `minimum` env steps (0: those of the first evaluation) times η⁰, η¹, η², …, each moved to
      the next evaluation, as long as that is before the end. η is `reduction_factor`.
    - A sample is judged as a whole, by the mean return of its seeds at the rung, as soon as all seeds that
      are not over have reached it; a single seed would decide by luck. Diverged seeds do not count.
    - Of the n samples that have been judged at the rung, itself included, fewer than ⌊n/η⌋ must be better
      than the sample; otherwise all its lanes are pruned. While n < η, no sample is pruned.
    - A rung judges samples in the order in which they begin to train, each as soon as those before it have
      been judged there or are over. Judgements are final and wait for no later sample, so that early ones are
      mild. They depend on the returns alone: neither on the speed of the machine, nor on the number of lanes
      in training at a time, nor on interruptions.
    - A sample that ends before a rung, because the run holds no further cycle of it, is not judged there.
    - Lanes leave their slots at a rung, and those with the fewest steps go first, so that lower rungs fill
      before higher ones and hardly a sample waits for one before it.

    An instance serves one experiment.
    """

    reduction_factor: float | int = 3.0
    minimum: int = 0
    rungs: list[int] = field(default_factory=list, init=False, repr=False)
    values: dict[int, dict[int, float]] = field(default_factory=dict, init=False, repr=False)
    """Number of the rung → lane → its return there."""
    means: dict[int, dict[int, float]] = field(default_factory=dict, init=False, repr=False)
    """Number of the rung → sample → its mean return there, in the order of judgements."""

    started_first = False

    def __post_init__(self):
        if not 1 < self.reduction_factor < math.inf:
            raise ValueError(f"scheduler.reduction_factor must be above 1, got {self.reduction_factor}")
        self.minimum = within("scheduler.minimum", self.minimum)

    def check(self, experiment: Experiment) -> None:
        samples = len(experiment.records)
        if samples < 2:
            raise ValueError(f"successive halving compares samples and there is {samples}: --num-samples 9")
        refuse_designs(experiment, "some would be stopped early")
        marks = decisions(experiment.settings)
        self.rungs = rungs(marks, self.reduction_factor, self.minimum)
        self.values, self.means = {}, {}
        if not marks:
            raise ValueError(
                "successive halving judges at evaluations before the end; there is none: --set evaluations=9"
            )
        if not self.rungs:
            raise ValueError(
                f"scheduler.minimum={self.minimum} lies beyond the last evaluation before the end, at "
                f"{marks[-1]} env steps: lower it, or raise --set evaluations"
            )

    def describe(self) -> dict[str, Any]:
        return {"name": "asha", "reduction_factor": float(self.reduction_factor), "minimum": self.minimum}

    def judge(self, runner: RunnerView, lane: Lane, value: float) -> Verdict:
        reached = sum(rung <= lane.env_steps for rung in self.rungs)
        new = [r for r in range(reached) if lane.lane not in self.values.get(r, {})]
        for rung in new:
            self.values.setdefault(rung, {})[lane.lane] = value
        return Verdict.PAUSE if new else Verdict.GO_ON

    def refill(self, runner: RunnerView) -> None:
        samples: dict[int, list[Lane]] = {}
        for lane in sorted(runner.lanes, key=lambda lane: lane.program):
            if not lane.over:
                samples.setdefault(lane.sample, []).append(lane)
        before: list[int] = []
        for sample, lanes in samples.items():
            if all(lane.status == "paused" for lane in lanes):
                verdict = self._verdict(sample, [lane.lane for lane in lanes], before)
                for lane in lanes:
                    if verdict is Verdict.GO_ON:
                        lane.status = "queued"
                    elif verdict is Verdict.PRUNE:
                        runner.end(lane, "pruned")
            if not all(lane.over for lane in lanes):
                before.append(sample)

    def _verdict(self, sample: int, lanes: Sequence[int], before: Sequence[int]) -> Verdict:
        """Judge a sample at all rungs that its `lanes` have reached and it was not judged at yet, in turn.

        It waits (PAUSE) at the first rung that has not judged all samples of `before`.
        """
        for rung in range(len(self.rungs)):
            arrived = [v for lane, v in sorted(self.values.get(rung, {}).items()) if lane in lanes]
            if not arrived or sample in (scored := self.means.get(rung, {})):
                continue
            if any(other not in scored for other in before):
                return Verdict.PAUSE
            scored = self.means.setdefault(rung, scored)
            scored[sample] = sum(arrived) / len(arrived)
            if not among_best(list(scored.values()), self.reduction_factor):
                return Verdict.PRUNE
        return Verdict.GO_ON

    def order(self, lane: Lane, work_left: float) -> float:
        return float(lane.env_steps)

    def state(self) -> dict[str, Any]:
        return {
            "values": sorted([r, lane, v] for r, at in self.values.items() for lane, v in at.items()),
            "means": [[r, sample, v] for r, at in self.means.items() for sample, v in at.items()],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.values, self.means = {}, {}
        for name, table in (("values", self.values), ("means", self.means)):
            for rung, key, value in state[name]:
                table.setdefault(rung, {})[key] = value


def rungs(marks: Sequence[int], reduction_factor: float | int, minimum: int = 0) -> list[int]:
    """The env steps of the rungs: `minimum` (the first mark if 0) · ηᵏ, each moved to the next mark.

    `marks` are the env steps, ascending, of the evaluations at which samples can be judged.
    """
    found: list[int] = []
    target: float = minimum or (marks[0] if marks else 1)
    while marks and target <= marks[-1]:
        mark = next(m for m in marks if m >= target)
        if mark not in found:
            found.append(mark)
        target *= reduction_factor
    return found


def among_best(scores: Sequence[float], reduction_factor: float | int) -> bool:
    """Whether the last of `scores` is among the best 1/η of them, or there are fewer than η."""
    if len(scores) < reduction_factor:
        return True
    return sum(s > scores[-1] for s in scores) < int(len(scores) / reduction_factor)
