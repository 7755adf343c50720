"""Where a batch of observations lies in memory while it passes through a network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


def batch_last(f: Callable[[Any, Any], Any], name: str) -> Callable[[Any, Any], Any]:
    """`f(tree, x)`, which under `vmap` over `x` alone computes on [features, batch], not [batch, features].

    `f` must accept `x` of shape [features] and of shape [features, batch]. Left to itself, `vmap` moves the
    batch to the front, and so does XLA; the product of activations and cotangents that is the gradient of a
    weight matrix then runs at half the speed on a CPU, that of a narrow one at an eighth.

    A barrier where the batch was moved keeps XLA from folding the transposition into the products around it.

    Everywhere else (alone, under `grad` inside `vmap`, with other weights in every lane) it is plain `f`.
    """
    primitive = Primitive(name)

    def plain(*arguments: Any, treedef: Any) -> Any:
        *leaves, x = arguments
        return f(jax.tree.unflatten(treedef, leaves), x)

    def abstract(*arguments: Any, treedef: Any) -> ShapedArray:
        like = jax.eval_shape(partial(plain, treedef=treedef), *arguments)
        return ShapedArray(like.shape, like.dtype)

    def batched(arguments: Any, dims: Any, treedef: Any) -> tuple[Any, int]:
        *leaves, x = arguments
        if any(d is not None for d in dims[:-1]) or x.ndim != 2:
            return jax.vmap(partial(plain, treedef=treedef), dims)(*arguments), 0
        if dims[-1] == 0:
            x = jax.lax.optimization_barrier(x.T)
        return plain(*leaves, x, treedef=treedef), 1

    def differentiated(primals: Any, tangents: Any, treedef: Any) -> tuple[Any, Any]:
        moving = [i for i, t in enumerate(tangents) if type(t) is not ad.Zero]

        def of_moving(*values: Any) -> Any:
            arguments = list(primals)
            for i, value in zip(moving, values, strict=True):
                arguments[i] = value
            return plain(*arguments, treedef=treedef)

        return jax.jvp(of_moving, [primals[i] for i in moving], [tangents[i] for i in moving])

    primitive.def_impl(plain)
    primitive.def_abstract_eval(abstract)
    batching.primitive_batchers[primitive] = batched
    ad.primitive_jvps[primitive] = differentiated
    mlir.register_lowering(primitive, mlir.lower_fun(plain, multiple_results=False))

    def call(tree: Any, x: Any) -> Any:
        leaves, treedef = jax.tree.flatten(tree)
        return primitive.bind(*leaves, x, treedef=treedef)

    return call
