"""Searches as schedules: trials of Optuna are samples, which are added when there is room for them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import polars as pl
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from hyperlax import leaving
from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.experiments import feasible
from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.samples import Lane
from hyperlax.hyperparams import assign, samplers, values
from hyperlax.hyperparams.samplers.optuna import OptunaSampler
from hyperlax.hyperparams.spaces import Space, without
from hyperlax.registry.limits import within
from hyperlax.schedules import RunnerView, Schedule, Verdict
from hyperlax.searches import outcome, studies
from hyperlax.searches.objectives import Objective, check
from hyperlax.searches.shared import SharedStudy

LIKELY = 64
"""Number of points of the space that programs are planned for."""
MOST_AT_ONCE = 8
"""Default limit of the number of trials in training at a time on CPUs."""
LANES_ON_ACCELERATORS = 64
"""Default number of lanes in training at a time on an accelerator."""
STUDY_SECONDS = 10.0
"""How long, in seconds, a search that was asked to stop waits for its study, which others may be holding."""


@dataclass(frozen=True)
class Search:
    """The options of a search, which are independent of the searched space.

    - `n_trials`: the total number of trials, over all processes of the study and all times it is resumed.
    - `objectives`: one or several, in which case the Pareto front is searched.
    - `sampler`, `pruner`: names of algorithms of Optuna.
    - `at_once`: the number of trials in training at a time; 0 for what suits the machine.
    - `study_name`: the name of the study in the storage.
    - `storage`: an Optuna URL or a journal file, shared by all processes of the study; by default a journal
      in the folder of the experiment, or memory if it has none.
    """

    n_trials: int = 100
    objectives: tuple[Objective, ...] = (Objective("final", "final"),)
    sampler: str = "tpe"
    pruner: str = "none"
    at_once: int = 0
    study_name: str = studies.NAME
    storage: str | None = None

    def __post_init__(self):
        for name in ("n_trials", "at_once"):
            object.__setattr__(self, name, within(name, getattr(self, name)))

    def describe(self) -> dict[str, Any]:
        """A JSON-ready description, without options that a resumed run may change and without credentials."""
        about = dataclasses.asdict(dataclasses.replace(self, objectives=()))
        for changeable in ("n_trials", "at_once", "storage"):
            del about[changeable]
        return {
            **about,
            "objectives": [o.name for o in self.objectives],
            "directions": [o.direction for o in self.objectives],
        }


@dataclass
class Trial:
    """A trial in training.

    - `start`: seconds since the experiment began.
    - `curves`: lane → the points (env steps, return) of its evaluations.
    - `step`: the number of the last milestone that the trial was judged at.
    - `why`: the reason for a refusal.
    """

    number: int
    start: float
    curves: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    step: int = 0
    over: str | None = None
    """Why its lanes stop early: pruned, diverged, failed, refused, or taken (by another process)."""
    why: str = ""


class OptunaSearch(Schedule):
    """A schedule that asks Optuna for trials, trains each with all seeds, and reports the objectives.

    If a lane of a trial diverges or fails, the trial gets the worst score (`Objective.worst`) and its other
    lanes stop. With a pruner, the lanes of a trial wait for one another at every evaluation; the trial is
    judged when the last one has arrived, and if it is pruned, all its lanes stop at once.
    """

    grows = True

    def __init__(self, search: Search):
        self.search = search
        self.at_once = search.at_once
        self.owner = ""
        self.takes_over = True
        self.space: dict[str, Space] = {}
        self.about: dict[str, Any] = {}
        self.identity: dict[str, Any] = {}
        self.storage: BaseStorage | None = None
        self.shared: SharedStudy | None = None
        self.active: dict[int, Trial] = {}
        self.lanes: dict[int, list[Lane]] = {}
        self.missed: deque[dict[str, Any]] = deque()
        self.journals: tuple[str, ...] = ()

    # Before it runs

    def attach(self, spec: Experiment) -> None:
        """Take space and settings from `spec`; raise `ValueError` if the search is impossible."""
        fixed = {path: value for path, value in values(spec.base).items() if path in spec.fixed}
        self.space = without(spec.recipe.search_space(), fixed)
        self.about = {"settings": dataclasses.asdict(spec.settings), "reference": spec.reference}
        evaluations = spec.settings.evaluations
        studies.check(self.search.sampler, self.search.pruner, len(self.search.objectives), evaluations)
        for objective in self.search.objectives:
            check(objective, self.about)
        if not self.space:
            raise ValueError(f"there is nothing to search: {spec.recipe_name} fixes every hyperparameter")
        self.identity = spec.identity()
        spec.check_lanes(self.trees_to_plan(spec), self.search.n_trials)

    def describe(self) -> dict[str, Any]:
        described = json.dumps({p: s.describe() for p, s in self.space.items()}, sort_keys=True, default=str)
        digest = hashlib.sha256(described.encode()).hexdigest()[:16]
        return {**self.search.describe(), "space": f"{len(self.space)} dimensions ({digest})"}

    def manifest(self) -> dict[str, Any]:
        """The options with the storage, without its password, and the name of this process in the study."""
        storage = studies.public(self.search.storage) if self.search.storage else None
        about = {**self.search.describe(), "n_trials": self.search.n_trials, "storage": storage}
        return {"search": {**about, "owner": self.owner}}

    @property
    def expected(self) -> int:
        return self.search.n_trials

    def trees_to_plan(self, experiment: Experiment) -> Sequence[AbstractAgentHyperparams]:
        """A space-filling design, which has samples of about the same sizes as the trials to come.

        Raises `ValueError` if none of them fits this machine.
        """
        rows = samplers.design(self.space, LIKELY, "qmc_sobol", experiment.settings.seed)
        trees = [assign(experiment.base, row) for row in rows]
        given = experiment.env, experiment.settings, experiment.room
        refusals = [feasible.refusal(tree, *given) for tree in trees]
        fitting = [tree for tree, why in zip(trees, refusals, strict=True) if why is None]
        if not fitting:
            raise ValueError(f"no sample of the space fits this machine: {refusals[0]}")
        return fitting

    # While it runs

    @property
    def study(self) -> SharedStudy:
        """The study; available from `begin` on."""
        assert self.shared is not None, "the search has not begun"
        return self.shared

    @leaving.moment(leaving.RESUMABLE, patience=STUDY_SECONDS)
    def begin(self, runner: RunnerView) -> None:
        spec, search, store = runner.experiment, self.search, runner.recorder.store
        journal = None if store is None else store.folder / studies.JOURNAL
        self.journals = (studies.JOURNAL,) if search.storage is None and store is not None else ()
        self.at_once = search.at_once or self.at_once or _room(runner)
        self.storage = self.storage or studies.storage(search.storage, journal)
        sampler = OptunaSampler(
            self.space,
            spec.settings.seed,
            algorithm=search.sampler,
            study_name=search.study_name,
            storage=self.storage,
            directions=[o.direction for o in search.objectives],
            owner=self.owner,
        )
        study = studies.opened(sampler, search.pruner, spec.settings.evaluations, self.identity)
        alone = search.storage is None
        self.shared = SharedStudy(sampler, study, search.n_trials, alone, self.takes_over)
        for lane in runner.lanes:
            self.lanes.setdefault(lane.sample, []).append(lane)
        self.study.beat()
        self._reconcile(runner)

    @leaving.moment(leaving.RESUMABLE, patience=STUDY_SECONDS)
    def refill(self, runner: RunnerView) -> None:
        self.study.beat()
        for trial in list(self.active.values()):
            for lane in [lane for lane in self.lanes[trial.number] if not lane.over]:
                if trial.over:
                    runner.end(lane, "pruned")
                elif lane.status == "paused" and self._passed(trial, lane) <= trial.step:
                    lane.status = "queued"
        while len(self.active) < self.at_once and (sample := self._next(runner)) is not None:
            self._enter(runner, sample)

    @leaving.moment(leaving.RESUMABLE, patience=STUDY_SECONDS)
    def judge(self, runner: RunnerView, lane: Lane, value: float) -> Verdict:
        trial = self.active[lane.sample]
        trial.curves.setdefault(lane.lane, []).append((lane.env_steps, value))
        if trial.over:
            return Verdict.PRUNE
        step = self._milestone(lane.env_steps)
        if self.search.pruner == "none" or step <= trial.step:
            return Verdict.GO_ON
        others = [o for o in self.lanes[lane.sample] if o is not lane and not o.over]
        if any(self._milestone(o.env_steps) < step for o in others):
            return Verdict.PAUSE
        if any(self._passed(trial, o) < step for o in others):
            return Verdict.GO_ON  # evaluated with this one, judged when the last of them comes
        trial.step = step
        score = self._scores(trial)[0]
        if score == score and self.study.prunes(trial.number, step, score):
            trial.over = "pruned"
            return Verdict.PRUNE
        return Verdict.GO_ON

    @leaving.moment(leaving.RESUMABLE, patience=STUDY_SECONDS)
    def ended(self, runner: RunnerView, lane: Lane) -> None:
        trial = self.active.get(lane.sample)
        if trial is None:
            return
        if lane.status == "done":
            trial.curves.setdefault(lane.lane, []).append((lane.env_steps, runner.last_return[lane.lane]))
        elif lane.status in ("diverged", "failed"):
            trial.over = trial.over or lane.status
        if all(other.over for other in self.lanes[lane.sample]):
            self._conclude(runner, trial)

    def order(self, lane: Lane, work_left: float) -> float:
        """Earlier trials first, so that the next ones can be chosen from their results."""
        return float(lane.sample)

    def state(self) -> dict[str, Any]:
        return {
            "active": [dataclasses.asdict(trial) for trial in self.active.values()],
            "at_once": self.at_once,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.at_once = state.get("at_once", self.at_once)
        for about in state["active"]:
            curves = {int(lane): [(s, v) for s, v in curve] for lane, curve in about.pop("curves").items()}
            self.active[about["number"]] = Trial(**about, curves=curves)

    def tables(self) -> dict[str, pl.DataFrame]:
        study, objectives = self.study.study, self.search.objectives
        return {"trials": outcome.trials_table(study, self.space, objectives, self.about)}

    def files(self) -> Sequence[str]:
        return self.journals

    # Trials

    def _next(self, runner: RunnerView) -> dict[str, Any] | None:
        """The sample of the next trial: one the folder has missed, or a new one; None at the end.

        When the study is full, it looks again for what is missed: a process that was believed dead may have
        begun trials in the name of this one, which has taken over.
        """
        if not self.missed and (sample := self.study.ask()) is not None:
            return sample
        if not self.missed and not self.study.alone:
            self.missed.extend(self.study.missed(set(runner.experiment.records)))
        return self.missed.popleft() if self.missed else None

    def _enter(self, runner: RunnerView, sample: Mapping[str, Any]) -> None:
        """Start to train the sample of a trial; one that does not fit this machine gets the worst score."""
        trial = Trial(sample["sample"], runner.now())
        try:
            lanes = runner.admit(sample)
        except ValueError as error:
            trial.over, trial.why = "refused", str(error)
            self._conclude(runner, trial)
            return
        self.lanes[trial.number], self.active[trial.number] = lanes, trial

    def _conclude(self, runner: RunnerView, trial: Trial) -> None:
        """Report the result of a trial to the study, unless the study already has one."""
        self.active.pop(trial.number, None)
        if not self.study.trial(trial.number).state.is_finished():
            scores = self._scores(trial)
            status = trial.over or ("done" if all(s == s for s in scores) else "undefined")
            values = None if status == "pruned" else scores if status == "done" else self._worst()
            notes = {"status": status, "seconds": [trial.start, runner.now()], "why": trial.why}
            if status == "done":
                notes["curves"] = list(trial.curves.values())
            self.study.tell(trial.number, values, notes)
        self._show(runner)

    def _scores(self, trial: Trial) -> list[float]:
        """The values of the objectives, NaN while undefined."""
        curves = list(trial.curves.values())
        return [objective.score(curves, self.about) for objective in self.search.objectives]

    def _worst(self) -> list[float]:
        """The values that a trial without scores gets."""
        told = self.study.told()
        return [o.worst(self.about, [v[i] for v in told]) for i, o in enumerate(self.search.objectives)]

    def _reconcile(self, runner: RunnerView) -> None:
        """Bring the run in line with the study, which may be ahead of the checkpoint after an interruption.

        Trials that were started after the checkpoint are trained again under their numbers, when the search
        would ask for them. This includes finished ones, so that the folder holds every trial; the study keeps
        their results.
        Raises `ValueError` if the study lacks a trial of the checkpoint.
        """
        trials = {t.number: t for t in self.study.trials()}
        if lost := sorted(self.active.keys() - trials.keys()):
            raise ValueError(f"the study {self.search.study_name} has lost trial {lost[0]} of this folder")
        for trial in self.active.values():
            if trials[trial.number].state is TrialState.FAIL:
                trial.over = "taken"
        self.missed.extend(self.study.missed(set(runner.experiment.records)))

    def _show(self, runner: RunnerView) -> None:
        """Show the progress of the search."""
        objectives = self.search.objectives
        table = outcome.trials_table(self.study.study, self.space, objectives)
        over = table.filter(table["state"].is_in(outcome.ENDED)).height
        runner.progress.searched(over, self.search.n_trials, outcome.best_words(table, objectives))

    # Milestones

    def _milestone(self, env_steps: int) -> int:
        """The number of evaluations that are due by `env_steps`, not counting one before training."""
        total, count = self.about["settings"]["total_timesteps"], self.about["settings"]["evaluations"]
        return count if env_steps >= total else min(env_steps // max(total // count, 1), count - 1)

    def _passed(self, trial: Trial, lane: Lane) -> int:
        """The number of evaluations that the lane has completed."""
        curve = trial.curves.get(lane.lane)
        return self._milestone(curve[-1][0]) if curve else 0


def _room(runner: RunnerView) -> int:
    """The number of trials that keep all slots busy; one more than fit, as seeds may end one by one."""
    devices, seeds = jax.local_devices(), runner.experiment.settings.seeds
    if devices[0].platform != "cpu":
        return -(-(runner.how.lanes_at_once or LANES_ON_ACCELERATORS) // seeds)
    slots = min(len(devices), runner.how.lanes_at_once or len(devices))
    return min(-(-slots // seeds) * max(len(runner.programs), 1) + 1, MOST_AT_ONCE)
