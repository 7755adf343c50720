"""Networks made from ordinary Equinox modules that map a vector to a vector and may contain functions.

The lanes of a program share the architecture of such a network, and samples with other architectures get
programs of their own. In exchange, nothing has to be masked.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from hyperlax.hyperparams import AbstractHyperparams, Field, declared
from hyperlax.lanes.sizes import Shape, Sizes
from hyperlax.networks.base import AbstractNetwork, AbstractNetworkHyperparams, output
from hyperlax.networks.plain import PlainLayer


class AbstractStockHyperparams(AbstractNetworkHyperparams):
    """Base class of the hyperparameters of a network whose architecture all lanes of a program share.

    A subclass declares hyperparameters and defines `module`, which builds a module from them. Integers,
    labels and flags make up the architecture and are passed to `module` by name, as Python values. Reals
    differ between lanes; they are array leaves of `self`. A module that holds one of them as a field, as it
    is, gets its present value in every call, and it is not trained; what is computed from one is a weight.
    """

    reserved: ClassVar[tuple[str, ...]] = ("self", "in_size", "key", "batch_last")

    @abstractmethod
    def module(self, in_size: int, *_: Any, key: PRNGKeyArray, **architecture: Any) -> eqx.Module:
        """Build a module that maps a Float[Array, " in_size"] to a Float[Array, " out"] of any length.

        A subclass names its own hyperparameters: `def module(self, in_size, *, width, activation, key)`.
        """
        # `*_` and `**architecture` together let type checkers accept any names there

    def plain(self, module: Any) -> tuple[PlainLayer, ...]:
        """Say what dense layers `module` consists of, as `AbstractNetwork.plain` does; for export.

        Raises `ValueError` for a class that does not say.
        """
        name = type(self).__name__
        raise ValueError(
            f"{name} does not say which dense layers its module has, and only these can be exported; "
            f"define plain(self, module) on {name}, or use Policy.act"
        )

    def sizes(self) -> dict[str, Any]:
        return {name: Shape(str(f.decode(getattr(self, name)))) for name, f in self._architecture().items()}

    def network(self, in_size: int, caps: Sizes, *, key: PRNGKeyArray) -> StockNetwork:
        chosen = {name: f.decode(f.encode(caps[name])) for name, f in self._architecture().items()}
        # a module may call asarray on a leaf: it gets this object back, by which the leaf is recognised
        hp = jax.tree.map(jnp.asarray, self)
        return StockNetwork(hp, hp.module(in_size, key=key, **chosen), in_size)

    @classmethod
    def _architecture(cls) -> dict[str, Field]:
        """The hyperparameters that make up the architecture, by name."""
        return {name: f for name, f in declared(cls).items() if f.kind is not float}


@final
class StockNetwork(AbstractNetwork):
    """A network made from an ordinary module: its arrays are leaves, and everything else is static.

    Fields of the module that are hyperparameters are not among the leaves: they are read from `hp`.

    Raises `ValueError` for a module that does not map a vector to a vector, and for one with a function that
    encloses an array.
    """

    hp: AbstractHyperparams
    arrays: PyTree
    rest: Rest = eqx.field(static=True)
    length: int = eqx.field(static=True)
    batch_last: bool = eqx.field(static=True)

    def __init__(self, hp: AbstractHyperparams, module: eqx.Module, in_size: int):
        own = {id(leaf): place for place, leaf in enumerate(jax.tree.leaves(hp))}
        leaves, structure = jax.tree.flatten(module)
        module = jax.tree.unflatten(_as_before(structure), leaves)
        module = jax.tree.map(lambda x: FromHyperparams(own[id(x)]) if id(x) in own else x, module)
        arrays, rest = eqx.partition(module, eqx.is_array)
        self.hp = hp
        self.arrays = jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), arrays)
        if enclosed := _enclosed(rest):
            raise ValueError(
                f"{type(hp).__name__}.module returns a module with the function {enclosed}, which encloses "
                "an array; keep the array, or the hyperparameter, as a field of a module"
            )
        self.rest = Rest(rest)
        out = output(self._module(), in_size, f"{type(hp).__name__}.module")
        self.length = out.shape[0]
        self.batch_last = False

    @property
    def out_cap(self) -> int:
        return self.length

    @property
    def out_size(self) -> Int[Array, ""]:
        return jnp.asarray(self.length, jnp.int32)

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        return self._module()(x)

    def plain(self) -> tuple[PlainLayer, ...]:
        hp: Any = self.hp
        return hp.plain(self._module())

    def _module(self) -> Any:
        """The module with the present hyperparameters."""
        values = jax.tree.leaves(self.hp)
        rest = jax.tree.map(
            lambda x: values[x.place] if isinstance(x, FromHyperparams) else x, self.rest.tree
        )
        return eqx.combine(self.arrays, rest)


@dataclass(frozen=True)
class FromHyperparams:
    """Stands in a module for a hyperparameter: the place of its leaf among those of `hp`."""

    place: int


_structures: dict[Hashable, Any] = {}
"""The structures of modules, each as it was first met."""


def _as_before(structure: Any) -> Any:
    """The structure that was met first among those that behave like `structure`.

    A program needs equal structures whenever it builds the module, and their static fields may hold functions
    that are new each time. A function that encloses an array is left to be found (see `_enclosed`).
    """
    if _encloses(_held(structure), set()):
        return structure
    return _structures.setdefault(_identity(_held(structure)), structure)


def _held(structure: Any) -> Any:
    """The kinds of the nodes of a tree, and what they hold beside their children, such as static fields."""
    return structure.node_data(), [_held(child) for child in structure.children()]


class Rest:
    """The parts of a module that are not arrays, comparable between modules that the same code has built.

    Functions, such as lambdas, which are new objects in every call, are equal if they have the same code, the
    same defaults and the same values in their closures; methods also need equal objects that they are bound
    to. Objects that do not say what they are equal to are equal if they have the same attributes.
    """

    def __init__(self, tree: PyTree):
        self.tree = tree
        leaves, structure = jax.tree.flatten(tree)
        self.identity = _identity((_held(structure), leaves))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rest) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)


def _identity(leaf: Any, within: tuple[int, ...] = ()) -> Hashable:
    """A key that is equal for leaves that behave alike, as far as that can be told.

    `within` holds the ids of what `leaf` is a part of.
    """
    if id(leaf) in within:  # it refers to itself
        return within.index(id(leaf))
    same = partial(_identity, within=(*within, id(leaf)))
    if isinstance(leaf, list | tuple):
        return type(leaf), tuple(map(same, leaf))
    if isinstance(leaf, dict):
        return dict, tuple((same(key), same(value)) for key, value in leaf.items())
    if isinstance(leaf, partial):
        keywords = tuple(sorted((k, same(v)) for k, v in leaf.keywords.items()))
        return same(leaf.func), tuple(map(same, leaf.args)), keywords
    if (code := getattr(leaf, "__code__", None)) is not None:
        around = tuple(same(cell.cell_contents) for cell in leaf.__closure__ or ())
        by_name = tuple(sorted((k, same(v)) for k, v in (leaf.__kwdefaults__ or {}).items()))
        bound_to = same(getattr(leaf, "__self__", None))
        return code, around, tuple(map(same, leaf.__defaults__ or ())), by_name, bound_to
    if _known_by_attributes(leaf):
        return type(leaf), same(vars(leaf))
    return (type(leaf), leaf) if isinstance(leaf, Hashable) else id(leaf)


def _known_by_attributes(value: Any) -> bool:
    """Whether an object, which has attributes, does not say itself what it is equal to."""
    return type(value).__hash__ is object.__hash__ and not callable(value) and hasattr(value, "__dict__")


def _enclosed(tree: PyTree) -> str | None:
    """The name of a function in `tree` that encloses an array which is being traced; None if none does."""
    leaves, structure = jax.tree.flatten(tree)
    among = jax.tree.leaves((leaves, _held(structure)))
    found = next((leaf for leaf in among if _encloses(leaf, set())), None)
    return None if found is None else getattr(found, "__qualname__", repr(found))


def _encloses(value: Any, seen: set[int]) -> bool:
    """Whether `value` is a traced array, or holds one; what has been `seen` is left out."""
    if isinstance(value, Tracer) or id(value) in seen:
        return id(value) not in seen
    seen.add(id(value))
    if isinstance(value, partial):
        inside = [value.func, *value.args, *value.keywords.values()]
    elif getattr(value, "__code__", None) is not None:
        defaults = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        inside = [cell.cell_contents for cell in value.__closure__ or ()] + defaults
        inside.append(getattr(value, "__self__", None))
    elif _known_by_attributes(value):
        inside = [*vars(value).values()]
    else:
        inside = [leaf for leaf in jax.tree.leaves(value) if leaf is not value]
    return any(_encloses(x, seen) for x in inside)
