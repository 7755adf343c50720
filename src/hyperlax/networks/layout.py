"""Memory layout of a batch of observations while it passes through a network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from hyperlax.lanes.constants import accelerated

MATVECS = 8
"""The most outputs for each of which the gradient of its weights is a matrix-vector product of its own.

On a CPU, these take less time than one product of narrow matrices.
"""


def batch_last(f: Callable[[Any, Any], Any], name: str) -> Callable[[Any, Any], Any]:
    """Wrap `f(tree, x)` so that `vmap` over `x` alone calls it on [features, batch] instead of many times.

    `f` must accept `x` of shape [features] and of shape [features, batch]. By default, both `vmap` and XLA
    move the batch axis to the front. The gradient of a weight matrix is then a product of activations and
    cotangents that runs at half the speed on a CPU, and at an eighth for narrow matrices.

    Where the batch axis is moved, an optimisation barrier keeps XLA from merging the transposition into the
    neighbouring products. In all other cases (without `vmap`, under `grad` inside `vmap`, or with weights
    that differ between lanes) the result is plain `f`. `name` becomes the name of the primitive in jaxprs.

    With jaxlib 0.10.2, XLA for CPUs aborts while it compiles a program for several lanes that returns both
    the gradient by `x`, whose transposition it merges into a product of matrices, and that by weights or
    biases; 0.11 and 0.12 do not. Agents return no gradient by `x`, and a derivative without a barrier makes
    SAC 3-4 % slower.
    """
    return _of_a_batch(f, name, last=True)


def batch_first(f: Callable[[Any, Any], Any], name: str) -> Callable[[Any, Any], Any]:
    """Wrap `f(tree, x)` so that `vmap` over `x` alone calls it on [batch, features].

    `f` must accept `x` of shape [features] and of shape [batch, features]. It then knows of the batch, so
    that it can say how its gradient is computed. In all other cases the result is plain `f`, as for
    `batch_last`.
    """
    return _of_a_batch(f, name, last=False)


def _of_a_batch(f: Callable[[Any, Any], Any], name: str, last: bool) -> Callable[[Any, Any], Any]:
    """Wrap `f(tree, x)` for `batch_last` or `batch_first`."""
    primitive = Primitive(name)

    def plain(*arguments: Any, treedef: Any) -> Any:
        *leaves, x = arguments
        return f(jax.tree.unflatten(treedef, leaves), x)

    def abstract(*arguments: Any, treedef: Any) -> ShapedArray:
        like = jax.eval_shape(partial(plain, treedef=treedef), *arguments)
        return ShapedArray(like.shape, like.dtype)

    def batched(arguments: Any, dims: Any, treedef: Any) -> tuple[Any, int]:
        *leaves, x = map(jnp.asarray, arguments)
        if any(d is not None for d in dims[:-1]) or x.ndim != 2:
            return jax.vmap(partial(plain, treedef=treedef), dims)(*arguments), 0
        if not last:
            return plain(*leaves, x.T if dims[-1] == 1 else x, treedef=treedef), 0
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


def affine_map(
    weight: Float[Array, "out in"], bias: Float[Array, " out"], x: Float[Array, " in *batch"]
) -> Float[Array, " out *batch"]:
    """`weight @ x + bias` for one vector, or for a batch of vectors along the last axis.

    On a CPU, `vmap` over single vectors multiplies them as rows of one matrix.
    """
    if x.ndim == 2:
        return _of_batch(weight, bias, x)
    return weight @ x + bias if accelerated() else _affine((weight, bias), x)


@jax.custom_jvp
def _of_batch(
    weight: Float[Array, "out in"], bias: Float[Array, " out"], x: Float[Array, "in batch"]
) -> Float[Array, "out batch"]:
    """`weight @ x + bias`, whose gradient is as fast on a CPU as its matrix products.

    A loss has its batch axis in front. Without a barrier, XLA merges the transposition of its gradient into
    the product for the weights, which then becomes a plain loop: for 2,048 samples, 64 inputs and 2 outputs
    that takes 380 us in place of 12. A single output has no barrier: with one, XLA computes its gradient
    anew for every input. The gradient of the bias is a product with a vector of ones, which takes a
    third of the time of a sum along rows.

    The gradient of `x` reads a transposed copy of the weights. Without it, both factors are summed over
    their first axis; XLA leaves such products to Eigen, which splits long sums among threads, so that their
    bits depend on the number of cores (jaxlib 0.10.2). YNNPACK, which multiplies the copy, is as fast.
    """
    return weight @ x + bias[:, None]


@partial(_of_batch.defjvp, symbolic_zeros=True)
def _of_batch_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    (weight, _, x), (dweight, dbias, dx) = primals, tangents
    parts = []
    if not isinstance(dweight, SymbolicZero):
        few = weight.shape[0] <= MATVECS
        parts.append(jnp.stack([row @ x for row in dweight]) if few else dweight @ x)
    if not isinstance(dbias, SymbolicZero):
        parts.append(dbias[:, None] @ jnp.ones((1, x.shape[1])))
    if not isinstance(dx, SymbolicZero):
        parts.append(jax.lax.optimization_barrier(weight.T).T @ dx)
    tangent = sum(parts[1:], start=parts[0])
    return _of_batch(*primals), tangent if weight.shape[0] == 1 else jax.lax.optimization_barrier(tangent)


@jax.custom_jvp
def _of_rows(
    weight: Float[Array, "out in"], bias: Float[Array, " out"], x: Float[Array, "batch in"]
) -> Float[Array, "batch out"]:
    """`x @ weight.T + bias`, whose gradient has the same bits with any number of cores.

    The gradient of the weights reads a transposed copy of the cotangents, for the reason that `_of_batch`
    gives. With 16 to 2,048 samples it takes 0.4-1.1 of the time of a product over the first axis of both.
    """
    return x @ weight.T + bias[None]


@partial(_of_rows.defjvp, symbolic_zeros=True)
def _of_rows_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    (weight, _, x), (dweight, dbias, dx) = primals, tangents
    parts = []
    if not isinstance(dweight, SymbolicZero):
        parts.append(jax.lax.optimization_barrier(dweight @ x.T).T)
    if not isinstance(dbias, SymbolicZero):
        parts.append(jnp.broadcast_to(dbias, (x.shape[0], dbias.shape[0])))
    if not isinstance(dx, SymbolicZero):
        parts.append(dx @ weight.T)
    return _of_rows(*primals), sum(parts[1:], start=parts[0])


_affine = batch_first(lambda w, x: _of_rows(*w, x) if x.ndim == 2 else w[0] @ x + w[1], "hyperlax_affine_map")
