"""The interface of samplers: modules that are asked for samples and told their scores.

A sampler is a PyTree, like an agent. Everything that changes with use (position, seed, number of scores) is
an array leaf, so that a sampler can be saved, restored and continued. The search space is static.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Float64, Int64

from hyperlax.hyperparams.spaces import Space, decode
from hyperlax.registry.limits import within
from hyperlax.typecheck import check_fields

S = TypeVar("S", bound="AbstractSampler")
D = TypeVar("D", bound="AbstractDesign")

Whole = Int64[np.ndarray, ""]
Points = Float64[np.ndarray, "samples dimensions"]
Row = Float[Array, "told *objectives"] | Float[np.ndarray, "told *objectives"]
Scores = Row | Sequence[float | int] | Sequence[Sequence[float | int]]
"""The scores of samples: a number each, or a row of numbers each if there are several objectives."""


class AbstractSampler(eqx.Module):
    """Base class of samplers, which draw samples of a search space and may learn from their scores.

    A subclass defines `ask` and `tell`. `hyperlax.sweep(..., sampling_method=MySampler)` builds it as
    `MySampler(space, seed)`, where `space` maps the path of each searched hyperparameter to its `Space`.
    """

    chosen_by: ClassVar[str] = "sampling_method"
    """The argument of `hyperlax.sweep` or `hyperlax.search` that chooses this kind of sampler."""

    @abstractmethod
    def ask(self: S, n: int) -> tuple[S, list[dict[str, Any]]]:
        """Draw the next `n` samples; return the new sampler, and the samples as dicts from path to value.

        Raises `ValueError` if `n` is not positive or fewer samples are left.
        """

    @abstractmethod
    def tell(self: S, scores: Scores) -> S:
        """Take note of scores; return the new sampler.

        `scores` belong to the earliest samples that have been drawn and have no score yet, in the order of
        drawing; any further samples keep waiting. Each is one number, or a row with one number per objective.
        Larger is better, unless the sampler has directions of its own; NaN means that a sample has no score.
        Raises `ValueError` if there are more scores than samples that wait for one.
        """

    @classmethod
    def sized(cls: type[S], space: Mapping[str, Space], seed: int, n: int) -> S:
        """Build the sampler of a sweep over `n` samples."""
        return cls(space, seed)  # pyright: ignore[reportCallIssue] - subclasses take these arguments

    @property
    def remaining(self) -> int | None:
        """The number of samples that are left; None if there is no limit."""
        return None


def whole(number: int | np.integer) -> Whole:
    """`number` as an array leaf; raises `ValueError` if it does not fit into 64 bits."""
    try:
        return np.asarray(number, np.int64)
    except OverflowError:
        raise ValueError(f"{number} does not fit into 64 bits") from None


def seed_leaf(seed: Any) -> Whole:
    """`seed` as an array leaf; anything but an integer is left for `check_fields` to refuse.

    Raises `ValueError` unless it is from 0 to 2⁶³ - 1.
    """
    return np.asarray(within("seed", seed), np.int64) if isinstance(seed, int | np.integer) else seed


def _own(space: Mapping[str, Space]) -> Mapping[str, Space]:
    """A copy of `space`; anything but a mapping is left for `check_fields` to refuse."""
    return dict(space) if isinstance(space, Mapping) else space


class AbstractDesign(AbstractSampler):
    """Base class of samplers that do not learn from scores: sequences, and designs of a given size.

    Asking for 16 samples and then for 48 gives the same samples as asking for 64. `tell` only counts scores.
    `size` is the number of samples of the design; without it, a sequence has no end.
    """

    space: Mapping[str, Space] = eqx.field(static=True, converter=_own)
    seed: Whole = eqx.field(default=0, converter=seed_leaf)
    size: int | None = eqx.field(default=None, static=True)
    drawn: Whole = eqx.field(init=False, default_factory=lambda: whole(0))
    told: Whole = eqx.field(init=False, default_factory=lambda: whole(0))
    endless: ClassVar[bool] = True
    """Whether samples do not depend on the size of the design, which may then be left out."""

    def __check_init__(self):
        check_fields(self)
        if self.size is not None and self.size < 1:
            raise ValueError(f"a design needs at least one sample, got {self.size}")
        if self.size is None and not self.endless:
            name = type(self).__name__
            raise ValueError(f"the size of a {name} has to be known in advance: {name}(space, seed, size)")

    @abstractmethod
    def rows(self, first: int, last: int) -> list[dict[str, Any]]:
        """The samples with the numbers `first` … `last` − 1."""

    @property
    def total(self) -> int | None:
        """The total number of samples; None if there is no limit."""
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
    """Base class of designs whose samples are decoded from points of a unit cube.

    The cube has one dimension per entry of the space.
    """

    @abstractmethod
    def points(self, first: int, last: int) -> Points:
        """The points with the numbers `first` … `last` − 1, with coordinates in [0, 1)."""

    def rows(self, first: int, last: int) -> list[dict[str, Any]]:
        points = self.points(first, last)
        for number, point in enumerate(points, first):
            outside = [float(c) for c in point if not 0 <= c < 1]
            if outside or len(point) != len(self.space):
                what = f"the coordinate {outside[0]!r}" if outside else f"{len(point)} coordinates"
                raise ValueError(
                    f"{type(self).__name__}.points returns point {number} with {what}; it has one, from 0 "
                    f"to below 1, for each of the {len(self.space)} dimensions of the space"
                )
        return [decode(self.space, point) for point in points]


def score_rows(
    scores: Scores, waiting: int, objectives: int | None = None
) -> Float64[np.ndarray, "told objectives"]:
    """Convert `scores` to a matrix with a row per sample and a column per objective.

    Raises `ValueError` for more scores than samples `waiting` for one, and for rows of another length than
    the number of `objectives`.
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
