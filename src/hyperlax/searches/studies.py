"""Studies of searches: the pruners by name, and the experiment that a study belongs to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna import pruners, storages

from hyperlax.hyperparams import nearest
from hyperlax.hyperparams.samplers import optuna as algorithms
from hyperlax.hyperparams.samplers.optuna import NAME, OptunaSampler
from hyperlax.hyperparams.samplers.storages import close, public
from hyperlax.hyperparams.samplers.storages import storage as _storage
from hyperlax.storage.patience import waiting_for_room

__all__ = [
    "IDENTITY",
    "JOURNAL",
    "NAME",
    "PRUNERS",
    "check",
    "close",
    "exists",
    "is_blank",
    "opened",
    "public",
    "storage",
    "stored_identity",
]

JOURNAL = "study.journal"
"""Name of the journal file in the folder of an experiment."""
IDENTITY = "hyperlax"
"""The user attribute of a study that holds the identity of its experiment."""

PRUNERS: dict[str, Callable[[int], pruners.BasePruner]] = {
    "none": lambda evaluations: pruners.NopPruner(),
    "median": lambda evaluations: pruners.MedianPruner(n_startup_trials=5),
    "hyperband": lambda evaluations: pruners.HyperbandPruner(1, evaluations, reduction_factor=3),
    "asha": lambda evaluations: pruners.SuccessiveHalvingPruner(1, reduction_factor=3),
}
"""Name → function from the number of evaluations of a lane to a pruner, whose steps are evaluations."""


def check(sampler: str, pruner: str, objectives: int, evaluations: int) -> None:
    """Raise `ValueError` for unknown names, missing packages, and options that cannot be combined."""
    algorithms.check(sampler, objectives)
    if pruner not in PRUNERS:
        known = f"known: {', '.join(PRUNERS)}"
        raise ValueError(f'unknown pruner "{pruner}"{nearest(pruner, PRUNERS, known)}')
    if objectives > 1 and pruner != "none":
        raise ValueError(f"with several objectives nothing can be pruned: --pruner none, not {pruner}")
    if pruner != "none" and evaluations < 2:
        raise ValueError(
            f"the pruner {pruner} decides at evaluations before the last, the run has {evaluations}: "
            "--set evaluations=4, or --pruner none"
        )


def storage(url: str | None, own: Path | None) -> storages.BaseStorage:
    """Open the storage at an Optuna URL or in a journal file; by default the journal `own`, or memory.

    Records of a journal wait for room on a full disk as other files of a run do. Raises `ValueError` if the
    storage cannot be reached or its driver is missing.
    """
    return _storage(url, own, waiting_for_room)


def exists(where: storages.BaseStorage, name: str) -> bool:
    """Whether the storage has a study with this name."""
    try:
        where.get_study_id_from_name(name)
    except KeyError:
        return False
    return True


def stored_identity(where: storages.BaseStorage, name: str) -> dict[str, Any]:
    """The identity of the experiment that the study belongs to; empty if hyperlax did not create it."""
    attributes = where.get_study_user_attrs(where.get_study_id_from_name(name))
    return json.loads(attributes.get(IDENTITY, "{}"))


def is_blank(where: storages.BaseStorage, name: str) -> bool:
    """Whether a study has neither identity nor trials, as after a kill between creating and describing it."""
    study = where.get_study_id_from_name(name)
    return IDENTITY not in where.get_study_user_attrs(study) and not where.get_n_trials(study)


def opened(
    sampler: OptunaSampler, pruner: str, evaluations: int, identity: Mapping[str, Any]
) -> optuna.Study:
    """Load the study of the sampler, or create it, with a pruner for lanes of `evaluations` evaluations."""
    study = sampler.study(PRUNERS[pruner](evaluations))
    if IDENTITY not in study.user_attrs:
        study.set_user_attr(IDENTITY, json.dumps(identity, default=str))
    return study
