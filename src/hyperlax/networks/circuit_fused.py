"""Circuits simulated in one kernel for NVIDIA GPUs, written in Pallas and compiled by Triton.

A program of the kernel simulates one circuit, or several small ones, through all layers. Its threads share
the state, an array with one axis of length two per wire, so that the rotation of a wire is a product of whole
arrays with the state and with the state flipped along one axis. Whether the two amplitudes of a pair lie in
one thread, in two threads of a warp or in two warps is left to Triton. Nothing is unrolled over amplitudes
and the loop over layers is a loop, so that circuits of up to twelve wires compile in seconds.

The backward kernel undoes the layers of ket and bra and stores the matrix elements that all derivatives
follow from. A lane runs through its own layers only, whatever the depth of the others.

The kernels are tested in interpret mode and compile for an H100; they have never run on a GPU or been timed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Int

from hyperlax.networks.circuit_gates import (
    Angles,
    Shared,
    States,
    angle_gradients,
    gates_of,
    turns,
    turns_at_once,
    within,
)

MOST_WIRES = 12
"""Largest circuit; ket and bra of a larger one do not fit into the registers of one block of threads."""
WARP_AMPLITUDES = 256
"""Amplitudes per warp: 8 per thread, so that ket, bra and temporaries take 64 to 128 registers."""
TILED_WIRES = 4
"""Largest circuit of which one program simulates several; for larger ones the code takes long to compile."""
MOST_SAMPLES = 32
LEAST_PROGRAMS = 16
"""A batch that makes fewer programs than this of several circuits each is simulated circuit by circuit."""
ADJACENT_WIRES = 2
"""Number of last wires whose amplitudes are adjacent in memory, hence in the registers of one thread."""


def tile(wires: int, batch: int) -> int:
    """The number of circuits in one program; it divides `batch`."""
    most = min(MOST_SAMPLES, WARP_AMPLITUDES >> wires) if wires <= TILED_WIRES else 1
    return most if batch % most == 0 and batch >= LEAST_PROGRAMS * most else 1


def forward(
    first: Angles,
    second: Shared,
    signs: Float[Array, "2 amplitudes"],
    depth: Int[Array, ""],
    *,
    keep: bool,
    interpret: bool = False,
) -> tuple[Float[Array, "wires batch"], States | None]:
    """⟨σz⟩ of every wire and, with `keep`, the states for `backward`, in an order of their own."""
    layers, wires, batch = first.shape[1:]
    shapes = Shapes(layers, wires, batch, first.dtype)
    out = [shapes.values, shapes.states] if keep else [shapes.values]
    kernel = partial(_forward_kernel, shapes.register)
    z, *states = _launch(kernel, shapes, [], out, interpret)(first, second, signs, depth)
    return z, states[0].reshape(2, signs.shape[1], -1) if keep else None


def backward(
    first: Angles,
    second: Shared,
    signs: Float[Array, "2 amplitudes"],
    depth: Int[Array, ""],
    states: States,
    cotangent: Float[Array, "wires batch"],
    *,
    interpret: bool = False,
) -> tuple[Angles, Shared]:
    """The gradient by `first` and `second`, from the states of `forward` and the cotangent of its ⟨σz⟩."""
    layers, wires, batch = first.shape[1:]
    shapes = Shapes(layers, wires, batch, first.dtype)
    kernel = partial(_backward_kernel, shapes.register)
    out = [shapes.elements, shapes.norms]
    launch = _launch(kernel, shapes, [shapes.states, shapes.values], out, interpret)
    found, squared = launch(first, second, signs, depth, states.reshape(2, -1), cotangent)
    elements = within(depth, (found[0], found[1], found[2]))
    return angle_gradients(elements, squared, turns(first), turns_at_once(second))


class Operand(NamedTuple):
    """An array in memory whose last axis is divided among the programs of a kernel."""

    shape: tuple[int, ...]
    last: int
    """Length of the part of the last axis that one program reads or writes."""

    def spec(self) -> pl.BlockSpec:
        leading = self.shape[:-1]
        return pl.BlockSpec((*leading, self.last), lambda i: (*(0 for _ in leading), i))


class Shapes(NamedTuple):
    """The operands of the kernels, for circuits of a given size."""

    layers: int
    wires: int
    batch: int
    dtype: Any

    @property
    def register(self) -> Register:
        return Register(self.wires, tile(self.wires, self.batch))

    @property
    def values(self) -> Operand:
        return Operand((self.wires, self.batch), self.register.samples)

    @property
    def norms(self) -> Operand:
        return Operand((self.batch,), self.register.samples)

    @property
    def states(self) -> Operand:
        return Operand((2, self.batch << self.wires), self.register.samples << self.wires)

    @property
    def gates(self) -> Operand:
        return Operand((self.layers, self.wires, self.batch), self.register.samples)

    @property
    def elements(self) -> Operand:
        return Operand((3, self.layers, self.wires, self.batch), self.register.samples)


class Register(NamedTuple):
    """The arrangement of the amplitudes of `samples` circuits of `wires` wires in the array of a program.

    The axes are the first wires, the samples if there are several, and the last `ADJACENT_WIRES`.
    """

    wires: int
    samples: int

    @property
    def tail(self) -> int:
        return min(ADJACENT_WIRES, self.wires)

    @property
    def sample_axes(self) -> tuple[int, ...]:
        return (self.samples,) if self.samples > 1 else ()

    @property
    def shape(self) -> tuple[int, ...]:
        return (2,) * (self.wires - self.tail) + self.sample_axes + (2,) * self.tail

    @property
    def here(self) -> Any:
        """The index of all samples in a block; a scalar where there is one, as Triton then reads it once."""
        return slice(None) if self.samples > 1 else 0

    def axis(self, wire: int) -> int:
        return wire if wire < self.wires - self.tail else wire + len(self.sample_axes)

    def per_sample(self, x: Float[Array, "*samples"]) -> Array:
        """`x`, one number per sample, in a shape that broadcasts against the amplitudes."""
        return x.reshape((1,) * (self.wires - self.tail) + self.sample_axes + (1,) * self.tail)

    def per_amplitude(self, x: Float[Array, " amplitudes"]) -> Array:
        """`x`, one number per amplitude, in a shape that broadcasts against the samples."""
        ones = (1,) * len(self.sample_axes)
        return x.reshape((2,) * (self.wires - self.tail) + ones + (2,) * self.tail)

    def sigma(self, wire: int) -> Array:
        """The diagonal of the σz of a wire."""
        axis = self.axis(wire)
        shape = tuple(2 if i == axis else 1 for i in range(len(self.shape)))
        return (1 - 2 * jax.lax.broadcasted_iota(jnp.int32, shape, axis)).astype(jnp.float32)

    def flipped(self, x: Array, wire: int) -> Array:
        """`x` with the two halves along the axis of a wire exchanged.

        Triton can neither reverse nor index an array, but it sums along an axis: the sum of one half and of
        zeros is that half, without rounding. It is a sum of integers, the bits of the numbers, as the
        compiler removes additions of an integer zero, so that within a thread only registers are renamed.

        The sum of both halves less one of them would be half of the work, but takes `x` to have the same bits
        in both: compiled for CPUs by XLA, which may compute `x` twice, it was wrong.
        """
        axis = self.axis(wire)
        words = jax.lax.bitcast_convert_type(x, jnp.int32)
        second = self.sigma(wire) < 0
        halves = (jnp.where(half, words, 0) for half in (~second, second))
        zero, one = (jnp.sum(h, axis=axis, keepdims=True, dtype=jnp.int32) for h in halves)
        return jax.lax.bitcast_convert_type(jnp.where(second, zero, one), x.dtype)

    def total(self, x: Array) -> Float[Array, "*samples"]:
        """The sum of `x` over the amplitudes of every sample."""
        if not self.sample_axes:
            return jnp.sum(x.reshape(-1))
        parts = x.reshape(-1, self.samples, 2**self.tail)
        return jnp.sum(parts, axis=(0, 2))

    def rotated(self, sigma: Array, gate: list[Array], x: Pair, flipped: Sequence[Array]) -> Pair:
        """The state `x` after a gate on the wire of `sigma`; `flipped` is `x` with that wire flipped."""
        a_re, a_im, b_re, b_im = (self.per_sample(g) for g in gate)
        a_im, b_re = sigma * a_im, sigma * b_re
        (re, im), (other_re, other_im) = x, flipped
        return (
            a_re * re - a_im * im - b_re * other_re - b_im * other_im,
            a_re * im + a_im * re - b_re * other_im + b_im * other_re,
        )


Pair = tuple[Array, Array]
"""Real and imaginary part of the amplitudes of a program."""


def _launch(
    kernel: Callable[..., None], shapes: Shapes, more: list[Operand], out: list[Operand], interpret: bool
) -> Callable[..., list[Array]]:
    """The function of (first, second, signs, depth, *`more`) that runs `kernel` for a batch of circuits."""
    register = shapes.register
    how: dict[str, Any] = {"interpret": True}
    if not interpret:
        from jax.experimental.pallas import triton

        warps = max(1, (register.samples << register.wires) // WARP_AMPLITUDES)
        how = {"compiler_params": triton.CompilerParams(num_warps=warps, num_stages=1)}
    every = [
        pl.BlockSpec((1,), lambda i: (0,)),
        pl.BlockSpec((2, 2**shapes.wires), lambda i: (0, 0)),
        *[shapes.gates.spec()] * 4,
    ]
    call = pl.pallas_call(
        kernel,
        grid=(shapes.batch // register.samples,),
        in_specs=[*every, *(x.spec() for x in more)],
        out_specs=[x.spec() for x in out],
        out_shape=[jax.ShapeDtypeStruct(x.shape, shapes.dtype) for x in out],
        name=f"hyperlax_circuit_{'backward' if more else 'forward'}",
        **how,
    )

    def run(first: Angles, second: Shared, signs: Array, depth: Array, *more: Array) -> list[Array]:
        return list(call(depth.reshape(1), signs, *gates_of(first, second), *more))

    return run


def _forward_kernel(register: Register, depth: Any, signs: Any, *rest: Any) -> None:
    """Write ⟨σz⟩ and, if its reference is given, the final state, from the parts of the gates."""
    *gates, z = rest[:5]
    states = rest[5:]
    here = register.here
    sigmas = [register.sigma(w) for w in range(register.wires)]
    start = jnp.ones(register.shape, jnp.float32)
    for sigma in sigmas:
        start = start * (0.5 + 0.5 * sigma)

    def layer(l: Any, x: Pair) -> Pair:
        sign = register.per_amplitude(signs[(l + 1) & 1, :])  # before the first layer it changes nothing
        x = x[0] * sign, x[1] * sign
        for w, sigma in enumerate(sigmas):
            gate = [part[l, w, here] for part in gates]
            x = register.rotated(sigma, gate, x, [register.flipped(part, w) for part in x])
        return x

    re, im = jax.lax.fori_loop(0, depth[0] + 1, layer, (start, jnp.zeros_like(start)))
    squared = re * re + im * im
    for w, sigma in enumerate(sigmas):
        z[w, here] = register.total(sigma * squared)
    for state in states:
        state[0, :], state[1, :] = re.reshape(-1), im.reshape(-1)


def _backward_kernel(register: Register, depth: Any, signs: Any, *rest: Any) -> None:
    """Write Im⟨bra|σ|ket⟩ for all layers in use and the squared norm of the bra, from the parts of the gates,
    the final state and the cotangent.
    """
    *gates, states, cotangent, elements, squared = rest
    here = register.here
    sigmas = [register.sigma(w) for w in range(register.wires)]
    ket = states[0, :].reshape(register.shape), states[1, :].reshape(register.shape)
    observable = jnp.zeros(register.shape, jnp.float32)
    for w, sigma in enumerate(sigmas):
        observable = observable + register.per_sample(cotangent[w, here]) * sigma
    bra = ket[0] * observable, ket[1] * observable
    squared[here] = register.total(bra[0] * bra[0] + bra[1] * bra[1])

    def layer(k: Any, both: tuple[Pair, Pair]) -> tuple[Pair, Pair]:
        l = depth[0] - k
        ket, bra = both
        for w, sigma in enumerate(sigmas):
            a_re, a_im, b_re, b_im = (part[l, w, here] for part in gates)
            inverse = [a_re, -a_im, -b_re, -b_im]
            crossed = [register.flipped(part, w) for part in ket]
            elements[0, l, w, here] = register.total(bra[0] * crossed[1] - bra[1] * crossed[0])
            elements[1, l, w, here] = -register.total(sigma * (bra[0] * crossed[0] + bra[1] * crossed[1]))
            elements[2, l, w, here] = register.total(sigma * (bra[0] * ket[1] - bra[1] * ket[0]))
            ket = register.rotated(sigma, inverse, ket, crossed)
            other = [register.flipped(part, w) for part in bra]
            bra = register.rotated(sigma, inverse, bra, other)
        sign = register.per_amplitude(signs[(l + 1) & 1, :])
        return (ket[0] * sign, ket[1] * sign), (bra[0] * sign, bra[1] * sign)

    jax.lax.fori_loop(0, depth[0] + 1, layer, (ket, bra))
