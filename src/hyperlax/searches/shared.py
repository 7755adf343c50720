"""Studies that several processes work on: which process trains which trial, and how many are left."""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from hyperlax.hyperparams.samplers.draft import prunes
from hyperlax.hyperparams.samplers.optuna import OptunaSampler

log = logging.getLogger("hyperlax")

BEAT_SECONDS, STALE_SECONDS = 15.0, 600.0
"""Seconds between signs of life of a process, and silence after which others take over its trials."""
COUNTED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
"""The states of trials that count towards the total; trials that were given up do not."""


@dataclass
class SharedStudy:
    """A study as seen by one of the processes that work on it.

    - `sampler`: the sampler of this process.
    - `n_trials`: the total number of trials, over all processes.
    - `alone`: whether no other process can have access to the study.
    - `takes_over`: whether it takes over the trials of processes that are silent for long.
    - `beaten`: when this process last gave a sign of life, on its monotonic clock.
    - `heard`: process → its last sign of life, and when this process saw that first, on its own clock. The
      clocks of two machines are never compared.
    """

    sampler: OptunaSampler
    study: optuna.Study
    n_trials: int
    alone: bool = False
    takes_over: bool = True
    beaten: float = -math.inf
    heard: dict[str, tuple[Any, float]] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        """The name of this process in the study, which its trials have as an attribute."""
        return self.sampler.owner

    def trials(self) -> list[FrozenTrial]:
        """The trials of all processes, which must not be modified."""
        return self.study.get_trials(deepcopy=False)

    def trial(self, number: int) -> FrozenTrial:
        """The current state of the trial with this number."""
        return next(t for t in self.trials() if t.number == number)

    def ask(self) -> dict[str, Any] | None:
        """Ask for the next sample, which includes its trial number; None if the study has all its trials.

        If several processes ask for the last trial at the same time, all but one give theirs up.
        """
        trials = self.trials()
        self._take_over(trials)
        if sum(t.state in COUNTED for t in trials) >= self.n_trials:
            return None
        self.sampler, (sample,) = self.sampler.ask(1)
        before = sum(t.state in COUNTED and t.number < sample["sample"] for t in self.trials())
        if before >= self.n_trials:
            self.study.tell(sample["sample"], state=TrialState.FAIL)
            return None
        return sample

    def told(self) -> list[Sequence[float]]:
        """The values of all trials that have been completed."""
        return [t.values for t in self.trials() if t.state is TrialState.COMPLETE and t.values]

    def tell(self, number: int, values: Sequence[float] | None, notes: Mapping[str, Any]) -> None:
        """End a trial with `values`, or as pruned if they are None; a finished trial stays as it is.

        `notes` become attributes of the trial.
        """
        trial = self.trial(number)
        try:
            for key, value in notes.items():
                self.sampler.storage.set_trial_user_attr(trial._trial_id, key, value)
            self.sampler.conclude(number, values)
        except UpdateFinishedTrialError:
            log.info("trial %d had been ended by another process", number)

    def prunes(self, number: int, step: int, score: float) -> bool:
        """Report the score at a step and return whether the trial is to be pruned; decisions are final."""
        trial = self.trial(number)
        if trial.state.is_finished():
            return trial.state is TrialState.PRUNED and step >= (trial.last_step or 0)
        return prunes(self.study, trial, step, score)

    def beat(self) -> None:
        """Give other processes a sign of life, if one is due."""
        if time.monotonic() - self.beaten > BEAT_SECONDS:
            self.beaten = time.monotonic()
            self.study.set_user_attr(f"beat:{self.owner}", uuid.uuid4().hex)

    def missed(self, known: set[int]) -> list[dict[str, Any]]:
        """The samples of those trials of this process that are not `known`, so that they can be trained.

        They are ordered by number. For one that was created last, what belongs to it may still be missing.
        """
        found, trials = [], sorted(self.trials(), key=lambda t: t.number)
        for trial in trials:
            if trial.number in known or trial.state in (TrialState.FAIL, TrialState.WAITING):
                continue
            owner = trial.user_attrs.get("owner", self.owner if self.alone else None)
            refused = trial.state.is_finished() and trial.user_attrs.get("status") == "refused"
            if owner != self.owner or refused:
                continue
            whole = trial.params.keys() >= self.sampler.space.keys()
            if not whole or (trial is trials[-1] and not trial.state.is_finished()):
                trial = self.sampler.complete(trial)
            found.append(self.sampler.sample(trial))
        return found

    def _take_over(self, trials: Sequence[FrozenTrial]) -> None:
        """Give up the trials of processes that have been silent for long, and queue their samples again.

        A process is silent while this one sees no sign of life of it, and no trial that it has begun.
        """
        if not self.takes_over:
            return
        now, beats = time.monotonic(), self.study.user_attrs
        newest = {t.user_attrs.get("owner", ""): t.number for t in trials}
        for trial in trials:
            owner = trial.user_attrs.get("owner", "")
            if trial.state is not TrialState.RUNNING or owner == self.owner:
                continue
            sign = (beats.get(f"beat:{owner}"), newest[owner])
            if self.heard.get(owner, (None, 0.0))[0] != sign:
                self.heard[owner] = (sign, now)
            if now - self.heard[owner][1] < STALE_SECONDS:
                continue
            self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            if trial.params.keys() >= self.sampler.space.keys():
                self.study.enqueue_trial(trial.params, user_attrs={"again": trial.number})
            log.warning("trial %d was left by a process that has stopped; it is trained again", trial.number)
