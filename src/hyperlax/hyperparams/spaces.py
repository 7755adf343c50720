"""Search spaces: the values that a hyperparameter may take, with a distribution over them.

Spaces run on the host and do not import jax, so that designs can be drawn and checked without starting a
backend. Continuous spaces compute in float32, as the published designs did.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hyperlax.registry import integer, plain

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution, CategoricalDistribution

Value = bool | int | float | str


class Space(ABC):
    """A set of values with a probability distribution over it."""

    @abstractmethod
    def ppf(self, u: float) -> Any:
        """The quantile at probability `u` in [0, 1], i.e. the inverse of the distribution function."""

    @abstractmethod
    def grid(self, points: int) -> list[Any]:
        """Distinct values spread evenly over the space, ends included.

        Numeric spaces give at most `points` of them, choices give all of their values.
        """

    @abstractmethod
    def contains(self, value: Any) -> bool:
        """Whether `value` belongs to the space, up to rounding."""

    @abstractmethod
    def beside(self, value: Any, up: bool, factor: float | int) -> Any:
        """The value one step above (`up`) or below `value`, limited to the space.

        In a logarithmic space a step multiplies or divides by `factor`; in a uniform one it adds or subtracts
        (`factor` - 1) times the range. Integers and choices ignore `factor` and step to the neighbouring
        value; a step beyond the first or last one stays there.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """A JSON-serialisable description of the space, which is stored in every manifest."""

    @abstractmethod
    def distribution(self) -> BaseDistribution:
        """The space as an Optuna distribution; choices that Optuna cannot store are replaced by names."""

    def chosen(self, parameter: Any) -> Any:
        """The value of the space for a parameter that Optuna drew from `distribution`."""
        return parameter

    log: bool = False
    continuous: ClassVar[bool] = False


@dataclass(frozen=True)
class Uniform(Space):
    """The uniform distribution on [low, high]; raises `ValueError` unless low < high."""

    low: int | float
    high: int | float
    continuous: ClassVar[bool] = True

    def __post_init__(self):
        _plain_bounds(self)
        if not -math.inf < self.low < self.high < math.inf:
            raise ValueError(f"Uniform needs finite low < high, got ({self.low}, {self.high})")

    def ppf(self, u: float) -> float:
        low, high = np.float32(self.low), np.float32(self.high)
        return float(low + (high - low) * np.float32(u))

    def grid(self, points: int) -> list[float]:
        return _evenly_spaced(self, points)

    def contains(self, value: Any) -> bool:
        return _is_number(value) and _within(value, self.low, self.high)

    def beside(self, value: Any, up: bool, factor: float | int) -> float:
        step = (factor - 1) * (self.high - self.low)
        return _clipped(self, value + step if up else value - step)

    def describe(self) -> dict[str, Any]:
        return {"type": "uniform", "low": self.low, "high": self.high}

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high)


@dataclass(frozen=True)
class LogUniform(Space):
    """The log-uniform distribution on [low, high]; raises `ValueError` unless 0 < low < high."""

    low: int | float
    high: int | float
    log: bool = True
    continuous: ClassVar[bool] = True

    def __post_init__(self):
        _plain_bounds(self)
        if not 0 < self.low < self.high < math.inf:
            raise ValueError(f"LogUniform needs 0 < low < high, both finite, got ({self.low}, {self.high})")

    def ppf(self, u: float) -> float:
        low, high = np.log(np.float32(self.low)), np.log(np.float32(self.high))
        return float(np.clip(np.exp(low + np.float32(u) * (high - low)), np.float32(self.low), self.high))

    def grid(self, points: int) -> list[float]:
        return _evenly_spaced(self, points)

    def contains(self, value: Any) -> bool:
        return _is_number(value) and _within(value, self.low, self.high)

    def beside(self, value: Any, up: bool, factor: float | int) -> float:
        return _clipped(self, value * factor if up else value / factor)

    def describe(self) -> dict[str, Any]:
        return {"type": "log_uniform", "low": self.low, "high": self.high}

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, log=True)


@dataclass(frozen=True)
class Integers(Space):
    """The uniform distribution on the integers low … high; raises `ValueError` unless low <= high."""

    low: int
    high: int

    def __post_init__(self):
        object.__setattr__(self, "low", integer("the low of Integers", self.low))
        object.__setattr__(self, "high", integer("the high of Integers", self.high))
        if not self.low <= self.high:
            raise ValueError(f"Integers needs low <= high, got ({self.low}, {self.high})")

    def ppf(self, u: float) -> int:
        return min(self.low + math.floor(u * (self.high - self.low + 1)), self.high)

    def grid(self, points: int) -> list[int]:
        return sorted({round(x) for x in np.linspace(self.low, self.high, max(points, 1))})

    def contains(self, value: Any) -> bool:
        return _is_number(value) and float(value).is_integer() and self.low <= value <= self.high

    def beside(self, value: Any, up: bool, factor: float | int) -> int:
        return min(max(int(value) + (1 if up else -1), self.low), self.high)

    def describe(self) -> dict[str, Any]:
        return {"type": "integers", "low": self.low, "high": self.high}

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import IntDistribution

        return IntDistribution(self.low, self.high)


@dataclass(frozen=True)
class Choice(Space):
    """A choice between `values` with equal probabilities.

    The order of the values is part of a design, because it decides which value a point of a Sobol sequence
    is mapped to.
    """

    values: tuple[Any, ...]

    def __init__(self, *values: Any):
        if not values:
            raise ValueError("Choice needs at least one value")
        object.__setattr__(self, "values", tuple(_plain(value) for value in values))

    def ppf(self, u: float) -> Any:
        return self.values[min(math.floor(u * len(self.values)), len(self.values) - 1)]

    def grid(self, points: int) -> list[Any]:
        return list(self.values)

    def contains(self, value: Any) -> bool:
        return any(_same(value, v) for v in self.values)

    def beside(self, value: Any, up: bool, factor: float | int) -> Any:
        if not self.contains(value):
            return self.values[-1 if up else 0]
        place = self.values.index(value) + (1 if up else -1)
        return self.values[min(max(place, 0), len(self.values) - 1)]

    def describe(self) -> dict[str, Any]:
        return {"type": "choice", "values": list(self.values)}

    def distribution(self) -> CategoricalDistribution:
        return _categories([_storable(value) for value in self.values])

    def chosen(self, parameter: Any) -> Any:
        return _value_of(parameter, self.values, [_storable(value) for value in self.values])


@dataclass(frozen=True)
class Joint(Space):
    """A choice of values for several hyperparameters together, e.g. of a width with a matching depth.

    `paths` are the dotted paths of the hyperparameters, and each choice holds one value per path. Raises
    `ValueError` when there is no choice or one with another number of values.
    """

    paths: tuple[str, ...]
    choices: tuple[tuple[Any, ...], ...]

    def __init__(self, paths: Sequence[str], *choices: Sequence[Any]):
        wrong = [c for c in choices if len(c) != len(paths)]
        if not choices or wrong:
            raise ValueError(f"every choice of Joint{tuple(paths)} needs {len(paths)} values, got {wrong}")
        object.__setattr__(self, "paths", tuple(paths))
        object.__setattr__(self, "choices", tuple(tuple(map(_plain, c)) for c in choices))

    def ppf(self, u: float) -> dict[str, Any]:
        return dict(zip(self.paths, Choice(*self.choices).ppf(u), strict=True))

    def grid(self, points: int) -> list[dict[str, Any]]:
        return [dict(zip(self.paths, c, strict=True)) for c in self.choices]

    def contains(self, value: Any) -> bool:
        return isinstance(value, Mapping) and tuple(value.get(p) for p in self.paths) in self.choices

    def beside(self, value: Any, up: bool, factor: float | int) -> dict[str, Any]:
        chosen = Choice(*self.choices).beside(tuple(value[p] for p in self.paths), up, factor)
        return dict(zip(self.paths, chosen, strict=True))

    def describe(self) -> dict[str, Any]:
        return {"type": "joint", "paths": list(self.paths), "choices": [list(c) for c in self.choices]}

    def distribution(self) -> CategoricalDistribution:
        return _categories([json.dumps(choice) for choice in self.choices])

    def chosen(self, parameter: Any) -> dict[str, Any]:
        choice = _value_of(parameter, self.choices, [json.dumps(choice) for choice in self.choices])
        return dict(zip(self.paths, choice, strict=True))


def _plain(value: Any) -> Any:
    """`value` with NumPy's scalars replaced by Python's, also inside of a tuple; JSON knows no others."""
    return tuple(map(_plain, value)) if isinstance(value, tuple) else plain(value)


def _plain_bounds(space: Uniform | LogUniform) -> None:
    """Replace NumPy's scalars by Python's in the bounds of `space`; raise `ValueError` for no numbers."""
    for name in ("low", "high"):
        value = plain(getattr(space, name))
        if not _is_number(value):
            raise ValueError(f"the {name} of {type(space).__name__} needs a number, got {value!r}")
        object.__setattr__(space, name, value)


def decode(space: Mapping[str, Space], point: Iterable[float]) -> dict[str, Any]:
    """The hyperparameters (path → value) at `point`, with one coordinate in [0, 1] per entry of `space`."""
    return _by_path(space, {p: s.ppf(float(u)) for (p, s), u in zip(space.items(), point, strict=True)})


def resolved(space: Mapping[str, Space], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters (path → value) for Optuna's `parameters`, one of which belongs to each entry."""
    return _by_path(space, {path: s.chosen(parameters[path]) for path, s in space.items()})


def without(space: Mapping[str, Space], fixed: Mapping[str, Any]) -> dict[str, Space]:
    """The search space that remains when the hyperparameters `fixed` (path → value) are fixed.

    A joint choice keeps the choices that agree with the fixed values, or all of them when none agrees, and
    loses the fixed hyperparameters.
    """
    left: dict[str, Space] = {}
    for path, s in space.items():
        if not isinstance(s, Joint):
            if path not in fixed:
                left[path] = s
            continue
        given = [i for i, p in enumerate(s.paths) if p in fixed]
        free = [i for i, p in enumerate(s.paths) if p not in fixed]
        agreeing = [c for c in s.choices if all(c[i] == fixed[s.paths[i]] for i in given)] or s.choices
        others = list(dict.fromkeys(tuple(c[i] for i in free) for c in agreeing))
        if free:
            left[path] = Joint([s.paths[i] for i in free], *others)
    return left


def _by_path(space: Mapping[str, Space], drawn: Mapping[str, Any]) -> dict[str, Any]:
    """The values drawn from the entries of `space`, with joint choices split into one value per path."""
    values: dict[str, Any] = {}
    for path, value in drawn.items():
        values |= value if isinstance(space[path], Joint) else {path: value}
    return values


def _categories(names: Sequence[Value | None]) -> CategoricalDistribution:
    from optuna.distributions import CategoricalDistribution

    kept = [n for i, n in enumerate(names) if not any(_same(n, other) for other in names[:i])]
    return CategoricalDistribution(kept)


def _storable(value: Any) -> Value | None:
    """`value` in a form that Optuna can store: itself if it is a plain value, else its JSON text."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else json.dumps(value)


def _value_of(parameter: Any, values: Sequence[Any], names: Sequence[Any]) -> Any:
    found = [value for value, name in zip(values, names, strict=True) if _same(parameter, name)]
    if not found:
        raise ValueError(f"{parameter!r} is none of {', '.join(map(repr, names))}")
    return found[0]


def _same(a: Any, b: Any) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _evenly_spaced(space: Space, points: int) -> list[Any]:
    """Values at evenly spaced probabilities; fewer than `points` if some are equal in float32."""
    probabilities = np.linspace(0, 1, points) if points > 1 else [0.5]
    return list(dict.fromkeys(space.ppf(float(u)) for u in probabilities))


def _clipped(space: Uniform | LogUniform, value: float | int) -> float:
    """`value` in float32, clipped to the bounds of the space."""
    return float(np.clip(np.float32(value), np.float32(space.low), np.float32(space.high)))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _within(value: int | float, low: int | float, high: int | float) -> bool:
    slack = 1e-6 * max(abs(low), abs(high))
    return low - slack <= value <= high + slack
