"""Full factorial designs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any, ClassVar, final

from hyperlax.hyperparams.samplers.base import AbstractDesign
from hyperlax.hyperparams.spaces import Joint, Space


@final
class Grid(AbstractDesign):
    """All combinations of a few values of each dimension, of which the last one changes fastest.

    There are at most `size` samples: the number of values is increased for one dimension after the other, as
    long as there are no more combinations than that. The seed has no effect.
    """

    endless: ClassVar[bool] = False

    @property
    def total(self) -> int:
        return math.prod(map(len, self._values()))

    def rows(self, first: int, last: int) -> list[dict[str, Any]]:
        combinations = itertools.islice(itertools.product(*self._values()), first, last)
        return [{k: v for part in combination for k, v in part.items()} for combination in combinations]

    def _values(self) -> list[list[dict[str, Any]]]:
        """The values of each dimension, as dicts from path to value."""
        assert self.size is not None
        levels = _levels(self.space, self.size)
        return [
            [value if isinstance(s, Joint) else {path: value} for value in _spread(s, levels[path])]
            for path, s in self.space.items()
        ]


def _levels(space: Mapping[str, Space], n: int) -> dict[str, int]:
    """The number of values of each dimension in a grid of at most `n` samples."""
    levels = dict.fromkeys(space, 1)

    def count(levels: Mapping[str, int]) -> int:
        return math.prod(len(_spread(space[k], v)) for k, v in levels.items())

    grown = True
    while grown:
        grown = False
        for name in space:
            more = {**levels, name: levels[name] + 1}
            if (
                len(_spread(space[name], more[name])) > len(_spread(space[name], levels[name]))
                and count(more) <= n
            ):
                levels, grown = more, True
    return levels


def _spread(space: Space, count: int) -> list[Any]:
    """Up to `count` evenly spread values of `space`; the middle one if `count` is 1."""
    if count == 1:
        return [space.ppf(0.5)]
    values = space.grid(count)
    if len(values) <= count:
        return values
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]
