"""Memory layout of a batch of observations while it passes through a network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


def batch_last(f: Callable[[Any, Any], Any], name: str) -> Callable[[Any, Any], Any]:
    """Wrap `f(tree, x)` so that `vmap` over `x` alone calls it on [features, batch] instead of many times.

    `f` must accept `x` of shape [features] and of shape [features, batch]. By default, both `vmap` and XLA
    move the batch axis to the front. The gradient of a weight matrix is then a product of activations and
    cotangents that runs at half the speed on a CPU, and at an eighth for narrow matrices.

    Where the batch axis is moved, an optimisation barrier keeps XLA from merging the transposition into the
    neighbouring products. In all other cases (without `vmap`, under `grad` inside `vmap`, or with weights
    that differ between lanes) the result is plain `f`. `name` becomes the name of the primitive in jaxprs.
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
