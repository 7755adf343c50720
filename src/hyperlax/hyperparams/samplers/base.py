"""What every sampler is: a module that is asked for samples and told their scores.

A sampler is a PyTree like an agent: what changes while it is used (its position, its seed, what it was told)
are array leaves, so it is saved, restored and continued like one. What it draws from is static.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import equinox as eqx
import numpy as np
from beartype import beartype
from jaxtyping import Array, Float, Float64, Int64, jaxtyped

from hyperlax.hyperparams.spaces import Space, decode

S = TypeVar("S", bound="AbstractSampler")
D = TypeVar("D", bound="AbstractDesign")

Whole = Int64[np.ndarray, ""]
Points = Float64[np.ndarray, "samples dimensions"]
Row = Float[Array, "told *objectives"] | Float[np.ndarray, "told *objectives"]
Scores = Row | Sequence[float | int] | Sequence[Sequence[float | int]]
"""Scores of samples, one row each: numbers, or rows of numbers where there are several objectives."""


class AbstractSampler(eqx.Module):
    """Draws samples of a search space, and may learn from their scores.

    A class of your own needs `ask` and `tell`. `hyperlax.sweep(..., sampling_method=MySampler)` makes one as
    `MySampler(space, seed)`, where `space` maps the path of each searched hyperparameter to its `Space`.
    """

    chosen_by: ClassVar[str] = "sampling_method"
    """The argument of `hyperlax.sweep` or `hyperlax.search` that chooses this kind of sampler."""

    @abstractmethod
    def ask(self: S, n: int) -> tuple[S, list[dict[str, Any]]]:
        """The sampler after drawing, and the next `n` samples as dicts from dotted path to value.

        Raises `ValueError` when `n` is not positive, or fewer samples are left.
        """

    @abstractmethod
    def tell(self: S, scores: Scores) -> S:
        """The sampler that knows the scores of the samples that have waited for one the longest.

        `scores` has a row for each of the first samples that were asked and not yet told, in the order in
        which they were asked; the other samples go on waiting. A row is one number, or one for each
        objective. Larger is better unless the sampler was made with directions of its own; NaN says that a
        sample has no score. Raises `ValueError` when there are more scores than samples without one.
        """

    @classmethod
    def sized(cls: type[S], space: Mapping[str, Space], seed: int, n: int) -> S:
        """The sampler of a sweep that trains `n` samples."""
        return cls(space, seed)  # pyright: ignore[reportCallIssue] - what the class of a sampler has to take

    @property
    def remaining(self) -> int | None:
        """How many samples are left to ask for; None when they do not end."""
        return None


@jaxtyped(typechecker=beartype)
class AbstractDesign(AbstractSampler):
    """Samples in an order that their scores do not change: a sequence, or a design of a given size.

    Asking for 16 samples and then for 48 gives the 64 of asking once. `tell` only counts.
    """

    space: Mapping[str, Space] = eqx.field(static=True)
    size: int | None = eqx.field(static=True)
    seed: Whole
    drawn: Whole
    told: Whole
    endless: ClassVar[bool] = True
    """Whether the samples stay the same when more are drawn, so that the size may be left out."""

    def __init__(self, space: Mapping[str, Space], seed: int | np.integer = 0, size: int | None = None):
        """`size`: how many samples the design is for; a sequence goes on without end when it is left out."""
        if size is not None and size < 1:
            raise ValueError(f"a design needs at least one sample, got {size}")
        if size is None and not self.endless:
            name = type(self).__name__
            raise ValueError(f"the size of a {name} has to be known in advance: {name}(space, seed, size)")
        self.space, self.size = dict(space), size
        self.seed, self.drawn, self.told = whole(seed), whole(0), whole(0)

    @abstractmethod
    def rows(self, first: int, last: int) -> list[dict[str, Any]]:
        """Samples number `first` … `last` − 1."""

    @property
    def total(self) -> int | None:
        """How many samples there are; None when they do not end."""
        return self.size

    def ask(self: D, n: int) -> tuple[D, list[dict[str, Any]]]:
        if n < 1:
            raise ValueError(f"at least one sample is asked for, got {n}")
        if self.remaining is not None and n > self.remaining:
            raise ValueError(f"{n} samples are asked for and {self.remaining} of {self.total} are left")
        first = int(self.drawn)
        return eqx.tree_at(lambda s: s.drawn, self, whole(first + n)), self.rows(first, first + n)

    def tell(self: D, scores: Scores) -> D:
        told = int(self.told) + len(score_rows(scores, int(self.drawn - self.told)))
        return eqx.tree_at(lambda s: s.told, self, whole(told))

    @classmethod
    def sized(cls: type[D], space: Mapping[str, Space], seed: int, n: int, **options: Any) -> D:
        return cls(space, seed, n, **options)

    @property
    def remaining(self) -> int | None:
        return None if self.total is None else self.total - int(self.drawn)


class AbstractPointDesign(AbstractDesign):
    """Points of the unit cube, one dimension per entry of the space, decoded to hyperparameters."""

    @abstractmethod
    def points(self, first: int, last: int) -> Points:
        """Points number `first` … `last` − 1, in [0, 1)."""

    def rows(self, first: int, last: int) -> list[dict[str, Any]]:
        return [decode(self.space, point) for point in self.points(first, last)]


def whole(number: int | np.integer) -> Whole:
    """`number` as a leaf; raises `ValueError` where 64 bits do not hold it."""
    try:
        return np.asarray(number, np.int64)
    except OverflowError:
        raise ValueError(f"{number} does not fit into 64 bits") from None


def score_rows(
    scores: Scores, waiting: int, objectives: int | None = None
) -> Float64[np.ndarray, "told objectives"]:
    """`scores` as a matrix, checked against the number of samples that wait for a score.

    Raises `ValueError` for more scores than that, and for rows without one number per objective.
    """
    rows = np.asarray(scores, np.float64)
    rows = rows[:, None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or (objectives is not None and len(rows) and rows.shape[1] != objectives):
        raise ValueError(
            f"scores need one row per sample and {objectives or 'a'} number(s) in it, got {rows.shape}"
        )
    if len(rows) > waiting:
        raise ValueError(f"{len(rows)} scores are told and {waiting} samples wait for one")
    return rows
