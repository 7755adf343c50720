"""What every network shares: the interface, the dense layer, and initialisers that ignore padding."""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import cache
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.extend.core import jaxprs_in_params
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from hyperlax.hyperparams import AbstractHyperparams, trainable
from hyperlax.lanes.masking import lane_loop, row_keys
from hyperlax.lanes.sizes import Sizes
from hyperlax.networks.layout import batch_last
from hyperlax.networks.measurement import Measurement
from hyperlax.typecheck import check_fields


class AbstractNetwork(eqx.Module):
    """A function of one vector; its padded outputs are zero.

    Built by `Class(hp, in_size, caps, key=key)`: `hp` holds what this lane uses, `caps` (static) what is
    allocated, under the names of `hp.sizes()`.
    """

    hp: eqx.AbstractVar[AbstractHyperparams]
    batch_last: eqx.AbstractVar[bool]

    def __check_init__(self):
        check_fields(self)

    @property
    @abstractmethod
    def out_cap(self) -> int:
        """Allocated length of the output."""

    @property
    @abstractmethod
    def out_size(self) -> Int[Array, ""]:
        """How much of the output this lane uses."""

    @abstractmethod
    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        """The features of `x`, zero beyond `out_size`."""

    def measured(self, how: Measurement, key: PRNGKeyArray) -> AbstractNetwork:
        """This network with its circuit measured so; itself when it holds none. For one evaluation."""
        return self

    def step_factors(self) -> AbstractNetwork | None:
        """This network with every weight replaced by its step size relative to the agent's; None: all one."""
        return None


class AbstractNetworkHyperparams(AbstractHyperparams):
    """Hyperparameters of a network: `sizes` and `network` must be given, the rest follows from them."""

    @abstractmethod
    def sizes(self) -> dict[str, Any]:
        """The sizes of this sample by name (`hyperlax.lanes.sizes`); called on a single sample."""

    @abstractmethod
    def network(self, in_size: int, caps: Sizes, *, key: PRNGKeyArray) -> AbstractNetwork:
        """Build the network that these hyperparameters describe, inside the capacities `caps`."""

    def parameter_count(self, in_size: int) -> int:
        """Count the trainable parameters of this sample; called on the host, on a single sample."""
        return self.weights(in_size, self.sizes())

    def out(self, in_size: int) -> int:
        """The length of this sample's output; called on the host, on a single sample."""
        return int(abstract_network(type(self), in_size, self.sizes()).out_cap)

    @classmethod
    def flops(cls, in_size: int, sizes: Sizes) -> float:
        """Count the floating-point operations of one forward pass at `sizes`, for the planner."""
        return _forward_work(cls, in_size, _frozen(sizes))

    @classmethod
    def weights(cls, in_size: int, sizes: Sizes) -> int:
        """Count the weights allocated at `sizes`, for the planner."""
        network = abstract_network(cls, in_size, sizes)
        return sum(math.prod(x.shape) for x in jax.tree.leaves(eqx.filter(network, trainable(network))))

    @staticmethod
    def quick() -> dict[str, Any]:
        """Spaces and values for trying out, by field: so small that a run takes seconds."""
        return {}

    def executions(self, in_size: int) -> tuple[int, int]:
        """Count the quantum circuits run for the output of one input, and for that and its derivatives."""
        return 0, 0

    def measurement_refusal(self, in_size: int, how: Measurement, memory: int) -> str | None:
        """Say why this sample's circuit cannot be measured like that in `memory` bytes; None when it can."""
        return None

    @staticmethod
    def published() -> dict[str, Any]:
        """The settings that reproduce the published protocol, under the names of the fields."""
        return {}

    def refusal(self, in_size: int, memory: int) -> str | None:
        """Say why this sample cannot run in `memory` bytes, whatever else is changed; None when it can."""
        return None


def abstract_network(kind: type[AbstractNetworkHyperparams], in_size: int, sizes: Sizes) -> AbstractNetwork:
    """The structure of a network that allocates `sizes`: shapes and types instead of arrays."""
    return _abstract_network(kind, in_size, _frozen(sizes))


def _frozen(sizes: Sizes) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(sizes.items()))


@cache
def _abstract_network(kind: type[AbstractNetworkHyperparams], in_size: int, sizes: Any) -> AbstractNetwork:
    build: Any = kind
    return eqx.filter_eval_shape(lambda key: build().network(in_size, dict(sizes), key=key), jr.key(0))


@cache
def _forward_work(kind: type[AbstractNetworkHyperparams], in_size: int, sizes: Any) -> float:
    network = _abstract_network(kind, in_size, sizes)
    arrays, rest = eqx.partition(network, lambda x: isinstance(x, jax.ShapeDtypeStruct))
    forward = lambda arrays, x: eqx.combine(arrays, rest)(x)  # noqa: E731
    return operations(jax.make_jaxpr(forward)(arrays, jax.ShapeDtypeStruct((in_size,), jnp.float32)).jaxpr)


def operations(jaxpr: Any) -> float:
    """Count the floating-point operations of a jaxpr: products in full, everything else once per output.

    A loop counts its body as often as it runs where that is known (`scan`), once otherwise; a branch counts
    the largest of its sides.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        inner = [operations(j) for j in jaxprs_in_params(equation.params)]
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            length = math.prod(equation.invars[0].aval.shape[d] for d in contracted)
            total += 2.0 * length * math.prod(equation.outvars[0].aval.shape)
        elif equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            outputs = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            total += 2.0 * math.prod(kernel) / outputs * math.prod(equation.outvars[0].aval.shape)
        elif equation.primitive.name == "cond":
            total += max(inner)
        elif inner:
            total += equation.params.get("length", 1) * sum(inner)
        else:
            total += sum(math.prod(v.aval.shape) for v in equation.outvars)
    return total


def orthogonal(
    key: PRNGKeyArray,
    rows: Int[Array, ""] | int,
    cols: Int[Array, ""] | int,
    row_cap: int,
    col_cap: int,
    scale: float,
) -> Float[Array, "{row_cap} {col_cap}"]:
    """A semi-orthogonal `rows` × `cols` matrix times `scale`, in the corner of a zero matrix of the caps.

    The draw (Saxe et al. 2014: Q of the QR decomposition of a normal matrix, diagonal of R positive) depends
    on the sizes and the key, not on the caps: zero padding leaves the first columns of Q as they are.

    Gram and Schmidt's way, every column twice, which is exact to rounding (Giraud et al. 2005, "Rounding
    error analysis of the classical Gram-Schmidt orthogonalization process"). LAPACK would be faster for large
    squares and slower for heads, and stops for good when several devices call it at once (jaxlib 0.10.2).
    """
    long_cap, short_cap = max(row_cap, col_cap), min(row_cap, col_cap)
    long, short = jnp.maximum(rows, cols), jnp.minimum(rows, cols)
    normal = jax.vmap(lambda k: jr.normal(k, (long_cap,)))(row_keys(key, long_cap))
    vectors = jnp.where(jnp.arange(long_cap)[None] < long, normal[:, :short_cap].T, 0)

    def orthonormalise(i: Any, basis: Float[Array, "short long"]) -> Float[Array, "short long"]:
        vector = jax.lax.dynamic_index_in_dim(vectors, i, keepdims=False)
        for _ in range(2):
            vector = vector - (basis @ vector) @ basis
        unit = vector / jnp.sqrt(jnp.sum(vector**2))
        return jax.lax.dynamic_update_index_in_dim(basis, unit, i, 0)

    basis = lane_loop(short, orthonormalise, jnp.zeros_like(vectors))
    lying = jnp.zeros((long_cap, long_cap)).at[:short_cap].set(basis)
    return scale * jnp.where(jnp.asarray(rows) >= cols, lying.T, lying)[:row_cap, :col_cap]


@final
class Linear(eqx.Module):
    """`weight @ x + bias`, orthogonal weight and zero bias; zero rows and columns stay zero under training.

    A padded unit has zero weights on both sides, so its output, its gradients and every update of them are
    exactly zero: no mask is needed in the forward pass.

    `batch_last` decides where a mapped batch axis lies (see `layout`): [out, batch] is faster on a CPU for
    large batches, [batch, out] for a few samples.
    """

    weight: Float[Array, "out in"]
    bias: Float[Array, " out"]
    batch_last: bool = eqx.field(static=True)

    def __init__(
        self,
        in_size: Int[Array, ""] | int,
        out_size: Int[Array, ""] | int,
        in_cap: int,
        out_cap: int,
        scale: float,
        batch_last: bool = True,
        *,
        key: PRNGKeyArray,
    ):
        self.weight = orthogonal(key, out_size, in_size, out_cap, in_cap, scale)
        self.bias = jnp.zeros(out_cap)
        self.batch_last = batch_last

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        return _linear(self, x) if self.batch_last else self.apply(x)

    def apply(self, x: Float[Array, " in *batch"]) -> Float[Array, " out *batch"]:
        """The same for one vector, or for a batch along the last axis."""
        if x.ndim == 1 and not self.batch_last:
            return x @ self.weight.T + self.bias
        return self.weight @ x + column(self.bias, x)


_linear = batch_last(Linear.apply, "hyperlax_linear")


def column(vector: Shaped[Array, " n"], like: Array) -> Array:
    """`vector` along the first axis of `like`."""
    return vector.reshape(vector.shape + (1,) * (like.ndim - 1))
