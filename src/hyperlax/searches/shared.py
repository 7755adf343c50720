"""A study as one of the processes sees it that may work on it: who trains what, and how many are left."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

log = logging.getLogger("hyperlax")

BEAT_SECONDS, STALE_SECONDS = 15.0, 600.0
"""How often a process says that it lives, and after what silence its trials are given to others."""
COUNTED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
"""States of trials that count towards the total: not those that were given up."""


@dataclass
class SharedStudy:
    """The study, and the process that calls itself `owner`; its trials carry that as an attribute.

    `alone`: no other process can know the study, so that every trial is this one's.
    """

    study: optuna.Study
    storage: BaseStorage
    owner: str
    distributions: dict[str, BaseDistribution]
    n_trials: int
    alone: bool = False
    beaten: float = 0.0

    def trials(self) -> list[FrozenTrial]:
        """Every trial of every process; not to be changed."""
        return self.study.get_trials(deepcopy=False)

    def trial(self, number: int) -> FrozenTrial:
        """The trial as the study knows it now."""
        return next(t for t in self.trials() if t.number == number)

    def ask(self) -> FrozenTrial | None:
        """The next trial, its parameters chosen; None when the study has all it is to have.

        Of several processes that ask for the last one at the same time, the others give theirs up.
        """
        trials = self.trials()
        self._take_over(trials)
        if sum(t.state in COUNTED for t in trials) >= self.n_trials:
            return None
        asked = self._created(waiting=any(t.state is TrialState.WAITING for t in trials))
        before = sum(t.state in COUNTED and t.number < asked.number for t in self.trials())
        if before >= self.n_trials:
            self.study.tell(asked, state=TrialState.FAIL)
            return None
        return self.trial(asked.number)

    def told(self) -> list[Sequence[float]]:
        """The values of every trial that has been told some."""
        return [t.values for t in self.trials() if t.state is TrialState.COMPLETE and t.values]

    def tell(self, number: int, values: Sequence[float] | None, notes: Mapping[str, Any]) -> None:
        """Ends a trial with `values`, or as pruned without any; one that is over stays as it is."""
        trial = self.trial(number)
        try:
            for key, value in notes.items():
                self.storage.set_trial_user_attr(trial._trial_id, key, value)
            state = TrialState.PRUNED if values is None else TrialState.COMPLETE
            self.study.tell(number, values, state, skip_if_finished=True)
        except UpdateFinishedTrialError:
            log.info("trial %d had been ended by another process", number)

    def prunes(self, number: int, step: int, score: float) -> bool:
        """Reports the score at that step and asks the pruner; what was decided once stays decided."""
        trial = self.trial(number)
        if trial.state.is_finished():
            return trial.state is TrialState.PRUNED and step >= (trial.last_step or 0)
        if step not in trial.intermediate_values:
            self.storage.set_trial_intermediate_value(trial._trial_id, step, score)
        return bool(self.study.pruner.prune(self.study, self.storage.get_trial(trial._trial_id)))

    def beat(self) -> None:
        """Says to the other processes that this one lives, now and then."""
        if time.time() - self.beaten > BEAT_SECONDS:
            self.beaten = time.time()
            self.study.set_user_attr(f"beat:{self.owner}", self.beaten)

    def missed(self, known: set[int]) -> list[FrozenTrial]:
        """This process's trials beside the `known` ones, to be trained (again) under their numbers.

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
            if trial.params.keys() >= self.distributions.keys():
                found.append(trial)
            else:
                self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        return found

    def _created(self, waiting: bool) -> optuna.Trial:
        """A trial with its owner's name from its first moment on, so that no crash leaves it without one.

        What `Study.ask` does, which can name it only afterwards; that is left for trials that were waiting.
        """
        if waiting:
            asked = self.study.ask(self.distributions)
            asked.set_user_attr("owner", self.owner)
            return asked
        self.study._thread_local.cached_all_trials = None
        named = optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs={"owner": self.owner})
        asked = optuna.Trial(self.study, self.storage.create_new_trial(self.study._study_id, named))
        for name, distribution in self.distributions.items():
            asked._suggest(name, distribution)
        return asked

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
            if trial.params.keys() >= self.distributions.keys():
                self.study.enqueue_trial(trial.params, user_attrs={"again": trial.number})
            log.warning("trial %d was left by a process that has stopped; it is trained again", trial.number)
