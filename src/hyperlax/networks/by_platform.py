"""Operations whose implementation is chosen for the platform that a program is compiled for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

KNOWN = ("cpu", "cuda")
"""Platforms that implementations are told by name; all others are `other`."""


def by_platform(
    name: str, run: Callable[..., tuple[Any, ...]], like: Callable[..., tuple[Any, ...]]
) -> Callable[..., tuple[Any, ...]]:
    """An operation on arrays that calls `run(platform, *arrays, **static)` when a program is lowered.

    The platform is thus that of the program, also where a program is compiled for another machine, and only
    the implementation for it is traced. `like(*arrays, **static)` returns arrays of the shapes and dtypes of
    the result; its values do not matter. Static arguments are passed by keyword, and can be hashed.

    The operation can be mapped, but not differentiated, and code in `run` does not see the names of mapped
    axes. `name` becomes the name of the primitive in jaxprs.
    """
    primitive = Primitive(name)
    primitive.multiple_results = True

    def mapped(f: Callable[..., Any], axes: tuple[Any, ...]) -> Callable[..., Any]:
        for dims in axes:
            f = jax.vmap(f, dims)
        return f

    def abstract(*arrays: Any, axes: tuple[Any, ...], **static: Any) -> list[ShapedArray]:
        shapes = jax.eval_shape(mapped(partial(like, **static), axes), *arrays)
        return [ShapedArray(x.shape, x.dtype) for x in shapes]

    def batched(arrays: Any, dims: Any, *, axes: tuple[Any, ...], **static: Any) -> tuple[Any, Any]:
        out = primitive.bind(*arrays, axes=(*axes, tuple(dims)), **static)
        return out, (0,) * len(out)

    def lower(platform: str) -> Any:
        def call(*arrays: Any, axes: tuple[Any, ...], **static: Any) -> Any:
            return mapped(partial(run, platform, **static), axes)(*arrays)

        return mlir.lower_fun(call, multiple_results=True)

    @cache
    def compiled(**parameters: Any) -> Callable[..., Any]:
        return jax.jit(partial(primitive.bind, **parameters))

    primitive.def_impl(lambda *arrays, **parameters: compiled(**parameters)(*arrays))
    primitive.def_abstract_eval(abstract)
    batching.primitive_batchers[primitive] = batched
    for platform in KNOWN:
        mlir.register_lowering(primitive, lower(platform), platform=platform)
    mlir.register_lowering(primitive, lower("other"))

    def call(*arrays: Any, **static: Any) -> tuple[Any, ...]:
        return tuple(primitive.bind(*arrays, axes=(), **static))

    return call
