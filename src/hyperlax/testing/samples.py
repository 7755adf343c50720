"""Random samples of any hyperparameters: all differ, and sizes are small enough to train in a blink."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from hyperlax.hyperparams import AbstractHyperparams, Field, assign, fields, values
from hyperlax.lanes.sizes import shapes

H = TypeVar("H", bound=AbstractHyperparams)

SMALL: dict[str, tuple[float, ...]] = {
    "num_envs": (2, 3, 4, 6),
    "rollout_length": (3, 4, 5, 8),
    "epochs": (1, 2, 3),
    "num_minibatches": (1, 2, 3, 5),
    "buffer_size": (12, 20, 33),
    "batch_size": (3, 4, 7),
    "warmup_rollout_length": (0, 2, 4),
    "update_to_data": (0.0, 0.1, 0.3),
}
"""Sizes of what the shared bases of agents read; other hyperparameters are drawn from what they may be."""
LARGEST = 8
CHEAP = 5.0
"""Labels are drawn from those whose cost is at most so many times that of the cheapest."""


def draw(
    base: H,
    count: int,
    rng: np.random.Generator,
    cost: Callable[[H], float],
    given: Sequence[Mapping[str, Any]] = (),
) -> list[H]:
    """`count` samples that differ in everything that lanes of one program may differ in.

    What needs a program of its own (a `Shape` among the sizes) is the same in all of them: what costs least.
    `given` are samples, by dotted path, to take as they are, in turn; what they leave out is drawn.
    """
    cheap = cheapest(base, cost)
    varied = {f: _labels(cheap, f, cost) for f in varying(cheap)}
    drawn = [assign(cheap, {f.path: _value(f, of, rng) for f, of in varied.items()}) for _ in range(count)]
    return [assign(h, given[i % len(given)]) if given else h for i, h in enumerate(drawn)]


def cheapest(base: H, cost: Callable[[H], float]) -> H:
    """`base` with everything that needs a program of its own set to what costs least."""
    for field in fields(base):
        options = [assign(base, {field.path: value}) for value in candidates(field)]
        if _is_shape(base, options):
            base = min([base, *options], key=cost)
    return base


def _is_shape(base: Any, options: Sequence[Any]) -> bool:
    return any(shapes(option.sizes()) != shapes(base.sizes()) for option in options)


def candidates(field: Field) -> list[Any]:
    """A few values that a hyperparameter may have, of which programs know: labels, flags, whole numbers."""
    if field.kind is str:
        return field.space.grid(LARGEST) if field.space else list(field.labels or ())
    if field.kind is bool:
        return [False, True]
    if field.kind is int:
        near = (field.default - 1, field.default, field.default + 1)
        return field.space.grid(LARGEST) if field.space else [n for n in near if _is_allowed(field, n)]
    return []


def _is_allowed(field: Field, number: int) -> bool:
    return field.lowest <= number <= field.most


def varying(base: AbstractHyperparams) -> list[Field]:
    """The hyperparameters in which lanes of one program may differ."""
    options = {f: [assign(base, {f.path: value}) for value in candidates(f)] for f in fields(base)}
    return [field for field, changed in options.items() if not _is_shape(base, changed)]


def _labels(base: H, field: Field, cost: Callable[[H], float]) -> list[str]:
    """The cheap labels of a hyperparameter with which samples fit into the program of `base`."""
    options = {label: assign(base, {field.path: label}) for label in field.labels or ()}
    costs = {label: cost(other) for label, other in options.items() if not _is_shape(base, [other])}
    return [label for label, found in costs.items() if found <= CHEAP * min(costs.values())]


def _value(field: Field, labels: Sequence[str], rng: np.random.Generator) -> Any:
    if field.path in SMALL:
        small = SMALL[field.path]
        return field.kind(small[rng.integers(len(small))])
    if field.kind in (str, bool):
        options: list[Any] = list(labels) or [False, True]
        return options[rng.integers(len(options))]
    if field.kind is int:
        return int(rng.integers(*_small_range(field), endpoint=True))
    if field.space is not None:
        return field.space.ppf(float(rng.uniform()))
    ends = sorted((field.default / 2, field.default)) if field.default else (0.0, 0.5)
    low, high = (min(max(end, field.lowest), field.most) for end in ends)
    return float(rng.uniform(low, high if high > low else min(low + 0.5, field.most)))


def _small_range(field: Field) -> tuple[int, int]:
    least, default = int(field.lowest), int(field.default)
    if default > LARGEST:  # LayerNorm over two units is ±1 whatever they are: no gradient but rounding
        return max(least, LARGEST // 2), max(least, LARGEST)
    if default > LARGEST // 2:
        return max(least, 2), max(least, default)
    return least, int(min(max(default, least + 1), field.most))


def describe(sample: AbstractHyperparams) -> str:
    """A sample in one line, for messages."""
    return ", ".join(f"{path}={_short(value)}" for path, value in values(sample).items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
