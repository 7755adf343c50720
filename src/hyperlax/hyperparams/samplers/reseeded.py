"""An Optuna sampler that is seeded anew for every trial."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import optuna
from optuna.samplers import BaseSampler


class Reseeded(BaseSampler):
    """A sampler of Optuna that delegates every trial to a new sampler, `make(number of the trial)`.

    Draws thus depend on the study alone, not on which process draws or how often it was interrupted.
    """

    def __init__(self, make: Callable[[int], BaseSampler]):
        self.make = make
        self.inner = self._made(0)

    def _made(self, number: int) -> BaseSampler:
        """The sampler for a trial, built without warnings about experimental features."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return self.make(number)

    def before_trial(self, study: Any, trial: Any) -> None:
        self.inner = self._made(trial.number)
        self.inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
        return self.inner.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        return self.inner.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Any, trial: Any, param_name: Any, param_distribution: Any) -> Any:
        return self.inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
        self._made(trial.number).after_trial(study, trial, state, values)
