"""Optuna's search algorithms; nothing of Optuna is imported before a sampler is made."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, final

import equinox as eqx
import numpy as np
from beartype import beartype
from jaxtyping import jaxtyped

from hyperlax.hyperparams.fields import nearest
from hyperlax.hyperparams.samplers.base import AbstractSampler, Scores, Whole, score_rows, whole
from hyperlax.hyperparams.spaces import Space, resolved

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

NAME = "hyperlax_optuna_study"


def _tpe(seed: int, number: int) -> BaseSampler:
    from optuna.samplers import TPESampler

    return TPESampler(seed=_of(seed, number), constant_liar=True)


def _nsgaii(seed: int, number: int) -> BaseSampler:
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=_of(seed, number))


def _random(seed: int, number: int) -> BaseSampler:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=_of(seed, number))


def _qmc(seed: int, number: int) -> BaseSampler:
    from optuna.samplers import QMCSampler

    first = _random(seed, number)
    return QMCSampler(seed=seed, scramble=True, independent_sampler=first, warn_independent_sampling=False)


def _cmaes(seed: int, number: int) -> BaseSampler:
    from optuna.samplers import CmaEsSampler

    first = _random(seed, number)
    return CmaEsSampler(seed=_of(seed, number), independent_sampler=first, warn_independent_sampling=False)


def _gp(seed: int, number: int) -> BaseSampler:
    from optuna.samplers import GPSampler

    return GPSampler(seed=_of(seed, number))


ALGORITHMS: dict[str, Callable[[int, int], BaseSampler]] = {
    "tpe": _tpe,
    "nsgaii": _nsgaii,
    "random": _random,
    "qmc": _qmc,
    "cmaes": _cmaes,
    "gp": _gp,
}
"""Optuna's sampler of a trial by name, from the search's seed and the trial's number."""

_NEEDS = {"cmaes": "cmaes", "gp": "torch"}
_ONE_OBJECTIVE = ("cmaes",)


@final
@jaxtyped(typechecker=beartype)
class OptunaSampler(AbstractSampler):
    """Asks the algorithms of Optuna, by the names in `ALGORITHMS`.

    What was asked and told is kept in the study `study_name` of `storage` and not in the sampler, which only
    says where it is: a sampler that is restored goes on where the study stands. Every draw is seeded with the
    trial's number, so it depends on the study alone, not on the process that asks or on interruptions.

    - `storage`: an Optuna URL, a journal file, or an open storage; by default the memory of this process.
    - `directions`: maximize or minimize, one per objective.
    - `owner`: who asks, where several samplers share a study; only its own trials are this sampler's to tell.

    Each sample carries the number of its trial as `sample`.
    """

    space: Mapping[str, Space] = eqx.field(static=True)
    seed: Whole
    algorithm: str = eqx.field(static=True)
    study_name: str = eqx.field(static=True)
    storage: BaseStorage = eqx.field(static=True)
    directions: tuple[str, ...] = eqx.field(static=True)
    owner: str = eqx.field(static=True)
    chosen_by: ClassVar[str] = "search"

    def __init__(
        self,
        space: Mapping[str, Space],
        seed: int | np.integer = 0,
        *,
        algorithm: str = "tpe",
        study_name: str = NAME,
        storage: Any = None,
        directions: Sequence[str] = ("maximize",),
        owner: str = "",
    ):
        """Raises `ValueError` for an algorithm that is unknown or cannot be used, and for such a storage."""
        from optuna.storages import get_storage

        from hyperlax.hyperparams.samplers import storages

        check(algorithm, len(directions))
        self.space, self.seed, self.algorithm = dict(space), whole(seed), algorithm
        self.study_name, self.directions, self.owner = study_name, tuple(directions), owner
        opened = storages.storage(storage, None) if storage is None or isinstance(storage, str) else storage
        self.storage = get_storage(opened)  # a database behind a cache, which every use of the study shares

    def study(self, pruner: BasePruner | None = None) -> Study:
        """The study, made where there is none."""
        import optuna

        from hyperlax.hyperparams.samplers.reseeded import Reseeded

        make = lambda number: ALGORITHMS[self.algorithm](int(self.seed), number)  # noqa: E731
        about: dict[str, Any] = {
            "storage": self.storage,
            "study_name": self.study_name,
            "sampler": Reseeded(make),
            "pruner": pruner,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            try:
                return optuna.load_study(**about)
            except KeyError:
                directions = [optuna.study.StudyDirection[way.upper()] for way in self.directions]
                return optuna.create_study(**about, directions=directions, load_if_exists=True)

    def ask(self, n: int) -> tuple[OptunaSampler, list[dict[str, Any]]]:
        """This sampler, and the next `n` samples; trials that wait in the study come first."""
        if n < 1:
            raise ValueError(f"at least one sample is asked for, got {n}")
        study = self.study()
        numbers = [self._created(study).number for _ in range(n)]
        trials = study.get_trials(deepcopy=False)
        return self, [self.sample(trials[number]) for number in numbers]

    def tell(self, scores: Scores) -> OptunaSampler:
        """This sampler, the study told the `scores` of this owner's running trials, by number.

        See `AbstractSampler.tell`. A trial without a score (NaN) has failed.
        """
        waiting = self.waiting()
        told = score_rows(scores, len(waiting), len(self.directions))
        for number, values in zip(waiting, told, strict=False):
            self.conclude(number, values.tolist())
        return self

    def conclude(self, number: int, values: Sequence[float] | None) -> None:
        """Ends the trial of that number, whichever comes first: with its scores, or as pruned without any.

        Scores that are NaN make it a failed one. A trial that is over stays as it is.
        """
        from optuna.trial import TrialState

        if values is not None and np.isnan(values).any():
            self.study().tell(number, state=TrialState.FAIL, skip_if_finished=True)
            return
        state = TrialState.PRUNED if values is None else TrialState.COMPLETE
        self.study().tell(number, values, state, skip_if_finished=True)

    def waiting(self) -> list[int]:
        """Numbers of this owner's trials that were asked and not yet told, in order."""
        from optuna.trial import TrialState

        running = self.study().get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return sorted(t.number for t in running if t.user_attrs.get("owner", "") == self.owner)

    def sample(self, trial: FrozenTrial) -> dict[str, Any]:
        """The hyperparameters that the trial's parameters stand for, and its number as `sample`."""
        return {"sample": trial.number, **resolved(self.space, trial.params)}

    def _created(self, study: Study) -> Trial:
        """A trial with its owner's name from its first moment on, so that no crash leaves it without one.

        What `Study.ask` does, which can name it only afterwards; that is left for trials that were waiting.
        """
        import optuna
        from optuna.trial import TrialState

        distributions = {path: s.distribution() for path, s in self.space.items()}
        if study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            asked = study.ask(distributions)
            asked.set_user_attr("owner", self.owner)
            return asked
        study._thread_local.cached_all_trials = None
        named = optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs={"owner": self.owner})
        asked = optuna.Trial(study, self.storage.create_new_trial(study._study_id, named))
        for name, distribution in distributions.items():
            asked._suggest(name, distribution)
        return asked


def check(algorithm: str, objectives: int) -> None:
    """Raises `ValueError` for unknown algorithms, missing packages, and more objectives than one knows."""
    if algorithm not in ALGORITHMS:
        known = ", ".join(ALGORITHMS)
        raise ValueError(f'unknown sampler "{algorithm}"{nearest(algorithm, ALGORITHMS)}; known: {known}')
    needed = _NEEDS.get(algorithm)
    if needed is not None and importlib.util.find_spec(needed) is None:
        raise ValueError(
            f'the sampler {algorithm} needs {needed}: pip install "hyperlax[search]", or pip install {needed}'
        )
    if objectives > 1 and algorithm in _ONE_OBJECTIVE:
        raise ValueError(f"the sampler {algorithm} knows one objective only; take tpe, nsgaii or gp")


def _of(seed: int, number: int) -> int:
    """A seed that belongs to (the search's seed, trial number)."""
    return int(np.random.SeedSequence((seed % 2**32, number)).generate_state(1)[0] % 2**31)
