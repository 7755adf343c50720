"""`check_sampler`: the properties that sweeps and searches rely on, for any sampler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from hyperlax.hyperparams import Choice, Integers, LogUniform, Space, Uniform
from hyperlax.hyperparams.samplers import AbstractDesign, AbstractSampler
from hyperlax.programs.compiled import non_arrays
from hyperlax.storage import checkpoint

SPACE: dict[str, Space] = {
    "gamma": Uniform(0.9, 0.999),
    "actor_lr": LogUniform(1e-5, 1e-2),
    "actor.depth": Integers(1, 3),
    "actor.activation": Choice("tanh", "relu", "silu"),
    "normalize_observations": Choice(True, False),
}
"""A space with one hyperparameter of every kind."""
FIRST, LATER = 4, 3


def check_sampler(
    sampler: Callable[..., AbstractSampler], space: Mapping[str, Space] | None = None, *, seed: int = 7
) -> None:
    """Check a sampler: it draws from its space, continues, learns from scores, and survives saving.

    `sampler(space, seed)` makes a fresh one: its class, or a function. Four samples are asked for, scores are
    told, and three more are asked for.

    - Its leaves are arrays. Asking and telling return the next sampler, of the same structure.
    - Every sample has a value inside `space` (by default one of every kind of `Space`) for each of its paths.
    - Made again with the same seed, asked and told the same, saved and loaded, it goes on with the same
      samples.
    - More scores than samples, and no samples at all, are refused with `ValueError`.
    - For a design whose samples do not depend on its size: asking twice gives the samples of asking once.

    Raises `AssertionError` saying what is wrong, and `TypeError` where no sampler is made.
    """
    space = SPACE if space is None else space
    make = lambda seed=seed: sampler(space, seed)  # noqa: E731
    made = make()
    name = type(made).__name__
    if not isinstance(made, AbstractSampler):
        raise TypeError(f"check_sampler takes what makes an AbstractSampler; it has made a {name}")
    if others := non_arrays(made):
        raise AssertionError(
            f"{name} holds {others[0]}, which is not an array: what changes is an array leaf, all else "
            "is declared with eqx.field(static=True)"
        )
    asked, first = _asked(name, made, FIRST)
    for i, sample in enumerate(first):
        _check_inside(f"{name}, sample {i}", sample, space)
    told = _told(name, asked)
    _, later = _asked(name, told, LATER)
    resumed = _told(name, _asked(name, make(), FIRST)[0])
    loaded = checkpoint.unpack(checkpoint.pack(resumed), resumed)
    assert _asked(name, loaded, LATER)[1] == later, (
        f"{name}: saved and loaded after {FIRST} samples, or made again, it goes on otherwise"
    )
    if isinstance(made, AbstractDesign) and made.endless:
        _, whole = _asked(name, make(), FIRST + LATER)
        assert [*first, *later] == whole, (
            f"{name}: {FIRST} and then {LATER} samples are not those of asking once"
        )
    _check_refusals(name, make)


def _asked(name: str, sampler: AbstractSampler, n: int) -> tuple[AbstractSampler, list[dict[str, Any]]]:
    after, samples = sampler.ask(n)
    assert len(samples) == n, f"{name}.ask({n}) returns {len(samples)} samples"
    _check_structure(f"{name}.ask", sampler, after)
    return after, samples


def _told(name: str, sampler: AbstractSampler) -> AbstractSampler:
    after = sampler.tell(np.linspace(0.0, 1.0, FIRST - 1))
    _check_structure(f"{name}.tell", sampler, after)
    return after


def _check_structure(where: str, before: Any, after: Any) -> None:
    assert jax.tree.structure(before) == jax.tree.structure(after), (
        f"{where} returns another structure: what is asked and told belongs into array leaves"
    )


def _check_inside(where: str, sample: Mapping[str, Any], space: Mapping[str, Space]) -> None:
    for path, values in space.items():
        assert path in sample, f"{where} has no {path}"
        assert values.contains(sample[path]), f"{where}: {path}={sample[path]!r} is not in {values}"


def _check_refusals(name: str, make: Callable[[], AbstractSampler]) -> None:
    asked, _ = make().ask(2)
    for what, refused in (
        ("three scores for two samples", lambda: asked.tell([0.0, 1.0, 2.0])),
        ("no samples", lambda: make().ask(0)),
    ):
        try:
            refused()
        except ValueError:
            continue
        raise AssertionError(f"{name} accepts {what}; it must raise ValueError")
