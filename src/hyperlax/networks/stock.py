"""Networks made from ordinary Equinox modules that map a vector to a vector and may contain functions.

The lanes of a program share the architecture of such a network, and samples with other architectures get
programs of their own. In exchange, nothing has to be masked.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from functools import partial
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from hyperlax.hyperparams import AbstractHyperparams, Field, declared
from hyperlax.lanes.sizes import Shape, Sizes
from hyperlax.networks.base import AbstractNetwork, AbstractNetworkHyperparams


class AbstractStockHyperparams(AbstractNetworkHyperparams):
    """Base class of the hyperparameters of a network whose architecture all lanes of a program share.

    A subclass declares hyperparameters and defines `module`, which builds a module from them. Integers,
    labels and flags make up the architecture and are passed to `module` by name, as Python values. Reals
    differ between lanes; they are array leaves of `self`.
    """

    @abstractmethod
    def module(self, in_size: int, *_: Any, key: PRNGKeyArray, **architecture: Any) -> eqx.Module:
        """Build a module that maps a Float[Array, " in_size"] to a Float[Array, " out"] of any length.

        A subclass names its own hyperparameters: `def module(self, in_size, *, width, activation, key)`.
        """
        # `*_` and `**architecture` together let type checkers accept any names there

    def sizes(self) -> dict[str, Any]:
        return {name: Shape(str(f.decode(getattr(self, name)))) for name, f in self._architecture().items()}

    def network(self, in_size: int, caps: Sizes, *, key: PRNGKeyArray) -> StockNetwork:
        chosen = {name: f.decode(f.encode(caps[name])) for name, f in self._architecture().items()}
        return StockNetwork(self, self.module(in_size, key=key, **chosen), in_size)

    @classmethod
    def _architecture(cls) -> dict[str, Field]:
        """The hyperparameters that make up the architecture, by name."""
        return {name: f for name, f in declared(cls).items() if f.kind is not float}


@final
class StockNetwork(AbstractNetwork):
    """A network made from an ordinary module: its arrays are leaves, and everything else is static.

    Raises `ValueError` for a module that does not map a vector to a vector.
    """

    hp: AbstractHyperparams
    arrays: PyTree
    rest: Rest = eqx.field(static=True)
    length: int = eqx.field(static=True)
    batch_last: bool = eqx.field(static=True)

    def __init__(self, hp: AbstractHyperparams, module: eqx.Module, in_size: int):
        arrays, rest = eqx.partition(module, eqx.is_array)
        self.hp = hp
        self.arrays = jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), arrays)
        self.rest = Rest(rest)
        call: Any = module
        out = eqx.filter_eval_shape(call, jax.ShapeDtypeStruct((in_size,), jnp.float32))
        if not isinstance(out, jax.ShapeDtypeStruct) or out.ndim != 1:
            raise ValueError(
                f"{type(hp).__name__}.module maps a vector of {in_size} numbers to "
                f"{getattr(out, 'shape', type(out).__name__)}; a network returns a vector, of shape (n,)"
            )
        self.length = out.shape[0]
        self.batch_last = False

    @property
    def out_cap(self) -> int:
        return self.length

    @property
    def out_size(self) -> Int[Array, ""]:
        return jnp.asarray(self.length, jnp.int32)

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        return eqx.combine(self.arrays, self.rest.tree)(x)


class Rest:
    """The parts of a module that are not arrays, comparable between modules that the same code has built.

    Functions, such as lambdas, which are new objects in every call, are equal if they have the same code, the
    same defaults and the same values in their closures.
    """

    def __init__(self, tree: PyTree):
        self.tree = tree
        leaves, structure = jax.tree.flatten(tree)
        self.identity = (structure, tuple(_identity(leaf) for leaf in leaves))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rest) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)


def _identity(leaf: Any) -> Hashable:
    """A key that is equal for leaves that behave alike, as far as that can be told."""
    if isinstance(leaf, partial):
        keywords = tuple(sorted((k, _identity(v)) for k, v in leaf.keywords.items()))
        return _identity(leaf.func), tuple(map(_identity, leaf.args)), keywords
    if (code := getattr(leaf, "__code__", None)) is not None:
        around = tuple(_identity(cell.cell_contents) for cell in leaf.__closure__ or ())
        return code, around, tuple(map(_identity, leaf.__defaults__ or ()))
    return leaf if isinstance(leaf, Hashable) else id(leaf)
