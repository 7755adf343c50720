"""Results that many tables and charts of a report need, computed once for every experiment."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from hyperlax.storage.results import Results

P = ParamSpec("P")
T = TypeVar("T")


def once(function: Callable[Concatenate[Results, P], T]) -> Callable[Concatenate[Results, P], T]:
    """Make a function of results remember what it returned for the same object and arguments.

    `Results` are not changed after they are made, and what is returned must not be changed either. It is
    forgotten with the object. Arguments other than the results must be hashable.
    """
    known: dict[int, dict[object, T]] = {}

    @functools.wraps(function)
    def remembered(results: Results, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if id(results) not in known:
            known[id(results)] = {}
            weakref.finalize(results, known.pop, id(results), None).atexit = False
        own, asked = known[id(results)], (args, tuple(sorted(kwargs.items())))
        if asked not in own:
            own[asked] = function(results, *args, **kwargs)
        return own[asked]

    return remembered
