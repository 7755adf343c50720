"""Drafts of trials: what Optuna would write for a trial, kept apart so that it can be written as a whole."""

from __future__ import annotations

import copy
from collections.abc import Container, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

DRAWN = "hyperlax:drawn"
"""The system attribute of a trial that holds what was drawn for it, written before anything else of it."""
VERDICT = "hyperlax:verdict"
"""The system attribute of a trial that holds what its pruner decided last, likewise."""


class Draft(BaseStorage):
    """A view of a storage in which samplers and pruners may write to one trial without changing the storage.

    `trial` is that trial as the draft has it, and `of_study` the system attributes of its study that were
    written. Everything else is read from `base`, and cannot be written.
    """

    def __init__(self, base: BaseStorage, trial: FrozenTrial, blank: bool = False):
        """Start from a copy of `trial`; without parameters and system attributes if it is to be `blank`."""
        self.base, self.trial = base, copy.deepcopy(trial)
        self.of_study: dict[str, Any] = {}
        if blank:
            self.trial._distributions, self.trial.params, self.trial.system_attrs = {}, {}, {}
        self.before = dict(self.trial.system_attrs)

    def of_trial(self) -> dict[str, Any]:
        """The system attributes of the trial that were written."""
        now = self.trial.system_attrs
        return {k: v for k, v in now.items() if k not in self.before or self.before[k] != v}

    def study(self, study: optuna.Study) -> optuna.Study:
        """`study` as the draft shows it."""
        return optuna.Study(study.study_name, self, study.sampler, study.pruner)

    # What may be written

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float | int,
        distribution: BaseDistribution,
    ) -> None:
        self._own(trial_id)._distributions[param_name] = distribution
        self.trial.params[param_name] = distribution.to_external_repr(param_value_internal)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._own(trial_id).system_attrs[key] = value

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float | int) -> None:
        self._own(trial_id).intermediate_values[step] = intermediate_value

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self.of_study[key] = value

    def _own(self, trial_id: int) -> FrozenTrial:
        if trial_id != self.trial._trial_id:
            self._refuse()
        return self.trial

    # What is read

    def get_study_id_from_name(self, study_name: str) -> int:
        return self.base.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self.base.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self.base.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self.base.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return {**self.base.get_study_system_attrs(study_id), **self.of_study}

    def get_all_studies(self) -> list[FrozenStudy]:
        return self.base.get_all_studies()

    def get_trial(self, trial_id: int) -> FrozenTrial:
        own = trial_id == self.trial._trial_id
        return copy.deepcopy(self.trial) if own else self.base.get_trial(trial_id)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = self.base.get_all_trials(study_id, deepcopy=deepcopy)
        own = copy.deepcopy(self.trial) if deepcopy else self.trial
        trials = [own if t._trial_id == own._trial_id else t for t in trials]
        return [t for t in trials if states is None or t.state in states]

    # What may not be written

    def _refuse(self) -> None:
        raise RuntimeError("a draft is of one trial; nothing else can be written to it")

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        raise RuntimeError("a draft creates no study")

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        raise RuntimeError("a draft creates no trial")

    def delete_study(self, study_id: int) -> None:
        self._refuse()

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._refuse()

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._refuse()

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        raise RuntimeError("a draft ends no trial")


def draw(study: optuna.Study, trial: FrozenTrial, space: dict[str, BaseDistribution]) -> None:
    """Draw the parameters of a trial that has been created, or finish what a killed process has begun of it.

    What is drawn is first written to the trial as a whole. A killed process therefore leaves a trial for
    which either nothing has been drawn, so that the same is drawn now, or everything.
    """
    storage, number = study._storage, trial._trial_id
    drawn = trial.system_attrs.get(DRAWN)
    if drawn is None:
        draft = Draft(storage, trial, blank=True)
        asked = optuna.Trial(draft.study(study), number)
        for name, distribution in space.items():
            asked._suggest(name, distribution)
        chosen = {name: space[name].to_internal_repr(value) for name, value in draft.trial.params.items()}
        drawn = {"params": chosen, "trial": draft.of_trial(), "study": draft.of_study}
        storage.set_trial_system_attr(number, DRAWN, drawn)
    for name, value in drawn["params"].items():
        if name not in trial.params:
            storage.set_trial_param(number, name, value, space[name])
    for key, value in drawn["trial"].items():
        storage.set_trial_system_attr(number, key, value)
    for key, value in drawn["study"].items():
        storage.set_study_system_attr(study._study_id, key, value)


def prunes(study: optuna.Study, trial: FrozenTrial, step: int, score: float | int) -> bool:
    """Report the score of a running trial at a step, and return whether the pruner of the study stops it.

    The verdict is first written to the trial, together with all that belongs to it. Asked again after an
    interruption, the answer is therefore the same, whatever the study has learned since.
    """
    storage, number = study._storage, trial._trial_id
    verdict = trial.system_attrs.get(VERDICT)
    if verdict is None or verdict["step"] < step:
        draft = Draft(storage, trial)
        draft.set_trial_intermediate_value(number, step, score)
        stops = bool(study.pruner.prune(draft.study(study), draft.get_trial(number)))
        verdict = {"step": step, "score": score, "stops": stops, "trial": draft.of_trial()}
        storage.set_trial_system_attr(number, VERDICT, verdict)
    if verdict["step"] > step:
        return False
    storage.set_trial_intermediate_value(number, step, verdict["score"])
    for key, value in verdict["trial"].items():
        storage.set_trial_system_attr(number, key, value)
    return verdict["stops"]
