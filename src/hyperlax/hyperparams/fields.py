"""Hyperparameters as array leaves that carry their search space.

A field made by `hp()` is a scalar array, so a sweep differs in its *values* and never in its program. The
space, the labels of a choice and the help text live in the field's metadata: the sampler, the command line
and the report all read them from there, under the field's dotted path (`actor.width`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32, PyTree

from hyperlax.hyperparams.spaces import Space
from hyperlax.lanes.constants import folded
from hyperlax.lanes.masking import Unfrozen
from hyperlax.registry import convert, nearest
from hyperlax.registry.limits import LARGEST_LEAF
from hyperlax.registry.words import vanishes
from hyperlax.typecheck import check_fields

Real = Float32[Array, ""]
Count = Int32[Array, ""]
Flag = Bool[Array, ""]

_DTYPES: dict[type, Any] = {bool: np.bool_, int: np.int32, float: np.float32, str: np.int32}
H = TypeVar("H", bound="AbstractHyperparams")


class AbstractHyperparams(eqx.Module):
    """Base class of modules whose leaves are hyperparameters: samplers draw them, optimisers skip them.

    `required` names the hyperparameters that a class must declare. (An `eqx.AbstractVar` would say the same,
    but also move the leaf to the place where it is first named, and thereby change what is on disk.)
    `reserved` are names that none of them may have.
    """

    required: ClassVar[tuple[str, ...]] = ()
    reserved: ClassVar[tuple[str, ...]] = ()

    if not TYPE_CHECKING:
        # Planners call methods many thousands of times on the host. Python binds one in 0.1 µs; Equinox makes
        # a PyTree of it in 32 µs, so that transformations can map over it, which these have no use for.
        __getattribute__ = object.__getattribute__

    def __check_init__(self):
        if missing := [name for name in self.required if name not in self.__dataclass_fields__]:
            raise TypeError(
                f"{type(self).__name__} does not declare the hyperparameter {missing[0]!r}, which its base "
                f"class reads; it needs {', '.join(self.required)}"
            )
        if fault := _fault(type(self)):
            raise TypeError(f"{type(self).__name__} {fault}")
        check_fields(self)

    def chosen(self, name: str, label: str) -> Flag:
        """Whether the hyperparameter `name`, which has labels, is `label`; also for traced leaves.

        Raises `ValueError` naming the labels there are when `label` is none of them.
        """
        index = declared(type(self))[name].encode(label)
        return folded(lambda _, leaf: leaf == index, getattr(self, name))

    def label(self, name: str) -> str:
        """The label of the hyperparameter `name`; called on the host, on a single sample."""
        return declared(type(self))[name].decode(getattr(self, name))


class Meaning(NamedTuple):
    """What a hyperparameter means, and where it comes from: a reference of `literature`, or words."""

    text: str
    source: str = ""


@dataclasses.dataclass(frozen=True)
class Field:
    """Description of one hyperparameter: path, default, search space, labels, meaning, bounds and source."""

    path: str
    default: Any
    space: Space | None
    labels: tuple[str, ...] | None
    doc: str
    least: float | int | None = None
    most: float | int = math.inf
    fixed_at_start: bool = False
    source: str = ""

    @property
    def kind(self) -> type:
        return str if self.labels else type(self.default)

    @property
    def lowest(self) -> float | int:
        """`least`, by default one for integers and zero for reals."""
        return (1 if self.kind is int else 0) if self.least is None else self.least

    @property
    def range(self) -> str:
        """The values that it can take, in words: labels, true or false, or bounds."""
        if self.labels:
            return ", ".join(self.labels)
        if self.kind is bool:
            return "true, false"
        if self.most in (math.inf, LARGEST_LEAF):
            return f"at least {self.lowest:g}"
        return f"{self.lowest:g} to {self.most:,}"

    def encode(self, value: Any) -> np.ndarray:
        """`value` as the scalar array stored in the tree; a label becomes its index.

        Raises `ValueError` naming the hyperparameter when the value cannot be one.
        """
        if self.labels:
            if value not in self.labels:
                known = ", ".join(self.labels)
                raise ValueError(f"{self.path} is one of {known}; got {value!r}{nearest(value, self.labels)}")
            return np.asarray(self.labels.index(value), np.int32)
        number = _cast(self.path, value, self.kind)
        if self.kind is not bool and not self.lowest <= number <= self.most:
            bound = f"at least {self.lowest:g}" if number < self.lowest else f"at most {self.most:,}"
            raise ValueError(f"{self.path} must be {bound}, got {value!r}")
        return np.asarray(number, _DTYPES[self.kind])

    def decode(self, leaf: Any) -> Any:
        """The Python value of the scalar array `leaf`; an index of a choice becomes its label."""
        return self.labels[int(leaf)] if self.labels else self.kind(np.asarray(leaf).item())


def hp(
    default: Any,
    space: Space | None = None,
    *,
    labels: tuple[str, ...] | None = None,
    doc: str | Meaning,
    least: float | int | None = None,
    most: float | int = math.inf,
    fixed_at_start: bool = False,
) -> Any:
    """A hyperparameter field holding a scalar array of explicit dtype.

    `default` is a Python bool, int, float, or (with `labels`) a string. `space` is the search space of a
    sweep unless the recipe chooses another; None keeps the hyperparameter fixed. `doc` says what it means; as
    a `Meaning` it also says where it comes from. Numbers below `least` (by default one for integers, zero for
    reals) or above `most` are refused. `fixed_at_start` marks a hyperparameter that must not change after a
    lane has started, because the change would have no effect or would invalidate what has been learned.

    Raises `ValueError` for a space that is none, and for a text without labels.
    """
    doc, source = doc if isinstance(doc, Meaning) else (doc, "")
    if space is not None and not isinstance(space, Space):
        raise ValueError(f'the space of "{doc}" is {space!r}; it must be a space, such as Choice(1, 2)')
    if isinstance(default, str) and not labels:
        raise ValueError(f'"{doc}" is a text, {default!r}; say what it may be: labels=({default!r}, …)')
    field = Field("", default, space, labels, doc, least, most, fixed_at_start, source)
    named = dataclasses.replace(field, path=f"the {doc}")

    def convert(value: Any) -> Any:
        if isinstance(value, (jax.Array, np.ndarray, np.generic)) or not isinstance(
            value, (bool, int, float, str)
        ):
            return value
        return jnp.asarray(named.encode(value))

    return eqx.field(default_factory=lambda: default, converter=convert, metadata={"hyperlax": field})


def fields(tree: AbstractHyperparams) -> Iterator[Field]:
    """Every hyperparameter of `tree`: nested ones (networks) first, then its own, in order of declaration.

    Those that its class inherits follow those that it declares.
    """
    for path, meta, leaf in _leaves(tree, ""):
        yield dataclasses.replace(meta, path=path, default=meta.decode(leaf))


def paths(tree: AbstractHyperparams) -> list[str]:
    """The dotted paths of all hyperparameters of `tree`, in the order of `fields`."""
    return [path for path, _, _ in _leaves(tree, "")]


def _leaves(tree: AbstractHyperparams, prefix: str) -> Iterator[tuple[str, Field, Any]]:
    """The path, the description in the class (which has no path) and the leaf of every hyperparameter."""
    own = _in_order(type(tree))
    for f in own:
        child = getattr(tree, f.name)
        if isinstance(child, AbstractHyperparams):
            yield from _leaves(child, f"{prefix}{f.name}.")
    for f in own:
        if meta := f.metadata.get("hyperlax"):
            yield prefix + f.name, meta, getattr(tree, f.name)


@cache
def _in_order(kind: type[AbstractHyperparams]) -> list[dataclasses.Field[Any]]:
    """The fields of a class in order of declaration, inherited ones last."""
    order = {name: i for i, name in enumerate(kind.__annotations__)}
    return sorted(dataclasses.fields(kind), key=lambda f: order.get(f.name, len(order)))


@cache
def _fault(kind: type[AbstractHyperparams]) -> str | None:
    """What is wrong with the names of the hyperparameters of a class, and the remedy; None if nothing is."""
    attributes = {name: (c.__name__, value) for c in kind.__mro__[::-1] for name, value in vars(c).items()}
    for name, (owner, value) in attributes.items():
        if isinstance(value, dataclasses.Field):
            return (
                f"does not have the hyperparameter {name}, because {owner}, which declares it, is an "
                f"ordinary class; derive {owner} from AbstractHyperparams"
            )
    for name in declared(kind):
        if name in kind.reserved:
            return (
                f"declares the hyperparameter {name}, a name with a meaning of its own; choose another name"
            )
        if name in attributes:
            return (
                f"declares the hyperparameter {name}, which {attributes[name][0]} defines as something else; "
                "choose another name, or declare it anew by hp() to change its default"
            )
    return None


@cache
def declared(kind: type[AbstractHyperparams]) -> Mapping[str, Field]:
    """The hyperparameters of a class by name, nested ones left out; needs no instance."""
    marked = [(f.name, f.metadata["hyperlax"]) for f in dataclasses.fields(kind) if "hyperlax" in f.metadata]
    return MappingProxyType({name: dataclasses.replace(field, path=name) for name, field in marked})


def undeclared(tree: AbstractHyperparams, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of every field of `tree`, and of those nested in it, that `hp()` did not declare.

    Nothing is known of such a field but its value, and samples and the command line cannot name it.
    """
    for f in dataclasses.fields(tree):
        child = getattr(tree, f.name)
        if isinstance(child, AbstractHyperparams):
            yield from undeclared(child, f"{prefix}{f.name}.")
        elif "hyperlax" not in f.metadata:
            yield prefix + f.name, child


def default_of(tree: AbstractHyperparams, name: str) -> Any:
    """The declared default of `tree`'s own hyperparameter `name`."""
    return declared(type(tree))[name].default


def assign(tree: H, values: Mapping[str, Any]) -> H:
    """`tree` with the hyperparameters at the dotted paths of `values` replaced; leaves are NumPy scalars.

    Raises `ValueError` for an unknown path (with the nearest known one) or a value of the wrong kind.
    """
    known = {path: meta for path, meta, _ in _leaves(tree, "")}
    for path in values:
        if path not in known:
            raise ValueError(f'unknown hyperparameter "{path}"{nearest(path, known)}')
    leaves = {path: dataclasses.replace(known[path], path=path).encode(v) for path, v in values.items()}
    return _rebuild(tree, leaves, "")


def values(tree: AbstractHyperparams) -> dict[str, Any]:
    """Every hyperparameter of `tree` (a single sample) by dotted path, decoded."""
    return {path: meta.decode(leaf) for path, meta, leaf in _leaves(tree, "")}


def stack(trees: list[PyTree]) -> PyTree:
    """A batch of samples: every leaf stacked on a new leading axis, on the host."""
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *trees)


def trainable(tree: PyTree) -> PyTree:
    """The filter for `eqx.partition`: inexact arrays (or their shapes), not hyperparameters or buffers."""

    def apart(node: Any) -> bool:
        return isinstance(node, (AbstractHyperparams, Unfrozen))

    def inexact(x: Any) -> bool:
        return isinstance(x, jax.ShapeDtypeStruct) and jnp.issubdtype(x.dtype, jnp.inexact)

    chosen = lambda x: not apart(x) and (eqx.is_inexact_array(x) or inexact(x))  # noqa: E731
    return jax.tree.map(chosen, tree, is_leaf=apart)


def _rebuild(tree: H, leaves: Mapping[str, np.ndarray], prefix: str) -> H:
    changes: dict[str, Any] = {}
    for f in dataclasses.fields(tree):
        child = getattr(tree, f.name)
        if isinstance(child, AbstractHyperparams):
            changes[f.name] = _rebuild(child, leaves, f"{prefix}{f.name}.")
        elif prefix + f.name in leaves:
            changes[f.name] = leaves[prefix + f.name]
    return dataclasses.replace(tree, **changes)


_LARGEST = {int: LARGEST_LEAF, float: float(np.finfo(np.float32).max)}
_SMALLEST = float(np.finfo(np.float32).tiny)
"""The smallest number above zero that processors do not take for zero."""


def _cast(path: str, value: Any, kind: type) -> Any:
    """`value`, or the text of one, as a `kind` that its leaf can hold."""
    number = convert(path, value, kind)
    if kind is not bool and abs(number) > _LARGEST[kind]:
        most = f"{_LARGEST[kind]:,}" if kind is int else f"{_LARGEST[kind]:.3g}"
        bound = f"at most {most}" if number > 0 else f"at least -{most}"
        raise ValueError(f"{path} must be {bound}, got {value!r}")
    vanished = isinstance(value, str) and vanishes(value)
    if kind is float and (vanished or 0 < abs(number) < _SMALLEST):
        raise ValueError(f"{path} must be 0 or at least {_SMALLEST:.3g}, as 32 bits hold, got {value!r}")
    return number
