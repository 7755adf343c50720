"""Samplers, which choose the hyperparameters to train; each kind has a file, and a name in `SAMPLERS`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from hyperlax.hyperparams.samplers.base import (
    AbstractDesign,
    AbstractPointDesign,
    AbstractSampler,
    Points,
    Scores,
)
from hyperlax.hyperparams.samplers.grid import Grid
from hyperlax.hyperparams.samplers.halton import Halton
from hyperlax.hyperparams.samplers.latin_hypercube import LatinHypercube
from hyperlax.hyperparams.samplers.optuna import OptunaSampler
from hyperlax.hyperparams.samplers.random import Random
from hyperlax.hyperparams.samplers.saltelli import Saltelli
from hyperlax.hyperparams.samplers.samples_file import SamplesFile
from hyperlax.hyperparams.samplers.sobol import Sobol
from hyperlax.hyperparams.spaces import Space
from hyperlax.registry import Registry, built_in, location, nearest
from hyperlax.registry.limits import within

__all__ = [
    "DEFAULT",
    "AbstractDesign",
    "AbstractPointDesign",
    "AbstractSampler",
    "EXPERIMENT_TYPES",
    "Grid",
    "Halton",
    "INDEPENDENT",
    "LatinHypercube",
    "METHODS",
    "Method",
    "OptunaSampler",
    "Points",
    "Random",
    "SAMPLERS",
    "Saltelli",
    "SamplesFile",
    "Scores",
    "Sobol",
    "check_experiment_type",
    "design",
    "draw",
    "rest",
    "sampler_class",
]

SAMPLERS: Registry[type[AbstractSampler]] = built_in.SAMPLERS
"""Sampler → its class."""

METHODS = tuple(name for name in SAMPLERS.built_in if SAMPLERS[name].chosen_by == "sampling_method")
"""The names that the argument `sampling_method` accepts."""

DEFAULT = "qmc_sobol"
"""The sampling method of independent samples, unless another one is asked for."""
INDEPENDENT = "independent_samples"
EXPERIMENT_TYPES = (
    INDEPENDENT,
    *(name for name in SAMPLERS.built_in if SAMPLERS[name].chosen_by == "experiment_type"),
)
"""The names that the argument `experiment_type` accepts: independent samples, or a special design."""

Method: TypeAlias = str | type[AbstractSampler] | AbstractSampler
"""A sampler, given by name, as a class, or as an instance."""


def sampler_class(name: str) -> type[AbstractSampler]:
    """The class of the sampler called `name`, registered or `file.py:Name`.

    Raises `ValueError` for an unknown one, naming the nearest.
    """
    if name not in SAMPLERS and location(name) is None:
        known = f"known: {', '.join(METHODS)}"
        raise ValueError(f'unknown sampling method "{name}"{nearest(name, METHODS, known)}')
    return SAMPLERS.resolve(name)


def design(
    space: Mapping[str, Space], n: int | None, method: Method, seed: int, **options: Any
) -> list[dict[str, Any]]:
    """Draw the samples of a sweep over `n` samples of `space`, as dicts from dotted path to value.

    A sampler of a fixed size may have fewer samples (a grid) or more (the matrices of a sensitivity
    analysis). An instance, which has its own space and seed, is asked for `n` samples, or for all that are
    left if `n` is None. `options` are further arguments of the class of the sampler. Raises `ValueError` for
    an unknown method, with the nearest known one, and if there is no sample to draw.
    """
    n = None if n is None else within("num_samples", n)
    if isinstance(method, AbstractSampler):
        return rest(method) if n is None else _asked(method, n)
    if n is None:
        raise ValueError("the number of samples to draw is missing: num_samples=...")
    kind = sampler_class(method) if isinstance(method, str) else method
    if not (isinstance(kind, type) and issubclass(kind, AbstractSampler)):
        raise ValueError(
            "a sampling method is a name, a class derived from AbstractSampler, or such a sampler; "
            f"got {kind!r}"
        )
    if not space:
        return [{}]
    sampler = kind.sized(space, seed, n, **options)
    if sampler.remaining is not None:
        n = within("num_samples", sampler.remaining)
    return _asked(sampler, n, space)


def draw(
    space: Mapping[str, Space],
    n: int | None,
    *,
    method: Method = DEFAULT,
    experiment_type: str = INDEPENDENT,
    omit_ab: bool = False,
    seed: int,
) -> list[dict[str, Any]]:
    """Draw the samples of an experiment, as `design` does; `method` is used for independent samples only.

    With `omit_ab`, a sensitivity analysis consists of the matrices A and B only. Raises `ValueError` for an
    argument that the experiment type has no use for.
    """
    check_experiment_type(experiment_type)
    if experiment_type != INDEPENDENT and method not in (DEFAULT, experiment_type):
        raise ValueError(f"{experiment_type} draws its samples in its own way; leave the sampling method out")
    if experiment_type == INDEPENDENT and omit_ab:
        raise ValueError(
            "omit_ab leaves out matrices of a sensitivity analysis, and there is none; ask for one with the "
            "experiment type sobol_matrices_A_B_AB"
        )
    if experiment_type == INDEPENDENT:
        return design(space, n, method, seed)
    return design(space, n, experiment_type, seed, omit_ab=omit_ab)


def rest(sampler: AbstractSampler) -> list[dict[str, Any]]:
    """Ask a sampler for all samples that are left; raise `ValueError` if it never runs out of them."""
    if sampler.remaining is None:
        name = type(sampler).__name__
        raise ValueError(f"the samples of {name} do not end: say how many, as num_samples=...")
    return _asked(sampler, within("num_samples", sampler.remaining))


def check_experiment_type(name: str) -> None:
    """Raise `ValueError` if there is no experiment type with this name."""
    if name not in EXPERIMENT_TYPES:
        known = f"known: {', '.join(EXPERIMENT_TYPES)}"
        raise ValueError(f'unknown experiment type "{name}"{nearest(name, EXPERIMENT_TYPES, known)}')


def _asked(
    sampler: AbstractSampler, n: int, space: Mapping[str, Space] | None = None
) -> list[dict[str, Any]]:
    """Ask for the next `n` samples of `space`, by default that of the sampler, if it has one.

    Raises `ValueError` if the sampler returns anything else.
    """
    name = type(sampler).__name__
    answer = sampler.ask(n)
    if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], Sequence)):
        raise ValueError(
            f"{name}.ask returns {type(answer).__name__}; it must return the new sampler and the samples"
        )
    samples = list(answer[1])
    if len(samples) != n:
        raise ValueError(f"{name} was asked for {n} samples and drew {len(samples)}")
    space = space or getattr(sampler, "space", None)
    wanted = [p for k, s in (space or {}).items() for p in getattr(s, "paths", (k,))]
    for number, sample in enumerate(samples):
        lacking = [p for p in wanted if p not in sample] if isinstance(sample, Mapping) else None
        if lacking is None or lacking:
            what = f"without {lacking[0]}" if lacking else f"that is {sample!r}"
            raise ValueError(
                f"{name}.ask returns sample {number} {what}; a sample is a dict from path to value, with "
                "one for every path of the space"
            )
    return samples
