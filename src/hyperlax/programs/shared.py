"""Hyperparameters that all lanes of a program share, as constants of that program; others, once per lane."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Array, PyTree

from hyperlax.hyperparams import AbstractHyperparams
from hyperlax.lanes.constants import constant

T = TypeVar("T", bound=PyTree)


def shared_values(samples: Sequence[AbstractHyperparams], varying: Collection[str] = ()) -> dict[str, Any]:
    """The counts, flags and choices that are equal in all `samples`, by dotted path, apart from `varying`.

    Real numbers are never among them, so that a value never causes a new compilation.
    """
    leaves = [_by_path(hp) for hp in samples]
    return {
        path: np.asarray(value).item()
        for path, value in leaves[0].items()
        if np.asarray(value).dtype.kind in "bi"
        and path not in varying
        and all(np.array_equal(other[path], value) for other in leaves)
    }


def _by_path(hp: AbstractHyperparams) -> dict[str, Any]:
    """The leaves of `hp` by dotted path."""
    found = jax.tree_util.tree_flatten_with_path(hp)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in found}


class Shared:
    """Replaces shared hyperparameters by constants in the state of a lane while a program is traced.

    The hyperparameters of a lane are leaves of its agent and, once more, of each of its networks. `find`
    notes where they are in a state that has just been built from `hp`, by the identity of the leaves. With
    `once`, the first of the leaves that hold the same hyperparameter stands for the others, too.
    """

    def __init__(self, values: Mapping[str, Any], once: bool = False):
        self._values, self._once = values, once
        self._places: dict[int, Array] = {}
        self._copies: dict[int, int] = {}

    def find(self, hp: AbstractHyperparams, state: PyTree) -> None:
        """Note the leaves of `state` that are leaves of `hp`, from which it has been built."""
        if not (self._values or self._once):
            return
        paths = {id(leaf): path for path, leaf in _by_path(hp).items()}
        owned = jax.tree.map(
            lambda node: jax.tree.map(lambda _: isinstance(node, AbstractHyperparams), node),
            state,
            is_leaf=lambda node: isinstance(node, AbstractHyperparams),
        )
        leaves = zip(jax.tree.leaves(state), jax.tree.leaves(owned), strict=True)
        found = [(i, paths[id(x)], x.dtype) for i, (x, own) in enumerate(leaves) if own and id(x) in paths]
        self._places = {
            i: constant(np.asarray(self._values[path], dtype))
            for i, path, dtype in found
            if path in self._values
        }
        first: dict[str, int] = {}
        if self._once:
            self._copies = {i: first.setdefault(path, i) for i, path, _ in found if i not in self._places}

    def insert(self, state: T) -> T:
        """`state` with the constants in the places of the shared leaves."""
        leaves, structure = jax.tree.flatten(state)
        leaves = [leaves[self._copies.get(i, i)] for i in range(len(leaves))]
        return jax.tree.unflatten(structure, [self._places.get(i, x) for i, x in enumerate(leaves)])

    def remove(self, state: T, before: T) -> T:
        """`state` with the leaves that `insert` replaced as they are in `before`."""
        old, (leaves, structure) = jax.tree.leaves(before), jax.tree.flatten(state)
        replaced = self._places.keys() | self._copies.keys()
        kept = [old[i] if i in replaced else x for i, x in enumerate(leaves)]
        return jax.tree.unflatten(structure, kept)


NOTHING = Shared({})
"""Shares nothing."""
