"""Interpretation of the arguments of an experiment: values to set, and samples to draw, read or take."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from hyperlax.experiments.recipes import Recipe
from hyperlax.experiments.settings import PUBLISHED, Settings
from hyperlax.hyperparams import Field, samplers
from hyperlax.hyperparams.samplers.samples_file import checked_rows
from hyperlax.hyperparams.tables import read_table
from hyperlax.registry import nearest


def split(set_: Mapping[str, Any], known: Collection[str]) -> tuple[dict[str, Any], ...]:
    """Split `--set` entries into hyperparameters, settings, and options of the environment.

    Raises `ValueError` for a name that is unknown or given twice.
    """
    settings = dict.fromkeys(Settings.__dataclass_fields__)
    fixed, changes, options = {}, {}, {}
    for given, value in set_.items():
        name = given.replace("eval.", "eval_", 1) if given.startswith("eval.") else given
        if name in fixed or name in changes:
            raise ValueError(f"--set {name} is given twice, as {given} too")
        if name in known:
            fixed[name] = value
        elif name in settings:
            changes[name] = value
        elif name.startswith("env."):
            options[name.removeprefix("env.")] = value
        else:
            raise ValueError(
                f'unknown hyperparameter or setting "{given}"{nearest(name, [*known, *settings])}'
            )
    return fixed, changes, options


def layered(
    recipe: Recipe, length: Mapping[str, Any], changes: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Merge the settings of the recipe, of the run length, and those set and given; later ones win.

    What the published protocol sets wins over what comes before the layer that asks for it, and gives way to
    that layer and to those after it.
    """
    layers = [recipe.settings, length, {**changes, **given}]
    asking = [place for place, layer in enumerate(layers) if "protocol" in layer]
    if asking and layers[asking[-1]]["protocol"] == "published":
        layers.insert(asking[-1], PUBLISHED)
    return {name: value for layer in layers for name, value in layer.items()}


def sample_rows(
    recipe: Recipe,
    known: Mapping[str, Field],
    fixed: Mapping[str, Any],
    settings: Settings,
    num_samples: int | None,
    method: samplers.Method,
    experiment_type: str,
    omit_ab: bool,
    samples: Any,
    spaces: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """The samples of a sweep, as dicts from dotted path to value; one empty dict for the defaults.

    `spaces` holds the arguments, by name, that say what to search. Raises `ValueError` where one of them, or
    one that says how to draw, is given although nothing is drawn.
    """
    samplers.check_experiment_type(experiment_type)
    if samples is not None:
        if method != samplers.DEFAULT or experiment_type != samplers.INDEPENDENT or omit_ab:
            raise ValueError(
                "samples that are given are not drawn: leave out sampling_method, experiment_type and omit_ab"
            )
        if isinstance(samples, (str, Path)):
            rows = samplers.rest(samplers.SamplesFile(Path(samples), known))
        else:
            rows = checked_rows(read_table(samples), known)
        if num_samples is not None and num_samples != len(rows):
            raise ValueError(
                f"there are {len(rows)} samples and num_samples is {num_samples}: all that are given are "
                "trained, leave out num_samples"
            )
        return rows
    if num_samples is None and isinstance(method, str):
        about = {
            **(spaces or {}),
            "experiment_type": experiment_type != samplers.INDEPENDENT,
            "sampling_method": method != samplers.DEFAULT,
            "omit_ab": omit_ab,
        }
        if unused := [name for name, value in about.items() if value]:
            raise ValueError(
                f"{' and '.join(unused)} {'is' if len(unused) == 1 else 'are'} for samples that are drawn, "
                "and without num_samples the defaults are trained: say how many with num_samples"
            )
        return [{}]
    return samplers.draw(
        recipe.search_space(),
        num_samples,
        method=method,
        experiment_type=experiment_type,
        omit_ab=omit_ab,
        seed=settings.seed,
    )
