"""The search algorithms of Optuna, which is imported only when a sampler is built."""

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
from hyperlax.hyperparams.samplers.base import AbstractSampler, Scores, Whole, score_rows, seed_leaf
from hyperlax.hyperparams.spaces import Space, resolved
from hyperlax.lanes.keys import seed_words

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

NAME = "hyperlax_optuna_study"
"""The default name of a study."""


def _tpe(seed: int, number: int) -> BaseSampler:
    from optuna.samplers import TPESampler

    return TPESampler(seed=_seed_of(seed, number), constant_liar=True)


def _nsgaii(seed: int, number: int) -> BaseSampler:
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=_seed_of(seed, number))


def _random(seed: int, number: int) -> BaseSampler:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=_seed_of(seed, number))


def _qmc(seed: int, number: int) -> BaseSampler:
    from optuna.samplers import QMCSampler

    first = _random(seed, number)
    return QMCSampler(seed=seed, scramble=True, independent_sampler=first, warn_independent_sampling=False)


def _cmaes(seed: int, number: int) -> BaseSampler:
    from hyperlax.hyperparams.samplers.cma import DataOnlyCmaEs

    first = _random(seed, number)
    return DataOnlyCmaEs(
        seed=_seed_of(seed, number), independent_sampler=first, warn_independent_sampling=False
    )


def _gp(seed: int, number: int) -> BaseSampler:
    from optuna.samplers import GPSampler

    return GPSampler(seed=_seed_of(seed, number))


ALGORITHMS: dict[str, Callable[[int, int], BaseSampler]] = {
    "tpe": _tpe,
    "nsgaii": _nsgaii,
    "random": _random,
    "qmc": _qmc,
    "cmaes": _cmaes,
    "gp": _gp,
}
"""Name → function from the seed of the search and the number of a trial to a sampler of Optuna."""

UNGUIDED = ("random", "qmc")
"""The algorithms that do not learn from scores, so that their samples are random ones."""

_NEEDS = {"cmaes": "cmaes", "gp": "torch"}
"""Algorithm → the module that it needs."""
_ONE_OBJECTIVE = ("cmaes",)
"""The algorithms that support one objective only."""


@final
@jaxtyped(typechecker=beartype)
class OptunaSampler(AbstractSampler):
    """A sampler that uses an algorithm of Optuna, given by a name in `ALGORITHMS`.

    Samples and scores are stored in the study `study_name` of `storage`. The sampler only refers to it, so
    that a restored sampler continues from the current state of the study. Every draw is seeded with the
    number of its trial, so that it depends on the study alone, not on the process or on interruptions.

    - `storage`: an Optuna URL, a journal file, or an open storage; by default the memory of this process.
    - `directions`: maximize or minimize, one per objective.
    - `owner`: the name of this sampler if several share a study; it reports the scores of its own trials
      only.

    Each sample includes the number of its trial as `sample`.
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
        """Raise `ValueError` for an algorithm or a storage that is unknown or cannot be used."""
        from optuna.storages import get_storage

        from hyperlax.hyperparams.samplers import storages

        check(algorithm, len(directions))
        self.space, self.seed, self.algorithm = dict(space), seed_leaf(seed), algorithm
        self.study_name, self.directions, self.owner = study_name, tuple(directions), owner
        opened = storages.storage(storage, None) if storage is None or isinstance(storage, str) else storage
        self.storage = get_storage(opened)  # puts a cache in front of a database, for all uses of the study

    def study(self, pruner: BasePruner | None = None) -> Study:
        """Load the study, or create it if there is none; trials are pruned by `pruner`."""
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
        """Draw the next `n` samples; trials that wait in the study come first."""
        if n < 1:
            raise ValueError(f"at least one sample is asked for, got {n}")
        study = self.study()
        numbers = [self._created(study).number for _ in range(n)]
        trials = study.get_trials(deepcopy=False)
        return self, [self.sample(trials[number]) for number in numbers]

    def tell(self, scores: Scores) -> OptunaSampler:
        """Report the `scores` of running trials of this owner, ordered by number, to the study.

        See `AbstractSampler.tell`. A trial without a score (NaN) is marked as failed.
        """
        waiting = self.waiting()
        told = score_rows(scores, len(waiting), len(self.directions))
        for number, values in zip(waiting, told, strict=False):
            self.conclude(number, values.tolist())
        return self

    def conclude(self, number: int, values: Sequence[float] | None) -> None:
        """End the trial with this number, in any order: with scores, or as pruned if `values` is None.

        With a score that is NaN, it is marked as failed. A finished trial stays as it is.
        """
        from optuna.trial import TrialState

        if values is not None and np.isnan(values).any():
            self.study().tell(number, state=TrialState.FAIL, skip_if_finished=True)
            return
        state = TrialState.PRUNED if values is None else TrialState.COMPLETE
        self.study().tell(number, values, state, skip_if_finished=True)

    def waiting(self) -> list[int]:
        """The numbers of the running trials of this owner, in ascending order."""
        from optuna.trial import TrialState

        running = self.study().get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return sorted(t.number for t in running if t.user_attrs.get("owner", "") == self.owner)

    def sample(self, trial: FrozenTrial) -> dict[str, Any]:
        """The hyperparameters of a trial, decoded from its parameters, and its number as `sample`."""
        return {"sample": trial.number, **resolved(self.space, trial.params)}

    def complete(self, trial: FrozenTrial) -> FrozenTrial:
        """Finish what a killed process has begun to draw for a trial; return the trial."""
        from hyperlax.hyperparams.samplers.draft import draw

        draw(self.study(), trial, self._distributions())
        return self.storage.get_trial(trial._trial_id)

    def _distributions(self) -> dict[str, Any]:
        """The distributions of Optuna that the space stands for."""
        return {path: s.distribution() for path, s in self.space.items()}

    def _created(self, study: Study) -> Trial | FrozenTrial:
        """Create a trial that has its owner from the start, so that a crash cannot leave it without one.

        `Study.ask` can set the owner only afterwards; it is used for trials that wait in the study.
        """
        import optuna
        from optuna.trial import TrialState

        if study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            trial = study.ask(self._distributions())
            trial.set_user_attr("owner", self.owner)
            return trial
        template = optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs={"owner": self.owner})
        return self.complete(self.storage.get_trial(self.storage.create_new_trial(study._study_id, template)))


def check(algorithm: str, objectives: int) -> None:
    """Raise `ValueError` for an unknown algorithm, a missing package, or too many objectives."""
    if algorithm not in ALGORITHMS:
        known = f"known: {', '.join(ALGORITHMS)}"
        raise ValueError(f'unknown sampler "{algorithm}"{nearest(algorithm, ALGORITHMS, known)}')
    needed = _NEEDS.get(algorithm)
    if needed is not None and importlib.util.find_spec(needed) is None:
        raise ValueError(
            f"the sampler {algorithm} needs {needed}: pip install {needed}, or "
            'pip install ".[search]" in the checkout of hyperlax'
        )
    if objectives > 1 and algorithm in _ONE_OBJECTIVE:
        raise ValueError(f"the sampler {algorithm} knows one objective only; take tpe, nsgaii or gp")


def _seed_of(seed: int, number: int) -> int:
    """The seed of a trial, derived from the seed of the search and the number of the trial."""
    low, *high = seed_words(seed)
    return int(np.random.SeedSequence((low, number, *high)).generate_state(1)[0] % 2**31)
