"""Optuna studies: samplers and pruners by name, and where trials are kept."""

from __future__ import annotations

import importlib.util
import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna import pruners, samplers, storages
from optuna.samplers import BaseSampler
from optuna.storages import journal

from hyperlax.hyperparams import nearest

NAME = "hyperlax_optuna_study"
JOURNAL = "study.journal"
IDENTITY = "hyperlax"
"""User attribute of a study that says which experiment it belongs to."""


def _tpe(seed: int, number: int) -> BaseSampler:
    return samplers.TPESampler(seed=_of(seed, number), constant_liar=True)


def _nsgaii(seed: int, number: int) -> BaseSampler:
    return samplers.NSGAIISampler(seed=_of(seed, number))


def _random(seed: int, number: int) -> BaseSampler:
    return samplers.RandomSampler(seed=_of(seed, number))


def _qmc(seed: int, number: int) -> BaseSampler:
    first = samplers.RandomSampler(seed=_of(seed, number))
    return samplers.QMCSampler(
        seed=seed, scramble=True, independent_sampler=first, warn_independent_sampling=False
    )


def _cmaes(seed: int, number: int) -> BaseSampler:
    first = samplers.RandomSampler(seed=_of(seed, number))
    return samplers.CmaEsSampler(
        seed=_of(seed, number), independent_sampler=first, warn_independent_sampling=False
    )


def _gp(seed: int, number: int) -> BaseSampler:
    return samplers.GPSampler(seed=_of(seed, number))


SAMPLERS: dict[str, Callable[[int, int], BaseSampler]] = {
    "tpe": _tpe,
    "nsgaii": _nsgaii,
    "random": _random,
    "qmc": _qmc,
    "cmaes": _cmaes,
    "gp": _gp,
}
"""Sampler of a trial by name, from the experiment's seed and the trial's number."""

_NEEDS = {"cmaes": "cmaes", "gp": "torch"}
_ONE_OBJECTIVE = ("cmaes",)

PRUNERS: dict[str, Callable[[int], pruners.BasePruner]] = {
    "none": lambda evaluations: pruners.NopPruner(),
    "median": lambda evaluations: pruners.MedianPruner(n_startup_trials=5),
    "hyperband": lambda evaluations: pruners.HyperbandPruner(1, evaluations, reduction_factor=3),
    "asha": lambda evaluations: pruners.SuccessiveHalvingPruner(1, reduction_factor=3),
}
"""Pruner by name, for lanes with that many evaluations; its steps are evaluations, from 1."""


class Reseeded(BaseSampler):
    """A sampler made anew for every trial, seeded with the trial's number.

    What is drawn then hangs on the study alone, not on which process draws or how often it was interrupted.
    """

    def __init__(self, name: str, seed: int):
        self.name, self.seed = name, seed
        self.inner = self._made(0)

    def _made(self, number: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return SAMPLERS[self.name](self.seed, number)

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


def check(sampler: str, pruner: str, objectives: int, evaluations: int) -> None:
    """Raises `ValueError` for unknown names, missing packages, and what cannot go together."""
    for kind, name, known in (("sampler", sampler, SAMPLERS), ("pruner", pruner, PRUNERS)):
        if name not in known:
            raise ValueError(f'unknown {kind} "{name}"{nearest(name, known)}; known: {", ".join(known)}')
    needed = _NEEDS.get(sampler)
    if needed is not None and importlib.util.find_spec(needed) is None:
        raise ValueError(
            f'the sampler {sampler} needs {needed}: pip install "hyperlax[search]", or pip install {needed}'
        )
    if objectives > 1 and sampler in _ONE_OBJECTIVE:
        raise ValueError(f"the sampler {sampler} knows one objective only; take tpe, nsgaii or gp")
    if objectives > 1 and pruner != "none":
        raise ValueError(f"with several objectives nothing can be pruned: --pruner none, not {pruner}")
    if pruner != "none" and evaluations < 2:
        raise ValueError(
            f"the pruner {pruner} decides at evaluations before the last, the run has {evaluations}: "
            "--set evaluations=4, or --pruner none"
        )


def storage(url: str | None, own: Path | None) -> storages.BaseStorage:
    """The storage at an Optuna URL or in a journal file; without either, the journal `own` or memory.

    Raises `ValueError` when it cannot be reached, or its driver is missing.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if url is None:
        return storages.InMemoryStorage() if own is None else _journal(own)
    if "://" not in url:
        if url.endswith((".db", ".sqlite", ".sqlite3")):
            raise ValueError(f"for SQLite write --storage sqlite:///{url}; a plain path is a journal file")
        return _journal(Path(url))
    try:
        if url.startswith("redis"):
            backend = journal.JournalRedisBackend(url)
            return storages.JournalStorage(backend)
        return _database(url)
    except ImportError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f'the driver for {public(url)} is missing: pip install "hyperlax[search]" brings that for '
            f"PostgreSQL ({reason})"
        ) from None
    except Exception as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ValueError(f"the storage {public(url)} cannot be used: {reason}") from None


def _database(url: str) -> storages.BaseStorage:
    """Several processes may find the database empty and make its tables: all but one fail, and try again."""
    for attempt in range(4):
        try:
            return storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
        except Exception as error:
            from sqlalchemy.exc import IntegrityError, ProgrammingError

            raced = isinstance(error, IntegrityError | ProgrammingError) or "already exists" in str(error)
            if not raced or attempt == 3:
                raise
        time.sleep(0.5 * (attempt + 1))
    raise AssertionError("unreachable")


def close(where: storages.BaseStorage | None) -> None:
    """Closes the connections to a database."""
    if isinstance(where, storages.RDBStorage):
        where.remove_session()
        where.engine.dispose()


def _journal(path: Path) -> storages.BaseStorage:
    """A journal file; what a killed process has left of a line is removed, or the next would run into it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = journal.JournalFileOpenLock(str(path))
    if path.exists() and not _ends_in_a_line(path):
        lock.acquire()
        try:
            data = path.read_bytes()
            with path.open("r+b") as file:
                file.truncate(data.rfind(b"\n") + 1)
        finally:
            lock.release()
    return storages.JournalStorage(journal.JournalFileBackend(str(path), lock_obj=lock))


def _ends_in_a_line(path: Path) -> bool:
    data = path.read_bytes()
    return not data or data.endswith(b"\n")


def public(url: str) -> str:
    """`url` without its password."""
    scheme, separator, rest = url.partition("://")
    credentials, at, place = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    return f"{scheme}{separator}{user}{':***' if colon else ''}{at}{place}" if at else url


def exists(where: storages.BaseStorage, name: str) -> bool:
    """Whether the storage has a study of that name."""
    try:
        where.get_study_id_from_name(name)
    except KeyError:
        return False
    return True


def stored_identity(where: storages.BaseStorage, name: str) -> dict[str, Any]:
    """Which experiment the study of that name belongs to; empty where hyperlax has not made it."""
    attributes = where.get_study_user_attrs(where.get_study_id_from_name(name))
    return json.loads(attributes.get(IDENTITY, "{}"))


def opened(
    where: storages.BaseStorage,
    name: str,
    directions: Sequence[Any],
    sampler: str,
    pruner: str,
    seed: int,
    evaluations: int,
    identity: Mapping[str, Any],
) -> optuna.Study:
    """The study of that name, made where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            storage=where,
            study_name=name,
            directions=list(directions),
            sampler=Reseeded(sampler, seed),
            pruner=PRUNERS[pruner](evaluations),
            load_if_exists=True,
        )
    if IDENTITY not in study.user_attrs:
        study.set_user_attr(IDENTITY, json.dumps(identity, default=str))
    return study


def _of(seed: int, number: int) -> int:
    """A seed that belongs to (experiment's seed, trial number)."""
    return int(np.random.SeedSequence((seed % 2**32, number)).generate_state(1)[0] % 2**31)
