"""What every network shares: the interface, the dense layer, and initialisers that ignore padding."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, Shaped

from hyperlax.hyperparams import AbstractHyperparams
from hyperlax.lanes.masking import lane_loop, row_keys
from hyperlax.networks.layout import batch_last
from hyperlax.networks.measurement import Measurement

Sizes = Mapping[str, Any]
"""What shapes a computation, by name: an integer size, or the frozenset of branches taken.

For one sample it says what the sample uses; as capacities, what a program allocates: the largest size and
every branch of its lanes.
"""


def sizes_to_json(sizes: Sizes) -> dict[str, Any]:
    """`sizes` as JSON-ready values."""
    return {k: {"branches": sorted(v)} if isinstance(v, frozenset) else v for k, v in sizes.items()}


def sizes_from_json(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """What `sizes_to_json` was given."""

    def value(v: Any) -> Any:
        if isinstance(v, dict):
            return frozenset(v["branches"])
        return tuple(v) if isinstance(v, list) else v

    return {k: value(v) for k, v in sizes.items()}


class AbstractNetwork(eqx.Module):
    """A function of one vector; its padded outputs are zero.

    Built by `Class(hp, in_size, caps, key=key)`: `hp` holds what this lane uses, `caps` (static) what is
    allocated, under the names of `hp.sizes()`.
    """

    hp: eqx.AbstractVar[AbstractHyperparams]
    batch_last: eqx.AbstractVar[bool]

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

    def measured(self, how: Measurement, key: Any) -> AbstractNetwork:
        """This network with its circuit measured so; itself when it holds none. For one evaluation."""
        return self

    def step_factors(self) -> AbstractNetwork | None:
        """This network with every weight replaced by its step size relative to the agent's; None: all one."""
        return None


class AbstractNetworkHyperparams(AbstractHyperparams):
    """Hyperparameters of a network."""

    @abstractmethod
    def sizes(self) -> dict[str, Any]:
        """The sizes this sample uses; called on the host, on a single sample."""

    @abstractmethod
    def network(self, in_size: int, caps: Sizes, *, key: Any) -> AbstractNetwork:
        """The network these hyperparameters describe, inside the capacities `caps`."""

    @abstractmethod
    def parameter_count(self, in_size: int) -> int:
        """Trainable parameters this sample uses; called on the host, on a single sample."""

    @staticmethod
    @abstractmethod
    def flops(in_size: int, sizes: Sizes) -> float:
        """Floating-point operations of one forward pass at `sizes`, for the planner."""

    @staticmethod
    @abstractmethod
    def weights(in_size: int, sizes: Sizes) -> int:
        """Weights allocated at `sizes`, for the planner."""

    @staticmethod
    @abstractmethod
    def quick() -> dict[str, Any]:
        """Spaces and values for trying out, under the names of the fields."""

    @abstractmethod
    def out(self, in_size: int) -> int:
        """Length of the output this sample uses; called on the host, on a single sample."""

    def executions(self, in_size: int) -> tuple[int, int]:
        """Quantum circuits run for the output of one input, and for that and its derivatives."""
        return 0, 0

    def measurement_refusal(self, in_size: int, how: Measurement, memory: int) -> str | None:
        """Why this sample's circuit cannot be measured so in so many bytes; None when it can."""
        return None

    @staticmethod
    def published() -> dict[str, Any]:
        """The settings that reproduce the published protocol, under the names of the fields."""
        return {}

    def refusal(self, in_size: int, memory: int) -> str | None:
        """Why this sample cannot run in so many bytes, whatever else is changed; None when it can."""
        return None


def orthogonal(
    key: Any, rows: Int[Array, ""] | int, cols: Int[Array, ""] | int, row_cap: int, col_cap: int, scale: float
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
        key: Any,
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
