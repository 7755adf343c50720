"""The best samples of a sweep, trained again from fresh seeds: scores without the luck of being chosen."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from hyperlax import sweeps
from hyperlax.experiments import experiment
from hyperlax.experiments.execution import Execution
from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.machine import use_all_cores
from hyperlax.experiments.recipes import Recipe
from hyperlax.experiments.settings import Settings
from hyperlax.run.display import Display
from hyperlax.run.terminal import shown
from hyperlax.schedules import Schedule
from hyperlax.storage import store
from hyperlax.storage.results import Results


def confirm(
    results: Results,
    best: int = 5,
    seeds: int | None = None,
    *,
    execution: Execution | None = None,
    progress: Display | bool | None = None,
    command: Sequence[str] | None = None,
) -> Results:
    """Trains the `best` samples of a finished sweep again; `results` with `confirmation`, what that showed.

    - `seeds`: lanes per sample (default: as many as the sweep). None of them is one of the sweep's: the
      confirmation's seed is `fresh_seed` of the sweep's.
    - `execution`, `progress`: how to run it, what to show: as in `hyperlax.sweep`. It is stored in
      `confirmation/` in the sweep's folder, if that has one; what an interrupted confirmation has there is
      continued, and a finished one read.

    Raises `ValueError` when the sweep is not finished, or its folder holds another confirmation.
    """
    spec = prepare(results, best, seeds)
    target = results.folder / store.CONFIRMATION if results.folder is not None else None
    stored = _request(target) if target is not None else None
    if stored is not None and stored != (best, spec.settings.seeds):
        raise ValueError(_another(stored, (best, spec.settings.seeds)))
    how = replace(execution or Execution(), folder=target, resume=stored is not None)
    with shown(progress) as display:
        return replace(results, confirmation=sweeps.run(spec, how, display, command))


def prepare(results: Results, best: int, seeds: int | None = None) -> Experiment:
    """The experiment that confirms the `best` samples of `results`, which keep their ids.

    Raises `ValueError` when there is nothing to choose from yet.
    """
    use_all_cores()
    manifest, lanes = results.manifest, results.lanes
    if manifest.get("confirms"):
        raise ValueError("this is a confirmation; confirm the sweep that it belongs to")
    unfinished = int(lanes["status"].is_in(["queued", "running", "paused"]).sum())
    if unfinished or lanes.is_empty():
        state = f"{unfinished} of its {len(lanes)} lanes are not" if len(lanes) else "it has no lane yet"
        raise ValueError(f"the sweep is not finished: {state}; continue it with --resume, then confirm")
    _refuse_changing((manifest.get("identity") or {}).get("schedule"))
    ids = chosen(results, best)
    if not ids:
        raise ValueError("no sample can be confirmed: none has an evaluation")
    given = {"seed": fresh_seed(manifest["seed"]), "seeds": seeds or manifest["settings"]["seeds"]}
    settings = Settings().updated({**manifest["settings"], **given})
    table = results.samples.drop("matrix", strict=False)
    rows = [table.row(by_predicate=pl.col("sample") == sample, named=True) for sample in ids]
    recipe = Recipe(manifest["algorithm"], manifest["network"], only=True)
    spec = experiment.build(manifest["recipe"], recipe, manifest["env"], settings, rows, {}, Schedule())
    said = f"confirmation of the best {len(ids)} of {len(results.samples)} samples of a sweep with seed"
    return replace(
        spec,
        notes=[f"{said} {manifest['seed']}, from fresh seeds", *spec.notes],
        confirms={"best": best, "samples": ids, "seed": manifest["seed"], "created": manifest.get("created")},
    )


def chosen(results: Results, best: int) -> list[int]:
    """The samples that a confirmation of the `best` trains: as the leaderboard has them, scored ones only."""
    from hyperlax.report.leaderboard import leaderboard  # takes a second, and is needed last

    if best < 1:
        raise ValueError(f"at least one sample has to be confirmed, got {best}")
    return leaderboard(results, top=None).drop_nulls("peak_return")["sample"].head(best).to_list()


def request(spec: Experiment, folder: Path, best: int | None, seeds: int | None) -> tuple[int, int] | None:
    """(samples, seeds) to be confirmed when the sweep `spec` in `folder` is done; None when none are.

    A confirmation that has begun is continued without being asked for again. Raises `ValueError`, before
    anything runs, for one that cannot be.
    """
    stored = _request(folder / store.CONFIRMATION)
    if best is None:
        if seeds is not None and stored is None:
            raise ValueError("--confirm-seeds needs --confirm, the number of samples to train again")
        best = stored[0] if stored is not None else None
    if best is None:
        return None
    _refuse_changing(spec.schedule.describe())
    if best > len(spec.records) and not spec.schedule.grows:
        raise ValueError(f"--confirm {best} of {len(spec.records)} samples; lower it or draw more samples")
    if not spec.settings.milestones():
        raise ValueError("--confirm chooses by evaluations, and there are none; --set evaluations=10")
    wanted = (best, seeds or (stored[1] if stored is not None else spec.settings.seeds))
    if stored is not None and stored != wanted:
        raise ValueError(_another(stored, wanted))
    return wanted


def fresh_seed(seed: int) -> int:
    """The seed of the confirmation of a sweep with `seed`: the first 31 bits of a SHA-256.

    Lanes derive their keys from seed, sample and number, so those of the confirmation are all new, also to
    sweeps with neighbouring seeds.
    """
    digest = hashlib.sha256(f"confirmation of seed {seed}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _refuse_changing(schedule: Mapping[str, Any] | None) -> None:
    """Raises `ValueError` when samples are not what their lanes trained with throughout."""
    if (schedule or {}).get("explores"):
        raise ValueError(
            "a confirmation trains samples again with the hyperparameters they started with, and "
            "population-based training changes those: leave out --confirm"
        )


def _request(folder: Path) -> tuple[int, int] | None:
    """(samples, seeds) that the confirmation in `folder` was asked for; None when there is none."""
    manifest = store.read_manifest(folder)
    if manifest is None:
        return None
    if not manifest.get("confirms"):
        raise ValueError(f"{folder} holds an experiment that is no confirmation; move it away")
    return manifest["confirms"]["best"], manifest["settings"]["seeds"]


def _another(stored: tuple[int, int], wanted: tuple[int, int]) -> str:
    return (
        f"the folder holds the confirmation of {stored[0]} samples with {stored[1]} seeds, "
        f"{wanted[0]} with {wanted[1]} are asked for; continue that one, or move its folder "
        f"{store.CONFIRMATION}/ away"
    )
