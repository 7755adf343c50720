"""A study as one of the processes sees it that may work on it: who trains what, and how many are left."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from hyperlax.hyperparams.samplers.optuna import OptunaSampler

log = logging.getLogger("hyperlax")

BEAT_SECONDS, STALE_SECONDS = 15.0, 600.0
"""How often a process says that it lives, and after what silence its trials are given to others."""
COUNTED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
"""States of trials that count towards the total: not those that were given up."""


@dataclass
class SharedStudy:
    """The study that the sampler asks, and the process that is the sampler's `owner`.

    `alone`: no other process can know the study, so that every trial is this one's.
    """

    sampler: OptunaSampler
    study: optuna.Study
    n_trials: int
    alone: bool = False
    beaten: float = 0.0

    @property
    def owner(self) -> str:
        """What this process is called in the study; its trials carry that as an attribute."""
        return self.sampler.owner

    def trials(self) -> list[FrozenTrial]:
        """Every trial of every process; not to be changed."""
        return self.study.get_trials(deepcopy=False)

    def trial(self, number: int) -> FrozenTrial:
        """The trial as the study knows it now."""
        return next(t for t in self.trials() if t.number == number)

    def ask(self) -> dict[str, Any] | None:
        """The next sample, its trial's number with it; None when the study has all it is to have.

        Of several processes that ask for the last one at the same time, the others give theirs up.
        """
        trials = self.trials()
        self._take_over(trials)
        if sum(t.state in COUNTED for t in trials) >= self.n_trials:
            return None
        self.sampler, (asked,) = self.sampler.ask(1)
        before = sum(t.state in COUNTED and t.number < asked["sample"] for t in self.trials())
        if before >= self.n_trials:
            self.study.tell(asked["sample"], state=TrialState.FAIL)
            return None
        return asked

    def told(self) -> list[Sequence[float]]:
        """The values of every trial that has been told some."""
        return [t.values for t in self.trials() if t.state is TrialState.COMPLETE and t.values]

    def tell(self, number: int, values: Sequence[float] | None, notes: Mapping[str, Any]) -> None:
        """Ends a trial with `values`, or as pruned without any; one that is over stays as it is."""
        trial = self.trial(number)
        try:
            for key, value in notes.items():
                self.sampler.storage.set_trial_user_attr(trial._trial_id, key, value)
            self.sampler.conclude(number, values)
        except UpdateFinishedTrialError:
            log.info("trial %d had been ended by another process", number)

    def prunes(self, number: int, step: int, score: float) -> bool:
        """Reports the score at that step and asks the pruner; what was decided once stays decided."""
        trial = self.trial(number)
        if trial.state.is_finished():
            return trial.state is TrialState.PRUNED and step >= (trial.last_step or 0)
        if step not in trial.intermediate_values:
            self.sampler.storage.set_trial_intermediate_value(trial._trial_id, step, score)
        return bool(self.study.pruner.prune(self.study, self.sampler.storage.get_trial(trial._trial_id)))

    def beat(self) -> None:
        """Says to the other processes that this one lives, now and then."""
        if time.time() - self.beaten > BEAT_SECONDS:
            self.beaten = time.time()
            self.study.set_user_attr(f"beat:{self.owner}", self.beaten)

    def missed(self, known: set[int]) -> list[dict[str, Any]]:
        """The samples of this process's trials beside the `known` ones, to be trained (again).

        Those of which not all parameters had been chosen are given up.
        """
        found = []
        for trial in sorted(self.trials(), key=lambda t: t.number):
            if trial.number in known or trial.state in (TrialState.FAIL, TrialState.WAITING):
                continue
            owner = trial.user_attrs.get("owner", self.owner if self.alone else None)
            refused = trial.state.is_finished() and trial.user_attrs.get("status") == "refused"
            if owner != self.owner or refused:
                continue
            if trial.params.keys() >= self.sampler.space.keys():
                found.append(self.sampler.sample(trial))
            else:
                self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        return found

    def _take_over(self, trials: Sequence[FrozenTrial]) -> None:
        """Gives up trials of processes long silent; they are asked again, before new ones."""
        now, beats = time.time(), self.study.user_attrs
        for trial in trials:
            owner = trial.user_attrs.get("owner")
            if trial.state is not TrialState.RUNNING or owner == self.owner:
                continue
            began = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
            if now - max(beats.get(f"beat:{owner}", 0.0), began) < STALE_SECONDS:
                continue
            self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            if trial.params.keys() >= self.sampler.space.keys():
                self.study.enqueue_trial(trial.params, user_attrs={"again": trial.number})
            log.warning("trial %d was left by a process that has stopped; it is trained again", trial.number)
