"""Functions of one row whose traces are long, such as a simulator's step, as single operations of a program.

Transforming a program (`vmap` over environments and lanes, loops, conditions) goes through it equation by
equation, in Python, several times. Here the thousands of equations of a simulator's step are a single one
until the program is lowered: axes that `vmap` adds are merged into an axis of rows, and the step for so many
rows is traced once in a process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
from jax.interpreters import ad, batching, mlir


class RowFunction:
    """A function of arrays, or trees of them, that runs once for all arguments of the same shapes and dtypes.

    It must be pure, must not use traced values that are not among its arguments, and is recorded at its first
    call. It can be jitted, mapped and differentiated; inside a `vmap`, it cannot refer to the mapped axis by
    name.
    """

    def __init__(self, function: Callable[..., Any]):
        self._function = function
        self._records: dict[Any, tuple[Any, Any]] = {}

    def __call__(self, *args: Any) -> Any:
        leaves, structure = jax.tree.flatten(args)
        leaves = [jnp.asarray(x) for x in leaves]
        like = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]
        case = structure, tuple((x.shape, x.dtype) for x in like)
        if case not in self._records:
            example = jax.tree.unflatten(structure, like)
            jaxpr, out = jax.make_jaxpr(self._function, return_shape=True)(*example)
            self._records[case] = jaxpr, jax.tree.structure(out)
        jaxpr, returned = self._records[case]
        out = _rows.bind(*[jax.lax.expand_dims(x, (0,)) for x in leaves], jaxpr=jaxpr)
        return jax.tree.unflatten(returned, [jax.lax.squeeze(x, (0,)) for x in out])


_rows = jax.extend.core.Primitive("rows")
"""A jaxpr of one row, for all rows along the leading axis of its arguments and results."""
_rows.multiple_results = True


@cache
def _mapped(jaxpr: Any) -> Callable[..., Sequence[Any]]:
    """`jaxpr` for any number of rows; jit keeps the trace for every number."""
    return jax.jit(jax.vmap(jax.extend.core.jaxpr_as_fun(jaxpr)))


def _apply(*rows: Any, jaxpr: Any) -> Sequence[Any]:
    return _mapped(jaxpr)(*rows)


def _shapes(*rows: Any, jaxpr: Any) -> list[Any]:
    return [aval.update(shape=(rows[0].shape[0], *aval.shape), weak_type=False) for aval in jaxpr.out_avals]


def _batched(rows: Sequence[Any], axes: Sequence[Any], *, jaxpr: Any) -> tuple[list[Any], list[int]]:
    """Merge a mapped axis into that of the rows."""
    size = next(x.shape[axis] for x, axis in zip(rows, axes, strict=True) if axis is not None)
    full = [
        jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(rows, axes, strict=True)
    ]
    count = full[0].shape[1]
    out = _rows.bind(*[x.reshape(size * count, *x.shape[2:]) for x in full], jaxpr=jaxpr)
    return [x.reshape(size, count, *x.shape[1:]) for x in out], [0] * len(out)


def _differentiated(rows: Sequence[Any], tangents: Sequence[Any], *, jaxpr: Any) -> Any:
    return jax.jvp(_mapped(jaxpr), list(rows), [ad.instantiate_zeros(t) for t in tangents])


_rows.def_impl(_apply)
_rows.def_abstract_eval(_shapes)
batching.primitive_batchers[_rows] = _batched
ad.primitive_jvps[_rows] = _differentiated
mlir.register_lowering(_rows, mlir.lower_fun(_apply, multiple_results=True))
