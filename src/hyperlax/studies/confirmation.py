"""Training the best samples of a sweep again from fresh seeds, for scores without selection bias."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from hyperlax import envs, sweeps
from hyperlax.agents import AGENTS
from hyperlax.experiments import experiment
from hyperlax.experiments.execution import Execution
from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.machine import set_up_jax
from hyperlax.experiments.recipes import Recipe
from hyperlax.experiments.settings import Settings
from hyperlax.networks import NETWORKS
from hyperlax.registry.limits import within
from hyperlax.run.display import Display
from hyperlax.run.terminal import shown
from hyperlax.schedules import Schedule
from hyperlax.storage import store
from hyperlax.storage.results import UNFINISHED, Results
from hyperlax.typecheck import public


@public
def confirm(
    results: Results,
    best: int = 5,
    seeds: int | None = None,
    *,
    algorithm: str | None = None,
    network: str | None = None,
    env: str | None = None,
    execution: Execution | None = None,
    progress: Display | bool | None = None,
    command: Sequence[str] | None = None,
) -> Results:
    """Train the best samples of a finished sweep again; returns `results` with its field `confirmation` set.

    - `best`: how many samples to train again, in the order of the leaderboard.
    - `seeds`: lanes per sample (default: as many as in the sweep). The seed of the confirmation is
      `fresh_seed` of the sweep's seed, so no lane repeats one of the sweep.
    - `algorithm`, `network`, `env`: the names of the sweep's. They are needed where these are not registered
      but in a file or module of your own: results, which may come from anybody, never name code.
    - `execution`, `progress`: how to run it and what to show, as in `hyperlax.sweep`.
    - `command`: the command line to store in the manifest.

    If the sweep has a folder, the confirmation is stored in its subfolder `confirmation/`; an interrupted
    confirmation there is continued, and a finished one is read. Raises `ValueError` when the sweep is not
    finished, or when its folder holds another confirmation.
    """
    spec = prepare(results, best, seeds, algorithm, network, env)
    target = results.folder / store.CONFIRMATION if results.folder is not None else None
    stored = _request(target) if target is not None else None
    if stored is not None and stored != (best, spec.settings.seeds):
        raise ValueError(_other_confirmation(stored, (best, spec.settings.seeds)))
    how = replace(execution or Execution(), folder=target, resume=stored is not None)
    how = replace(how, metric=how.metric or results.manifest.get("metric"))
    with shown(progress) as display:
        return replace(results, confirmation=sweeps.run(spec, how, display, command))


def prepare(
    results: Results,
    best: int,
    seeds: int | None = None,
    algorithm: str | None = None,
    network: str | None = None,
    env: str | None = None,
) -> Experiment:
    """Build the experiment that confirms the `best` samples of `results`; the samples keep their ids.

    Names that are not given are those of the sweep. Raises `ValueError` when the sweep is not finished, has
    no evaluations, is a confirmation itself or was trained with a schedule that changes hyperparameters.
    """
    set_up_jax()
    manifest, lanes = results.manifest, results.lanes
    if manifest.get("confirms"):
        raise ValueError("this is a confirmation; confirm the sweep that it belongs to")
    unfinished = int(lanes["status"].is_in(UNFINISHED).sum())
    if unfinished or lanes.is_empty():
        state = f"{unfinished} of its {len(lanes)} lanes remain" if len(lanes) else "it has no lane yet"
        raise ValueError(f"the sweep is not finished: {state}; continue it with --resume, then confirm")
    _refuse_changing((manifest.get("identity") or {}).get("schedule"))
    ids = best_samples(results, best)
    if not ids:
        raise ValueError("no sample can be confirmed: none has an evaluation")
    given = {"seed": fresh_seed(manifest["seed"]), "seeds": seeds or manifest["settings"]["seeds"]}
    settings = Settings().updated({**manifest["settings"], **given})
    table = results.samples.drop("matrix", "pair", strict=False)
    rows = [table.row(by_predicate=pl.col("sample") == sample, named=True) for sample in ids]
    env = _name_of("env", env, manifest)
    recipe = Recipe(
        _name_of("algorithm", algorithm, manifest), _name_of("network", network, manifest), only=True
    )
    spec = experiment.build(manifest["recipe"], recipe, env, settings, rows, {}, Schedule())
    note = f"confirmation of the best {len(ids)} of {len(results.samples)} samples of a sweep with seed"
    return replace(
        spec,
        notes=[f"{note} {manifest['seed']}, from fresh seeds", *spec.notes],
        confirms={"best": best, "samples": ids, "seed": manifest["seed"], "created": manifest.get("created")},
    )


def _name_of(kind: str, given: str | None, manifest: Mapping[str, Any]) -> str:
    """The name of what the sweep was trained with: as `given`, otherwise as stored if it is registered."""
    if given is not None:
        return given
    look: dict[str, Callable[[str, str], Any]] = {
        "env": envs.trusted,
        "algorithm": AGENTS.trusted,
        "network": NETWORKS.trusted,
    }
    look[kind](manifest[kind], f'give it to hyperlax.confirm, {kind}="{manifest[kind]}"')
    return manifest[kind]


def best_samples(results: Results, best: int) -> list[int]:
    """The ids of the first `best` samples of the leaderboard that have a score.

    Raises `ValueError` when `best` is less than 1.
    """
    from hyperlax.report.scores import ranked  # imported late, because it takes a second

    best = within("best", best, "the number of samples to confirm")
    return ranked(results)["sample"].head(best).to_list()


def request(spec: Experiment, folder: Path, best: int | None, seeds: int | None) -> tuple[int, int] | None:
    """Decide which confirmation follows the sweep `spec` in `folder`: (samples, seeds), or None.

    `best` and `seeds` are what the user requested, None where nothing was. A confirmation that has begun in
    `folder` is continued even without a request. Raises `ValueError`, before anything runs, for a
    confirmation that is impossible.
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
        raise ValueError(
            f"--confirm {best} exceeds the {len(spec.records)} samples of the sweep; "
            "lower it or draw more samples"
        )
    if not spec.settings.milestones():
        raise ValueError(
            "--confirm chooses samples by their evaluations, but there are none; use --set evaluations=10"
        )
    wanted = (best, seeds or (stored[1] if stored is not None else spec.settings.seeds))
    if stored is not None and stored != wanted:
        raise ValueError(_other_confirmation(stored, wanted))
    return wanted


def fresh_seed(seed: int) -> int:
    """The seed of the confirmation of a sweep with `seed`: the first 31 bits of a SHA-256 hash of it.

    Lanes derive their random keys from the seed, the id of the sample and the index of the seed in it. A
    hashed seed gives keys that occur neither in the sweep nor in sweeps with neighbouring seeds.
    """
    digest = hashlib.sha256(f"confirmation of seed {seed}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _refuse_changing(schedule: Mapping[str, Any] | None) -> None:
    """Raise `ValueError` for a schedule that changes the hyperparameters of lanes during training."""
    if (schedule or {}).get("explores"):
        raise ValueError(
            "a confirmation trains samples again with the hyperparameters they started with, but "
            "population-based training changes them during training; leave out --confirm"
        )


def _request(folder: Path) -> tuple[int, int] | None:
    """(samples, seeds) of the confirmation stored in `folder`; None when there is none."""
    manifest = store.recovered_manifest(folder)
    if manifest is None:
        return None
    if not manifest.get("confirms"):
        raise ValueError(f"{folder} holds an experiment that is not a confirmation; move it away")
    return manifest["confirms"]["best"], manifest["settings"]["seeds"]


def _other_confirmation(stored: tuple[int, int], wanted: tuple[int, int]) -> str:
    """The error message for a folder whose confirmation has other numbers of samples and seeds."""
    return (
        f"the folder holds the confirmation of {stored[0]} samples with {stored[1]} seeds, but "
        f"{wanted[0]} with {wanted[1]} were asked for; continue that one, or move its folder "
        f"{store.CONFIRMATION}/ away"
    )
